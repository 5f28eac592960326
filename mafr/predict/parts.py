"""The parts in a folder: `rgb/` beside `xyz/` or `depth/`, at any depth, paired by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mafr.data.formats.clouds import camera_file
from mafr.data.layout import RAW_SUFFIXES, TIFF, numeric_order, same
from mafr.errors import DataError

_KINDS = ("rgb", "xyz", "depth")
_NOT_ENTERED = (*_KINDS, "gt")


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
    places = list(_places(folder, set()))
    found = [part for place, kinds in places for part in _parts_of(place, kinds, folder)]
    if not missing_ok and not (found and any(_is_whole(kinds) for _, kinds in places)):
        hint = "; name the folder above" if folder.name.lower() in _NOT_ENTERED else ""
        half = f"; {found[0].error}" if found else ""
        raise DataError(
            f"{folder}: no parts; expected are rgb/NAME.png with xyz/NAME.tiff, .ply or .pcd (or depth/NAME.png), "
            f"in it or below it{half}{hint}"
        )
    return found


def _places(folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, dict[str, Path]]]:
    """The folders with folders of images or clouds, and which these are by kind, "rgb", "xyz" and "depth".

    Their names may have capitals. Each folder comes once; links are followed, hidden folders are not entered.
    """
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as items:
            names = sorted(item.name for item in items if not item.name.startswith(".") and item.is_dir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); give access to it, or move it away") from error
    kinds = {name.lower(): folder / name for name in names if name.lower() in _KINDS}  # of RGB and rgb the latter
    if kinds:
        yield folder, kinds
    for name in names:
        if name not in _NOT_ENTERED:
            yield from _places(folder / name, seen)


def _is_whole(kinds: dict[str, Path]) -> bool:
    """Whether a folder has images and clouds."""
    return "rgb" in kinds and len(kinds) > 1


def _parts_of(place: Path, kinds: dict[str, Path], root: Path) -> list[PartFiles]:
    files = {kind: _by_stem(folder) for kind, folder in kinds.items()}
    images, other_images = _read(files.get("rgb", {}), "rgb")
    clouds, other_clouds = _read(files.get("xyz", {}), "xyz")
    kind = "xyz"
    if not clouds and "depth" in kinds:
        clouds, other_depth = _read(files["depth"], "depth")
        if clouds or not other_clouds:
            kind, other_clouds = "depth", other_depth
    camera = _camera(place, root)
    prefix = place.relative_to(root)
    stems = images.keys() | clouds.keys() | (other_images.keys() & other_clouds.keys())
    parts = []
    for stem in sorted(stems, key=numeric_order):
        name = (prefix / stem).as_posix()
        rgb, xyz = images.get(stem, ()), clouds.get(stem, ())
        if len(rgb) > 1 or len(xyz) > 1:
            twice = " and ".join(path.name for path in (rgb if len(rgb) > 1 else xyz))
            parts.append(PartFiles(name, *rgb[:1], error=f"{place}: both {twice} hold part {stem}; remove one"))
        elif not rgb or not xyz:
            lacking, others = (kind, other_clouds) if not xyz else ("rgb", other_images)
            if stem in others:
                read = ", ".join(RAW_SUFFIXES[lacking])
                error = f"{others[stem][0]}: not a kind that is read; in {lacking}/ these are: {read}; convert it"
            else:
                what = "rgb/ image" if lacking == "rgb" else f"{lacking}/ file"
                error = f"{(rgb or xyz)[0]}: no {what} of this name beside it; add or remove one"
            parts.append(PartFiles(name, error=error))
        else:
            needs_camera = kind == "depth" or xyz[0].suffix.lower() not in TIFF
            parts.append(PartFiles(name, rgb[0], xyz[0], camera if needs_camera else None))
    return parts


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Stem, composed as most systems write it -> the visible files of that name."""
    files: dict[str, list[Path]] = {}
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (names alone: quicker, and thousands of them)
    except (FileNotFoundError, NotADirectoryError):
        return files
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); give access to it, or move it away") from error
    for name in names:
        if not name.startswith("."):
            files.setdefault(same(os.path.splitext(name)[0]), []).append(folder / name)  # noqa: PTH122
    return files


def _read(files: dict[str, list[Path]], kind: str) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """The files by stem that are read as images or clouds, and those of other suffixes."""
    read: dict[str, list[Path]] = {}
    others: dict[str, list[Path]] = {}
    for stem, paths in files.items():
        for path in paths:
            of_kind = path.suffix.lower() in RAW_SUFFIXES[kind]
            (read if of_kind else others).setdefault(stem, []).append(path)
    return read, others


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
