"""The scene in which candies are photographed: one camera, a belt (z = 0), four spotlights and a global light.

World: x right, y along the belt away from the camera, z up. The camera looks down at an angle, so that in camera
coordinates (x right, y down, z forward) the belt runs away from the bottom row to the top row, as the published
cropping expects: it levels the belt by those two rows, keeps what lies 0.02 above it, and drops what is more than
1.8 along the belt from the bottom row or more than 1 to a side.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from mafr.data.eyecandies import FOCAL, FOCAL_WIDTH
from mafr.data.synthetic.core import render as r
from mafr.data.synthetic.core.noise import fbm, noise, smoothstep
from mafr.data.synthetic.core.part import Part
from mafr.data.synthetic.core.rows import Array, Rng, unit
from mafr.data.synthetic.eyecandies.candy import Candy, colour

_DISTANCE, _ELEVATION = 2.15, np.deg2rad(60.0)
# World to camera, the matrix of pose.txt, to be used as `K · pose`; world axes as in the published poses: parallel to
# the camera's. The small sideways shift keeps x = 0, which later stands for "no point", away from the middle column.
POSE = np.array([[1, 0, 0, 0.0125], [0, 1, 0, 0.03], [0, 0, 1, _DISTANCE], [0, 0, 0, 1]])
_SPOTS = ((0.0, -1.5), (1.5, 0.0), (0.0, 1.5), (-1.5, 0.0))  # bottom, right, top, left: x, y, all 1.6 high
EPS = 0.0012  # distance that counts as a hit


def camera_of(side: int) -> r.Camera:
    """The camera for images of `side` pixels."""
    eye = (0.0, -_DISTANCE * np.cos(_ELEVATION), _DISTANCE * np.sin(_ELEVATION))
    return r.Camera.look_at(eye, (0, 0, 0), 0.0, FOCAL * side / FOCAL_WIDTH, side, side)


def retrace(hits: r.Hits, part: Part, middle: Array, reach: float) -> r.Hits:
    """`hits` again for a part that only changed within `reach` of `middle` (3,).

    Pixels whose ray passes farther off are kept as they are, so that nothing else can seem changed.
    """
    camera = hits.camera
    u, v, z = camera.project(middle)
    extent = 1.2 * reach * camera.focal / z + 3
    left, top = max(int(u - extent), 0), max(int(v - extent), 0)
    right, bottom = min(int(u + extent) + 2, camera.width), min(int(v + extent) + 2, camera.height)
    size = {"width": right - left, "height": bottom - top}
    window = dataclasses.replace(camera, cx=camera.cx - left, cy=camera.cy - top, **size)
    inner = r.trace(window, part, EPS)
    towards = middle - camera.origin
    aside = towards - window.directions() * (window.directions() @ towards)[:, None]
    affected = (np.linalg.norm(aside, axis=1) < reach).reshape(inner.part.shape)
    fields = {}
    for name in ("part", "ground", "distance", "points", "normals"):
        whole = getattr(hits, name).copy()
        whole[top:bottom, left:right][affected] = getattr(inner, name)[affected]
        fields[name] = whole
    return r.Hits(camera, **fields)


def wrinkled(hits: r.Hits, strength: Array | float, length: float, seed: int, where: Array) -> r.Hits:
    """Normals turned by a fine relief, the surface itself left as it is.

    strength: about the tangent of the turn, a number or one per pixel of `where` (H, W) bool. length: wave length.
    """
    points, normals = hits.points[where] / np.float32(length), hits.normals[where]
    turn = np.stack([noise(points, seed + k) for k in range(3)], axis=1)
    turn -= (turn * normals).sum(1, keepdims=True) * normals
    changed = hits.normals.copy()
    changed[where] = unit(normals + turn * np.asarray(strength, np.float32).reshape(-1, 1))
    return dataclasses.replace(hits, normals=changed)


def grained(hits: r.Hits, candy: Candy) -> r.Hits:
    """Normals with the candy's own grain."""
    return wrinkled(hits, *candy.grain, candy.seed, hits.part)


@dataclass(frozen=True)
class Scene:
    """Lamps and belt, which vary between shots as the candy does."""

    spots: tuple[r.Light, ...]  # in the order of image_1 to image_4
    ambient: Array  # (3,), colour of the global light
    belt_tone: Array  # (3,), mean albedo
    belt_seed: int

    @classmethod
    def draw(cls, rng: Rng) -> Scene:
        """A scene with lamps a little off their marks."""
        spots = []
        for x, y in _SPOTS:
            place = np.array([x, y, 1.6]) + rng.normal(0, 0.06, 3)
            aim = np.array([rng.normal(0, 0.05), rng.normal(0, 0.05), 0.1])
            axis = (aim - place) / np.linalg.norm(aim - place)
            strength = 1.45 * np.exp(rng.normal(0, 0.06))
            warm = np.array([1.0, 0.97, 0.92]) * np.exp(rng.normal(0, 0.012, 3))
            spots.append(r.Light(place, warm * strength, 2.2, axis=axis, cone=(0.80, 0.93)))
        ambient = np.array([0.80, 0.82, 0.85]) * np.exp(rng.normal(0, 0.04))
        tone = colour(74, 78, 84) * np.exp(rng.normal(0, 0.05))
        return cls(tuple(spots), ambient.astype(np.float32), tone.astype(np.float32), int(rng.integers(1 << 40)))

    def belt(self, p: Array, normals: Array) -> r.Surface:
        """The look of the belt: dull rubber with faint streaks along it."""
        stretched = p * np.array([9, 3, 0], np.float32)
        streaks = 1 + 0.06 * fbm(stretched, self.belt_seed, 2) + 0.05 * noise(p * np.float32(60), self.belt_seed + 9)
        return r.Surface(self.belt_tone * streaks[:, None])  # not shiny: no highlight to compute

    def images(self, view: r.Rendering, rng: Rng) -> list[Array]:
        """The six images, (H, W, 3) uint8: all spotlights; bottom, right, top, left; global light."""
        hits, look = view.hits, view.look
        openness = r.ambient_occlusion(hits, view.part, 0.16, 0.8)
        hemisphere = 0.6 + 0.4 * hits.normals[..., 2].ravel()  # light from above is stronger
        glow = r.shade(hits, look, [], self.ambient, occlusion=openness * hemisphere)
        # Light that is scattered inside reaches where the lamp does not.
        see_through = np.where(hits.part.ravel(), 1.2 * look.full().wrap, 0)
        normals, points = hits.normals.reshape(-1, 3), hits.points.reshape(-1, 3)
        singles = []
        for spot in self.spots:
            shadow = r.soft_shadow(hits, view.part, spot.position, softness=9.0, steps=10, start=0.04)
            # Fade towards grazing light, where tracing from a point beside the surface is ragged.
            towards = unit(np.asarray(spot.position, np.float32) - points)
            grazing = smoothstep(0.0, 0.25, np.einsum("ij,ij->i", towards, normals))
            shadow = np.maximum(shadow * grazing, see_through)
            singles.append(r.shade(hits, look, [spot], 0.0, shadows=[shadow]))
        light = [0.5 * sum(singles) + 0.12 * glow, *(single + 0.14 * glow for single in singles), glow]
        blur = 0.4 * hits.camera.width / 200
        return [r.develop(image, rng, blur=blur, noise=0.010, vignette=0.1) for image in light]
