"""The table of `mafr survey --scores`: methods and settings on real and on generated scans, and how alike they rank."""

from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from mafr.baselines.registry import MAFR, title
from mafr.config import Config
from mafr.errors import ResultError
from mafr.experiments.order import (
    FIRST,
    METRICS,
    REAL,
    SECOND,
    SOURCES,
    TRAIN,
    Entry,
    correlation_gain,
    entries,
    rank_correlation,
    values_of,
)
from mafr.experiments.plan import Run
from mafr.tables import published as paper
from mafr.tables.layout import Column, Row, Table
from mafr.tables.real import LICENCES

GAPS = "Mean distance from the real scans' values"
CORRELATIONS = "Spearman's rank correlation with the real scans"
_GROUPS = {REAL: "Real scans", SECOND: "GENERATED, second generator", FIRST: "GENERATED, first generator"}


def order_table(category: str, records: Mapping[str, Mapping[Run, dict]]) -> Table:
    """One row per method or setting, then the rank correlations of each generator's columns with the real one's.

    Raises ResultError where no row is finished on every source.
    """
    found = {metric: values_of(records, category, metric) for metric in METRICS}
    if not found[METRICS[0]]:
        raise ResultError(
            f"no method or setting is finished on real scans of {category} and on both generators' scans of it; "
            f"`mafr survey --scores --categories {category}` runs them"
        )
    config = next(iter(found[METRICS[0]])).config
    columns = [
        Column(f"{source}_{metric}", paper.METRIC_TITLES[metric], _GROUPS[source])
        for source in SOURCES for metric in METRICS
    ]  # fmt: skip
    rows = []
    for entry in found[METRICS[0]]:
        values = {f"{source}_{metric}": found[metric][entry][source] for source in SOURCES for metric in METRICS}
        rows.append(Row((_label(entry),), "measured", values, _stamp(entry.config)))
    correlations, gaps, notes = {}, {}, []
    runs = runs_of(map(_label, found[METRICS[0]]))
    for metric in METRICS:
        lists = {source: [values[source] for values in found[metric].values()] for source in SOURCES}
        for source in (SECOND, FIRST):
            correlations[f"{source}_{metric}"] = rank_correlation(lists[REAL], lists[source])
            gaps[f"{source}_{metric}"] = float(np.mean(np.abs(np.subtract(lists[REAL], lists[source]))))
        low, high = correlation_gain(lists[REAL], lists[SECOND], lists[FIRST], config.seed, runs)
        gain = correlations[f"{SECOND}_{metric}"] - correlations[f"{FIRST}_{metric}"]
        notes.append(
            f"{paper.METRIC_TITLES[metric]}: the second generator's rank correlation less the first one's is "
            f"{gain:.3f}, its 95 % interval by resampled runs {low:.3f} to {high:.3f}."
        )
    stamp = {"data": "rank correlations", "profile": "n/a", "variant": "n/a", "seeds": "n/a", "config": "n/a"}
    rows.append(Row((GAPS,), "measured", gaps, stamp))
    rows.append(Row((CORRELATIONS,), "measured", correlations, stamp))
    notes = [
        f"Real scans: MVTec 3D-AD, {category}, {TRAIN} training scans. GENERATED scans of the same category: "
        f"{config.raw_side} pixels wide, {TRAIN} training, {config.validation_count} validation, {config.test_good} "
        f"good and {config.test_defective} anomalous test scans.",
        f"Source and licence of the real scans: {LICENCES['mvtec3d']}.",
        "Settings of the demo profile where nothing else is said. A line with + adds to the line before it; the last "
        "of these is the preset for own parts.",
        *notes,
        f"The {len(runs)} rows come from {len(set(runs))} runs: maps of one run are rows of their own, and the "
        "intervals draw a run's rows together.",
        "One category and one seed: a row's interval is wide, and so is a correlation's.",
    ]
    heading = f"Methods and settings on real and on generated scans of {category}"
    return Table(f"order_{category}", heading, ("Method",), columns, rows, notes=notes)


def runs_of(labels: Iterable[str]) -> list[Hashable]:
    """What tells the runs behind the table's rows apart, by the rows' labels: several are maps of one run."""
    known = {_label(entry): (entry.method, entry.config.digest()) for entry in entries()}
    return [known[label] for label in labels]


def _label(entry: Entry) -> str:
    if entry.method != MAFR:
        return title(entry.method)
    return entry.title.replace(f": {entry.operator}", f": {paper.MAP_TITLES[entry.operator]}")


def _stamp(config: Config) -> dict[str, str]:
    return {
        "data": "real and GENERATED scans", "profile": config.profile, "variant": config.variant,
        "seeds": str(config.seed), "config": config.digest()[:12],
    }  # fmt: skip
