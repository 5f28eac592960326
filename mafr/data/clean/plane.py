"""The table plane under a part: a seeded RANSAC over the border of an organised cloud."""

import hashlib

import numpy as np

from mafr.data.clean import loops

_CHUNK = 50_000  # distances computed at once, 400 kB: they stay in the cache


def border_points(xyz: np.ndarray, width: int) -> np.ndarray:
    """The valid points (N, 3) within `width` pixels of the edge of an organised cloud (H, W, 3)."""
    inside = np.zeros(xyz.shape[:2], dtype=bool)
    inside[width:-width, width:-width] = True
    return xyz[~inside & has_point(xyz)]


def has_point(xyz: np.ndarray) -> np.ndarray:
    """(H, W) bool, true where a cloud (H, W, 3) has a point: any coordinate that is not zero."""
    x, y, z = (xyz[:, :, axis] != 0 for axis in range(3))  # several times quicker than `any` over the last axis
    return x | y | z


def fit_plane(
    points: np.ndarray, seed_text: str, threshold: float, sample: int, iterations: int
) -> tuple[np.ndarray, float]:
    """The plane with the most points nearer than `threshold`, fitted again to those by least squares.

    Each of the `iterations` planes is fitted by least squares to `sample` different points. Equal
    inputs give equal planes: the draws depend on `seed_text` alone.

    points: (N, 3), N >= sample; metres, as the threshold. Returns the unit normal (3,) and the offset d of the plane
    n·p + d = 0, float64.
    """
    points = np.asarray(points, dtype=np.float64)
    seed = int.from_bytes(hashlib.sha256(seed_text.encode()).digest()[:8], "little")
    chosen = _draw(np.random.default_rng(seed), len(points), sample, iterations)
    normals, offsets = _least_squares(points[chosen])
    inliers = np.empty(iterations, dtype=np.int64)
    step = max(1, _CHUNK // len(points))
    for begin in range(0, iterations, step):
        part = slice(begin, begin + step)
        loops.count_near(normals[part] @ points.T, offsets[part], threshold, inliers[part])
    best = inliers.argmax()  # the first of equally good ones
    near = np.abs(points @ normals[best] + offsets[best]) < threshold
    if np.count_nonzero(near) < 3:
        return normals[best], float(offsets[best])
    normals, offsets = _least_squares(points[near][None])
    return normals[0], float(offsets[0])


def _draw(rng: np.random.Generator, total: int, count: int, rows: int) -> np.ndarray:
    """`count` different numbers below `total` per row (Floyd's algorithm, all rows at once)."""
    chosen = np.empty((rows, count), dtype=np.int64)
    for k, last in enumerate(range(total - count, total)):
        loops.keep_different(chosen, rng.integers(0, last + 1, size=rows), k, last)
    return chosen


def _least_squares(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Total least squares planes of (G, K, 3) points: normals (G, 3), offsets (G,)."""
    centres = groups.mean(axis=1)
    centred = groups - centres[:, None]
    _, vectors = np.linalg.eigh(np.einsum("gki,gkj->gij", centred, centred))
    normals = vectors[:, :, 0]  # eigenvalues ascend
    return normals, -np.einsum("gi,gi->g", normals, centres)
