"""Whether generated scans put settings and methods in the order in which real scans put them.

The same rows run on a category's real scans and on scans of it by either generator: the compared methods, MAFR with the
demo's settings, and its steps to the preset for own parts. Both generators were made without a look at a score.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mafr.baselines.registry import MAFR, method_settings
from mafr.config import VARIANTS, Config
from mafr.experiments.development import DATASET, ladder, start
from mafr.experiments.plan import TABLE_METHODS, Run
from mafr.parallel.progress import Workers
from mafr.paths import Paths
from mafr.scoring import MAP

TRAIN = 100  # training scans
METHODS = tuple(method for method in TABLE_METHODS[1] if method in TABLE_METHODS[3])  # those with learned features
REAL, SECOND, FIRST = "real", "second", "first"
SOURCES = (REAL, SECOND, FIRST)  # real scans, and those of each generator
MAPS = ("sum", "rgb", "xyz")  # of the first and the last step, beside the step's own
METRICS = ("i_auroc", "aupro_30")
RESAMPLES = 2000


@dataclass(frozen=True)
class Entry:
    """A row: its name, its settings but for the data, and the map that is scored."""

    title: str
    method: str
    config: Config
    operator: str = MAP

    def run(self, source: str, category: str) -> Run:
        """Its run on one of `SOURCES`."""
        if source == REAL:
            config = replace(self.config, generated=False, **{f"{DATASET}_categories": (category,)})
            return Run(DATASET, category, config, TRAIN, self.method)
        of_data = {"generator": source, f"{DATASET}_train": TRAIN, f"{DATASET}_categories": (category,)}
        return Run(DATASET, category, replace(self.config, **of_data), None, self.method)


def entries() -> list[Entry]:
    """All rows."""
    steps, demo = ladder().steps, start()
    rows = [Entry(method, method, method_settings(method, demo)) for method in METHODS]
    rows += [Entry(f"MAFR, {v}", MAFR, demo.with_variant(v), demo.fusion) for v in VARIANTS]
    rows += [Entry(f"MAFR, + {step.name}", MAFR, step.config, step.config.fusion) for step in steps[1:]]
    for name, config in (("demo", demo), ("preset", steps[-1].config)):
        rows += [Entry(f"MAFR, {name}: {how}", MAFR, config, how) for how in MAPS]
    return rows


def measure(paths: Paths, category: str, workers: Workers = 1) -> dict[str, dict[Run, dict]]:
    """{source: records} of all rows on a category whose processed real scans lie in `paths.data`."""
    from mafr.experiments.execute import run_sharing
    from mafr.experiments.prepare import extract_for, prepare_data

    found = {}
    for source in SOURCES:
        runs, place = [entry.run(source, category) for entry in entries()], _place(paths, source)
        if source != REAL:
            prepare_data(runs[0].config, place, workers, (DATASET,))
        extract_for(runs, place, workers)
        found[source] = run_sharing(runs, place, workers)
    return found


def _place(paths: Paths, source: str) -> Paths:
    """Where a source's data, features and runs lie: generated scans beside the other profiles' data."""
    return paths if source == REAL else replace(paths, data_root=paths.root / "data" / "order" / source)


def rank_correlation(real: Sequence[float], generated: Sequence[float]) -> float:
    """Spearman's rank correlation of two lists of numbers."""
    return float(spearmanr(real, generated).statistic)


def most_moved(rows: pd.DataFrame, metric: str, count: int) -> pd.Series:
    """The rows whose place by a metric differs most between real scans and those of the second generator.

    Returns the place on generated scans minus place on real ones (1: highest), those with the largest distance first.
    """
    real, made = (rows[f"{source}_{metric}"].rank(ascending=False) for source in (REAL, SECOND))
    return (made - real).sort_values(key=abs, ascending=False, kind="stable").head(count)


def correlation_gain(
    real: Sequence[float], second: Sequence[float], first: Sequence[float], seed: int,
    runs: Sequence[Hashable] | None = None,
) -> tuple[float, float]:  # fmt: skip
    """95 % interval of how much better `second` correlates with `real` than `first` does, by resampling runs.

    runs: each row's, where rows share some: maps of the same training are not independent and are drawn together.
    """
    values, rng = np.array([real, second, first]), np.random.default_rng(seed)
    rows: dict[Hashable, list[int]] = {}
    for k, run in enumerate(range(len(values[0])) if runs is None else runs):
        rows.setdefault(run, []).append(k)
    groups, gains = list(rows.values()), []
    while len(gains) < RESAMPLES:
        drawn = values[:, np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))])]
        if all(len(np.unique(row)) > 1 for row in drawn):
            gains.append(rank_correlation(drawn[0], drawn[1]) - rank_correlation(drawn[0], drawn[2]))
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)


def values_of(records: Mapping[str, Mapping[Run, dict]], category: str, metric: str) -> dict[Entry, dict[str, float]]:
    """{row: {source: metric}} of the rows that are finished on every source."""
    found = {}
    for entry in entries():
        runs = {source: entry.run(source, category) for source in SOURCES}
        if all(run in records[source] for source, run in runs.items()):
            found[entry] = {s: records[s][run]["metrics"][entry.operator][metric] for s, run in runs.items()}
    return found
