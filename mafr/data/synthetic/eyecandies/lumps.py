"""Rounded candies: chocolate praline, sugared almond, gummy bear, hazelnut truffle."""

import numpy as np

from mafr.data.synthetic.core import sdf as s
from mafr.data.synthetic.core.noise import cells, fbm, noise, pick, smoothstep, waves
from mafr.data.synthetic.core.part import Part, Surface
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.eyecandies.candy import Candy, colour, draw_seed, embossed, mix, rounded, tinted


def chocolate_praline(rng: Rng) -> Candy:
    """A moulded chocolate: a fluted foot, a dome, and a drizzle of lighter chocolate."""
    low, high = rng.uniform(0.40, 0.43), rng.uniform(0.31, 0.34)
    foot, dome = rng.uniform(0.17, 0.20), rng.uniform(0.13, 0.17)
    flutes = 14
    lines, slant = rng.uniform(3.2, 3.8), rng.uniform(0, 2 * np.pi)
    wave = rng.uniform(0.3, 0.9)
    brown, light = tinted(rng, colour(92, 50, 28)), tinted(rng, colour(206, 164, 116))
    seed = draw_seed(rng)
    across = np.array([np.cos(slant), np.sin(slant)], np.float32)
    along = np.array([-across[1], across[0]], np.float32)

    def drizzle(p: Array) -> Array:
        """1 on the middle of a drizzled line, falling to 0 between the lines; only on top."""
        u, v = p[:, :2] @ across, p[:, :2] @ along
        u = u + np.float32(0.03 * wave) * np.sin(v * 9 + np.float32(seed % 7)) + 0.02 * noise(p * np.float32(4), seed)
        line = 0.5 + 0.5 * np.cos(np.float32(2 * np.pi * lines) * u)
        inside = smoothstep(high + 0.02, high - 0.06, np.hypot(p[:, 0], p[:, 1]))
        return smoothstep(0.62, 0.95, line) * inside * (p[:, 2] > foot)

    def distance(p: Array) -> Array:
        body = s.cone(s.move(p, (0, 0, foot / 2)), low, high, foot / 2, 0.02)
        cap = s.ellipsoid(s.move(p, (0, 0, foot)), (high * 0.98, high * 0.98, dome))
        d = s.smooth_union(body, cap, 0.04)

        def relief(q: Array) -> Array:
            angle = np.arctan2(q[:, 1], q[:, 0])
            side = smoothstep(foot + 0.01, foot - 0.04, q[:, 2])
            return np.clip(0.75 * side * np.cos(flutes * angle) + 0.7 * drizzle(q), -1, 1)

        return embossed(d, p, 0.018, relief)

    def surface(p: Array, normals: Array) -> Surface:
        paint = smoothstep(0.1, 0.35, drizzle(p))
        bloom = 1 + 0.06 * fbm(p * np.float32(6), seed + 1)
        albedo = mix(brown, light, paint) * bloom[:, None]
        return Surface(albedo, specular=0.26 - 0.08 * paint, shininess=32.0, wrap=0.1)

    box = np.array([(-low - 0.025,) * 2 + (-0.005,), (low + 0.025,) * 2 + (foot + dome + 0.025,)], np.float32)
    params = rounded(foot_radius=low, top_radius=high, height=foot + dome, drizzle_slant=slant)
    return Candy(Part(distance, surface, box, 0.75), (0.03, 0.06), seed, params, tilt=1.0)


def confetto(rng: Rng) -> Candy:
    """A sugared almond: one colour, smooth, slightly pointed and dimpled."""
    radii = np.array([rng.uniform(0.44, 0.50), rng.uniform(0.29, 0.33), rng.uniform(0.20, 0.235)])
    taper, bow = rng.uniform(0.12, 0.28), rng.normal(0, 0.12)
    sugar = tinted(rng, colour(236, 160, 178), 0.05)
    seed = draw_seed(rng)

    def distance(p: Array) -> Array:
        q = s.move(p, (0, 0, radii[2] - 0.006))
        x = q[:, 0]
        q[:, 1] = (q[:, 1] - np.float32(bow) * x * x) * (1 + np.float32(taper) * x / np.float32(radii[0]))
        d = s.ellipsoid(q, radii)
        return embossed(d, p, 0.012, lambda r: 0.8 * waves(r * np.float32(3.5), seed) + 0.12 * noise(r * 12, seed + 1))

    def surface(p: Array, normals: Array) -> Surface:
        albedo = sugar * (1 + 0.025 * fbm(p * np.float32(7), seed + 2))[:, None]
        return Surface(albedo, specular=0.16, shininess=28.0, wrap=0.2)

    wide = radii[1] / (1 - taper) + abs(bow) * radii[0] ** 2 + 0.02
    box = np.array([(-radii[0] - 0.02, -wide, -0.02), (radii[0] + 0.02, wide, 2 * radii[2] + 0.02)], np.float32)
    params = rounded(length=2 * radii[0], width=2 * radii[1], height=2 * radii[2], taper=taper)
    return Candy(Part(distance, surface, box, 0.65), (0.03, 0.04), seed, params, tilt=2.0)


def gummy_bear(rng: Rng) -> Candy:
    """A bear of blobs lying on its back, head towards +y; translucent, so thin places glow."""
    fat, size = rng.uniform(0.95, 1.08), rng.uniform(0.96, 1.06)
    lift, spread = rng.uniform(-0.02, 0.02), rng.uniform(-0.015, 0.015)
    hues = (colour(196, 26, 30), colour(224, 120, 20), colour(60, 140, 44), colour(220, 180, 40))
    deep = tinted(rng, hues[int(rng.integers(4))], 0.05)
    glow = np.minimum(deep ** np.float32(0.55), 1).astype(np.float32)
    seed = draw_seed(rng)
    waist = 0.22 * fat

    def distance(p: Array) -> Array:
        q = p * np.float32(1 / size)
        q[:, 2] -= 0.02
        q[:, 0] = np.abs(q[:, 0])  # a bear is symmetric, up to the waves below
        d = s.ellipsoid(s.move(q, (0, -0.10, 0.16)), (waist, 0.28, 0.19))
        d = s.smooth_union(d, s.ellipsoid(s.move(q, (0, 0.27, 0.19)), (0.19, 0.18, 0.18)), 0.05)
        d = s.smooth_union(d, s.ellipsoid(s.move(q, (0, 0.24, 0.35)), (0.085, 0.07, 0.065)), 0.03)
        d = s.smooth_union(d, s.sphere(s.move(q, (0.14, 0.42, 0.20)), 0.075), 0.03)
        arm = s.capsule(q, (0.18, 0.06, 0.2 + lift), (0.17 + spread, -0.06, 0.35 + lift), 0.078, 0.066)
        leg = s.capsule(q, (0.15, -0.32, 0.15), (0.17 + spread, -0.38, 0.31 + lift), 0.092, 0.078)
        d = s.smooth_union(d, np.minimum(arm, leg), 0.035)
        # A flat back, as cast in starch, and eyes pressed in.
        eyes = s.sphere(s.move(q, (0.075, 0.33, 0.365)), 0.024)
        d = s.smooth_subtract(d, eyes, 0.015)
        d = s.smooth_intersect(d, -q[:, 2] - 0.012, 0.04) * np.float32(size)
        return embossed(d, p, 0.006, lambda r: waves(r * np.float32(7), seed))

    def surface(p: Array, normals: Array) -> Surface:
        # The thickness below the surface decides how much light comes back.
        thin = np.clip(1 + distance(p - np.float32(0.13) * normals) / np.float32(0.11), 0, 1)
        return Surface(mix(deep, glow, 0.12 + 0.75 * thin), specular=0.28, shininess=40.0, wrap=0.5)

    box = np.array([(-0.30, -0.50, -0.01), (0.30, 0.52, 0.46)], np.float32) * np.float32(size * 1.02)
    params = rounded(size=size, waist=waist, lift=lift, spread=spread)
    return Candy(Part(distance, surface, box, 0.8), (0.04, 0.05), seed, params, tilt=1.5)


def hazelnut_truffle(rng: Rng) -> Candy:
    """A rough ball of chocolate, full of crushed hazelnut."""
    radius, squash = rng.uniform(0.35, 0.40), rng.uniform(0.88, 1.0)
    rough = rng.uniform(0.034, 0.046)
    brown, nut = tinted(rng, colour(110, 62, 36)), tinted(rng, colour(196, 150, 96))
    seed = draw_seed(rng)
    stretch = rng.uniform(0.95, 1.06)
    radii = np.array([radius * stretch, radius / stretch, radius * squash])

    def lumps(p: Array) -> Array:
        knobs = noise(p * np.float32(9), seed)
        return np.clip(0.9 * knobs + 0.45 * noise(p * np.float32(20), seed + 1), -1, 1)

    def distance(p: Array) -> Array:
        d = s.ellipsoid(s.move(p, (0, 0, radii[2] - 0.02)), radii)
        return embossed(d, p, rough, lumps)

    def surface(p: Array, normals: Array) -> Surface:
        first, second, which = cells(p * np.float32(15), seed + 2)
        crumb = smoothstep(0.04, 0.16, second - first) * (pick(which, seed + 3) > 0.72)
        low = smoothstep(0.3, -0.6, noise(p * np.float32(9), seed))  # darker between the lumps
        albedo = mix(mix(brown, brown * 0.55, low), nut, 0.85 * crumb)
        return Surface(albedo, specular=0.14 - 0.08 * crumb, shininess=22.0, wrap=0.08)

    wide = radii + rough
    box = np.array([(-wide[0], -wide[1], -0.02), (wide[0], wide[1], 2 * radii[2] + rough)], np.float32)
    params = rounded(radius=radius, squash=squash, roughness=rough)
    return Candy(Part(distance, surface, box, 0.6), (0.10, 0.03), seed, params, tilt=4.0)
