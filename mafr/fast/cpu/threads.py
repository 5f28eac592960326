"""Loops on parts of the rows or channels, side by side in as many threads as torch takes for a product.

The parts follow from the sizes alone and their sums are added in their order, so that results do not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")
_PART = 2**18  # values of a part: 1 MB, which a core's own cache holds beside two others


def row_parts(rows: int, width: int) -> list[slice]:
    """Slices of rows, each small enough for a core's cache."""
    step = max(1, _PART // max(width, 1))
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def each(function: Callable[[slice], T], parts: Sequence[slice]) -> list[T]:
    """The results for all parts, in their order. The function calls loops alone: torch brings threads of its own."""
    threads = min(torch.get_num_threads(), len(parts))
    if threads < 2:
        return [function(part) for part in parts]
    return list(_pool(torch.get_num_threads()).map(function, parts))


def add_up(function: Callable[..., object], parts: Sequence[slice], *totals: np.ndarray) -> None:
    """function(part, *sums) adds what it finds to its sums; those of all parts are added to the totals in order."""
    if len(parts) == 1:
        function(parts[0], *totals)
        return

    def one(part: slice) -> list[np.ndarray]:
        sums = [np.zeros_like(total) for total in totals]
        function(part, *sums)
        return sums

    for sums in each(one, parts):
        for total, found in zip(totals, sums, strict=True):
            total += found


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="loops")
