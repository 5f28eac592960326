"""Local worker processes: each does one item at a time, and a death costs no more than that item."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker

from mafr.errors import MafrError

MAX_DEATHS = 3  # of the processes that work on one item
_NO_GUARD = (
    "a worker process ended with {reason} before it could work on {what}; what it said stands above. A script that "
    'starts workers must do so below `if __name__ == "__main__":`, as workers load the script again; or give workers=1'
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def processors() -> int:
    """The number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, and so of processes started there."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)


def worker_environments(count: int, gpus: int = 0) -> list[dict[str, str]]:
    """Environments of `count` worker processes: their share of threads and, in turn, a GPU.

    gpus: the number of GPUs that torch sees; with CUDA_VISIBLE_DEVICES set, they are the first of its list.
    """
    threads = dict.fromkeys(_THREADS, str(max(1, processors() // count)))
    if not gpus:
        return [threads] * count
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = (names or [str(k) for k in range(gpus)])[:gpus]
    return [{**threads, "CUDA_VISIBLE_DEVICES": names[k % len(names)]} for k in range(count)]


def run_in_processes(
    function: Callable, items: Sequence, environments: Sequence[Mapping[str, str]], what: str = "the items"
) -> Iterator[tuple[int, object]]:
    """(index, function(item)) of every item, as they finish, from one spawned process for each of `environments`.

    `function` must be importable (a module's top level). The item of a process that died is done again in a new
    one; MafrError once `MAX_DEATHS` processes died of one item. An error in one item is raised after the others
    that were begun are finished. Closing the iterator ends the processes at once.
    """
    waiting, deaths = deque(range(len(items))), [0] * len(items)
    staff = [_Worker(env) for env in environments[: len(items)]]
    failure: BaseException | None = None
    try:
        while True:
            for worker in staff:
                if worker.item is None and waiting and failure is None:
                    worker.give(waiting.popleft(), function, items)
            busy = {worker.pipe: worker for worker in staff if worker.item is not None}
            if not busy:
                break
            for pipe in connection.wait(list(busy)):
                worker = busy[pipe]
                k, worker.item = worker.item, None
                try:
                    good, value = worker.receive()
                except (EOFError, OSError):  # the pipe closes with the process
                    fresh, code = not worker.answered, worker.end()
                    reason = f"signal {-code}" if code < 0 else f"exit status {code}"
                    deaths[k] += 1
                    if fresh and code > 0:  # it has not come to its work, and would not the next time
                        failure = failure or MafrError(_NO_GUARD.format(reason=reason, what=what))
                    elif deaths[k] < MAX_DEATHS:
                        # After one death at once; an item that kills its worker again must not delay the others.
                        (waiting.appendleft if deaths[k] == 1 else waiting.append)(k)
                    elif failure is None:
                        failure = MafrError(
                            f"a worker process was killed while working on {what} ({reason}, {MAX_DEATHS} times over "
                            "the same one), most likely for lack of memory; what was finished is kept: run the same "
                            "command again, with fewer --workers"
                        )
                    continue
                if good:
                    yield k, value
                elif failure is None:
                    failure = value
        if failure is not None:
            raise failure
    finally:
        for worker in staff:
            worker.dismiss()  # all at once, before each is waited for
        for worker in staff:
            worker.end()


class _Worker:
    """A process and the parent's end of its pipe; it starts with its first item, and again after its death."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.item: int | None = None
        self.answered = False  # the present process, to any item
        self.pipe: connection.Connection | None = None
        self.process: multiprocessing.process.BaseProcess | None = None

    def give(self, k: int, function: Callable, items: Sequence) -> None:
        work = pickle.dumps((function, items[k]))
        if self.process is None:
            self._start()
        self.item = k
        with suppress(OSError):  # if the process has died, `receive` tells
            self.pipe.send_bytes(work)

    def _start(self) -> None:
        # spawn: forked children of a process with threads (torch) can hang.
        context = multiprocessing.get_context("spawn")
        self.answered = False
        self.pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(other,))
        with environment(self.variables), _interrupts_held():
            process.start()
            # Set after `start`, which tells scripts without a main guard what they lack, and inside the block: at its
            # end a Ctrl-C that came meanwhile is raised, and the process must be known by then to be ended.
            self.process = process
        other.close()  # so that the parent reads an end of file when the process is gone

    def receive(self) -> tuple[bool, object]:
        """(True, result) or (False, exception). Raises EOFError or OSError if the process is gone."""
        answer = pickle.loads(self.pipe.recv_bytes())
        self.answered = True
        return answer

    def dismiss(self) -> None:
        """Tell the process to end: a busy one at once, an idle one ends by itself when its pipe closes."""
        if self.process is not None:
            self.pipe.close()
            if self.item is not None:
                self.process.terminate()

    def end(self) -> int:
        """End the process, if there is one; returns its exit status, negative for a signal."""
        if self.process is None:
            return 0
        self.dismiss()
        process, self.process = self.process, None
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode or 0


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for the block, and block it for processes started there, so that their imports go on."""
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    # Blocking alone is not enough: another thread, such as tqdm's, may take the signal, and it is raised in here.
    usual, came = signal.getsignal(signal.SIGINT), []
    held = callable(usual) and threading.current_thread() is threading.main_thread()
    if held:
        signal.signal(signal.SIGINT, lambda *arguments: came.append(arguments))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if held:
            signal.signal(signal.SIGINT, usual)
    if came:
        usual(*came[0])


def _serve(pipe: connection.Connection) -> None:
    """The main loop of a worker process: one item after the other, until the pipe closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches the workers too: they leave it to the parent process, which ends them and reports.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # for the processes that a worker starts
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_answer(pipe.recv_bytes()))


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, whatever it is doing."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _answer(work: bytes) -> bytes:
    try:
        function, item = pickle.loads(work)
        return pickle.dumps((True, function(item)))
    except Exception as error:
        error.add_note("In a worker process:\n" + traceback.format_exc())
        try:
            answer = pickle.dumps((False, error))
            pickle.loads(answer)
        except Exception:  # not every exception can be pickled and rebuilt
            return pickle.dumps((False, MafrError(f"{type(error).__name__}: {error}")))
        return answer
