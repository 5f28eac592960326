"""The stored records behind a table, for every complete seed; where runs are missing, their list and the command."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mafr.baselines.registry import METHODS, feature_config, has_variants
from mafr.config import Config
from mafr.errors import ResultError
from mafr.experiments.plan import Run
from mafr.scoring import MAP

Records = Mapping[Run, Mapping]  # metrics.json contents
_LISTED = 12  # missing runs that an error names one by one


@dataclass(frozen=True)
class TableRecords:
    """The records of one table: of each of `runs` with each of `seeds`.

    config: the table's settings. by_seed: the records of each complete seed. left_out: seeds that some runs lack.
    """

    config: Config
    runs: tuple[Run, ...]
    by_seed: Mapping[int, Records]
    left_out: tuple[int, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.by_seed)

    def record(self, run: Run, seed: int | None = None) -> Mapping:
        """The record of one of `runs` with a seed, by default the first."""
        return self.by_seed[self.seeds[0] if seed is None else seed][run]

    def values(self, run: Run, metric: str, fusion: str | None = None, defect: str | None = None) -> np.ndarray:
        """A metric of a run, one value per seed: (seeds,). Raises ResultError if a record lacks it.

        fusion: MAFR's operator (default: the configured one); other methods have a single map. defect: one type only.
        """
        name = self.map_name(run, fusion)
        return np.array([_number(run, self.record(run, seed), name, metric, defect) for seed in self.seeds])

    def mean_over(self, runs: Iterable[Run], metric: str, fusion: str | None = None) -> np.ndarray:
        """The mean over runs (categories), one value per seed: (seeds,)."""
        return np.mean([self.values(run, metric, fusion) for run in runs], axis=0)

    def map_name(self, run: Run, fusion: str | None = None) -> str:
        """The key of a run's metrics in its record: a fusion operator, or the only map."""
        return fusion or self.config.fusion if has_variants(run.method) else MAP


def _number(run: Run, record: Mapping, name: str, metric: str, defect: str | None) -> float:
    which = f"{run}, seed {record['seed']},"
    try:
        cells = record["metrics"][name]
        value = (cells if defect is None else cells["by_defect"][defect])[metric]
    except KeyError as error:
        raise ResultError(f"the record of {which} lacks {error} among its {name} metrics") from None
    if not isinstance(value, int | float) or math.isnan(value):
        raise ResultError(f"the record of {which} has {value!r} for {name} {metric}, not a number")
    return float(value)


def select_records(records: Records, config: Config, wanted: Iterable[Run], tables: Sequence[int]) -> TableRecords:
    """The wanted runs' records, for every seed that is complete among `records`.

    tables: the numbers of the paper's tables with these runs, for the command in the error.
    Raises ResultError, listing what is missing and the command that makes it.
    """
    runs = tuple(dict.fromkeys(wanted))
    seeds = sorted({config.seed} | {run.config.seed for run in records})
    present: dict[int, dict[Run, Mapping]] = {seed: {} for seed in seeds}
    for seed in seeds:
        for run in runs:
            if (record := records.get(run.seeded(seed))) is not None:
                present[seed][run] = record
    complete = {seed: found for seed, found in present.items() if len(found) == len(runs)}
    if not complete:
        # The seed that is nearest to complete, so that the list is what is really left to do.
        best = max([config.seed, *seeds], key=lambda seed: len(present[seed]))
        raise ResultError(_missing_text([run for run in runs if run not in present[best]], best, config, tables))
    _check_data(complete)
    left_out = tuple(seed for seed in seeds if seed not in complete and present[seed])
    return TableRecords(config, runs, complete, left_out)


def _check_data(by_seed: Mapping[int, Records]) -> None:
    """Raises ResultError if runs of one category were made on different features, as when data changed between."""
    seen: dict[tuple, tuple[str, str | None]] = {}
    for seed, records in by_seed.items():
        for run, record in records.items():
            key = (run.dataset, run.category, feature_config(run.method, run.config).feature_digest())
            made_on = record.get("data_fingerprint")
            other, others_data = seen.setdefault(key, (f"{run}, seed {seed}", made_on))
            if made_on != others_data:
                raise ResultError(
                    f"the runs of {other}, and of {run}, seed {seed}, were made on different data; make both again "
                    "with `mafr run`"
                )


def _missing_text(missing: Sequence[Run], seed: int, config: Config, tables: Sequence[int]) -> str:
    shown = [f"  {run}, seed {seed}" for run in missing[:_LISTED]]
    if len(missing) > _LISTED:
        shown.append(f"  and {len(missing) - _LISTED} more")
    command = f"mafr run --table {','.join(map(str, tables))} --profile {config.profile}"
    methods = {run.method for run in missing}
    if {run.variant for run in missing} == {"released"}:
        command += " --variant released"
    if not any(has_variants(method) for method in methods):
        command += f" --methods {','.join(m for m in METHODS if m in methods)}"
    if config.random_weights:
        command += " --random-weights"
    if seed != config.seed:
        command += f" --set seed={seed}"
    count = f"{len(missing)} runs are" if len(missing) > 1 else "1 run is"
    return f"{count} missing:\n" + "\n".join(shown) + f"\nMake with `{command}`."
