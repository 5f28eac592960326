"""The four Eyecandies anomalies and their masks: bumps, dents, colors, normals, and several at once.

`spoil(placed, clean, kinds, severity, rng)` renders a candy again with anomalies. Bumps and dents move the surface,
colours paint it, normals only turn the shading normals. A kind's mask is what that kind changed, found by comparing
renders with and without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mafr.data.synthetic.core import render as r
from mafr.data.synthetic.core.alter import Site, paint_of, pick_site, push
from mafr.data.synthetic.core.defects import scratch, stain
from mafr.data.synthetic.core.noise import fbm, smoothstep
from mafr.data.synthetic.core.part import Part
from mafr.data.synthetic.eyecandies import scene
from mafr.data.synthetic.eyecandies.candies import Placed
from mafr.data.synthetic.eyecandies.candy import colour, number

Array = np.ndarray

KINDS = ("bumps", "dents", "colors", "normals")
_LEAST_DEPTH = 0.003  # belt units along the ray
_LEAST_COLOUR = 0.035  # gamma-corrected, of 1
_LEAST_ANGLE = 4.0  # degrees, averaged over a neighbourhood
_STAINS = tuple(
    colour(*c)
    for c in ((40, 90, 40), (90, 50, 20), (30, 30, 34), (70, 60, 140), (225, 215, 190), (190, 150, 30))
)


@dataclass(frozen=True)
class Spoilt:
    """A render with anomalies: part, hits with grain, look, the (H, W) bool mask of each kind, what was drawn."""

    part: Part
    hits: r.Hits
    look: r.Surface
    masks: dict[str, Array]
    params: list[dict[str, object]]


def smallest_mask(side: int) -> int:
    """Pixels that a kind's mask must at least have at an image side: 12 at 200."""
    return max(3, round(12 * (side / 200) ** 2))


def _between(low: float, high: float, severity: float) -> float:
    """Geometric interpolation: `low` at severity 0, `high` at 1."""
    return float(low * (high / low) ** severity)


def _moved(
    part: Part, site: Site, kind: str, severity: float, rng: np.random.Generator
) -> tuple[Part, float, dict[str, object]]:
    """The part with a rounded, slightly irregular bump or dent, how far it reaches, what was drawn."""
    radius = _between(0.065, 0.15, float(np.clip(severity + rng.normal(0, 0.2), 0, 1)))
    amount = min(_between(0.011, 0.07, severity), 0.6 * radius)
    stretch, seed = float(np.clip(np.exp(rng.normal(0, 0.12)), 0.85, 1.18)), number(rng)
    sign = 1.0 if kind == "bumps" else -1.0
    middle = site.point

    def field(p: Array) -> Array:
        out = np.zeros(len(p), np.float32)
        q = p - middle
        near = np.einsum("ij,ij->i", q, q) < np.float32((1.35 * radius) ** 2)
        if near.any():
            w = site.local(p[near]) * np.array([stretch, 1 / stretch, 1], np.float32) / np.float32(radius)
            far = np.sqrt(np.einsum("ij,ij->i", w, w)) + np.float32(0.14) * fbm(w * np.float32(1.2), seed, 2)
            out[near] = np.float32(sign * amount) * np.clip(1 - np.maximum(far, 0) ** 2, 0, 1) ** 2
        return out

    drawn = {"kind": kind, "radius": round(radius, 4), "amount": round(sign * amount, 4)}
    return push(part, field, amount if sign > 0 else 0.0), 1.4 * radius, drawn


def _stained(
    part: Part, site: Site, severity: float, rng: np.random.Generator, base: Array
) -> tuple[Part, dict[str, object]]:
    """The part with a stain, a spray of spots or a few streaks in a colour that differs from `base` (3,)."""
    strength = _between(0.22, 0.95, severity)
    contrast = np.array([np.abs(c ** (1 / 2.2) - base ** (1 / 2.2)).max() for c in _STAINS])
    shade = _STAINS[int(rng.choice(np.flatnonzero(contrast > 0.25)))]
    look = paint_of(shade, specular=0.06, shininess=20.0, wrap=0.1, mottle=0.15, scale=12.0, seed=number(rng))
    radius = _between(0.055, 0.15, float(np.clip(severity + rng.normal(0, 0.25), 0, 1)))
    form = ("blot", "spots", "streaks")[int(rng.choice(3, p=(0.6, 0.2, 0.2)))]
    if form == "streaks":
        spoilt = scratch(part, site, rng, 2.6 * radius, 0.25 * radius, look, strength, count=3)
    else:
        spoilt = stain(part, site, rng, radius * (1.3 if form == "spots" else 1), look, strength, 0.4, form == "spots")
    drawn = {"kind": "colors", "form": form, "radius": round(radius, 4), "strength": round(strength, 3)}
    return spoilt, drawn


def _creased(
    hits: r.Hits, site: Site, severity: float, rng: np.random.Generator
) -> tuple[r.Hits, dict[str, object]]:
    """Normals turned within a patch, as if the surface were crumpled there."""
    radius = _between(0.075, 0.16, float(np.clip(severity + rng.normal(0, 0.25), 0, 1)))
    strength, length = _between(0.35, 1.5, severity), float(rng.uniform(0.022, 0.05))
    seed = number(rng)
    q = (hits.points - site.point)[hits.part]
    far = np.sqrt(np.einsum("ij,ij->i", q, q)) / np.float32(radius)
    far += np.float32(0.2) * fbm(q * np.float32(9), seed + 5, 2)
    where = hits.part.copy()
    where[hits.part] = far < 1
    weight = smoothstep(1.0, 0.7, far[far < 1])
    drawn = {"kind": "normals", "radius": round(radius, 4), "strength": round(strength, 3), "length": round(length, 4)}
    return scene.wrinkled(hits, strength * weight, length, seed, where), drawn


def _tidy(mask: Array, least: int) -> Array:
    """Holes filled, specks dropped."""
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(mask, 2), np.ones((3, 3), bool)))[2:-2, 2:-2]
    names, _ = ndimage.label(closed, np.ones((3, 3), int))
    sizes = np.bincount(names.ravel())
    sizes[0] = 0
    return (sizes >= max(2, least // 4))[names]


def spoil(
    placed: Placed, clean: r.Hits, kinds: Sequence[str], severity: float, rng: np.random.Generator,
    belt: object = None,
) -> Spoilt | None:  # fmt: skip
    """A candy with one anomaly of each of `kinds`; None if one of them cannot be seen (draw again).

    clean: the candy's hits without grain. severity: 0 hardly visible to 1 obvious. belt: surface function of the belt.
    """
    side = clean.camera.width
    least = smallest_mask(side)
    part, hits = placed.part, clean
    masks = {kind: np.zeros(clean.part.shape, bool) for kind in KINDS}
    params: list[dict[str, object]] = []
    sites = {kind: _site(rng, clean, side) for kind in kinds}
    for kind in ("bumps", "dents"):
        if kind in kinds:
            part, reach, drawn = _moved(part, sites[kind], kind, severity, rng)
            before, hits = hits, scene.retrace(hits, part, sites[kind].point, reach)
            moved = (before.part | hits.part) & (np.abs(before.distance - hits.distance) > _LEAST_DEPTH)
            masks[kind] = _tidy(moved, least)
            params.append(drawn)
    shape_look = r.look_of(hits, part.surface, belt)
    look = shape_look
    if "colors" in kinds:
        base = shape_look.albedo[np.flatnonzero(hits.part)[_nearest(hits, sites["colors"].point)]]
        part, drawn = _stained(part, sites["colors"], severity, rng, base)
        look = r.look_of(hits, part.surface, belt)
        change = np.abs(look.albedo ** (1 / 2.2) - shape_look.albedo ** (1 / 2.2)).max(axis=1).reshape(hits.part.shape)
        masks["colors"] = _tidy(hits.part & (change > _LEAST_COLOUR), least)
        params.append(drawn)
    hits = scene.grained(hits, placed)
    if "normals" in kinds:
        before = hits
        hits, drawn = _creased(hits, sites["normals"], severity, rng)
        angle = np.rad2deg(np.arccos(np.clip((before.normals * hits.normals).sum(-1), -1, 1)))
        angle = ndimage.gaussian_filter(np.where(hits.part, angle, 0), 0.9 * side / 200)
        masks["normals"] = _tidy(hits.part & (angle > _LEAST_ANGLE), least)
        params.append(drawn)
    if any(masks[kind].sum() < least for kind in kinds):
        return None
    return Spoilt(part, hits, look, masks, params)


def _nearest(hits: r.Hits, point: Array) -> int:
    away = hits.points[hits.part] - point
    return int(np.argmin(np.einsum("ij,ij->i", away, away)))


def _site(rng: np.random.Generator, hits: r.Hits, side: int) -> Site:
    """A place that the camera sees well, clear of the belt, which the cropping cuts off 0.02 above it."""
    return pick_site(rng, hits, 5 * side / 200, facing=0.4, where=lambda p: p[:, 2] > 0.06)
