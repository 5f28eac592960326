"""Work in local processes: order, errors, and a worker that is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mafr.errors import DataError, MafrError
from mafr.progress import map_parallel


def double(number: int) -> int:
    return 2 * number


def refuse(number: int) -> int:
    raise DataError(f"file {number} is damaged")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_their_order(workers):
    assert map_parallel(double, list(range(7)), workers) == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_is(workers):
    with pytest.raises(DataError, match=r"file \d is damaged"):
        map_parallel(refuse, [1, 2], workers)


def test_a_killed_worker_is_one_clear_error():
    with pytest.raises(MafrError, match=r"killed while working on the pictures.*fewer --workers"):
        map_parallel(die, [1, 2], 2, what="the pictures")


def test_an_interrupt_ends_the_workers_at_once_and_quietly():
    code = "import time; from mafr.progress import map_parallel; map_parallel(time.sleep, [50, 50], 2)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(3)  # until the workers sleep
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1  # the caller's own
    assert "SpawnProcess" not in errors


def test_thread_limits_end_with_the_work(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    map_parallel(double, [1, 2], 2)
    assert "OMP_NUM_THREADS" not in os.environ
