"""FPFH against a literal implementation of its definition, and against Open3D where that is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mafr.errors import DataError
from mafr.features.fpfh import (
    DIM,
    closed_form_normals,
    estimate_normals,
    fpfh,
    neighbours,
    open3d_normals,
    organised_fpfh,
)


def rough_cloud(count: int, seed: int = 0) -> np.ndarray:
    """(count, 3) points on a bumpy sheet, metres, without equal distances."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-0.05, 0.05, size=(2, count))
    z = 0.4 + 0.01 * np.sin(60 * x) * np.cos(45 * y) + 0.0003 * rng.normal(size=count)
    return np.stack([x, y, z], axis=1)


def random_normals(count: int, seed: int = 1) -> np.ndarray:
    normals = np.random.default_rng(seed).normal(size=(count, 3)) * (0.3, 0.3, 1)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def dome(side: int = 32, pitch: float = 0.002) -> np.ndarray:
    """An organised cloud (3, side, side): a round dome seen from above, zeros beside it."""
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    x, y = pitch * column, pitch * row  # right and down, depth away from the camera
    height = 0.02 - (x**2 + y**2) * 12
    xyz = np.stack([x, y, 0.4 - height]) + np.random.default_rng(3).normal(scale=2e-5, size=(3, side, side))
    return np.where(height > 0, xyz, 0).astype(np.float32)


# ------------------------------------------------------------------ a literal implementation


def pair_angles(p1, n1, p2, n2) -> tuple[float, float, float]:
    """The three angles of Rusu et al., Sec. II, word by word."""
    line = p2 - p1
    if np.linalg.norm(line) == 0:
        return 0.0, 0.0, 0.0
    direction = line / np.linalg.norm(line)
    if math.acos(min(1, abs(n1 @ direction))) > math.acos(min(1, abs(n2 @ direction))):
        n1, n2, direction = n2, n1, -direction
    v = np.cross(direction, n1)
    if np.linalg.norm(v) == 0:
        return 0.0, 0.0, 0.0
    v = v / np.linalg.norm(v)
    w = np.cross(n1, v)
    return math.atan2(w @ n2, n1 @ n2), float(v @ n2), float(n1 @ direction)


def slow_fpfh(points: np.ndarray, normals: np.ndarray, count: int, radius: float) -> np.ndarray:
    total = len(points)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    near = [[j for j in np.argsort(distance[i])[:count] if distance[i, j] <= radius and j != i] for i in range(total)]
    single = np.zeros((total, 33))
    for i in range(total):
        for j in near[i]:
            alpha, phi, theta = pair_angles(points[i], normals[i], points[j], normals[j])
            for part, share in enumerate(((alpha + math.pi) / (2 * math.pi), (phi + 1) / 2, (theta + 1) / 2)):
                single[i, 11 * part + min(10, max(0, math.floor(11 * share)))] += 100 / len(near[i])
    whole = np.zeros((total, 33))
    for i in range(total):
        for j in near[i]:
            whole[i] += single[j] / distance[i, j] ** 2
        for part in range(3):
            third = slice(11 * part, 11 * part + 11)
            if whole[i, third].sum():
                whole[i, third] *= 100 / whole[i, third].sum()
        whole[i] += single[i]
    return whole


@pytest.mark.parametrize("radius", [0.25, 0.012])  # with all the neighbours asked for, and with few or none
def test_histograms_equal_the_definition(radius: float):
    points = np.concatenate([rough_cloud(150), [[0.5, 0.5, 0.5]]])  # the last is alone
    normals = random_normals(len(points))
    found = fpfh(points, normals, *neighbours(points, 12, radius))
    wanted = slow_fpfh(points, normals, 12, radius)
    assert found.shape == (151, 33)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    counts = (neighbours(points, 12, radius)[1] >= 0).sum(axis=1) - 1
    sums = found.reshape(-1, 3, 11).sum(axis=2)
    np.testing.assert_allclose(sums[counts > 0], 200, atol=1e-6)
    if radius < 0.1:
        assert counts.min() == 0 and (found[counts == 0] == 0).all() and counts.max() > 2


def test_doubled_points_count_as_pairs_without_angles():
    points = np.repeat(rough_cloud(30), 2, axis=0)
    normals = np.repeat(random_normals(30), 2, axis=0)
    found = fpfh(points, normals, *neighbours(points, 8, 1.0))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.reshape(-1, 3, 11).sum(axis=2), 200)
    assert (found[:, [5, 16, 27]] >= 100 / 7 - 1e-9).all()  # its double falls into the middle bins


def test_histograms_do_not_change_with_the_pose():
    points, normals = rough_cloud(400), random_normals(400)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)  # a rotation, no mirror
    before = fpfh(points, normals, *neighbours(points, 20, 0.25))
    after = fpfh(points @ turn.T + 0.3, normals @ turn.T, *neighbours(points @ turn.T + 0.3, 20, 0.25))
    assert (np.abs(before - after).max(axis=1) > 1e-6).mean() < 0.02  # rounding may cross the edge of a bin


# ------------------------------------------------------------------ normals


def test_normals_are_the_directions_of_least_variance():
    points = rough_cloud(200)
    _, index = neighbours(points, 15, 0.02)
    index[5, 2:] = -1  # two neighbours span no plane
    normals = estimate_normals(points, index)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    assert normals[5].tolist() == [0, 0, 1]
    for k in (0, 17, 101):
        near = points[index[k][index[k] >= 0]]
        wanted = np.linalg.svd(near - near.mean(axis=0))[2][2]
        assert abs(wanted @ normals[k]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_normals_face_the_camera_in_any_frame(seed: int):
    xyz = dome().astype(np.float64)
    valid = (xyz != 0).any(axis=0)
    points, pixels = xyz[:, valid].T, np.argwhere(valid)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    for frame in (np.eye(3), turn):
        moved = points @ frame.T
        normals = estimate_normals(moved, neighbours(moved, 20, 0.1)[1], pixels)
        towards = frame @ (0, 0, -1)  # the camera looks along z
        assert (normals @ towards > 0.3).all()


# ------------------------------------------------------------------ the signs of Open3D's solver


def slow_across(a: np.ndarray, first: np.ndarray, value: float) -> np.ndarray:
    """An eigenvector orthogonal to another one, as Open3D's code decides it case by case."""
    x, y, z = first
    u = np.array([-z, 0, x]) if abs(x) > abs(y) else np.array([0, z, -y])
    u = u / math.sqrt(u @ u)
    v = np.cross(first, u)
    m00, m01, m11 = u @ a @ u - value, u @ a @ v, v @ a @ v - value
    if abs(m00) >= abs(m11):
        if max(abs(m00), abs(m01)) == 0:
            return u
        if abs(m00) >= abs(m01):
            m01 /= m00
            m00 = 1 / math.sqrt(1 + m01**2)
            m01 *= m00
        else:
            m00 /= m01
            m01 = 1 / math.sqrt(1 + m00**2)
            m00 *= m01
        return m01 * u - m00 * v
    if abs(m11) >= abs(m01):
        m01 /= m11
        m11 = 1 / math.sqrt(1 + m01**2)
        m01 *= m11
    else:
        m11 /= m01
        m01 = 1 / math.sqrt(1 + m11**2)
        m11 *= m01
    return m11 * u - m01 * v


def slow_closed_form(covariance: np.ndarray) -> np.ndarray:
    """Open3D's solver for one matrix; a vector of zeros, which it gives for zeros, becomes (0, 0, 1) there."""
    if covariance.max() == 0:
        return np.array([0.0, 0, 1])
    a = covariance / covariance.max()
    around = a[0, 1] ** 2 + a[0, 2] ** 2 + a[1, 2] ** 2
    if around == 0:
        if a[0, 0] < a[1, 1] and a[0, 0] < a[2, 2]:
            return np.array([1.0, 0, 0])
        if a[1, 1] < a[0, 0] and a[1, 1] < a[2, 2]:
            return np.array([0.0, 1, 0])
        return np.array([0.0, 0, 1])
    q = (a[0, 0] + a[1, 1] + a[2, 2]) / 3
    b = a - q * np.eye(3)
    p = math.sqrt((b[0, 0] ** 2 + b[1, 1] ** 2 + b[2, 2] ** 2 + 2 * around) / 6)
    half = min(max(np.linalg.det(b) / p**3 / 2, -1), 1)
    angle = math.acos(half) / 3
    high, low = 2 * math.cos(angle), 2 * math.cos(angle + 2 * math.pi / 3)
    values = q + p * low, q - p * (low + high), q + p * high

    def apart(value: float) -> np.ndarray:
        rows = a - value * np.eye(3)
        products = [np.cross(rows[0], rows[1]), np.cross(rows[0], rows[2]), np.cross(rows[1], rows[2])]
        longest = max(products, key=lambda product: product @ product)  # the first of equals
        return longest / math.sqrt(longest @ longest)

    if half >= 0:
        last = apart(values[2])
        if values[2] < min(values[:2]):
            return last
        middle = slow_across(a, last, values[1])
        return middle if values[1] < min(values[0], values[2]) else np.cross(middle, last)
    first = apart(values[0])
    if values[0] < min(values[1:]):
        return first
    middle = slow_across(a, first, values[1])
    return middle if values[1] < min(values[0], values[2]) else np.cross(first, middle)


def test_closed_form_normals_are_those_of_the_published_solver():
    rng = np.random.default_rng(0)
    spread = rng.lognormal(-6, 2, size=(2000, 1, 3))  # flat, long and round ones
    parts = rng.normal(size=(2000, 5, 3)) * spread
    parts[:500] = parts[:500] @ np.linalg.qr(rng.normal(size=(500, 3, 3)))[0]
    matrices = np.einsum("nki,nkj->nij", parts, parts)
    found = closed_form_normals(matrices)
    np.testing.assert_allclose(found, [slow_closed_form(m) for m in matrices], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-9)
    values, vectors = np.linalg.eigh(matrices)
    clear = values[:, 1] > 1.001 * values[:, 0] + 1e-9 * values[:, 2]
    assert clear.mean() > 0.9 and np.abs((found * vectors[:, :, 0]).sum(axis=1))[clear].min() > 1 - 1e-6
    np.testing.assert_array_equal(closed_form_normals(2.0**20 * matrices), found)  # no matter which unit
    facing = found[:, 2] > 0
    assert 0.1 < facing.mean() < 0.9


@pytest.mark.parametrize(
    ("matrix", "wanted"),
    [
        (np.zeros((3, 3)), (0, 0, 1)),
        (np.eye(3), (0, 0, 1)),
        (np.diag([1.0, 2, 3]), (1, 0, 0)),
        (np.diag([2.0, 1, 3]), (0, 1, 0)),
        (np.diag([1.0, 1, 3]), (0, 0, 1)),  # two equally small ones: there, as here, the direction of the largest
        (np.diag([3.0, 3, 1]), (0, 0, 1)),
        (2 * np.eye(3) - np.outer((1, 1, 1), (1, 1, 1)) / 3, None),  # round but for one direction
        (np.array([[2.0, 1, 0], [1, 2, 0], [0, 0, 1]]), None),  # the two smaller eigenvalues are equal
        (np.array([[2.0, 1, 0], [1, 2, 0], [0, 0, 3]]), None),  # the two larger ones
        (np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 2]]), None),  # and coplanar points
    ],
)
def test_degenerate_matrices_as_in_the_published_solver(matrix: np.ndarray, wanted: tuple[int, ...] | None):
    (found,) = closed_form_normals(matrix[None])
    np.testing.assert_allclose(found, slow_closed_form(matrix), atol=1e-7)
    if wanted is not None:
        assert found.tolist() == list(wanted)
        return
    assert np.linalg.norm(found) == pytest.approx(1)
    assert found @ matrix @ found == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-7)


@pytest.mark.parametrize("line", [(1.0, 2, 3), (1.0, -1, 0), (0.0, 1, 1), (1.0, 1e-3, 0)])
def test_collinear_points_have_a_normal_across_their_line(line: tuple[float, float, float]):
    (found,) = closed_form_normals(np.outer(line, line)[None])  # which one is left to rounding, as in Open3D
    assert np.linalg.norm(found) == pytest.approx(1) and found @ line == pytest.approx(0, abs=1e-6)


def test_signs_by_the_solver_change_histograms_only_there():
    """The same normals up to their signs; an organised cloud's histograms are those of the normals asked for."""
    xyz = dome()
    valid = (xyz != 0).any(axis=0)
    points = xyz[:, valid].T.astype(np.float64)
    close = neighbours(points, 30, 0.1)[1]
    ours, theirs = estimate_normals(points, close, np.argwhere(valid)), open3d_normals(points, close)
    same = (ours * theirs).sum(axis=1)
    np.testing.assert_allclose(np.abs(same), 1, atol=1e-7)
    assert 0.05 < (same < 0).mean() < 0.95
    few = close.copy()
    few[5, 2:] = -1
    assert open3d_normals(points, few)[5].tolist() == [0, 0, 1]
    maps = organised_fpfh(xyz, normals="open3d")
    np.testing.assert_allclose(maps[:, valid].T, fpfh(points, theirs, *neighbours(points, 100, 0.25)), atol=1e-4)
    assert np.abs(maps - organised_fpfh(xyz)).max() > 10


# ------------------------------------------------------------------ organised clouds


def test_maps_lie_where_the_points_lie():
    xyz = dome()
    maps = organised_fpfh(xyz)
    valid = (xyz != 0).any(axis=0)
    assert maps.shape == (DIM, 32, 32) and maps.dtype == np.float32
    np.testing.assert_array_equal((maps != 0).any(axis=0), valid)
    np.testing.assert_allclose(maps.reshape(3, 11, 32, 32).sum(axis=1)[:, valid], 200, rtol=1e-5)
    points = xyz[:, valid].T.astype(np.float64)
    normals = estimate_normals(points, neighbours(points, 30, 0.1)[1], np.argwhere(valid))
    np.testing.assert_allclose(maps[:, valid].T, fpfh(points, normals, *neighbours(points, 100, 0.25)), atol=1e-4)


def test_a_step_takes_the_middle_pixels_and_as_much_surface():
    xyz = dome(64, 0.001)
    coarse = organised_fpfh(xyz, 2)
    assert coarse.shape == (DIM, 32, 32)
    np.testing.assert_array_equal((coarse != 0).any(axis=0), (xyz[:, 1::2, 1::2] != 0).any(axis=0))
    fine = organised_fpfh(xyz)[:, 1::2, 1::2]
    inner = (slice(None), slice(8, 24), slice(8, 24))
    # Much closer to the same place's histogram than to another's.
    apart = np.abs(coarse[inner] - fine[inner]).sum(axis=0).mean()
    assert apart < 0.5 * np.abs(coarse[inner] - fine[:, :16, :16]).sum(axis=0).mean()


def test_a_dent_changes_histograms_around_it_only():
    xyz = dome(64, 0.001)
    row, column = np.mgrid[:64, :64]
    dented = xyz.copy()
    dented[2] += np.where((row - 30) ** 2 + (column - 34) ** 2 < 20, 0.002, 0).astype(np.float32)
    change = np.abs(organised_fpfh(dented) - organised_fpfh(xyz)).sum(axis=0)
    far = ((row - 30) ** 2 + (column - 34) ** 2 > 24**2) & (xyz != 0).any(axis=0)
    assert change[27:34, 31:38].mean() > 50 and far.any() and change[far].max() == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_points(count: int):
    xyz = np.zeros((3, 8, 8), dtype=np.float32)
    xyz[:, 2, :count] = 0.3
    xyz[0, 2, :count] += np.arange(count) * 0.001
    maps = organised_fpfh(xyz)
    # A single point has no neighbours and so no histogram.
    assert np.isfinite(maps).all() and (maps != 0).any(axis=0).sum() == (2 if count == 2 else 0)


def test_a_cloud_that_the_step_does_not_divide_is_an_error():
    with pytest.raises(DataError, match="every 3th"):
        organised_fpfh(np.zeros((3, 8, 8), dtype=np.float32), 3)


# ------------------------------------------------------------------ Open3D, an extra


def test_equals_open3d():
    """Histograms of given normals, and normals with their signs. Needs `pip install 'mafr[reference]'`."""
    o3d = pytest.importorskip("open3d")
    points = rough_cloud(1500)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    hybrid = o3d.geometry.KDTreeSearchParamHybrid
    cloud.estimate_normals(hybrid(radius=0.1, max_nn=30))
    theirs = np.asarray(cloud.normals)
    ours = estimate_normals(points, neighbours(points, 30, 0.1)[1])
    assert np.abs((ours * theirs).sum(axis=1)).min() > 1 - 1e-6
    signed = open3d_normals(points, neighbours(points, 30, 0.1)[1])
    np.testing.assert_allclose(signed, theirs, atol=1e-6)
    for radius, count in ((0.25, 100), (0.004, 100), (0.25, 10)):
        wanted = o3d.pipelines.registration.compute_fpfh_feature(cloud, hybrid(radius=radius, max_nn=count)).data.T
        found = fpfh(points, theirs, *neighbours(points, count, radius))
        assert (np.abs(found - wanted).max(axis=1) < 1e-9).mean() > 0.995  # rounding may cross the edge of a bin


def test_histograms_do_not_depend_on_neighbours_that_are_missing():
    g = np.random.default_rng(9)
    points = g.random((60, 3)) * 0.2
    normals = g.normal(size=(60, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points[7] = points[8]  # a pair without a direction
    distance, index = neighbours(points, 12, 0.05)
    assert (index < 0).any() and (distance[:, 1] == 0).sum() == 2
    found = fpfh(points, normals, distance, index)
    assert np.isfinite(found).all()
    wide = [np.pad(part, ((0, 0), (0, 3)), constant_values=value) for part, value in ((distance, np.inf), (index, -1))]
    assert np.array_equal(fpfh(points, normals, *wide), found)
