"""What a disk refuses, in one line with a way out: no room, a file in the place of a folder, too long a name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mafr.errors import FullDiskError, StorageError

CONTINUES = "; the same command continues from here"  # of a full disk; true of all commands but `mafr predict`

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota of this disk is used up"}
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NUMPY_FULL = "requested and"  # numpy's "22500 requested and 3016 written", an OSError without a number
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_SHOWN = 60  # characters of a name that is too long


@contextmanager
def writing(path: Path, needed: float | Callable[[], float] = 0) -> Iterator[None]:
    """Turn an OSError of the block, which writes `path` or below it, into a StorageError with what `explained` says.

    needed: bytes that the work has yet to write, where that is known. A function is asked only where the disk is full,
    and also for a file inside the block that has named its own need alone.
    """
    try:
        yield
    except OSError as error:
        said = isinstance(error, StorageError) and not (callable(needed) and isinstance(error, FullDiskError))
        if said or not is_of_disk(error):
            raise
        raise storage_error(error, path, needed) from error


def is_of_disk(error: OSError) -> bool:
    """Whether the disk refused something; errors without a number come from a file's contents, or a network."""
    return error.errno is not None or _is_full(error)


def storage_error(error: OSError, path: Path, needed: float | Callable[[], float] = 0) -> StorageError:
    """The StorageError for an OSError, see `writing`."""
    if _is_full(error):
        return full_disk(path, needed() if callable(needed) else needed, error)
    return StorageError(explained(error, path))


def full_disk(path: Path, needed: float = 0, error: OSError | None = None) -> FullDiskError:
    """The error for a disk without room. needed: bytes that are still to be written; 0 where nobody knows."""
    return FullDiskError(_no_room(path, needed, error) + CONTINUES)


def explained(error: OSError, path: Path | None = None) -> str:
    """An OSError in words: the file or folder, what is wrong with it, and what to do.

    path: what was to be written, or the folder in which; default: what the error names.
    """
    named = Path(error.filename) if isinstance(error.filename, str | os.PathLike) else None
    if path is None or (named is not None and path in named.parents and path.is_dir()):
        path = named
    if path is None:
        return str(error)
    if _is_full(error):
        return _no_room(path, 0, error)
    if error.errno == errno.ENAMETOOLONG:
        name = max(path.parts, key=len)
        return (
            f"{name[:_SHOWN]}…: a name of {len(name)} characters (path: {len(str(path))}) is too long for this disk; "
            "choose a shorter one"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        blocking = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)
        if blocking is not None:
            return f"{blocking} is a file where a folder is needed; move it away, or choose another place"
    if error.errno == errno.EISDIR:
        return f"{path} is a folder where a file is needed; move it away, or choose another place"
    way = "; change its rights, or choose another place" if error.errno in _REFUSED else ""
    return f"{path}: {error.strerror or error}{way}"


def free_space(path: Path) -> tuple[Path, int]:
    """The folder at or nearest above `path` that exists, and the bytes that are free on its disk."""
    place = next((place for place in (path, *path.parents) if os.path.isdir(place)), Path.cwd())  # noqa: PTH112
    return place, shutil.disk_usage(place).free


def size_text(count: float) -> str:
    """A number of bytes in words, like "3.1 MB"; powers of 1,000, as disks are sold."""
    value, unit = float(count), 0
    while value >= 1000 and unit + 1 < len(_UNITS):
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count:.0f} {_UNITS[0]}"


def _no_room(path: Path, needed: float, error: OSError | None) -> str:
    place, free = free_space(path)
    what = _FULL.get(error.errno if error else None, _FULL[errno.ENOSPC])
    more = f", {size_text(needed)} more needed" if needed else ""
    return f"{place}: {what} ({size_text(free)} free{more}); make room there"


def _is_full(error: OSError) -> bool:
    if isinstance(error, FullDiskError):
        return True
    return error.errno in _FULL if error.errno is not None else _NUMPY_FULL in str(error)
