"""Defects: functions that take a Part and a Site and return a changed Part. Lengths in the part's unit."""

from dataclasses import replace
from functools import reduce
from itertools import pairwise

import numpy as np

from mafr.data.synthetic.core import noise, sdf
from mafr.data.synthetic.core.noise import smoothstep
from mafr.data.synthetic.core.operations import Site, add, carve, local, paint, push
from mafr.data.synthetic.core.part import Look, Part
from mafr.data.synthetic.core.rows import Array, Rng


def crack(
    part: Part, site: Site, rng: Rng, length: float, width: float, depth: float, inside: Look | None, branch: bool
) -> Part:
    """A crooked wedge-shaped fissure along u that follows the surface, `width` across at its widest."""
    seeds = rng.integers(1 << 31, size=2)
    half = length / 2
    fork = rng.uniform(-0.2, 0.3) * half

    def profile(q: Array, seed: int, from_u: float, to_u: float, slope: float) -> Array:
        u, v = q[:, 0], q[:, 1]
        line = np.zeros((len(q), 3), np.float32)
        line[:, 0] = u * np.float32(3.2 / length)
        path = noise.noise(line, int(seed)) * 1.4 + 0.5 * noise.noise(line * np.float32(3.7), int(seed) + 1)
        path = np.float32(0.12 * length) * path + np.float32(slope) * np.maximum(u - from_u, 0)
        s = np.clip((2 * u - (from_u + to_u)) / (to_u - from_u), -1, 1)
        ragged = 1 + 0.35 * noise.noise(line * np.float32(6), int(seed) + 2)
        wide = np.float32(width / 2) * np.sqrt(1 - s * s) * ragged
        return np.maximum(np.abs(v - path) - wide, np.maximum(from_u - u, u - to_u))

    def tool(p: Array) -> Array:
        q = site.local(p)
        inner = part.sdf(p)
        d = profile(q, seeds[0], -half, half, 0.0)
        if branch:
            d = np.minimum(d, profile(q, seeds[0], fork, half * 0.8, 0.9) + np.float32(0.1 * width))
        # Walls close with depth; the near side only, so that a thin part is not split from below.
        d = d + np.float32(width / 2 / depth) * np.clip(-inner, 0, depth) * np.float32(0.8)
        return np.maximum(np.maximum(d * np.float32(0.7), -(inner + np.float32(depth))), -q[:, 2] - np.float32(half))

    reach = half * 1.15 + depth
    out = carve(part, local(tool, site.point, reach), inside, 0.25 * width, 0.35 * width)
    return replace(out, step=part.step * 0.9)


def hole(
    part: Part, site: Site, rng: Rng, radius: float, depth: float, inside: Look | None, ragged: float = 0.12
) -> Part:
    """A round pit of the given radius and depth below the surface (deep enough: right through)."""
    seed = int(rng.integers(1 << 31))
    stretch = rng.uniform(0.85, 1.15)

    def tool(p: Array) -> Array:
        q = site.local(p)
        away = np.hypot(q[:, 0] * np.float32(stretch), q[:, 1] / np.float32(stretch))
        edge = np.float32(radius) * (1 + np.float32(ragged) * noise.noise(q * np.float32(0.8 / radius), seed))
        # A bottom that is rounded where it is shallow.
        hollow = np.float32(0.3 * min(depth, radius)) * (away / np.float32(radius)) ** 2
        bottom = hollow - (part.sdf(p) + np.float32(depth))
        return np.maximum(np.maximum(away - edge, bottom), -q[:, 2] - np.float32(depth + radius)) * np.float32(0.85)

    reach = 1.5 * np.hypot(radius * 1.3, depth + radius)
    rounding, edge = min(0.2 * radius, 0.5 * depth), 0.12 * radius + 0.05 * depth
    return carve(part, local(tool, site.point, reach), inside, rounding, edge)


def slot(
    part: Part, site: Site, length: float, width: float, depth: float, inside: Look | None, lean: float = 0.0
) -> Part:
    """A knife cut along u: straight, `width` open at the surface, closing with depth, leaning by `lean` radians."""
    slope = np.float32(np.tan(lean))

    def tool(p: Array) -> Array:
        q = site.local(p)
        inner = part.sdf(p)
        # Ends run out towards the surface like a blade's round.
        s = np.clip(np.abs(q[:, 0]) / np.float32(length / 2), 0, 1)
        deep = np.float32(depth) * (1 - s**4)
        wide = np.float32(width / 2) * (1 - 0.8 * np.clip(-inner, 0, depth) / np.float32(depth))
        d = np.maximum(np.abs(q[:, 1] - slope * q[:, 2]) - wide, np.abs(q[:, 0]) - np.float32(length / 2))
        return np.maximum(np.maximum(d, -(inner + deep)), -q[:, 2] - np.float32(length / 2 + depth)) * np.float32(0.8)

    reach = 1.1 * length / 2 + depth
    return carve(part, local(tool, site.point, reach), inside, 0.2 * width, 0.3 * width)


def slice_off(
    part: Part, site: Site, rng: Rng, depth: float, tilt: float, inside: Look | None, rough: float = 0.0
) -> Part:
    """A flat piece cut away: what lies above a plane `depth` under the site, tilted by `tilt` radians."""
    turned = site.frame @ sdf.rotation("x", tilt)
    normal, seed = turned[:, 2], int(rng.integers(1 << 31))
    reach = 9.0 * np.sqrt(depth)  # enough (in mm) for the cap of a ball of 4 cm radius

    def tool(p: Array) -> Array:
        q = p - site.point
        d = np.float32(-depth) - q @ normal
        if rough > 0:
            d = d + np.float32(rough) * noise.fbm(p * np.float32(0.35), seed, 2)
        return np.maximum(d * np.float32(0.9), np.sqrt(np.einsum("ij,ij->i", q, q)) - np.float32(reach))

    return carve(part, tool, inside, 0.1 * depth, 0.1 * depth + 0.2 * rough)


def bite(
    part: Part, site: Site, rng: Rng, radius: float, depth: float, inside: Look | None, rough: float = 0.15
) -> Part:
    """A broken-out piece: a rough ball of `radius` reaching `depth` below the surface."""
    seed = int(rng.integers(1 << 31))
    centre = site.point + site.normal * np.float32(radius - depth)

    def tool(p: Array) -> Array:
        d = sdf.sphere(p - centre, radius)
        return (d + np.float32(rough * radius) * noise.fbm(p * np.float32(1.6 / radius), seed, 3)) * np.float32(0.75)

    return carve(part, local(tool, centre, radius * (1 + rough)), inside, 0.06 * radius, 0.1 * depth)


def dent(part: Part, site: Site, radius: float, depth: float, stretch: float) -> Part:
    """A smooth hollow with a Gaussian profile; radius is 1.5 of its sigmas."""

    def field(p: Array) -> Array:
        q = site.local(p) * np.float32([stretch, 1 / stretch, 0.7])
        r2 = np.einsum("ij,ij->i", q, q) / np.float32((radius / 1.5) ** 2)
        return np.float32(-depth) * np.exp(-0.5 * r2)

    return push(part, field, 0.0)


# --- added material


def lump(part: Part, site: Site, rng: Rng, radii: object, look: Look, rough: float = 0.2,
         sink: float = 0.35) -> Part:  # fmt: skip
    """A rough blob of half sizes (u, v, n) sitting on the surface, sunk in by a fraction of its height."""
    radii = np.asarray(radii, np.float32)
    seed = int(rng.integers(1 << 31))
    centre = site.point + site.normal * radii[2] * np.float32(1 - 2 * sink)
    most = float(radii.max())

    def solid(p: Array) -> Array:
        q = (p - centre) @ site.frame
        d = sdf.ellipsoid(q, radii)
        return (d - np.float32(rough * radii.min()) * noise.fbm(q * np.float32(1.2 / most), seed, 2)) * np.float32(0.8)

    return add(part, solid, look, 0.15 * float(radii.min()), centre, most * (1 + rough), float(radii.min()))


def fibre(part: Part, site: Site, rng: Rng, length: float, thickness: float, look: Look, curl: float) -> Part:
    """A thread lying on the surface: a curled line of the given thickness that follows the relief."""
    steps = 7
    angle, place = 0.0, np.zeros(2)
    nodes = [place]
    turn = rng.normal(0, curl / steps * 2.0)
    for _ in range(steps):
        place = place + length / steps * np.array([np.cos(angle), np.sin(angle)])
        angle += turn + rng.normal(0, curl / steps)
        nodes.append(place)
    nodes = np.array(nodes) - np.mean(nodes, axis=0)
    reach = float(np.linalg.norm(nodes, axis=1).max()) * 1.1 + 4 * thickness
    flat = np.concatenate([nodes, np.zeros((len(nodes), 1))], axis=1)

    def solid(p: Array) -> Array:
        q = site.local(p)
        q[:, 2] = part.sdf(p) - np.float32(0.3 * thickness)  # height above the surface, so that it clings
        return reduce(np.minimum, (sdf.capsule(q, a, b, thickness / 2) for a, b in pairwise(flat))) * np.float32(0.7)

    return add(part, solid, look, 0.0, site.point, reach, thickness)


def flake(part: Part, site: Site, rng: Rng, size: float, thickness: float, look: Look) -> Part:
    """A flat angular chip (metal, plastic, paper) lying on the surface, a little tipped."""
    corners = np.sort(rng.uniform(0, 2 * np.pi, 5)) + np.arange(5) * 0.15
    ring = size / 2 * rng.uniform(0.7, 1.1, 5)
    outline = np.stack([ring * np.cos(corners), ring * np.sin(corners)], axis=1)
    tipped = site.frame @ sdf.rotation("x", rng.normal(0, 0.15)) @ sdf.rotation("y", rng.normal(0, 0.15))
    centre = site.point + site.normal * np.float32(0.4 * thickness)

    def solid(p: Array) -> Array:
        return sdf.prism((p - centre) @ tipped, outline, thickness / 2)

    return add(part, solid, look, 0.0, centre, 0.7 * size + thickness, thickness)


# --- colour


def stain(part: Part, site: Site, rng: Rng, radius: float, look: Look, strength: float,
          ragged: float = 0.5, spots: bool = False, soft: float = 0.18) -> Part:  # fmt: skip
    """A coloured blotch of about `radius` with a ragged edge, `strength` (0..1) opaque; or a spray of spots."""
    seed = int(rng.integers(1 << 31))
    stretch = rng.uniform(0.75, 1.3)

    def weight(p: Array) -> Array:
        q = site.local(p)
        r = np.sqrt((q[:, 0] * stretch) ** 2 + (q[:, 1] / stretch) ** 2 + q[:, 2] ** 2) / np.float32(radius)
        w = np.zeros(len(p), np.float32)
        near = r < 1.8
        if near.any():
            rough = noise.fbm(p[near] * np.float32(1.5 / radius), seed, 3)
            w[near] = 1 - smoothstep(1.0 - soft, 1.0, r[near] + np.float32(ragged) * rough)
            if spots:
                w[near] *= smoothstep(0.0, 0.15, noise.noise(p[near] * np.float32(4.5 / radius), seed + 7))
        return w * np.float32(strength)

    return paint(part, weight, look)


def scratch(part: Part, site: Site, rng: Rng, length: float, width: float, look: Look,
            strength: float, count: int = 1) -> Part:  # fmt: skip
    """Thin, nearly straight coloured lines along u."""
    lines = [
        (rng.uniform(-0.15, 0.15) * length * k, rng.normal(0, 0.12), rng.normal(0, 0.3 / length)) for k in range(count)
    ]

    def weight(p: Array) -> Array:
        q = site.local(p)
        u, v = q[:, 0], q[:, 1]
        w = np.zeros(len(p), np.float32)
        for offset, slope, curve in lines:
            away = np.abs(v - offset - slope * u - curve * u * u)
            thick = np.float32(width / 2) * np.sqrt(np.clip(1 - (2 * u / length) ** 2, 0, 1))
            w = np.maximum(w, (1 - smoothstep(0.6, 1.3, away / np.maximum(thick, 1e-4))) * (np.abs(u) < length / 2))
        return (w * (np.abs(q[:, 2]) < length / 2) * np.float32(strength)).astype(np.float32)

    return paint(part, weight, look)
