"""What becomes of a benchmark's process is said in its own words, or by how it ended."""

import os
import signal
from multiprocessing.connection import Connection

import pytest

from mafr.bench.child import child
from mafr.errors import ConfigError, MafrError


def fail(kind: str, line: Connection) -> None:
    """In the process."""
    line.send("ready")
    line.recv()
    if kind == "mafr":
        raise ConfigError("the loss became nan")
    if kind == "other":
        raise ZeroDivisionError("by zero")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "aborted":
        os.kill(os.getpid(), signal.SIGABRT)
    os._exit(3)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("mafr", "^the loss became nan$"),
        ("other", "^ZeroDivisionError: by zero$"),
        ("killed", "^the training was killed, most likely for lack of memory; take less$"),
        ("aborted", f"^the training was ended by signal {int(signal.SIGABRT)}$"),
        ("left", r"^the training ended without an answer \(exit status 3\)$"),
    ],
)
def test_errors_keep_their_words_and_deaths_their_cause(kind, said):
    with child(fail, (kind,), "the training", "; take less") as process:
        assert process.receive() == "ready"
        with pytest.raises(MafrError, match=said) as caught:
            process.ask("on")
        assert isinstance(caught.value, ConfigError) == (kind == "mafr")
