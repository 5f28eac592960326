"""The parts in a folder: `rgb/` beside `xyz/` or `depth/`, at any depth, paired by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mafr.data.formats.clouds import camera_file
from mafr.data.layout import RAW_SUFFIXES, TIFF, numeric_order, same
from mafr.errors import DataError

_NOT_ENTERED = ("rgb", "xyz", "depth", "gt")


@dataclass(frozen=True)
class PartFiles:
    """The files of one part; those of a part with an `error`, and a `camera` that is not needed, are None."""

    name: str  # the folder below the one that was searched, and the files' stem: "test/good/000"
    rgb: Path | None = None
    xyz: Path | None = None  # the organised cloud or the depth image
    camera: Path | None = None  # of a depth image, or with the unit of a PLY or PCD file
    error: str = ""  # why the files make no part

    @property
    def unpaired(self) -> bool:
        """Whether a file lacks its partner, which may still come."""
        return bool(self.error) and self.rgb is None and self.xyz is None

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Size and time of both files, (-1, 0) for one that is gone: equal ones are no longer being written."""
        return tuple(_size_and_time(path) for path in (self.rgb, self.xyz) if path is not None)


def find_parts(folder: str | Path, missing_ok: bool = False) -> list[PartFiles]:
    """The parts in a folder and below it, by folder and then by number.

    Files without a partner, and two images or clouds of one name, are parts with an `error`. Raises DataError where the
    folder does not exist and, unless `missing_ok`, where no part is in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --parts needs one with rgb/ and xyz/ (or depth/) in it or below it")
    found = [part for place in _places(folder, set()) for part in _parts_of(place, folder)]
    if not found and not missing_ok:
        hint = "; name the folder above" if folder.name in _NOT_ENTERED else ""
        raise DataError(
            f"{folder}: no parts; expected are rgb/NAME.png with xyz/NAME.tiff, .ply or .pcd (or depth/NAME.png), "
            f"in it or below it{hint}"
        )
    return found


def _places(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The folders with rgb/ or a cloud folder, each once; links are followed, hidden folders are not entered."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as items:
            names = sorted(item.name for item in items if not item.name.startswith(".") and item.is_dir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); give access to it, or move it away") from error
    if "rgb" in names and ("xyz" in names or "depth" in names):
        yield folder
    for name in names:
        if name not in _NOT_ENTERED:
            yield from _places(folder / name, seen)


def _parts_of(place: Path, root: Path) -> list[PartFiles]:
    images = _by_stem(place / "rgb", RAW_SUFFIXES["rgb"])
    kind = "xyz"
    clouds = _by_stem(place / kind, RAW_SUFFIXES[kind])
    if not clouds and (depth := _by_stem(place / "depth", RAW_SUFFIXES["depth"])):
        kind, clouds = "depth", depth
    camera = _camera(place, root)
    prefix = place.relative_to(root)
    parts = []
    for stem in sorted(images.keys() | clouds.keys(), key=numeric_order):
        name = (prefix / stem).as_posix()
        rgb, xyz = images.get(stem, ()), clouds.get(stem, ())
        if len(rgb) > 1 or len(xyz) > 1:
            twice = " and ".join(path.name for path in (rgb if len(rgb) > 1 else xyz))
            parts.append(PartFiles(name, *rgb[:1], error=f"{place}: both {twice} hold part {stem}; remove one"))
        elif not xyz:
            parts.append(PartFiles(name, error=f"{rgb[0]}: no {kind}/ file of this name beside it; add or remove one"))
        elif not rgb:
            parts.append(PartFiles(name, error=f"{xyz[0]}: no rgb/ image of this name beside it; add or remove one"))
        else:
            needs_camera = kind == "depth" or xyz[0].suffix.lower() not in TIFF
            parts.append(PartFiles(name, rgb[0], xyz[0], camera if needs_camera else None))
    return parts


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Stem, composed as most systems write it -> the visible files of that name with one of the suffixes."""
    files: dict[str, list[Path]] = {}
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (names alone: quicker, and thousands of them)
    except (FileNotFoundError, NotADirectoryError):
        return files
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); give access to it, or move it away") from error
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix.lower() in suffixes and not name.startswith("."):
            files.setdefault(same(stem), []).append(folder / name)
    return files


def _camera(place: Path, root: Path) -> Path | None:
    """The camera parameters nearest above a folder of parts, not above `root`."""
    while (found := camera_file(place)) is None and place != root:
        place = place.parent
    return found


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns
