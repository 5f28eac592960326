"""Bagel, carrot, cookie, peach and potato: baked or grown, so every one differs in shape, colour and texture."""

from functools import partial

import numpy as np

from mafr.data.synthetic.core import defects, sdf
from mafr.data.synthetic.core.noise import cells, fbm, noise, pick, smoothstep, waves
from mafr.data.synthetic.core.operations import Site, carve, pick_site, plain_look
from mafr.data.synthetic.core.part import Look, Part, Surface
from mafr.data.synthetic.core.render import Hits
from mafr.data.synthetic.core.rows import Array, Rng, unit
from mafr.data.synthetic.mvtec.recipe import Recipe, between, mix, seeds, shrunk, stretched
from mafr.data.synthetic.mvtec.shared_defects import contamination, exposed, fissure, knife_cut, pit, with_combined


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


def carrot(rng: Rng) -> Part:
    """A tapered root lying along x, bent a little, with rings and a green-brown crown."""
    s = seeds(rng, 8)
    length, thick = rng.uniform(82, 100), rng.uniform(11.5, 14.5)
    tip, power = rng.uniform(0.16, 0.34), rng.uniform(0.7, 1.5)
    curve, wiggle = rng.normal(0, 0.0011), rng.uniform(0.3, 1.2)
    rings = rng.uniform(0.25, 0.6)
    tone, green = rng.uniform(0.9, 1.1), rng.uniform(0, 0.8)
    half = length / 2

    def axis(x: Array) -> tuple[Array, Array]:
        """Radius and sideways offset along the root."""
        u = np.clip((x + half) / length, 0, 1)
        radius = thick * (tip + (1 - tip) * (1 - u**power) ** 0.8) * (1 - 0.12 * np.exp(-((u / 0.05) ** 2)))
        return radius, np.float32(curve) * x * x + np.float32(wiggle) * np.sin(u * 7 + s[0] % 6)

    def distance(p: Array) -> Array:
        radius, side = axis(p[:, 0])
        d = np.hypot(p[:, 1] - side, p[:, 2] - radius) - radius
        over = np.maximum(np.abs(p[:, 0]) - (half - 3), 0)
        d = np.where(over > 0, np.hypot(np.maximum(d + 3, 0), over) - 3 + np.minimum(d + 3, 0), d)

        def pattern(r: Array) -> Array:
            line = stretched(r, (0.42, 0.05, 0.05))
            return 0.5 * waves(r * np.float32(0.09), s[1], 4) - 0.5 * smoothstep(0.25, 0.6, noise(line, s[2]))

        return sdf.displace(d.astype(np.float32) * np.float32(0.88), p, 1.1 * rings + 0.25, pattern)

    def surface(p: Array, n: Array) -> Surface:
        u = (p[:, 0] + half) / length
        colour = mix((0.72, 0.21, 0.025), (0.80, 0.33, 0.05), smoothstep(-0.5, 0.7, fbm(p * np.float32(0.06), s[3], 3)))
        lines = smoothstep(0.3, 0.55, noise(stretched(p, (0.9, 0.10, 0.10)), s[4]))
        colour = mix(colour, (0.34, 0.11, 0.03), 0.45 * lines)
        crown = 1 - smoothstep(0.02, 0.10, u + 0.04 * noise(p * np.float32(0.25), s[5]))
        colour = mix(colour, (0.16 + 0.08 * green, 0.17, 0.04), crown * (0.35 + 0.6 * green))
        core = (1 - smoothstep(0.006, 0.03, u)) * smoothstep(0.3, 0.9, -n[:, 0])
        colour = mix(colour, (0.22, 0.16, 0.06), core)
        dirt = smoothstep(0.35, 0.8, fbm(p * np.float32(0.15), s[6], 3))
        colour = mix(colour, (0.22, 0.12, 0.05), 0.35 * dirt)
        return Surface(np.clip(colour * tone, 0, 1), 0.12, 22.0, 0.18)

    wide = thick + abs(curve) * half**2 + wiggle + 3
    return Part(distance, surface, [[-half - 1, -wide, 0], [half + 1, wide, 2 * thick + 3]], 0.85)


def carrot_cut(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A knife cut, a slice off the side, or the tip cut off square."""
    if rng.random() >= 0.25:
        return knife_cut(part, hits, rng, s, _CARROT, 0.8)
    end = float(part.box[1][0])
    site = Site(np.float32([end - between(6, 30, s), 0, 5]), sdf.frame((1.0, rng.normal(0, 0.2), 0.1)))
    return carve(part, lambda p: -(site.local(p)[:, 2]), _CARROT, 0.3, 0.3)


def peach(rng: Rng) -> Part:
    """A ball with a cleft and a stem hollow, yellow to red, downy."""
    s = seeds(rng, 7)
    radius = rng.uniform(28.5, 33.0)
    squash = rng.uniform(0.94, 1.04, 3)
    turn = sdf.rotation("z", rng.uniform(0, 2 * np.pi)) @ sdf.rotation("x", rng.uniform(0.15, 1.35))
    cleft, hollow = rng.uniform(0.8, 2.0), rng.uniform(3.0, 5.5)
    blush, tone = rng.uniform(-0.25, 0.35), rng.uniform(0.92, 1.08)
    uneven = rng.uniform(0.4, 1.1)
    centre = np.float32([0, 0, radius * rng.uniform(0.93, 0.98)])
    red_side = unit(rng.standard_normal(3))

    def own(p: Array) -> Array:
        """Peach coordinates: z out of the stem hollow, the cleft in the half plane y = 0, x > 0."""
        return (p - centre) @ turn

    def distance(p: Array) -> Array:
        q = own(p)
        far = np.sqrt(np.einsum("ij,ij->i", q, q))
        d = sdf.ellipsoid(q, radius * squash)
        x, y, z = (q / np.maximum(far, 1e-3)[:, None]).T
        groove = np.exp(-((y / 0.075) ** 2)) * smoothstep(-0.35, 0.35, x) * smoothstep(-0.95, -0.5, z)
        dip = np.exp(-((1 - z) / 0.045))
        d = d + np.float32(cleft) * groove + np.float32(hollow) * dip
        return (d - np.float32(uneven) * waves(p * np.float32(0.06), s[0], 4)) * np.float32(0.85)

    def surface(p: Array, n: Array) -> Surface:
        q = own(p) / np.float32(radius)
        red = smoothstep(-0.3, 0.75, q @ red_side + 0.5 * fbm(p * np.float32(0.05), s[1], 3) + blush)
        colour = mix((0.80, 0.47, 0.13), (0.52, 0.085, 0.045), red)
        streak = fbm(stretched(q, (7, 7, 1.5)), s[2], 2)
        colour = mix(colour, (0.42, 0.05, 0.04), 0.4 * red * smoothstep(0.0, 0.8, streak))
        speck = smoothstep(0.45, 0.7, noise(p * np.float32(0.6), s[3]))
        colour = mix(colour, (0.86, 0.58, 0.25), 0.35 * speck)
        stem = np.exp(-((1 - q[:, 2] / np.linalg.norm(q, axis=1)) / 0.012))
        colour = mix(colour, (0.16, 0.10, 0.035), np.clip(1.5 * stem, 0, 1))
        colour *= (1 + 0.05 * noise(p * np.float32(1.1), s[4]))[:, None]
        return Surface(np.clip(colour * tone, 0, 1), 0.02, 8.0, 0.3)

    wide = radius * 1.06 + uneven + 1
    return Part(distance, surface, [[-wide, -wide, 0], [wide, wide, centre[2] + wide]], 0.9)


def squeeze(part: Part, hits: Hits, rng: Rng, s: float) -> Part:
    """A pressed spot: a hollow 4 to 10 mm wide, 0.8 to 4.5 mm deep, bruised brown the more the deeper it is."""
    site = pick_site(rng, hits, 9)
    radius = between(4, 10, s)
    out = defects.dent(part, site, radius, between(0.8, 4.5, s), rng.uniform(0.8, 1.25))
    bruise = plain_look((0.26, 0.11, 0.035), 0.03, 10.0, 0.2, 0.2, 0.2, int(rng.integers(1 << 31)))
    return defects.stain(out, site, rng, radius * 0.75, bruise, between(0.0, 0.75, s), 0.4, soft=0.6)


def potato(rng: Rng) -> Part:
    """A lumpy tuber with eyes, brown skin, some earth."""
    s = seeds(rng, 8)
    radii = np.array([rng.uniform(34, 43), rng.uniform(26, 31), rng.uniform(20, 25)])
    lumpy, bow = rng.uniform(1.2, 2.8), rng.normal(0, 0.003)
    count = int(rng.integers(5, 10))
    eyes = rng.standard_normal((count, 3))
    eyes[:, 2] = np.abs(eyes[:, 2]) - 0.2
    eyes = (eyes / np.linalg.norm(eyes, axis=1, keepdims=True)).astype(np.float32)
    deep = rng.uniform(0.5, 1.3, count).astype(np.float32)
    centre = np.float32([0, 0, radii[2] * 0.95])
    red, tone, earthy = rng.uniform(0, 0.4), rng.uniform(0.85, 1.15), rng.uniform(0.0, 0.5)

    def eye(p: Array) -> Array:
        q = (p - centre) / radii.astype(np.float32)
        q /= np.maximum(np.sqrt(np.einsum("ij,ij->i", q, q)), 1e-3)[:, None]
        # A Gaussian of the angle (chord² = 2 - 2 cos) about 2 mm wide; one exp for all, depths inside it.
        return np.exp((np.float32(370.0) * (q @ eyes.T - 1) + np.log(deep)).max(axis=1))

    def body(p: Array) -> Array:
        q = p - centre
        q[:, 1] -= np.float32(bow) * q[:, 0] ** 2
        return (sdf.ellipsoid(q, radii) - np.float32(lumpy) * waves(p * np.float32(0.05), s[0], 5)) * np.float32(0.85)

    def distance(p: Array) -> Array:
        return sdf.displace(
            body(p), p, 1.6, lambda r: (0.25 * noise(r * np.float32(0.3), s[1]) - 1.3 * eye(r)) / np.float32(1.6)
        )

    def surface(p: Array, n: Array) -> Surface:
        blotch = fbm(p * np.float32(0.07), s[2], 3)
        colour = mix((0.50, 0.33, 0.15), (0.36, 0.21, 0.085), smoothstep(-0.5, 0.7, blotch))
        colour = mix(colour, (0.42, 0.16, 0.11), np.full(len(p), red, np.float32))
        f1, _, number = cells(p * np.float32(0.28), s[3])
        colour = mix(colour, (0.24, 0.13, 0.055), 0.55 * (1 - smoothstep(0.10, 0.22, f1)) * (pick(number, s[4]) < 0.6))
        colour = mix(colour, (0.22, 0.12, 0.06), 0.6 * np.clip(eye(p), 0, 1))
        scurf = smoothstep(0.3, 0.6, fbm(p * np.float32(0.2), s[5], 3))
        colour = mix(colour, (0.55, 0.40, 0.22), 0.3 * scurf)
        colour = mix(colour, (0.14, 0.085, 0.045), earthy * smoothstep(0.1, 0.6, fbm(p * np.float32(0.12), s[6], 3)))
        colour *= (1 + 0.07 * noise(p * np.float32(0.9), s[7]))[:, None]
        return Surface(np.clip(colour * tone, 0, 1), 0.04, 12.0, 0.1)

    wide = radii + lumpy * 1.6 + 2 + abs(bow) * radii[0] ** 2
    box = [[-wide[0], -wide[1], 0], [wide[0], wide[1], radii[2] * 1.95 + lumpy * 1.6 + 2]]
    return Part(distance, surface, box, 0.9, shrunk(body, 0.3))


def _crumb(colour: tuple[float, float, float], seed: int, size: float = 0.9) -> Look:
    """The inside of baked things: pale, porous."""
    colour = np.asarray(colour, np.float32)

    def look(p: Array, n: Array) -> Surface:
        pores = smoothstep(0.15, 0.5, noise(p * np.float32(size), seed))
        tone = 1 + 0.12 * fbm(p * np.float32(0.3), seed + 1, 2) - 0.4 * pores
        return Surface(np.clip(colour * tone[:, None], 0, 1), 0.0, 10.0, 0.25)

    return look


_CRUMB, _COOKIE = _crumb((0.74, 0.60, 0.38), 101), _crumb((0.60, 0.42, 0.21), 102, 0.7)
_CARROT = plain_look((0.86, 0.42, 0.09), 0.10, 20.0, 0.2, 0.12, 0.6, 103)
_PEACH = plain_look((0.86, 0.62, 0.24), 0.15, 25.0, 0.3, 0.10, 0.4, 104)
_POTATO = plain_look((0.78, 0.68, 0.40), 0.08, 20.0, 0.2, 0.06, 0.5, 105)

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
    "carrot": Recipe(
        carrot,
        with_combined(
            contamination=partial(contamination, scale=0.8), crack=partial(fissure, look=_CARROT, scale=0.75),
            cut=carrot_cut, hole=partial(pit, look=_CARROT, scale=0.75),
        ),
        view=142, tilt=6, azimuth=60, shift=3,
    ),
    "peach": Recipe(
        peach,
        with_combined(
            contamination=contamination, cut=partial(knife_cut, look=_PEACH), hole=partial(pit, look=_PEACH),
            squeeze=squeeze,
        ),
        size=(600, 600), view=124, tilt=9, azimuth=20, elevation=55,
    ),
    "potato": Recipe(
        potato,
        with_combined(
            contamination=contamination, cut=partial(knife_cut, look=_POTATO), hole=partial(pit, look=_POTATO)
        ),
        view=140, tilt=12, azimuth=310,
    ),
}  # fmt: skip
