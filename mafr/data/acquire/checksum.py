"""Checksums of files, with a progress bar for large ones."""

import hashlib
from pathlib import Path

from mafr.parallel.progress import byte_bar

_BLOCK = 2**20  # bytes read at once


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    return checksum(path, "SHA-256")


def checksum(path: Path, kind: str, what: str = "") -> str:
    """The checksum (hex) of a file's bytes. kind: "MD5" or "SHA-256". what: the bar's text; none without."""
    found = hashlib.new(kind.replace("-", ""), usedforsecurity=False)
    with path.open("rb") as file, byte_bar(path.stat().st_size, 0, f"checking {what}", not what) as progress:
        while block := file.read(_BLOCK):
            found.update(block)
            progress.update(len(block))
    return found.hexdigest()
