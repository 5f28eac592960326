"""Tables S5 and S6: which differences of Tables I-V are findings, by paired resampling of the test images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, product

from mafr.baselines.registry import MAFR, METHODS
from mafr.config import FUSIONS, VARIANTS, Config
from mafr.experiments import plan
from mafr.experiments.certainty import Scored, compare_scores
from mafr.experiments.plan import Run, TableMethod
from mafr.intervals import RULE
from mafr.scoring import MAP
from mafr.tables.layout import Column, Row, Table
from mafr.tables.published import FUSION_TITLES, TABLE_4, loss_title
from mafr.tables.records import Records, TableRecords, select_records
from mafr.tables.stamp import banner, row_stamp, source_notes

COLUMNS = (
    Column("difference", "Difference of I-AUROC"), Column("low", "Low"), Column("high", "High"),
    Column("ahead", "Higher in", "Categories", 0), Column("behind", "Lower in", "Categories", 0),
)  # fmt: skip
_ROMAN = ("I", "II", "III", "IV", "V")
COMPARED = "compared methods"  # rows of a table that hold two of them against each other
_WITHOUT_BANK, _WITH_BANK = ("ast", "cfm"), ("btf", "m3dm")  # Sec. II-B's two families


@dataclass(frozen=True)
class Compared:
    """A row: a method, loss or map of MAFR's held against another, with the runs of both, one per category."""

    table: str
    name: str
    other: str
    runs: tuple[tuple[Run, str], ...]  # with the name of the map
    others: tuple[tuple[Run, str], ...]


def paired_table(
    records: Records,
    config: Config,
    tables: Sequence[int] = plan.TABLES,
    variants: Sequence[str] = VARIANTS,
    methods: Iterable[str] = METHODS,
    among: bool = False,
) -> Table:
    """Table S5: MAFR against each method of Tables I-III, each loss of Table IV and each map of Table V.

    records: the record of each run; among: also the methods of Tables I and II without a memory bank against those
    with one (Sec. II-B). Raises ResultError for missing runs, listing them and the command.
    """
    rows = [row for number in tables for row in _rows(number, config, variants, tuple(methods))]
    if among:
        rows += [row for number in tables if number in (1, 2) for row in _among(number, config, tuple(methods))]
    return _table("S5", "Paired differences", rows, records, config, tables)


def paired_seeds_table(records: Records, config: Config) -> Table:
    """Table S6: MAFR against the methods of Table S4 over all its seeds; arguments and errors as `paired_table`."""
    numbers, variants = plan.SEED_TABLES, (config.variant,)
    rows = [row for number in numbers for row in _against_methods(number, config, variants, plan.SEED_METHODS)]
    return _table("S6", f"Paired differences over {plan.SEEDS} seeds", rows, records, config, numbers)


def _table(
    number: str, title: str, rows: list[Compared], records: Records, config: Config, tables: Sequence[int]
) -> Table:
    wanted = [run for row in rows for run, _ in (*row.runs, *row.others)]
    selected = select_records(records, config, wanted, tables)
    notes = [
        *source_notes(selected, spread=False),
        f"Mean I-AUROC over the categories less the other's, with its 95 % interval by {config.bootstrap:,} "
        f"resamplings of the test images within each category and class: the same images are drawn for both"
        + (", and the seeds' trainings for each." if len(selected.seeds) > 1 else ". One training each: S6 has seeds."),
        f"Result: what is measured is higher than, lower than or level with the other. {RULE[0].upper()}{RULE[1:]}.",
    ]
    heads = ("Table", "Measured", "Held against", "Result")
    return Table(
        number, title, heads, COLUMNS, [_row(row, selected) for row in rows], banner(config, published=False), notes
    )


def _row(row: Compared, selected: TableRecords) -> Row:
    first, second = ([_scored(run, name, selected) for run, name in runs] for runs in (row.others, row.runs))
    found = compare_scores(zip(first, second, strict=True), selected.config.bootstrap, selected.config.seed)
    values = {
        "difference": found.mean, "low": found.low, "high": found.high, "ahead": found.ahead, "behind": found.behind,
    }  # fmt: skip
    stamp = row_stamp(selected, row.runs[0][0].variant)
    return Row((row.table, row.name, row.other, found.verdict), "measured", values, stamp)


def _scored(run: Run, name: str, selected: TableRecords) -> Scored:
    return Scored([selected.record(run, seed) for seed in selected.seeds], name)


def _rows(number: int, config: Config, variants: Sequence[str], methods: Sequence[str]) -> Iterable[Compared]:
    if number == 4:
        return _losses(config, variants[0])
    if number == 5:
        return _maps(config, variants[0])
    if number == 3:
        shots = (*config.shots, None)
        return chain.from_iterable(_against_methods(3, config, variants[:1], methods, shot) for shot in shots)
    return _against_methods(number, config, variants, methods)


def _against_methods(
    number: int, config: Config, variants: Sequence[str], methods: Sequence[str], shots: int | None = None
) -> Iterable[Compared]:
    name, dataset = _ROMAN[number - 1], plan.dataset_of(number)
    if number == 3:
        name = f"{name}, {'full' if shots is None else f'{shots}-shot'}"
    every = plan.table_methods(number, variants, methods)
    own = next(method for method in every if method.variant == variants[0])
    for other in (method for method in every if method != own):
        runs, others = (_of(method, dataset, config, shots) for method in (own, other))
        yield Compared(name, own.title, other.title, runs, others)


def _among(number: int, config: Config, methods: Sequence[str]) -> Iterable[Compared]:
    dataset = plan.dataset_of(number)
    every = {method.method: method for method in plan.table_methods(number, (), methods)}
    for own, other in product(_WITHOUT_BANK, _WITH_BANK):
        if own in every and other in every:
            runs = (_of(every[name], dataset, config, None) for name in (own, other))
            yield Compared(f"{_ROMAN[number - 1]}, {COMPARED}", every[own].title, every[other].title, *runs)


def _of(method: TableMethod, dataset: str, config: Config, shots: int | None) -> tuple[tuple[Run, str], ...]:
    how = config.fusion if method.variant else MAP
    return tuple((run, how) for run in method.runs(dataset, config, shots))


def _losses(config: Config, variant: str) -> Iterable[Compared]:
    *single, (whole, own) = plan.loss_runs(config, variant).items()
    for terms, runs in single:
        kept = (tuple((run, config.fusion) for run in part) for part in (own, runs))
        yield Compared("IV", loss_row(whole), loss_row(terms), *kept)


def loss_row(terms: Sequence[str]) -> str:
    """The row of Table IV of some loss terms in any order."""
    return loss_title(next(printed for printed in TABLE_4 if set(printed) == set(terms)))


def _maps(config: Config, variant: str) -> Iterable[Compared]:
    runs = TableMethod(MAFR, variant).runs(plan.dataset_of(5), config)
    for own, other in (*((FUSIONS[0], how) for how in FUSIONS[1:]), ("rgb", "xyz")):
        kept = (tuple((run, how) for run in runs) for how in (own, other))
        yield Compared("V", FUSION_TITLES[own], FUSION_TITLES[other], *kept)
