"""What a structured-light scanner measures of a part: points with noise and gaps, by the first and second generator.

The second one follows the real scans of the cable gland, as `mafr.data.survey` measures them: points are precise where
much of the projected pattern returns, noisy or missing where the surface is dark, steep or turned away, and missing or
between two surfaces at a silhouette. The table is black: half of its points are missing.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.ndimage import gaussian_filter

from mafr.data.synthetic.core import render
from mafr.data.synthetic.core.render import Rendering
from mafr.data.synthetic.core.rows import Array, Rng, row_dot, unit
from mafr.data.synthetic.mvtec.scene import Scanner

# Of the second generator. Light is a share of what a white surface returns that faces camera and projector.
_TABLE_LIGHT = 0.046  # that returns from the table
_LEAST_LIGHT = 0.042  # that is needed to measure a point, in the middle; e-fold about it: _SPREAD
_SPREAD = 0.30
_ALONE, _ALIKE, _BLUR = 0.6, 3.6, 1.5  # shares of noise that each pixel has alone, and alike within _BLUR pixels
_NOISE, _FALL = 0.0015, 1.3  # mm along the ray at _DISTANCE where all light returns; it grows as light ** -_FALL
_RIPPLE = 0.004  # mm, smooth over some pixels
_DISTANCE = 650.0  # mm
_JUMP = 2.0  # mm between neighbours that make a silhouette
_STRAYS = 0.015  # of a silhouette's points lie between the two surfaces
_RIMS = (0.45, 0.20)  # of the points one and two pixels from a silhouette are missing
_LOST = 0.004  # of the other points are missing
_GLARE = 0.20  # strength of the mirrored projector that hides the pattern


def first(view: Rendering, scanner: Scanner, rng: Rng) -> Array:
    """The points that the first generator's scanner reports: (H, W, 3) metres, zeros where there is none."""
    hits, look, facing = view.hits, view.look, view.hits.facing
    shape = hits.part.shape
    jitter = rng.random(shape, dtype=np.float32)
    valid = hits.seen & _lit(view, scanner) & (facing > 0.10 + 0.12 * jitter)
    # The projected pattern drowns on black and mirrors away on glossy spots that face the projector.
    glint = _glint(view, scanner)
    returned = look.albedo.mean(axis=1).reshape(shape) * facing
    valid &= (glint < 0.20) | (jitter > 0.6)
    valid &= (returned > 0.012) | (jitter > 0.35)
    valid &= rng.random(shape, dtype=np.float32) > 0.0015
    grain = rng.standard_normal(shape, dtype=np.float32)
    ripple = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.5) * 5
    offset = (0.10 * grain / np.maximum(facing, 0.3) + 0.05 * ripple).astype(np.float32)
    return _points(view, offset, valid)


def second(view: Rendering, scanner: Scanner, rng: Rng) -> Array:
    """The points that the second generator's scanner reports, as `first`."""
    hits, facing = view.hits, view.hits.facing
    shape = hits.part.shape
    towards = unit(scanner.projector - hits.points)
    lighted = np.maximum(row_dot(towards, hits.normals), 0)
    light = view.look.albedo.mean(axis=1).reshape(shape) * lighted * scanner.exposure
    # From how far the camera sees it does not matter, but a pixel of a steep surface covers a slope.
    light = np.where(hits.ground, np.float32(_TABLE_LIGHT), light) * np.minimum(1, facing / 0.3)
    chance = np.exp(np.float32(_SPREAD) * _connected(shape, rng))
    valid = hits.seen & _lit(view, scanner) & (light * chance > _LEAST_LIGHT)
    valid &= _glint(view, scanner) * scanner.exposure < _GLARE * chance
    rim = _silhouette(hits.distance)
    rings = rim, ndimage.binary_dilation(rim, np.ones((3, 3), bool)) & ~rim
    lost = np.full(shape, _LOST, np.float32)
    for ring, share in zip(rings, _RIMS, strict=True):
        lost[ring] = share
    valid &= rng.random(shape, dtype=np.float32) > lost
    far = hits.distance / np.float32(_DISTANCE)
    grain = rng.standard_normal(shape, dtype=np.float32) * np.float32(_NOISE) / np.maximum(light, 0.02) ** _FALL
    ripple = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 2.0) * np.float32(7 * _RIPPLE)
    offset = (grain + ripple) * far * far
    stray = rim & (rng.random(shape, dtype=np.float32) < _STRAYS)
    low, high = _range(hits.distance)
    between = low + (high - low) * rng.random(shape, dtype=np.float32)
    offset[stray] = (between - hits.distance)[stray]
    return _points(view, offset.astype(np.float32), valid)


SENSORS = {"first": first, "second": second}


def _connected(shape: tuple[int, ...], rng: Rng) -> Array:
    """(H, W) noise with a deviation near 1, partly alike in neighbouring pixels, so that gaps connect."""
    alone, alike = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return np.float32(_ALONE) * alone + np.float32(_ALIKE) * gaussian_filter(alike, _BLUR)


def _lit(view: Rendering, scanner: Scanner) -> Array:
    """(H, W) bool, true where the projector's light arrives."""
    lit = render.soft_shadow(view.hits, view.part, scanner.projector, softness=80, steps=12, start=0.8) > 0.5
    return lit.reshape(view.hits.part.shape)


def _glint(view: Rendering, scanner: Scanner) -> Array:
    """(H, W): strength of the projector's mirror image."""
    hits = view.hits
    half = unit(unit(scanner.camera.origin - hits.points) + unit(scanner.projector - hits.points))
    return view.look.specular.reshape(hits.part.shape) * np.maximum((half * hits.normals).sum(-1), 0) ** 60


def _range(distance: Array) -> tuple[Array, Array]:
    """The least and the largest distance of the 3 x 3 pixels around each one."""
    return ndimage.minimum_filter(distance, 3), ndimage.maximum_filter(distance, 3)


def _silhouette(distance: Array) -> Array:
    """(H, W) bool, true at pixels from which the distance jumps by more than a slope of the surface explains."""
    bent = np.abs(ndimage.laplace(distance, mode="nearest"))
    low, high = _range(distance)
    return (bent > _JUMP) & (high - low > _JUMP)


def _points(view: Rendering, offset: Array, valid: Array) -> Array:
    """The points of the valid pixels, moved along their rays by offset (H, W) mm; metres."""
    stretch = 1 + offset / np.maximum(view.hits.distance, 1)
    return (view.hits.xyz() * (stretch * valid)[..., None] * np.float32(1e-3)).astype(np.float32)
