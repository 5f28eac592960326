"""Sampling, neighbours and interpolation weights against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mafr.errors import DataError
from mafr.features.geometry import (
    DISTANCE_EPS,
    farthest_point_sample,
    group_points,
    interpolation_weights,
    nearest_neighbours,
)


def _cloud(count: int, seed: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(dtype)


def _slow_farthest(points: np.ndarray, count: int, start: int) -> list[int]:
    chosen = [start]
    while len(chosen) < count:
        best, far = -1, -1.0
        for k, p in enumerate(points):
            near = min(((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2) + (p[2] - q[2]) ** 2 for q in points[chosen])
            if near > far:
                best, far = k, near
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("start", [0, 7])
def test_sampling_equals_brute_force(dtype: type, start: int) -> None:
    points = _cloud(60, 1, dtype)
    assert farthest_point_sample(points, 20, start).tolist() == _slow_farthest(points, 20, start)


def test_sampling_of_a_regular_grid_takes_the_first_of_equals() -> None:
    points = np.stack(np.meshgrid(np.arange(5), np.arange(5), [0]), -1).reshape(-1, 3)
    chosen = farthest_point_sample(points, 4)
    assert chosen.tolist() == [0, 24, 4, 20]  # the corners, whole numbers allowed
    assert farthest_point_sample(points.astype(float), 25).tolist() == _slow_farthest(points, 25, 0)


def test_sampling_does_not_lose_small_distances_far_from_the_origin() -> None:
    # With expanded squares in float32, distances of 0.2 mm half a metre away drown in rounding.
    points = np.array([[0.5, 0.5, 0.5]], np.float32) + np.arange(50)[:, None] * np.float32([2e-4, 0, 0])
    assert farthest_point_sample(points, 3).tolist() == [0, 49, 24]
    assert sorted(farthest_point_sample(points, 50)) == list(range(50))


@pytest.mark.parametrize("start", [0, 1])
def test_points_near_the_origin_are_passed_over_but_for_the_start(start: int) -> None:
    points = _cloud(400, 5) * np.float32(0.03)
    # Both ends of the border: a squared length of 0.001, of which float32's nearest is a little more, and just below.
    points[2:4] = [[0.001**0.5, 0, 0], [0.0316, 0, 0]]
    points[:2] = [[0.001, 0, 0.002], [0, 0.003, 0]]
    near = (points[:, 0] ** 2 + points[:, 1] ** 2 + points[:, 2] ** 2).astype(np.float64) <= 1e-3
    assert near[[0, 1, 3]].all() and 50 < near.sum() < 350
    allowed = np.flatnonzero(~near | (np.arange(400) == start))
    expected = allowed[_slow_farthest(points[allowed], 30, int(np.searchsorted(allowed, start)))]
    assert farthest_point_sample(points, 30, start, skip_origin=True).tolist() == expected.tolist()
    assert near[farthest_point_sample(points, 300, start)].sum() > 1
    everything = farthest_point_sample(points, len(allowed), start, skip_origin=True)
    assert sorted(everything) == allowed.tolist()
    with pytest.raises(DataError, match=r"within 0\.0316 m of the origin and are passed over; use skip_origin"):
        farthest_point_sample(points, len(allowed) + 1, start, skip_origin=True)
    with pytest.raises(DataError, match="399 lie within"):
        farthest_point_sample(points * np.float32(0.01), 2, start, skip_origin=True)


def test_too_few_points_are_an_error() -> None:
    with pytest.raises(DataError, match="at least 11"):
        farthest_point_sample(_cloud(10, 0), 11)
    with pytest.raises(DataError, match="cannot take 11"):
        nearest_neighbours(_cloud(10, 0), _cloud(2, 1), 11)
    with pytest.raises(DataError, match="starts at point 10"):
        farthest_point_sample(_cloud(10, 0), 3, start=10)
    with pytest.raises(DataError, match="not finite"):
        farthest_point_sample(np.full((4, 3), np.nan), 2)
    with pytest.raises(DataError, match=r"\(N, 3\)"):
        farthest_point_sample(np.zeros((3, 4)), 2)


def _slow_neighbours(points: np.ndarray, query: np.ndarray, count: int) -> tuple[list[float], list[int]]:
    pairs = sorted((float(np.sqrt(((p - query) ** 2).sum())), k) for k, p in enumerate(points))
    return [d for d, _ in pairs[:count]], [k for _, k in pairs[:count]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), coarse=st.booleans())
def test_neighbours_equal_brute_force(seed: int, count: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 3, (30, 3)).astype(float) if coarse else rng.normal(size=(30, 3))
    queries = np.concatenate([points[:4], rng.integers(0, 3, (4, 3)).astype(float)])
    distances, indices = nearest_neighbours(points, queries, count)
    for k, query in enumerate(queries):  # the coarse points are full of ties and of points that coincide
        d, i = _slow_neighbours(points, query, count)
        assert indices[k].tolist() == i
        np.testing.assert_allclose(distances[k], d, rtol=1e-12)


def test_as_many_neighbours_as_points() -> None:
    points = _cloud(9, 2)
    distances, indices = nearest_neighbours(points, points[:2], 9)
    assert sorted(indices[1]) == list(range(9))
    assert (np.diff(distances) >= 0).all()


def test_interpolation_weights_are_inverse_squares() -> None:
    points, centres = _cloud(40, 3) * 0.01, _cloud(12, 4) * 0.01
    indices, weights = interpolation_weights(points, centres)
    np.testing.assert_allclose(weights.sum(1), 1)
    for k, point in enumerate(points):
        d, i = _slow_neighbours(centres.astype(float), point.astype(float), 3)
        expected = np.array([1 / (x * x + DISTANCE_EPS) for x in d])
        assert indices[k].tolist() == i
        np.testing.assert_allclose(weights[k], expected / expected.sum(), rtol=1e-9)


def test_a_point_on_a_centre_takes_nearly_all_from_it() -> None:
    centres = np.array([[0, 0, 0], [0.01, 0, 0], [0, 0.01, 0]])
    indices, weights = interpolation_weights(centres[:1], centres)
    assert indices[0, 0] == 0
    assert weights[0, 0] == pytest.approx(1 - 2e-4, abs=1e-6)  # 1e8 against twice 1e4


def test_groups_are_relative_to_their_centres() -> None:
    points = _cloud(200, 5)
    patches, centres = group_points(points, 16, 8)
    assert patches.shape == (16, 8, 3) and patches.dtype == np.float32
    np.testing.assert_array_equal(centres, points[farthest_point_sample(points, 16)])
    np.testing.assert_array_equal(patches[:, 0], 0)  # the nearest point of a centre is itself
    for patch, centre in zip(patches, centres, strict=True):
        _, i = _slow_neighbours(points.astype(float), centre.astype(float), 8)
        np.testing.assert_array_equal(patch, points[i] - centre)
