"""A folder of parts from files to lines: as it is, or watched as it fills."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mafr.errors import DataError, notice
from mafr.parallel.progress import bar
from mafr.predict.engine import Scored, Scorer
from mafr.predict.outputs import Outputs
from mafr.predict.parts import PartFiles, find_parts

POLL = 1.0  # seconds between two looks into a watched folder
PATIENCE = 10.0  # seconds that the files of an unreadable part must be unchanged before it counts as such
MOST_TOLD = 10  # files without a partner that are named in the end

Show = Callable[[dict[str, object]], None]


def score_folder(folder: Path, scorer: Scorer, outputs: Outputs, show: Show, stop: threading.Event) -> None:
    """Score the parts in a folder, until all are done or `stop` is set; `show` gets each line.

    Parts whose names an earlier run has listed are passed over.
    """
    parts = [part for part in find_parts(folder) if part.name not in outputs.listed]
    with scorer:
        for scored in bar(scorer(parts), len(parts), "scoring"):
            show(outputs.add(scored))
            if stop.is_set():
                return


def watch_folder(
    folder: Path, scorer: Scorer, outputs: Outputs, show: Show, stop: threading.Event,
    poll: float = POLL, patience: float = PATIENCE,
) -> None:  # fmt: skip
    """Score parts as their files come into a folder, until `stop` is set; `show` gets each line.

    A part is scored when both its files are there and have not changed between two looks. One that cannot be read then
    is tried again until its files have not changed for `patience` seconds; then the error is its line. Files that are
    written anew later make a part again. Parts whose names an earlier run has listed are passed over. What lacks its
    partner is named on stderr in the end. A folder that goes is waited for.
    """
    arrivals = _Arrivals(folder, outputs.listed, patience)
    with scorer:
        while not stop.is_set():
            for scored in scorer(arrivals.ready()):
                if arrivals.is_done(scored):
                    show(outputs.add(scored))
                if stop.is_set():
                    break
            else:
                stop.wait(poll)
    alone = list(arrivals.alone.values())
    for error in alone[:MOST_TOLD]:
        notice(f"not scored: {error}")
    if more := len(alone[MOST_TOLD:]):
        notice(f"not scored: {more} more files without a partner")


class _Arrivals:
    """The parts in a folder that are new and no longer being written."""

    def __init__(self, folder: Path, listed: set[str], patience: float) -> None:
        self.folder, self.patience = folder, patience
        self.alone: dict[str, str] = {}  # name -> error, of files that lacked their partner at the last look
        self._away = False
        self._listed = listed
        self._done: dict[str, int] = {}  # name -> hash of the stamp that was scored
        self._last: dict[str, tuple] = {}  # name -> stamp at the last look, of parts that are not done
        self._since: dict[str, float] = {}  # name -> when that stamp was first seen

    def ready(self) -> list[PartFiles]:
        try:
            found = find_parts(self.folder, missing_ok=True)
        except DataError as error:  # a disk of the network, for one
            if not self._away:
                notice(f"{error}; watching goes on when it is back")
            self._away = True
            return []
        if self._away:
            notice(f"{self.folder} is back")
            self._away = False
        now, ready, last = time.monotonic(), [], {}
        known = self._listed | self._done.keys()
        self.alone = {part.name: part.error for part in found if part.unpaired and part.name not in known}
        for part in found:
            if part.unpaired or part.name in self._listed:
                continue
            stamp = part.stamp()
            if self._done.get(part.name) == hash(stamp):
                continue
            if self._last.get(part.name) != stamp:
                self._since[part.name] = now
            elif all(size > 0 for size, _ in stamp) or now - self._since[part.name] >= self.patience:
                ready.append(part)
            last[part.name] = stamp
        self._last = last
        self._since = {name: self._since[name] for name in last}
        return ready

    def is_done(self, scored: Scored) -> bool:
        """Whether a result stands: not for an unreadable part whose files may not be whole yet."""
        name = scored.part.name
        stamp = self._last.get(name)
        changed = scored.part.stamp() != stamp
        waited = time.monotonic() - self._since.get(name, 0.0)
        if scored.error and (changed or waited < self.patience):
            return False
        self._done[name] = hash(stamp)
        self._last.pop(name, None)
        self._since.pop(name, None)
        return True


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (SIGINT) or SIGTERM sets inside the block; a second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        stop.set()
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
