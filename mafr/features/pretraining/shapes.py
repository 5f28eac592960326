"""Random solids, seen once from above by a pinhole camera: the pretraining data of the small Point-MAE.

Generic bodies (superquadrics, extrusions, turned profiles, polyhedra, bumpy balls, drilled blocks) and their
unions and cuts. None of them is modelled on a category of the data sets. Scans are "even" (the same noise everywhere,
no gaps) or "worn" as a structured-light scanner wears them: noise that grows with the angle, missing points, holes,
torn silhouettes, points between two surfaces, and views of a part of the body.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

# A field maps points (N, 3) to values that are negative inside and never much larger than the distance to the
# surface; bodies lie inside the unit ball.
Field = Callable[[np.ndarray], np.ndarray]

_STEPS = 48  # of sphere tracing
_CLOSE = 5e-4  # of the body's half size: a ray has arrived
_MIN_POINTS, _MAX_POINTS = 2000, 20_000
UP = np.array([0.0, 0.0, 1.0])


def random_scan(rng: np.random.Generator, scans: str = "even") -> np.ndarray:
    """One partial scan of one random body: (N, 3) float32, metres, camera coordinates turned at random.

    The body is at most 5 to 12 cm long, the camera 0.35 to 0.7 m away, pixels are 0.35 to 1 mm apart and depths have
    0.15 mm of noise, in `scans` "worn" 0.01 to 0.15 mm and more where the surface is steep. N is 2,000 to 20,000. Half
    the scans are enlarged by an eighth with nearest pixels, which duplicates points as resizing a scan does.
    """
    while True:
        points = _scan(random_body(rng), rng, scans == "worn")
        if _MIN_POINTS <= len(points) <= _MAX_POINTS:
            return points


def random_body(rng: np.random.Generator) -> Field:
    """A random solid inside the unit ball: one to three primitives, up to three cuts, half of them textured."""
    primitives = (_superquadric, _block, _extrusion, _turned, _polyhedron, _bumpy)
    tools = (_drill, _block, _superquadric)

    def one_of(makers: tuple[Callable[[np.random.Generator], Field], ...]) -> Field:
        return makers[rng.integers(len(makers))](rng)

    field = _placed(one_of(primitives), rng, scale=rng.uniform(0.75, 0.95), shift=0.0)
    for _ in range(rng.integers(0, 3)):
        other = _placed(one_of(primitives), rng, scale=rng.uniform(0.25, 0.5), shift=0.5)
        field = _union(field, other, rng.uniform(0.01, 0.15))
    for _ in range(rng.integers(0, 4)):
        tool = _placed(one_of(tools), rng, scale=rng.uniform(0.1, 0.4), shift=0.6)
        field = _cut(field, tool)
    if rng.random() < 0.5:
        field = _textured(field, rng)
    return field


def _superquadric(rng: np.random.Generator) -> Field:
    axes = rng.uniform(0.35, 0.75, 3)
    p, q = rng.uniform(1.5, 7.0, 2)

    def field(x: np.ndarray) -> np.ndarray:
        a = np.abs(x / axes.astype(np.float32)) + np.float32(1e-6)
        ring = (a[:, 0] ** p + a[:, 1] ** p) ** (q / p)
        return ((ring + a[:, 2] ** q) ** (1 / q) - 1) * axes.min()

    return field


def _block(rng: np.random.Generator) -> Field:
    half = rng.uniform(0.2, 0.6, 3).astype(np.float32)
    edge = np.float32(rng.uniform(0.0, 0.15))

    def field(x: np.ndarray) -> np.ndarray:
        out = np.abs(x) - half + edge
        return np.sqrt((np.maximum(out, 0) ** 2).sum(1)) + np.minimum(out.max(1), 0) - edge

    return field


def _extrusion(rng: np.random.Generator) -> Field:
    """A star-shaped outline of a few harmonics, pulled straight up."""
    radius, half = rng.uniform(0.4, 0.75), rng.uniform(0.15, 0.5)
    orders = rng.integers(2, 7, 3)
    sizes, phases = rng.uniform(0, 0.12, 3), rng.uniform(0, 2 * np.pi, 3)

    def field(x: np.ndarray) -> np.ndarray:
        angle = np.arctan2(x[:, 1], x[:, 0])
        outline = 1 + sum(s * np.cos(k * angle + f) for k, s, f in zip(orders, sizes, phases, strict=True))
        side = np.hypot(x[:, 0], x[:, 1]) - radius * outline
        return np.maximum(0.7 * side, np.abs(x[:, 2]) - half)

    return field


def _turned(rng: np.random.Generator) -> Field:
    """A body of revolution with a wavy profile and flat ends."""
    radius, half = rng.uniform(0.25, 0.5), rng.uniform(0.3, 0.8)
    waves, sizes, phases = rng.uniform(1, 6, 3), rng.uniform(0, 0.1, 3), rng.uniform(0, 2 * np.pi, 3)

    def field(x: np.ndarray) -> np.ndarray:
        profile = radius + sum(s * np.sin(k * x[:, 2] + f) for k, s, f in zip(waves, sizes, phases, strict=True))
        return np.maximum(0.8 * (np.hypot(x[:, 0], x[:, 1]) - profile), np.abs(x[:, 2]) - half)

    return field


def _polyhedron(rng: np.random.Generator) -> Field:
    normals = _directions(rng, int(rng.integers(7, 18)))
    offsets = rng.uniform(0.35, 0.7, len(normals)).astype(np.float32)

    def field(x: np.ndarray) -> np.ndarray:
        # The unit ball bounds it where the half-spaces do not.
        return np.maximum((x @ normals.T - offsets).max(1), np.sqrt((x * x).sum(1)) - 0.9)

    return field


def _bumpy(rng: np.random.Generator) -> Field:
    """A ball whose radius is modulated by plane waves over the direction."""
    radius = rng.uniform(0.45, 0.7)
    waves = _directions(rng, 6) * rng.uniform(2, 9, (6, 1)).astype(np.float32)
    sizes, phases = rng.uniform(0, 0.06, 6), rng.uniform(0, 2 * np.pi, 6)
    squeeze = rng.uniform(0.5, 1.0, 3).astype(np.float32)

    def field(x: np.ndarray) -> np.ndarray:
        x = x / squeeze
        length = np.sqrt((x * x).sum(1)) + np.float32(1e-6)
        bumps = np.sin((x / length[:, None]) @ waves.T + phases.astype(np.float32)) @ sizes
        return 0.6 * squeeze.min() * (length - radius * (1 + bumps))

    return field


def _drill(rng: np.random.Generator) -> Field:
    """One to four parallel round holes."""
    middles = rng.uniform(-1, 1, (int(rng.integers(1, 5)), 2)).astype(np.float32)
    radius, depth = rng.uniform(0.15, 0.5), rng.uniform(0.5, 2.0)

    def field(x: np.ndarray) -> np.ndarray:
        sides = np.stack([np.hypot(x[:, 0] - a, x[:, 1] - b) for a, b in middles]).min(0) - radius
        return np.maximum(sides, np.abs(x[:, 2]) - depth)

    return field


def _placed(inner: Field, rng: np.random.Generator, scale: float, shift: float) -> Field:
    turn = rotation(_directions(rng, 1)[0], rng.uniform(0, 2 * np.pi))
    offset = (_directions(rng, 1)[0] * shift * rng.uniform(0.3, 1.0)).astype(np.float32)
    scale = np.float32(scale)

    def field(x: np.ndarray) -> np.ndarray:
        return inner(((x - offset) @ turn) / scale) * scale

    return field


def _union(a: Field, b: Field, blend: float) -> Field:
    def field(x: np.ndarray) -> np.ndarray:
        first, second = a(x), b(x)
        share = np.maximum(blend - np.abs(first - second), 0) / blend
        return np.minimum(first, second) - share * share * blend / 4  # polynomial smooth minimum

    return field


def _cut(body: Field, tool: Field) -> Field:
    def field(x: np.ndarray) -> np.ndarray:
        return np.maximum(body(x), -tool(x))

    return field


def _textured(body: Field, rng: np.random.Generator) -> Field:
    """Fine waves over the whole surface."""
    count = int(rng.integers(2, 6))
    waves = _directions(rng, count) * rng.uniform(8, 40, (count, 1)).astype(np.float32)
    # Amplitudes fall with frequency, so that slopes stay bounded.
    sizes = rng.uniform(0.05, 0.3, count) / np.linalg.norm(waves, axis=1) / count
    phases = rng.uniform(0, 2 * np.pi, count).astype(np.float32)

    def field(x: np.ndarray) -> np.ndarray:
        return 0.8 * (body(x) + np.sin(x @ waves.T + phases) @ sizes.astype(np.float32))

    return field


def _scan(body: Field, rng: np.random.Generator, worn: bool) -> np.ndarray:
    half = rng.uniform(0.025, 0.06)  # metres: half the body's length
    distance = rng.uniform(0.35, 0.7)
    pitch = max(3.5e-4, 2 * half / rng.uniform(120, 200))
    side = int(2 * half / pitch) + 2
    grid = (np.arange(side, dtype=np.float32) - (side - 1) / 2) * pitch / distance
    nearest = np.arange(int(side * 1.125)) * side // int(side * 1.125) if rng.random() < 0.5 else np.arange(side)
    if not worn:  # the noise of doubled pixels differs
        grid, nearest = grid[nearest], np.arange(len(nearest))
    rays, depth = _traced(body, grid, half, distance)
    middle = np.array([0, 0, distance], dtype=np.float32)
    if worn:
        depth = _worn(depth.reshape(len(grid), -1), pitch, rng)
        rays = rays.reshape(len(grid), -1, 3)[nearest[:, None], nearest].reshape(-1, 3)
        depth = depth[nearest[:, None], nearest].ravel()
        hit = np.flatnonzero(np.isfinite(depth))
        noisy = depth[hit]
    else:
        hit = np.flatnonzero(np.isfinite(depth))
        noisy = depth[hit] + rng.normal(0, 1.5e-4, len(hit)).astype(np.float32)
    points = rays[hit] * noisy[:, None] - middle
    # The camera's own axes are not the same in all data sets: tilt up to 60 degrees, any heading.
    tilt = rotation(np.array([np.cos(a := rng.uniform(0, 2 * np.pi)), np.sin(a), 0.0]), rng.uniform(0, np.pi / 3))
    heading = rotation(UP, rng.uniform(0, 2 * np.pi))
    return (points @ (tilt @ heading).T).astype(np.float32)


def _traced(body: Field, grid: np.ndarray, half: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Rays (N, 3) of depth 1 through all pairs of grid, and the depths (N,) at which they meet the body; NaN: not."""
    u, v = (axis.ravel() for axis in np.meshgrid(grid, grid))
    rays = np.stack([u, v, np.ones_like(u)], axis=1)  # depth 1 along the optical axis
    lengths = np.sqrt((rays * rays).sum(1))
    depth = np.full(len(rays), distance - half, dtype=np.float32)
    middle = np.array([0, 0, distance], dtype=np.float32)
    active, arrived = np.arange(len(rays)), []
    for _ in range(_STEPS):
        value = body((rays[active] * depth[active, None] - middle) / np.float32(half)).astype(np.float32)
        arrived.append(active[value < _CLOSE])
        # Not the whole step, since the fields of some bodies overestimate the distance.
        going = value >= _CLOSE
        active, value = active[going], value[going]
        depth[active] += 0.8 * value * half / lengths[active]
        active = active[depth[active] < distance + half]
        if not len(active):
            break
    found = np.full_like(depth, np.nan)
    hit = np.concatenate(arrived)
    found[hit] = depth[hit]
    return rays, found


def _worn(depth: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Depths (H, W), NaN where the body is not hit, with the noise and gaps of one scanner; metres."""
    there = np.isfinite(depth)
    filled = np.where(there, depth, np.nanmax(depth, initial=0.0) if there.any() else 0.0)
    down, right = np.gradient(filled, pitch)
    facing = 1 / np.sqrt(1 + down**2 + right**2)
    low, high = ndimage.minimum_filter(filled, 3), ndimage.maximum_filter(filled, 3)
    rim = there & (high - low > 4 * pitch)
    noise = np.exp(rng.uniform(np.log(1e-5), np.log(1.5e-4))) / np.maximum(facing, 0.2) ** rng.uniform(1, 2)
    out = filled + noise * rng.standard_normal(depth.shape)
    stray = rim & (rng.random(depth.shape) < rng.uniform(0, 0.04))
    out[stray] = (low + (high - low) * rng.random(depth.shape))[stray]
    lost = np.full(depth.shape, np.exp(rng.uniform(np.log(2e-3), np.log(0.15))))
    lost = np.where(facing < rng.uniform(0.1, 0.4), rng.uniform(0.2, 1.0), lost)
    lost = np.where(rim, np.maximum(lost, rng.uniform(0.1, 0.8)), lost)
    keep = there & (rng.random(depth.shape) > lost)
    for _ in range(rng.poisson(1.5)):  # holes, as glare and shadows leave them
        centre, axes = rng.uniform(0, len(depth), 2), len(depth) * rng.uniform(0.01, 0.07, 2)
        y, x = np.ogrid[: depth.shape[0], : depth.shape[1]]
        angle = rng.uniform(0, np.pi)
        a = np.cos(angle) * (y - centre[0]) + np.sin(angle) * (x - centre[1])
        b = np.cos(angle) * (x - centre[1]) - np.sin(angle) * (y - centre[0])
        keep &= (a / axes[0]) ** 2 + (b / axes[1]) ** 2 > 1
    if rng.random() < 0.3:  # a part of the body alone is in view
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : depth.shape[0] * 1j, -1 : 1 : depth.shape[1] * 1j]
        keep &= np.cos(angle) * x + np.sin(angle) * y < rng.uniform(0.0, 0.5)
    return np.where(keep, out, np.nan).astype(np.float32)


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3) float32 matrix of the turn by `angle` (radians) around the unit vector `axis` (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross).astype(np.float32)


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
    raw = rng.normal(size=(count, 3))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
