"""RANSAC's compiled loops count and draw as whole arrays do: processed data rest on it."""

from __future__ import annotations

import numpy as np

from mafr.data.clean import loops


def test_near_points_are_counted_as_by_numpy() -> None:
    rng = np.random.default_rng(1)
    products, offsets = rng.normal(0, 0.01, (7, 5000)), rng.normal(0, 0.01, 7)
    products[:, :5] = 0.004 - offsets[:, None]  # at the border
    wanted = np.count_nonzero(np.abs(products + offsets[:, None]) < 0.004, axis=1)
    counted = np.empty(7, np.int64)
    loops.count_near(products, offsets, 0.004, counted)
    assert counted.tolist() == wanted.tolist()


def test_a_number_that_is_taken_is_replaced_by_the_last() -> None:
    rng = np.random.default_rng(2)
    chosen = rng.integers(0, 6, (200, 4))
    drawn = rng.integers(0, 6, 200)
    taken = (chosen[:, :3] == drawn[:, None]).any(axis=1)
    wanted = chosen.copy()
    wanted[:, 3] = np.where(taken, 9, drawn)
    loops.keep_different(chosen, drawn, 3, 9)
    assert 0 < taken.sum() < 200 and chosen.tolist() == wanted.tolist()
