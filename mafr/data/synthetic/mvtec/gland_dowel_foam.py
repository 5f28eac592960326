"""Cable gland, dowel and foam: manufactured, so one resembles the next."""

from functools import partial

import numpy as np

from mafr.data.synthetic.core import defects, sdf
from mafr.data.synthetic.core.noise import cells, fbm, noise, pick, smoothstep, waves
from mafr.data.synthetic.core.operations import Site, carve, pick_site, plain_look, warp
from mafr.data.synthetic.core.part import Part, Surface
from mafr.data.synthetic.core.render import Hits
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.mvtec.recipe import DefectMaker, Recipe, between, mix, seeds, shrunk, stretched
from mafr.data.synthetic.mvtec.shared_defects import (
    contamination,
    cut_or_shave,
    exposed,
    puncture,
    pushed_aside,
    with_combined,
)


def _lying(p: Array, height: float, roll: float) -> Array:
    """Coordinates of a part of revolution lying along x: its axis is z, turned by roll about it."""
    y, z = p[:, 1], p[:, 2] - np.float32(height)
    c, s = np.float32(np.cos(roll)), np.float32(np.sin(roll))
    return np.stack([c * y + s * z, c * z - s * y, p[:, 0]], axis=1)


def cable_gland(rng: Rng) -> Part:
    """Grey plastic: a ribbed dome nut, a hexagonal flange and a threaded end, lying along x."""
    s = seeds(rng, 3)
    roll, height = rng.uniform(-np.pi, np.pi), 13.2
    tone, pitch = rng.uniform(0.92, 1.06), 2.6
    screwed = rng.uniform(-0.8, 0.8)  # how far the nut is screwed on

    def distance(p: Array) -> Array:
        q = _lying(p, height, roll)
        far, along = np.hypot(q[:, 0], q[:, 1]), q[:, 2]
        angle = np.arctan2(q[:, 1], q[:, 0])
        turns = along / np.float32(pitch) + angle / np.float32(2 * np.pi)
        groove = np.abs(np.mod(turns, 1) - 0.5) * 2  # 0 at the crest
        thread = np.maximum(far - (np.float32(9.9) - np.float32(1.2) * groove), np.abs(along - 14) - 10)
        sector = np.mod(angle + np.float32(np.pi / 6), np.float32(np.pi / 3)) - np.float32(np.pi / 6)
        flange = np.maximum(np.maximum(far * np.cos(sector) - 12.6, far - 13.4), np.abs(along - 1) - 3.6)
        rib = np.float32(0.45) * np.clip(np.cos(angle * 14) * 2.0, -1, 1) * smoothstep(-21, -17, along + screwed)
        nut_at = along + np.float32(13.5 + screwed)
        shell = np.hypot(np.maximum(far - 7.5, 0), np.maximum(np.abs(nut_at) - 4.5, 0)) - 5.0 - rib
        nut = np.maximum(shell, -(np.maximum(far - 6.3, nut_at - (-2))))
        neck = np.maximum(far - 10.6, np.abs(along + 4) - 4)
        return (np.minimum(np.minimum(thread, flange), np.minimum(nut, neck)) * np.float32(0.9)).astype(np.float32)

    def surface(p: Array, n: Array) -> Surface:
        grain = 1 + 0.03 * noise(p * np.float32(1.2), s[0]) + 0.03 * fbm(p * np.float32(0.08), s[1], 2)
        colour = np.float32([0.36, 0.37, 0.38]) * np.float32(tone) * grain[:, None]
        seal = (p[:, 0] < -11) & (np.hypot(p[:, 1], p[:, 2] - height) < 6.4)
        colour[seal] = (0.025, 0.025, 0.027)
        return Surface(colour, 0.22, 26.0, 0.05)

    return Part(distance, surface, [[-24.5, -14.5, 0], [25, 14.5, 27.5]], 0.8)


_PLASTIC = plain_look((0.42, 0.43, 0.44), 0.05, 10.0, 0.0, 0.08, 0.5, 201)


def gland_bent(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """The threaded end bent sideways by 4 to 24 degrees."""
    curvature = float(rng.choice([-1, 1])) * np.deg2rad(between(4, 24, s)) / 12.0
    return warp(part, partial(sdf.bend, curvature=curvature, start=6.0), part.grown((1, 9, 0)))


def gland_thread(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """Thread turns crushed flat, or filed away across."""
    site = pick_site(rng, hits, 3, 0.6, where=lambda p: p[:, 0] > 7, along=(1, 0, 0), spread=0.5)
    if rng.random() < 0.5:
        radii = (between(2.2, 6.5, s), between(1.8, 4.0, s), between(0.5, 1.1, s))
        return defects.lump(part, site, rng, radii, _PLASTIC, rough=0.15, sink=0.6)
    inside = exposed(part, site, rng, _PLASTIC, s)
    return defects.slot(part, site, between(5, 14, s), between(1.5, 4.0, s), between(0.9, 2.0, s), inside, 0.2)


def dowel(rng: Rng) -> Part:
    """A fluted wooden pin lying along x."""
    s = seeds(rng, 4)
    radius, half = 6.6 + rng.normal(0, 0.06), 28 + rng.normal(0, 0.25)
    roll, tone = rng.uniform(-np.pi, np.pi), rng.uniform(0.88, 1.1)
    pale = rng.uniform(0, 1)

    def distance(p: Array) -> Array:
        q = _lying(p, radius, roll)
        far, along = np.hypot(q[:, 0], q[:, 1]), np.abs(q[:, 2])
        flute = np.float32(0.32) * np.abs(np.sin(9 * np.arctan2(q[:, 1], q[:, 0])))
        side = far - (np.float32(radius) - np.float32(0.32) + flute)
        bevel = (far + along - np.float32(radius + half - 1.8)) * np.float32(0.7071)
        return np.maximum(np.maximum(side, along - np.float32(half)), bevel).astype(np.float32)

    def surface(p: Array, n: Array) -> Surface:
        q = _lying(p, radius, roll)
        grain = noise(stretched(q, (0.55, 0.55, 0.04)), s[0]) + 0.5 * noise(stretched(q, (1.3, 1.3, 0.09)), s[1])
        base = mix((0.56, 0.37, 0.19), (0.64, 0.46, 0.26), np.full(len(p), pale, np.float32))
        colour = mix(base, (0.38, 0.22, 0.095), np.clip(0.35 + 0.45 * grain, 0, 1))
        end = smoothstep(0.7, 0.9, np.abs(n[:, 0]))
        ring = 0.5 + 0.5 * np.sin(np.hypot(q[:, 0] + 9, q[:, 1]) * 3.0)
        colour = mix(colour, (0.40, 0.25, 0.12), end * (0.35 + 0.3 * ring))
        colour *= (tone * (1 + 0.05 * noise(p * np.float32(0.15), s[2])))[:, None]
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.04, 14.0, 0.08)

    return Part(distance, surface, [[-half - 1, -radius - 0.5, 0], [half + 1, radius + 0.5, 2 * radius + 0.5]], 0.9)


_WOOD = plain_look((0.66, 0.50, 0.29), 0.02, 8.0, 0.1, 0.25, 0.8, 202)


def dowel_bent(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """One end bent sideways by 3 to 20 degrees from somewhere along the length."""
    side, end = float(rng.choice([-1, 1])), float(rng.choice([-1, 1]))
    curvature = side * np.deg2rad(between(3, 20, s)) / 8.0
    start = rng.uniform(2, 12)

    def mapping(p: Array) -> Array:
        q = p * np.float32([end, 1, 1])
        # An arc 8 mm long, then straight on.
        bent = sdf.bend(q, curvature, start)
        past = bent[:, 0] > start + 8
        angle = np.float32(8 * curvature)
        c, z = np.cos(angle), np.sin(angle)
        knee = np.float32([start + np.sin(angle) / curvature, (1 - np.cos(angle)) / curvature])
        straight = q[:, :2] - knee
        x = start + 8 + c * straight[:, 0] + z * straight[:, 1]
        y = c * straight[:, 1] - z * straight[:, 0]
        bent[past, 0], bent[past, 1] = x[past], y[past]
        return bent * np.float32([end, 1, 1])

    return warp(part, mapping, part.grown((1, 10, 0)))


def dowel_cut(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A saw cut, a shaving, or an end broken off."""
    kind = rng.random()
    site = pick_site(rng, hits, 4, 0.6)
    if kind < 0.75:
        inside = exposed(part, site, rng, _WOOD, s)
        if kind < 0.4:
            return defects.slot(part, site, between(5, 15, s), between(0.8, 2.2, s), between(0.9, 4.0, s), inside)
        return defects.slice_off(part, site, rng, between(0.3, 2.2, s), rng.normal(0, 0.15), inside, rough=0.15)
    end = float(rng.choice([-1, 1]))
    place = np.float32([end * (28 - between(1.5, 9, s)), 0, 6])
    chip = Site(place, sdf.frame((end, rng.normal(0, 0.4), rng.normal(0, 0.4))))
    inside = exposed(part, site, rng, _WOOD, s)

    def gone(p: Array) -> Array:
        return -chip.local(p)[:, 2] + 0.6 * fbm(p * np.float32(0.6), 7, 2)

    return carve(part, gone, inside, 0.2, 0.3)


def foam(rng: Rng) -> Part:
    """A cut block of pale porous foam with a waist, slightly skewed."""
    s = seeds(rng, 5)
    size = 1 + rng.normal(0, 0.012)
    outline = size * np.array(
        [[-34, -23], [-10, -23], [-4, -15], [6, -15], [12, -23], [34, -23], [34, 23], [12, 23], [4, 17], [-6, 17],
         [-14, 23], [-34, 23]], float)  # fmt: skip
    outline += rng.normal(0, 0.35, outline.shape)
    height, skew = 24 + rng.normal(0, 0.5), rng.normal(0, 0.02, 2)
    tone, yellow, soft = rng.uniform(0.93, 1.05), rng.uniform(0, 0.5), rng.uniform(0.2, 0.5)

    def body(p: Array) -> Array:
        q = p.copy()
        q[:, 0] += np.float32(skew[0]) * p[:, 2]
        q[:, 1] += np.float32(skew[1]) * p[:, 2]
        q[:, 2] -= np.float32(height / 2)
        d = sdf.prism(q, outline * 0.955, height / 2, 1.6).astype(np.float32)
        return d * np.float32(0.9) - np.float32(0.45 * soft) * waves(p * np.float32(0.06), s[0], 4)

    def distance(p: Array) -> Array:
        return sdf.displace(
            body(p), p, 0.5, lambda r: -smoothstep(0.2, 0.6, noise(r * np.float32(0.55), s[1])).astype(np.float32)
        )

    def surface(p: Array, n: Array) -> Surface:
        base = mix((0.66, 0.66, 0.64), (0.68, 0.64, 0.50), np.full(len(p), yellow, np.float32))
        f1, f2, number = cells(p * np.float32(0.45), s[2])
        wall = 1 - smoothstep(0.0, 0.16, f2 - f1)
        tint = 1 + 0.10 * (pick(number, s[3]) - 0.5) + 0.06 * wall + 0.04 * fbm(p * np.float32(0.07), s[4], 2)
        pore = smoothstep(0.2, 0.6, noise(p * np.float32(0.55), s[1]))
        colour = base * (tone * tint * (1 - 0.22 * pore))[:, None]
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.01, 8.0, 0.25)

    return Part(distance, surface, [[-38, -27, 0], [38, 27, height + 3]], 0.8, shrunk(body, 0.4))


_FOAM = plain_look((0.62, 0.61, 0.55), 0.0, 8.0, 0.25, 0.15, 0.7, 203)
_PAINTS = ((0.10, 0.22, 0.55), (0.55, 0.10, 0.08), (0.12, 0.40, 0.16), (0.62, 0.50, 0.08), (0.06, 0.06, 0.07))


def foam_color(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """Paint soaked in: a blotch, a spray of spots or pen strokes. Colour only."""
    site = pick_site(rng, hits, 6)
    paint = _PAINTS[rng.integers(len(_PAINTS))]
    look = plain_look(paint, 0.01, 8.0, 0.2, 0.15, 0.4, int(rng.integers(1 << 31)))
    if rng.random() < 0.3:
        length, width = between(10, 34, s), between(1.2, 2.4, s)
        return defects.scratch(part, site, rng, length, width, look, between(0.22, 0.9, s), 2)
    return defects.stain(
        part, site, rng, between(3, 12, s), look, between(0.14, 0.9, s), between(0.3, 0.7, s), spots=rng.random() < 0.3
    )


def foam_cut(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A knife cut, a corner sliced or a piece torn out."""
    kind = rng.random()
    if kind < 0.45:
        site = pick_site(rng, hits, 6)
        inside = exposed(part, site, rng, _FOAM, s)
        lean = rng.uniform(-0.4, 0.4)
        return defects.slot(part, site, between(9, 30, s), between(1.0, 3.0, s), between(1.5, 9, s), inside, lean)
    if kind < 0.7:
        corner = np.float32([rng.choice([-1, 1]) * 33.0, rng.choice([-1, 1]) * 22.0, 23.0])
        site = Site(corner, sdf.frame((np.sign(corner[0]), np.sign(corner[1]), rng.uniform(0.6, 1.2))))
        inside = exposed(part, site, rng, _FOAM, s)
        return defects.slice_off(part, site, rng, between(1.5, 9.0, s), 0.0, inside, rough=0.2)
    site = pick_site(rng, hits, 5)
    inside = exposed(part, site, rng, _FOAM, s)
    return defects.bite(part, site, rng, between(3.0, 9.0, s), between(1.3, 6.0, s), inside, rough=0.22)


_GLAND = {
    "bent": gland_bent,
    "cut": partial(cut_or_shave, look=_PLASTIC, facing=0.6, shave=0.4, thickness=(0.3, 2.0), length=(6, 18),
                   width=(0.8, 2.0), depth=(1.0, 4.0)),
    "hole": partial(puncture, look=_PLASTIC, facing=0.6, radius=(0.9, 2.8), depth=(1.0, 6.0), ragged=0.1),
    "thread": gland_thread,
}  # fmt: skip


def _dowels(bent: DefectMaker) -> dict[str, DefectMaker]:
    return with_combined(contamination=partial(contamination, scale=0.6, margin=3), cut=dowel_cut, bent=bent)


RECIPES = {
    "cable_gland": Recipe(
        cable_gland, _GLAND,
        size=(400, 400), view=82, tilt=5, distance=380, spin=4, shift=1.5, azimuth=110,
        second={"spin": 180, "view": 88, "defects": {**_GLAND, "bent": partial(pushed_aside, facing=0.5)}},
    ),
    "dowel": Recipe(
        dowel, _dowels(dowel_bent),
        size=(400, 400), view=86, tilt=4, distance=380, spin=4, shift=1.5, azimuth=70, warmth=1.05,
        second={"spin": 12, "defects": _dowels(partial(pushed_aside, facing=0.5))},
    ),
    "foam": Recipe(
        foam, with_combined(contamination=contamination, color=foam_color, cut=foam_cut),
        size=(900, 900), view=122, tilt=12, spin=8, shift=3, azimuth=150, lamp=0.85,
    ),
}  # fmt: skip
