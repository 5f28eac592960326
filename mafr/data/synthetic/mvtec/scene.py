"""The scanner over the table, and the photograph that it takes of a part."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from mafr.data.synthetic.core import render, sdf
from mafr.data.synthetic.core.operations import plain_look
from mafr.data.synthetic.core.part import Look, Part
from mafr.data.synthetic.core.render import Rendering
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.mvtec.recipe import Recipe


@dataclass(frozen=True)
class Scanner:
    """A scanner over the table, in the frame of one part; lengths in mm."""

    camera: render.Camera
    lamp: render.Light
    ambient: Array
    projector: Array  # its place, (3,)
    table: Look
    exposure: float  # of the projector's pattern
    tolerance: float  # of the rays' ends

    @classmethod
    def draw(cls, recipe: Recipe, rng: Rng, width: int, height: int) -> Scanner:
        """The scanner over one part of a recipe, for images of width x height pixels."""
        tilt = np.deg2rad(recipe.tilt + rng.normal(0, 0.25))
        distance = recipe.distance * (1 + rng.normal(0, 0.004))
        eye = np.array([rng.normal(0, 1.0), -distance * np.sin(tilt), distance * np.cos(tilt)])
        eye[0] += distance * np.sin(np.deg2rad(recipe.lean))
        camera = render.Camera.look_at(
            eye, (0, 0, 6), np.deg2rad(rng.normal(0, 0.3)), focal(recipe, width, height), width, height
        )
        azimuth = np.deg2rad(recipe.azimuth + rng.normal(0, 8))
        elevation = np.deg2rad(recipe.elevation + rng.normal(0, 3))
        lamp = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        lamp = 500 * lamp
        warm = recipe.warmth * (1 + rng.normal(0, 0.02))
        colour = recipe.lamp * rng.normal(1, 0.05) * np.array([warm, 1.0, 1 / warm])
        ambient = recipe.ambient * rng.normal(1, 0.04) * np.array([0.98, 1.0, 1.03])
        projector = eye + np.array([recipe.baseline, 0.0, 0.0])
        # The scanner is turned and shifted about the part rather than the part on the table: see `render`.
        turn = sdf.rotation("z", np.deg2rad(rng.uniform(-recipe.spin, recipe.spin)))
        shift = np.append(rng.uniform(-recipe.shift, recipe.shift, 2), 0.0)
        origin = (turn @ (camera.origin + shift)).astype(np.float32)
        camera = dataclasses.replace(camera, rotation=turn @ camera.rotation, origin=origin)
        light = render.Light(turn @ (lamp + shift), colour, reach=500.0)
        table = plain_look(recipe.table, recipe.table_gloss, 8.0, 0.0, 0.10, 0.08, int(rng.integers(1 << 31)))
        return cls(camera, light, ambient, turn @ (projector + shift), table, recipe.exposure, recipe.tolerance)


def focal(recipe: Recipe, width: int, height: int) -> float:
    """The camera's focal length in pixels."""
    return max(width, height) * recipe.distance / recipe.view


def see(part: Part, scanner: Scanner) -> Rendering:
    """A part on the table as the camera sees it, without noise."""
    hits = render.trace(scanner.camera, part, eps=scanner.tolerance)
    return Rendering(part, hits, render.look_of(hits, part.surface, scanner.table))


def photograph(view: Rendering, scanner: Scanner, rng: Rng) -> Array:
    """The camera's image, (H, W, 3) uint8."""
    hits, lamp = view.hits, scanner.lamp
    shadow = render.soft_shadow(hits, view.part, lamp.position, softness=7, steps=12, start=0.8)
    occlusion = render.ambient_occlusion(hits, view.part, 10.0, 0.85)
    image = render.shade(hits, view.look, [lamp], scanner.ambient, [shadow], occlusion)
    return render.develop(image, rng, exposure=rng.normal(1, 0.02), blur=0.55, noise=0.012, vignette=0.18)
