"""A file on a web server: the answer that holds it, from any byte on, and what kinds of failure there are."""

from __future__ import annotations

import http.client
import http.cookiejar
import time
from collections.abc import Callable, Iterator
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

from mafr import __version__

TIMEOUT = 60.0  # seconds without a byte
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
BLOCK = 2**20
_LOOKS = 3  # attempts to learn a size
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better a moment later

# From a web page that came instead of the file, and its address: the address behind it, None if it leads nowhere.
Follow = Callable[[str, str], str | None]


class FetchError(OSError):
    """An address does not give its file. reason: why, without the address."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.reason = reason


class PassingError(FetchError):
    """Something that may be better a moment later."""


class UnreachableError(PassingError):
    """No connection: waited for only in the middle of a file."""


def pause(failures: int) -> None:
    """Wait before the next attempt, longer after several failures in a row."""
    time.sleep(PAUSE * 2 ** (failures - 1))


def remote_size(address: str, follow: Follow | None = None) -> int | None:
    """Bytes of the file that an address gives, None where the server does not say. Raises FetchError."""
    failures = 0
    while True:
        try:
            with open_address(address, follow=follow) as answer:
                return length(answer)
        except PassingError as error:
            failures += 1
            if failures == _LOOKS or isinstance(error, UnreachableError):
                raise
            pause(failures)


def open_address(
    address: str, start: int = 0, tag: str = "", follow: Follow | None = None
) -> http.client.HTTPResponse | HTTPError:
    """The answer that holds a file, from byte `start` on if the server can; or that it ends before there (416).

    tag: as by `content_tag`; the file is sent from its beginning if it has another one now. follow: knows the pages
    that some servers put before a file. Raises FetchError.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise FetchError(address, "no http or https address")
    opener = build_opener(HTTPCookieProcessor(http.cookiejar.CookieJar()))
    headers = {"User-Agent": f"mafr/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag:
            headers["If-Range"] = tag
    behind = address
    for _ in range(3):
        answer = _request(opener, Request(behind, headers=headers))
        try:
            if answer.status == 416 or not _is_page(answer, start):
                return answer
            with answer:
                page = answer.read(BLOCK).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(address, str(error) or type(error).__name__) from error
        behind = (follow(page, answer.url) if follow else None) or ""
        if not behind:
            raise FetchError(address, "a web page, not the file")
    raise FetchError(address, "a web page, not the file, even after confirming")


def read_blocks(address: str, answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The content of an answer, block by block. Raises PassingError where the connection breaks."""
    while True:
        try:
            block = answer.read(BLOCK)
        except http.client.IncompleteRead as error:
            yield error.partial
            raise PassingError(address, "closed early") from error
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(address, str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


def length(answer: http.client.HTTPResponse) -> int | None:
    """Bytes of an answer's content, None where it does not say."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() and "Content-Encoding" not in answer.headers else None


def content_tag(answer: http.client.HTTPResponse) -> str:
    """A text that changes with the file's content, "" where the server gives none."""
    tag = answer.headers.get("ETag", "")
    strong = tag if not tag.startswith("W/") else ""  # a weak one does not promise the same bytes
    return strong or answer.headers.get("Last-Modified", "")


def _request(opener: OpenerDirector, request: Request) -> http.client.HTTPResponse | HTTPError:
    address = request.full_url
    try:
        return opener.open(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and request.has_header("Range"):
            return error
        error.close()
        kind = PassingError if error.code in _PASSING else FetchError
        raise kind(address, f"{error.code} {error.reason}") from error
    except URLError as error:
        raise UnreachableError(address, str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise PassingError(address, str(error) or type(error).__name__) from error


def _is_page(answer: http.client.HTTPResponse, start: int) -> bool:
    if answer.headers.get_content_type() == "text/html":
        return True
    return start == 0 and answer.peek(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))
