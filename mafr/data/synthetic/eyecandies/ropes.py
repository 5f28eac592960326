"""Candies of constant cross-section: candy cane, twisted marshmallow, licorice sandwich."""

import numpy as np

from mafr.data.synthetic.core import sdf as s
from mafr.data.synthetic.core.noise import fbm, noise, smoothstep, waves
from mafr.data.synthetic.core.part import Part, Surface
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.eyecandies.candy import Candy, band, colour, draw_seed, embossed, mix, rounded, tinted


def candy_cane(rng: Rng) -> Candy:
    """A bent, striped sugar cane lying on its side."""
    radius, ring = rng.uniform(0.082, 0.096), rng.uniform(0.185, 0.215)
    length, hook = rng.uniform(0.62, 0.72), rng.uniform(0.03, 0.10)
    pitch = rng.uniform(0.21, 0.25)
    red, white = tinted(rng, colour(200, 24, 30)), tinted(rng, colour(240, 236, 228), 0.03)
    seed, phase0 = draw_seed(rng), rng.uniform()
    end = np.pi * ring + hook

    def along(p: Array) -> tuple[Array, Array, Array]:
        """Across, height and arc length of points in the bend's frame (straight, half a circle, hook)."""
        x, y = p[:, 0], p[:, 1]
        arc = y > 0
        straight = ~arc & (x < 0)
        across = np.where(arc, ring - np.hypot(x, y), np.where(straight, x + ring, ring - x))
        way = np.where(arc, ring * np.arctan2(y, -x), np.where(straight, y, np.pi * ring - y))
        return across.astype(np.float32), p[:, 2] - np.float32(radius), way.astype(np.float32)

    def distance(p: Array) -> Array:
        across, height, way = along(p)
        beyond = np.maximum(np.maximum(-length - way, way - end), 0)
        bent = np.sqrt(across**2 + height**2 + beyond**2) - np.float32(radius)
        shaft = s.capsule(p, (-ring, -length, radius), (-ring, 0, radius), radius)
        d = np.minimum(bent, shaft)
        return embossed(d, p, 0.004, lambda q: waves(q * np.float32(9), seed))

    def surface(p: Array, normals: Array) -> Surface:
        across, height, way = along(p)
        wobble = 0.02 * noise(p * np.float32(5), seed + 1)
        phase = way / np.float32(pitch) + np.arctan2(height, across) / np.float32(2 * np.pi) + phase0 + wobble
        paint = np.maximum(band(phase, 0.0, 0.42, 0.025), band(phase, 0.66, 0.74, 0.02))
        return Surface(mix(white, red, paint), specular=0.35, shininess=60.0, wrap=0.2)

    reach = ring + radius + 0.01
    box = [(-ring - radius - 0.01, -length - radius - 0.01, -0.005), (reach, reach, 2 * radius + 0.01)]
    params = rounded(radius=radius, ring=ring, length=length, hook=hook, pitch=pitch)
    return Candy(Part(distance, surface, box, 0.85), (0.03, 0.05), seed, params, tilt=0.8)


def marshmallow(rng: Rng) -> Candy:
    """A rope of four soft strands, twisted about its length (the x axis)."""
    half, offset, strand = rng.uniform(0.44, 0.52), rng.uniform(0.085, 0.095), rng.uniform(0.090, 0.102)
    rate, start = rng.uniform(5.0, 7.0) * (1 if rng.uniform() < 0.85 else 0.8), rng.uniform(0, 2 * np.pi)
    bow = rng.normal(0, 0.03)
    palette = [colour(238, 160, 178), colour(244, 238, 226), colour(240, 214, 130), colour(244, 238, 226)]
    palette = np.stack([tinted(rng, c, 0.04) for c in palette])
    seed = draw_seed(rng)
    middle = offset * 0.85 + strand

    def section(p: Array) -> tuple[Array, Array, Array]:
        """Position in the untwisted cross-section, and along the rope."""
        x = p[:, 0]
        y, z = p[:, 1] - np.float32(bow) * np.cos(np.pi * x), p[:, 2] - np.float32(middle)
        angle = x * np.float32(rate) + np.float32(start)
        c, sn = np.cos(angle), np.sin(angle)
        return c * y + sn * z, c * z - sn * y, x

    def distance(p: Array) -> Array:
        u, v, x = section(p)
        au, av = np.abs(u), np.abs(v)
        # Strands sit on the axes of the section; folding leaves the nearer two.
        near = np.hypot(np.maximum(au, av) - np.float32(offset), np.minimum(au, av)) - np.float32(strand)
        side = s.smooth_union(near, np.hypot(u, v) - np.float32(offset), 0.03)
        d = s.smooth_intersect(side, np.abs(x) - np.float32(half), 0.09)
        return embossed(d, p, 0.006, lambda q: waves(q * np.float32(7), seed))

    def surface(p: Array, normals: Array) -> Surface:
        u, v, _ = section(p)
        turn = np.arctan2(v, u) / np.float32(np.pi / 2) + 0.02 * noise(p * np.float32(6), seed + 2)
        which = np.round(turn)
        strands = palette[np.mod(which, 4).astype(int)]
        edge = smoothstep(0.36, 0.5, np.abs(turn - which))  # colours run into each other in the grooves
        albedo = mix(strands, palette.mean(0) * 0.9, 0.5 * edge)
        albedo *= (1 + 0.03 * fbm(p * np.float32(20), seed + 3))[:, None]
        return Surface(albedo, specular=0.03, shininess=12.0, wrap=0.35)

    wide = offset + strand + abs(bow) + 0.02
    box = np.array([(-half - 0.01, -wide, -0.02), (half + 0.01, wide, middle + offset + strand + 0.01)], np.float32)
    params = rounded(length=2 * half, strand=strand, twist=rate, bow=bow)
    return Candy(Part(distance, surface, box, 0.7), (0.10, 0.03), seed, params, tilt=1.0)


def licorice_sandwich(rng: Rng) -> Candy:
    """A block of licorice and sugar-paste layers, cut from a slab."""
    layers = 5
    tall = rng.uniform(0.42, 0.50)
    sides = np.array([rng.uniform(0.27, 0.31), rng.uniform(0.27, 0.31)])
    shares = np.array([1.0, 1.25, 1.0, 1.25, 1.0]) * rng.uniform(0.9, 1.1, layers)
    edges = np.concatenate([[0], np.cumsum(shares / shares.sum()) * tall])
    grow, shift = rng.normal(0, 0.006, (layers, 2)), rng.normal(0, 0.008, (layers, 2))
    grow[::2] -= 0.012  # the harder licorice keeps its size, the paste bulges
    lean = rng.normal(0, 0.03, 2)
    paste = (colour(236, 150, 60), colour(232, 120, 150), colour(240, 226, 190))[int(rng.choice(3, p=(0.4, 0.4, 0.2)))]
    black, paste = tinted(rng, colour(46, 38, 36), 0.08), tinted(rng, paste)
    seed = draw_seed(rng)

    def sheared(p: Array) -> Array:
        q = p.copy()
        q[:, :2] -= p[:, 2:] * lean.astype(np.float32)
        return q

    def distance(p: Array) -> Array:
        q = sheared(p)
        out = None
        for k in range(layers):
            low, high = edges[k], edges[k + 1]
            centre = (shift[k, 0], shift[k, 1], (low + high) / 2)
            d = s.box(s.move(q, centre), (*(sides + grow[k]), (high - low) / 2 + 0.004), 0.022)
            out = d if out is None else np.minimum(out, d)
        return embossed(out, p, 0.005, lambda r: waves(r * np.float32(6), seed))

    def surface(p: Array, normals: Array) -> Surface:
        height = p[:, 2] + 0.004 * noise(p * np.float32(7), seed + 1)
        layer = np.clip(np.searchsorted(edges, height) - 1, 0, layers - 1)
        light = (layer % 2 == 1).astype(np.float32)
        sugar = smoothstep(0.25, 0.55, noise(p * np.float32(70), seed + 2))
        albedo = mix(mix(black, colour(120, 112, 108), 0.3 * sugar), mix(paste, paste * 1.15, sugar), light)
        return Surface(albedo, specular=0.10 - 0.06 * light, shininess=18.0, wrap=0.1 + 0.2 * light)

    reach = sides + 0.03 + np.abs(lean) * tall
    box = np.array([(-reach[0], -reach[1], -0.005), (reach[0], reach[1], tall + 0.015)], np.float32)
    params = rounded(height=tall, length=2 * sides[0], width=2 * sides[1], lean=float(np.hypot(*lean)))
    return Candy(Part(distance, surface, box, 0.8), (0.08, 0.025), seed, params, tilt=1.0)
