"""Weight files: lookup, download, checksum, safe reading."""

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import torch
from safetensors.torch import load_file
from torch import Tensor

from mafr.config import Config
from mafr.data.acquire.checksum import file_sha256
from mafr.disk import writing
from mafr.errors import MafrError, WeightsError
from mafr.paths import Paths


@dataclass(frozen=True)
class WeightFile:
    """One downloaded file.

    Attributes:
        title, use: its name and purpose, in words.
        names: its possible names in the weights folder; downloads get the first.
        address: where it is published. other: address of the same weights under the last of `names`, or "".
        sha256: of the file (hex), or "" where none is published. hub: the Hugging Face repository, or "".
    """

    title: str
    use: str
    names: tuple[str, ...]
    address: str
    sha256: str = ""
    hub: str = ""
    other: str = ""


HUB_FILE = "model.safetensors"
_TIMM_RELEASE = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights"
DINO = WeightFile(
    "DINO ViT-B/8",
    "image features",
    ("dino_vitb8.safetensors", "dino_vitbase8_pretrain.pth"),
    f"https://huggingface.co/timm/vit_base_patch8_224.dino/resolve/main/{HUB_FILE}",
    hub="timm/vit_base_patch8_224.dino",
    other="https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
)
POINTMAE = WeightFile(
    "Point-MAE",
    "point features",
    ("pointmae_pretrain.pth", "pretrain.pth"),
    "https://github.com/Pang-Yatian/Point-MAE/releases/download/main/pretrain.pth",
    sha256="27ded932bb0a2625d5a8eb006df199b2578598c774aee6d86b985300b6a5fd20",
)
WIDE_RESNET = WeightFile(
    "WideResNet-50-2",
    "image features of BTF",
    ("wide_resnet50_2.safetensors", "wide_resnet50_racm-8234f177.pth"),
    f"https://huggingface.co/timm/wide_resnet50_2.racm_in1k/resolve/main/{HUB_FILE}",
    hub="timm/wide_resnet50_2.racm_in1k",
    other=f"{_TIMM_RELEASE}/wide_resnet50_racm-8234f177.pth",
)
# The weights of efficientnet_pytorch's `efficientnet-b5` are those trained with AutoAugment; timm's "aa" are the same.
EFFICIENTNET_B5 = WeightFile(
    "EfficientNet-B5",
    "image features of AST",
    ("efficientnet_b5.safetensors", "tf_efficientnet_b5_aa-99018a74.pth"),
    f"https://huggingface.co/timm/tf_efficientnet_b5.aa_in1k/resolve/main/{HUB_FILE}",
    hub="timm/tf_efficientnet_b5.aa_in1k",
    other=f"{_TIMM_RELEASE}/tf_efficientnet_b5_aa-99018a74.pth",
)


def needed_files(config: Config) -> tuple[WeightFile, ...]:
    """The files that a configuration's backbones need beside those installed with the package."""
    if config.random_weights:
        return ()
    named = {DINO: config.rgb_backbone == "dino_vitb8", POINTMAE: config.point_backbone == "pointmae"}
    return tuple(file for file, wanted in named.items() if wanted)


def find_file(file: WeightFile, folder: Path) -> Path | None:
    """The file in `folder`, else in the Hugging Face hub's cache; None where it is in neither. Uses no network."""
    for name in file.names:
        if (folder / name).is_file():
            return folder / name
    cached = huggingface_hub.try_to_load_from_cache(file.hub, HUB_FILE) if file.hub else None
    return Path(cached) if isinstance(cached, str) else None


def expected_sha256(file: WeightFile, path: Path) -> str:
    """The SHA-256 that a file found at `path` must have, or "" where none is known."""
    blob = path.resolve().name  # the hub's cache names its files by their SHA-256
    return file.sha256 or (blob if re.fullmatch(r"[0-9a-f]{64}", blob) else "")


def check_file(file: WeightFile, path: Path) -> str:
    """The SHA-256 (hex) of a found file. Raises WeightsError where another one is known."""
    found, expected = file_sha256(path), expected_sha256(file, path)
    if expected and found != expected:
        raise WeightsError(
            f"{path} has SHA-256 {found} instead of {expected}; delete it and download {file.address} again"
        )
    return found


def provide_files(
    config: Config, folder: Path | None = None, wanted: Sequence[WeightFile] | None = None
) -> dict[WeightFile, Path]:
    """Find the files that a configuration needs, or those `wanted`, and download what is missing.

    folder: the weights folder; default: the profile's. Raises one WeightsError that names every missing file of the
    configuration, its address and its place.
    """
    folder = Paths.resolve(config.profile).weights if folder is None else Path(folder)
    needed = needed_files(config)
    asked = needed if wanted is None else tuple(wanted)
    found, reasons = {}, {}
    for file in asked:
        try:
            found[file] = find_file(file, folder) or _download(file, folder)
        except (MafrError, OSError) as error:
            reasons[file] = _first_line(error)
    if reasons:
        named = needed if set(asked) <= set(needed) else asked  # a compared method's backbone stands for itself
        missing = [f for f in named if f in reasons or (f not in found and find_file(f, folder) is None)]
        raise WeightsError(missing_text(missing, folder, reasons))
    return found


def missing_text(missing: Sequence[WeightFile], folder: Path, reasons: dict[WeightFile, str] | None = None) -> str:
    """The files to bring, from where, and where to put them."""
    count = "1 weight file is" if len(missing) == 1 else f"{len(missing)} weight files are"
    head = f"{count} missing" + (" and could not be downloaded" if reasons else "")
    lines = [f"{head}; bring from a machine with network, and run again:"]
    for file in missing:
        line = f"  {file.title} ({file.use}): download {file.address} to {folder / file.names[0]}"
        if file.sha256:
            line += f" (SHA-256 {file.sha256})"
        if file.other:
            line += f", or {file.other} to {folder / file.names[-1]}"
        lines.append(line)
        if reasons and file in reasons:
            lines.append(f"    not reached: {reasons[file]}")
    return "\n".join(lines)


@contextmanager
def reading(path: Path, title: str, advice: str = "download it again") -> Iterator[None]:
    """Turn whatever reading `title` weights raises into a WeightsError with the file, the reason and `advice`."""
    try:
        yield
    except MafrError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: there is no such file; it should hold {title} weights; {advice}") from error
    except Exception as error:  # torch and safetensors let errors of any kind through for damaged files
        raise WeightsError(f"{path}: not readable as {title} weights ({_reason(error)}); {advice}") from error


class NumpyValue:
    """Stands for a NumPy number or array of a checkpoint, which is passed over: nothing of it is made, nothing run."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


# What a pickle calls to make them, by NumPy's modules of before and since version 2.
_NUMPY = [f"numpy.{core}.{name}" for core in ("core", "_core")
          for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")]  # fmt: skip
_NUMPY += ["numpy.dtype", "numpy.ndarray"]


def read_checkpoint(
    path: Path, title: str, advice: str = "download it again", save: str = "torch.save(model.state_dict(), FILE)"
) -> object:
    """The content of a torch checkpoint or a .safetensors file, on the CPU; nothing that could run code is read.

    NumPy's numbers and arrays, which training scripts leave beside the weights, become `NumpyValue`.

    title: the model's name. advice: what to do about a damaged file. save: how its owner writes one without anything
    but tensors. Raises WeightsError.
    """
    with reading(path, title, advice):
        if path.suffix == ".safetensors":
            return load_file(path)
        try:
            with torch.serialization.safe_globals([(NumpyValue, name) for name in _NUMPY]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if not _class_in(error):
                raise
            raise WeightsError(
                f"{path}: not readable as {title} weights ({_reason(error)}); save the tensors alone where it was "
                f"made: {save}, or {advice}"
            ) from error


def read_tensors(path: Path, title: str, advice: str = "download it again") -> dict[str, Tensor]:
    """The state_dict() in a file, see `read_checkpoint`. Raises WeightsError, also where something else is in it."""
    content = read_checkpoint(path, title, advice)
    named = isinstance(content, Mapping) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: {title} weights should be a module's state_dict(), names with tensors; {advice}")
    return dict(content)


def _class_in(error: pickle.UnpicklingError) -> str:
    """The class or function that torch refused to load, "" where that is not the reason."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else ""


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's own text tells how to run the code
        name = _class_in(error)
        what = f"it holds {name}" if name else "it is damaged, or holds something else"
        return f"{what}, which could run code; only plain tensors are read"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {'; '.join(lines[:2])}".removesuffix(": ")


def _download(file: WeightFile, folder: Path) -> Path:
    from mafr.data.acquire.fetch import fetch  # here, as it loads what downloads need

    if not file.hub:
        with writing(folder):
            return fetch(file.address, folder / file.names[0], file.sha256)
    reach(huggingface_hub.hf_hub_url(file.hub, HUB_FILE))
    try:
        return Path(huggingface_hub.hf_hub_download(file.hub, HUB_FILE))
    except Exception as error:  # the client raises errors of several libraries, by cause of the failure
        raise OSError(f"{file.address}: {_first_line(error)}") from error


def reach(url: str) -> None:
    """Raise OSError where no connection is possible: the hub's client would try for half a minute first."""
    import requests

    from mafr.data.acquire.fetch import root_cause

    try:
        requests.head(url, timeout=15)
    except requests.exceptions.SSLError:
        return  # the client may trust other certificates
    except requests.RequestException as error:
        raise OSError(f"{url}: {root_cause(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
