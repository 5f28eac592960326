"""The folder layout `<split>/<good|defect>/{rgb,xyz,gt}`, that of MVTec 3D-AD and of all processed data."""

import os
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mafr.config import CATEGORIES
from mafr.errors import DataError

SPLITS = ("train", "validation", "test")
PROCESSED_SHARE = 0.4  # size of processed copies relative to raw files: clouds are packed, most points are dropped
SEED_CONTENTS = "contents"  # of a sample whose cleaning was seeded by the scan itself, see `Processed`
TIFF = (".tiff", ".tif")
_SUFFIXES = {"rgb": (".png",), "xyz": TIFF, "gt": (".png",)}
RAW_SUFFIXES = {
    "rgb": (".png", ".jpg", ".jpeg"), "xyz": (*TIFF, ".ply", ".pcd"), "gt": (".png",), "ground_truth": (".png",),
    "depth": (".png", *TIFF),
}  # fmt: skip
_GOOD = {"good", "ok", "okay", "normal", "nominal"}  # what people name the folder of good parts, in any case
# What operating systems, disks and archivers put beside people's folders.
_RUBBISH = {"__macosx", "@eadir", "lost+found", "system volume information", "$recycle.bin"}


@dataclass(frozen=True)
class Entry:
    """The files of one sample; `gt` is None where a good sample has no mask. Raw, `xyz` may be a depth image."""

    split: str
    defect: str
    stem: str
    rgb: Path
    xyz: Path
    gt: Path | None

    @property
    def is_depth(self) -> bool:
        return self.xyz.parent.name == "depth"

    @property
    def id(self) -> str:
        return f"{self.split}/{self.defect}/{self.stem}"

    @property
    def label(self) -> int:
        return int(self.defect != "good")


@dataclass(frozen=True)
class RawSample:
    """One raw sample: its key, and (role, path relative to the category's folder) of its files."""

    key: str
    files: tuple[tuple[str, str], ...]
    seed_text: str = ""  # of the cleaning's draws; "": the scan's contents seed them


@dataclass(frozen=True)
class Processed:
    """One processed sample: `id` is "<split>/<defect>/<stem>", `xyz` (H, W, 3), `rgb` and `gt` png files.

    seed: what the cleaning's draws came from: `SEED_CONTENTS`, or "" for the sample's name or where nothing is drawn.
    dropped: the largest piece above the table that was left out, in points per point of the part.
    """

    id: str
    rgb: bytes
    xyz: np.ndarray
    gt: bytes | None
    seed: str = ""
    dropped: float = 0.0


def processed_files(category_folder: Path, name: str) -> tuple[Path, Path, Path]:
    """The image, the cloud and the mask of a processed sample, by its id."""
    split, defect, stem = name.split("/")
    folder = category_folder / split / defect
    return folder / "rgb" / f"{stem}.png", folder / "xyz" / f"{stem}.tiff", folder / "gt" / f"{stem}.png"


def numeric_order(stem: str) -> tuple[int, int, str]:
    """Sorting key: numbers by value, other names after them."""
    return (0, int(stem), stem) if stem.isdecimal() else (1, 0, stem)


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in `folder`, sorted, those of operating systems aside; none where it is no folder.

    Raises DataError for two names that only the normal form of their letters tells apart.
    """
    try:
        with os.scandir(folder) as found:
            names = sorted(item.name for item in found if item.is_dir() and not item.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = _decoded([name for name in names if name.lower() not in _RUBBISH], folder)
    if len({same(name) for name in names}) < len(names):
        twin = next(name for name in names if spelled(name, names) != name)
        raise DataError(f"{folder}: two folders are named {twin}, in two spellings of Unicode (NFC and NFD); join them")
    return names


def same(name: str) -> str:
    """A name as it compares: computers write é as one character (NFC) or as two (NFD), and people see no difference."""
    return unicodedata.normalize("NFC", name)


def spelled(name: str, there: Iterable[str]) -> str:
    """A name as it is spelled among those that are there; unchanged where it is not."""
    return next((other for other in there if same(other) == same(name)), name)


def empty_category(folder: Path, layout: str) -> DataError:
    """The error for a category's folder in which nothing of the expected layout lies."""
    return DataError(f"{folder}: the category is empty; expected are {layout}{misnamed(folder)}")


def misnamed(folder: Path) -> str:
    """The splits of a category that only the case of a letter keeps from being read, for messages; "" for none."""
    odd = [name for name in subfolders(folder) if name not in SPLITS and name.lower() in SPLITS]
    return f"; found is {', '.join(odd)}: rename it to {', '.join(map(str.lower, odd))}" if odd else ""


def found_in(folder: Path) -> str:
    """The folders in `folder`, in words, for messages."""
    names = ", ".join(subfolders(folder))
    return f"found are {names}" if names else "the folder is empty" if folder.is_dir() else "nothing is there"


def unknown_category(dataset: str, root: Path, category: str) -> DataError:
    """The error for a name that is neither published nor a folder in `root`."""
    published = f"; published are {', '.join(CATEGORIES[dataset])}" if CATEGORIES[dataset] else ""
    return DataError(
        f"{root}: unknown category {category!r}; {found_in(root)}{published}: correct the name, or add "
        "a folder by it for data of your own"
    )


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Stem, as it compares, -> file, for visible files with one of the suffixes. Raises DataError for equal stems."""
    files: dict[str, Path] = {}
    for name in _names(folder):
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix.lower() not in suffixes:
            continue
        if same(stem) in files:
            raise DataError(f"{folder}: both {files[same(stem)].name} and {name} hold sample {stem}; remove one")
        files[same(stem)] = folder / name
    return files


def _names(folder: Path) -> list[str]:
    """The names of the visible files in `folder`, sorted; none where it does not exist."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208 (quicker)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return _decoded(names, folder)


def _decoded(names: list[str], folder: Path) -> list[str]:
    for name in names:
        if not name.isascii() and not name.isprintable() and any("\ud800" <= c <= "\udfff" for c in name):
            raise DataError(f"{folder}: the name {name} is not written in UTF-8; rename it")
    return names


def scan_split(category_folder: Path, split: str, raw: bool = False) -> list[Entry]:
    """The samples of one split: folders sorted by name, files by number.

    Images are rgb/NNN.png, clouds xyz/NNN.tiff, masks gt/NNN.png. In the user's own raw data also rgb/NNN.jpg,
    xyz/NNN.ply or .pcd, or, without xyz, depth/NNN.png or .tiff, and ground_truth in place of gt. Raises DataError for
    a split without samples, for images, clouds and masks that do not pair up, and for defective samples without masks.
    """
    entries: list[Entry] = []
    folder, suffixes = category_folder / split, RAW_SUFFIXES if raw else _SUFFIXES
    for defect in subfolders(folder):
        entries += _scan_defect(folder / defect, split, defect, suffixes)
    if not entries:
        places = [(folder / defect / kind, kind) for defect in subfolders(folder) for kind in ("rgb", "xyz")]
        odd = [f" ({found})" for place, kind in places for found in _other_kinds(place, None, suffixes[kind])]
        raise DataError(
            f"{folder}: no samples{''.join(odd[:1])}; {split}/<good or a defect's name>/rgb/NNN.png and "
            ".../xyz/NNN.tiff expected"
        )
    return entries


def _scan_defect(folder: Path, split: str, defect: str, suffixes: dict[str, tuple[str, ...]]) -> list[Entry]:
    files = {kind: files_by_stem(folder / kind, endings) for kind, endings in suffixes.items()}
    cloud = "xyz" if files["xyz"] or not files.get("depth") else "depth"
    mask = "gt" if files["gt"] or not files.get("ground_truth") else "ground_truth"
    if mask == "gt" and files["gt"] and files.get("ground_truth"):
        raise DataError(f"{folder}: masks in gt and in ground_truth; keep those that hold and remove the others")
    _check_pairs(folder, files["rgb"], files[cloud], cloud, suffixes)
    if files[mask]:
        _check_pairs(folder, files["rgb"], files[mask], mask, suffixes)
    elif defect != "good" and defect.lower() in _GOOD and files["rgb"]:
        raise DataError(f"{folder}: the folder of good parts must be named good; rename it (defects need masks in gt)")
    elif defect != "good" and files["rgb"]:
        odd = "".join(f" ({found})" for found in _other_kinds(folder / "gt", files["rgb"], suffixes["gt"]))
        raise DataError(
            f"{folder / 'gt'}: no masks{odd}; every defective sample needs gt/NNN.png, not zero where it is anomalous"
        )
    return [
        Entry(split, defect, files["rgb"][key].stem, files["rgb"][key], files[cloud][key], files[mask].get(key))
        for key in sorted(files["rgb"], key=numeric_order)
    ]


def _check_pairs(folder: Path, rgb: dict, other: dict, kind: str, suffixes: dict[str, tuple[str, ...]]) -> None:
    missing = sorted(rgb.keys() - other.keys(), key=numeric_order)
    extra = sorted(other.keys() - rgb.keys(), key=numeric_order)
    parts = []
    if missing:
        parts.append(f"no {kind}/NNN{suffixes[kind][0]} for rgb {some_of(missing)}")
        parts += _other_kinds(folder / kind, missing, suffixes[kind])
    if extra:
        parts.append(f"no rgb/NNN.png for {kind} {some_of(extra)}")
        parts += _other_kinds(folder / "rgb", extra, suffixes["rgb"])
    if parts:
        raise DataError(f"{folder}: files do not pair up: {'; '.join(parts)}; add or remove these files")


def _other_kinds(folder: Path, stems: Collection[str] | None, suffixes: tuple[str, ...]) -> list[str]:
    """In words, the files by these stems (None: by any) that are of kinds which are not read, if any."""
    names = [(name, *os.path.splitext(name)) for name in _names(folder)]  # noqa: PTH122
    odd = [n for n, stem, end in names if end.lower() not in suffixes and (stems is None or same(stem) in stems)]
    return [f"{folder.name} holds {some_of(odd)}, where only {', '.join(suffixes)} are read"] if odd else []


def some_of(names: list[str]) -> str:
    """Up to ten names and the number of the others, for messages."""
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
