"""Plain parts made by hand: domes before a pinhole camera, with an obvious defect or none; and checks on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mafr.config import Config
from mafr.data.samples import Sample
from mafr.method import Method

SIDE = 64
FOCAL = 120.0  # pixels
FAR = 0.4  # metres, of the dome's rim


def config(**overrides: object) -> Config:
    """Settings of tiny runs on these parts."""
    base = {"image_size": SIDE, "grid": 16, "min_steps": 150}
    return Config.preset("smoke", overrides=base | overrides)


def dome(seed: int, defect: str = "good") -> Sample:
    """A dome of 2 cm on nothing; defects "colour" (a dark patch), "dent" (6 mm deep), "lump" (4 cm high)."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    middle = SIDE / 2 + rng.uniform(-0.5, 0.5, 2)
    radius = np.hypot(u - middle[0], v - middle[1])
    inside = radius < 22
    z = FAR - 0.02 * np.sqrt(np.clip(1 - (radius / 24) ** 2, 0, None)) + rng.normal(0, 1e-4, radius.shape)
    patch = (np.abs(u - SIDE / 2 - 6) < 5) & (np.abs(v - SIDE / 2 + 4) < 5)
    z = z + {"dent": 0.006, "lump": -0.04}.get(defect, 0) * patch
    xyz = np.stack([(u - SIDE / 2) / FOCAL * z, (v - SIDE / 2) / FOCAL * z, z]) * inside
    colour = np.array([0.75, 0.6, 0.35])[:, None, None] * (1 - 0.2 * (radius / 24) ** 2) * rng.uniform(0.97, 1.03)
    rgb = np.where(inside, colour, 0.2) + rng.normal(0, 0.01, (3, SIDE, SIDE))
    if defect == "colour":
        rgb = np.where(patch, np.array([0.1, 0.1, 0.4])[:, None, None], rgb)
    gt = (patch & inside)[None] & (defect != "good")
    return Sample(
        np.clip(rgb, 0, 1).astype(np.float32), xyz.astype(np.float32), gt, int(defect != "good"), defect, "dome",
        f"test/{defect}/{seed:03d}",
    )  # fmt: skip


def domes(count: int, first: int = 0) -> list[Sample]:
    """Good ones."""
    return [dome(first + k) for k in range(count)]


def check_solves(detector: Method, defects: Sequence[str]) -> None:
    """Every defective part scores above all good ones, and its map is highest at the defect."""
    good = [detector.predict(sample) for sample in domes(6, first=100)]
    for defect in defects:
        for seed in (200, 201):
            sample = dome(seed, defect)
            found = detector.predict(sample)
            assert found.score > max(p.score for p in good), (defect, found.score, [p.score for p in good])
            assert found.psi.shape == (SIDE, SIDE)
            place = np.argwhere(sample.gt[0])
            peak = np.unravel_index(found.psi.argmax(), found.psi.shape)
            assert np.abs(place - peak).max(axis=1).min() <= 4, (defect, peak)


def check_repeats(kind: type[Method], settings: Config, folder: Path) -> None:
    """The same seed gives the same bits, another seed or other samples do not; what is loaded predicts the same."""
    samples, probe = domes(5), dome(100)
    first = kind(settings).fit(samples, show=False)
    before = first.predict(probe)
    again = kind(settings).fit(samples, show=False).predict(probe)
    assert np.array_equal(before.psi, again.psi)
    assert before.score == again.score
    other = kind(settings).fit(domes(5, first=20), show=False).predict(probe)
    assert not np.array_equal(before.psi, other.psi)
    loaded = kind.load(first.save(folder))
    after = loaded.predict(probe)
    for name in ("psi_rgb", "psi_xyz", "psi"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert before.score == after.score
    assert loaded.nbytes() == first.nbytes() > 0
    if not np.array_equal(after.psi_rgb, after.psi):  # a part of its own, before the blur
        assert after.psi_rgb[~probe.valid[0]].max() == 0
