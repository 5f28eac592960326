"""Standard output as a command finds it: closed, a pipe whose reader goes, or with few characters."""

from __future__ import annotations

import codecs
import os
import sys

_PLAIN = {"…": "...", "±": "+-", "×": "x", "–": "-", "—": "-", "→": "->", "·": "*", "≥": ">=", "≤": "<=", "−": "-"}


def prepare_output() -> None:
    """Let a closed output take lines and drop them, and one of few characters show plain ones instead of failing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 (stays open)
    codecs.register_error("mafr-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="mafr-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: the nearest plain characters, or a question mark for each."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end
