"""Work in local processes: order, errors, a worker that is killed, GPUs in turn."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mafr.errors import DataError, MafrError
from mafr.parallel import progress
from mafr.parallel.processes import MAX_DEATHS, worker_environments
from mafr.parallel.progress import bar, map_parallel


def double(number: int) -> int:
    return 2 * number


def refuse(number: int) -> int:
    raise DataError(f"file {number} is damaged")


class OddError(Exception):
    """An exception that cannot be rebuilt from its message alone."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)


def refuse_oddly(number: int) -> int:
    raise OddError(number, "cannot be sent")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(job: tuple[Path, int]) -> int:
    folder, number = job
    with (folder / "log").open("a") as log:
        log.write(f"{number}\n")
    if number == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        die(number)
    return 2 * number


def die_always_at_one(job: tuple[Path, int]) -> int:
    folder, number = job
    with (folder / "log").open("a") as log:
        log.write(f"{number}\n")
    return die(number) if number == 1 else number


def gpu_of_this_worker(number: int) -> tuple[int, str | None]:
    time.sleep(0.3)  # so that each worker gets some
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def executions(folder: Path) -> Counter:
    return Counter(int(line) for line in (folder / "log").read_text().split())


@pytest.mark.parametrize("workers", [1, 2, None])
def test_results_keep_their_order(workers):
    assert map_parallel(double, list(range(7)), workers) == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_is(workers):
    with pytest.raises(DataError, match=r"file \d is damaged"):
        map_parallel(refuse, [1, 2], workers)


def test_an_error_that_cannot_be_sent_still_says_what_it_is():
    with pytest.raises(MafrError, match="OddError: cannot be sent"):
        map_parallel(refuse_oddly, [1, 2], 2)


def test_a_killed_worker_loses_one_item_and_that_is_done_again(tmp_path):
    jobs = [(tmp_path, k) for k in range(6)]
    assert map_parallel(die_once, jobs, 2) == [0, 2, 4, 6, 8, 10]
    assert executions(tmp_path) == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1}


def test_an_item_that_kills_every_worker_is_one_clear_error_after_all_others(tmp_path):
    with pytest.raises(MafrError, match=r"killed while working on the pictures \(signal 9.*fewer --workers"):
        map_parallel(die_always_at_one, [(tmp_path, k) for k in range(4)], 2, what="the pictures")
    assert executions(tmp_path) == {0: 1, 1: MAX_DEATHS, 2: 1, 3: 1}


# Shells start what runs in the background deaf to Ctrl-C, and children inherit that.
HEARING = "import os, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def test_an_interrupt_ends_the_workers_at_once_and_quietly():
    code = f"{HEARING}from mafr.parallel.progress import map_parallel; map_parallel(time.sleep, [50, 50], 2)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(3)  # until the workers sleep
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1  # the caller's own
    assert "SpawnProcess" not in errors


def test_an_interrupt_while_a_worker_starts_ends_it_too():
    code = (
        f"{HEARING}from multiprocessing.context import SpawnProcess as P; start = P.start\n"
        "P.start = lambda self: (start(self), os.kill(os.getpid(), signal.SIGINT))\n"
        "from mafr.parallel.progress import map_parallel; map_parallel(time.sleep, [50, 50], 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "resource_tracker" not in done.stderr and "SpawnProcess" not in done.stderr


def test_an_interrupt_that_another_thread_takes_does_not_come_between_start_and_end():
    """Blocked in one thread, the signal goes to another, and Python raises it in the main one all the same."""
    code = (
        f"{HEARING}import threading; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "from multiprocessing.context import SpawnProcess as P; start = P.start\n"
        "def odd(self):\n"
        "    start(self); os.kill(os.getpid(), signal.SIGINT); time.sleep(0.2); self.whole = True; print(self.pid)\n"
        "P.start = odd\n"
        "from mafr.parallel.progress import map_parallel; map_parallel(time.sleep, [50, 50], 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert ended(int(done.stdout)), "the start was cut short, and the worker is not known"


def show_and_sleep(folder: Path) -> None:
    """What a stage's worker does: a bar, then work."""
    for _ in bar([0]):
        (folder / str(os.getpid())).touch()
        time.sleep(60)


def ended(process: int, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status = Path(f"/proc/{process}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_main_process_and_nothing_is_said(tmp_path, blow):
    """By a signal to it alone: soon, while they compute, and without warnings of leaked semaphores."""
    code = (
        f"{HEARING}import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}; from pathlib import Path\n"
        "from test_progress import show_and_sleep; from mafr.parallel.progress import bar, map_parallel\n"
        f"list(bar([1])); map_parallel(show_and_sleep, [Path({str(tmp_path)!r})] * 2, 2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    os.kill(process.pid, blow)
    assert len(workers) == 2 and all(ended(worker) for worker in workers)  # long before their minute's sleep is over
    _, errors = process.communicate(timeout=20)  # the resource tracker holds stderr until it has ended
    assert "resource_tracker" not in errors and "leaked" not in errors


def leave(number: int) -> int:
    os._exit(3)


def test_a_script_without_a_main_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    start = "from mafr.parallel.progress import map_parallel\n"
    script.write_text(f"{start}map_parallel(abs, [1, 2], 2, what='the parts')\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    last = done.stderr.rstrip().splitlines()[-1]
    assert "ended with exit status 1 before it could work on the parts" in last
    assert 'below `if __name__ == "__main__":`' in last
    assert "memory" not in last
    script.write_text(f"{start}if __name__ == '__main__':\n    print(map_parallel(abs, [1, 2], 2))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[1, 2]\n"


def test_an_exit_status_is_no_lack_of_memory():
    with pytest.raises(MafrError, match="exit status 3") as caught:
        map_parallel(leave, [1, 2], 2)
    assert "memory" not in str(caught.value)


def test_names_in_bars_are_printed_escaped(monkeypatch):
    shown = []

    class Bar:
        _lock = None

        def __init__(self, *_: object, desc: str, **__: object) -> None:
            shown.append(desc)

    monkeypatch.setattr(progress, "tqdm", Bar)
    bar([], what="verifying a\x1b[2J")
    progress.byte_bar(1, what="unpacking a\x1b[2J.tar")
    assert shown == ["verifying a\\x1b[2J", "unpacking a\\x1b[2J.tar"]


def test_thread_limits_end_with_the_work(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    map_parallel(double, [1, 2], 2)
    assert "OMP_NUM_THREADS" not in os.environ


def test_workers_get_gpus_in_turn(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in worker_environments(5, gpus=2)] == ["0", "1", "0", "1", "0"]
    assert all("CUDA_VISIBLE_DEVICES" not in e for e in worker_environments(3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a,7")
    assert [e["CUDA_VISIBLE_DEVICES"] for e in worker_environments(3, gpus=2)] == ["3", "GPU-5a", "3"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    # Without a number of workers there is one a GPU; a process keeps its GPU for all its items.
    seen = map_parallel(gpu_of_this_worker, list(range(8)), None, gpus=2)
    assert {gpu for _, gpu in seen} == {"0", "1"}
    assert len({process for process, _ in seen}) == len(set(seen)) == 2
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
