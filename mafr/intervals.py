"""How certain an image AUROC is, and a difference of two: intervals, and the one rule for "level".

An AUROC of its own gets an interval that stays open at 1, where resampling would return [1, 1]. Two methods that scored
the same images are compared by resampling these images for both at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from mafr.errors import MetricError

LEVEL = 0.95
HIGHER, SAME, LOWER = "higher", "level", "lower"
RULE = "level: the 95 % interval of the paired difference contains 0"


@dataclass(frozen=True)
class Difference:
    """The second scores' mean image AUROC less the first ones', with its interval.

    ahead, behind: the numbers of categories in which the second is higher, and in which it is lower.
    """

    mean: float
    low: float
    high: float
    ahead: int
    behind: int

    @property
    def verdict(self) -> str:
        """`RULE` in words: "higher", "level" or "lower"."""
        return verdict(self.low, self.high)


def verdict(low: float, high: float) -> str:
    """What the interval of a difference says: "higher", "lower", or "level" if it contains 0 (or is not known)."""
    return HIGHER if low > 0 else LOWER if high < 0 else SAME


def auroc_interval(auroc: float, good: int, anomalous: int, level: float = LEVEL) -> tuple[float, float]:
    """(low, high) of an AUROC of `good` and `anomalous` scores: Newcombe, Statistics in Medicine 25 (2006), method 5.

    The true values that would lie within z standard errors of the one measured. Their variance is Hanley and McNeil's,
    with both numbers of samples replaced by their mean where it depends on the shape of the distributions.
    Raises MetricError for an AUROC outside [0, 1] or a class without samples.
    """
    if not 0 <= auroc <= 1 or good < 1 or anomalous < 1 or not 0 < level < 1:
        raise MetricError(
            f"an interval needs an AUROC in [0, 1], samples of both classes and a level in (0, 1), not {auroc}, {good} "
            f"good and {anomalous} anomalous samples and {level}"
        )
    z, mean = norm.ppf((1 + level) / 2), (good + anomalous) / 2 - 1

    def excess(true: float) -> float:
        shape = 1 + mean * (1 - true) / (2 - true) + mean * true / (1 + true)
        return (true - auroc) ** 2 - z**2 * true * (1 - true) * shape / (good * anomalous)

    low = 0.0 if auroc == 0 else float(brentq(excess, 0.0, auroc * (1 - 1e-12)))
    high = 1.0 if auroc == 1 else float(brentq(excess, auroc + (1 - auroc) * 1e-12, 1.0))
    return low, high


def share_interval(count: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """(low, high) of a share, `count` of `total` samples: Wilson's interval. Raises MetricError without a sample."""
    if not 0 <= count <= total or total < 1:
        raise MetricError(f"a share needs 0 to N of N samples, not {count} of {total}")
    found = binomtest(count, total).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def compare(
    categories: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], resamples: int, seed: int, level: float = LEVEL
) -> Difference:
    """How much higher the second scores' mean image AUROC is than the first ones' on the same images.

    categories: (labels, first, second) of each: (N,) with 1 where anomalous, and scores (N,) or, of several trainings
    with other seeds, (seeds, N). The interval is a percentile bootstrap's: images are drawn within each category and
    class, the same for both, and trainings within each category and method. Trainings are few, so that drawing them
    shows too little of their spread; it is widened by the usual factor n / (n - 1) of a variance.
    Raises MetricError if a category has one class only, a score is NaN, or there is no resample.
    """
    if not 0 < level < 1 or resamples < 1:
        raise MetricError(f"level must be in (0, 1) and resamples at least 1, not {level} and {resamples}")
    rng = np.random.default_rng(seed)
    plain, drawn = [], []
    for labels, first, second in categories:
        wins = [_wins(labels, scores) for scores in (first, second)]
        plain.append(wins[1].mean() - wins[0].mean())
        counts = [rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in wins[0].shape[1:]]
        one, other = (_resampled(each, counts, rng) for each in wins)
        drawn.append(other - one)
    if not plain:
        raise MetricError("there is no category to compare in")
    tail = (1 - level) / 2
    low, high = np.quantile(np.mean(drawn, axis=0), [tail, 1 - tail])
    gains = np.round(plain, 9)
    return Difference(
        float(np.mean(plain)), float(low), float(high), int((gains > 0).sum()), int((gains < 0).sum())
    )


def _wins(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Whether each anomalous score is above each good one, a tie one half: (seeds, anomalous, good)."""
    anomalous, scores = np.asarray(labels).astype(bool), np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if anomalous.ndim != 1 or scores.shape[1:] != anomalous.shape:
        raise MetricError(f"labels {anomalous.shape} and scores {scores.shape} must be of the same samples")
    if anomalous.all() or not anomalous.any():
        raise MetricError("a comparison needs good and anomalous samples; only one class is present")
    if np.isnan(scores).any():
        raise MetricError(f"{np.isnan(scores).sum()} of {scores.size} scores are NaN")
    bad, good = scores[:, anomalous, None], scores[:, None, ~anomalous]
    return (bad > good) + 0.5 * (bad == good)


def _resampled(wins: np.ndarray, counts: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The AUROC of each draw of images, and of trainings where there are several: (resamples,)."""
    of_training = np.einsum("rb,sbg,rg->rs", counts[0], wins, counts[1], optimize=True)
    trainings = len(wins)
    if trainings == 1:
        return of_training[:, 0]
    chosen = rng.multinomial(trainings, np.full(trainings, 1 / trainings), size=len(of_training)) / trainings
    middle = of_training.mean(axis=1)
    return middle + ((chosen * of_training).sum(axis=1) - middle) * np.sqrt(trainings / (trainings - 1))
