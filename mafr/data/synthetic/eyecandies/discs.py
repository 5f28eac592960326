"""Flat round candies: chocolate-chip cookie, lollipop, peppermint candy."""

import numpy as np

from mafr.data.synthetic.core import sdf as s
from mafr.data.synthetic.core.noise import fbm, noise, ridged, smoothstep, waves
from mafr.data.synthetic.core.part import Part, Surface
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.eyecandies.candy import Candy, band, colour, draw_seed, embossed, mix, rounded, tinted


def chocolate_cookie(rng: Rng) -> Candy:
    """A baked disc with chocolate chips half sunk into its top."""
    radius, half = rng.uniform(0.43, 0.49), rng.uniform(0.065, 0.08)
    dome = rng.uniform(0.02, 0.04)
    count = int(rng.integers(11, 17))
    chips = _scattered(rng, count, radius * 0.84, 0.14)
    sizes = rng.uniform(0.045, 0.068, len(chips))
    dough, chip = tinted(rng, colour(178, 122, 70)), tinted(rng, colour(58, 32, 20))
    seed = draw_seed(rng)

    def on_chip(p: Array) -> Array:
        """How far inside a chip a point of the top is: 1 at a chip's middle, 0 from its rim on."""
        out = np.zeros(len(p), np.float32)
        for (x, y), size in zip(chips, sizes, strict=True):
            away = ((p[:, 0] - np.float32(x)) ** 2 + (p[:, 1] - np.float32(y)) ** 2) / np.float32(size * size)
            np.maximum(out, 1 - away, out=out)
        return out * (p[:, 2] > half)

    def relief(p: Array) -> Array:
        crumb = 0.35 * fbm(p * np.float32(9), seed, 2) + 0.25 * waves(p * np.float32(3), seed + 4)
        return np.clip(crumb + 0.75 * np.sqrt(on_chip(p)), -1, 1)

    def distance(p: Array) -> Array:
        away = np.hypot(p[:, 0], p[:, 1]) / np.float32(radius)
        q = p.copy()
        q[:, 2] -= np.float32(half) + np.float32(dome) * (1 - np.minimum(away, 1.2) ** 2)
        return embossed(s.cylinder(q, radius, half, half * 0.85), p, 0.034, relief)

    def surface(p: Array, normals: Array) -> Surface:
        chocolate = smoothstep(0.05, 0.16, on_chip(p))
        rim = smoothstep(0.7, 1.0, np.hypot(p[:, 0], p[:, 1]) / np.float32(radius))
        baked = mix(dough, dough * 0.62, np.clip(0.8 * rim + 0.35 * noise(p * np.float32(8), seed + 2), 0, 1))
        baked *= (1 - 0.25 * ridged(p * np.float32(12), seed + 3, 2) ** 4)[:, None]
        return Surface(mix(baked, chip, chocolate), specular=0.02 + 0.14 * chocolate, shininess=25.0, wrap=0.1)

    high = 2 * half + dome + 0.045
    box = np.array([(-radius - 0.04, -radius - 0.04, -0.01), (radius + 0.04, radius + 0.04, high)], np.float32)
    params = rounded(radius=radius, thickness=2 * half, dome=dome) | {"chips": len(chips)}
    return Candy(Part(distance, surface, box, 0.65), (0.16, 0.03), seed, params, tilt=1.0)


def _scattered(rng: Rng, count: int, radius: float, apart: float) -> Array:
    """Up to `count` random places in a disc that keep their distance, (K, 2)."""
    places: list[Array] = []
    for _ in range(count * 20):
        angle, far = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform())
        place = np.array([far * np.cos(angle), far * np.sin(angle)])
        if all(np.hypot(*(place - other)) > apart for other in places):
            places.append(place)
        if len(places) == count:
            break
    return np.array(places)


def lollipop(rng: Rng) -> Candy:
    """A rolled-up rope of two colours on a stick (along -y)."""
    radius, half = rng.uniform(0.33, 0.37), rng.uniform(0.065, 0.08)
    stick, length = rng.uniform(0.026, 0.031), rng.uniform(0.42, 0.50)
    turns, start = rng.uniform(2.3, 2.8), rng.uniform()
    sense = 1.0 if rng.uniform() < 0.5 else -1.0
    hues = (colour(214, 40, 48), colour(230, 110, 40), colour(60, 130, 190), colour(90, 160, 70))
    strong, pale = tinted(rng, hues[int(rng.integers(4))]), tinted(rng, colour(244, 232, 206), 0.03)
    seed = draw_seed(rng)
    pitch = radius / turns
    groove = 0.018

    def phase(p: Array) -> Array:
        """Turns of the two-stranded spiral: each strand fills half a turn."""
        angle = np.arctan2(p[:, 1], p[:, 0]) / np.float32(2 * np.pi)
        return np.hypot(p[:, 0], p[:, 1]) / np.float32(pitch) - np.float32(sense) * angle + np.float32(start)

    def distance(p: Array) -> Array:
        q = p - np.array([0, 0, half + 0.012], np.float32)
        disc = s.cylinder(q, radius, half, half * 0.95)

        def ropes(r: Array) -> Array:
            across = np.mod(2 * phase(r), 1) - 0.5
            fade = smoothstep(0.0, 0.07, np.hypot(r[:, 0], r[:, 1]))
            return fade * (0.5 - 4 * across**2) + 0.2 * waves(r * np.float32(5), seed)

        disc = embossed(disc, p, groove, ropes)
        rod = s.capsule(q, (0, -radius * 0.6, 0), (0, -radius - length, -half * 0.3), stick)
        return s.smooth_union(disc, rod, 0.015)

    def surface(p: Array, normals: Array) -> Surface:
        far = np.hypot(p[:, 0], p[:, 1])
        two = band(phase(p) + 0.015 * noise(p * np.float32(6), seed + 1), 0.0, 0.5, 0.03)
        albedo = mix(pale, strong, two)
        rod = smoothstep(radius + 0.005, radius + 0.02, far)
        albedo = mix(albedo, colour(236, 232, 224), rod)
        return Surface(albedo, specular=0.32 * (1 - rod) + 0.02, shininess=55.0, wrap=0.25)

    box = [(-radius - 0.02, -radius - length - 0.04, -0.01), (radius + 0.02, radius + 0.02, 2 * half + 0.045)]
    params = rounded(radius=radius, thickness=2 * half, stick=stick, length=length, turns=turns, sense=sense)
    return Candy(Part(distance, surface, box, 0.7), (0.03, 0.05), seed, params, tilt=0.6)


def peppermint_candy(rng: Rng) -> Candy:
    """A rounded mint with a red swirl from its middle to its rim."""
    radius, half = rng.uniform(0.38, 0.44), rng.uniform(0.11, 0.13)
    arms = 6 if rng.uniform() < 0.8 else 7
    curl, start = rng.uniform(0.10, 0.16), rng.uniform()
    red, white = tinted(rng, colour(202, 22, 34)), tinted(rng, colour(242, 238, 232), 0.03)
    seed = draw_seed(rng)
    squash = rng.uniform(0.96, 1.0)

    def phase(p: Array) -> Array:
        far = np.hypot(p[:, 0], p[:, 1])
        angle = np.arctan2(p[:, 1], p[:, 0]) / np.float32(2 * np.pi)
        swirl = np.float32(curl) * np.sin(np.float32(np.pi / 2) * np.minimum(far / np.float32(radius), 1))
        return np.float32(arms) * (angle + swirl) + np.float32(start)

    def distance(p: Array) -> Array:
        q = p * np.array([1, 1 / squash, 1], np.float32)
        far = np.hypot(q[:, 0], q[:, 1]) / np.float32(radius)
        q[:, 2] -= np.float32(half)
        # Thinner towards the rim and in the very middle, like a pressed mint.
        q[:, 2] *= 1 + 0.28 * np.minimum(far, 1.2) ** 4 + 0.10 * np.exp(-((far / 0.28) ** 2))
        d = s.cylinder(q, radius, half, half * 0.8)

        def grooves(r: Array) -> Array:
            fade = smoothstep(0.05, 0.25, np.hypot(r[:, 0], r[:, 1]))
            ribs = np.cos(np.float32(2 * np.pi) * phase(r))
            return 0.6 * fade * ribs + 0.3 * waves(r * np.float32(5), seed)

        return embossed(d, p, 0.010, grooves)

    def surface(p: Array, normals: Array) -> Surface:
        far = np.hypot(p[:, 0], p[:, 1])
        wobble = 0.03 * noise(p * np.float32(7), seed + 1)
        paint = band(phase(p) + wobble, -0.24, 0.24, 0.035)
        paint = paint * smoothstep(0.02, 0.06, far)
        return Surface(mix(white, red, paint), specular=0.35, shininess=50.0, wrap=0.2)

    box = np.array([(-radius - 0.02,) * 2 + (-0.01,), (radius + 0.02,) * 2 + (2 * half + 0.02,)], np.float32)
    params = rounded(radius=radius, thickness=2 * half, curl=curl) | {"arms": arms}
    return Candy(Part(distance, surface, box, 0.7), (0.03, 0.05), seed, params, tilt=1.5)
