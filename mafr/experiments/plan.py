"""Runs, and those that each table, figure and the explorer need.

A run is (data set, category, method, settings, shots); its record is found by its digest, see
`mafr.experiments.run_store`. Runs are independent, and one serves many cells: Tables III-V reuse Table I's full runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mafr.baselines.registry import MAFR, METHODS, check_methods, has_variants, method_settings, title
from mafr.config import (
    DATASETS,
    NEED_STORED,
    REPORTING_SETTINGS,
    SCORING_SETTINGS,
    VARIANTS,
    Config,
    deciding_settings,
    usual,
)
from mafr.errors import ConfigError, printable
from mafr.paths import Paths

RESULTS_VERSION = 5  # raised whenever a change of the code changes numbers; finished runs are then repeated
TABLES = (1, 2, 3, 4, 5)
# The compared methods of each table, in the paper's order.
TABLE_METHODS = {
    1: ("depthgan", "depthae", "depthvm", "voxelgan", "voxelae", "voxelvm", "btf", "ast", "m3dm", "cfm"),
    2: ("rgbd", "rgbcdn", "ast", "m3dm", "cfm", "cfm_m"),
    3: ("btf", "ast", "m3dm", "cfm"),
}
LOSS_ABLATION = (("sim",), ("census",), ("smooth",), ("sim", "smooth", "census"))  # rows of Table IV
SEEDS = 3  # consecutive ones from the configured seed on, whose spread `mafr seeds` measures
SEED_TABLES, SEED_METHODS = (1, 2), ("ast", "m3dm", "cfm", MAFR)
FIGURE_METHODS = ("cfm", "m3dm", "btf", "ast")  # whose maps Fig. 2 shows beside MAFR's


@dataclass(frozen=True, eq=False)
class Run:
    """One training and its scoring. shots: training samples, None for all.

    Runs are equal if their digests are: those that differ only in where they are computed, or in which other
    categories or numbers of shots are configured, are one run with one record.
    """

    dataset: str
    category: str
    config: Config
    shots: int | None = None
    method: str = MAFR

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that decides the result, the data aside."""
        settings = deciding_settings(self.config, self.method, self.dataset)
        identity = [self.dataset, self.category, self.method, self.shots, RESULTS_VERSION, settings]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @cached_property
    def head_digest(self) -> str:
        """SHA-256 (hex) of all that decides MAFR's trained head, the data aside: no setting of scoring or reporting."""
        settings = deciding_settings(self.config, self.method, self.dataset)
        settings |= usual(self.config.profile, REPORTING_SETTINGS)
        kept = {name: value for name, value in settings.items() if name not in SCORING_SETTINGS}
        identity = [self.dataset, self.category, self.method, self.shots, RESULTS_VERSION, kept]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def folder(self, paths: Paths) -> Path:
        """`runs/<profile>/<dataset>/<category>/<method>-<short hash>`."""
        return paths.runs(self.dataset) / self.category / f"{self.method}-{self.digest[:12]}"

    def seeded(self, seed: int) -> Run:
        """The same run with another seed."""
        return self if seed == self.config.seed else replace(self, config=replace(self.config, seed=seed))

    @property
    def variant(self) -> str:
        """MAFR's variant, "" for a method that has none."""
        return self.config.variant if has_variants(self.method) else ""

    @property
    def table_method(self) -> TableMethod:
        return TableMethod(self.method, self.variant)

    def __str__(self) -> str:
        shots = "all samples" if self.shots is None else f"{self.shots} shots"
        of_mafr = f", {self.variant}, loss {'+'.join(self.config.loss_terms)}" if self.variant else ""
        return printable(f"{self.dataset}/{self.category}, {title(self.method)}{of_mafr}, {shots}")


@dataclass(frozen=True)
class TableMethod:
    """A method with rows of its own in the tables: a compared method, or MAFR in one of its variants."""

    method: str
    variant: str = ""

    @property
    def title(self) -> str:
        """The name in the supplementary tables and figures."""
        return f"{title(self.method)}, {self.variant}" if self.variant else title(self.method)

    def runs(self, dataset: str, config: Config, shots: int | None = None) -> list[Run]:
        """Its runs on a data set, one per category, in the paper's order."""
        settings = method_settings(self.method, config, self.variant, dataset)
        return [Run(dataset, category, settings, shots, self.method) for category in config.categories(dataset)]


def table_of(dataset: str) -> int:
    """The number of the table of a data set's full runs."""
    return DATASETS.index(dataset) + 1


def dataset_methods(dataset: str, variants: Sequence[str] = VARIANTS) -> list[TableMethod]:
    """The measured methods of a data set's table; of a data set in no table those of Table I."""
    return table_methods(table_of(dataset) if dataset in DATASETS else 1, variants)


def dataset_of(table: int) -> str:
    """The data set of a table. Raises ConfigError for a table that does not exist."""
    if table not in TABLES:
        raise ConfigError(f"unknown table {table}; the tables are {', '.join(map(str, TABLES))}")
    return "eyecandies" if table == table_of("eyecandies") else "mvtec3d"


def table_methods(
    table: int, variants: Sequence[str] = VARIANTS, methods: Iterable[str] = METHODS
) -> list[TableMethod]:
    """The measured methods of a table: those of `methods` that it compares, then MAFR in each of `variants`.

    Raises ConfigError for a method that does not exist.
    """
    chosen = check_methods(methods)
    compared = [TableMethod(method) for method in TABLE_METHODS.get(table, ()) if method in chosen]
    return [*compared, *(TableMethod(MAFR, variant) for variant in variants)]


def loss_runs(config: Config, variant: str) -> dict[tuple[str, ...], list[Run]]:
    """The runs of Table IV by loss terms, those of a row together."""
    settings = {terms: replace(config.with_variant(variant), loss_terms=terms) for terms in LOSS_ABLATION}
    return {terms: TableMethod(MAFR, variant).runs("mvtec3d", chosen) for terms, chosen in settings.items()}


def table_runs(
    table: int, config: Config, variants: Sequence[str] = VARIANTS, methods: Iterable[str] = METHODS
) -> list[Run]:
    """The runs that a table of the paper needs: those of MAFR, then those of the methods that it compares.

    Tables III-V use the first of `variants`. methods: only these; names of methods that a table lacks are passed
    over. Raises ConfigError for a table or a method that does not exist.
    """
    dataset, chosen = dataset_of(table), check_methods(methods)
    rows = table_methods(table, variants if table in (1, 2) else variants[:1], chosen)
    own = [row for row in rows if row.variant and MAFR in chosen]
    compared = [row for row in rows if not row.variant]
    _check_mode(config, compared)
    shots = (*config.shots, None) if table == 3 else (None,)
    groups = [row.runs(dataset, config, count) for row in (*own, *compared) for count in shots]
    if own and table == 4:  # compares nothing else
        groups = list(loss_runs(config, variants[0]).values())
    return [run for group in groups for run in group]


def all_runs(
    config: Config,
    tables: Iterable[int] = TABLES,
    variants: Sequence[str] = VARIANTS,
    seeds: int = 1,
    methods: Iterable[str] = METHODS,
) -> list[Run]:
    """The runs of several tables and `seeds` consecutive seeds, each run once."""
    seeded = [replace(config, seed=config.seed + k) for k in range(seeds)]
    runs = [run for one in seeded for table in tables for run in table_runs(table, one, variants, methods)]
    return list(dict.fromkeys(runs))


def seed_runs(config: Config) -> list[Run]:
    """The full runs of Tables I and II by `SEED_METHODS` with each of `SEEDS` seeds, each run once."""
    return all_runs(config, SEED_TABLES, (config.variant,), SEEDS, SEED_METHODS)


def seed_methods(dataset: str, config: Config) -> list[TableMethod]:
    """The methods of `seed_runs` on a data set, in the order of its table."""
    return table_methods(table_of(dataset), (config.variant,), SEED_METHODS)


def category_runs(
    dataset: str,
    category: str,
    config: Config,
    variants: Sequence[str],
    shots: int | None = None,
    seeds: int = 1,
    methods: Iterable[str] = (MAFR,),
) -> list[Run]:
    """The runs of one category, as `mafr run --category` makes them."""
    rows = [TableMethod(m, v) for m in check_methods(methods) for v in (variants if has_variants(m) else ("",))]
    _check_mode(config, [row for row in rows if not row.variant])
    seeded = [replace(config, seed=config.seed + k) for k in range(seeds)]
    settings = [(row.method, method_settings(row.method, one, row.variant, dataset)) for row in rows for one in seeded]
    return [Run(dataset, category, chosen, shots, method) for method, chosen in settings]


def _check_mode(config: Config, compared: Sequence[TableMethod]) -> None:
    if compared and config.extractor_mode == "train":
        raise ConfigError(NEED_STORED)


def table_datasets(tables: Iterable[int]) -> list[str]:
    """The data sets that tables need."""
    needed = {dataset_of(table) for table in tables}
    return [dataset for dataset in DATASETS if dataset in needed]


def compared_methods(tables: Iterable[int], methods: Iterable[str] = METHODS) -> list[str]:
    """The compared methods among `methods` that tables name, in the usual order."""
    named = {method for table in tables for method in TABLE_METHODS.get(table, ())}
    return [method for method in check_methods(methods) if method in named]
