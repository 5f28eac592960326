"""What goes wrong with disks and names while data is written, in one line that says where, how much and what to do."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mafr.errors import DataError

PROCESSED_SHARE = 0.4  # size of processed copies relative to raw files: clouds are packed, most points are dropped
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


class DiskError(DataError):
    """The disk has no room: what was written is whole as far as it goes, and a later call continues."""


@contextmanager
def explaining(folder: Path, needed: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
    """Turns an OSError while files are written below `folder` into a DataError.

    needed: about the bytes that are still to be written; asked for only where the disk is full.
    """
    try:
        yield
    except OSError as error:
        if (problem := explained(error, folder, needed)) is None:
            raise
        raise problem from error


def explained(error: OSError, folder: Path, needed: Callable[[], float] = lambda: 0.0) -> DataError | None:
    """The DataError for an OSError, see `explaining`; None where it is another matter."""
    path = Path(error.filename) if isinstance(error.filename, str) else folder
    if error.errno in _FULL:
        return DiskError(no_room(folder, needed()))
    if error.errno in _IN_THE_WAY:
        file = next((place for place in (path, *path.parents) if place.is_file()), path)
        return DataError(f"{file}: a file is where a folder is needed, or the reverse; move it away")
    if error.errno == errno.ENAMETOOLONG:
        shown = f"{path.name[:40]}…" if len(path.name) > 40 else path.name
        return DataError(f"{path.parent}: the name {shown} is too long for this disk; shorten it")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DataError(f"{path}: cannot be written ({error.strerror}); change its rights, or choose another folder")
    return None


def no_room(folder: Path, needed: float) -> str:
    """The message for a full disk. needed: bytes that are still to be written, about; 0 where nobody knows."""
    place, free = free_space(folder)
    still = f", about {in_words(needed)} are still needed" if needed else ""
    way = "make room, then the same command goes on from here"
    return f"{place}: the disk is full: {in_words(free)} are free{still}; {way}"


def free_space(folder: Path) -> tuple[Path, int]:
    """The folder, or the nearest one above it that exists, and the bytes that are free on its disk."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return place, shutil.disk_usage(place).free


def in_words(size: float) -> str:
    """Bytes as GB or MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
