"""The page's fast interpolation, blurs and sorting equal plain ones, written here, for random maps of any shape."""

from collections.abc import Iterator
from itertools import cycle

import numpy as np
import pytest
from scipy import ndimage
from support.browser import browser

from mafr.config import FUSIONS
from mafr.page.files import read

JOINS = {"product": np.multiply, "sum": np.add, "max": np.maximum, "rgb": lambda a, b: a, "xyz": lambda a, b: b}
BLURS = [("gaussian", 0.5), ("gaussian", 1.3), ("gaussian", 4.69), ("gaussian", 12.0), ("box", 1.0), (None, 1.0)]
SIDES = [(5, 2), (13, 13), (30, 7), (31, 8), (64, 8)]  # of pixels and cells


@pytest.fixture(scope="module")
def script() -> Iterator[object]:
    """A function that runs a script with the page's `scoring` and some arguments."""
    with browser() as driver:
        driver.execute_script(read("scoring.js") + "window.scoring = scoring;")
        yield driver.execute_script


def masks(side: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Masks of all kinds: across the whole image, at its borders, inside, and of no pixel."""
    made = {name: np.zeros((side, side), bool) for name in ("all", "top left", "bottom right", "inside", "one", "none")}
    part = max(1, side // 3)
    made["all"][:] = True
    made["top left"][:part, : part + 1] = True
    made["bottom right"][-part:, -part - 1 :] = rng.random((part, part + 1)) < 0.7
    made["inside"][part : 2 * part, part : 2 * part + 1] = rng.random((part, min(part + 1, side - part))) < 0.7
    made["one"][side // 2, side - 2] = True
    return made


def interpolated(cells: np.ndarray, valid: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Cells at pixels, from the four around each, as far as they are valid."""
    side, grid = len(mask), len(cells)
    pixels = np.zeros((side, side))
    for v, u in np.argwhere(mask):
        y, x = (max(0.0, (k + 0.5) * grid / side - 0.5) for k in (v, u))
        total = weight = 0.0
        for row, down in ((int(y), 1 - y % 1), (min(int(y) + 1, grid - 1), y % 1)):
            for column, right in ((int(x), 1 - x % 1), (min(int(x) + 1, grid - 1), x % 1)):
                total += down * right * valid[row, column] * cells[row, column]
                weight += down * right * valid[row, column]
        pixels[v, u] = total / weight if weight else 0
    return pixels


def blurred(fused: np.ndarray, how: str | None, sigma: float) -> np.ndarray:
    """One pass after the other over the whole image, zeros beyond it."""
    reach = max(1, int(np.ceil(4 * sigma)))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernels = {"gaussian": [weights / weights.sum()], "box": [np.full(n, 1 / n) for n in (5,) * 5 + (7,) * 3]}
    for axis in (0, 1):
        for kernel in kernels.get(how, []):
            fused = ndimage.correlate1d(fused, kernel, axis=axis, mode="constant")
    return fused


@pytest.mark.parametrize(("side", "grid"), SIDES)
def test_maps_and_scores_equal_those_of_plain_steps(script, side, grid):
    rng, fusions = np.random.default_rng(side), cycle(FUSIONS)
    assert set(FUSIONS) == set(JOINS)
    cases, wanted = [], []
    for name, mask in masks(side, rng).items():
        for how, sigma in BLURS:
            fusion, valid = next(fusions), rng.random((grid, grid)) < 0.8
            cells = rng.gamma(2.0, 1.0, (2, grid, grid)) * valid
            residuals = [interpolated(one, valid, mask) for one in cells]
            psi = blurred(JOINS[fusion](*residuals), how, sigma)
            wanted.append((f"{name}, {fusion}, {how} {sigma}", residuals, psi))
            arrays = {"rgb": cells[0], "xyz": cells[1], "mask": mask.astype(int), "valid": valid.astype(int)}
            settings = {"fusion": fusion, "blur": how, "sigma": sigma}
            cases.append({key: one.ravel().tolist() for key, one in arrays.items()} | {"settings": settings})
    found = script("""
        const [side, grid, cases] = arguments;
        return cases.map(({rgb, xyz, mask, valid, settings}) => {
          const box = scoring.boxOf(mask, side);
          const residuals = [rgb, xyz].map((cells) => scoring.upsample(cells, valid, grid, mask, side, box));
          const map = scoring.finalMap(...residuals, settings, side, box);
          const scores = ["max", "max-over-root-mean"].map((how) => scoring.imageScore(map, how));
          return [residuals.map((one) => [...one]), [...map], scores];
        });""", side, grid, cases)
    for (case, residuals, psi), (ours, map_, scores) in zip(wanted, found, strict=True):
        np.testing.assert_allclose(ours, [one.ravel() for one in residuals], rtol=1e-5, err_msg=case)
        np.testing.assert_allclose(map_, psi.ravel(), rtol=1e-5, atol=1e-12, err_msg=case)
        above = psi[psi > 0]
        mean = above.mean() if above.size else 1.0
        np.testing.assert_allclose(scores, [psi.max(), psi.max() / np.sqrt(mean)], rtol=1e-5, err_msg=case)


def test_values_are_sorted_and_quantiles_are_those_of_numpy(script):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(5, 400)).astype("float32")
    maps[0, :80] = np.float32([0, 1, -1, 1e-38, 1e30, -1e30, 3.5, 3.5]).repeat(10)  # ties, and both ends of the scale
    inside = rng.random(maps.shape) < 0.6
    inside[0, :80], inside[1] = True, False  # a map without any
    shares = [0, 1e-4, 0.01, 0.3, 0.5, 0.99, 1 - 1e-4, 1]
    values, quantiles, none = script("""
        const [maps, masks, shares] = arguments;
        const values = scoring.sorted(maps.map((one, k) => scoring.within(Float32Array.from(one), masks[k])));
        const none = scoring.sorted([]);
        return [[...values], shares.map((share) => scoring.quantile(values, share)), none.length];
        """, maps.tolist(), inside.astype(int).tolist(), shares)
    assert np.array_equal(np.float32(values), np.sort(maps[inside]))
    np.testing.assert_allclose(quantiles, np.quantile(maps[inside].astype(float), shares), rtol=1e-6)
    assert none == 0
