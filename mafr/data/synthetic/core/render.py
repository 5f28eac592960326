"""A small renderer for solid models: sphere tracing, shading, a sensor. Unit-agnostic (any length).

The world is the part's own frame: the part stands on the plane z = 0 (a table or a conveyor), z is up, and a part is
turned or shifted by moving the camera. Trace once, shade often:

    hits = trace(camera, part, eps=0.03)  # Hits: seen points, normals, distances
    look = look_of(hits, part.surface, ground_surface)  # Surface, one row per pixel
    shadow = soft_shadow(hits, part, light.position, softness=8, steps=12, start=0.8)  # (H·W,) in [0, 1]
    image = shade(hits, look, [light, ...], ambient, shadows=[shadow, ...])  # (H, W, 3) linear
    rgb = develop(image, rng, exposure=1.0, blur=0.5, noise=0.01, vignette=0.2)  # (H, W, 3) uint8
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from mafr.data.synthetic.core import loops
from mafr.data.synthetic.core.part import Look, Part, Surface
from mafr.data.synthetic.core.rows import Array, Field, Rng, length, row_dot, take, unit


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion: x right, y down, z forward.

    Pixel (row v, column u) looks along ((u - cx)/focal, (v - cy)/focal, 1): rays pass through integer coordinates.
    """

    focal: float  # pixels, as the next four
    cx: float
    cy: float
    width: int
    height: int
    rotation: Array  # (3, 3), the camera's axes in the world as columns
    origin: Array  # (3,), the camera's place in the world

    @classmethod
    def look_at(cls, eye: object, target: object, roll: float, focal: float, width: int, height: int) -> Camera:
        """From `eye` towards `target`, principal point at W/2, H/2, rolled by radians.

        At roll 0 the world's y axis points up in the image (x to the right, seen from above).
        """
        eye, forward = np.asarray(eye, float), np.asarray(target, float) - np.asarray(eye, float)
        forward /= np.linalg.norm(forward)
        up = np.array([0.0, 1.0, 0.0]) if abs(forward[1]) < 0.95 else np.array([0.0, 0.0, 1.0])
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        c, s = np.cos(roll), np.sin(roll)
        rotation = np.stack([c * right + s * down, c * down - s * right, forward], axis=1).astype(np.float32)
        return cls(float(focal), width / 2, height / 2, int(width), int(height), rotation, eye.astype(np.float32))

    def directions(self) -> Array:
        """Unit directions of all pixels' rays in the world, (H·W, 3) float32."""
        v, u = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32).reshape(2, -1)
        rays = np.stack([(u - self.cx) / self.focal, (v - self.cy) / self.focal, np.ones_like(u)]).T
        return (self.rotation @ unit(rays.astype(np.float32)).T).T

    def to_camera(self, points: Array) -> Array:
        """World to camera coordinates, (..., 3)."""
        return (points - self.origin) @ self.rotation

    def project(self, points: Array) -> tuple[Array, Array, Array]:
        """Pixel coordinates u, v and depth z of world points."""
        q = self.to_camera(points)
        z = q[..., 2]
        return q[..., 0] / z * self.focal + self.cx, q[..., 1] / z * self.focal + self.cy, z


@dataclass(frozen=True)
class Hits:
    """First hit of each pixel's ray; 0 where nothing is hit."""

    camera: Camera
    part: Array  # (H, W) bool
    ground: Array  # (H, W) bool
    distance: Array  # (H, W), along the ray
    points: Array  # (H, W, 3), world
    normals: Array  # (H, W, 3), world

    @property
    def seen(self) -> Array:
        """(H, W) bool, true where the part or the ground is hit."""
        return self.part | self.ground

    def xyz(self) -> Array:
        """(H, W, 3) points in camera coordinates; zeros where nothing is hit."""
        return np.where(self.seen[..., None], self.camera.to_camera(self.points), 0)

    @property
    def facing(self) -> Array:
        """(H, W) cosine between the normal and the direction to the camera."""
        return np.abs(row_dot(unit(self.points - self.camera.origin), self.normals))


@dataclass(frozen=True)
class Rendering:
    """A part as the camera sees it, without noise: `look` holds one row per pixel."""

    part: Part
    hits: Hits
    look: Surface


@dataclass(frozen=True)
class Light:
    """A point light, or a spotlight if it has an axis."""

    position: Array  # (3,)
    colour: Array  # (3,) linear, its strength at the distance `reach` included
    reach: float
    axis: Array | None = None  # (3,), the unit direction a spotlight shines in
    cone: tuple[float, float] = (0.8, 0.9)  # the cosines of a spotlight's outer and inner half angle

    def arriving(self, points: Array) -> tuple[Array, Array]:
        """Unit directions towards the light (N, 3) and its strength at each point (N,)."""
        towards = np.asarray(self.position, np.float32) - points
        far = length(towards)
        towards = towards / far[:, None]
        strength = (np.float32(self.reach) / far) ** 2
        if self.axis is not None:
            inside = -(towards @ unit(self.axis))
            s = np.clip((inside - self.cone[0]) / (self.cone[1] - self.cone[0]), 0, 1)
            strength = strength * (s * s * (3 - 2 * s))
        return towards, strength.astype(np.float32)


def box_ends(origin: Array, directions: Array, box: Array) -> tuple[Array, Array]:
    """Distances at which rays enter and leave an axis-aligned box; enter > leave where they miss it."""
    enter, leave = np.empty((2, len(directions)), np.float32)
    loops.box_ends(np.broadcast_to(origin, directions.shape).T, directions.T, box, enter, leave)
    return enter, leave


def along(origin: Array, far: Array, directions: Array) -> Array:
    """origin + far · directions: (N, 3), or (3,), (N,) and (N, 3) -> (N, 3)."""
    out = np.empty((3, len(far)), np.float32)
    loops.along(np.broadcast_to(origin, directions.shape).T, far, directions.T, out)
    return out.T


def trace(camera: Camera, part: Part, eps: float) -> Hits:
    """First hit of every pixel's ray with a part or the plane z = 0. eps: distance that counts as a hit.

    Normals are finite differences over half a pixel's footprint, so detail finer than a pixel does not alias.
    """
    sdf, step = part.sdf, np.float32(part.step)
    rays, origin = camera.directions(), camera.origin
    with np.errstate(divide="ignore"):
        limit = -origin[2] / rays[:, 2]
    limit = np.where(limit > 0, limit, np.inf).astype(np.float32)
    enter, leave = box_ends(origin, rays, np.asarray(part.box, np.float32))
    leave = np.minimum(leave, limit)
    active = np.flatnonzero(enter < leave)
    t, end, d = enter[active].astype(np.float32), leave[active], take(rays, active)
    found = np.full(len(rays), np.inf, np.float32)
    for _ in range(64):
        if not len(active):
            break
        distance = sdf(along(origin, t, d))
        left = loops.advance(distance, np.float32(eps), np.float32(eps / 2), step, t, end, d.T, active, found)
        active, t, end, d = active[:left], t[:left], end[:left], d[:left]
    else:
        # Rays that skim along a silhouette run out of steps: take those that are near the surface as hits.
        if len(active):
            near = sdf(along(origin, t, d)) < 4 * eps
            found[active[near]] = t[near]
    on_part = np.isfinite(found)
    chosen = np.flatnonzero(on_part)
    if len(chosen):  # one last small step makes the depth exact to a fraction of eps
        p = origin + found[chosen, None] * take(rays, chosen)
        found[chosen] += np.clip(sdf(p), -eps, eps) * step
    on_ground = ~on_part & np.isfinite(limit)
    far = np.where(on_part, found, np.where(on_ground, limit, 0)).astype(np.float32)
    points = origin + far[:, None] * rays
    normals = np.zeros_like(points)
    normals[on_ground] = (0, 0, 1)
    if len(chosen):
        normals[chosen] = _normals(sdf, take(points, chosen), 0.5 * float(np.median(far[chosen])) / camera.focal)
    points = (points * (on_part | on_ground)[:, None]).astype(np.float32)
    shape = (camera.height, camera.width)
    flat, vectors = (on_part, on_ground, far), (points, normals)
    return Hits(camera, *(x.reshape(shape) for x in flat), *(x.reshape(*shape, 3) for x in vectors))


_TETRAHEDRON = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)


def _normals(sdf: Field, points: Array, reach: float) -> Array:
    """Unit normals by finite differences over a tetrahedron of half edge `reach`. (N, 3) -> (N, 3)."""
    total = np.zeros_like(points)
    for corner in _TETRAHEDRON:
        total += corner * sdf(points + corner * np.float32(reach))[:, None]
    return unit(total)


def look_of(hits: Hits, part_surface: Look, ground_surface: Look) -> Surface:
    """The surface that each pixel sees, H·W rows; black where nothing is hit."""
    n = hits.part.size
    black, ones = np.zeros((n, 3), np.float32), np.ones(n, np.float32)
    out = Surface(black, 0 * ones, ones, 0 * ones)
    for mask, surface in ((hits.part.ravel(), part_surface), (hits.ground.ravel(), ground_surface)):
        if not mask.any():
            continue
        seen = surface(*(take(field.reshape(-1, 3), mask) for field in (hits.points, hits.normals))).full()
        out.albedo[mask], out.specular[mask] = seen.albedo, seen.specular
        out.shininess[mask], out.wrap[mask] = seen.shininess, seen.wrap
    return out


def soft_shadow(hits: Hits, part: Part, position: object, softness: float, steps: int, start: float) -> Array:
    """Light let through towards `position`, (H·W,) in [0, 1]: 0 in full shadow.

    softness: smaller is a larger light. start: distance from the surface at which to begin (a few eps; keeps the
    surface from shading itself). Where it is above 0.5, a projector at `position` reaches the surface.
    """
    box = np.asarray(part.box, np.float32)
    points, normals = (np.asfortranarray(field.reshape(-1, 3)) for field in (hits.points, hits.normals))
    towards = unit(np.asarray(position, np.float32) - points)
    out = np.ones(len(points), np.float32)
    seen = hits.seen.ravel()
    away = row_dot(towards, normals) <= 0.02
    out[seen & away] = 0.0
    chosen = np.flatnonzero(seen & ~away)
    origin, d = take(points, chosen) + take(normals, chosen) * np.float32(start), take(towards, chosen)
    enter, leave = box_ends(origin, d, box)
    t = np.maximum(enter, start)
    stay = t < leave
    chosen, origin, d, t, leave = chosen[stay], take(origin, stay), take(d, stay), t[stay], leave[stay]
    limits = np.float32([softness, float((box[1] - box[0]).max()) / steps * 0.4, 0.02])
    for _ in range(steps):
        if not len(chosen):
            break
        distance = part.shadows(along(origin, t, d))
        left = loops.darken(distance, *limits, t, leave, origin.T, d.T, chosen, out)
        chosen, origin, d, t, leave = chosen[:left], origin[:left], d[:left], t[:left], leave[:left]
    return out


def ambient_occlusion(hits: Hits, part: Part, reach: float, strength: float) -> Array:
    """Openness of the surroundings, (H·W,) in [0, 1], from the distances to part and ground at reach/3 and reach."""
    box = np.asarray(part.box, np.float32)
    points, normals = (np.asfortranarray(field.reshape(-1, 3)) for field in (hits.points, hits.normals))
    out = np.ones(len(points), np.float32)
    near = ((points > box[0] - reach) & (points < box[1] + reach)).all(axis=1)
    chosen = np.flatnonzero(hits.seen.ravel() & near)
    if not len(chosen):
        return out
    closed = np.zeros(len(chosen), np.float32)
    for h in (reach / 3, reach):
        q = take(points, chosen) + take(normals, chosen) * np.float32(h)
        room = np.minimum(part.shadows(q), np.maximum(q[:, 2], 0))
        closed += 0.5 * np.clip(1 - room / np.float32(h), 0, 1)
    out[chosen] = np.clip(1 - np.float32(strength) * closed, 0, 1)
    return out


def shade(
    hits: Hits, look: Surface, lights: Sequence[Light], ambient: object,
    shadows: Sequence[Array] = (), occlusion: Array | None = None,
) -> Array:  # fmt: skip
    """Light that reaches the camera, (H, W, 3) float32 linear: ambient + diffuse (wrapped) + Blinn-Phong.

    ambient: a number or a colour. shadows: (H·W,) per light. occlusion: (H·W,), of the ambient term.
    """
    look = look.full()
    seen = np.flatnonzero(hits.seen.ravel())
    points, normals = (take(field.reshape(-1, 3), seen) for field in (hits.points, hits.normals))
    albedo, wrap = take(look.albedo, seen), look.wrap[seen]
    specular, shininess = look.specular[seen], look.shininess[seen]
    view = unit(hits.camera.origin - points)
    openness = np.ones(len(seen), np.float32) if occlusion is None else occlusion[seen]
    light = _coloured(np.broadcast_to(np.asarray(ambient, np.float32), (3,)), openness)
    glossy = np.zeros((3, len(seen)), np.float32).T
    shiny = np.flatnonzero(specular > 1e-4)
    for lamp, shadow in zip(lights, shadows, strict=True):
        towards, strength = lamp.arriving(points)
        strength = strength * shadow[seen]
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
    """(3,) and (N,) -> (N, 3), one channel after the other in memory."""
    return (colour[:, None] * strength).T


def develop(image: Array, rng: Rng, blur: float, noise: float, vignette: float, exposure: float = 1.0) -> Array:
    """Linear light to an 8-bit image: lens blur (pixels), vignetting, shot and read noise, gamma. (H, W, 3) uint8."""
    image = gaussian_filter(image, (blur, blur, 0))
    image = image * np.float32(exposure) * _vignette(*image.shape[:2], vignette)[..., None]
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + np.float32(noise) * np.sqrt(np.maximum(image, 0) + 0.02) * grain
    # A soft shoulder instead of a hard clip, as in a camera's tone curve.
    bright = image > 0.8
    image[bright] = 0.8 + 0.2 * np.tanh((image[bright] - 0.8) / 0.2)
    return (np.clip(image, 0, 1) ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=4)
def _vignette(height: int, width: int, strength: float) -> Array:
    """The light that a lens lets through, (H, W): less towards the corners."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return 1 - np.float32(strength) * (x * x + y * y) / 2
