"""A process of a benchmark as its parent sees it: answers, errors with their own words, and deaths with their cause."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from mafr.errors import MafrError

_ENDING = 30.0  # seconds until a process that closed its line has an exit status


class Child:
    """A running process and the line to it."""

    def __init__(self, line: Connection, process: BaseProcess, what: str, advice: str = "") -> None:
        """what: the process in an error's first words; advice: the last ones where memory may have been short."""
        self._line, self._process, self._what, self._advice = line, process, what, advice

    def ask(self, *question: str) -> object:
        """Send a question and receive the answer; errors as in `receive`."""
        with suppress(OSError):  # it has died: its last words, if any, are in the line
            self._line.send(question)
        return self.receive()

    def receive(self) -> object:
        """The next answer. Raises the child's own MafrError, or one that says how it ended."""
        try:
            answer = self._line.recv()
        except (EOFError, OSError):
            raise MafrError(self._ended()) from None
        if isinstance(answer, MafrError):
            raise answer
        return answer

    def _ended(self) -> str:
        self._process.join(_ENDING)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"{self._what} ended without an answer (exit status {code})"
        if -code == signal.SIGKILL:
            return f"{self._what} was killed, most likely for lack of memory{self._advice}"
        return f"{self._what} was ended by signal {-code}"


@contextmanager
def child(function: Callable, arguments: tuple, what: str, advice: str = "") -> Iterator[Child]:
    """Start `function(*arguments, line)` in a process of its own, which ends with the block; see `Child`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_answering, args=(function, arguments, there), daemon=True)
    process.start()
    there.close()
    try:
        yield Child(here, process, what, advice)
    finally:
        here.close()
        process.terminate()
        process.join()


def _answering(function: Callable, arguments: tuple, line: Connection) -> None:
    """In the child: an error goes through the line; one that is not the package's own is shown here as well."""
    try:
        function(*arguments, line)
    except EOFError:  # the parent has hung up
        return
    except MafrError as error:
        line.send(error)
    except Exception as error:
        line.send(MafrError(f"{type(error).__name__}: {error}"))
        raise
