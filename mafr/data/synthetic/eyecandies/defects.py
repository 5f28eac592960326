"""The four Eyecandies anomalies and their masks: bumps, dents, colors, normals, and several at once.

Bumps and dents move the surface, colours paint it, normals only turn the shading normals. A kind's mask is what that
kind changed, found by comparing renderings with and without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mafr.data.eyecandies import DEFECTS as KINDS
from mafr.data.synthetic.core import render as r
from mafr.data.synthetic.core.defects import scratch, stain
from mafr.data.synthetic.core.noise import fbm, smoothstep
from mafr.data.synthetic.core.operations import Site, pick_site, plain_look, push
from mafr.data.synthetic.core.part import Look, Part
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.core.truth import tidy
from mafr.data.synthetic.eyecandies import scene
from mafr.data.synthetic.eyecandies.candy import Candy, colour, draw_seed

_LEAST_DEPTH = 0.003  # belt units along the ray
_LEAST_COLOUR = 0.035  # gamma-corrected, of 1
_LEAST_ANGLE = 4.0  # degrees, averaged over a neighbourhood
_HUES = ((40, 90, 40), (90, 50, 20), (30, 30, 34), (70, 60, 140), (225, 215, 190), (190, 150, 30))
_STAINS = tuple(colour(*hue) for hue in _HUES)


@dataclass(frozen=True)
class Anomalous:
    """A candy rendered with anomalies, its grain included: the mask (H, W) bool of each kind, and the drawn values."""

    view: r.Rendering
    masks: dict[str, Array]
    params: list[dict[str, object]]


def smallest_mask(side: int) -> int:
    """Least number of pixels in a kind's mask at an image side: 12 at 200."""
    return max(3, round(12 * (side / 200) ** 2))


def _between(low: float, high: float, severity: float) -> float:
    """Geometric interpolation: `low` at severity 0, `high` at 1."""
    return float(low * (high / low) ** severity)


def _near(severity: float, spread: float, rng: Rng) -> float:
    """A severity drawn around another."""
    return float(np.clip(severity + rng.normal(0, spread), 0, 1))


def _moved(part: Part, site: Site, kind: str, severity: float, rng: Rng) -> tuple[Part, float, dict[str, object]]:
    """The part with a rounded, slightly irregular bump or dent, its reach, the drawn values."""
    radius = _between(0.065, 0.15, _near(severity, 0.2, rng))
    amount = min(_between(0.011, 0.07, severity), 0.6 * radius)
    stretch, seed = float(np.clip(np.exp(rng.normal(0, 0.12)), 0.85, 1.18)), draw_seed(rng)
    sign = 1.0 if kind == "bumps" else -1.0

    def field(p: Array) -> Array:
        out = np.zeros(len(p), np.float32)
        q = p - site.point
        near = np.einsum("ij,ij->i", q, q) < np.float32((1.35 * radius) ** 2)
        if near.any():
            w = site.local(p[near]) * np.array([stretch, 1 / stretch, 1], np.float32) / np.float32(radius)
            far = np.sqrt(np.einsum("ij,ij->i", w, w)) + np.float32(0.14) * fbm(w * np.float32(1.2), seed, 2)
            out[near] = np.float32(sign * amount) * np.clip(1 - np.maximum(far, 0) ** 2, 0, 1) ** 2
        return out

    drawn = {"kind": kind, "radius": round(radius, 4), "amount": round(sign * amount, 4)}
    return push(part, field, amount if sign > 0 else 0.0), 1.4 * radius, drawn


def _stained(part: Part, site: Site, severity: float, rng: Rng, base: Array) -> tuple[Part, dict[str, object]]:
    """The part with a stain, a spray of spots or a few streaks in a colour that differs from `base` (3,)."""
    strength = _between(0.22, 0.95, severity)
    contrast = np.array([np.abs(c ** (1 / 2.2) - base ** (1 / 2.2)).max() for c in _STAINS])
    shade = _STAINS[int(rng.choice(np.flatnonzero(contrast > 0.25)))]
    look = plain_look(shade, specular=0.06, shininess=20.0, wrap=0.1, mottle=0.15, scale=12.0, seed=draw_seed(rng))
    radius = _between(0.055, 0.15, _near(severity, 0.25, rng))
    form = ("blot", "spots", "streaks")[int(rng.choice(3, p=(0.6, 0.2, 0.2)))]
    if form == "streaks":
        painted = scratch(part, site, rng, 2.6 * radius, 0.25 * radius, look, strength, count=3)
    else:
        painted = stain(part, site, rng, radius * (1.3 if form == "spots" else 1), look, strength, 0.4, form == "spots")
    drawn = {"kind": "colors", "form": form, "radius": round(radius, 4), "strength": round(strength, 3)}
    return painted, drawn


def _creased(hits: r.Hits, site: Site, severity: float, rng: Rng) -> tuple[r.Hits, dict[str, object]]:
    """Normals turned within a patch, as if the surface were crumpled there."""
    radius = _between(0.075, 0.16, _near(severity, 0.25, rng))
    strength, length = _between(0.35, 1.5, severity), float(rng.uniform(0.022, 0.05))
    seed = draw_seed(rng)
    q = (hits.points - site.point)[hits.part]
    far = np.sqrt(np.einsum("ij,ij->i", q, q)) / np.float32(radius)
    far += np.float32(0.2) * fbm(q * np.float32(9), seed + 5, 2)
    where = hits.part.copy()
    where[hits.part] = far < 1
    weight = smoothstep(1.0, 0.7, far[far < 1])
    drawn = {"kind": "normals", "radius": round(radius, 4), "strength": round(strength, 3), "length": round(length, 4)}
    return scene.wrinkled(hits, strength * weight, length, seed, where), drawn


def add_anomalies(
    candy: Candy, clean: r.Hits, kinds: Sequence[str], severity: float, rng: Rng, belt: Look
) -> Anomalous | None:
    """A placed candy with one anomaly of each of `kinds`; None if one of them cannot be seen (draw again).

    clean: the candy's hits without grain. severity: 0 hardly visible to 1 obvious.
    """
    side = clean.camera.width
    least = smallest_mask(side)
    part, hits = candy.part, clean
    masks = {kind: np.zeros(clean.part.shape, bool) for kind in KINDS}
    params: list[dict[str, object]] = []

    def changed(kind: str, mask: Array, drawn: dict[str, object]) -> None:
        masks[kind] = tidy(mask, max(2, least // 4), fill=True)
        params.append(drawn)

    # Clear of the belt, which the cropping cuts off 0.02 above it.
    sites = {kind: pick_site(rng, clean, 5 * side / 200, 0.4, where=lambda p: p[:, 2] > 0.06) for kind in kinds}
    for kind in ("bumps", "dents"):
        if kind in kinds:
            part, reach, drawn = _moved(part, sites[kind], kind, severity, rng)
            before, hits = hits, scene.retrace(hits, part, sites[kind].point, reach)
            moved = np.abs(before.distance - hits.distance) > _LEAST_DEPTH
            changed(kind, (before.part | hits.part) & moved, drawn)
    look = r.look_of(hits, part.surface, belt)
    if "colors" in kinds:
        away = hits.points[hits.part] - sites["colors"].point
        nearest = np.flatnonzero(hits.part)[np.argmin(np.einsum("ij,ij->i", away, away))]
        part, drawn = _stained(part, sites["colors"], severity, rng, look.albedo[nearest])
        before, look = look, r.look_of(hits, part.surface, belt)
        tint = np.abs(look.albedo ** (1 / 2.2) - before.albedo ** (1 / 2.2)).max(axis=1).reshape(hits.part.shape)
        changed("colors", hits.part & (tint > _LEAST_COLOUR), drawn)
    hits = scene.grained(hits, candy)
    if "normals" in kinds:
        before = hits
        hits, drawn = _creased(hits, sites["normals"], severity, rng)
        angle = np.rad2deg(np.arccos(np.clip((before.normals * hits.normals).sum(-1), -1, 1)))
        angle = ndimage.gaussian_filter(np.where(hits.part, angle, 0), 0.9 * side / 200)
        changed("normals", hits.part & (angle > _LEAST_ANGLE), drawn)
    if any(masks[kind].sum() < least for kind in kinds):
        return None
    return Anomalous(r.Rendering(part, hits, look), masks, params)
