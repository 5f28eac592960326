"""The generator's quick loops give what numpy's plain ones give, to the last bit: generated data rest on it."""

from __future__ import annotations

import numpy as np
import pytest

from mafr.data.synthetic.core import noise, sdf
from mafr.data.synthetic.core.rows import row_dot, row_max, row_min, take, unit


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(params=["C", "F"])
def points(request: pytest.FixtureRequest) -> np.ndarray:
    """(N, 3) float32 in both layouts, with zeros of both signs."""
    values = np.random.default_rng(3).normal(0, 20, (5001, 3)).astype(np.float32)
    values[:7], values[7:20] = 0.0, -0.0
    return np.asarray(values, order=request.param)


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 7])
def test_rows_are_reduced_as_by_numpy(columns: int) -> None:
    rng = np.random.default_rng(columns)
    a, b = rng.standard_normal((2, 999, columns)).astype(np.float32)
    a[:5], a[5:9] = 0.0, -0.0
    assert same(row_dot(a, b), (a * b).sum(axis=1))
    assert same(row_max(a), a.max(axis=1))
    assert same(row_min(a), a.min(axis=1))
    image = a[:998].reshape(2, 499, columns)
    assert same(row_dot(image, image), (image * image).sum(axis=-1))


def test_rows_are_taken_by_numbers_and_by_mask(points: np.ndarray) -> None:
    mask = points[:, 0] > 1
    for where in (mask, np.flatnonzero(mask)):
        taken = take(points, where)
        assert same(np.ascontiguousarray(taken), np.ascontiguousarray(points[where]))
        assert taken.T.flags.c_contiguous


def test_unit_vectors_are_those_of_numpys_norm(points: np.ndarray) -> None:
    plain = points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    assert same(np.ascontiguousarray(unit(points)), np.ascontiguousarray(plain))


def test_turning_is_the_plain_product(points: np.ndarray) -> None:
    rotation = sdf.rotation((1, 2, 3), 0.7)
    assert same(np.ascontiguousarray(sdf.turn(points, rotation)), np.ascontiguousarray(points) @ rotation)


def test_waves_are_the_plain_sum_of_sines(points: np.ndarray) -> None:
    for count in (3, 4, 5):
        numbers, phases = noise._waves(7, count)
        plain = np.sin(points @ numbers.T + phases).sum(axis=1) / np.float32(np.sqrt(2.0 * count))
        assert same(noise.waves(points, 7, count), plain)


def test_noise_is_eight_look_ups_in_the_volume(points: np.ndarray) -> None:
    volume = noise._volume()[:, 0].reshape((noise._SIDE,) * 3)
    rotation, shift = noise._turn(5)
    places = rotation @ points.T + shift[:, None]
    floor = np.floor(places)
    fx, fy, fz = places - floor
    low = floor.astype(np.int64) % noise._SIDE
    high = (low + 1) % noise._SIDE

    def along_z(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        a = volume[x, y, low[2]]
        return a + fz * (volume[x, y, high[2]] - a)

    a, b = along_z(low[0], low[1]), along_z(low[0], high[1])
    c, d = along_z(high[0], low[1]), along_z(high[0], high[1])
    a, c = a + fy * (b - a), c + fy * (d - c)
    assert same(noise.noise(points, 5), a + fx * (c - a))
