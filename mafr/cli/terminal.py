"""Standard output as a command finds it: closed, a pipe whose reader goes, or with few characters."""

from __future__ import annotations

import codecs
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

GONE = 141  # exit status of a command whose reader has gone: 128 and the number of SIGPIPE

_PLAIN = {
    "…": "...", "±": "+-", "×": "x", "–": "-", "—": "-", "→": "->", "←": "<-", "·": "*", "≥": ">=", "≤": "<=", "−": "-",
}  # fmt: skip


def prepare_output() -> None:
    """Let a closed output take lines and drop them, and one of few characters show plain ones instead of failing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 (stays open)
    codecs.register_error("mafr-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="mafr-plain")


@contextmanager
def going_on(keep_on: bool = True) -> Iterator[None]:
    """Go on in silence where the output's reader goes while the block prints; without `keep_on` raise the error."""
    try:
        yield
    except BrokenPipeError:
        if not keep_on:
            raise
        silence()


def has_reader() -> bool:
    """Whether output and messages still reach somebody; False also where this system cannot say."""
    try:
        watched = select.poll()
        for stream in (sys.stdout, sys.stderr):
            watched.register(stream.fileno(), 0)  # only for what is always told: errors, and an end
        return not watched.poll(0)
    except (AttributeError, OSError, ValueError):
        return False


def silence() -> None:
    """Drop what is left to print and all that comes; not even the flush at Python's end fails."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, sys.stdout.fileno())
    except (OSError, ValueError):  # a stream without a number
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (stays open)
    finally:
        os.close(nothing)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: the nearest plain characters, or a question mark for each."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end
