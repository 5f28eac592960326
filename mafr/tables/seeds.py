"""Table S4: what the seed alone changes, for MAFR and the strongest compared methods."""

from itertools import chain

from mafr.config import DATASETS, Config
from mafr.errors import ResultError
from mafr.experiments.plan import SEED_TABLES, SEEDS, Run, TableMethod, seed_methods
from mafr.tables.layout import Column, Row, Table
from mafr.tables.published import METRIC_TITLES
from mafr.tables.records import Records, TableRecords, select_records
from mafr.tables.stamp import banner, row_stamp, source_notes

METRICS = ("i_auroc", "aupro_30", "aupro_01")
_NOTES = (
    "A seed changes a method's first weights, dropout, order of samples and random choices; data and features are the "
    "same for all. ±: sample standard deviation over the seeds; of a mean, that of the means over categories.",
    "AUPRO: exact, every score is a threshold.",
)


def seeds_table(records: Records, config: Config) -> Table:
    """Table S4: mean ± sample standard deviation over `SEEDS` seeds of the full runs of Tables I and II.

    First the means over the categories of each data set and method, then every category. records: the record of each
    run. Raises ResultError for missing runs, listing them and the command.
    """
    pairs = [(dataset, method) for dataset in DATASETS for method in seed_methods(dataset, config)]
    groups = {(dataset, method): method.runs(dataset, config) for dataset, method in pairs}
    wanted = range(config.seed, config.seed + SEEDS)
    records = {run: record for run, record in records.items() if run.config.seed in wanted}
    selected = select_records(records, config, chain(*groups.values()), SEED_TABLES)
    if selected.seeds != tuple(wanted):
        lacking = ", ".join(str(seed) for seed in wanted if seed not in selected.seeds)
        raise ResultError(f"runs of seed {lacking} are missing; `mafr seeds --profile {config.profile}` makes them")
    rows = [_row("mean", group, runs, selected) for group, runs in groups.items()]
    rows += [_row(run.category, group, [run], selected) for group, runs in groups.items() for run in runs]
    columns = [Column(name, METRIC_TITLES[name]) for name in METRICS]
    heads = ("Data set", "Category", "Method")
    notes = [*source_notes(selected), *_NOTES]
    title = f"The spread over {SEEDS} seeds"
    return Table("S4", title, heads, columns, rows, banner(config, published=False), notes)


def _row(category: str, group: tuple[str, TableMethod], runs: list[Run], selected: TableRecords) -> Row:
    dataset, method = group
    labels = (selected.config.dataset_title(dataset), category, method.title)
    cells = {metric: selected.mean_over(runs, metric) for metric in METRICS}
    return Row.measured(labels, cells, row_stamp(selected, method.variant))
