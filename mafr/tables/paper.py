"""Stored runs -> Tables I-V beside the published ones: published, measured and, on real data, the difference.

Nothing is trained here and nothing is rounded: a table reads records, `mafr.tables.layout` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mafr.baselines.methods import MAFR, METHODS, TABLE_METHODS, check_methods, title
from mafr.config import CATEGORIES, DATASET_TITLES, VARIANTS, Config
from mafr.errors import ConfigError
from mafr.experiments.selection import Selection, Wanted, select
from mafr.tables import published as paper
from mafr.tables.layout import Column, Row, Table, write
from mafr.tables.stamp import banner, data_title, is_comparable, row_stamp, stamp
from mafr.tables.supplement import table_cost, table_s1, table_s2, table_s3

__all__ = ["TABLES", "table1", "table2", "table3", "table4", "table5", "write", "write_tables"]

LOSS_LABELS = {terms: " + ".join(f"L_{term}" for term in terms) for terms in paper.TABLE_4}
FUSION_LABELS = {
    "rgb": "Ψ2D", "xyz": "Ψ3D", "sum": "Ψ2D + Ψ3D", "max": "max(Ψ2D, Ψ3D)", "product": "Ψ2D · Ψ3D",
}  # fmt: skip
PUBLISHED_STAMP = {"data": "as published"}


def table1(
    records: Sequence[Mapping], config: Config, variants: Sequence[str] = VARIANTS, methods: Iterable[str] = METHODS
) -> Table:
    """Table I: I-AUROC on MVTec 3D-AD by category; measured rows of the compared `methods` and of MAFR's `variants`.

    records: metrics.json contents. Raises ResultError for missing runs, listing them and the command.
    """
    return _by_category(1, records, config, variants, methods)


def table2(
    records: Sequence[Mapping], config: Config, variants: Sequence[str] = VARIANTS, methods: Iterable[str] = METHODS
) -> Table:
    """Table II: I-AUROC on Eyecandies by category; as `table1`."""
    return _by_category(2, records, config, variants, methods)


def table3(
    records: Sequence[Mapping], config: Config, variant: str | None = None, methods: Iterable[str] = METHODS
) -> Table:
    """Table III: four metrics at `config.shots` and with all training samples, means over MVTec 3D-AD.

    variant: of MAFR (default: the config's). methods: the compared ones, see `table1`. Published values stand
    where the numbers of shots agree. Raises ResultError for missing runs.
    """
    variant = variant or config.variant
    shots = (*config.shots, None)
    entries = _entries(3, (variant,), methods)
    wanted = {(e, shot): e.wanted("mvtec3d", config, shots=shot) for e in entries for shot in shots}
    selection = select(records, config, _flat(wanted), ("3",))
    columns, published = [], {method: {} for method in paper.TABLE_3}
    measured: dict[Entry, dict[str, np.ndarray]] = {entry: {} for entry in entries}
    for metric in paper.METRICS:
        for shot in shots:
            name = f"{metric}_{'full' if shot is None else f'{shot}_shot'}"
            head = "Full" if shot is None else f"{shot}-shot"
            columns.append(Column(name, head, paper.METRIC_TITLES[metric]))
            if shot in paper.SHOTS:
                for method, row in paper.TABLE_3.items():
                    published[method][name] = row[metric][paper.SHOTS.index(shot)]
            for entry in entries:
                stored = _stored(metric, variant)
                measured[entry][name] = selection.mean_over(wanted[entry, shot], config.fusion, stored)
    rows = [Row((_cited(m),), "published", values, PUBLISHED_STAMP) for m, values in published.items()]
    for entry in entries:
        difference = f"{entry.label} − published" if _means_compare(config) else None
        texts = row_stamp(config, entry.variant, selection)
        rows += _measured_rows(entry.label, difference, measured[entry], published[entry.title], texts)
    notes = [*stamp(selection, config, _flat(wanted)), *_mean_notes("mvtec3d", config, means_only=True)]
    notes.append(_aupro_note(variant))
    if set(shots) != set(paper.SHOTS):
        notes.append("Published values are shown only where the number of shots is the same.")
    heading = "Few-shot performance on MVTec 3D-AD"
    texts = _frame_texts(config, "mvtec3d", (variant,))
    return Table.of("3", heading, ("Method",), columns, rows, notes=notes, **texts)


def table4(records: Sequence[Mapping], config: Config, variant: str | None = None) -> Table:
    """Table IV: the loss terms one by one and together, means over MVTec 3D-AD; arguments as `table3`."""
    variant = variant or config.variant
    wanted = {terms: _wanted("mvtec3d", config, variant, loss_terms=terms) for terms in paper.TABLE_4}
    selection = select(records, config, _flat(wanted), ("4",))
    cells = {terms: _four_metrics(selection, wanted[terms], config.fusion, variant) for terms in wanted}
    return _ablation(
        "4", "Ablation of the loss terms", "Loss function", LOSS_LABELS, paper.TABLE_4, cells,
        config, variant, selection, _flat(wanted),
    )  # fmt: skip


def table5(records: Sequence[Mapping], config: Config, variant: str | None = None) -> Table:
    """Table V: the operators that fuse the 2D and the 3D map, means over MVTec 3D-AD; arguments as `table3`."""
    variant = variant or config.variant
    wanted = _wanted("mvtec3d", config, variant)
    selection = select(records, config, wanted, ("5",))
    cells = {fusion: _four_metrics(selection, wanted, fusion, variant) for fusion in paper.TABLE_5}
    return _ablation(
        "5", "Ablation of the fusion of the anomaly maps", "Anomaly map", FUSION_LABELS, paper.TABLE_5, cells,
        config, variant, selection, wanted,
    )  # fmt: skip


TABLES: dict[int, Callable[..., Table]] = {1: table1, 2: table2, 3: table3, 4: table4, 5: table5}


def write_tables(
    records: Sequence[Mapping],
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
        if number not in TABLES:
            raise ConfigError(f"unknown table {number}; the tables are {', '.join(map(str, TABLES))}")
        choice: dict[str, object] = {"variants": variants} if number in (1, 2) else {"variant": variants[0]}
        if number in TABLE_METHODS:
            choice["methods"] = methods
        made.append(TABLES[number](records, config, **choice))
    datasets = tuple(dataset for number, dataset in ((1, "mvtec3d"), (2, "eyecandies")) if number in tables)
    if datasets:
        supplements = (table_s1, table_s2, table_s3, table_cost)
        made += [make(records, config, variants, datasets, methods) for make in supplements]
    return [path for table in made for path in write(table, folder).values()]


def _by_category(
    number: int, records: Sequence[Mapping], config: Config, variants: Sequence[str], methods: Iterable[str]
) -> Table:
    dataset = {1: "mvtec3d", 2: "eyecandies"}[number]
    wanted = {entry: entry.wanted(dataset, config) for entry in _entries(number, variants, methods)}
    selection = select(records, config, _flat(wanted), (str(number),))
    categories = config.categories(dataset)
    extra = tuple(category for category in categories if category not in CATEGORIES[dataset])
    names = (*CATEGORIES[dataset], *extra, "mean")
    published = paper.by_category(number)
    rows = [Row((_cited(m),), "published", values, PUBLISHED_STAMP) for m, values in published.items()]
    for entry in wanted:
        target = dict(published[entry.title])
        if not _has_all(config, dataset):
            target.pop("mean")  # it is over other categories than ours
            if not extra:
                target["mean"] = float(np.mean([target[category] for category in categories]))
        cells = {one.category: selection.values(one, config.fusion, "i_auroc") for one in wanted[entry]}
        cells["mean"] = np.mean(list(cells.values()), axis=0)
        difference = f"{entry.label} − published" if is_comparable(config) else None
        rows += _measured_rows(entry.label, difference, cells, target, row_stamp(config, entry.variant, selection))
    notes = [*stamp(selection, config, _flat(wanted)), *_mean_notes(dataset, config)]
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
    selection: Selection,
    wanted: Sequence[Wanted],
) -> Table:
    """Tables IV and V: the published block, the measured block and the block of differences."""
    rows = []
    for setting, label in labels.items():
        values = dict(zip(paper.METRICS, published[setting], strict=True))
        rows.append(Row((label,), "published", values, PUBLISHED_STAMP))
        difference = label if _means_compare(config) else None
        rows += _measured_rows(label, difference, cells[setting], values, row_stamp(config, variant, selection))
    notes = [*stamp(selection, config, wanted), *_mean_notes("mvtec3d", config, means_only=True)]
    notes.append(_aupro_note(variant))
    columns = [Column(metric, paper.METRIC_TITLES[metric]) for metric in paper.METRICS]
    texts = _frame_texts(config, "mvtec3d", (variant,))
    return Table.of(number, f"{heading} (MVTec 3D-AD)", (head,), columns, rows, notes=notes, **texts)


@dataclass(frozen=True)
class Entry:
    """A measured row of Tables I to III: a compared method, or MAFR in one of its variants."""

    method: str
    variant: str = ""

    @property
    def title(self) -> str:
        return title(self.method)

    @property
    def label(self) -> str:
        return _ours(self.variant) if self.method == MAFR else f"{self.title} (run here)"

    def wanted(self, dataset: str, config: Config, shots: int | None = None) -> list[Wanted]:
        """Its runs, a category each."""
        if self.method == MAFR:
            return _wanted(dataset, config, self.variant, shots=shots)
        return [Wanted(dataset, c, shots=shots, method=self.method) for c in config.categories(dataset)]


def _entries(number: int, variants: Sequence[str], methods: Iterable[str]) -> list[Entry]:
    """The measured rows of Table 1, 2 or 3, in the order of the published ones."""
    chosen = check_methods((MAFR, *methods))
    compared = [Entry(method) for method in TABLE_METHODS[number] if method in chosen]
    return [*compared, *(Entry(MAFR, variant) for variant in variants)]


def _wanted(
    dataset: str,
    config: Config,
    variant: str,
    loss_terms: tuple[str, ...] | None = None,
    shots: int | None = None,
) -> list[Wanted]:
    terms = loss_terms or config.loss_terms
    return [Wanted(dataset, category, variant, terms, shots) for category in config.categories(dataset)]


def _flat(groups: Mapping[object, list[Wanted]]) -> list[Wanted]:
    return [one for group in groups.values() for one in group]


def _four_metrics(selection: Selection, wanted: Sequence[Wanted], fusion: str, variant: str) -> dict[str, np.ndarray]:
    return {m: selection.mean_over(wanted, fusion, _stored(m, variant)) for m in paper.METRICS}


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


def _ours(variant: str) -> str:
    return f"MAFR (ours, {variant})"


def _cited(method: str) -> str:
    return f"{method} [{paper.REFERENCES[method]}]" if method in paper.REFERENCES else method
