"""A small renderer for solid models: a pinhole camera, sphere tracing, shading, a sensor. Unit-agnostic (any length).

The world is the part's own frame, so object coordinates are world coordinates: the part stands on the plane z = 0 (a
table or a conveyor), z is up, and a part is turned or shifted by moving the camera. Trace once, shade often:

    camera = Camera.look_at(eye, target, roll, focal, width, height)
    hits = trace(camera, sdf, box, ground=0.0, eps=0.03, step=0.8)        # Hits: what each pixel sees
    look = look_of(hits, part_surface, ground_surface)                     # Surface of every pixel (H·W rows)
    shadow = soft_shadow(hits, sdf, box, light.position, softness=8)      # (H·W,) in [0, 1]
    image = shade(hits, look, [light, ...], ambient, shadows=[shadow, ...])  # (H, W, 3) linear
    rgb = develop(image, rng, exposure=1.0, blur=0.5, noise=0.01, vignette=0.2)  # (H, W, 3) uint8

A pixel's ray passes through integer coordinates: pixel (row v, column u) looks along ((u-cx)/f, (v-cy)/f, 1) in camera
coordinates (x right, y down, z forward). `hits.depth` is z in the camera, `hits.xyz()` the points in the camera.

- `Camera`: focal, cx, cy (pixels), width, height, rotation (3, 3; columns are the camera's axes in the world), origin.
  `directions()` (H·W, 3) unit; `to_camera(points)`, `project(points) -> (u, v, z)`,
  `pose()` (4, 4) camera to world.
- `Hits`: camera; part, ground (H, W) bool; distance (H, W), along the ray; points, normals (H, W, 3) in the world;
  0 where nothing is hit.
- `Surface`: albedo (N, 3) linear; specular, shininess, wrap: (N,) or numbers. wrap in [0, 1) lets light creep around
  edges, a cheap stand-in for light scattered under the surface. `Surface.blend(other, weight)` mixes two.
  A surface function takes (points (N, 3), normals (N, 3)) and returns a Surface.
- `Light`: position (3,), colour (3,) linear (its strength included), reach (the distance at which it has that
  strength), directional (position is then only the direction it comes from), axis and cone (spotlight: the unit
  direction it shines in, and the cosines of its outer and inner half angle).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter

from mafr.data.synthetic.core.camera import Camera, unit
from mafr.data.synthetic.core.rows import row_dot, row_max, row_min, take

Array = np.ndarray
Distance = Callable[[Array], Array]


@dataclass(frozen=True)
class Hits:
    """What each pixel sees; see the module's text."""

    camera: Camera
    part: Array
    ground: Array
    distance: Array
    points: Array
    normals: Array

    @property
    def depth(self) -> Array:
        """(H, W) z in camera coordinates, 0 where nothing is hit."""
        return np.where(self.part | self.ground, self.xyz()[..., 2], 0)

    def xyz(self) -> Array:
        """(H, W, 3) points in camera coordinates; zeros where nothing is hit."""
        return np.where((self.part | self.ground)[..., None], self.camera.to_camera(self.points), 0)

    @property
    def facing(self) -> Array:
        """(H, W) cosine between the normal and the direction to the camera."""
        return np.abs(row_dot(unit(self.points - self.camera.origin), self.normals))


@dataclass
class Surface:
    """How a surface looks, one row a point; see the module's text."""

    albedo: Array
    specular: Array | float = 0.0
    shininess: Array | float = 20.0
    wrap: Array | float = 0.0

    def full(self) -> Surface:
        """The same with every field an array of one row a point."""
        n = len(self.albedo)
        numbers = (self.specular, self.shininess, self.wrap)
        return Surface(np.asarray(self.albedo, np.float32), *(np.broadcast_to(np.float32(x), n) for x in numbers))

    def blend(self, other: Surface, weight: Array) -> Surface:
        """This surface where weight is 0, the other where it is 1. weight: (N,)."""
        w = np.asarray(weight, np.float32)
        mixed = [np.float32(a) * (1 - w) + np.float32(b) * w for a, b in (
            (self.specular, other.specular), (self.shininess, other.shininess), (self.wrap, other.wrap))]  # fmt: skip
        return Surface(self.albedo * (1 - w[:, None]) + other.albedo * w[:, None], *mixed)


@dataclass(frozen=True)
class Light:
    """A point, spot or directional light; see the module's text."""

    position: object
    colour: object = (1.0, 1.0, 1.0)
    reach: float = 1.0
    directional: bool = False
    axis: object = None
    cone: tuple[float, float] = field(default=(0.8, 0.9))

    def arriving(self, points: Array) -> tuple[Array, Array]:
        """Unit directions towards the light (N, 3) and its strength at each point (N,)."""
        if self.directional:
            return np.broadcast_to(unit(self.position), points.shape), np.ones(len(points), np.float32)
        towards = np.asarray(self.position, np.float32) - points
        far = np.sqrt(row_dot(towards, towards))
        towards = towards / far[:, None]
        strength = (np.float32(self.reach) / far) ** 2
        if self.axis is not None:
            inside = -(towards @ unit(self.axis))
            s = np.clip((inside - self.cone[0]) / (self.cone[1] - self.cone[0]), 0, 1)
            strength = strength * (s * s * (3 - 2 * s))
        return towards, strength.astype(np.float32)


def _enter(origin: Array, directions: Array, box: Array) -> tuple[Array, Array]:
    """Distances at which rays enter and leave an axis-aligned box; enter > leave where they miss it."""
    safe = np.where(np.abs(directions) < 1e-9, np.float32(1e-9), directions)
    a, b = (box[0] - origin) / safe, (box[1] - origin) / safe
    return np.maximum(row_max(np.minimum(a, b)), 0), row_min(np.maximum(a, b))


def trace(
    camera: Camera, sdf: Distance, box: object, ground: float | None = 0.0, eps: float = 0.03,
    step: float = 0.8, max_steps: int = 64, normal_reach: float | None = None,
) -> Hits:  # fmt: skip
    """First hit of every pixel's ray with a solid or the plane z = ground.

    sdf: (N, 3) world points -> (N,) distance. box: (2, 3) low and high corner that holds the whole solid. eps: distance
    that counts as a hit. step: fraction of the distance to advance. normal_reach: offset of the finite
    differences, by default half a pixel's footprint (so detail finer than a pixel does not alias).
    """
    box = np.asarray(box, np.float32)
    rays, origin = camera.directions(), camera.origin
    limit = np.full(len(rays), np.inf, np.float32)
    if ground is not None:
        with np.errstate(divide="ignore"):
            to_ground = (np.float32(ground) - origin[2]) / rays[:, 2]
        limit = np.where(to_ground > 0, to_ground, np.inf).astype(np.float32)
    enter, leave = _enter(origin, rays, box)
    leave = np.minimum(leave, limit)
    active = np.flatnonzero(enter < leave)
    t, end, d = enter[active].astype(np.float32), leave[active], take(rays, active)
    found = np.full(len(rays), np.inf, np.float32)
    for _ in range(max_steps):
        if not len(active):
            break
        distance = sdf(origin + t[:, None] * d)
        hit = distance < eps
        found[active[hit]] = t[hit]
        t = t + np.maximum(distance, eps / 2) * np.float32(step)
        stay = ~hit & (t < end)
        active, t, end, d = active[stay], t[stay], end[stay], take(d, stay)
    else:
        # Rays that skim along a silhouette run out of steps: take those that are near the surface as hits.
        if len(active):
            near = sdf(origin + t[:, None] * d) < 4 * eps
            found[active[near]] = t[near]
    part = np.isfinite(found)
    chosen = np.flatnonzero(part)
    if len(chosen):  # one last small step makes the depth exact to a fraction of eps
        p = origin + found[chosen, None] * take(rays, chosen)
        found[chosen] += np.clip(sdf(p), -eps, eps) * np.float32(step)
    on_ground = ~part & np.isfinite(limit)
    far = np.where(part, found, np.where(on_ground, limit, 0)).astype(np.float32)
    points = origin + far[:, None] * rays
    normals = np.zeros_like(points)
    normals[on_ground] = (0, 0, 1)
    if len(chosen):
        reach = normal_reach or 0.5 * float(np.median(far[chosen])) / camera.focal
        normals[chosen] = gradient(sdf, take(points, chosen), reach)
    shape = (camera.height, camera.width)
    return Hits(
        camera, part.reshape(shape), on_ground.reshape(shape), far.reshape(shape),
        (points * (part | on_ground)[:, None]).reshape(*shape, 3).astype(np.float32), normals.reshape(*shape, 3),
    )  # fmt: skip


_TETRAHEDRON = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)


def gradient(sdf: Distance, points: Array, reach: float) -> Array:
    """Unit normals by finite differences over a tetrahedron of half edge `reach`. (N, 3) -> (N, 3)."""
    total = np.zeros_like(points)
    for corner in _TETRAHEDRON:
        total += corner * sdf(points + corner * np.float32(reach))[:, None]
    return unit(total)


def look_of(
    hits: Hits, part_surface: Callable[[Array, Array], Surface],
    ground_surface: Callable[[Array, Array], Surface] | None = None,
) -> Surface:  # fmt: skip
    """The surface that each pixel sees, H·W rows; black where nothing is hit."""
    n = hits.part.size
    black, ones = np.zeros((n, 3), np.float32), np.ones(n, np.float32)
    out = Surface(black, 0 * ones, ones, 0 * ones)
    for mask, surface in ((hits.part.ravel(), part_surface), (hits.ground.ravel(), ground_surface)):
        if surface is None or not mask.any():
            continue
        seen = surface(*(take(field.reshape(-1, 3), mask) for field in (hits.points, hits.normals))).full()
        out.albedo[mask], out.specular[mask] = seen.albedo, seen.specular
        out.shininess[mask], out.wrap[mask] = seen.shininess, seen.wrap
    return out


def soft_shadow(
    hits: Hits, sdf: Distance, box: object, position: object, softness: float = 10.0, steps: int = 14,
    start: float = 1.0, directional: bool = False,
) -> Array:  # fmt: skip
    """Light let through towards `position`, (H·W,) in [0, 1]: 0 in full shadow.

    softness: smaller is a larger light. start: distance from the surface at which to begin (a few eps; keeps the
    surface from shading itself). Also answers what a projector at `position` can see (compare with 0.5).
    """
    box = np.asarray(box, np.float32)
    points, normals = hits.points.reshape(-1, 3), hits.normals.reshape(-1, 3)
    points, normals = np.asfortranarray(points), np.asfortranarray(normals)
    towards = np.asarray(position, np.float32) - (0 if directional else points)
    towards = unit(np.broadcast_to(towards, points.shape))
    out = np.ones(len(points), np.float32)
    seen = (hits.part | hits.ground).ravel()
    away = row_dot(towards, normals) <= 0.02
    out[seen & away] = 0.0
    chosen = np.flatnonzero(seen & ~away)
    origin, d = take(points, chosen) + take(normals, chosen) * np.float32(start), take(towards, chosen)
    enter, leave = _enter(origin, d, box)
    t = np.maximum(enter, start)
    stay = t < leave
    chosen, origin, d, t, leave = chosen[stay], take(origin, stay), take(d, stay), t[stay], leave[stay]
    least = float((box[1] - box[0]).max()) / steps * 0.4
    for _ in range(steps):
        if not len(chosen):
            break
        distance = sdf(origin + t[:, None] * d)
        out[chosen] = np.minimum(out[chosen], np.clip(np.float32(softness) * distance / t, 0, 1))
        t = t + np.maximum(distance, least)
        stay = (t < leave) & (out[chosen] > 0.02)
        chosen, origin, d, t, leave = chosen[stay], take(origin, stay), take(d, stay), t[stay], leave[stay]
    return out


def ambient_occlusion(hits: Hits, sdf: Distance, box: object, reach: float, strength: float = 1.0) -> Array:
    """How open the surroundings are, (H·W,) in [0, 1]: from the distances at reach/3 and reach above the surface.

    Also between the part and the ground plane at z = 0.
    """
    box = np.asarray(box, np.float32)
    points, normals = hits.points.reshape(-1, 3), hits.normals.reshape(-1, 3)
    points, normals = np.asfortranarray(points), np.asfortranarray(normals)
    out = np.ones(len(points), np.float32)
    near = ((points > box[0] - reach) & (points < box[1] + reach)).all(axis=1)
    chosen = np.flatnonzero((hits.part | hits.ground).ravel() & near)
    if not len(chosen):
        return out
    closed = np.zeros(len(chosen), np.float32)
    for h in (reach / 3, reach):
        q = take(points, chosen) + take(normals, chosen) * np.float32(h)
        room = np.minimum(sdf(q), np.maximum(q[:, 2], 0))
        closed += 0.5 * np.clip(1 - room / np.float32(h), 0, 1)
    out[chosen] = np.clip(1 - np.float32(strength) * closed, 0, 1)
    return out


def shade(
    hits: Hits, look: Surface, lights: Sequence[Light], ambient: object = 0.2,
    shadows: Sequence[Array | None] | None = None, occlusion: Array | None = None,
) -> Array:  # fmt: skip
    """Light that reaches the camera, (H, W, 3) float32 linear: ambient + diffuse (wrapped) + Blinn-Phong.

    ambient: a number or a colour. shadows: one (H·W,) array or None a light. occlusion: (H·W,) on the ambient term.
    """
    look = look.full()
    seen = np.flatnonzero((hits.part | hits.ground).ravel())
    points, normals = (take(field.reshape(-1, 3), seen) for field in (hits.points, hits.normals))
    albedo, wrap = take(look.albedo, seen), look.wrap[seen]
    specular, shininess = look.specular[seen], look.shininess[seen]
    view = unit(hits.camera.origin - points)
    openness = np.ones(len(seen), np.float32) if occlusion is None else occlusion[seen]
    light = _coloured(np.broadcast_to(np.asarray(ambient, np.float32), (3,)), openness)
    glossy = np.zeros((3, len(seen)), np.float32).T
    shiny = np.flatnonzero(specular > 1e-4)
    for k, lamp in enumerate(lights):
        towards, strength = lamp.arriving(points)
        if shadows is not None and shadows[k] is not None:
            strength = strength * shadows[k][seen]
        facing = row_dot(normals, towards)
        diffuse = np.maximum(facing + wrap, 0) / (1 + wrap)
        colour = np.asarray(lamp.colour, np.float32)
        light = light + _coloured(colour, diffuse * strength)
        if len(shiny):
            half = unit(take(towards, shiny) + take(view, shiny))
            gloss = np.maximum(row_dot(take(normals, shiny), half), 0) ** shininess[shiny]
            gloss *= specular[shiny] * strength[shiny] * (facing[shiny] > 0)
            everywhere = np.zeros(len(seen), np.float32)
            everywhere[shiny] = gloss
            glossy += _coloured(colour, everywhere)
    image = np.zeros((hits.part.size, 3), np.float32)
    image[seen] = albedo * light + glossy
    return image.reshape(*hits.part.shape, 3)


def _coloured(colour: Array, strength: Array) -> Array:
    """(3,) and (N,) -> (N, 3), a channel after the other in memory."""
    return (colour[:, None] * strength).T


def develop(
    image: Array, rng: np.random.Generator, exposure: float = 1.0, blur: float = 0.5, noise: float = 0.008,
    vignette: float = 0.15, gamma: float = 2.2,
) -> Array:  # fmt: skip
    """Linear light to an 8-bit picture: lens blur (pixels), vignetting, shot and read noise, gamma. (H, W, 3) uint8."""
    if blur > 0:
        image = gaussian_filter(image, (blur, blur, 0))
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    image = image * np.float32(exposure) * (1 - np.float32(vignette) * (x * x + y * y) / 2)[..., None]
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + np.float32(noise) * np.sqrt(np.maximum(image, 0) + 0.02) * grain
    # A soft shoulder instead of a hard clip, as in a camera's tone curve.
    image = np.where(image > 0.8, 0.8 + 0.2 * np.tanh((image - 0.8) / 0.2), image)
    return (np.clip(image, 0, 1) ** np.float32(1 / gamma) * 255 + 0.5).astype(np.uint8)
