"""Point-cloud geometry without compiled extensions: sampling, neighbours, interpolation weights."""

import numpy as np
from scipy.spatial import cKDTree

from mafr.errors import DataError

DISTANCE_EPS = 1e-8  # added to the squared distance before it is inverted (released code)
ORIGIN = 1e-3  # squared length, in the points' unit, up to which the common CUDA operation passes points over


def farthest_point_sample(points: np.ndarray, count: int, start: int = 0, skip_origin: bool = False) -> np.ndarray:
    """Indices of `count` points, each the farthest from those chosen before it; of equally far ones the first.

    points: (N, 3); start: index of the first choice. Returns (count,) int64; distances are computed in the points' own
    precision. Raises DataError for fewer than `count` points to choose from. Used by Point-MAE (Sec. III-A).

    skip_origin: never choose points with |p|² <= 0.001, the start aside, as `furthest_point_sample` of the common CUDA
    extension does (github.com/erikwijmans/Pointnet2_PyTorch, which starts at point 0): such points were once padding.
    Where fewer than `count` others are left, that operation repeats points, and with none left the first one only;
    here this is an error.
    """
    points = np.asarray(points)
    _check_points("points", points)
    total = len(points)
    if not 0 < count <= total:
        raise DataError(f"cannot sample {count} of {total} points; at least {count} valid points are needed")
    if not 0 <= start < total:
        raise DataError(f"the sampling starts at point {start}, but the points are 0 to {total - 1}")
    if not np.issubdtype(points.dtype, np.floating):
        points = points.astype(np.float64)
    # One contiguous array per coordinate and no allocation in the loop: this is the hot spot on a CPU.
    x, y, z = (np.ascontiguousarray(points[:, axis]) for axis in range(3))
    nearest = np.full(total, np.inf, dtype=points.dtype)
    if skip_origin:
        # Summed in the points' precision and compared in double, as the operation does.
        near = (x * x + y * y + z * z).astype(np.float64) <= ORIGIN
        near[start] = False
        if (left := total - np.count_nonzero(near)) < count:
            raise DataError(
                f"cannot sample {count} of {total} points: {total - left} lie within {ORIGIN**0.5:.4f} m of the origin "
                "and are passed over; use skip_origin=false, or fewer groups"
            )
        nearest[near] = -1  # below any squared distance
    squared, term = np.empty_like(nearest), np.empty_like(nearest)
    chosen = np.empty(count, dtype=np.int64)
    chosen[0] = start
    for k in range(1, count):
        last = chosen[k - 1]
        np.subtract(x, x[last], out=squared)
        np.multiply(squared, squared, out=squared)
        for axis in (y, z):
            np.subtract(axis, axis[last], out=term)
            np.multiply(term, term, out=term)
            np.add(squared, term, out=squared)
        np.minimum(nearest, squared, out=nearest)
        chosen[k] = nearest.argmax()
    return chosen


def nearest_neighbours(
    points: np.ndarray, queries: np.ndarray, count: int, workers: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` points nearest to each query, nearest first, equal distances by rising index.

    points: (N, 3), queries: (Q, 3); workers: threads, which do not change the result. Returns distances
    (Q, count) float64 in the points' unit and indices (Q, count) int64. Raises DataError for fewer than `count` points.
    """
    points, queries = np.asarray(points, dtype=np.float64), np.asarray(queries, dtype=np.float64)
    _check_points("points", points)
    _check_points("queries", queries)
    total = len(points)
    if not 0 < count <= total:
        raise DataError(f"cannot take {count} neighbours of {total} points")
    tree = cKDTree(points)
    # One neighbour more than asked for shows where a tie crosses the border, which the tree would cut arbitrarily.
    wanted = min(count + 1, total)
    distances, indices = tree.query(queries, k=np.arange(1, wanted + 1), workers=workers)
    for row in np.flatnonzero(distances[:, count - 1] == distances[:, count] if wanted > count else []):
        radius = distances[row, count - 1]
        inside = np.asarray(tree.query_ball_point(queries[row], radius * (1 + 1e-12)), dtype=np.int64)
        exact = np.sqrt(((points[inside] - queries[row]) ** 2).sum(axis=1))
        first = np.lexsort((inside, exact))[:count]
        distances[row, :count], indices[row, :count] = exact[first], inside[first]
    distances, indices = distances[:, :count], indices[:, :count].astype(np.int64)
    order = np.lexsort((indices, distances), axis=1)
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)


def interpolation_weights(
    points: np.ndarray, centres: np.ndarray, count: int = 3, workers: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Weights that interpolate values at `centres` to `points`: 1/(d² + 1e-8) of the nearest, normalised.

    points: (N, 3), centres: (G, 3), in metres (the constant is in m²); workers: threads. Returns indices (N, count)
    int64 and weights (N, count) float64 whose rows sum to 1. Raises DataError for fewer than `count` centres.
    """
    distances, indices = nearest_neighbours(centres, points, count, workers)
    weights = 1.0 / (distances**2 + DISTANCE_EPS)
    return indices, weights / weights.sum(axis=1, keepdims=True)


def group_points(
    points: np.ndarray, groups: int, size: int, workers: int = 1, skip_origin: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Point-MAE's groups: farthest points as centres, each with its `size` nearest points around it.

    points: (N, 3); workers: threads; skip_origin: of the centres, see `farthest_point_sample`. Returns neighbourhoods
    (groups, size, 3), relative to their centre and nearest first, and centres (groups, 3), in the points' unit. Raises
    DataError for fewer points than `groups` or `size`.
    """
    centres = points[farthest_point_sample(points, groups, skip_origin=skip_origin)]
    _, indices = nearest_neighbours(points, centres, size, workers)
    return points[indices] - centres[:, None], centres


def _check_points(what: str, points: np.ndarray) -> None:
    if points.ndim != 2 or points.shape[1] != 3:
        raise DataError(f"{what} must have shape (N, 3), not {points.shape}")
    if not np.isfinite(points).all():
        raise DataError(f"{what} hold coordinates that are not finite")
