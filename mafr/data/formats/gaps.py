"""Values in a scan that are no measurement: what a camera writes for "no data", saturated pixels, far strays.

What is left out is said on stderr, once a folder and process: a camera that does it does it in every file.
"""

from pathlib import Path

import numpy as np

from mafr.errors import notice

_SHARE = 0.001  # of all pixels with a depth; a repeated value of fewer pixels may be a measurement
_FEWEST = 20  # pixels that share one point, or one odd depth, of a cloud
_APART = 1.5  # times the median, or the median by this; a part's own depths differ less
_OFTEN = 4  # depths of a cloud, the most frequent ones, that are looked at for a repeated point
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


def drop_repeated(points: np.ndarray, path: Path) -> np.ndarray:
    """An organised cloud (H, W, 3) with (0, 0, 0) for points that stand for "no data": `drop_constants` for clouds.

    Each pixel looks along a ray of its own, so no point is that of many pixels: one repeated in a thousandth of the
    valid pixels, and in 20 at least, is none. The same holds for a z repeated as often that stands alone and far from
    the others, as z = 0 of pixels whose x and y were computed all the same. path: for the message.
    """
    index = np.flatnonzero(points.any(axis=2))
    left = points.reshape(-1, 3)[index]
    dropped = []
    while (found := _repeated(left)) is not None:
        is_it, what = found
        dropped.append(index[is_it])
        middle = float(np.median(left[~is_it, 2]))
        text = f"{np.count_nonzero(is_it):,} pixels hold {what}, while the others' median z is {middle:.6g}: no data"
        _say_once(path, f"repeated {what}", text)
        index, left = index[~is_it], left[~is_it]
    if not dropped:
        return points
    points = points.copy()
    points.reshape(-1, 3)[np.concatenate(dropped)] = 0
    return points


def _repeated(points: np.ndarray) -> tuple[np.ndarray, str] | None:
    """Which of the points (N, 3) hold the one, or the z, that stands for no data, and that in words; None for none."""
    fewest = max(_FEWEST, _SHARE * len(points))
    if len(points) <= fewest:
        return None
    sample = points[:: max(len(points) // _SAMPLE, 1)]
    numbers, counts = np.unique(sample[:, 2], return_counts=True)
    for k in np.argsort(-counts, kind="stable")[:_OFTEN]:
        if counts[k] < 2:
            break
        is_it = (points == _most_frequent(sample[sample[:, 2] == numbers[k]])).all(axis=1)
        if fewest <= np.count_nonzero(is_it) < len(points):
            return is_it, f"({', '.join(f'{value:.6g}' for value in points[is_it][0])})"
    constant = _constant(points[:, 2], None, _FEWEST)
    return None if constant is None else (points[:, 2] == constant, f"z = {constant:.9g}")


def _most_frequent(points: np.ndarray) -> np.ndarray:
    """The point of (N, 3) that comes most often."""
    found, counts = np.unique(points, axis=0, return_counts=True)
    return found[counts.argmax()]


def _constant(values: np.ndarray, largest: int | None, fewest: int = 2) -> np.generic | None:
    """The value among those of pixels with a point (N,) that stands for no data, None where there is none."""
    if not values.size:
        return None
    sample = values[:: max(values.size // _SAMPLE, 1)]
    numbers, counts = np.unique(sample, return_counts=True)
    for value in dict.fromkeys((values.max(), values.min(), numbers[counts.argmax()])):
        count, is_full = np.count_nonzero(values == value), value == largest
        others = sample[sample != value].astype(np.float64)
        if not others.size or (not is_full and count < max(fewest, _SHARE * values.size)):
            continue
        low, middle, high = np.quantile(others, (0.01, 0.5, 0.99))
        close = np.count_nonzero(np.abs(values - float(value)) <= high - low) - count
        nearest, farthest = sorted((middle / _APART, middle * _APART))
        if close <= 0.01 * count and (is_full or not nearest <= value <= farthest):
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
