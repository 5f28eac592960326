"""Statistics of raw scans: gaps, noise, silhouettes, the part's share of the image, and the sizes of defects.

They say how kind a scanner was, so that generated scans can be held against real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from mafr.data.formats.images import decode_mask, decode_xyz, read_bytes
from mafr.data.layout import scan_split
from mafr.data.mvtec3d import clean_cloud
from mafr.data.transforms import crop_square, mask_tensor, xyz_tensor

WINDOW = 5  # pixels of the sides of the patches in which noise is measured
ANGLES = (0, 30, 50, 70)  # degrees between normal and ray, the bounds of three classes
JUMP = 1.5  # mm from the smooth surface further inside at which a point of the rim is a stray
SIDE, CELL = 224, 8  # pixels of the resized image, and of a cell of the 28 x 28 grid
_CLOSED = 9  # pixels (of 400) of the widest gap that is closed to find the part's outline
_SEEN_THROUGH = 0.3  # of a hole's pixels have a point of the table where it leads through the part
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Statistic:
    """One measured number: its name in the table and its unit."""

    title: str
    unit: str = ""


STATISTICS = {
    "valid": Statistic("pixels with a point, raw", "%"),
    "kept": Statistic("pixels with a point, cleaned", "%"),
    "table": Statistic("table pixels with a point", "%"),
    "outline": Statistic("part within its outline, of the image", "%"),
    "frame": Statistic("square around the part, of the image", "%"),
    "gaps": Statistic("pixels without a point within the outline", "%"),
    "holes": Statistic("holes within the outline"),
    "hole_median": Statistic("median hole", "mm²"),
    "hole_largest": Statistic("largest hole", "mm²"),
    "noise_0": Statistic("noise of the part, 0 to 30° off the ray", "µm"),
    "noise_30": Statistic("the same, 30 to 50°", "µm"),
    "noise_50": Statistic("the same, 50 to 70°", "µm"),
    "noise_table": Statistic("noise of the table", "µm"),
    "strays": Statistic("points of the rim off the surface", "%"),
    "points": Statistic("points of the part at 224 pixels"),
}
DEFECT_STATISTICS = {
    "share": Statistic("defect, of the part", "%"),
    "area": Statistic("defect", "mm²"),
    "pixels": Statistic("defect at 224 pixels", "px"),
    "cells": Statistic("defect in cells of 28 × 28", "cells"),
}


def survey_scan(xyz: np.ndarray, path: Path) -> dict[str, float]:
    """`STATISTICS` of one raw scan, (H, W, 3) float32 metres with zeros where there is no point.

    Classes of angles without a patch give NaN. Raises DataError where no part is found; `path` is for the message.
    """
    height, width = xyz.shape[:2]
    valid = (xyz != 0).any(axis=2)
    part = (crop_square(clean_cloud(xyz, "remove", path), height, width) != 0).any(axis=2)
    outline = _outline(part, valid)
    table = valid & ~ndimage.binary_dilation(outline, _EIGHT, iterations=3)
    off = ~ndimage.binary_dilation(outline, _EIGHT, iterations=max(3, height // 25))
    pixel = pixel_size(xyz, part)
    names, count = ndimage.label(outline & ~part)
    holes = np.bincount(names.ravel())[1:] * pixel**2 if count else np.zeros(1)
    rows, columns = (np.flatnonzero(part.any(axis=k)) for k in (1, 0))
    span = max(np.ptp(rows), np.ptp(columns)) + 1
    found = {
        "valid": 100 * valid.mean(),
        "kept": 100 * part.mean(),
        "table": 100 * (valid & off).sum() / max(off.sum(), 1),
        "outline": 100 * outline.mean(),
        "frame": 100 * min(1.0, span**2 / (height * width)),
        "gaps": 100 * (1 - part.sum() / outline.sum()),
        "holes": float(count),
        "hole_median": float(np.median(holes)),
        "hole_largest": float(holes.max()),
        "noise_table": _noise(xyz, table),
        "strays": 100 * _strays(xyz, part),
        "points": float((xyz_tensor(np.where(part[..., None], xyz, 0), max(height, width), SIDE) != 0).any(0).sum()),
    }
    noises, tilts = _patches(xyz, part)
    for low, high in pairwise(ANGLES):
        chosen = noises[(tilts >= low) & (tilts < high)]
        found[f"noise_{low}"] = float(np.median(chosen)) if len(chosen) else np.nan
    return {name: float(found[name]) for name in STATISTICS}


def survey_defect(gt: np.ndarray, xyz: np.ndarray, path: Path) -> dict[str, float]:
    """`DEFECT_STATISTICS` of one anomalous raw scan and its mask, (H, W) bool."""
    height, width = gt.shape
    part = (crop_square(clean_cloud(xyz, "remove", path), height, width) != 0).any(axis=2)
    small = mask_tensor(gt, max(height, width), SIDE)[0]
    cells = small.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).any(axis=(1, 3))
    return {
        "share": 100 * gt.sum() / _outline(part, (xyz != 0).any(axis=2)).sum(),
        "area": gt.sum() * pixel_size(xyz, part) ** 2,
        "pixels": float(small.sum()),
        "cells": float(cells.sum()),
    }


def survey_category(folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """`survey_scan` of a raw category's training scans, `survey_defect` of its anomalous test scans."""
    scans = [survey_scan(decode_xyz(read_bytes(e.xyz), e.xyz), e.xyz) for e in scan_split(folder, "train", raw=True)]
    defects = []
    for entry in scan_split(folder, "test", raw=True):
        if entry.label:
            gt = decode_mask(read_bytes(entry.gt), entry.gt)
            defects.append(survey_defect(gt, decode_xyz(read_bytes(entry.xyz), entry.xyz), entry.xyz))
    return scans, defects


def medians(found: Iterable[Mapping[str, float]], names: Iterable[str]) -> dict[str, float]:
    """The median of each statistic over the scans that have it; NaN where none has."""
    table = {name: np.array([one[name] for one in found]) for name in names}
    return {k: float(np.nanmedian(v)) if np.isfinite(v).any() else np.nan for k, v in table.items()}


def pixel_size(xyz: np.ndarray, part: np.ndarray) -> float:
    """The median distance in mm between neighbouring points of the part in a row, its slope left out."""
    both = part[:, 1:] & part[:, :-1]
    step = (xyz[:, 1:] - xyz[:, :-1])[both]
    # Across the ray alone: a step in depth is the surface's slope.
    ray = xyz[:, 1:][both] / np.linalg.norm(xyz[:, 1:][both], axis=1, keepdims=True)
    across = step - (step * ray).sum(axis=1, keepdims=True) * ray
    return 1e3 * float(np.median(np.linalg.norm(across, axis=1)))


def _outline(part: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The part with its gaps closed, (H, W) bool; where a large hole shows the table, as a ring's does, it stays."""
    width = max(3, round(_CLOSED * part.shape[0] / 400)) | 1
    closed = ndimage.binary_closing(np.pad(part, width), np.ones((width, width), bool))[width:-width, width:-width]
    filled = ndimage.binary_fill_holes(closed)
    names, count = ndimage.label(filled & ~closed)
    numbers = np.arange(1, count + 1)
    through = ndimage.mean(valid & ~part, names, numbers) > _SEEN_THROUGH if count else np.zeros(0)
    return filled & ~np.isin(names, numbers[np.asarray(through, bool)])


def _patches(xyz: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(noise in µm, angle to the ray in degrees) of each patch of WINDOW x WINDOW chosen points.

    The noise is the root mean square distance along the ray to a quadric fitted to the patch, free of what a plane
    would take for noise: the surface's own curvature.
    """
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


def _noise(xyz: np.ndarray, chosen: np.ndarray) -> float:
    """The median noise in µm of neighbouring chosen points.

    From second differences along rows, as a table with many gaps has no whole patches: their standard deviation is
    the noise times the root of six.
    """
    far = 1e3 * np.linalg.norm(xyz.astype(np.float64), axis=2)
    triple = chosen[:, 2:] & chosen[:, 1:-1] & chosen[:, :-2]
    bend = (far[:, 2:] - 2 * far[:, 1:-1] + far[:, :-2])[triple]
    return 1e3 * 1.4826 * float(np.median(np.abs(bend))) / np.sqrt(6) if len(bend) else np.nan


def _strays(xyz: np.ndarray, part: np.ndarray) -> float:
    """The share of the rim's points (two pixels) that lie off the smooth surface behind it by more than JUMP."""
    inner = ndimage.binary_erosion(part, _EIGHT, iterations=2)
    rim = part & ~inner
    far = np.where(inner, 1e3 * np.linalg.norm(xyz, axis=2), np.nan)
    if not rim.any() or not inner.any():
        return 0.0
    nearest = ndimage.distance_transform_edt(~inner, return_distances=False, return_indices=True)
    own, behind = 1e3 * np.linalg.norm(xyz[rim], axis=1), far[tuple(nearest)][rim]
    return float((np.abs(own - behind) > 2 * JUMP).mean())

