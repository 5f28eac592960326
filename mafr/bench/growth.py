"""`mafr bench --growth`: seconds per epoch and memory of a training over the number of its samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from multiprocessing.connection import Connection

from mafr.bench.child import child
from mafr.bench.work import make_sample
from mafr.config import Config
from mafr.device import computing
from mafr.experiments.provenance import peak_megabytes, reset_peak, resident_megabytes
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.parallel.progress import bar
from mafr.processor import processor_name
from mafr.training import fit

_MORE = 4  # epochs between the two trainings whose difference is taken


@dataclass(frozen=True)
class Growth:
    """A training on one thread: seconds per epoch, and peak memory above the loaded libraries and the tokens, MB."""

    samples: int
    seconds: float
    megabytes: float


class _Drawn:
    """Tokens of generated samples, as a training takes them; they differ from sample to sample."""

    live = False

    def __init__(self, config: Config, count: int) -> None:
        extractor = FeatureExtractor.from_config(config, random_weights=True)
        self.kept = [extractor.extract(make_sample(config, 0.2 + 0.1 * (k % 3), seed=k)) for k in range(count)]

    def tokens(self, indices: Sequence[int]) -> Tokens:
        """The tokens of one sample."""
        return self.kept[indices[0]]


def growth(config: Config, counts: Sequence[int]) -> list[Growth]:
    """Measure each number of samples in a process of its own."""
    config = replace(config, random_weights=True, device="cpu", precision="float32", threads=1, min_steps=0)
    rows = []
    for count in bar(counts, what="samples"):
        with child(_serve, (config, count), f"the training on {count} samples") as training:
            rows.append(training.receive())
    return rows


def _serve(config: Config, count: int, line: Connection) -> None:
    with computing(config):
        drawn = _Drawn(config, count)
        fit(replace(config, epochs=1), drawn, range(1))  # compiles what is compiled
        before = resident_megabytes()
        reset_peak()
        seconds = []
        for epochs in (1, 1 + _MORE):
            start = time.perf_counter()
            fit(replace(config, epochs=epochs), drawn, range(count))
            seconds.append(time.perf_counter() - start)
    line.send(Growth(count, (seconds[1] - seconds[0]) / _MORE, peak_megabytes() - before))


def report(rows: Sequence[Growth]) -> str:
    """The measurement as a table to print."""
    lines = [f"{'samples':>7} {'s per epoch':>11} {'ms per sample':>13} {'MB':>6}"]
    for row in rows:
        each = 1e3 * row.seconds / row.samples
        lines.append(f"{row.samples:7} {row.seconds:11.3f} {each:13.2f} {row.megabytes:6.0f}")
    return "\n".join(lines)


def as_json(config: Config, rows: Sequence[Growth]) -> dict:
    """The same for a file, with the date; notebook 12 shows such files."""
    head = {"kind": "growth", "date": date.today().isoformat(), "profile": config.profile}
    return {**head, "device": processor_name(), "growth": [asdict(row) for row in rows]}
