"""Organised clouds for display: few points, the same ones each time, turned towards the viewer."""

from __future__ import annotations

import numpy as np

from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample


def thinning(valid: np.ndarray, count: int) -> tuple[int, int]:
    """(step, slant): pixel (v, u) is kept where (v + slant u) % step == 0, which leaves at most `count` valid ones.

    valid: (S, S) bool. A slanted lattice is even in all directions, unlike whole rows or a random draw.
    """
    rows, columns = np.nonzero(valid)
    step, slant, kept = 1, 0, len(rows)
    while kept > count:
        step += 1
        slant = round(0.382 * step)
        kept = np.count_nonzero((rows + slant * columns) % step == 0)
    return step, slant


def thinned(valid: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of at most `count` of the valid pixels, row by row; valid: (S, S) bool."""
    step, slant = thinning(valid, count)
    rows, columns = np.nonzero(valid)
    kept = (rows + slant * columns) % step == 0
    return rows[kept], columns[kept]


def towards_viewer(sample: Sample) -> np.ndarray:
    """(3, 3): multiplied from the right, makes x rise to the right and y upwards in the image, z towards the camera."""
    view = DepthAxis.fit([sample]) if sample.valid.sum() > 3 else DepthAxis((0.0, 0.0, 1.0), 0.0)
    right, down, away = view.image_axes(sample)
    return np.stack([right, -down, -away], axis=1)


def around_middle(sample: Sample, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n, 3) points of some pixels in mm around their mean, turned as `towards_viewer` says."""
    points = sample.xyz[:, rows, columns].T.astype(np.float64) * 1000
    return (points - points.mean(axis=0)) @ towards_viewer(sample)
