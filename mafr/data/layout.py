"""The folder layout `<split>/<good|defect>/{rgb,xyz,gt}`, that of MVTec 3D-AD and of all processed data."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mafr.config import CATEGORIES
from mafr.errors import DataError

SPLITS = ("train", "validation", "test")
SEED_CONTENTS = "contents"  # of a sample whose cleaning was seeded by the scan itself, see `Processed`
_TIFF = (".tiff", ".tif")
_SUFFIXES = {"rgb": (".png",), "xyz": _TIFF, "gt": (".png",)}
_RAW_SUFFIXES = {**_SUFFIXES, "xyz": (*_TIFF, ".ply", ".pcd"), "depth": (".png", *_TIFF)}


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
    """

    id: str
    rgb: bytes
    xyz: np.ndarray
    gt: bytes | None
    seed: str = ""


def numeric_order(stem: str) -> tuple[int, int, str]:
    """Sorting key: numbers by value, other names after them."""
    return (0, int(stem), stem) if stem.isdecimal() else (1, 0, stem)


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in `folder`, sorted; none where it does not exist."""
    try:
        with os.scandir(folder) as found:
            return sorted(item.name for item in found if item.is_dir() and not item.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def empty_category(folder: Path, layout: str) -> DataError:
    """The error for a category's folder in which nothing of the expected layout lies."""
    return DataError(f"{folder}: the category is empty; expected are {layout}")


def found_in(folder: Path) -> str:
    """The folders in `folder`, in words, for messages."""
    names = ", ".join(subfolders(folder))
    return f"found are {names}" if names else "the folder is empty" if folder.is_dir() else "nothing is there"


def unknown_category(dataset: str, root: Path, category: str) -> DataError:
    """The error for a name that is neither published nor a folder in `root`."""
    published = ", ".join(CATEGORIES[dataset])
    return DataError(
        f"{root}: unknown category {category!r}; {found_in(root)}; published are {published}: correct the name, or add "
        "a folder by it for data of your own"
    )


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Stem -> file, for the visible files with one of the suffixes. Raises DataError for equal stems."""
    files: dict[str, Path] = {}
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (names alone: quicker, and thousands of them)
    except (FileNotFoundError, NotADirectoryError):
        return files
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix.lower() not in suffixes or name.startswith("."):
            continue
        if stem in files:
            raise DataError(f"{folder}: both {files[stem].name} and {name} hold sample {stem}; remove one")
        files[stem] = folder / name
    return files


def scan_split(category_folder: Path, split: str, raw: bool = False) -> list[Entry]:
    """The samples of one split: folders sorted by name, files by number.

    Clouds are xyz/NNN.tiff; in the user's own raw data also xyz/NNN.ply or .pcd, or, without xyz, depth/NNN.png or
    .tiff. Raises DataError for a split without samples, for images, clouds and masks that do not pair up, and for
    defective samples without masks.
    """
    entries: list[Entry] = []
    folder = category_folder / split
    for defect in subfolders(folder):
        entries += _scan_defect(folder / defect, split, defect, _RAW_SUFFIXES if raw else _SUFFIXES)
    if not entries:
        raise DataError(
            f"{folder}: no samples; {split}/<good or a defect's name>/rgb/NNN.png and .../xyz/NNN.tiff expected"
        )
    return entries


def _scan_defect(folder: Path, split: str, defect: str, suffixes: dict[str, tuple[str, ...]]) -> list[Entry]:
    files = {kind: files_by_stem(folder / kind, endings) for kind, endings in suffixes.items()}
    if not files["xyz"] and files.get("depth"):
        files["xyz"] = files["depth"]
        _check_pairs(folder, files["rgb"], files["depth"], "depth", ".png")
    _check_pairs(folder, files["rgb"], files["xyz"], "xyz", ".tiff")
    if files["gt"]:
        _check_pairs(folder, files["rgb"], files["gt"], "gt", ".png")
    elif defect != "good" and files["rgb"]:
        raise DataError(
            f"{folder / 'gt'}: no masks; every defective sample needs gt/NNN.png, not zero where it is anomalous"
        )
    return [
        Entry(split, defect, stem, files["rgb"][stem], files["xyz"][stem], files["gt"].get(stem))
        for stem in sorted(files["rgb"], key=numeric_order)
    ]


def _check_pairs(folder: Path, rgb: dict, other: dict, kind: str, suffix: str) -> None:
    missing = sorted(rgb.keys() - other.keys(), key=numeric_order)
    extra = sorted(other.keys() - rgb.keys(), key=numeric_order)
    parts = []
    if missing:
        parts.append(f"no {kind}/NNN{suffix} for rgb {some_of(missing)}")
    if extra:
        parts.append(f"no rgb/NNN.png for {kind} {some_of(extra)}")
    if parts:
        raise DataError(f"{folder}: files do not pair up: {'; '.join(parts)}; add or remove these files")


def some_of(names: list[str]) -> str:
    """Up to ten names and the number of the others, for messages."""
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
