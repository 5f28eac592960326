"""Loops compiled by Numba at their first call and kept on disk, the same on every x86 processor with AVX2."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from llvmlite.binding import get_host_cpu_features
from numba import config, njit

_UNUSED = 14 * 86_400.0  # seconds: a process still running may load from what it opened before

# Vectors of another width sum in another order. AVX2's have one width on every x86 processor since 2013, and the wider
# ones of AVX-512 gain nothing here.
if all(get_host_cpu_features().get(name, False) for name in ("avx2", "fma", "bmi2")):
    config.CPU_NAME, config.CPU_FEATURES = "haswell", ""  # none beside those of that name


def exact(function: Callable) -> Callable:
    """Compile; it runs without the interpreter's lock. Every operation rounds by itself and in the order written."""
    return compile_loops(function)


def compile_loops(function: Callable, *freedoms: str, inline: str = "never") -> Callable:
    """As `exact`, with freedoms of LLVM's fast-math flags; inline: "always" takes it into the loops that call it."""
    folder, before = _cache_folder(Path(function.__code__.co_filename).parent), config.CACHE_DIR
    config.CACHE_DIR = folder  # read when the function is decorated
    try:
        options = {"nogil": True, "error_model": "numpy", "fastmath": set(freedoms), "inline": inline}
        return njit(cache=bool(folder), **options)(function)
    finally:
        config.CACHE_DIR = before


@cache
def _cache_folder(sources: Path) -> str:
    """Where functions of the files in a folder are kept; "" if nothing can be written there.

    Numba compiles a function again when its own file changes, but not when a file changes that it calls, nor when the
    options here do: the folder's name therefore follows from all of them. Folders of other states are removed when no
    process has opened them for long.
    """
    texts = b"".join(path.read_bytes() for path in (Path(__file__), *sorted(sources.glob("*.py"))))
    folder = Path(config.CACHE_DIR or sources / "__pycache__") / f"loops-{hashlib.sha256(texts).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return ""
        os.utime(folder)  # in use
        _sweep(folder)
        return str(folder)
    except OSError:
        return ""


def _sweep(folder: Path) -> None:
    """Remove the folders beside this one that no process has opened for `_UNUSED`."""
    for other in folder.parent.glob("loops-*"):
        with suppress(OSError):  # another process removes it, or it is another user's
            if other != folder and time.time() - other.stat().st_mtime > _UNUSED:
                shutil.rmtree(other)
