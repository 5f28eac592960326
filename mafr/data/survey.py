"""Statistics of raw scans: gaps, noise, silhouettes, the part's share of the image, and the sizes of defects.

They say how kind a scanner was, so that generated scans can be held against real ones. Lengths are mm and what they are
measured over is given in mm, so that scans of other resolutions compare; where that cannot be, a statistic says so.
Areas and widths are as the camera sees them, at the part's distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from mafr.data.mvtec3d import clean_cloud
from mafr.data.transforms import crop_square, mask_tensor, xyz_tensor
from mafr.errors import DataError

WINDOW = 5  # pixels of the sides of the patches in which noise is measured
ANGLES = (0, 30, 50, 70)  # degrees between normal and ray, the bounds of three classes
CLOSED = 2.0  # mm of the widest gap that is closed to find the part's outline
SEEN_THROUGH = 0.3  # of a wider hole's pixels have a point of the table where it leads through the part
APART = 4.0  # mm between the part's outline and what counts as table
RIM = 0.5  # mm, how far within the outline points are the rim's
STRAY = 2.0  # mm from all points of neighbouring pixels at which a point of the rim is a stray
SMOOTHED = 1.0  # mm, the radius of the median filter that makes a ragged silhouette smooth
SIDE, CELL = 224, 8  # pixels of the resized image, and of a cell of the 28 x 28 grid
_NEAR = 2  # pixels, how far neighbouring pixels are when strays are sought


@dataclass(frozen=True)
class Statistic:
    """One measured number: its name in the table, its unit and the decimals in print."""

    title: str
    unit: str
    decimals: int = 1


STATISTICS = {
    "valid": Statistic("pixels with a point, raw", "%"),
    "kept": Statistic("pixels with a point, cleaned", "%"),
    "table": Statistic("table pixels with a point", "%"),
    "outline": Statistic("part within its outline, of the image", "%"),
    "frame": Statistic("square around the part, of the image", "%"),
    "gaps": Statistic("pixels without a point within the outline", "%"),
    "holes": Statistic("connected holes of such pixels", "holes", 0),
    "hole_median": Statistic("median hole, weighted by area", "mm²", 2),
    "hole_largest": Statistic("largest hole", "mm²", 2),
    "ragged": Statistic("raggedness of the silhouette", "mm", 3),
    "noise_0": Statistic("noise of the part, 0 to 30° off the ray", "µm"),
    "noise_30": Statistic("noise of the part, 30 to 50° off the ray", "µm"),
    "noise_50": Statistic("noise of the part, 50 to 70° off the ray", "µm"),
    "noise_table": Statistic("noise of the table", "µm"),
    "strays": Statistic("points of the rim off the surface", "%", 2),
    "points": Statistic("points of the part at 224 pixels", "points", 0),
}
DEFECT_STATISTICS = {
    "share": Statistic("defect, of the part", "%"),
    "area": Statistic("defect", "mm²"),
    "pixels": Statistic("defect at 224 pixels", "px", 0),
    "cells": Statistic("defect in cells of 28 × 28", "cells", 0),
}


@dataclass(frozen=True)
class _Cleaned:
    """A scan and its part: (H, W) bool arrays, a pixel's width in mm, and the cleaned cloud as a square."""

    square: np.ndarray
    part: np.ndarray
    valid: np.ndarray
    pixel: float

    @classmethod
    def of(cls, xyz: np.ndarray, path: Path, plane: str) -> _Cleaned:
        square, valid = clean_cloud(xyz, plane, path), (xyz != 0).any(axis=2)
        part = (crop_square(square, *xyz.shape[:2]) != 0).any(axis=2)
        pixel = pixel_size(xyz, part)
        if not pixel > 0:
            raise DataError(f"{path}: no two neighbouring pixels of the part have a point: too few to be measured")
        return cls(square, part, valid, pixel)

    def pixels(self, length: float) -> int:
        """A length in mm, in whole pixels, at least one."""
        return max(1, round(length / self.pixel))

    def outline(self) -> np.ndarray:
        """The part with its gaps closed; where a large hole shows the table, as a ring's does, it stays."""
        width = max(3, self.pixels(CLOSED)) | 1
        closing = np.ones((width, width), bool)
        closed = ndimage.binary_closing(np.pad(self.part, width), closing)[width:-width, width:-width]
        filled = ndimage.binary_fill_holes(closed)
        names, count = ndimage.label(filled & ~closed)
        numbers = np.arange(1, count + 1)
        through = ndimage.mean(self.valid & ~self.part, names, numbers) > SEEN_THROUGH if count else np.zeros(0)
        return filled & ~np.isin(names, numbers[np.asarray(through, bool)])


def survey_scan(xyz: np.ndarray, path: Path, plane: str = "remove") -> dict[str, float]:
    """`STATISTICS` of one raw scan, (H, W, 3) float32 metres with zeros where there is no point.

    What a scan does not have gives NaN: a class of angles, a table (plane "none"), the median hole where nothing is
    missing. Raises DataError where no part is found; `path` is for the message.
    """
    scan = _Cleaned.of(xyz, path, plane)
    part, outline = scan.part, scan.outline()
    off = ~_within(outline, scan.pixels(APART)) & (plane != "none")
    rows, columns = (np.flatnonzero(part.any(axis=k)) for k in (1, 0))
    span = max(np.ptp(rows), np.ptp(columns)) + 1
    count, half, largest = _holes(outline & ~part)
    found = {
        "valid": 100 * scan.valid.mean(),
        "kept": 100 * part.mean(),
        "table": 100 * scan.valid[off].mean() if off.any() else np.nan,
        "outline": 100 * outline.mean(),
        "frame": 100 * min(1.0, span**2 / part.size),
        "gaps": 100 * (1 - part.sum() / outline.sum()),
        "holes": count,
        "hole_median": half * scan.pixel**2,
        "hole_largest": largest * scan.pixel**2,
        "ragged": raggedness(part, outline, scan.pixel),
        "noise_table": _table_noise(xyz, scan.valid & off),
        "strays": 100 * _strays(xyz, scan, outline),
        "points": (xyz_tensor(scan.square, len(scan.square), SIDE) != 0).any(axis=0).sum(),
    }
    noises, tilts = _patches(xyz, part)
    for low, high in pairwise(ANGLES):
        chosen = noises[(tilts >= low) & (tilts < high)]
        found[f"noise_{low}"] = np.median(chosen) if len(chosen) else np.nan
    return {name: float(found[name]) for name in STATISTICS}


def survey_defect(gt: np.ndarray, xyz: np.ndarray, path: Path, plane: str = "remove") -> dict[str, float]:
    """`DEFECT_STATISTICS` of one anomalous raw scan and its mask, (H, W) bool."""
    scan = _Cleaned.of(xyz, path, plane)
    small = mask_tensor(gt, len(scan.square), SIDE)[0]
    cells = small.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).any(axis=(1, 3))
    return {
        "share": 100 * float(gt.sum() / scan.outline().sum()),
        "area": float(gt.sum() * scan.pixel**2),
        "pixels": float(small.sum()),
        "cells": float(cells.sum()),
    }


def medians(found: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """The median of each statistic over the scans that have it; NaN where none has."""
    table = {name: np.array([one[name] for one in found]) for name in names}
    return {k: float(np.nanmedian(v)) if np.isfinite(v).any() else np.nan for k, v in table.items()}


def pixel_size(xyz: np.ndarray, part: np.ndarray) -> float:
    """The median distance in mm between neighbouring points of the part in a row, its slope left out.

    NaN where no two points are neighbours.
    """
    both = part[:, 1:] & part[:, :-1]
    if not both.any():
        return np.nan
    step = (xyz[:, 1:] - xyz[:, :-1])[both]
    # Across the ray alone: a step in depth is the surface's slope.
    ray = xyz[:, 1:][both] / np.linalg.norm(xyz[:, 1:][both], axis=1, keepdims=True)
    across = step - (step * ray).sum(axis=1, keepdims=True) * ray
    return 1e3 * float(np.median(np.linalg.norm(across, axis=1)))


def raggedness(part: np.ndarray, outline: np.ndarray, pixel: float) -> float:
    """The width in mm by which a silhouette leaves its smooth course, on average along the rim.

    The silhouette: the pixels with a point of the part, and those without that are not open to the outside of the
    `outline`. The smooth one: its median filter over a disc of radius SMOOTHED. The width: the area between both within
    SMOOTHED (at least 1.5 pixels) of the smooth rim, over that rim's length. The length: the area of this strip over
    its width, twice that.
    A missing pixel is as wide as it is: the same gaps in pixels are twice as ragged at half the resolution. NaN where
    there is no rim. part, outline: (H, W) bool; pixel: mm.
    """
    # Open is what the outside reaches through gaps of the rim.
    silhouette = ~ndimage.binary_propagation(~outline, mask=~part)
    radius = max(1.5, SMOOTHED / pixel)  # below, a disc is no disc
    y, x = np.mgrid[-int(radius) : int(radius) + 1, -int(radius) : int(radius) + 1]
    disc = (x * x + y * y <= radius * radius).astype(np.float32)
    smooth = ndimage.convolve(silhouette.astype(np.float32), disc, mode="nearest") > disc.sum() / 2
    if smooth.all() or not smooth.any():
        return np.nan
    far = np.where(smooth, ndimage.distance_transform_edt(smooth), ndimage.distance_transform_edt(~smooth))
    strip = far - 0.5 <= radius  # pixels' middles are half a pixel from the rim
    edge = int(radius) + 1  # the image's edge is no rim, and cuts discs
    different = (silhouette ^ smooth)[edge:-edge, edge:-edge][strip[edge:-edge, edge:-edge]]
    return 2 * radius * pixel * float(different.mean()) if different.size else np.nan


def _within(mask: np.ndarray, pixels: int) -> np.ndarray:
    """What is at most so many pixels from a mask, along rows, columns and diagonals."""
    return ndimage.maximum_filter(mask, 2 * pixels + 1, mode="constant")


def _holes(missing: np.ndarray) -> tuple[int, float, float]:
    """(number, median size weighted by size, largest size) of connected holes, in pixels.

    Half of the missing pixels lie in holes of this median size or smaller ones. Most holes are of one pixel, so that
    the plain median would tell the resolution and nothing else.
    """
    names, count = ndimage.label(missing)
    if not count:
        return 0, np.nan, 0.0
    around = np.sort(np.bincount(names.ravel())[names[missing]])
    return count, float(around[(len(around) - 1) // 2]), float(around[-1])


def _patches(xyz: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(noise in µm, angle to the ray in degrees) of each patch of WINDOW x WINDOW chosen points.

    The noise is the root mean square distance along the ray to a quadric fitted to the patch, free of what a plane
    would take for noise: the surface's own curvature. At a lower resolution a patch is wider and holds more of the
    shape.
    """
    if min(chosen.shape) < WINDOW:
        return np.empty(0), np.empty(0)
    whole = sliding_window_view(chosen, (WINDOW, WINDOW)).all(axis=(2, 3))[::2, ::2]
    if not whole.any():
        return np.empty(0), np.empty(0)
    points = sliding_window_view(xyz.astype(np.float64), (WINDOW, WINDOW), axis=(0, 1))[::2, ::2][whole]
    points = 1e3 * points.reshape(len(points), 3, -1).transpose(0, 2, 1)  # (N, WINDOW², 3) mm
    far = np.linalg.norm(points, axis=2)
    y, x = np.mgrid[-1 : 1 : WINDOW * 1j, -1 : 1 : WINDOW * 1j].reshape(2, -1)
    design = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    left = far - far @ np.linalg.pinv(design).T @ design.T
    noise = np.sqrt((left**2).sum(axis=1) / (len(x) - design.shape[1]))
    middle = points.mean(axis=1)
    normal = np.linalg.svd(points - middle[:, None], full_matrices=False)[2][:, 2]
    cosine = np.abs((normal * middle).sum(axis=1)) / np.linalg.norm(middle, axis=1)
    return 1e3 * noise, np.degrees(np.arccos(np.clip(cosine, 0, 1)))


def _table_noise(xyz: np.ndarray, chosen: np.ndarray) -> float:
    """The noise in µm of the chosen points, NaN where no three of a row are neighbours.

    From second differences along rows, as a table with many gaps has no whole patches: their standard deviation is
    the noise times the root of six.
    """
    far = 1e3 * np.linalg.norm(xyz.astype(np.float64), axis=2)
    triple = chosen[:, 2:] & chosen[:, 1:-1] & chosen[:, :-2]
    bend = (far[:, 2:] - 2 * far[:, 1:-1] + far[:, :-2])[triple]
    return 1e3 * 1.4826 * float(np.median(np.abs(bend))) / np.sqrt(6) if len(bend) else np.nan


def _strays(xyz: np.ndarray, scan: _Cleaned, outline: np.ndarray) -> float:
    """The share of the rim's points that lie in the air: more than STRAY from each point of the pixels around.

    On a steep surface such a point has neighbours along the slope, so that its steps in depth do not count. NaN where
    the rim has no points.
    """
    rim = scan.part & _within(~outline, scan.pixels(RIM))
    rows, columns = (axis + _NEAR for axis in rim.nonzero())
    if not len(rows):
        return np.nan
    edges = ((_NEAR, _NEAR), (_NEAR, _NEAR))
    points, valid = np.pad(1e3 * xyz.astype(np.float64), (*edges, (0, 0))), np.pad(scan.valid, edges)
    nearest = np.full(len(rows), np.inf)
    for dy in range(-_NEAR, _NEAR + 1):
        for dx in range(-_NEAR, _NEAR + 1):
            if dy or dx:
                gap = np.linalg.norm(points[rows + dy, columns + dx] - points[rows, columns], axis=1)
                nearest = np.minimum(nearest, np.where(valid[rows + dy, columns + dx], gap, np.inf))
    # A coarse scan's neighbours are far anyway; a point without neighbours tells nothing.
    return float(((nearest > max(STRAY, 4 * scan.pixel)) & np.isfinite(nearest)).mean())
