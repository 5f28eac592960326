"""Work over many items: a progress bar with an estimate; in turn, in local processes, or on a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

from tqdm.auto import tqdm

from mafr.errors import printable
from mafr.parallel.processes import processors, run_in_processes, worker_environments

if TYPE_CHECKING:
    from mafr.parallel.dask import Cluster

# A number of local processes, a cluster, or None for as many processes as suit this machine.
Workers: TypeAlias = "int | Cluster | None"


def default_workers(gpus: int = 0) -> int:
    """As many processes as suit this machine: one per GPU where work goes to GPUs, else one per processor."""
    return gpus or processors()


def bar(items: Iterable, total: int | None = None, what: str = "", show: bool = True) -> Iterator:
    """A progress bar for the terminal or Jupyter; none on request, outside a terminal and with TQDM_DISABLE."""
    silent = True if not show or os.environ.get("TQDM_DISABLE") else None
    _plain_lock()
    return tqdm(items, total=total, desc=printable(what), disable=silent, dynamic_ncols=True)


def byte_bar(total: int | None, done: int = 0, what: str = "", silent: bool = False) -> tqdm:
    """A progress bar in bytes that starts at `done`; none where `bar` shows none."""
    silent = True if silent or os.environ.get("TQDM_DISABLE") else None
    _plain_lock()
    units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    return tqdm(total=total, initial=done, desc=printable(what), disable=silent, dynamic_ncols=True, **units)


def _plain_lock() -> None:
    """Let tqdm's bars share a lock of this process alone.

    Its own is a semaphore of the system, which a killed process leaves behind, with a warning of Python's.
    """
    if not hasattr(tqdm, "_lock"):
        tqdm.set_lock(threading.RLock())


def map_parallel(function: Callable, items: list, workers: Workers = 1, what: str = "", gpus: int = 0) -> list:
    """[function(item) for item in items], by `workers`, results in order.

    `function` must be importable (a module's top level). gpus: local processes get GPUs 0 to gpus - 1 in turn.
    The item of a worker that died is done again, see `mafr.parallel.processes`. After an error in one item no further
    one is begun, then it is raised.
    """
    if not items:
        return []  # without an empty bar
    if workers is None or isinstance(workers, int):
        count = min(workers or default_workers(gpus), len(items))
        if count <= 1:
            return [function(item) for item in bar(items, what=what)]
        finished = run_in_processes(function, items, worker_environments(count, gpus), what or "the items")
    else:
        finished = workers.run(function, items, what or "the items")
    results: list = [None] * len(items)
    with closing(finished):  # ends the workers, whatever happens here
        for k, result in bar(finished, total=len(items), what=what):
            results[k] = result
    return results
