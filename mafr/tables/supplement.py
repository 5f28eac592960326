"""Supplementary tables: confidence intervals (S1), all metrics (S2), by defect type (S3), and the costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mafr.baselines.registry import METHODS
from mafr.config import DATASETS, VARIANTS, Config
from mafr.experiments.plan import Entry, Run, entries, table_of
from mafr.metrics import metric_names
from mafr.tables.found import Found, Records, find, map_name, number
from mafr.tables.layout import Column, Row, Table
from mafr.tables.stamp import banner, row_stamp, stamp

LABELS = ("Data set", "Category", "Method")
METRICS = ("i_auroc", *metric_names())
# Keys of a record's timings and memory -> head; what is not named here is shown under its own name.
COST_HEADINGS = {
    "sample_s": "Sample to map, s a sample", "model_mb": "Model, MB", "parameters": "Parameters and kept features",
    "train_s": "Training, s", "extract_rgb_s": "Image features, s a sample",
    "extract_xyz_s": "Point features, s a sample", "inference_s": "Inference, s",
    "query_s": "of it searches in banks, s", "map_s": "Final maps, s", "score_s": "Metrics, s",
    "peak_mb": "Peak memory of the process, MB",
}  # fmt: skip
_EXTRACTION = ("extract_rgb_s", "extract_xyz_s")
_INTERVAL = ("i_auroc_low", "i_auroc_high")
_WHOLE = ("count", "seed", "test_good", "test_defective", "parameters")


def table_s1(
    records: Records,
    config: Config,
    variants: Sequence[str] = VARIANTS,
    datasets: Sequence[str] = DATASETS,
    methods: Iterable[str] = METHODS,
) -> Table:
    """Table S1: I-AUROC by category and seed with its 95 % bootstrap interval (stratified, percentile).

    records: each run with its record. Raises ResultError for missing runs, listing them and the command.
    """
    found = _find(records, config, variants, datasets, methods)
    columns = _columns(("seed", "test_good", "test_defective", "i_auroc", "i_auroc_low", "i_auroc_high"))
    rows = []
    for run in found.runs:
        for seed in found.seeds:
            record = found.record(run, seed)
            chosen = map_name(run, config.fusion)
            values = {name: number(run, record, chosen, name) for name in ("i_auroc", *_INTERVAL)}
            values |= {"seed": seed} | {name: record["counts"][name] for name in ("test_good", "test_defective")}
            rows.append(Row(_labels(run, config), "measured", values, row_stamp(config, run.variant, found)))
    draws = sorted({found.record(run, seed)["config"]["bootstrap"] for run in found.runs for seed in found.seeds})
    text = " or ".join(f"{count:,}" for count in draws)
    notes = [f"95 % percentile bootstrap, {text} resamples within the good and the anomalous test samples."]
    heading = "I-AUROC with confidence intervals"
    return _table("S1", heading, LABELS, columns, rows, notes, config, found)


def table_s2(
    records: Records,
    config: Config,
    variants: Sequence[str] = VARIANTS,
    datasets: Sequence[str] = DATASETS,
    methods: Iterable[str] = METHODS,
) -> Table:
    """Table S2: every metric by category, AUPRO exact and with 99 thresholds; arguments as `table_s1`."""
    found = _find(records, config, variants, datasets, methods)
    rows = []
    for group in _groups(found.runs):
        cells = {run: {m: found.values(run, config.fusion, m) for m in METRICS} for run in group}
        rows += [_row(_labels(run, config), cells[run], config, run, found) for run in group]
        rows.append(_mean_row(group, list(cells.values()), config, found))
    notes = [f"Fusion operator of MAFR: {config.fusion}. Exact: every score is a threshold; 99: the released code's."]
    heading = "Every metric by category"
    return _table("S2", heading, LABELS, _columns(METRICS), rows, notes, config, found)


def table_s3(
    records: Records,
    config: Config,
    variants: Sequence[str] = VARIANTS,
    datasets: Sequence[str] = DATASETS,
    methods: Iterable[str] = METHODS,
) -> Table:
    """Table S3: every metric by defect type, its samples against all good ones; arguments as `table_s1`."""
    found = _find(records, config, variants, datasets, methods)
    names = ("count", *METRICS)
    rows = []
    for run in found.runs:
        chosen = map_name(run, config.fusion)
        for defect in sorted(found.record(run)["metrics"][chosen]["by_defect"]):
            cells = {
                name: np.array([number(run, found.record(run, s), chosen, name, defect) for s in found.seeds])
                for name in names
            }
            labels = (config.dataset_title(run.dataset), run.category, defect, run.entry.title)
            rows.append(_row(labels, cells, config, run, found))
    notes = [f"Fusion operator of MAFR: {config.fusion}. Each defect type's samples are compared with all good ones."]
    heads = ("Data set", "Category", "Defect", "Method")
    heading = "Every metric by defect type"
    return _table("S3", heading, heads, _columns(names), rows, notes, config, found)


def table_cost(
    records: Records,
    config: Config,
    variants: Sequence[str] = VARIANTS,
    datasets: Sequence[str] = DATASETS,
    methods: Iterable[str] = METHODS,
) -> Table:
    """Seconds and sizes by category, apart from the others as they differ from run to run; as `table_s1`."""
    found = _find(records, config, variants, datasets, methods)
    costs = {run: [_cost(found.record(run, seed)) for seed in found.seeds] for run in found.runs}
    present = {name: None for seeds in costs.values() for cost in seeds for name in cost}
    names = [*(n for n in COST_HEADINGS if n in present), *(n for n in present if n not in COST_HEADINGS)]
    rows = []
    for group in _groups(found.runs):
        cells = {}
        for run in group:
            shared = [n for n in names if all(n in cost for cost in costs[run])]
            cells[run] = {n: np.array([cost[n] for cost in costs[run]]) for n in shared}
        rows += [_row(_labels(run, config), cells[run], config, run, found) for run in group]
        rows.append(_mean_row(group, list(cells.values()), config, found))
    notes = [
        "Times and sizes depend on the machine and its load: they do not repeat. Sample to map: from the processed "
        "sample in memory: the features that the method reads, inference and final map. Seconds that are not said to "
        "be of a sample are of the whole category."
    ]
    heading = "Cost by category, all training samples"
    return _table("cost", heading, LABELS, _columns(names), rows, notes, config, found)


def _find(
    records: Records, config: Config, variants: Sequence[str], datasets: Sequence[str], methods: Iterable[str]
) -> Found:
    """The records of the full runs of Tables I and II."""
    tables = [table_of(dataset) for dataset in datasets]
    wanted = [
        run
        for table, dataset in zip(tables, datasets, strict=True)
        for entry in entries(table, variants, methods)
        for run in entry.runs(dataset, config)
    ]
    return find(records, config, wanted, tables)


def _groups(wanted: Sequence[Run]) -> list[list[Run]]:
    """The categories of each data set and entry."""
    groups: dict[tuple[str, Entry], list[Run]] = {}
    for run in wanted:
        groups.setdefault((run.dataset, run.entry), []).append(run)
    return list(groups.values())


def _labels(run: Run, config: Config) -> tuple[str, str, str]:
    return (config.dataset_title(run.dataset), run.category, run.entry.title)


def _row(
    labels: tuple[str, ...], cells: Mapping[str, np.ndarray], config: Config, run: Run, found: Found
) -> Row:
    values = {name: float(seeds.mean()) for name, seeds in cells.items()}
    spread = {name: float(seeds.std(ddof=1)) for name, seeds in cells.items() if len(seeds) > 1 and name not in _WHOLE}
    return Row(labels, "measured", values, row_stamp(config, run.variant, found), spread)


def _mean_row(
    group: Sequence[Run], cells: Sequence[Mapping[str, np.ndarray]], config: Config, found: Found
) -> Row:
    shared = [name for name in cells[0] if all(name in row for row in cells)]
    means = {name: np.mean([row[name] for row in cells], axis=0) for name in shared}
    dataset, _, method = _labels(group[0], config)
    return _row((dataset, "mean", method), means, config, group[0], found)


def _cost(record: Mapping) -> dict[str, float]:
    """Timings and memory of a record and the number of parameters; what was not measured is left out."""
    numbers = dict(record.get("timings", {})) | dict(record.get("memory", {}))
    if (seconds := sample_seconds(record)) is not None:
        numbers["sample_s"] = seconds
    if "parameters" in record:
        numbers["parameters"] = record["parameters"]
    return {name: float(value) for name, value in numbers.items() if value is not None and value == value}


def sample_seconds(record: Mapping) -> float | None:
    """From the processed sample in memory to its final map: what the method reads of the features, inference, blur.

    None where it was not measured.
    """
    timings = record.get("timings", {})
    extraction, rest = ([timings.get(name) for name in names] for names in (_EXTRACTION, ("inference_s", "map_s")))
    if any(part is None or part != part for part in (*extraction, *rest)):
        return None
    counts = record["counts"]
    return sum(extraction) + sum(rest) / (counts["test_good"] + counts["test_defective"])


def _columns(names: Sequence[str]) -> list[Column]:
    columns = []
    for name in names:
        coarse = name != "sample_s" and (name in COST_HEADINGS or name.endswith(("_s", "_mb")))
        decimals = 0 if name in _WHOLE else 2 if coarse else 3
        columns.append(Column(name, _heading(name), decimals=decimals))
    return columns


def _heading(name: str) -> str:
    if name.startswith("aupro"):
        how, _, percent = name.partition("_")
        return f"AUPRO@{int(percent)}% ({'99' if how.endswith('99') else 'exact'})"
    known = {
        "i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "i_auroc_low": "Low", "i_auroc_high": "High",
        "count": "Samples", "seed": "Seed", "test_good": "Test good", "test_defective": "Test anomalous",
    }  # fmt: skip
    return known.get(name) or COST_HEADINGS.get(name, name)


def _table(
    number: str,
    heading: str,
    heads: Sequence[str],
    columns: Sequence[Column],
    rows: Sequence[Row],
    notes: Sequence[str],
    config: Config,
    found: Found,
) -> Table:
    notes = [*stamp(found, config), *notes]
    return Table.of(number, heading, heads, columns, rows, banner=banner(config, published=False), notes=notes)
