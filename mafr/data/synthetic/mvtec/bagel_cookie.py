"""Bagel and cookie: baked, so every one differs in shape, colour and texture."""

from __future__ import annotations

from functools import partial

import numpy as np

from mafr.data.synthetic.core import defects, sdf
from mafr.data.synthetic.core.noise import cells, fbm, noise, pick, smoothstep, waves
from mafr.data.synthetic.core.operations import Site
from mafr.data.synthetic.core.part import Part, Surface
from mafr.data.synthetic.core.render import Hits
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.mvtec.recipe import Recipe, between, mix, seeds, shrunk, stretched
from mafr.data.synthetic.mvtec.shared_defects import contamination, crumb, exposed, fissure, pit, with_combined


def bagel(rng: Rng) -> Part:
    """A ring of baked dough: uneven, flattened, brown crust, pale sides."""
    s = seeds(rng, 8)
    ring, tube, flat = rng.uniform(27, 31), rng.uniform(15.5, 18.0), rng.uniform(0.72, 0.86)
    oval = rng.uniform(0.93, 1.07)
    uneven, lumpy = rng.uniform(0.8, 2.2), rng.uniform(0.5, 1.1)
    dark, tone = rng.uniform(0.25, 0.8), rng.uniform(0.85, 1.12)
    blister = rng.uniform(0.0, 0.35)
    middle = tube * flat * rng.uniform(0.72, 0.85)

    def body(p: Array) -> Array:
        q = stretched(p, (oval, 1 / oval, 1))
        far = np.hypot(q[:, 0], q[:, 1])
        round_ = stretched(q, (1.1, 1.1, 0)) / np.maximum(far, 1e-3)[:, None]
        ring_here = ring + np.float32(uneven) * 0.7 * waves(round_, s[0], 3)
        tube_here = tube + np.float32(uneven) * waves(round_, s[1], 3)
        d = np.hypot(far - ring_here, (q[:, 2] - np.float32(middle)) / np.float32(flat)) - tube_here
        return d * np.float32(0.86) - lumpy * waves(p * np.float32(0.09), s[2], 4)

    def distance(p: Array) -> Array:
        return sdf.displace(body(p), p, 0.25, lambda r: noise(r * np.float32(0.55), s[3]))

    def surface(p: Array, n: Array) -> Surface:
        blotch = fbm(p * np.float32(0.07), s[4], 3)
        baked = smoothstep(-0.1, 0.9, n[:, 2] * 0.9 + 0.35 * blotch + (dark - 0.5) * 0.5)
        colour = mix((0.62, 0.40, 0.19), (0.36, 0.16, 0.055), baked)
        colour = mix(colour, (0.20, 0.075, 0.025), 0.6 * smoothstep(0.25, 0.9, blotch + dark * 0.4 - 0.2) * baked)
        f1, _, number = cells(p * np.float32(0.35), s[5])
        spot = (1 - smoothstep(0.12, 0.3, f1)) * (pick(number, s[6]) < blister)
        colour = mix(colour, (0.70, 0.48, 0.26), 0.6 * spot)
        colour *= (tone * (1 + 0.10 * noise(p * np.float32(0.9), s[7])))[:, None]
        return Surface(np.clip(colour, 0, 1), 0.06 + 0.10 * baked, 18.0, 0.12)

    wide = ring + tube + uneven * 2 + lumpy + 3
    return Part(distance, surface, [[-wide, -wide, 0], [wide, wide, 2 * tube * flat + 5]], 0.85, shrunk(body, 0.25))


def cookie(rng: Rng) -> Part:
    """A domed, craggy disc with chocolate chips."""
    s = seeds(rng, 9)
    radius, height = rng.uniform(29, 33.5), rng.uniform(12.5, 15.5)
    wavy, craggy = rng.uniform(0.8, 2.2), rng.uniform(0.9, 1.7)
    count = int(rng.integers(9, 17))
    turn, far = rng.uniform(0, 2 * np.pi, count), radius * 0.85 * np.sqrt(rng.uniform(0.01, 1, count))
    chips = np.stack([far * np.cos(turn), far * np.sin(turn)], axis=1).astype(np.float32)
    chip_size = rng.uniform(1.8, 3.4, count).astype(np.float32)
    baked, tone = rng.uniform(0.0, 0.7), rng.uniform(0.9, 1.1)

    # |p - chip|² / size² as a product of (x, y, x² + y², 1) with one column a chip: quick.
    columns = np.stack([-2 * chips[:, 0], -2 * chips[:, 1], np.ones(count), (chips**2).sum(1)]) / chip_size**2
    columns = columns.astype(np.float32)

    def chip(p: Array) -> Array:
        """1 in the middle of a chip, 0 from its rim outwards."""
        x, y = p[:, 0], p[:, 1]
        away = (np.stack([x, y, x * x + y * y, np.ones_like(x)], axis=1) @ columns).min(axis=1)
        return np.clip(1 - away / (1 + 0.35 * noise(p * np.float32(0.35), s[0])) ** 2, 0, 1)

    def body(p: Array) -> Array:
        far_ = np.hypot(p[:, 0], p[:, 1])
        round_ = np.stack([p[:, 0], p[:, 1], 0 * far_], axis=1) * np.float32(1.3) / np.maximum(far_, 1e-3)[:, None]
        rim = np.float32(radius) + np.float32(wavy) * waves(round_, s[1], 5)
        q = np.stack([far_ / rim, p[:, 2] / np.float32(height)], axis=1)
        # A squashed ball of exponent 2.5: flat on top, round at the rim.
        q = np.abs(q)
        q = q * q * np.sqrt(np.sqrt(q))  # the power 2.5, cheaply
        norm = (q[:, 0] + q[:, 1]) ** np.float32(0.4)
        return ((norm - 1) * np.float32(height * 0.92)).astype(np.float32)

    def crease(p: Array) -> Array:
        """1 along the cracks of the crust."""
        flat = stretched(p, (0.075, 0.075, 0.0))
        return smoothstep(0.72, 0.95, 1 - np.abs(noise(flat, s[3])))

    def crags(p: Array) -> Array:
        return 0.55 * fbm(p * np.float32(0.13), s[2], 3) - 0.45 * crease(p) + 0.5 * np.sqrt(chip(p))

    pattern = sdf.relief(crags, radius + 8, 0.4, height)

    def distance(p: Array) -> Array:
        return sdf.displace(body(p), p, craggy, pattern)

    def surface(p: Array, n: Array) -> Surface:
        far_ = np.hypot(p[:, 0], p[:, 1]) / np.float32(radius)
        blotch = fbm(p * np.float32(0.11), s[4], 3)
        brown = smoothstep(0.35, 1.1, far_ + 0.3 * blotch + 0.5 * (baked - 0.4))
        colour = mix((0.60, 0.37, 0.16), (0.33, 0.155, 0.055), brown)
        colour = mix(colour, (0.68, 0.46, 0.23), 0.35 * smoothstep(0.1, 0.9, crease(p)))
        colour *= (1 + 0.16 * noise(p * np.float32(0.8), s[5]))[:, None]
        dark = smoothstep(0.05, 0.3, chip(p)) * smoothstep(0.0, 0.4, n[:, 2])
        colour = mix(colour, (0.055, 0.024, 0.012), dark)
        return Surface(np.clip(colour * tone, 0, 1), 0.03 + 0.12 * dark, 20.0, 0.12)

    wide = radius + 2 * wavy + craggy + 2
    box = [[-wide, -wide, 0], [wide, wide, height + 2 * craggy + 1]]
    return Part(distance, surface, box, 0.7, shrunk(body, craggy))


def cookie_crack(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A fissure, or a piece of the rim broken off."""
    if rng.random() < 0.3:
        angle = rng.uniform(0, 2 * np.pi)
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        rim = out * (float(part.box[1][0]) - 4.0) + np.array([0, 0, 4.0])
        site = Site(rim.astype(np.float32), sdf.frame(out + np.array([0, 0, 0.2])))
        radius = between(6, 20, s)
        inside = exposed(part, site, rng, _COOKIE, s)
        return defects.bite(part, site, rng, radius, between(2.5, 12, s), inside, rough=0.12)
    return fissure(part, hits, rng, s, _COOKIE)


_CRUMB, _COOKIE = crumb((0.74, 0.60, 0.38), 101), crumb((0.60, 0.42, 0.21), 102, 0.7)

RECIPES = {
    "bagel": Recipe(
        bagel,
        with_combined(contamination=contamination, crack=partial(fissure, look=_CRUMB), hole=partial(pit, look=_CRUMB)),
        view=152, tilt=10,
    ),
    "cookie": Recipe(
        cookie, with_combined(contamination=contamination, crack=cookie_crack, hole=partial(pit, look=_COOKIE)),
        size=(500, 500), view=118, tilt=14, azimuth=200,
    ),
}  # fmt: skip
