"""Tables I-V from stored runs: the published values, the measured ones and, on real data, their differences.

Nothing is trained and nothing is rounded here: a table reads records, `mafr.tables.layout` prints it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from mafr.baselines.registry import MAFR, METHODS, check_methods, title
from mafr.config import CATEGORIES, DATASET_TITLES, VARIANTS, Config
from mafr.experiments import plan
from mafr.tables import published as paper
from mafr.tables.layout import Column, Row, Table, write
from mafr.tables.paired import paired_table
from mafr.tables.records import Records, TableRecords, select_records
from mafr.tables.stamp import banner, data_title, is_comparable, row_stamp, source_notes
from mafr.tables.supplement import SUPPLEMENT, metric_heading, supplementary_table

_PUBLISHED_STAMP = {"data": "as published"}
# Columns of Tables III-V: AUPRO exact (every score is a threshold), and by the released code's 99 thresholds.
_COLUMNS = ("i_auroc", "p_auroc", "aupro_30", "aupro99_30", "aupro_01", "aupro99_01")
# Printed metric -> its column: published AUPRO has 99 thresholds, by the released code.
_PRINTED = {m: m.replace("aupro_", "aupro99_") for m in paper.METRICS}


def table1(
    records: Records, config: Config, variants: Sequence[str] = VARIANTS, methods: Iterable[str] = METHODS
) -> Table:
    """Table I: I-AUROC per category of MVTec 3D-AD; measured rows of the compared `methods` and of MAFR's `variants`.

    records: the record of each run. Raises ResultError for missing runs, listing them and the command.
    """
    return _by_category(1, records, config, variants, methods)


def table2(
    records: Records, config: Config, variants: Sequence[str] = VARIANTS, methods: Iterable[str] = METHODS
) -> Table:
    """Table II: I-AUROC per category of Eyecandies; as `table1`."""
    return _by_category(2, records, config, variants, methods)


def table3(records: Records, config: Config, variant: str | None = None, methods: Iterable[str] = METHODS) -> Table:
    """Table III: four metrics at `config.shots` and with all training samples, means over MVTec 3D-AD.

    variant: of MAFR (default: the config's). methods: the compared ones, see `table1`. Published values stand
    where the numbers of shots agree. Raises ResultError for missing runs.
    """
    variant = variant or config.variant
    shots = (*config.shots, None)
    compared = _methods_of(3, (variant,), methods)
    wanted = {(method, shot): method.runs("mvtec3d", config, shot) for method in compared for shot in shots}
    selected = select_records(records, config, chain(*wanted.values()), (3,))
    names = {(m, shot): f"{m}_{'full' if shot is None else f'{shot}_shot'}" for m in _COLUMNS for shot in shots}
    columns = [
        Column(name, "Full" if shot is None else f"{shot}-shot", metric_heading(metric))
        for (metric, shot), name in names.items()
    ]
    published = {
        method: {
            names[_PRINTED[m], shot]: values[paper.SHOTS.index(shot)]
            for m, values in row.items() for shot in shots if shot in paper.SHOTS
        }
        for method, row in paper.TABLE_3.items()
    }  # fmt: skip
    rows = _published_rows(published)
    for method in compared:
        shown = {name: selected.mean_over(wanted[method, shot], metric) for (metric, shot), name in names.items()}
        difference = f"{_label(method)} − published" if _means_compare(config) else None
        texts = row_stamp(selected, method.variant)
        rows += _measured_rows(_label(method), difference, shown, published[title(method.method)], texts)
    remark = "Published values are shown only where the number of shots is the same."
    remarks = [] if set(shots) == set(paper.SHOTS) else [remark]
    heading = "Few-shot performance on MVTec 3D-AD"
    return _table(3, heading, "Method", columns, rows, selected, "mvtec3d", (variant,), remarks)


def table4(records: Records, config: Config, variant: str | None = None) -> Table:
    """Table IV: the loss terms one by one and together, means over MVTec 3D-AD; arguments as `table3`."""
    variant = variant or config.variant
    runs = {frozenset(terms): row for terms, row in plan.loss_runs(config, variant).items()}
    cases = {
        paper.loss_title(terms): (printed, runs[frozenset(terms)], config.fusion)
        for terms, printed in paper.TABLE_4.items()
    }
    return _ablation(4, "Ablation of the loss terms", "Loss function", cases, records, config, variant)


def table5(records: Records, config: Config, variant: str | None = None) -> Table:
    """Table V: the operators that fuse the 2D and the 3D map, means over MVTec 3D-AD; arguments as `table3`."""
    variant = variant or config.variant
    runs = plan.TableMethod(MAFR, variant).runs("mvtec3d", config)
    cases = {paper.FUSION_TITLES[fusion]: (printed, runs, fusion) for fusion, printed in paper.TABLE_5.items()}
    heading = "Ablation of the fusion of the anomaly maps"
    return _ablation(5, heading, "Anomaly map", cases, records, config, variant)


TABLES: dict[int, Callable[..., Table]] = {1: table1, 2: table2, 3: table3, 4: table4, 5: table5}


def write_tables(
    records: Records,
    config: Config,
    folder: str | Path,
    tables: Sequence[int] = (1, 2, 3, 4, 5),
    variants: Sequence[str] = VARIANTS,
    methods: Iterable[str] = METHODS,
) -> list[Path]:
    """Write the numbered tables and the supplementary ones of their data sets into `folder`; returns the paths.

    Tables I and II get a measured row of MAFR for each of `variants`, the others for the first; Tables I to III
    one for each of the compared `methods` that the paper's table has. Table I or II brings the supplementary tables,
    every one a part of Table S5.
    Nothing is written unless all can be. Raises ResultError for missing runs, ConfigError for an unknown table or
    method.
    """
    methods = check_methods((MAFR, *methods))
    made = []
    for number in tables:
        plan.dataset_of(number)  # raises ConfigError for a table that does not exist
        choice: dict[str, object] = {"variants": variants} if number in (1, 2) else {"variant": variants[0]}
        if number in plan.TABLE_METHODS:
            choice["methods"] = methods
        made.append(TABLES[number](records, config, **choice))
    if datasets := plan.table_datasets(number for number in tables if number in (1, 2)):
        made += [supplementary_table(name, records, config, variants, datasets, methods) for name in SUPPLEMENT]
    paired = paired_table(records, config, tables, variants, methods, among=True)
    made += [paired] if paired.entries else []
    return [path for table in made for path in write(table, folder)]


def _by_category(
    number: int, records: Records, config: Config, variants: Sequence[str], methods: Iterable[str]
) -> Table:
    dataset = plan.dataset_of(number)
    wanted = {method: method.runs(dataset, config) for method in _methods_of(number, variants, methods)}
    selected = select_records(records, config, chain(*wanted.values()), (number,))
    categories = config.categories(dataset)
    extra = tuple(category for category in categories if category not in CATEGORIES[dataset])
    published = paper.by_category(number)
    rows = _published_rows(published)
    for method, runs in wanted.items():
        target = dict(published[title(method.method)])
        if not _has_all(config, dataset):
            target.pop("mean")  # it is over other categories than ours
            if not extra:
                target["mean"] = float(np.mean([target[category] for category in categories]))
        cells = {run.category: selected.values(run, "i_auroc") for run in runs}
        cells["mean"] = np.mean(list(cells.values()), axis=0)
        difference = f"{_label(method)} − published" if is_comparable(config) else None
        rows += _measured_rows(_label(method), difference, cells, target, row_stamp(selected, method.variant))
    columns = [Column(name, paper.HEADINGS.get(name, name)) for name in (*CATEGORIES[dataset], *extra, "mean")]
    heading = f"I-AUROC on {DATASET_TITLES[dataset]}"
    return _table(number, heading, "Method", columns, rows, selected, dataset, variants)


def _ablation(
    number: int,
    heading: str,
    label_head: str,
    cases: Mapping[str, tuple[Sequence[float], list[plan.Run], str]],
    records: Records,
    config: Config,
    variant: str,
) -> Table:
    """Tables IV and V. cases: the published row, the runs and the fusion operator of each label."""
    selected = select_records(records, config, chain(*(runs for _, runs, _ in cases.values())), (number,))
    rows = []
    for label, (values, runs, fusion) in cases.items():
        printed = dict(zip(_PRINTED.values(), values, strict=True))
        rows.append(Row((label,), "published", printed, _PUBLISHED_STAMP))
        shown = {metric: selected.mean_over(runs, metric, fusion) for metric in _COLUMNS}
        difference = label if _means_compare(config) else None
        rows += _measured_rows(label, difference, shown, printed, row_stamp(selected, variant))
    columns = [Column(metric, metric_heading(metric)) for metric in _COLUMNS]
    return _table(number, f"{heading} (MVTec 3D-AD)", label_head, columns, rows, selected, "mvtec3d", (variant,))


def _table(
    number: int,
    heading: str,
    label_head: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    selected: TableRecords,
    dataset: str,
    variants: Sequence[str],
    remarks: Sequence[str] = (),
) -> Table:
    config, own = selected.config, f"MAFR: {' and '.join(variants)}"
    sections = {
        "published": f"Published ({DATASET_TITLES[dataset]})",
        "measured": f"Measured (run here; {own}; {data_title(config, dataset)})",
        "difference": f"Difference (run here − published; {own})",
    }
    if not is_comparable(config):
        sections["published"] += ": for orientation only"
        sections["measured"] += ": NOT comparable with the published rows"
    notes = [*source_notes(selected), *_mean_notes(dataset, config, means_only=number > 2)]
    if number > 2:
        notes.append(
            "AUPRO: exact (every score is a threshold), and with the released code's 99 thresholds. Published values "
            "are of the second form; differences are taken within it."
        )
    if is_comparable(config) and any(run.method == "ast" for run in selected.runs) and dataset == "mvtec3d":
        notes.append(
            "AST: by its authors' README the published code is about 2 % above the paper's RGB + 3D numbers, which are "
            "the published row."
        )
    notes += remarks
    return Table(str(number), heading, (label_head,), columns, rows, banner(config), notes, sections)


def _methods_of(number: int, variants: Sequence[str], methods: Iterable[str]) -> list[plan.TableMethod]:
    """The measured methods of Table 1, 2 or 3, in the order of the published ones; MAFR is always there."""
    return plan.table_methods(number, variants, check_methods((MAFR, *methods)))


def _label(method: plan.TableMethod) -> str:
    return f"MAFR (ours, {method.variant})" if method.variant else f"{method.title} (run here)"


def _published_rows(published: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Rows of the paper's methods, labelled with their numbers in its list of references."""
    cited = {m: f"{m} [{paper.REFERENCES[m]}]" if m in paper.REFERENCES else m for m in published}
    return [Row((cited[m],), "published", values, _PUBLISHED_STAMP) for m, values in published.items()]


def _measured_rows(
    label: str,
    difference_label: str | None,
    cells: Mapping[str, np.ndarray],
    published: Mapping[str, float],
    stamp: dict[str, str],
) -> list[Row]:
    """The measured row of `cells`, (seeds,) each, and, if it has a label, the difference from `published`."""
    measured = Row.measured((label,), cells, stamp)
    values = {name: float(seeds.mean()) for name, seeds in cells.items()}
    common = {name: value - published[name] for name, value in values.items() if name in published}
    if difference_label and common:
        return [measured, Row((difference_label,), "difference", common, stamp)]
    return [measured]


def _has_all(config: Config, dataset: str) -> bool:
    return set(config.categories(dataset)) == set(CATEGORIES[dataset])


def _means_compare(config: Config) -> bool:
    """Whether the measured means of Tables III-V and the published ones are over the same real categories."""
    return is_comparable(config) and _has_all(config, "mvtec3d")


def _mean_notes(dataset: str, config: Config, means_only: bool) -> list[str]:
    if _has_all(config, dataset):
        return []
    measured = config.categories(dataset)
    notes = [f"Measured in {len(measured)} categories only ({', '.join(measured)}); our means are over these."]
    if is_comparable(config) and means_only:
        notes.append("No differences are shown: the published means are over all ten categories.")
    elif is_comparable(config) and set(measured) < set(CATEGORIES[dataset]):
        notes.append("The difference of the means is to the published mean over the same categories.")
    return notes
