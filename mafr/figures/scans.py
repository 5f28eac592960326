"""A picture of raw scans: real ones, and generated ones of the same category below them."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from mafr.data.clean.plane import border_points, fit_plane, has_point
from mafr.data.mvtec3d import BORDER, PLANE_INLIER, PLANE_ITERATIONS, PLANE_SAMPLE, contents_seed
from mafr.experiments.survey import DATASET, REAL, RawScan
from mafr.figures.style import BLACK, DEPTH, Picture, bare, new_figure, outline, scale_bar
from mafr.tables.real import LICENCES

NO_POINT = (1.0, 0.0, 1.0)  # magenta, which no depth has
_FLOOR = 5.0  # mm above the table of what is taken for the part
_MARGIN = 0.2  # of the part's side, around it
_GENERATED = {"boxstyle": "round,pad=0.25", "facecolor": "#FFE3C2", "edgecolor": "none"}


def plot_raw_scans(shown: Mapping[str, Mapping[str, Sequence[RawScan]]], published: bool) -> Picture:
    """Image and raw depth of some scans, a row each for real and generated ones of each category.

    shown: {category: {`REAL` or generator: scans}}, see `mafr.experiments.survey.shown_scans`.
    """
    rows = [(category, kind, scans) for category, kinds in shown.items() for kind, scans in kinds.items()]
    count = max(len(scans) for *_, scans in rows)
    caption = (
        "Pairs of image and depth: the first training scan, then the first test scan of the first defect types by "
        "name. Depth: height above the table, on one scale per row; the table is darkest. Magenta: no 3D point. "
        "Cyan: the true defect. All are cropped to the part, and shown before the removal of the table."
    )
    stamp = "The user's own scans"
    if published:
        stamp = (
            f"Real scans: {LICENCES[DATASET]}; this picture under the same licence. Rows marked GENERATED show "
            "no real scan."
        )
    figure = new_figure(0.4 + 2.6 * count, 1.45 * len(rows) + 0.2, "", stamp, caption)
    grid = figure.subplots(len(rows), 2 * count, squeeze=False)
    for line, (category, kind, scans) in zip(grid, rows, strict=True):
        heights = [_heights(scan.xyz) for scan in scans]
        standing = np.concatenate([one[np.nan_to_num(one) > _FLOOR] for one in heights])
        low, high = np.quantile(standing, [0.01, 0.998]) if len(standing) else (0.0, 1.0)
        for left, right, scan, height in zip(line[::2], line[1::2], scans, heights, strict=False):
            left.imshow(scan.rgb)
            right.imshow(_coloured(height, low, high))
            for axes in (left, right):
                outline(axes, scan.gt, 0.7)
                _crop(axes, height)
                bare(axes)
            left.set_title(scan.name.replace("_", " "), fontsize=7, loc="left", pad=2)
        for axes in line:
            bare(axes)
            axes.set_visible(bool(axes.images))
        real = kind == REAL
        title = "real scans" if real and published else "own scans" if real else f"GENERATED\n{kind} generator"
        text = f"{category.replace('_', ' ')}\n{title}" if real else title
        line[0].set_ylabel(text, fontsize=7, color=BLACK, bbox=None if real else _GENERATED, labelpad=6)
    scale_bar(grid, DEPTH, "low", "high")
    return figure


def _heights(xyz: np.ndarray) -> np.ndarray:
    """(H, W) mm above the plane through the points at the edge, towards the camera; NaN where there is no point."""
    valid = has_point(xyz)
    points = border_points(xyz, BORDER)
    if len(points) < PLANE_SAMPLE:
        points = xyz[valid]
    seed = contents_seed(xyz)
    normal, offset = fit_plane(points, seed, PLANE_INLIER, min(PLANE_SAMPLE, len(points)), PLANE_ITERATIONS)
    heights = 1e3 * (xyz.astype(np.float64) @ normal + offset)
    return np.where(valid, heights if offset > 0 else -heights, np.nan)  # the camera is at the origin


def _coloured(heights: np.ndarray, low: float, high: float) -> np.ndarray:
    """(H, W, 3) colours, so that a smaller picture mixes colours rather than drops pixels without a point."""
    shares = np.clip((np.nan_to_num(heights) - low) / max(high - low, 1e-6), 0, 1)
    return np.where(np.isnan(heights)[..., None], NO_POINT, matplotlib.colormaps[DEPTH](shares)[..., :3])


def _crop(axes: Axes, heights: np.ndarray) -> None:
    """Show a square around what stands above the table, within the image."""
    rows, columns = (np.nan_to_num(heights) > _FLOOR).nonzero()
    if not len(rows):
        return
    height, width = heights.shape
    (top, bottom), (left, right) = (np.quantile(axis, [0.002, 0.998]) for axis in (rows, columns))
    half = min(max(bottom - top, right - left) * (0.5 + _MARGIN), min(height, width) / 2)
    row = np.clip((top + bottom) / 2, half, height - half)
    column = np.clip((left + right) / 2, half, width - half)
    axes.set(xlim=(column - half, column + half), ylim=(row + half, row - half))
