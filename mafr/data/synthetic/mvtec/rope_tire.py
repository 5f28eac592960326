"""Rope and tire: manufactured, so one resembles the next."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from mafr.data.synthetic.core import defects, sdf
from mafr.data.synthetic.core.noise import fbm, noise, smoothstep
from mafr.data.synthetic.core.operations import pick_site, plain_look
from mafr.data.synthetic.core.part import Part, Surface
from mafr.data.synthetic.core.render import Hits
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.mvtec.recipe import Recipe, between, mix, seeds, stretched
from mafr.data.synthetic.mvtec.shared_defects import contamination, cut_or_shave, exposed, puncture, with_combined


@dataclass(frozen=True)
class Rope(Part):
    """A rope that remembers how it was laid, so that it can be opened."""

    lay: tuple = ()


_STRAND, _LAY_RADIUS, _ROPE_HALF = 4.4, 4.7, 58.0


def _laid(lay: tuple, opened: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> Rope:
    """Three twisted strands along x. opened: (where, half length, by how much) the strands part."""
    phase, pitch, bow, sway, tone, noises = lay
    where, width, apart = opened
    height = _STRAND + _LAY_RADIUS * 0.92

    def turned(x: Array) -> Array:
        return np.float32(2 * np.pi / pitch) * x + phase

    def strands(p: Array) -> tuple[Array, Array]:
        """Distance to the nearest strand's centre line and which strand it is."""
        x = p[:, 0]
        middle = np.float32(bow) * x * x / 100 + np.float32(sway) * np.sin(x / 19 + phase)
        gap = np.float32(apart) * np.exp(-(((x - where) / width) ** 2))
        y, z = p[:, 1] - middle, p[:, 2] - np.float32(height)
        out = np.full(len(p), np.inf, np.float32)
        which = np.zeros(len(p), np.int8)
        radius, angle = np.float32(_LAY_RADIUS), turned(x)
        for k in range(3):
            a = angle + np.float32(k * 2 * np.pi / 3)
            cy, cz = radius * np.cos(a), radius * np.sin(a)
            d = np.hypot(y - cy - gap * (k - 1), z - cz)
            which[d < out] = k
            out = np.minimum(out, d)
        return out, which

    def distance(p: Array) -> Array:
        d = strands(p)[0] - np.float32(_STRAND)
        d = np.maximum(d, np.abs(p[:, 0]) - np.float32(_ROPE_HALF)) * np.float32(0.85)

        def pattern(r: Array) -> Array:
            # Yarns run against the strands' twist.
            a = turned(r[:, 0])
            y = r[:, 1] + r[:, 0] * np.float32(0.25)
            q = np.stack([r[:, 0] * np.float32(0.12), y, r[:, 2] + 2 * np.cos(a)], axis=1)
            return noise(stretched(q, (1.0, 0.55, 0.55)), noises[0])

        return sdf.displace(d.astype(np.float32), p, 0.35, pattern)

    def surface(p: Array, n: Array) -> Surface:
        _, which = strands(p)
        yarn = stretched(p, (0.35, 1.0, 1.0))
        yarn[:, 1] += p[:, 0] * np.float32(0.35)
        tint = 1 + 0.20 * noise(yarn, noises[1]) + 0.12 * noise(stretched(yarn, (0.8, 1.7, 1.7)), noises[2])
        colour = np.float32([0.60, 0.50, 0.34]) * (tone * tint)[:, None]
        tracer = (which == 0) & (noise(stretched(yarn, (0.25, 0.5, 0.5)), noises[3]) > 0.18)
        colour[tracer] = colour[tracer] * np.float32([0.35, 0.55, 1.1])
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.03, 10.0, 0.15)

    wide = _LAY_RADIUS + _STRAND + abs(bow) * _ROPE_HALF**2 / 100 + abs(sway) + apart + 2
    box = np.float32([[-_ROPE_HALF - 1, -wide, 0], [_ROPE_HALF + 1, wide, 2 * height + 1]])
    return Rope(distance, surface, box, 0.8, lay=lay)


def rope(rng: Rng) -> Part:
    """A laid rope of three strands, nearly straight."""
    noises = tuple(seeds(rng, 4))
    phase, pitch, bow = rng.uniform(0, 2 * np.pi), rng.uniform(44, 48), rng.normal(0, 0.06)
    return _laid((phase, pitch, bow, rng.uniform(0, 0.8), np.float32(rng.uniform(0.9, 1.1)), noises))


_HEMP = plain_look((0.66, 0.57, 0.40), 0.02, 8.0, 0.2, 0.3, 1.0, 204)


def rope_cut(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A strand cut into, more or less across."""
    site = pick_site(rng, hits, 5, 0.55, along=(0, 1, 0), spread=0.5)
    inside = exposed(part, site, rng, _HEMP, s)
    return defects.slot(part, site, between(6, 17, s), between(1.2, 3.4, s), between(1.4, 6.0, s), inside)


def rope_open(part: Rope, hits: Hits, rng: Rng, s: float) -> Part:
    """The strands parted over some length."""
    return _laid(part.lay, (rng.uniform(-38, 38), between(5, 11, s), between(0.9, 4.6, s)))


def tire(rng: Rng) -> Part:
    """A small black rubber tire lying flat: tread blocks, a ridge and raised marks on the side wall."""
    s = seeds(rng, 4)
    start = rng.uniform(0, 2 * np.pi)
    tone, dust = rng.uniform(0.9, 1.12), rng.uniform(0.0, 0.35)
    outer, inner, high = 30.0, 16.5, 22.0
    blocks = 26
    marks = np.random.default_rng(5).random(40) < 0.55  # the moulded marks are the same on every tire

    def parts(p: Array) -> tuple[Array, Array, Array]:
        angle = np.arctan2(p[:, 1], p[:, 0]) + np.float32(start)
        return np.hypot(p[:, 0], p[:, 1]), angle, p[:, 2] - np.float32(high / 2)

    def distance(p: Array) -> Array:
        far, angle, z = parts(p)
        q = np.stack([far - np.float32((outer + inner) / 2), z], axis=1)
        half = np.float32([(outer - inner) / 2, high / 2]) - 4.5
        e = np.abs(q) - half
        d = np.hypot(np.maximum(e[:, 0], 0), np.maximum(e[:, 1], 0)) + np.minimum(e.max(axis=1), 0) - 4.5
        near = np.abs(d) < 3
        if near.any():
            f, a, h = far[near], angle[near], z[near]
            # Chevron tread: grooves across, slanting away from a groove around the middle.
            across = np.abs(np.mod(a * np.float32(blocks / (2 * np.pi)) + np.abs(h) * np.float32(0.045), 1) - 0.5)
            cut = np.maximum(1 - smoothstep(0.08, 0.17, across), 1 - smoothstep(0.5, 1.1, np.abs(h)))
            tread = smoothstep(outer - 3.5, outer - 2.0, f)
            d[near] += np.float32(1.5) * cut * tread
            wall = smoothstep(high / 2 - 2.0, high / 2 - 1.0, h) * (1 - tread)
            ridge = np.exp(-(((f - 19.2) / 0.7) ** 2))
            place = (np.mod(a, np.float32(2 * np.pi)) * (39.9 / (2 * np.pi))).astype(int)
            letter = marks[place] & (np.abs(f - 23.2) < 1.6)
            d[near] -= wall * (np.float32(0.7) * ridge + np.float32(0.55) * letter)
        return (d * np.float32(0.85)).astype(np.float32)

    def surface(p: Array, n: Array) -> Surface:
        worn = fbm(p * np.float32(0.09), s[0], 3)
        tint = tone * (1 + 0.12 * worn + 0.08 * noise(p * np.float32(0.9), s[1]))
        colour = np.float32([0.036, 0.037, 0.040]) * tint[:, None]
        colour = mix(colour, (0.11, 0.10, 0.09), dust * smoothstep(0.1, 0.8, fbm(p * np.float32(0.14), s[2], 3)))
        return Surface(np.clip(colour, 0, 1).astype(np.float32), 0.10, 12.0, 0.05)

    return Part(distance, surface, [[-outer - 1, -outer - 1, 0], [outer + 1, outer + 1, high + 1.5]], 0.8)


_RUBBER = plain_look((0.050, 0.050, 0.053), 0.03, 10.0, 0.0, 0.2, 0.6, 205)
_small = partial(contamination, scale=0.7, margin=4)

RECIPES = {
    "rope": Recipe(
        rope, {"contamination": _small, "cut": rope_cut, "open": rope_open},
        size=(900, 400), view=152, tilt=7, spin=2.5, shift=2, azimuth=80, elevation=55,
    ),
    "tire": Recipe(
        tire,
        with_combined(
            contamination=_small,
            cut=partial(cut_or_shave, look=_RUBBER, facing=0.5, shave=0.35, thickness=(0.3, 2.6), length=(7, 20),
                        width=(1.0, 2.6), depth=(1.3, 5.0), rough=0.2),
            hole=partial(puncture, look=_RUBBER, facing=0.5, radius=(1.1, 3.2), depth=(1.2, 7.0), ragged=0.12),
        ),
        size=(600, 800), view=112, tilt=28, spin=6, shift=2, azimuth=240, lamp=1.7, ambient=0.7,
        table=(0.10, 0.10, 0.105), second={"exposure": 6.0, "table": (0.02, 0.02, 0.021)},
        defect_codes={"cut": 255, "hole": 254, "contamination": 253, "combined": 255},
    ),
}  # fmt: skip
