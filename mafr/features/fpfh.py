"""Fast Point Feature Histograms (Rusu et al., ICRA 2009) of organised clouds, as BTF uses them.

The definition is Open3D's, which the authors of BTF call: three angles between the normals of a point and of each
neighbour, each in 11 bins (SPFH, bins sum to 100), plus the neighbours' histograms weighted by 1/distance² (bins
again sum to 100). Published sizes, metres: normals of the 30 nearest points within 0.1, histograms of the 100 nearest
within 0.25.

The neighbours of a point leave its normal's sign open. Open3D, and so the published features, takes the sign that its
closed-form eigensolver happens to give: on real scans about a fifth of the normals then point against the others.
`normals` "open3d" follows that solver (D. Eberly, "A Robust Eigensolver for 3 x 3 Symmetric Matrices"; Open3D,
cpp/open3d/geometry/EstimateNormals.cpp). Against Open3D 0.20, on three real scans of 7,400 points each, all signs are
equal, normals differ by 1e-9 at most, and histograms by 0.002 on average, where rounding crosses the edge of a bin.

Departures. By default normals face the camera, whose side follows from the order of the pixels in any frame. Small
profiles compute at every `btf_step`-th pixel in both directions and take 1/step² as many neighbours, so that a
histogram describes the same patch of surface.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from mafr.errors import DataError

TOKEN_SIDES = (112, 56)  # pixels per side of the clouds whose points make the histograms of a token
VERSION = 1  # raised whenever a change of the code changes histograms; kept ones are then computed again
ANGLES, BINS = 3, 11
DIM = ANGLES * BINS
TOKEN_DIM = len(TOKEN_SIDES) * DIM
NORMAL_RADIUS, NORMAL_COUNT = 0.1, 30  # metres, points: twice the authors' voxel size 0.05
RADIUS, COUNT = 0.25, 100  # five times it


def organised_fpfh(xyz: np.ndarray, step: int = 1, workers: int = 1, normals: str = "camera") -> np.ndarray:
    """The histograms of an organised cloud at every `step`-th pixel, the middle one of each step x step block.

    xyz: (3, S, S), metres, zero where there is no point, S a multiple of step; workers: threads of the search; normals:
    whether they face the "camera" or have the signs of "open3d". Returns (33, S/step, S/step) float32, zero where there
    is no point. Raises DataError for other shapes.
    """
    side = xyz.shape[-1]
    if xyz.shape != (3, side, side) or side % step:
        raise DataError(f"an organised cloud of shape {xyz.shape} cannot be taken at every {step}th pixel")
    grid = xyz[:, step // 2 :: step, step // 2 :: step].astype(np.float64)
    valid = (grid != 0).any(axis=0)
    maps = np.zeros((*valid.shape, DIM), dtype=np.float32)
    points = grid[:, valid].T  # (N, 3), row by row
    count, normal_count = (max(2, round(n / step**2)) for n in (COUNT, NORMAL_COUNT))
    if len(points):
        distance, index = neighbours(points, count, RADIUS, workers)
        near = slice(None, normal_count)
        close = np.where(distance[:, near] <= NORMAL_RADIUS, index[:, near], -1)
        if normals == "open3d":
            found = open3d_normals(points, close)
        else:
            found = estimate_normals(points, close, np.argwhere(valid))
        maps[valid] = fpfh(points, found, distance, index)
    return maps.transpose(2, 0, 1)


def fpfh_tokens(xyz: np.ndarray, centres: np.ndarray, workers: int = 1) -> np.ndarray:
    """Histograms of a cloud (3, S, S) at some of its points, at two scales: (G, 66) float32, roots of shares.

    centres: (G, 3); each takes the histogram of its nearest point among those of `TOKEN_SIDES` pixels per side, so that
    a histogram describes the same share of the image whatever the scan's resolution. The root makes Euclidean distances
    of histograms those of Hellinger, which full bins do not rule.
    """
    parts = []
    for side in TOKEN_SIDES:
        some = _sampled(xyz, min(side, xyz.shape[-1]))
        valid = (some != 0).any(axis=0)
        maps = organised_fpfh(some, 1, workers)
        _, nearest = cKDTree(some[:, valid].T).query(centres, workers=workers)
        parts.append(np.sqrt(maps[:, valid].T[nearest] / 200))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _sampled(xyz: np.ndarray, side: int) -> np.ndarray:
    """Every n-th pixel of a cloud, or of each block the nearest one with a point: (3, side, side)."""
    index = (2 * np.arange(side) + 1) * xyz.shape[-1] // (2 * side)
    valid = (xyz != 0).any(axis=0)
    if not valid.any():
        return xyz[:, index[:, None], index]
    row, column = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    row, column = row[index[:, None], index], column[index[:, None], index]
    reach = max(1, xyz.shape[-1] // (2 * side))
    near = (np.abs(row - index[:, None]) <= reach) & (np.abs(column - index) <= reach)
    return np.where(near, xyz[:, row, column], 0)


def neighbours(points: np.ndarray, count: int, radius: float, workers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The up to `count` nearest points within `radius` of each point, nearest first, so itself (or its double) first.

    points: (N, 3). Returns distances (N, K) float64 and indices (N, K) int32, K = min(count, N); infinity and -1
    where there are fewer.
    """
    ranks = np.arange(1, min(count, len(points)) + 1)
    distance, index = cKDTree(points).query(points, k=ranks, distance_upper_bound=radius, workers=workers)
    return distance, np.where(np.isfinite(distance), index, -1).astype(np.int32)


def estimate_normals(points: np.ndarray, index: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
    """Unit normals (N, 3) float64: the direction of least variance of each point's neighbours.

    points: (N, 3); index: (N, K), the neighbours with the point itself, -1 for none; pixels: (N, 2), row and column of
    each point, by which normals are turned to the camera (None: signs are the eigensolver's). Points with fewer than
    three neighbours get (0, 0, 1), as in Open3D.
    """
    there = index >= 0
    weight, offsets, covariance = _spread(points, index)
    normals = np.linalg.eigh(covariance)[1][:, :, 0]  # eigenvalues ascend
    normals[there.sum(axis=1) < 3] = (0.0, 0.0, 1.0)
    if pixels is not None:
        # Tangents down the rows and along the columns; for a camera (down) x (right) points towards itself.
        steps = [axis[index] - axis[:, None] for axis in pixels.T]
        down, right = (np.stack([(weight * step * o).sum(axis=1) for o in offsets], axis=1) for step in steps)
        normals[(normals * np.cross(down, right)).sum(axis=1) < 0] *= -1
    return normals


def open3d_normals(points: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Unit normals (N, 3) float64 as Open3D's `estimate_normals` leaves them; points and index as for ours."""
    normals = closed_form_normals(_spread(points, index)[2])
    normals[(index >= 0).sum(axis=1) < 3] = (0.0, 0.0, 1.0)
    return normals


def _spread(points: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Weights (N, K) of each point's neighbours, their offsets from it, 3 x (N, K), their covariance (N, 3, 3)."""
    there = index >= 0
    weight = there / np.maximum(1, there.sum(axis=1, keepdims=True))
    offsets = [axis[index] - axis[:, None] for axis in points.T]  # relative to the point: no cancellation
    middle = [(weight * o).sum(axis=1) for o in offsets]
    covariance = np.empty((len(points), 3, 3))
    for i in range(3):
        for j in range(i + 1):
            value = (weight * offsets[i] * offsets[j]).sum(axis=1) - middle[i] * middle[j]
            covariance[:, i, j] = covariance[:, j, i] = value
    return weight, offsets, covariance


def closed_form_normals(covariance: np.ndarray) -> np.ndarray:
    """The unit eigenvector of each matrix's least eigenvalue, (N, 3), with the sign that Open3D's solver gives it.

    covariance: (N, 3, 3), symmetric, not negative. A diagonal matrix gives the axis of its least element; where two are
    equally small, the third axis whatever its element (so a matrix of zeros, too, as of a point met many times). Across
    collinear points all directions are equally good: rounding decides, as in Open3D.
    """
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    least = diagonal == diagonal.min(axis=1, keepdims=True)
    normals = np.eye(3)[np.where(least.sum(axis=1) == 1, least.argmax(axis=1), 2)]
    largest = covariance.max(axis=(1, 2))
    a = covariance / np.where(largest > 0, largest, 1)[:, None, None]
    around = a[:, 0, 1] ** 2 + a[:, 0, 2] ** 2 + a[:, 1, 2] ** 2
    mixed = (largest > 0) & (around > 0)
    a, around = a[mixed], around[mixed]
    # The eigenvalues: with B = (a - q)/p they are q + 2 p cos(angle + k 2π/3), angle = acos(det(B)/2)/3.
    q = np.trace(a, axis1=1, axis2=2) / 3
    b = a - q[:, None, None] * np.eye(3)
    p = np.sqrt(((np.diagonal(b, axis1=1, axis2=2) ** 2).sum(axis=1) + 2 * around) / 6)
    half = np.clip(np.linalg.det(b) / p**3 / 2, -1, 1)
    angle = np.arccos(half) / 3
    high, low = 2 * np.cos(angle), 2 * np.cos(angle + 2 * np.pi / 3)
    upper, middle, lower = (q + p * root for root in (high, -(high + low), low))
    # First the eigenvector of the one that lies apart from the other two, then one in the plane across it.
    positive = half >= 0
    apart, other = np.where(positive, upper, lower), np.where(positive, lower, upper)
    first = _apart(a, apart)
    second = _across(a, first, middle)
    third = np.cross(first, second) * np.where(positive, -1, 1)[:, None]
    # Rounding may put the middle one below: so with collinear points, whose two smaller eigenvalues are equal.
    takes_first, takes_second = apart < np.minimum(other, middle), middle < np.minimum(other, apart)
    normals[mixed] = np.where(takes_first[:, None], first, np.where(takes_second[:, None], second, third))
    return normals


def _apart(a: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Unit eigenvectors (N, 3) of simple eigenvalues (N,): the longest product of two rows of a - value."""
    x, y, z = (row for row in (a - value[:, None, None] * np.eye(3)).transpose(1, 0, 2))
    products = np.stack([np.cross(x, y), np.cross(x, z), np.cross(y, z)], axis=1)
    lengths = np.sqrt((products**2).sum(axis=2))
    rows, longest = np.arange(len(a)), lengths.argmax(axis=1)  # the first of equally long ones
    return products[rows, longest] / lengths[rows, longest, None]


def _across(a: np.ndarray, first: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Unit eigenvectors (N, 3) of the eigenvalues (N,), orthogonal to the eigenvectors `first`."""
    x, y, z = first.T
    nil = np.zeros_like(x)
    u = np.where((np.abs(x) > np.abs(y))[:, None], np.stack([-z, nil, x], axis=1), np.stack([nil, z, -y], axis=1))
    u /= np.sqrt((u**2).sum(axis=1, keepdims=True))
    v = np.cross(first, u)
    au, av = ((a * w[:, None, :]).sum(axis=2) for w in (u, v))
    uu, uv, vv = (u * au).sum(axis=1) - value, (u * av).sum(axis=1), (v * av).sum(axis=1) - value
    # In the basis u, v the matrix [[uu, uv], [uv, vv]] takes the wanted vector to zero: it is orthogonal to a row.
    top = np.abs(uu) >= np.abs(vv)
    along, against, leading = np.where(top, uv, vv), np.where(top, uu, uv), np.where(top, uu, vv)
    sign = np.where(np.where(np.abs(leading) >= np.abs(uv), leading, uv) < 0, -1, 1)
    length = np.hypot(along, against)
    fine = length > 0  # else every vector of the plane is one
    turned = (along[:, None] * u - against[:, None] * v) * (sign / np.where(fine, length, 1))[:, None]
    return np.where(fine[:, None], turned, u)


def fpfh(points: np.ndarray, normals: np.ndarray, distance: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The histograms (N, 33) float64 of a cloud: 11 bins of each of three angles, each set summing to 200.

    points, normals: (N, 3), unit normals; distance, index: (N, K) as `neighbours` gives them: the first of each row,
    the point itself, is left out, as are indices of -1. A point without neighbours gets zeros.
    """
    from mafr.features import fpfh_loops as loops  # Numba takes half a second

    points, normals, distance = (np.ascontiguousarray(part, dtype=np.float64) for part in (points, normals, distance))
    index = np.ascontiguousarray(index, dtype=np.int32)
    own, out = (np.empty((len(points), DIM)) for _ in range(2))
    loops.own_histograms(points, normals, distance, index, own)
    loops.add_neighbours(distance, index, own, out)
    return out
