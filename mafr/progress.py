"""Work over many items: a progress bar with an estimate, in turn or in local processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from tqdm.auto import tqdm

from mafr.errors import MafrError


def default_workers() -> int:
    """The number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bar(items: Iterable, total: int | None = None, what: str = "") -> Iterator:
    """A progress bar for the terminal or Jupyter; silent where nobody watches (not a terminal, TQDM_DISABLE)."""
    silent = True if os.environ.get("TQDM_DISABLE") else None
    return tqdm(items, total=total, desc=what, disable=silent, leave=True, dynamic_ncols=True)


@contextmanager
def _thread_limit(threads: int) -> Iterator[None]:
    """Let processes started inside the block use `threads` threads each in their numerical libraries."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(threads) for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def map_parallel(function: Callable, items: list, workers: int = 1, what: str = "") -> list:
    """[function(item) for item in items], in `workers` spawned processes, results in order.

    `function` must be importable (a module's top level). An error in one item is raised after the
    pool has been told to start nothing further; what finished before it stays on disk.
    """
    if not items:
        return []  # without an empty bar
    if workers <= 1 or len(items) <= 1:
        return [function(item) for item in bar(items, what=what)]
    results: list = [None] * len(items)
    workers = min(workers, len(items))
    # spawn: forked children of a process with threads (torch) can hang.
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches the workers too: they leave it to this process, which ends them and says what is to be said.
    quiet = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    threads = max(1, default_workers() // workers)
    with _thread_limit(threads), ProcessPoolExecutor(workers, context, **quiet) as pool:
        futures = {pool.submit(function, item): k for k, item in enumerate(items)}
        try:
            for future in bar(as_completed(futures), total=len(items), what=what):
                results[futures[future]] = future.result()
        except BrokenProcessPool:
            raise MafrError(
                f"a worker process was killed while working on {what or 'the items'}, most likely for lack of memory; "
                "what was finished is kept: run the same command again, with fewer --workers"
            ) from None
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results
