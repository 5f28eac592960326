"""Ground truth: the pixels that a defect changed, from two renderings of one part without noise."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mafr.data.synthetic.core.render import Rendering
from mafr.data.synthetic.core.rows import Array

ANGLE = 20.0  # degrees between normals that count as a change
COLOUR = 0.04  # difference of the gamma-corrected albedo (0 to 1) in any channel that counts as a change


@dataclass(frozen=True)
class Change:
    """A defect's pixels: (H, W) bool masks; `mask` is the cleaned union of the others."""

    mask: Array
    geometry: Array
    colour: Array


def changed(clean: Rendering, defective: Rendering, depth: float, smallest: int) -> Change:
    """Pixels that differ between two renderings of one part, without and with a defect.

    depth: least difference in distance (the renderings' unit). Connected groups of fewer than `smallest` pixels are
    dropped and pinholes closed. Pixels where both see only the ground never count, so shadows do not. A pixel's
    geometry only counts if the distance functions differ at a point seen there, which rules out rays that skim a
    silhouette and end differently by chance.
    """
    before, after = clean.hits, defective.hits
    both, apart = before.part & after.part, np.abs(before.distance - after.distance)
    turned = (before.normals * after.normals).sum(-1) < np.cos(np.deg2rad(ANGLE))
    geometry = ((before.part | after.part) & (apart > depth)) | (both & turned & (apart > depth / 4))
    pixels = np.flatnonzero(geometry)
    real = np.zeros(len(pixels), bool)
    for hits in (before, after):
        seen = hits.part.ravel()[pixels]
        if seen.any():
            points = hits.points.reshape(-1, 3)[pixels[seen]]
            real[seen] |= np.abs(clean.part.sdf(points) - defective.part.sdf(points)) > depth / 4
    geometry.flat[pixels] = real
    difference = np.abs(defective.look.albedo ** (1 / 2.2) - clean.look.albedo ** (1 / 2.2)).max(axis=1)
    colour = both & (difference.reshape(both.shape) > COLOUR) & (geometry | (apart < depth / 4))
    return Change(tidy(geometry | colour, smallest), geometry, colour)


def tidy(mask: Array, smallest: int, fill: bool = False) -> Array:
    """Close one-pixel gaps, on request fill holes too, and drop groups of fewer than `smallest` pixels."""
    closed = ndimage.binary_closing(np.pad(mask, 1), np.ones((3, 3), bool))[1:-1, 1:-1]
    names, _ = ndimage.label(ndimage.binary_fill_holes(closed) if fill else closed, np.ones((3, 3), int))
    large = np.bincount(names.ravel()) >= smallest
    large[0] = False
    return large[names]
