"""How certain the numbers of records are: an I-AUROC's interval, and paired differences of two runs or two maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mafr.errors import ResultError
from mafr.intervals import Difference, auroc_interval, compare


@dataclass(frozen=True)
class Scored:
    """One map of a run: its name in the records, and the run's record with each seed."""

    records: Sequence[Mapping]
    map: str

    @classmethod
    def of(cls, record: Mapping, how: str) -> "Scored":
        """A map of a single record."""
        return cls((record,), how)


def auroc_with_interval(record: Mapping, how: str) -> tuple[float, float, float]:
    """(I-AUROC, low, high) of one map of a record, by `mafr.intervals.auroc_interval`."""
    value, counts = record["metrics"][how]["i_auroc"], record["counts"]
    return value, *auroc_interval(value, counts["test_good"], counts["test_defective"])


def compare_scores(pairs: Iterable[tuple[Scored, Scored]], resamples: int, seed: int) -> Difference:
    """The second ones' mean I-AUROC less the first ones', over categories, with its interval.

    pairs: (first, second) of each category. Raises ResultError where two records are of other test images, MetricError
    as `mafr.intervals.compare`.
    """
    return compare([_aligned(first, second) for first, second in pairs], resamples, seed)


def _aligned(first: Scored, second: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    samples = first.records[0]["samples"]
    for record in (*first.records, *second.records):
        if record["samples"].get("ids") != samples.get("ids") or record["samples"]["labels"] != samples["labels"]:
            raise ResultError(
                f"two runs of {record['dataset']}/{record['category']} were scored on other images, so they cannot be "
                "compared; make both again with `mafr run`"
            )
    one, other = (np.array([record["scores"][part.map] for record in part.records]) for part in (first, second))
    return np.asarray(samples["labels"]), one, other
