"""Tar and zip archives of category folders: recognised by content, never unpacked outside the target.

Only plain files are written, at checked paths; owners, permissions and links of an archive do not reach the disk.
(tarfile's `data` filter is no substitute: it strips a leading slash, lets backslashes and drives pass, and leaves zips
alone.) Files arrive in a hidden folder beside the target; categories move from there once the archive is read to its
end.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import math
import os
import shutil
import tarfile
import zipfile
import zlib
from calendar import timegm
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from mafr.data.acquire.limits import Limit, explaining_entry
from mafr.data.layout import subfolders
from mafr.errors import DataError, MafrError
from mafr.parallel.progress import byte_bar, map_parallel
from mafr.paths import leftovers, process_temporary

_STAGING = "unpacking-"  # and a digest of the archives' names and sizes
_TOP = ("train", "validation", "val", "test", "test_public", "test_private", "calibration")
_BESIDE = ("intrinsics.json", "camera_parameters.json")  # files of a category beside its splits
# ValueError: a zip's month 13, or a name that is not in the encoding it claims
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError)
_WINDOWS = (0, 10, 14)  # systems in a zip's entry whose names have backslashes between folders: FAT, NTFS, VFAT
_BLOCK = 2**20
_DECOMPRESSORS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}  # by a file's first bytes


class _Entry(NamedTuple):
    """An entry of an archive, with the content of a file or the name that a link stands for."""

    name: str
    kind: Literal["file", "link", "folder", "other"]
    size: int = 0
    time: float = 0.0
    packed: int = 0  # bytes in a zip; a tar is read from front to end, and its position says as much
    open: Callable[[], IO[bytes]] | None = None
    link: str = ""


def is_archive(path: Path) -> bool:
    """Whether a file is a tar (plain, gz, bz2, xz) or a zip, by its content."""
    return path.is_file() and (_is_zip(path) or tarfile.is_tarfile(path))


def check_archives(paths: Sequence[Path]) -> None:
    """Raise DataError for a path that is no archive."""
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such file; name an archive, or a folder of archives")
        if not is_archive(path):
            raise DataError(f"{path}: neither a tar nor a zip archive; download it again")


def unpacked_size(path: Path) -> int | None:
    """Bytes of an archive's files; None for a compressed tar, which does not say. Raises DataError for damaged ones."""
    if _is_zip(path):
        with _refusing(path), zipfile.ZipFile(path) as archive:
            return sum(item.file_size for item in archive.infolist())
    with path.open("rb") as file:
        file.seek(257)
        return path.stat().st_size if file.read(5) == b"ustar" else None


def staged_size(archives: Sequence[Path], target: Path, categories: Sequence[str] | None = None) -> int:
    """Bytes that an interrupted `unpack` of the same archives has written already."""
    staging = _staging(archives, target)
    names = [name for name in subfolders(staging) if categories is None or name in categories]
    return sum(path.stat().st_size for name in names for path in (staging / name).rglob("*") if path.is_file())


def unpack(
    archives: Sequence[Path], target: Path, categories: Sequence[str] | None = None, workers: int | None = 1
) -> dict[Path, list[str]]:
    """Unpack category folders into `<target>/<category>`; returns the names of all that each archive holds.

    A folder around the categories is left out; where an archive begins with the splits, its own name is the
    category's. Categories in `target` stay as they are; what an interrupted call has written is not written again.

    categories: only these. workers: local processes, one archive each. Raises DataError where a file is no archive or
    damaged, an entry leaves its folder, is no plain file or claims more than data sets hold, or there is no category
    folder: then nothing of the archive stays. Raises FullDiskError where the disk is too small: then what is written
    stays.
    """
    check_archives(archives)
    staging = _staging(archives, target)
    several = len(archives) > 1  # then one bar over all: their own would overwrite each other
    job = partial(_unpack_one, staging=staging, skip=subfolders(target), only=categories, silent=several)
    staging.mkdir(parents=True, exist_ok=True)
    try:
        found = map_parallel(job, list(archives), workers, "unpacking") if several else [job(path) for path in archives]
    except DataError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    for name in subfolders(staging):
        # Other categories come from an interrupted call that asked for them, and may be incomplete.
        if (categories is None or name in categories) and not (target / name).exists():
            (staging / name).rename(target / name)
    for leftover in leftovers(target / f"{_STAGING}*"):  # of this call, and of calls that ended early
        shutil.rmtree(leftover, ignore_errors=True)
    return {path: sorted(names) for path, names in zip(archives, found, strict=True)}


def _staging(archives: Sequence[Path], target: Path) -> Path:
    """This process's folder for unpacking these archives, with what an ended process has left of them, if any."""
    key = "\n".join(f"{path.name} {path.stat().st_size}" for path in archives)
    place = target / (_STAGING + hashlib.sha256(key.encode()).hexdigest()[:8])
    own = process_temporary(place)
    for left in leftovers(place):
        if not own.exists():
            with suppress(FileNotFoundError):  # another process was faster
                left.rename(own)
    return own


def _unpack_one(path: Path, staging: Path, skip: Sequence[str], only: Sequence[str] | None, silent: bool) -> set[str]:
    """Write an archive's files to `<staging>/<category>/...`; returns the categories that it holds."""
    found: set[str] = set()
    links: list[tuple[str, str, Path]] = []
    written: dict[str, Path] = {}
    size, what = path.stat().st_size, f"unpacking {path.name}"
    with _refusing(path), path.open("rb") as file, byte_bar(size, 0, what, silent) as progress:
        limit = Limit(path, staging, file)
        for entry in (_zip_entries if _is_zip(path) else _tar_entries)(path, file, progress):
            parts = _safe(entry.name, path)
            if entry.kind == "folder":
                continue
            if entry.kind == "other":
                problem = f"entry {entry.name!r} is neither a file nor a folder"
                raise DataError(f"{path}: {problem}; the archive is not to be trusted")
            if entry.kind == "link":
                _safe(entry.link, path, entry.name)
            place = _place(parts, path)
            if place is None:
                continue
            category, rest = place
            found.add(category)
            if category in skip or (only is not None and category not in only):
                continue
            output = staging / category / rest
            written["/".join(parts)] = output
            if entry.kind == "link":
                links.append((entry.name, entry.link, output))
            else:
                limit.check(entry.name, entry.size, entry.packed)
                with explaining_entry(path, entry.name, output):
                    _write(entry, output, limit)
    for name, link, output in links:
        source = written.get("/".join(_safe(link, path, name)))
        if source is None or not source.is_file():
            raise DataError(f"{path}: entry {name!r} links to {link!r}, which is no file of the archive")
        limit.check(name, source.stat().st_size)
        with explaining_entry(path, name, output):
            output.parent.mkdir(parents=True, exist_ok=True)  # a folder may hold nothing but links
            shutil.copyfile(source, output)
        limit.wrote(name, source.stat().st_size)
    if not found:
        raise DataError(
            f"{path}: no category folders in the archive; <category>/train/... expected, as in the published ones"
        )
    return found


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong while an archive is read into one DataError."""
    try:
        yield
    except MafrError:
        raise
    except RuntimeError as error:  # what zipfile raises for an archive with a password
        raise DataError(f"{path}: cannot be unpacked ({error}); unpack it by hand and use --source") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # trouble with the disk, not with the archive
        raise DataError(f"{path}: damaged or not complete ({error}); download or copy it again") from error


def _safe(name: str, path: Path, link: str = "") -> list[str]:
    """An entry's path in parts. Raises DataError where it is absolute, climbs, or is unsafe on some system."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    bad = name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in "".join(parts[:1])
    if bad:
        what = f"entry {link!r} links to {name!r}, which" if link else f"entry {name!r}"
        raise DataError(f"{path}: {what} leaves the folder; the archive is not to be trusted, nothing is unpacked")
    return parts


def _place(parts: list[str], path: Path) -> tuple[str, Path] | None:
    """(category, path in it) of an entry; None for what belongs to no category, such as a readme."""
    if not parts or "__MACOSX" in parts or parts[-1].startswith("."):
        return None
    split = next((k for k, part in enumerate(parts[:-1]) if part in _TOP), None)
    if split is None:
        if len(parts) < 2 or parts[-1] not in _BESIDE:
            return None
        split = len(parts) - 1
    category = parts[split - 1] if split else path.name.split(".")[0]
    if category.startswith("."):
        return None
    return category, Path(*parts[split:])


def _write(entry: _Entry, output: Path, limit: Limit) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists() and (output.stat().st_size, output.stat().st_mtime) == (entry.size, entry.time):
        return  # from an interrupted call
    with entry.open() as source, output.open("wb") as file:
        while block := source.read(_BLOCK):
            file.write(block)
            limit.wrote(entry.name, len(block))
    if output.stat().st_size != entry.size:
        raise EOFError(f"{entry.name} is cut off")
    os.utime(output, (entry.time, entry.time))  # last: marks the file as whole


def _zip_entries(path: Path, file: IO[bytes], progress: tqdm) -> Iterator[_Entry]:
    with zipfile.ZipFile(file) as archive:
        for item in archive.infolist():
            name = item.filename.replace("\\", "/") if item.create_system in _WINDOWS else item.filename
            if name.endswith("/"):
                yield _Entry(name, "folder")
            elif item.external_attr >> 28 not in (0, 0o10):  # Unix file type: 0 where packed on another system
                yield _Entry(name, "other")
            else:
                year, month, day, *clock = item.date_time
                time = timegm((year, max(month, 1), max(day, 1), *clock))
                opened = partial(archive.open, item)
                yield _Entry(name, "file", item.file_size, float(time), item.compress_size, opened)
                progress.update(item.compress_size)


def _tar_entries(path: Path, file: IO[bytes], progress: tqdm) -> Iterator[_Entry]:
    stream = _decompressed(path, CallbackIOWrapper(progress.update, file))
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for item in archive:
            if item.isreg():
                time = min(max(item.mtime, 0), 2**32) if math.isfinite(item.mtime) else 0
                yield _Entry(item.name, "file", item.size, float(int(time)), open=partial(archive.extractfile, item))
            elif item.islnk():
                yield _Entry(item.name, "link", link=item.linkname)
            elif item.issym():  # from the archive's root, as hard links; one that climbs above it keeps its dots
                link = os.path.normpath(PurePosixPath(item.name).parent / item.linkname)
                yield _Entry(item.name, "link", link=link)
            else:
                yield _Entry(item.name, "folder" if item.isdir() else "other")
    while stream.read(1 << 20):  # to the end, where a compressed file's checksum is
        pass


def _decompressed(path: Path, file: IO[bytes]) -> IO[bytes]:
    """The tar inside a file. Unlike tarfile's own, these readers notice a file that is cut off."""
    with path.open("rb") as head:
        start = head.read(6)
        for magic, reader in _DECOMPRESSORS.items():
            if start.startswith(magic):
                return reader(file)
        head.seek(-512, os.SEEK_END)
        if any(head.read(512)):
            raise EOFError("its last block is not the end of a tar")
    return file


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:  # `is_zipfile` would also find a zip inside a tar
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
