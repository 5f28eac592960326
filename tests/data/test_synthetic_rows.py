"""The generator's quick loops give what numpy's plain ones give, to the last bit: generated data rest on it."""

from __future__ import annotations

import numpy as np
import pytest

from mafr.data.synthetic.core import loops, noise, render, sdf
from mafr.data.synthetic.core.rows import row_dot, row_max, take, unit


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


def test_the_distance_to_a_polygon_is_that_to_its_nearest_edge(points: np.ndarray) -> None:
    corners = np.array([(-20, -15), (0, -4), (22, -15), (22, 12), (-20, 12)], np.float32)
    x, y = points[:, 0], points[:, 1]
    best, inside = np.full(len(x), np.inf, np.float32), np.zeros(len(x), bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        h = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (wx - h * ex) ** 2 + (wy - h * ey) ** 2)
        if ey != 0:
            inside ^= ((ay > y) != (by > y)) & (wx < ex * (wy / ey))
    assert 0 < inside.sum() < len(x)
    assert same(sdf.polygon(x, y, corners), np.where(inside, -1, 1).astype(np.float32) * np.sqrt(best))


@pytest.fixture
def rays() -> dict[str, np.ndarray]:
    """2,000 rays: origin and d (N, 3) with some zeros, distance, t and end (N,)."""
    rng = np.random.default_rng(4)
    origin, d = (rng.normal(0, 1, (2000, 3)).astype(np.float32) for _ in range(2))
    d[:50, 0], d[50:90, 2] = 0.0, -0.0
    distance, t, end = (rng.uniform(low, 1, 2000).astype(np.float32) for low in (-0.2, 0.01, 0.5))
    return {"origin": origin, "d": unit(d), "distance": distance, "t": t, "end": end}


def test_rays_enter_and_leave_a_box_as_by_rows(rays: dict[str, np.ndarray]) -> None:
    box = np.array([(-1, -0.5, 0), (1, 0.5, 0.8)], np.float32)
    for origin in (rays["origin"], rays["origin"][0]):
        safe = np.where(np.abs(rays["d"]) < 1e-9, np.float32(1e-9), rays["d"])
        a, b = (box[0] - origin) / safe, (box[1] - origin) / safe
        enter, leave = render.box_ends(origin, rays["d"], box)
        assert same(enter, np.maximum(np.minimum(a, b).max(axis=1), 0))
        assert same(leave, np.maximum(a, b).min(axis=1))


def test_one_step_of_rays_is_that_of_whole_arrays(rays: dict[str, np.ndarray]) -> None:
    eps, step = np.float32(0.05), np.float32(0.8)
    distance, t, end, d = (rays[name] for name in ("distance", "t", "end", "d"))
    active, found = np.arange(0, 4000, 2), np.full(4000, np.inf, np.float32)
    hit = distance < eps
    wanted = found.copy()
    wanted[active[hit]] = t[hit]
    far = t + np.maximum(distance, eps / 2) * step
    stay = ~hit & (far < end)
    parts = t.copy(), end.copy(), np.asfortranarray(d), active.copy()
    left = loops.advance(distance, eps, eps / 2, step, *parts[:2], parts[2].T, parts[3], found)
    assert 0 < left < len(t) and same(found, wanted)
    for part, kept in zip(parts, (far[stay], end[stay], d[stay], active[stay]), strict=True):
        assert same(np.ascontiguousarray(part[:left]), kept)


def test_one_step_of_shadow_rays_is_that_of_whole_arrays(rays: dict[str, np.ndarray]) -> None:
    softness, least, dark = np.float32([3.0, 0.1, 0.02])
    distance, t, end, d, origin = (rays[name] for name in ("distance", "t", "end", "d", "origin"))
    active, light = np.arange(0, 4000, 2), np.full(4000, 0.7, np.float32)
    wanted = light.copy()
    wanted[active] = np.minimum(wanted[active], np.clip(softness * distance / t, 0, 1))
    far = t + np.maximum(distance, least)
    stay = (far < end) & (wanted[active] > dark)
    parts = t.copy(), end.copy(), np.asfortranarray(origin), np.asfortranarray(d), active.copy()
    left = loops.darken(distance, softness, least, dark, *parts[:2], parts[2].T, parts[3].T, parts[4], light)
    assert 0 < left < len(t) and same(light, wanted)
    for part, kept in zip(parts, (far[stay], end[stay], origin[stay], d[stay], active[stay]), strict=True):
        assert same(np.ascontiguousarray(part[:left]), kept)
    assert same(render.along(origin, t, np.asfortranarray(d)), origin + t[:, None] * d)
