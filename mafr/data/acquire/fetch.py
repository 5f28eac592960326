"""Download one file: resumed where it was left, checked, and in its place whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from mafr.data.acquire.web import (
    BLOCK,
    FetchError,
    Follow,
    PassingError,
    UnreachableError,
    content_tag,
    length,
    open_address,
    pause,
    read_blocks,
)
from mafr.errors import MafrError
from mafr.parallel.progress import byte_bar
from mafr.paths import write_json

RETRIES = 6  # attempts in a row that bring nothing


class BrokenError(FetchError):
    """The connection broke again and again; what came is kept, and a later call goes on from there."""


class ChecksumError(MafrError):
    """What was downloaded is damaged or another file, and was deleted. found: its checksum (hex)."""

    def __init__(self, address: str, kind: str, found: str, expected: str) -> None:
        super().__init__(f"{address}: what was downloaded has {kind} {found} instead of {expected}; it was deleted")
        self.found = found


def fetch(
    address: str,
    target: Path,
    sha256: str | None = None,
    md5: str | None = None,
    what: str = "",
    follow: Follow | None = None,
) -> Path:
    """Download a file to `target` and return it; a file that is there already is kept.

    What arrives is kept in `<name>.part` beside the target, from where a later call goes on if the server still has
    the same file. Processes that want the same file wait for each other.

    Args:
        sha256, md5: of the whole file (hex).
        what: for the progress bar; default: the target's name.
        follow: knows the pages that some servers put before a file.

    Raises:
        FetchError: the address does not give the file, or the disk is too small. BrokenError, one of them: the
            connection breaks again and again.
        ChecksumError: the content is another one.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part, note = _part(target), target.with_name(f"{target.name}.part.json")
    sums = {kind: value for kind, value in (("SHA-256", sha256), ("MD5", md5)) if value is not None}
    while not target.is_file():
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, or its process ends
            if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                continue  # another process had it, and has finished or deleted it
            if target.is_file():
                part.unlink()  # another process finished just before this one opened the part
                continue
            partial = _Partial.of(file, note, bool(sums))
            try:
                _receive(address, partial, target, what or target.name, follow)
            except BaseException:
                if not partial.have:
                    _delete(part, note)
                raise
            file.flush()
            for kind, expected in sums.items():
                if (found := _checksum(part, kind, what or target.name)) != expected:
                    _delete(part, note)
                    raise ChecksumError(address, kind, found, expected)
            part.replace(target)
            note.unlink(missing_ok=True)
    return target


def fetched(target: Path) -> int:
    """Bytes of a file that are on the disk already, in part or whole, from earlier calls of `fetch`."""
    return next((path.stat().st_size for path in (target, _part(target)) if path.exists()), 0)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class _Partial:
    """A file on its way: open for appending, with the size (None: not known) and the tag of the remote one.

    The tag changes with the remote file's content. Both are noted beside the partial file.
    """

    file: BinaryIO
    note: Path
    size: int | None = None
    tag: str = ""

    @classmethod
    def of(cls, file: BinaryIO, note: Path, is_checked: bool) -> _Partial:
        """What an earlier call left; bytes of which nothing is known only where a checksum tells in the end."""
        file.seek(0, os.SEEK_END)
        partial = cls(file, note)
        if not partial.have:
            return partial
        try:
            known = json.loads(note.read_bytes())
            partial.size, partial.tag = known["size"], known["tag"]
        except (OSError, ValueError, KeyError, TypeError):
            if not is_checked:
                partial.begin(None, "")
        return partial

    @property
    def have(self) -> int:
        return self.file.tell()

    def begin(self, size: int | None, tag: str) -> None:
        """Drop what there is, for a remote file of this size and tag."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self.tag = size, tag
        write_json(self.note, {"size": size, "tag": tag})


def _receive(address: str, partial: _Partial, target: Path, what: str, follow: Follow | None) -> None:
    failures, most, is_new = 0, partial.have, True
    with byte_bar(partial.size, partial.have, what) as progress:
        while True:
            try:
                for block in _blocks(address, partial, target, progress, follow):
                    partial.file.write(block)
                    progress.update(len(block))
                    is_new = False
                return
            except PassingError as error:
                failures = 1 if partial.have > most else failures + 1
                most = max(most, partial.have)
                if is_new and isinstance(error, UnreachableError):
                    raise
                if failures >= RETRIES:
                    kept = f"; {partial.have:,} bytes are kept in {_part(target)}: run the same command again to go on"
                    reason = f"the connection broke ({error.reason}){kept if partial.have else ''}"
                    raise BrokenError(address, reason) from error
                pause(failures)


def _blocks(address: str, partial: _Partial, target: Path, progress: tqdm, follow: Follow | None) -> Iterator[bytes]:
    """The bytes that are missing; `partial` begins anew where the server does not continue this file."""
    have = partial.have
    with open_address(address, have, partial.tag, follow) as answer:
        span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        size = int(total) if total.isdecimal() else partial.size
        if answer.status == 416 and size == have:
            return  # all of it is here
        if answer.status == 206 and span.partition("-")[0] == str(have) and partial.size in (None, size):
            progress.total = partial.size = size
        elif answer.status in (206, 416):
            partial.begin(None, "")
            raise PassingError(address, "it has another file now")
        else:
            partial.begin(length(answer), content_tag(answer))
            progress.reset(partial.size)
        if partial.size is not None:
            _check_space(address, target, partial.size - partial.have)
        yield from read_blocks(address, answer)
    if partial.size is not None and partial.have < partial.size:
        raise PassingError(address, "closed early")


def _check_space(address: str, target: Path, left: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < left:
        needed = f"{left / 1e6:,.0f} MB are needed for {target.name}, {free / 1e6:,.0f} are free"
        raise FetchError(address, f"{target.parent}: {needed}")


def _checksum(path: Path, kind: str, what: str) -> str:
    found = hashlib.new(kind.replace("-", ""), usedforsecurity=False)
    with path.open("rb") as file, byte_bar(path.stat().st_size, 0, f"checking {what}") as progress:
        while block := file.read(BLOCK):
            found.update(block)
            progress.update(len(block))
    return found.hexdigest()


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _delete(part: Path, note: Path) -> None:
    part.unlink(missing_ok=True)
    note.unlink(missing_ok=True)
