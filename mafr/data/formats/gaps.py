"""Values in a scan that are no measurement: what a camera writes for "no data", saturated pixels, far strays.

What is left out is said on stderr, once a folder and process: a camera that does it does it in every file.
"""

from pathlib import Path

import numpy as np

from mafr.errors import notice

_SHARE = 0.001  # of all pixels with a depth; a repeated value of fewer pixels may be a measurement
_APART = 1.5  # times the median, or the median by this; a part's own depths differ less
_SAMPLE = 20_000  # pixels from which median and spread are taken
_said: set[tuple[Path, str]] = set()


def drop_constants(values: np.ndarray, path: Path) -> np.ndarray:
    """A depth image (H, W), in its file's own steps, with 0 for values that stand for "no data".

    Such a value is repeated, at least 1.5 times as far or as near as the median of the others, and stands alone: no
    other value lies as close to it as the others lie together. One pixel is enough for the largest integer of the
    type, which is saturation. path: for the message.
    """
    left = values[np.isfinite(values) & (values > 0)]
    largest = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else None
    found = []
    while (constant := _constant(left, largest)) is not None:
        is_it = left == constant
        found.append(constant)
        what = f"{np.count_nonzero(is_it):,} pixels hold {constant:.9g}"
        left = left[~is_it]
        middle = float(np.median(left))
        _say_once(path, f"constant {constant}", f"{what}, alone and far from the others' median {middle:.6g}: no data")
    return np.where(np.isin(values, found), values.dtype.type(0), values) if found else values


def _constant(values: np.ndarray, largest: int | None) -> np.generic | None:
    """The value among positive ones (N,) that stands for no data, None where there is none."""
    if not values.size:
        return None
    sample = values[:: max(values.size // _SAMPLE, 1)]
    numbers, counts = np.unique(sample, return_counts=True)
    for value in dict.fromkeys((values.max(), values.min(), numbers[counts.argmax()])):
        count, is_full = np.count_nonzero(values == value), value == largest
        others = sample[sample != value].astype(np.float64)
        if not others.size or (not is_full and count < max(2, _SHARE * values.size)):
            continue
        low, middle, high = np.quantile(others, (0.01, 0.5, 0.99))
        close = np.count_nonzero(np.abs(values - float(value)) <= high - low) - count
        if close <= 0.01 * count and (is_full or not middle / _APART <= value <= middle * _APART):
            return value
    return None


def drop_far(points: np.ndarray, farthest: float, path: Path) -> np.ndarray:
    """An organised cloud (H, W, 3) with (0, 0, 0) for points that have a coordinate beyond `farthest`, in its unit.

    Unchanged where the median point, one repeated far value left aside, lies beyond it too: then all of it is in
    another unit. path: for the message.
    """
    if np.abs(points).max() <= farthest:
        return points
    reach = np.abs(points).max(axis=2)
    far = reach > farthest
    numbers, counts = np.unique(reach[far], return_counts=True)
    repeated = numbers[counts.argmax()] if counts.max() > 1 else None
    judged = reach[(reach > 0) & (reach != repeated)]
    if not judged.size or (middle := float(np.median(judged))) > farthest:
        return points
    count = np.count_nonzero(far)
    text = f"{count:,} pixels lie farther than {farthest:g} m, up to {reach.max():.4g} m, the median at {middle:.3g} m"
    _say_once(path, "far", f"{text}: left out")
    return np.where(far[:, :, None], points.dtype.type(0), points)


def _say_once(path: Path, kind: str, text: str) -> None:
    if (path.parent, kind) not in _said:
        _said.add((path.parent, kind))
        notice(f"warning: {path}: {text} (said once for this folder)")
