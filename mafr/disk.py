"""What a disk refuses, in one line with a way out: no room, a file in the place of a folder, too long a name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mafr.errors import StorageError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota of this disk is used up"}
_NUMPY_FULL = "requested and"  # numpy's "22500 requested and 3016 written", an OSError without a number
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_SHOWN = 60  # characters of a name that is too long


@contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn an OSError of the block, which writes `path`, into a StorageError with what `explained` says.

    needed: bytes that the work has yet to write, where that is known.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        kept = "; the same command continues from here" if _is_full(error) else ""
        raise StorageError(explained(error, path, needed) + kept) from error


def explained(error: OSError, path: Path | None = None, needed: int = 0) -> str:
    """An OSError in words: the file or folder, what is wrong with it, and what to do.

    path: what was to be written; default: what the error names. needed: as for `writing`.
    """
    if path is None:
        if not isinstance(error.filename, str | os.PathLike):
            return str(error)
        path = Path(error.filename)
    if _is_full(error):
        folder = _existing(path)
        more = f", {size_text(needed)} more needed" if needed else ""
        return (
            f"{folder}: {_FULL[error.errno or errno.ENOSPC]} ({size_text(shutil.disk_usage(folder).free)} "
            f"free{more}); make room there"
        )
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
    return f"{path}: {error.strerror or error}"


def _is_full(error: OSError) -> bool:
    return error.errno in _FULL if error.errno is not None else _NUMPY_FULL in str(error)


def size_text(count: int) -> str:
    """A number of bytes in words, like "3.1 MB"; powers of 1,000, as disks are sold."""
    value, unit = float(count), 0
    while value >= 1000 and unit + 1 < len(_UNITS):
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} {_UNITS[0]}"


def _existing(path: Path) -> Path:
    """The folder in which `path` lies or would lie, or the nearest one above that exists."""
    for folder in path.parents:
        with suppress(OSError):
            if folder.is_dir():
                return folder
    return Path.cwd()
