"""Stored runs -> Tables I-V beside the published ones: published, measured and, on real data, the difference.

Nothing is trained here and nothing is rounded: a table reads records, `mafr.tables.layout` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mafr.baselines.registry import MAFR, METHODS, check_methods, title
from mafr.config import CATEGORIES, DATASET_TITLES, VARIANTS, Config
from mafr.experiments.plan import TABLE_METHODS, Entry, Run, dataset_of, entries, loss_runs, table_datasets
from mafr.tables import published as paper
from mafr.tables.found import Found, Records, find
from mafr.tables.layout import Column, Row, Table, write
from mafr.tables.stamp import banner, data_title, is_comparable, row_stamp, stamp
from mafr.tables.supplement import table_cost, table_s1, table_s2, table_s3

LOSS_LABELS = {terms: " + ".join(f"L_{term}" for term in terms) for terms in paper.TABLE_4}
FUSION_LABELS = {
    "rgb": "Ψ2D", "xyz": "Ψ3D", "sum": "Ψ2D + Ψ3D", "max": "max(Ψ2D, Ψ3D)", "product": "Ψ2D · Ψ3D",
}  # fmt: skip
PUBLISHED_STAMP = {"data": "as published"}


def table1(
    records: Records, config: Config, variants: Sequence[str] = VARIANTS, methods: Iterable[str] = METHODS
) -> Table:
    """Table I: I-AUROC on MVTec 3D-AD by category; measured rows of the compared `methods` and of MAFR's `variants`.

    records: each run with its record. Raises ResultError for missing runs, listing them and the command.
    """
    return _by_category(1, records, config, variants, methods)


def table2(
    records: Records, config: Config, variants: Sequence[str] = VARIANTS, methods: Iterable[str] = METHODS
) -> Table:
    """Table II: I-AUROC on Eyecandies by category; as `table1`."""
    return _by_category(2, records, config, variants, methods)


def table3(
    records: Records, config: Config, variant: str | None = None, methods: Iterable[str] = METHODS
) -> Table:
    """Table III: four metrics at `config.shots` and with all training samples, means over MVTec 3D-AD.

    variant: of MAFR (default: the config's). methods: the compared ones, see `table1`. Published values stand
    where the numbers of shots agree. Raises ResultError for missing runs.
    """
    variant = variant or config.variant
    shots = (*config.shots, None)
    rows_of = _entries(3, (variant,), methods)
    wanted = {(e, shot): e.runs("mvtec3d", config, shot) for e in rows_of for shot in shots}
    found = find(records, config, _flat(wanted), (3,))
    columns, published = [], {method: {} for method in paper.TABLE_3}
    measured: dict[Entry, dict[str, np.ndarray]] = {entry: {} for entry in rows_of}
    for metric in paper.METRICS:
        for shot in shots:
            name = f"{metric}_{'full' if shot is None else f'{shot}_shot'}"
            head = "Full" if shot is None else f"{shot}-shot"
            columns.append(Column(name, head, paper.METRIC_TITLES[metric]))
            if shot in paper.SHOTS:
                for method, row in paper.TABLE_3.items():
                    published[method][name] = row[metric][paper.SHOTS.index(shot)]
            for entry in rows_of:
                stored = _stored(metric, variant)
                measured[entry][name] = found.mean_over(wanted[entry, shot], config.fusion, stored)
    rows = [Row((_cited(m),), "published", values, PUBLISHED_STAMP) for m, values in published.items()]
    for entry in rows_of:
        difference = f"{_label(entry)} − published" if _means_compare(config) else None
        texts = row_stamp(config, entry.variant, found)
        rows += _measured_rows(_label(entry), difference, measured[entry], published[title(entry.method)], texts)
    notes = [*stamp(found, config), *_mean_notes("mvtec3d", config, means_only=True)]
    notes.append(_aupro_note(variant))
    if set(shots) != set(paper.SHOTS):
        notes.append("Published values are shown only where the number of shots is the same.")
    heading = "Few-shot performance on MVTec 3D-AD"
    texts = _frame_texts(config, "mvtec3d", (variant,))
    return Table.of("3", heading, ("Method",), columns, rows, notes=notes, **texts)


def table4(records: Records, config: Config, variant: str | None = None) -> Table:
    """Table IV: the loss terms one by one and together, means over MVTec 3D-AD; arguments as `table3`."""
    variant = variant or config.variant
    runs = {frozenset(terms): row for terms, row in loss_runs(config, variant).items()}
    wanted = {terms: runs[frozenset(terms)] for terms in paper.TABLE_4}
    found = find(records, config, _flat(wanted), (4,))
    cells = {terms: _four_metrics(found, wanted[terms], config.fusion, variant) for terms in wanted}
    return _ablation(
        "4", "Ablation of the loss terms", "Loss function", LOSS_LABELS, paper.TABLE_4, cells,
        config, variant, found,
    )  # fmt: skip


def table5(records: Records, config: Config, variant: str | None = None) -> Table:
    """Table V: the operators that fuse the 2D and the 3D map, means over MVTec 3D-AD; arguments as `table3`."""
    variant = variant or config.variant
    wanted = Entry(MAFR, variant).runs("mvtec3d", config)
    found = find(records, config, wanted, (5,))
    cells = {fusion: _four_metrics(found, wanted, fusion, variant) for fusion in paper.TABLE_5}
    return _ablation(
        "5", "Ablation of the fusion of the anomaly maps", "Anomaly map", FUSION_LABELS, paper.TABLE_5, cells,
        config, variant, found,
    )  # fmt: skip


TABLES: dict[int, Callable[..., Table]] = {1: table1, 2: table2, 3: table3, 4: table4, 5: table5}


def write_tables(
    records: Records,
    config: Config,
    folder: str | Path,
    tables: Sequence[int] = (1, 2, 3, 4, 5),
    variants: Sequence[str] = VARIANTS,
    methods: Iterable[str] = METHODS,
) -> list[Path]:
    """Write the numbered tables and the supplementary ones of their data sets into `folder`.

    Tables I and II get a measured row of MAFR for each of `variants`, the others for the first; Tables I to III
    one for each of the compared `methods` that the paper's table has. With Table I or II come S1 (confidence
    intervals), S2 (all metrics), S3 (by defect type) and cost. Nothing is written unless all can be. Returns the
    paths. Raises ResultError for missing runs, ConfigError for an unknown table or method.
    """
    methods = check_methods((MAFR, *methods))
    made = []
    for number in tables:
        dataset_of(number)  # raises ConfigError for a table that does not exist
        choice: dict[str, object] = {"variants": variants} if number in (1, 2) else {"variant": variants[0]}
        if number in TABLE_METHODS:
            choice["methods"] = methods
        made.append(TABLES[number](records, config, **choice))
    datasets = table_datasets(number for number in tables if number in (1, 2))
    if datasets:
        supplements = (table_s1, table_s2, table_s3, table_cost)
        made += [make(records, config, variants, datasets, methods) for make in supplements]
    return [path for table in made for path in write(table, folder).values()]


def _by_category(
    number: int, records: Records, config: Config, variants: Sequence[str], methods: Iterable[str]
) -> Table:
    dataset = dataset_of(number)
    wanted = {entry: entry.runs(dataset, config) for entry in _entries(number, variants, methods)}
    found = find(records, config, _flat(wanted), (number,))
    categories = config.categories(dataset)
    extra = tuple(category for category in categories if category not in CATEGORIES[dataset])
    names = (*CATEGORIES[dataset], *extra, "mean")
    published = paper.by_category(number)
    rows = [Row((_cited(m),), "published", values, PUBLISHED_STAMP) for m, values in published.items()]
    for entry in wanted:
        target = dict(published[title(entry.method)])
        if not _has_all(config, dataset):
            target.pop("mean")  # it is over other categories than ours
            if not extra:
                target["mean"] = float(np.mean([target[category] for category in categories]))
        cells = {run.category: found.values(run, config.fusion, "i_auroc") for run in wanted[entry]}
        cells["mean"] = np.mean(list(cells.values()), axis=0)
        difference = f"{_label(entry)} − published" if is_comparable(config) else None
        rows += _measured_rows(_label(entry), difference, cells, target, row_stamp(config, entry.variant, found))
    notes = [*stamp(found, config), *_mean_notes(dataset, config)]
    columns = [Column(name, paper.HEADINGS.get(name, name)) for name in names]
    heading = f"I-AUROC on {DATASET_TITLES[dataset]}"
    texts = _frame_texts(config, dataset, variants)
    return Table.of(str(number), heading, ("Method",), columns, rows, notes=notes, **texts)


def _ablation(
    number: str,
    heading: str,
    head: str,
    labels: Mapping,
    published: Mapping,
    cells: Mapping,
    config: Config,
    variant: str,
    found: Found,
) -> Table:
    """Tables IV and V: the published block, the measured block and the block of differences."""
    rows = []
    for setting, label in labels.items():
        values = dict(zip(paper.METRICS, published[setting], strict=True))
        rows.append(Row((label,), "published", values, PUBLISHED_STAMP))
        difference = label if _means_compare(config) else None
        rows += _measured_rows(label, difference, cells[setting], values, row_stamp(config, variant, found))
    notes = [*stamp(found, config), *_mean_notes("mvtec3d", config, means_only=True)]
    notes.append(_aupro_note(variant))
    columns = [Column(metric, paper.METRIC_TITLES[metric]) for metric in paper.METRICS]
    texts = _frame_texts(config, "mvtec3d", (variant,))
    return Table.of(number, f"{heading} (MVTec 3D-AD)", (head,), columns, rows, notes=notes, **texts)


def _entries(number: int, variants: Sequence[str], methods: Iterable[str]) -> list[Entry]:
    """The measured rows of Table 1, 2 or 3, in the order of the published ones; MAFR's are always there."""
    return entries(number, variants, check_methods((MAFR, *methods)))


def _label(entry: Entry) -> str:
    """A measured row's name."""
    return f"MAFR (ours, {entry.variant})" if entry.variant else f"{entry.title} (run here)"


def _flat(groups: Mapping[object, list[Run]]) -> list[Run]:
    return [one for group in groups.values() for one in group]


def _four_metrics(found: Found, runs: Sequence[Run], fusion: str, variant: str) -> dict[str, np.ndarray]:
    return {m: found.mean_over(runs, fusion, _stored(m, variant)) for m in paper.METRICS}


def _stored(metric: str, variant: str) -> str:
    """The record's key: the released code's AUPRO has 99 thresholds, the paper variant's is exact."""
    return metric.replace("aupro_", "aupro99_") if variant == "released" else metric


def _measured_rows(
    label: str,
    difference_label: str | None,
    cells: Mapping[str, np.ndarray],
    published: Mapping[str, float],
    texts: Mapping[str, str],
) -> list[Row]:
    """The measured row of `cells` (one value a seed) and, if it has a label, its difference from `published`."""
    values = {name: float(seeds.mean()) for name, seeds in cells.items()}
    spread = {name: float(seeds.std(ddof=1)) for name, seeds in cells.items() if len(seeds) > 1}
    rows = [Row((label,), "measured", values, texts, spread)]
    common = {name: values[name] - published[name] for name in values if name in published}
    if difference_label and common:
        rows.append(Row((difference_label,), "difference", common, texts))
    return rows


def _frame_texts(config: Config, dataset: str, variants: Sequence[str]) -> dict[str, object]:
    """Banner and section heads."""
    which = f"run here; MAFR: {' and '.join(variants)}"
    sections = {
        "published": f"Published ({DATASET_TITLES[dataset]})",
        "measured": f"Measured ({which}; {data_title(config, dataset)})",
        "difference": f"Difference (run here − published; MAFR: {' and '.join(variants)})",
    }
    if not is_comparable(config):
        sections["published"] += ": for orientation only"
        sections["measured"] += ": NOT comparable with the published rows"
    return {"banner": banner(config), "sections": sections}


def _has_all(config: Config, dataset: str) -> bool:
    return set(config.categories(dataset)) == set(CATEGORIES[dataset])


def _means_compare(config: Config) -> bool:
    """Whether the measured means of Tables III-V and the published ones are over the same real categories."""
    return is_comparable(config) and _has_all(config, "mvtec3d")


def _mean_notes(dataset: str, config: Config, means_only: bool = False) -> list[str]:
    if _has_all(config, dataset):
        return []
    measured = config.categories(dataset)
    notes = [f"Measured in {len(measured)} categories only ({', '.join(measured)}); our means are over these."]
    if is_comparable(config) and means_only:
        notes.append("No differences are shown: the published means are over all ten categories.")
    elif is_comparable(config) and set(measured) < set(CATEGORIES[dataset]):
        notes.append("The difference of the means is to the published mean over the same categories.")
    return notes


def _aupro_note(variant: str) -> str:
    how = "99 thresholds, as in the released code" if variant == "released" else "exact: every score is a threshold"
    return f"Measured AUPRO: {how}; Table S2 has both."


def _cited(method: str) -> str:
    return f"{method} [{paper.REFERENCES[method]}]" if method in paper.REFERENCES else method
