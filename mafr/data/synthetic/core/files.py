"""Generated categories on disk: whole or not at all, and never over data that was not generated."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mafr.data.manifest import GENERATED
from mafr.errors import DataError
from mafr.paths import temporary_beside, write_json

_STALE = 3600.0  # seconds after which a temporary folder is nobody's any more


def write_category(folder: Path, stamp: Mapping, write: Callable[[Path], None]) -> None:
    """Fill `folder` by `write(temporary folder)` unless a category with the same `stamp` is there.

    Raises DataError for a folder that was not generated: real data is never overwritten.
    """
    if is_complete(folder, stamp):
        return
    if folder.exists() and not (folder / GENERATED).is_file():
        raise DataError(
            f"{folder} exists and was not generated: it holds no {GENERATED}. Move it away or choose another data "
            "root; real data is never overwritten."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        if time.time() - leftover.stat().st_mtime > _STALE:
            shutil.rmtree(leftover, ignore_errors=True)
    fresh, old = temporary_beside(folder), temporary_beside(folder)
    try:
        write(fresh)
        write_json(fresh / GENERATED, stamp)
        if is_complete(folder, stamp):  # another process has just finished it
            return
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def is_complete(folder: Path, stamp: Mapping) -> bool:
    """Whether `folder` is a whole category with this `stamp`."""
    try:
        return json.loads((folder / GENERATED).read_text()) == stamp
    except (OSError, ValueError):
        return False
