"""AUROC and AUPRO from arrays: exact by one sort, and by the released code's 99 thresholds.

The exact curve needs no threshold loop. A pixel with score s becomes detected while the false-positive rate goes from
a, the share of anomaly-free scores above s, to b, the share at or above s. Equal scores enter together, so that the
curve is a straight line from a to b, and a and b give the pixel's part of the area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from mafr.errors import MetricError

LIMITS = (0.3, 0.1, 0.05, 0.01)
RELEASED_THRESHOLDS = 99


def metric_names(limits: Sequence[float] = LIMITS) -> tuple[str, ...]:
    """The keys of `evaluate`, in order: p_auroc, aupro_30, …, aupro99_30, …"""
    exact = tuple(f"aupro_{limit * 100:04.1f}".removesuffix(".0") for limit in limits)
    return ("p_auroc", *exact, *(name.replace("aupro", f"aupro{RELEASED_THRESHOLDS}") for name in exact))


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of image scores; a tie counts one half.

    labels: (N,), 1 or True where anomalous; scores: (N,), higher is more anomalous.
    Raises MetricError if only one class is present, a score is NaN or the lengths differ. Sec. IV-C.
    """
    return _auroc(*_split(labels, scores))


def pixel_auroc(gt: np.ndarray, maps: np.ndarray) -> float:
    """Area under the ROC curve over all pixels of all maps, (N, H, W) each; errors as in `image_auroc`. Sec. IV-C."""
    ranked = _Ranked.of(*_checked_maps(gt, maps))
    return _auroc(ranked.negatives, ranked.scores)


def au_pro(gt: np.ndarray, maps: np.ndarray, limit: float = 0.3, num_thresholds: int | None = None) -> float:
    """Area under the per-region overlap curve up to a false-positive rate of `limit`, divided by it.

    gt: (N, H, W) bool, its regions are 8-connected; maps: (N, H, W) float; 0 < limit <= 1.
    num_thresholds: None for the exact curve (every distinct score is a threshold), or the number of thresholds at
    equal distances in the sorted anomaly-free scores (released code: 99).
    Raises MetricError without an anomalous or anomaly-free pixel, for NaN, for shapes that differ. Sec. IV-C.
    """
    _check_limit(limit)
    gt, maps = _checked_maps(gt, maps)
    ranked = _Ranked.of(gt, maps)
    if num_thresholds is None:
        return ranked.exact_area(limit)
    return _area_up_to(*ranked.sampled_curve(num_thresholds), limit)


def evaluate(
    gt: np.ndarray, maps: np.ndarray, limits: Sequence[float] = LIMITS, auroc_maps: np.ndarray | None = None
) -> dict[str, float]:
    """Pixel AUROC and AUPRO, exact and with 99 thresholds, at every limit, from one sort.

    gt: (N, H, W) bool; maps: (N, H, W) float; auroc_maps: other maps for the AUROC, which the released code scales
    differently. Returns {"p_auroc", "aupro_30", …, "aupro99_30", …} (percent in the name). Errors as in `au_pro`.
    """
    for limit in limits:
        _check_limit(limit)
    gt, maps = _checked_maps(gt, maps)
    ranked = _Ranked.of(gt, maps)
    p_auroc = _auroc(ranked.negatives, ranked.scores) if auroc_maps is None else pixel_auroc(gt, auroc_maps)
    curve = ranked.sampled_curve(RELEASED_THRESHOLDS)
    values = [
        p_auroc,
        *(ranked.exact_area(limit) for limit in limits),
        *(_area_up_to(*curve, limit) for limit in limits),
    ]
    return dict(zip(metric_names(limits), values, strict=True))


def roc_curve(gt: np.ndarray, maps: np.ndarray, points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rate over all pixels from (0, 0) to (1, 1), thinned to about `points`.

    gt: (N, H, W) bool; maps: (N, H, W) float. Every kept point lies on the exact curve. Errors as in `pixel_auroc`.
    """
    ranked = _Ranked.of(*_checked_maps(gt, maps))
    return _thin(*ranked.exact_curve(np.full(len(ranked.scores), 1 / len(ranked.scores))), points)


def pro_curve(gt: np.ndarray, maps: np.ndarray, points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """False-positive rate and mean per-region overlap from (0, 0) to (1, 1), thinned to about `points`.

    gt: (N, H, W) bool; maps: (N, H, W) float. Every kept point lies on the exact curve. Errors as in `au_pro`.
    """
    ranked = _Ranked.of(*_checked_maps(gt, maps))
    return _thin(*ranked.exact_curve(ranked.weights), points)


@dataclass(frozen=True)
class _Ranked:
    """The scores of anomaly-free and of anomalous pixels, sorted."""

    negatives: np.ndarray  # (n,) ascending
    scores: np.ndarray  # (m,) of the anomalous pixels, ascending
    gt: np.ndarray  # (N, H, W)
    order: np.ndarray  # (m,) sorts the anomalous pixels in the order of flatnonzero(gt) by score

    @classmethod
    def of(cls, gt: np.ndarray, maps: np.ndarray) -> _Ranked:
        pixels = maps.ravel().copy()
        anomalous = np.flatnonzero(gt)
        scores = pixels[anomalous]
        # Sorting all with the anomalous ones pushed to the end is faster than picking the others out.
        pixels[anomalous] = np.inf
        pixels.sort()
        order = np.argsort(scores)
        return cls(pixels[: len(pixels) - len(anomalous)], scores[order], gt, order)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """False positives above each anomalous pixel's score, and those at or above it; (m,) each."""
        n = len(self.negatives)
        above = n - np.searchsorted(self.negatives, self.scores, side="right")
        return above, n - np.searchsorted(self.negatives, self.scores, side="left")

    @cached_property
    def weights(self) -> np.ndarray:
        """1 / (number of regions × pixels of its region) of each anomalous pixel; (m,), sums to 1."""
        labels, regions = _label_regions(self.gt)
        size = np.bincount(labels, minlength=regions)
        return (1.0 / (regions * size))[labels[self.order]]

    def exact_area(self, limit: float) -> float:
        n = len(self.negatives)
        above, at_or_above = self.bounds
        # Scores ascend, so false-positive rates descend: only a tail is below the limit.
        first = np.searchsorted(-above, -limit * n, side="right")
        a, b, weights = above[first:] / n, at_or_above[first:] / n, self.weights[first:]
        width = b - a
        inside = limit - (a + b) / 2  # the whole of the tie's ramp is below the limit
        cut = (limit - a) ** 2 / (2 * np.where(width > 0, width, 1.0))
        area = np.where(b <= limit, inside, cut)
        return float(np.clip((weights * area).sum() / limit, 0.0, 1.0))  # rounding may leave [0, 1]

    def sampled_curve(self, num_thresholds: int) -> tuple[np.ndarray, np.ndarray]:
        if num_thresholds < 2:
            raise MetricError(f"num_thresholds must be None or at least 2, not {num_thresholds}")
        n = len(self.negatives)
        positions = np.linspace(0, n - 1, num=num_thresholds, dtype=int)[::-1]
        below = np.concatenate([[0.0], np.cumsum(self.weights)])
        # Detected means greater than the threshold.
        overlap = 1.0 - below[np.searchsorted(self.scores, self.negatives[positions], side="right")]
        return np.append(1.0 - (positions + 1) / n, 1.0), np.append(overlap, 1.0)

    def exact_curve(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        above, at_or_above = (counts[::-1] / len(self.negatives) for counts in self.bounds)
        # One step or ramp per distinct score, from the highest down.
        last = np.append(np.flatnonzero(np.diff(self.scores[::-1])), len(self.scores) - 1)
        total = np.minimum(np.cumsum(weights[::-1])[last], 1.0)
        total[-1] = 1.0
        x = np.stack([above[last], at_or_above[last]], axis=1).ravel()
        y = np.stack([np.append(0.0, total[:-1]), total], axis=1).ravel()
        return np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]])


def _label_regions(gt: np.ndarray) -> tuple[np.ndarray, int]:
    """The region, from 0 up over all images, of each pixel in flatnonzero(gt), and the number of regions."""
    labels, count = [], 0
    eight = np.ones((3, 3), dtype=bool)
    for image in gt[gt.any(axis=(1, 2))]:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        found, regions = ndimage.label(part, structure=eight)
        labels.append(found[part] + (count - 1))
        count += regions
    return np.concatenate(labels), count


def _auroc(negatives: np.ndarray, scores: np.ndarray) -> float:
    """negatives ascending. Integers until the last division, so that ties and order cost no precision."""
    below = np.searchsorted(negatives, scores, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(negatives, scores, side="right").sum(dtype=np.int64)
    return float(int(below + not_above) / (2 * len(negatives) * len(scores)))


def _area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoid rule over ascending x up to `limit`, linear between points; divided by `limit`."""
    end = int(np.searchsorted(x, limit, side="right"))
    if end < len(x):
        share = (limit - x[end - 1]) / (x[end] - x[end - 1])
        x = np.append(x[:end], limit)
        y = np.append(y[:end], y[end - 1] + share * (y[end] - y[end - 1]))
    area = ((y[1:] + y[:-1]) * np.diff(x)).sum() / 2
    return float(np.clip(area / limit, 0.0, 1.0))  # rounding may leave [0, 1]


def _thin(x: np.ndarray, y: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= points:
        return x, y
    # Both rise, so x + y is a length along the curve: equal steps of it keep flat and steep parts alike.
    length = x + y
    kept = np.searchsorted(length, np.linspace(0.0, length[-1], points))
    kept = np.unique(np.concatenate([[0], kept.clip(max=len(x) - 1), [len(x) - 1]]))
    return x[kept], y[kept]


def _check_limit(limit: float) -> None:
    if not 0 < limit <= 1:
        raise MetricError(f"limit must be in (0, 1], not {limit}")


def _split(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of good samples, sorted, and of anomalous ones."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise MetricError(f"labels {labels.shape} and scores {scores.shape} must have one axis and equal lengths")
    anomalous = _as_bool(labels, "labels")
    _check_scores(scores, anomalous, "samples")
    return np.sort(scores[~anomalous]), scores[anomalous]


def _checked_maps(gt: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gt, maps = np.asarray(gt), np.asarray(maps)
    if gt.shape != maps.shape or gt.ndim != 3:
        raise MetricError(f"gt {gt.shape} and maps {maps.shape} must have the same shape (N, H, W)")
    gt = _as_bool(gt, "gt")
    if not np.issubdtype(maps.dtype, np.floating):
        maps = maps.astype(np.float64)
    _check_scores(maps, gt, "pixels")
    return gt, maps


def _as_bool(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype != bool and not np.isin(values, (0, 1)).all():
        raise MetricError(f"{name} must be 0 (good) or 1 (anomalous); found other values")
    return values.astype(bool, copy=False)


def _check_scores(scores: np.ndarray, anomalous: np.ndarray, items: str) -> None:
    count = np.count_nonzero(anomalous)
    if count in (0, anomalous.size):
        only = "anomaly-free" if count == 0 else "anomalous"
        raise MetricError(f"only one class is present: all {anomalous.size} {items} are {only}; need both")
    if np.isnan(scores.min()):  # numpy's minimum of values with NaN is NaN
        raise MetricError(f"{np.isnan(scores).sum()} of {scores.size} {items} have the score NaN")
