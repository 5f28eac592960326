"""Work on an existing Dask cluster: `--scheduler ADDRESS`, or a `Cluster` wherever workers are asked for.

The workers share the client's files: data, features and runs must lie under the same paths there (a shared file
system), and mafr must be installed in the same version. Both are checked. A worker does one item at a time whatever its
threads, so start one process for each: `dask worker ADDRESS --nthreads 1 --nworkers N`. Which GPU a worker uses is the
cluster's affair: start one worker per GPU with its CUDA_VISIBLE_DEVICES, or use dask-cuda.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from mafr import __version__
from mafr.config import Config
from mafr.device import Place
from mafr.errors import ConfigError, MafrError, notice
from mafr.paths import PACKAGE, Paths
from mafr.processor import limited

CONNECT_SECONDS = 15  # until the scheduler must have answered
WORKER_SECONDS = 60  # until the first worker must be there
_LOGGERS = ("distributed.client", "tornado.application")  # their tracebacks repeat the errors raised here
_LOOK_SECONDS = 5  # between two looks at the list of workers
_ALIKE = "use workers of one kind, or settle it with --set device=… and --set precision=…"
_TURN = threading.Lock()  # seeds and thread counts of torch belong to a whole process


@dataclass(frozen=True)
class _Client:
    """The client's state, which every worker must share."""

    host: str
    version: str
    sources: str
    folders: tuple[tuple[Path, str, str], ...]  # folder, name of a file in it, its content; without a name see `_names`
    config: Config | None = None
    place: str | None = None  # kind of device and precision by `config` on every worker, once known
    same_bytes: str = ""  # the reach of the same bytes, see `mafr.processor`


class Cluster:
    """The workers behind a Dask scheduler; a context manager that leaves the cluster as it is.

    Can stand for a number of workers: `run_all(runs, paths, Cluster("tcp://host:8786", folders))`. The run of a worker
    that dies is done again by another, as often as the scheduler allows (`distributed.scheduler.allowed-failures`, by
    default three deaths).
    """

    def __init__(
        self, address: str, folders: Sequence[Path], read_only: Sequence[Path] = (), config: Config | None = None
    ) -> None:
        """Connect to `address` ("tcp://host:8786") and check that all workers see the folders as they are here.

        folders: made where they are missing. read_only: nothing is written there, not even for the check. config: the
        settings, if they are to mean the same device and precision on all workers. Raises ConfigError for a missing
        package, for a scheduler that does not answer or has no worker, for workers of another version of mafr or
        with another precision, and for a worker that does not see a folder; it names host and folder.
        """
        try:
            import distributed
        except ImportError:
            raise ConfigError("--scheduler needs distributed: pip install -e '.[dask]' in the checkout") from None
        self.address, self._dask = address, distributed
        with ExitStack() as undo:
            for logger in map(logging.getLogger, _LOGGERS):
                undo.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.CRITICAL)
            try:
                distributed.comm.resolve_address(address)  # with an impossible one a client would linger
                self._client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
            except (OSError, ValueError) as error:  # TimeoutError is an OSError
                raise ConfigError(
                    f"no Dask scheduler answers at {address} ({str(error) or type(error).__name__}); start one with "
                    "`dask scheduler` and give the address that it prints, like tcp://host:8786"
                ) from error
            undo.callback(self._disconnect)
            seen = [_probe(folder, undo) for folder in folders] + [_listing(folder) for folder in read_only]
            own = (socket.gethostname(), __version__, source_digest(), tuple(seen), config)
            self._here = _Client(*own, same_bytes=limited())
            self._check_workers()
            self._undo = undo.pop_all()

    @classmethod
    def of(cls, address: str, paths: Paths, others: Sequence[Path] = (), config: Config | None = None) -> Cluster:
        """A cluster that is to read and write the files of `paths`, to read `others`, and to compute by `config`."""
        folders = [paths.features("mvtec3d").parent, paths.runs("mvtec3d").parent, paths.data]
        return cls(address, folders, [f for f in (paths.weights, *others) if f.is_dir()], config)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    @property
    def place(self) -> str | None:
        """The workers' kind of place by the settings, see `mafr.device.Place.kind`; None where it does not matter."""
        return self._here.place

    def run(self, function: Callable, items: Sequence, what: str = "the items") -> Iterator[tuple[int, object]]:
        """(index, function(item)) of every item, as they finish. `function` must be importable.

        Raises the error of an item at once; MafrError if an item's workers die again and again, or if the scheduler is
        lost. Items that workers have begun are finished there all the same.
        """
        # No more are sent than there are workers: a worker's death counts against all items that it was sent.
        waiting, active = list(range(len(items)))[::-1], {}
        label, warned = f"mafr-{what.replace(' ', '-')}-{secrets.token_hex(4)}", False
        news: queue.SimpleQueue = queue.SimpleQueue()
        try:
            while waiting or active:
                workers = len(self._client.nthreads())
                if not workers and not warned:
                    notice(f"{self.address} has no worker now; waiting for one")
                warned = not workers
                while waiting and len(active) < max(workers, 1):
                    k = waiting.pop()
                    future = self._client.submit(
                        _work, function, items[k], self._here, key=f"{label}-{k}", pure=False, priority=-k
                    )
                    active[future] = k
                    future.add_done_callback(news.put)
                with suppress(queue.Empty):
                    news.get(timeout=_LOOK_SECONDS)
                for future in [future for future in active if future.done()]:
                    yield active.pop(future), future.result()
        except self._dask.KilledWorker as error:
            raise MafrError(
                f"workers of {self.address} were killed again and again while working on {what}, the last one at "
                f"{error.last_worker.address}, most likely for lack of memory; what was finished is kept: run the same "
                "command again, with fewer workers per machine"
            ) from None
        except (self._dask.CancelledError, OSError) as error:
            if isinstance(error, OSError) and self._client.status == "running":
                raise  # the item's own, such as a full disk
            raise MafrError(
                f"the connection to the scheduler at {self.address} is lost; what was finished is kept: run the same "
                "command again when it is back"
            ) from error
        finally:
            with suppress(Exception):
                self._client.cancel(list(active))

    def _disconnect(self) -> None:
        """Leave the cluster without waiting for its workers."""
        with suppress(Exception):  # the scheduler may be gone
            self._client.close(timeout=5)

    def _check_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            raise ConfigError(
                f"the scheduler at {self.address} has no worker; start some with "
                f"`dask worker {self.address} --nthreads 1 --nworkers N`"
            ) from None
        found = self._client.run(_check, self._here, on_error="return")
        for address, answer in found.items():
            if isinstance(answer, ConfigError):
                raise answer
            if isinstance(answer, Exception):
                raise ConfigError(
                    f"the worker at {address} cannot use mafr ({answer}); install mafr {__version__} there"
                ) from answer
        if len(set(found.values())) > 1:
            kinds = ", ".join(f"{answer} at {address}" for address, answer in sorted(found.items()))
            raise ConfigError(f"the workers would not compute alike: {kinds}; {_ALIKE}")
        self._here = replace(self._here, place=next(iter(found.values()), None))


@lru_cache(maxsize=1)
def source_digest() -> str:
    """SHA-256 (hex) of the installed package's sources."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _probe(folder: Path, undo: ExitStack) -> tuple[Path, str, str]:
    """A file for the workers to find, in a folder that they are to write to."""
    name, content = f".seen-by-workers-{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        undo.callback((folder / name).unlink, missing_ok=True)
    except OSError:  # data that may only be read
        return _listing(folder)
    return folder, name, content


def _listing(folder: Path) -> tuple[Path, str, str]:
    try:
        return folder, "", _names(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read here ({error.strerror}); the cluster needs it") from error


def _names(folder: Path) -> str:
    """The names in a folder, one per line."""
    return "\n".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))


@lru_cache(maxsize=1)
def _check(client: _Client) -> str | None:
    """On a worker: its kind of device and precision by the client's settings, if it has any.

    Raises ConfigError for a worker that differs from the client.
    """
    host = socket.gethostname()
    if (__version__, source_digest()) != (client.version, client.sources):
        there = f"mafr {__version__}" if __version__ != client.version else f"another copy of mafr {__version__}"
        raise ConfigError(
            f"the worker on {host} has {there}, this machine ({client.host}) mafr {client.version}; results would not "
            "be of one version: install the same on both and restart the worker"
        )
    if limited() != client.same_bytes:
        there, here = (f"`same-bytes {reach}`" if reach else "no limit" for reach in (limited(), client.same_bytes))
        raise ConfigError(
            f"the worker on {host} was started with {there}, this machine ({client.host}) with {here}; for the same "
            "bytes start workers with `mafr same-bytes REACH dask worker …` and give --same-bytes REACH here"
        )
    for folder, name, content in client.folders:
        try:
            found, reason = (folder / name).read_text() if name else _names(folder), "other files"
        except OSError as error:
            found, reason = None, error.strerror
        if found != content:
            raise ConfigError(
                f"the worker on {host} does not see {folder} as it is on {client.host} ({reason}); data, features "
                "and runs must lie on a file system that all workers share, under the same path"
            )
    if client.config is None:
        return None
    try:
        place = Place.of(client.config)
    except Exception as error:  # such as CUDA that cannot be initialised
        raise ConfigError(f"the worker on {host}: {error}") from None
    if client.place not in (None, place.kind):
        raise ConfigError(f"the worker on {host} would compute on {place.kind}, the others on {client.place}; {_ALIKE}")
    return place.kind


def _work(function: Callable, item: object, client: _Client) -> object:
    _check(client)  # workers may join after the others were checked
    with _TURN:
        return function(item)
