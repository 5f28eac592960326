"""Which stored runs answer for the cells of a table; says what is missing and how to make it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mafr.baselines.methods import MAFR, METHODS, baseline_settings, concerns, title
from mafr.config import ADDED, Config, deciding
from mafr.errors import ResultError
from mafr.experiments.evaluation import MAP

# Settings that do not change a cell's value, or that a wanted run names itself.
_NOT_COMPARED = deciding("cell", "report", "runs", "place")
_LISTED = 12  # missing runs that an error names one by one


@dataclass(frozen=True)
class Wanted:
    """A run that a table needs; `shots` None: all training samples.

    variant, loss_terms: of MAFR; compared methods have neither.
    """

    dataset: str
    category: str
    variant: str = ""
    loss_terms: tuple[str, ...] = ()
    shots: int | None = None
    method: str = MAFR

    def __str__(self) -> str:
        shots = "all samples" if self.shots is None else f"{self.shots} shots"
        of_mafr = f", {self.variant}, loss {'+'.join(self.loss_terms)}" if self.method == MAFR else ""
        return f"{self.dataset}/{self.category}, {title(self.method)}{of_mafr}, {shots}"

    @property
    def key(self) -> tuple:
        """What a record must agree in; the order of the loss terms does not matter."""
        own = (self.variant, tuple(sorted(self.loss_terms))) if self.method == MAFR else ("", ())
        return (self.dataset, self.category, self.method, *own, self.shots)

    def map_name(self, fusion: str) -> str:
        """Which metrics of its record are meant: those of a fusion operator, or of the only map."""
        return fusion if self.method == MAFR else MAP


@dataclass(frozen=True)
class Selection:
    """The runs of one table: every wanted run with every one of `seeds`.

    seeds: those that are complete. left_out: seeds that some wanted runs lack.
    """

    runs: Mapping[tuple, Mapping[int, dict]]
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]

    def record(self, wanted: Wanted, seed: int | None = None) -> dict:
        """The record of a run; of the first seed unless one is named."""
        return self.runs[wanted.key][self.seeds[0] if seed is None else seed]

    def values(self, wanted: Wanted, fusion: str, metric: str) -> np.ndarray:
        """A metric of a run, one value a seed: (seeds,). Raises ResultError if a record lacks it.

        fusion: whose map, for MAFR; a compared method has one.
        """
        name = wanted.map_name(fusion)
        return np.array([metric_of(self.record(wanted, seed), name, metric) for seed in self.seeds])

    def mean_over(self, wanted: Iterable[Wanted], fusion: str, metric: str) -> np.ndarray:
        """The mean over runs (categories), one value a seed: (seeds,)."""
        return np.mean([self.values(one, fusion, metric) for one in wanted], axis=0)


def metric_of(record: Mapping, fusion: str, metric: str, defect: str | None = None) -> float:
    """One number of a record. Raises ResultError, naming the run, if it is missing or no number."""
    try:
        cells = record["metrics"][fusion]
        value = (cells if defect is None else cells["by_defect"][defect])[metric]
    except KeyError as error:
        raise ResultError(f"the record of {describe(record)} lacks {error} among its {fusion} metrics") from None
    if not isinstance(value, int | float) or math.isnan(value):
        raise ResultError(f"the record of {describe(record)} has {value!r} for {fusion} {metric}, not a number")
    return float(value)


def describe(record: Mapping) -> str:
    """A record's run in words."""
    return f"{_wanted(record)}, seed {record['seed']}"


def expected_settings(config: Config, variant: str) -> Config:
    """The settings that a variant's runs must have: the config itself, or its other variant."""
    return config if variant == config.variant else config.with_variant(variant)


def select(records: Sequence[Mapping], config: Config, wanted: Sequence[Wanted], tables: Sequence[str]) -> Selection:
    """Find the run of every wanted cell, made with the settings of `config`, for every complete seed.

    records: metrics.json contents, in any order, of any runs; those of other settings are passed over.
    tables: the numbers of the paper's tables whose runs these are, for the command in the error.
    Raises ResultError, listing what is missing and the command that makes it.
    """
    expected = {}
    for dataset, method, variant in dict.fromkeys(one.key[:1] + one.key[2:4] for one in wanted):
        settings = expected_settings(config, variant) if method == MAFR else baseline_settings(config)
        expected[dataset, method, variant] = _compared(settings.as_dict(), dataset, method)
    found: dict[tuple, dict[int, dict]] = {one.key: {} for one in wanted}
    other: dict[str, int] = {}
    for record in records:
        key = _wanted(record).key
        if key not in found:
            continue
        dataset, _, method, variant, *_ = key
        difference = _difference(_compared(record["config"], dataset, method), expected[dataset, method, variant])
        if difference:
            other[difference] = other.get(difference, 0) + 1
            continue
        _keep(found[key], record, config)
    seeds = sorted({seed for runs in found.values() for seed in runs})
    complete = tuple(seed for seed in seeds if all(seed in runs for runs in found.values()))
    if not complete:
        # The seed that is nearest to complete, so that the list is what is really left to do.
        best = max([config.seed, *seeds], key=lambda seed: sum(seed in runs for runs in found.values()))
        missing = [one for one in wanted if best not in found[one.key]]
        raise ResultError(_missing_text(missing, best, config, tables, other))
    _check_data([runs[seed] for runs in found.values() for seed in complete])
    return Selection(found, complete, tuple(seed for seed in seeds if seed not in complete))


def _check_data(records: Sequence[Mapping]) -> None:
    """Raises ResultError if runs of one category were made on different features, as when data changed between."""
    seen: dict[tuple, Mapping] = {}
    for record in records:
        pruned = record["method"] == "cfm_m"  # reads features of its own
        key = (record["dataset"], record["category"], pruned)
        other = seen.setdefault(key, record)
        if other.get("data_fingerprint") != record.get("data_fingerprint"):
            raise ResultError(
                f"the runs of {describe(other)} and of {describe(record)} were made on different data; make both "
                "again with `mafr run`"
            )


def _wanted(record: Mapping) -> Wanted:
    terms = tuple(record["loss_terms"])
    names = ("dataset", "category", "variant")
    return Wanted(*(record[name] for name in names), terms, record["shots"], record["method"])


def _compared(settings: Mapping[str, object], dataset: str, method: str) -> dict[str, object]:
    unrelated = {"mvtec3d": "eyecandies_train", "eyecandies": "mvtec3d_train"}[dataset]
    settings = ADDED | dict(settings)
    return {k: v for k, v in settings.items() if k not in _NOT_COMPARED and k != unrelated and concerns(method, k)}


def _difference(settings: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """The first setting in which two differ, in words, or ""."""
    for name in sorted({*settings, *expected}):
        if settings.get(name) != expected.get(name):
            return f"{name} {settings.get(name)} instead of {expected.get(name)}"
    return ""


def _keep(runs: dict[int, dict], record: Mapping, config: Config) -> None:
    """Take the record of this seed; of two, the one with the very settings of `config`."""
    before = runs.get(record["seed"])
    if before is None or before["metrics"] == record["metrics"]:
        runs[record["seed"]] = dict(record)
        return
    names = ("threads", "fusion", "bootstrap", "quantile")
    wanted = {name: getattr(config, name) for name in names}
    same = [all(r["config"][name] == wanted[name] for name in names) for r in (before, record)]
    if same[0] == same[1]:
        raise ResultError(f"two stored runs with other results answer for {describe(record)}; delete one of them")
    if same[1]:
        runs[record["seed"]] = dict(record)


def _missing_text(
    missing: Sequence[Wanted], seed: int, config: Config, tables: Sequence[str], other: Mapping[str, int]
) -> str:
    shown = [f"  {one}, seed {seed}" for one in missing[:_LISTED]]
    if len(missing) > _LISTED:
        shown.append(f"  and {len(missing) - _LISTED} more")
    numbers = ",".join(dict.fromkeys(tables))
    command = f"mafr run --table {numbers} --profile {config.profile}"
    methods = {one.method for one in missing}
    if {one.variant for one in missing} == {"released"}:
        command += " --variant released"
    if MAFR not in methods:
        command += f" --methods {','.join(m for m in METHODS if m in methods)}"
    if config.random_weights:
        command += " --random-weights"
    if seed != config.seed:
        command += f" --set seed={seed}"
    stale = ""
    if other:
        times = sum(other.values())
        most = max(sorted(other), key=lambda text: other[text])
        stale = f"\n{times} stored runs were passed over because of other settings, such as {most}."
    count = f"{len(missing)} runs are" if len(missing) > 1 else "1 run is"
    return f"{count} missing:\n" + "\n".join(shown) + f"\nMake with `{command}`.{stale}"
