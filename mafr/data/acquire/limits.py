"""How much an archive may write: claims and sizes are held against what is free and against what data sets hold."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mafr.disk import free_space, full_disk, is_of_disk, size_text, storage_error
from mafr.errors import DataError, FullDiskError

LARGEST = 2**31  # bytes of a file that a data set can hold
RATIO = 100  # how many times an archive's own bytes its files may have, beyond the first FREELY bytes
FREELY = 2**28


class Limit:
    """What an archive may still write: no more than data sets hold, than its own size makes likely, or than is free."""

    def __init__(self, path: Path, staging: Path, file: IO[bytes]) -> None:
        self.path, self.staging, self.file = path, staging, file
        self.written = self.packed = 0

    def check(self, name: str, size: int, packed: int = 0) -> None:
        """Raises DataError for an entry that claims too much, FullDiskError for one that does not fit on the disk."""
        if size > LARGEST:
            raise DataError(
                f"{self.path}: entry {name!r} claims {size_text(size)}, no file of a data set has more than "
                f"{size_text(LARGEST)}; the archive is not to be trusted, nothing is unpacked"
            )
        self.packed += packed
        if size > free_space(self.staging)[1]:
            raise full_disk(self.staging, size)

    def wrote(self, name: str, size: int) -> None:
        """Raises DataError where an archive turns out to be far larger than its own size makes likely."""
        self.written += size
        read = self.packed or (self.path.stat().st_size if self.file.closed else self.file.tell())
        if self.written > max(FREELY, RATIO * read):
            raise DataError(
                f"{self.path}: entry {name!r} brings the files to {size_text(self.written)}, more than {RATIO} times "
                "the archive's own bytes so far; it is not to be trusted, nothing is unpacked (unpack it by hand and "
                "use --source if it is)"
            )


@contextmanager
def explaining_entry(path: Path, name: str, output: Path) -> Iterator[None]:
    """As `mafr.disk.writing`; what is an entry's fault becomes a DataError that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(problem := storage_error(error, output.parent), FullDiskError):
            raise problem from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise DataError(
                f"{path}: entry {name!r} needs a folder where another entry is a file, or the reverse; the archive is "
                "not to be trusted, nothing is unpacked"
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            shown = repr(name if len(name) <= 60 else f"{name[:40]}…{name[-15:]}")
            raise DataError(f"{path}: entry {shown}: the name is too long for this disk; pack it again") from error
        if not is_of_disk(error):
            raise  # trouble with the archive
        raise problem from error
