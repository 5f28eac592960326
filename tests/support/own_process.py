"""Measurements in a process of their own, which no other test has had before."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def measured(work: Callable, *given: object) -> object:
    """What a function of a test's module returns in a fresh process. Raises what it raises."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result(timeout=600)


def anonymous() -> int:
    """This process's resident anonymous memory, kB; where there is /proc."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("RssAnon:"))
