"""Downloads of single files: resumed after a break, checked, and in their place whole or not at all."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from mafr import __version__
from mafr.data.acquire.checksum import checksum as checksum_of
from mafr.data.acquire.drive import confirm_address
from mafr.errors import MafrError
from mafr.parallel.progress import byte_bar
from mafr.paths import write_json

TIMEOUT = 60.0  # seconds without a byte
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
RETRIES = 6  # attempts in a row that bring nothing
_REQUESTS = 3  # attempts to get an answer
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better a moment later
_HEAD = 64  # bytes that show a web page
_BLOCK = 2**16  # what a reset connection loses at most


class FetchError(OSError):
    """An address does not give its file. reason: why; short: the same after the host's name."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.reason, self.short = reason, f"{urlsplit(address).netloc or address}: {reason}"


class PassingError(FetchError):
    """A failure that may pass: worth another attempt."""


class UnreachableError(PassingError):
    """No answer: another attempt is worth it only in the middle of a file."""


class BrokenError(FetchError):
    """The connection broke again and again; what arrived is kept, and a later call continues from there."""


class ChecksumError(MafrError):
    """The downloaded file was damaged or another one, and was deleted. found: its checksum (hex)."""

    def __init__(self, address: str, kind: str, found: str, expected: str) -> None:
        super().__init__(f"{address}: what was downloaded has {kind} {found} instead of {expected}; it was deleted")
        self.found = found


def fetch(address: str, target: Path, checksum: str = "", kind: str = "SHA-256", what: str = "") -> Path:
    """Download a file to `target` and return it; an existing file is kept.

    What arrives is kept in `<name>.part` beside the target, from where a later call continues if the server still has
    the same file. Processes that want the same file wait for each other.

    checksum: of the whole file (hex), of this `kind` ("SHA-256" or "MD5"); "" where none is known. what: for the
    progress bar; default: the target's name. Raises FetchError where the address does not give the file or the disk is
    too small, BrokenError where the connection breaks again and again, ChecksumError where the content is another one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, note, what = _part(target), target.with_name(f"{target.name}.part.json"), what or target.name
    while not target.is_file():
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed or its process ends
            if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                continue  # another process held it, and has finished or deleted it
            if target.is_file():
                part.unlink()  # another process finished just before this one opened the part
                continue
            partial = _Partial(file, note)
            partial.recall(is_checked=bool(checksum))
            try:
                _receive(address, partial, target, what)
                file.flush()
                if checksum and (found := checksum_of(part, kind, what)) != checksum:
                    raise ChecksumError(address, kind, found, checksum)
            except BaseException as error:
                if isinstance(error, ChecksumError) or not partial.have:
                    part.unlink(missing_ok=True)
                    note.unlink(missing_ok=True)
                raise
            part.replace(target)
            note.unlink(missing_ok=True)
    return target


def fetched(target: Path) -> int:
    """Bytes of a file that are on the disk already, in part or whole, from earlier calls of `fetch`."""
    return next((path.stat().st_size for path in (target, _part(target)) if path.exists()), 0)


@contextmanager
def open_address(address: str, start: int = 0, tag: str = "") -> Iterator[tuple[requests.Response, Iterator[bytes]]]:
    """The answer with a file, and its content in blocks: from byte `start` on if the server can, else from the first.

    Status 416 says that the file ends before `start`. Google Drive's confirmation page is passed.

    tag: the file's ETag or date; where it has changed, the file is sent from its beginning. Raises FetchError.
    """
    headers = {"User-Agent": f"mafr/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": tag} if tag else {})
    # One attempt to connect, as another address may answer; Retry-After may ask for hours and is ignored.
    retries = Retry(_REQUESTS - 1, connect=0, other=0, status_forcelist=_PASSING, backoff_factor=PAUSE,
                    raise_on_status=False, respect_retry_after_header=False)  # fmt: skip
    behind: str | None = address
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        for _ in range(3):
            with _get(session, behind, headers) as answer:
                blocks = _blocks(address, answer)
                head = next(blocks, b"")
                is_page = "text/html" in answer.headers.get("Content-Type", "").lower() or (
                    not start and head.lstrip().lower().startswith((b"<!doctype html", b"<html"))
                )
                if answer.status_code == 416 or not is_page:
                    yield answer, chain([head], blocks)
                    return
                page = (head + b"".join(islice(blocks, 16))).decode(errors="replace")
                behind = confirm_address(page, answer.url)
            if behind is None:
                is_quota = "download quota" in page.lower() or "too many users" in page.lower()
                reason = "its download quota is used up for today" if is_quota else "a web page, not the file"
                raise FetchError(address, reason)
    raise FetchError(address, "a web page, not the file, even after confirming")


def content_length(answer: requests.Response) -> int | None:
    """Bytes of an answer's content, None where it does not say."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() and "Content-Encoding" not in answer.headers else None


def root_cause(error: Exception) -> str:
    """The text of the error at the bottom of those that requests and urllib3 wrap around it."""
    while inner := error.__cause__ or next((arg for arg in error.args if isinstance(arg, Exception)), None):
        error = inner
    return str(error) or type(error).__name__


def _get(session: requests.Session, address: str, headers: Mapping[str, str]) -> requests.Response:
    try:
        answer = session.get(address, headers=headers, stream=True, timeout=TIMEOUT)
    except ValueError as error:  # requests' errors about addresses
        raise FetchError(address, "no http or https address") from error
    except requests.RequestException as error:
        raise UnreachableError(address, root_cause(error)) from error
    if answer.ok or (answer.status_code == 416 and "Range" in headers):
        return answer
    answer.close()
    kind = PassingError if answer.status_code in _PASSING else FetchError
    raise kind(address, f"{answer.status_code} {answer.reason}")


def _blocks(address: str, answer: requests.Response) -> Iterator[bytes]:
    """The content, undecoded: decoding would lose what arrived before a break. First as much as shows a web page."""
    answer.raw.enforce_content_length = False  # `_append` compares sizes
    size = _HEAD
    try:
        while block := answer.raw.read(size, decode_content=False):
            yield block
            size = _BLOCK
    except HTTPError as error:
        raise PassingError(address, root_cause(error)) from error


@dataclass
class _Partial:
    """A partly downloaded file, open for appending.

    The remote file's size (None: not known) and its tag, which changes with the content, are noted beside it.
    """

    file: BinaryIO
    note: Path
    size: int | None = None
    tag: str = ""

    @property
    def have(self) -> int:
        return self.file.tell()

    def recall(self, is_checked: bool) -> None:
        """Continue what an earlier call left; without a note only if a checksum is compared in the end."""
        self.file.seek(0, os.SEEK_END)
        try:
            known = json.loads(self.note.read_bytes())
            self.size, self.tag = known["size"], known["tag"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            if self.have and not is_checked:
                self.begin(None, "")

    def begin(self, size: int | None, tag: str) -> None:
        """Drop what is there, for a remote file of this size and tag."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self.tag = size, tag
        write_json(self.note, {"size": size, "tag": tag})


def _receive(address: str, partial: _Partial, target: Path, what: str) -> None:
    failures, first, most = 0, partial.have, partial.have
    with byte_bar(partial.size, partial.have, what) as progress:
        while True:
            try:
                _append(address, partial, target, progress)
                return
            except PassingError as error:
                failures = 1 if partial.have > most + _HEAD else failures + 1
                most = max(most, partial.have)
                if isinstance(error, UnreachableError) and partial.have == first:
                    raise
                if failures >= RETRIES:
                    kept = f"; {partial.have:,} bytes are kept in {_part(target)}: run the same command again to go on"
                    reason = f"the connection broke ({error.reason}){kept if partial.have else ''}"
                    raise BrokenError(address, reason) from error
                time.sleep(PAUSE * 2 ** (failures - 1))


def _append(address: str, partial: _Partial, target: Path, progress: tqdm) -> None:
    """Write the missing bytes; `partial` begins again where the server does not continue this file."""
    have = partial.have
    with open_address(address, have, partial.tag) as (answer, blocks):
        span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        size = int(total) if total.isdecimal() else partial.size
        if answer.status_code == 416 and size == have:
            return  # all of it is here
        if answer.status_code == 206 and span.partition("-")[0] == str(have) and partial.size in (None, size):
            progress.total = partial.size = size
        elif answer.status_code in (206, 416):
            partial.begin(None, "")
            raise PassingError(address, "it has another file now")
        else:
            tag = answer.headers.get("ETag", "")
            if not tag or tag.startswith("W/"):  # a weak one does not promise the same bytes
                tag = answer.headers.get("Last-Modified", "")
            partial.begin(content_length(answer), tag)
            progress.reset(partial.size)
        left, free = (partial.size or 0) - partial.have, shutil.disk_usage(target.parent).free
        if free < left:
            needed = f"{left / 1e6:,.0f} MB are needed for {target.name}, {free / 1e6:,.0f} are free"
            raise FetchError(address, f"{target.parent}: {needed}")
        for block in blocks:
            partial.file.write(block)
            progress.update(len(block))
    if partial.size is not None and partial.have < partial.size:
        raise PassingError(address, "closed early")


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")
