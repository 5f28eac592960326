"""Exact DBSCAN for dense clouds: a grid decides most points, a k-d tree the few others."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

_REPRESENTATIVES = 8  # points that stand for a cell in the first, cheap test of two cells
_TABLE = 4_000_000  # cells, 32 MB
_FIRST, _CHUNK = 1_000, 20_000  # pairs of cells compared at once: at first, and at most (some 60 MB)


def dbscan(points: np.ndarray, eps: float, min_points: int) -> np.ndarray:
    """The labels of scikit-learn's DBSCAN, without all pairs of neighbours.

    A core point has at least `min_points` points within `eps`, itself included. Clusters are numbered
    by their first core point; a point within `eps` of core points of several clusters gets the lowest.

    points: (N, 3), in the unit of `eps`. Returns (N,) int64, -1 for noise.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    labels = np.full(len(points), -1, dtype=np.int64)
    if len(points) < min_points:
        return labels
    cells, cell_of = _grid(points, eps)
    # The points of one cell are all within eps of each other.
    core = np.bincount(cell_of, minlength=len(cells))[cell_of] >= min_points
    core |= _at_least(points, eps) >= min_points
    rest = np.flatnonzero(~core)
    if rest.size:
        tree = cKDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False)
        distances, neighbours = tree.query(
            points[rest], k=np.arange(1, min_points + 1), distance_upper_bound=eps * (1 + 1e-9)
        )
        within = distances <= eps  # (rest, min_points); missing neighbours are infinitely far
        core[rest] = within[:, -1]
    cores = np.flatnonzero(core)
    if not cores.size:
        return labels
    used, node_of = np.unique(cell_of[cores], return_inverse=True)
    component = _connect(points[cores], node_of, cells[used], eps)[node_of]
    first = np.full(component.max() + 1, len(points))
    np.minimum.at(first, component, cores)
    labels[cores] = np.argsort(np.argsort(first))[component]
    if rest.size:
        # Fewer than min_points neighbours each, so the query above has found them all.
        neighbours = np.minimum(neighbours, len(points) - 1)
        choices = np.where(within & core[neighbours], labels[neighbours], len(points)).min(axis=1)
        border = ~core[rest] & (choices < len(points))
        labels[rest[border]] = choices[border]
    return labels


def largest_cluster(points: np.ndarray, eps: float, min_points: int) -> tuple[np.ndarray, float]:
    """Membership (N,) in the largest DBSCAN cluster of points (N, 3), the first of equally large ones; and the next.

    The next largest cluster's points per point of the largest, 0 where there is no other. All false and 0 where
    everything is noise.
    """
    labels = dbscan(points, eps, min_points)
    clustered = labels[labels >= 0]
    if not clustered.size:
        return labels >= 0, 0.0
    sizes = np.bincount(clustered)
    largest = sizes.argmax()
    return labels == largest, float(np.delete(sizes, largest).max(initial=0) / sizes[largest])


def _grid(points: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Occupied cells (C, 3) and the cell of each point (N,); a cell's diagonal is just under eps."""
    side = eps / np.sqrt(3.0) * (1 - 1e-9)
    coordinates = np.floor((points - points.min(axis=0)) / side).astype(np.int64)
    if np.prod(coordinates.max(axis=0) + 1.0) < 2**62:
        codes = coordinates
    else:  # far outliers: number the occupied slices instead
        codes = np.stack([np.unique(column, return_inverse=True)[1] for column in coordinates.T], axis=1)
    sizes = codes.max(axis=0) + 1
    keys = (codes[:, 0] * sizes[1] + codes[:, 1]) * sizes[2] + codes[:, 2]
    _, first, cell_of = np.unique(keys, return_index=True, return_inverse=True)
    return coordinates[first], cell_of


def _at_least(points: np.ndarray, eps: float) -> np.ndarray:
    """A lower bound of the number of points within `eps` of each point, itself included: (N,).

    Those of the 5 x 5 x 5 small cells around the point's own, whose far corners are just under eps away; 0 for clouds
    so wide that a table of such cells would be large.
    """
    cells = np.floor((points - points.min(axis=0)) / (eps / (3 * np.sqrt(3.0)) * (1 - 1e-9)))
    shape = cells.max(axis=0) + 1
    if shape.prod() > _TABLE:
        return np.zeros(len(points), dtype=np.int64)
    cell_of = np.ravel_multi_index(cells.astype(np.int64).T, shape.astype(np.int64))
    counts = np.bincount(cell_of, minlength=int(shape.prod())).reshape(shape.astype(np.int64))
    for axis in range(3):
        lines = np.moveaxis(counts, axis, 0)
        sums = lines.copy()
        for step in (1, 2):  # five cells along the axis, nothing beyond the table
            sums[step:] += lines[:-step]
            sums[:-step] += lines[step:]
        counts = np.moveaxis(sums, 0, axis)
    return counts.ravel()[cell_of]


def _connect(points: np.ndarray, node_of: np.ndarray, cells: np.ndarray, eps: float) -> np.ndarray:
    """The component (nodes,) of each cell of core points; cells join where two points are within eps."""
    count = len(cells)
    order = np.argsort(node_of, kind="stable")
    points = points[order]
    sizes = np.bincount(node_of, minlength=count)
    starts = np.cumsum(sizes) - sizes
    # A distance of up to eps spans at most two cells per direction.
    pairs = cKDTree(cells).query_pairs(2.5, p=np.inf, output_type="ndarray")
    offsets = np.abs(cells[pairs[:, 0]] - cells[pairs[:, 1]]).sum(axis=1)
    pairs = pairs[np.argsort(offsets, kind="stable")]  # near cells first: they join almost always

    # First a few points per cell; this is exact for cells of no more points than that.
    chosen = points[starts[:, None] + np.arange(_REPRESENTATIVES) * sizes[:, None] // _REPRESENTATIVES]
    joined = np.empty((0, 2), dtype=np.int64)
    component = np.arange(count)
    end = 0
    while end < len(pairs):
        # Cells that nearer ones have joined need not be compared again.
        begin, end = end, end + min(max(end, _FIRST), _CHUNK)
        part = pairs[begin:end]
        part = part[component[part[:, 0]] != component[part[:, 1]]]
        gaps = chosen[part[:, 0], :, None] - chosen[part[:, 1], None, :]  # (pairs, 8, 8, 3)
        near = (np.einsum("pijk,pijk->pij", gaps, gaps) <= eps * eps).any(axis=(1, 2))
        joined = np.concatenate([joined, part[near]])
        links = coo_matrix((np.ones(len(joined), dtype=bool), joined.T), shape=(count, count))
        component = connected_components(links, directed=False)[1].astype(np.int64)

    # Then all points of the pairs that are still apart although their boxes are near enough.
    low = np.minimum.reduceat(points, starts)
    high = np.maximum.reduceat(points, starts)
    apart = pairs[component[pairs[:, 0]] != component[pairs[:, 1]]]
    apart = apart[(sizes[apart] > _REPRESENTATIVES).any(axis=1)]
    a, b = apart.T
    gaps = np.maximum(np.maximum(low[a] - high[b], low[b] - high[a]), 0)
    apart = apart[(gaps**2).sum(axis=1) <= eps * eps * (1 + 1e-9)]
    if not len(apart):
        return component
    from scipy.cluster.hierarchy import DisjointSet  # slow to load, and seldom needed

    sets = DisjointSet(range(component.max() + 1))
    for a, b in apart.tolist():
        if sets.connected(component[a], component[b]):
            continue
        first = _near_box(points[starts[a] : starts[a] + sizes[a]], low[b], high[b], eps)
        second = _near_box(points[starts[b] : starts[b] + sizes[b]], low[a], high[a], eps)
        if len(first) and len(second):
            distances, _ = cKDTree(first).query(second, distance_upper_bound=eps * (1 + 1e-9))
            if distances.min() <= eps:
                sets.merge(component[a], component[b])
    return np.array([sets[number] for number in sets])[component]


def _near_box(points: np.ndarray, low: np.ndarray, high: np.ndarray, eps: float) -> np.ndarray:
    gaps = np.maximum(np.maximum(low - points, points - high), 0)
    return points[(gaps**2).sum(axis=1) <= eps * eps * (1 + 1e-9)]
