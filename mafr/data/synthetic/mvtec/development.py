"""The development categories: other shapes and materials than the data sets', for choices that no test set may make.

A biscuit, a bolt, a sheet metal bracket, a plug of two plastics and a walnut.
"""

from functools import partial

import numpy as np

from mafr.data.synthetic.core import defects, sdf
from mafr.data.synthetic.core.noise import fbm, noise, smoothstep, waves
from mafr.data.synthetic.core.operations import Site, carve, pick_site, plain_look
from mafr.data.synthetic.core.part import Part, Surface
from mafr.data.synthetic.core.render import Hits
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.mvtec.recipe import Recipe, between, mix, seeds, stretched
from mafr.data.synthetic.mvtec.shared_defects import (
    contamination,
    cut_or_shave,
    exposed,
    fissure,
    knife_cut,
    pit,
    puncture,
)


def biscuit(rng: Rng) -> Part:
    """A rectangular baked slab with a toothed rim and a grid of pricked holes."""
    s = seeds(rng, 4)
    long, wide, high = rng.uniform(25, 27), rng.uniform(17.5, 19), rng.uniform(6.0, 7.2)
    warped, baked, tone = rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.8), rng.uniform(0.9, 1.1)

    def distance(p: Array) -> Array:
        q = p.copy()
        q[:, 2] -= np.float32(high / 2) + np.float32(warped) * waves(stretched(p, (0.05, 0.05, 0)), s[0], 3)
        tooth = np.float32(0.7) * np.abs(np.sin(q[:, 0] * np.float32(0.9)) * np.sin(q[:, 1] * np.float32(0.9)))
        d = sdf.box(q, (long, wide, high / 2), 1.6) + tooth * (np.abs(q[:, 2]) < high / 2)
        x = np.mod(q[:, 0] + 50, 10) - 5
        y = np.mod(q[:, 1] + 45, 9) - np.float32(4.5)
        prick = np.maximum(np.hypot(x, y) - np.float32(0.9), np.float32(high / 2 - 1.8) - q[:, 2])
        return (np.maximum(d, -prick) * np.float32(0.8)).astype(np.float32)

    def surface(p: Array, n: Array) -> Surface:
        blotch = fbm(p * np.float32(0.09), s[1], 3)
        edge = np.maximum(np.abs(p[:, 0]) / np.float32(long), np.abs(p[:, 1]) / np.float32(wide))
        brown = smoothstep(0.55, 1.15, edge + 0.3 * blotch + 0.4 * (baked - 0.5))
        colour = mix((0.66, 0.45, 0.21), (0.38, 0.19, 0.07), brown)
        colour *= (tone * (1 + 0.08 * noise(p * np.float32(0.9), s[2])))[:, None]
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.03, 12.0, 0.15)

    return Part(distance, surface, [[-long - 1, -wide - 1, 0], [long + 1, wide + 1, high + 2]], 0.8)


def bolt(rng: Rng) -> Part:
    """A steel bolt lying on its side: a hexagonal head, a shank and a thread."""
    s = seeds(rng, 2)
    roll, tone, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.9, 1.1), 9.2

    def turned(p: Array) -> tuple[Array, Array, Array]:
        y, z = p[:, 1], p[:, 2] - np.float32(height)
        return np.hypot(y, z), np.arctan2(z, y) + np.float32(roll), p[:, 0]

    def distance(p: Array) -> Array:
        far, angle, along = turned(p)
        sector = np.mod(angle, np.float32(np.pi / 3)) - np.float32(np.pi / 6)
        bevel = far + np.abs(along + 20) - np.float32(13.2)
        head = np.maximum(np.maximum(far * np.cos(sector) - 9.0, np.abs(along + 20) - 3.5), bevel * np.float32(0.7))
        shank = np.maximum(far - 5.4, np.abs(along + 8) - 9)
        groove = np.abs(np.mod(along / np.float32(1.6) + angle / np.float32(2 * np.pi), 1) - 0.5) * 2
        thread = np.maximum(far - (np.float32(5.6) - np.float32(0.8) * groove), np.abs(along - 11) - 11)
        return (np.minimum(np.minimum(head, shank), thread) * np.float32(0.85)).astype(np.float32)

    def surface(p: Array, n: Array) -> Surface:
        brushed = noise(stretched(p, (0.15, 1.6, 1.6)), s[0])
        colour = np.float32([0.40, 0.40, 0.42]) * np.float32(tone) * (1 + 0.06 * brushed)[:, None]
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.55, 34.0, 0.0)

    return Part(distance, surface, [[-24.5, -11, 0], [23, 11, 19.5]], 0.8)


def bracket(rng: Rng) -> Part:
    """An angle of painted sheet metal standing on its two edges like a roof, two holes in each leg."""
    s = seeds(rng, 2)
    long, leg = 23 + rng.normal(0, 0.15), 25 + rng.normal(0, 0.15)
    lean, tone = np.deg2rad(45 + rng.normal(0, 0.6)), rng.uniform(0.94, 1.06)
    c, z = np.float32(np.cos(lean)), np.float32(np.sin(lean))
    top = np.float32(leg * z + 1.2)

    def distance(p: Array) -> Array:
        y, down = np.abs(p[:, 1]), top - p[:, 2]
        along, off = c * y + z * down, z * y - c * down  # along the leg from the ridge, and off its plane
        leg_at = np.stack([p[:, 0], along - np.float32(leg / 2), off], axis=1)
        plate = sdf.box(leg_at, (long, leg / 2 + 1, 1.1), 0.5)
        hole = np.hypot(np.abs(p[:, 0]) - np.float32(12), along - np.float32(14)) - np.float32(3.0)
        return (np.maximum(plate, -hole) * np.float32(0.85)).astype(np.float32)

    def surface(p: Array, n: Array) -> Surface:
        peel = 1 + 0.03 * noise(p * np.float32(1.4), s[0]) + 0.02 * fbm(p * np.float32(0.1), s[1], 2)
        colour = np.float32([0.55, 0.24, 0.04]) * np.float32(tone) * peel[:, None]
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.18, 40.0, 0.0)

    wide = leg * float(c) + 2.5
    return Part(distance, surface, [[-long - 1, -wide, 0], [long + 1, wide, float(top) + 1.5]], 0.8)


def plug(rng: Rng) -> Part:
    """A plug lying flat: a dark ribbed grip, a pale front with three pins."""
    s = seeds(rng, 3)
    tone, gap = rng.uniform(0.9, 1.1), rng.normal(0, 0.2)

    def distance(p: Array) -> Array:
        q = p - np.float32([0, 0, 8])
        rib = np.float32(0.6) * np.clip(np.cos(q[:, 0] * np.float32(1.7)) * 2, -1, 1) * (np.abs(q[:, 2]) < 7.5)
        grip = sdf.box(q - np.float32([-9, 0, 0]), (13, 11, 7.4), 3.0) - rib * smoothstep(-21, -18, q[:, 0])
        front = sdf.box(q - np.float32([9 + gap, 0, 0]), (6, 9.5, 6.4), 1.0)
        pins = np.full(len(p), 1e3, np.float32)
        for y in (-6, 0, 6):
            pins = np.minimum(pins, sdf.capsule(q, (13, y, 0), (24, y, 0), 1.5))
        return (np.minimum(np.minimum(grip, front), pins) * np.float32(0.8)).astype(np.float32)

    def surface(p: Array, n: Array) -> Surface:
        x = p[:, 0]
        grain = 1 + 0.05 * noise(p * np.float32(1.5), s[0]) + 0.03 * fbm(p * np.float32(0.1), s[1], 2)
        colour = mix((0.075, 0.08, 0.09), (0.55, 0.54, 0.50), smoothstep(3.3 + gap, 3.5 + gap, x))
        pin = smoothstep(15.0 + gap, 15.2 + gap, x)
        colour = mix(colour, (0.50, 0.40, 0.16), pin) * (tone * grain)[:, None]
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.10 + 0.35 * pin, 24.0, 0.03)

    return Part(distance, surface, [[-23.5, -12.5, 0], [26, 12.5, 16.8]], 0.75)


def walnut(rng: Rng) -> Part:
    """A nut in its shell: a furrowed egg with a seam."""
    s = seeds(rng, 5)
    radii = np.array([rng.uniform(19, 22), rng.uniform(16, 17.5), rng.uniform(15.5, 17)])
    deep, tone, dark = rng.uniform(0.7, 1.3), rng.uniform(0.88, 1.12), rng.uniform(0.2, 0.7)
    centre = np.float32([0, 0, radii[2] * 0.97])
    tilt = sdf.rotation("x", rng.normal(0, 0.35))

    def furrow(p: Array) -> Array:
        return 1 - np.abs(noise(stretched(p @ tilt, (0.10, 0.20, 0.20)), s[0]))

    def distance(p: Array) -> Array:
        d = sdf.ellipsoid(p - centre, radii) * np.float32(0.9)
        seam = np.exp(-(((p - centre) @ tilt)[:, 1] ** 2) / np.float32(1.6))
        pattern = smoothstep(0.7, 0.98, furrow(p)) - np.float32(0.9) * seam
        return (d + np.float32(deep) * np.clip(pattern, -1, 1) * (np.abs(d) < 4)).astype(np.float32) * np.float32(0.85)

    def surface(p: Array, n: Array) -> Surface:
        line = smoothstep(0.6, 0.97, furrow(p))
        colour = mix((0.52, 0.36, 0.19), (0.25, 0.14, 0.06), np.clip(dark * line + 0.3 * fbm(p * 0.1, s[1], 3), 0, 1))
        colour *= (tone * (1 + 0.08 * noise(p * np.float32(0.9), s[2])))[:, None]
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.04, 14.0, 0.1)

    wide = radii + 2.5
    return Part(distance, surface, [[-wide[0], -wide[1], 0], [wide[0], wide[1], 2 * radii[2] + 2.5]], 0.75)


def dented(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A hollow 2 to 6 mm wide and 0.5 to 2 mm deep, the colour unchanged."""
    return defects.dent(part, pick_site(rng, hits, 5), between(2, 6, s), between(0.5, 2.0, s), rng.uniform(0.8, 1.25))


def stained(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A blotch of another colour 2 to 9 mm wide, the shape unchanged."""
    look = plain_look(rng.uniform(0.02, 0.6, 3), 0.03, 12.0, 0.1, 0.15, 0.4, int(rng.integers(1 << 31)))
    return defects.stain(part, pick_site(rng, hits, 5), rng, between(2, 9, s), look, between(0.25, 0.9, s))


def scratched(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """Two thin lines 5 to 18 mm long."""
    look = plain_look((0.75, 0.74, 0.72), 0.3, 30.0, 0.0, 0.1, 0.5, int(rng.integers(1 << 31)))
    site = pick_site(rng, hits, 4)
    return defects.scratch(part, site, rng, between(5, 18, s), between(1.2, 2.4, s), look, between(0.3, 0.9, s), 2)


def broken(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A piece of 4 to 14 mm broken off the rim."""
    _, high = np.asarray(part.box, np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    out = np.array([np.cos(angle), np.sin(angle), 0.0])
    reach = np.min(np.where(np.abs(out[:2]) > 1e-6, high[:2] / np.maximum(np.abs(out[:2]), 1e-6), 1e9))
    place = np.append(out[:2] * (reach - 1.5), high[2] / 2).astype(np.float32)
    site = Site(place, sdf.frame(out + np.array([0, 0, 0.3])))
    return defects.bite(part, site, rng, between(4, 14, s), between(2.5, 7, s), exposed(part, site, rng, _DOUGH, s))


def pin_bent(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """The pins cut shorter by 2 to 9 mm on one side."""
    end = np.float32([25.5 - between(2, 9, s), rng.choice([-6, 6]), 8])
    site = Site(end, sdf.frame((1.0, 0.0, 0.0)))

    def gone(p: Array) -> Array:
        q = site.local(p)
        return np.maximum(-q[:, 2], np.abs(p[:, 1] - end[1]) - 3)

    return carve(part, gone, None, 0.1, 0.1)


_DOUGH = plain_look((0.72, 0.56, 0.32), 0.0, 10.0, 0.2, 0.25, 0.8, 301)
_STEEL = plain_look((0.52, 0.52, 0.54), 0.45, 30.0, 0.0, 0.1, 0.6, 302)
_TIN = plain_look((0.46, 0.46, 0.47), 0.40, 30.0, 0.0, 0.1, 0.6, 303)
_PLASTIC = plain_look((0.30, 0.30, 0.31), 0.05, 10.0, 0.0, 0.1, 0.6, 304)
_KERNEL = plain_look((0.70, 0.55, 0.33), 0.02, 10.0, 0.2, 0.2, 0.6, 305)
_small = partial(contamination, scale=0.7, margin=4)

RECIPES = {
    "biscuit": Recipe(
        biscuit,
        {"contamination": contamination, "crack": partial(fissure, look=_DOUGH), "broken": broken, "stain": stained},
        size=(500, 500), view=112, second={"spin": 25},
    ),
    "bolt": Recipe(
        bolt,
        {"dent": dented, "scratch": scratched,
         "cut": partial(cut_or_shave, look=_STEEL, facing=0.5, shave=0.4, thickness=(0.4, 2.2), length=(5, 16),
                        width=(0.9, 2.2), depth=(1.0, 4.0))},
        size=(400, 400), view=86, second={"spin": 180},
    ),
    "bracket": Recipe(
        bracket,
        {"scratch": scratched, "stain": stained, "dent": dented,
         "hole": partial(puncture, look=_TIN, facing=0.5, radius=(1.0, 3.0), depth=(1.0, 5.0), ragged=0.1)},
        size=(400, 400), view=104, second={"spin": 30},
    ),
    "plug": Recipe(
        plug, {"contamination": _small, "cut": partial(knife_cut, look=_PLASTIC, scale=0.6), "pin": pin_bent},
        size=(400, 400), view=96, second={"spin": 180},
    ),
    "walnut": Recipe(
        walnut,
        {"contamination": _small, "crack": partial(fissure, look=_KERNEL, scale=0.7),
         "hole": partial(pit, look=_KERNEL, scale=0.7)},
        size=(600, 600), view=88, second={"spin": 180},
    ),
}  # fmt: skip
