"""Supplementary tables: confidence intervals (S1), all metrics (S2), metrics per defect type (S3), and costs."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mafr.baselines.registry import METHODS
from mafr.config import DATASETS, VARIANTS, Config
from mafr.experiments.plan import Run, TableMethod, table_methods, table_of
from mafr.intervals import auroc_interval, share_interval
from mafr.metrics import metric_names
from mafr.tables.layout import Column, Row, Table
from mafr.tables.published import METRIC_TITLES
from mafr.tables.records import Records, TableRecords, select_records
from mafr.tables.stamp import banner, machines, row_stamp, source_notes

_METRICS = ("i_auroc", *metric_names())
# Keys of a record's timings and memory -> heading; others are shown under their own names.
_COST_HEADINGS = {
    "sample_s": "Sample to map, s per sample", "model_mb": "Model, MB", "parameters": "Parameters and kept features",
    "train_s": "Training, s", "extract_rgb_s": "Image features, s per sample",
    "extract_xyz_s": "Point features, s per sample", "inference_s": "Inference, s",
    "query_s": "of it searches in banks, s", "map_s": "Final maps, s", "score_s": "Metrics, s",
    "peak_mb": "Peak memory of the process, MB",
}  # fmt: skip
_ERRORS = {"images": "Images", "errors": "Errors", "rate": "Rate", "low": "Low", "high": "High"}  # of Table S7
_HEADINGS = METRIC_TITLES | _COST_HEADINGS | _ERRORS | {
    "i_auroc_low": "Low", "i_auroc_high": "High", "count": "Samples", "seed": "Seed", "test_good": "Test good",
    "test_defective": "Test anomalous",
}  # fmt: skip
_INTEGERS = ("images", "errors", "count", "seed", "test_good", "test_defective", "parameters")


def supplementary_table(
    name: str,
    records: Records,
    config: Config,
    variants: Sequence[str] = VARIANTS,
    datasets: Sequence[str] = DATASETS,
    methods: Iterable[str] = METHODS,
) -> Table:
    """One of the tables `SUPPLEMENT` of the full runs of Tables I and II.

    S1: I-AUROC per category and seed with its 95 % interval (Newcombe). S2: every metric per category, AUPRO exact and
    with 99 thresholds. S3: every metric per defect type, its samples against all good ones. S7: false alarms and
    misses at the stored threshold, by category and defect type. cost: seconds and sizes per category, in a table of
    their own because they differ from run to run.

    records: the record of each run. Raises ResultError for missing runs, listing them and the command.
    """
    wanted = [
        run
        for dataset in datasets
        for method in table_methods(table_of(dataset), variants, methods)
        for run in method.runs(dataset, config)
    ]
    selected = select_records(records, config, wanted, [table_of(dataset) for dataset in datasets])
    title, make = _TABLES[name]
    columns, rows, note = make(selected)
    labels = ("Data set", "Category", *(("Defect",) if name in ("S3", "S7") else ()), "Method")
    notes = [*source_notes(selected), note]
    columns = [Column(column, metric_heading(column), decimals=_decimals(column)) for column in columns]
    return Table(name, title, labels, columns, rows, banner(config, published=False), notes)


Content = tuple[Sequence[str], list[Row], str]  # names of the columns, rows, a note


def _intervals(selected: TableRecords) -> Content:
    counted, measured = ("test_good", "test_defective"), ("i_auroc", "i_auroc_low", "i_auroc_high")
    rows = []
    for run in selected.runs:
        for seed, value in zip(selected.seeds, selected.values(run, "i_auroc"), strict=True):
            values = {name: selected.record(run, seed)["counts"][name] for name in counted}
            ends = auroc_interval(value, *values.values())
            values |= {"seed": seed} | dict(zip(measured, (value, *ends), strict=True))
            rows.append(Row(_labels(run), "measured", values, row_stamp(selected, run.variant)))
    note = "95 % interval by the numbers of samples: Newcombe, Statistics in Medicine 25 (2006), method 5."
    return ("seed", *counted, *measured), rows, note


def _all_metrics(selected: TableRecords) -> Content:
    cells = {run: {metric: selected.values(run, metric) for metric in _METRICS} for run in selected.runs}
    fusion = selected.config.fusion
    note = f"Fusion operator of MAFR: {fusion}. Exact: every score is a threshold; 99: the released code's."
    return _METRICS, _rows_and_means(selected, cells), note


def _by_defect(selected: TableRecords) -> Content:
    names, rows = ("count", *_METRICS), []
    for run in selected.runs:
        dataset, category, method = _labels(run)
        for defect in sorted(selected.record(run)["metrics"][selected.map_name(run)]["by_defect"]):
            cells = {name: selected.values(run, name, defect=defect) for name in names}
            rows.append(_row((dataset, category, defect, method), cells, selected, run))
    fusion = selected.config.fusion
    note = f"Fusion operator of MAFR: {fusion}. Each defect type's samples are compared with all good ones."
    return names, rows, note


def _errors(selected: TableRecords) -> Content:
    rows = []
    for run in selected.runs:
        dataset, category, method = _labels(run)
        for seed in selected.seeds:
            for kind, wrong in _wrong(selected.record(run, seed), selected.map_name(run)).items():
                count, total = int(wrong.sum()), len(wrong)
                ends = share_interval(count, total)
                values = dict(zip(_ERRORS, (total, count, count / total, *ends), strict=True)) | {"seed": seed}
                labels = dataset, category, kind, method
                rows.append(Row(labels, "measured", values, row_stamp(selected, run.variant)))
    note = (
        "An image is called anomalous if its score exceeds the threshold, the "
        f"{selected.config.quantile:.0%} quantile of the good validation images' scores. Errors on good images: false "
        "alarms; on those with a defect: missed ones. Intervals: 95 %, Wilson's."
    )
    return ("seed", *_ERRORS), rows, note


def _wrong(record: Mapping, how: str) -> dict[str, np.ndarray]:
    """{"good", "any defect" and each type: which of its images are on the wrong side of the threshold}."""
    above, labels = np.asarray(record["scores"][how]) > record["threshold"], np.asarray(record["samples"]["labels"])
    defects, anomalous = np.asarray(record["samples"]["defects"]), labels == 1
    found = {"good": above[~anomalous], "any defect": ~above[anomalous]}
    return found | {name: ~above[anomalous & (defects == name)] for name in sorted(set(defects[anomalous]))}


def _costs(selected: TableRecords) -> Content:
    costs = {run: [_cost(selected.record(run, seed)) for seed in selected.seeds] for run in selected.runs}
    present = {name: None for seeds in costs.values() for cost in seeds for name in cost}
    names = [*(n for n in _COST_HEADINGS if n in present), *(n for n in present if n not in _COST_HEADINGS)]
    cells = {}
    for run, seeds in costs.items():
        shared = [name for name in names if all(name in cost for cost in seeds)]
        cells[run] = {name: np.array([cost[name] for cost in seeds]) for name in shared}
    note = (
        f"Computed on: {'; '.join(machines(selected))}. "
        "Times and sizes depend on the machine and its load: they do not repeat. Sample to map: from the processed "
        "sample in memory: the features that the method reads, inference and final map. Seconds that are not said to "
        "be of a sample are of the whole category."
    )
    return names, _rows_and_means(selected, cells), note


_TABLES = {
    "S1": ("I-AUROC with confidence intervals", _intervals),
    "S2": ("Every metric by category", _all_metrics),
    "S3": ("Every metric by defect type", _by_defect),
    "S7": ("False alarms and misses at the threshold", _errors),
    "cost": ("Cost by category, all training samples", _costs),
}
SUPPLEMENT = tuple(_TABLES)


def _rows_and_means(selected: TableRecords, cells: Mapping[Run, Mapping[str, np.ndarray]]) -> list[Row]:
    """A row per run, and after the categories of each data set and method their mean."""
    groups: dict[tuple[str, TableMethod], list[Run]] = {}
    for run in selected.runs:
        groups.setdefault((run.dataset, run.table_method), []).append(run)
    rows = []
    for group in groups.values():
        rows += [_row(_labels(run), cells[run], selected, run) for run in group]
        first, *others = (cells[run] for run in group)
        shared = [name for name in first if all(name in other for other in others)]
        means = {name: np.mean([cells[run][name] for run in group], axis=0) for name in shared}
        dataset, _, method = _labels(group[0])
        rows.append(_row((dataset, "mean", method), means, selected, group[0]))
    return rows


def _labels(run: Run) -> tuple[str, str, str]:
    return run.config.dataset_title(run.dataset), run.category, run.table_method.title


def _row(labels: tuple[str, ...], cells: Mapping[str, np.ndarray], selected: TableRecords, run: Run) -> Row:
    return Row.measured(labels, cells, row_stamp(selected, run.variant), exact=_INTEGERS)


def _cost(record: Mapping) -> dict[str, float]:
    """Timings and memory of a record and the number of parameters; what was not measured is left out."""
    numbers = {"parameters": record.get("parameters"), "sample_s": sample_seconds(record)}
    numbers = record.get("timings", {}) | record.get("memory", {}) | numbers
    return {name: float(value) for name, value in numbers.items() if _is_measured(value)}


def sample_seconds(record: Mapping) -> float | None:
    """From the processed sample in memory to its final map: the features that are read, inference, blur, s.

    None where it was not measured.
    """
    timings, counts = record.get("timings", {}), record["counts"]
    extraction, rest = (
        [timings.get(name) for name in names]
        for names in (("extract_rgb_s", "extract_xyz_s"), ("inference_s", "map_s"))
    )
    if not all(_is_measured(part) for part in (*extraction, *rest)):
        return None
    return sum(extraction) + sum(rest) / (counts["test_good"] + counts["test_defective"])


def _is_measured(value: float | None) -> bool:
    return value is not None and value == value


def _decimals(name: str) -> int:
    coarse = name != "sample_s" and (name in _COST_HEADINGS or name.endswith(("_s", "_mb")))
    return 0 if name in _INTEGERS else 2 if coarse else 3


def metric_heading(name: str) -> str:
    """A column's heading; an AUPRO's says which form it has."""
    if name.startswith("aupro"):
        how, _, percent = name.partition("_")
        return f"AUPRO@{int(percent)}% ({'99' if how.endswith('99') else 'exact'})"
    return _HEADINGS.get(name, name)
