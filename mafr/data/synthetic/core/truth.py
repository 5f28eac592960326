"""Ground truth: what a defect changed, from two renders of one part without noise (`changed`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mafr.data.synthetic.core.part import Part
from mafr.data.synthetic.core.render import Hits, Surface

Array = np.ndarray


@dataclass(frozen=True)
class Change:
    """What a defect changed: (H, W) bool masks; `mask` is their cleaned union."""

    mask: Array
    geometry: Array
    colour: Array


def changed(
    clean: Hits, spoilt: Hits, clean_look: Surface, spoilt_look: Surface, depth: float, angle: float = 20.0,
    colour: float = 0.04, smallest: int = 4, parts: tuple[Part, Part] | None = None,
) -> Change:  # fmt: skip
    """Pixels that differ between two noise-free renders of one part, with and without a defect.

    depth: least difference in distance (the renders' unit). angle: of the normals, degrees. colour: of the albedo, in
    gamma-corrected units (0..1) in any channel. Connected groups of fewer than `smallest` pixels are dropped and
    pinholes closed. Pixels where both see only the ground never count, so shadows do not. parts: the clean and the
    spoilt part; then a pixel's geometry only counts if their distance functions differ at a point seen there, which
    rules out rays that skim a silhouette and end differently by chance.
    """
    either = clean.part | spoilt.part
    geometry = either & (np.abs(clean.distance - spoilt.distance) > depth)
    turned = (clean.normals * spoilt.normals).sum(-1) < np.cos(np.deg2rad(angle))
    geometry |= clean.part & spoilt.part & turned & (np.abs(clean.distance - spoilt.distance) > depth / 4)
    if parts is not None:
        rows = np.flatnonzero(geometry)
        real = np.zeros(len(rows), bool)
        for hits in (clean, spoilt):
            seen = hits.part.ravel()[rows]
            if seen.any():
                points = hits.points.reshape(-1, 3)[rows[seen]]
                real[seen] |= np.abs(parts[0].sdf(points) - parts[1].sdf(points)) > depth / 4
        geometry.ravel()[rows] = real
    same_place = np.abs(clean.distance - spoilt.distance) < depth / 4
    difference = np.abs(spoilt_look.albedo ** (1 / 2.2) - clean_look.albedo ** (1 / 2.2)).max(axis=1)
    tinted = clean.part & spoilt.part & (difference.reshape(either.shape) > colour) & (geometry | same_place)
    return Change(_tidy(geometry | tinted, smallest), geometry, tinted)


def _tidy(mask: Array, smallest: int) -> Array:
    """Close one-pixel gaps and drop small groups."""
    padded = np.pad(mask, 1)
    closed = ndimage.binary_closing(padded, np.ones((3, 3), bool))[1:-1, 1:-1] | mask
    names, count = ndimage.label(closed, np.ones((3, 3), int))
    sizes = np.bincount(names.ravel(), minlength=count + 1)
    keep = sizes >= smallest
    keep[0] = False
    return keep[names]
