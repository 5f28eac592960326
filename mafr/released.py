"""Checkpoints in the layout of the authors' released code: three files per category, for the `released` variant."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from mafr.config import Config, deciding
from mafr.errors import ConfigError, WeightsError
from mafr.features.weights.files import read_tensors, reading
from mafr.model import MAFR

# Beginning of the file's name -> our module. Their keys within a file are the names of our parameters.
PARTS = {"fusion_encoder_": "encoder", "decoder_2D_": "decoder_rgb", "decoder_3D_": "decoder_xyz"}
_FILES = ", ".join(f"{part}*.pth" for part in PARTS)
_ADVICE = "copy it again, or save the module's state_dict() again"


def load_checkpoints(source: str | Path | Sequence[str | Path], config: Config) -> MAFR:
    """The head, in eval mode, with weights from `source`: a folder with the three files, or the three files themselves.

    Files are named `fusion_encoder_*.pth`, `decoder_2D_*.pth` and `decoder_3D_*.pth`. The released code extracts by
    batch statistics, so that these heads expect `extractor_mode` "batch-statistics", the full profile's.
    Raises ConfigError for settings other than the released variant's, WeightsError where a file is missing or there
    are several, where it holds more than tensors, and for missing, additional or misshapen tensors.
    """
    released = Config.preset(config.profile, "released")
    # The settings that decide the head's parts; its widths show in the checkpoint itself.
    pairs = {name: (getattr(config, name), getattr(released, name)) for name in deciding("head")}
    odd = [f"{name}={given}" for name, (given, wanted) in pairs.items() if given != wanted]
    if config.variant != "released" or odd:
        what = ", ".join([f"variant {config.variant}", *odd])
        raise ConfigError(f"the released code's checkpoints fit the settings of variant released, not {what}")
    files = find_checkpoints(source)
    with torch.device("meta"):  # all values come from the files
        model = MAFR.from_config(config)
    for part, path in files.items():
        _load(getattr(model, PARTS[part]), path)
    return model.eval()


def find_checkpoints(source: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """{beginning of the name: file} for the three files. Raises WeightsError unless there is exactly one of each."""
    if isinstance(source, str | Path):
        folder = Path(source)
        if not folder.is_dir():
            raise WeightsError(f"{folder}: there is no such folder; it should hold {_FILES}")
        files, where = sorted(folder.glob("*.pth")), str(folder)
    else:
        files = [Path(path) for path in source]
        where = "the files given"
    found = {}
    for part in PARTS:
        matches = [path for path in files if path.name.startswith(part)]
        if not matches:
            raise WeightsError(f"{where}: {part}*.pth is missing; a category has {_FILES}")
        if len(matches) > 1:
            names = ", ".join(path.name for path in matches)
            raise WeightsError(f"{where}: several files match {part}*.pth ({names}); give the three files themselves")
        found[part] = matches[0]
    return found


def _load(module: nn.Module, path: Path) -> None:
    title = f"released {path.name.split('_')[0]}"
    tensors = read_tensors(path, title, _ADVICE)
    wanted = module.state_dict()
    wrong = [f"{name} is missing" for name in wanted if name not in tensors]
    wrong += [f"{name} is not known" for name in tensors if name not in wanted]
    wrong += [
        f"{name} has shape {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    if wrong:
        raise WeightsError(f"{path}: not the checkpoint that these settings expect: {'; '.join(wrong)}")
    with reading(path, title, _ADVICE):
        module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
