"""Pictures of single samples and their maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.figures import style

if TYPE_CHECKING:
    from mafr.method import Prediction


def rgb_image(sample: Sample) -> np.ndarray:
    """(S, S, 3) in [0, 1]."""
    return np.clip(sample.rgb.transpose(1, 2, 0), 0, 1)


def relief(sample: Sample, view: DepthAxis | None = None) -> np.ndarray:
    """(S, S) height in mm towards the camera above the plane fitted to all points (least squares along the viewing
    axis). NaN where there is no point.

    Parts lie tilted to the camera, and the tilt alone would fill a colour scale. view: the viewing axis, if it is
    known from many samples; a single thin part may not show which end is near.
    """
    valid = sample.valid[0]
    result = np.full(valid.shape, np.nan)
    if valid.any():
        if view is None:
            view = DepthAxis.fit([sample]) if valid.sum() > 3 else DepthAxis((0.0, 0.0, 1.0), 0.0)
        points = sample.xyz[:, valid].astype(np.float64) * 1000
        depth = view.along(points)
        x, y = view.across() @ points
        plane = np.stack([x, y, np.ones_like(x)], axis=1)
        result[valid] = plane @ np.linalg.lstsq(plane, depth, rcond=None)[0] - depth
    return result


def show_rgb(axes: Axes, sample: Sample) -> None:
    axes.imshow(rgb_image(sample))


def show_depth(axes: Axes, sample: Sample, bar: bool = False, view: DepthAxis | None = None) -> None:
    """`relief`, from its 1 % to its 99 % quantile; light is near the camera, grey has no point."""
    height = relief(sample, view)
    low, high = np.nanquantile(height, [0.01, 0.99]) if np.isfinite(height).any() else (0.0, 1.0)
    axes.set_facecolor(style.NO_POINT)
    image = axes.imshow(height, cmap=style.DEPTH, vmin=low, vmax=max(high, low + 1e-6))
    if bar:
        style.colour_bar(axes, image, "mm towards the camera")


def show_truth(axes: Axes, sample: Sample) -> None:
    """Anomalous pixels in the outlines' colour, the rest of the part dark, pixels without a point light grey."""
    image = np.full((*sample.gt.shape[1:], 3), style.NO_POINT)
    image[sample.valid[0]] = to_rgb("#303030")
    image[sample.gt[0]] = to_rgb(style.OUTLINE)
    axes.imshow(image)


def show_map(axes: Axes, psi: np.ndarray, valid: np.ndarray, low: float, high: float) -> object:
    """A map (S, S) between `low` and `high`, grey where `valid` (S, S) is false; returns the image."""
    axes.set_facecolor(style.NO_POINT)
    return axes.imshow(np.where(valid, psi, np.nan), cmap=style.HEAT, vmin=low, vmax=max(high, low + 1e-12))


def show_outlined(
    axes: Axes, sample: Sample, psi: np.ndarray, low: float, high: float, name: str, width: float = 0.8
) -> None:
    """`show_map` of a sample's map (S, S) with a title and the outline of the ground truth."""
    show_map(axes, psi, sample.valid[0], low, high)
    style.outline(axes, sample.gt[0], width)
    style.bare(axes, name)


def show_inputs(axes: Sequence[Axes], sample: Sample, bar: bool = False) -> None:
    """RGB, depth and ground truth of a sample in the first three axes. bar: whether the depth has a colour bar."""
    show_rgb(axes[0], sample)
    show_depth(axes[1], sample, bar)
    show_truth(axes[2], sample)
    for one, name in zip(axes, ("RGB", style.DEPTH_NAME, "ground truth"), strict=False):
        style.bare(one, name)


def overlay(
    axes: Axes, sample: Sample, psi: np.ndarray, low: float, high: float, opacity: float,
    scored: np.ndarray | None = None,
) -> object:  # fmt: skip
    """A heatmap (S, S) over the grey image, `opacity` in [0, 1]; returns the heatmap's image.

    scored: (S, S) bool, the pixels that are shown; None: those with a 3D point.
    """
    axes.imshow(rgb_image(sample).mean(axis=2), cmap="gray", vmin=0, vmax=1)
    values = np.where(sample.valid[0] if scored is None else scored, psi, np.nan)
    return axes.imshow(values, cmap=style.HEAT, vmin=low, vmax=max(high, low + 1e-12), alpha=opacity)


def crop(axes: Axes, valid: np.ndarray, margin: int = 10) -> None:
    """Show a square around the pixels with a 3D point only; valid: (S, S) bool, margin: pixels."""
    rows, columns = valid.nonzero()
    half = max(np.ptp(rows), np.ptp(columns)) / 2 + margin
    row, column = (rows.max() + rows.min()) / 2, (columns.max() + columns.min()) / 2
    axes.set(xlim=(column - half, column + half), ylim=(row + half, row - half))


def plot_sample(sample: Sample, stamp: str = "", warn: bool = False) -> style.Picture:
    """RGB, depth and ground truth of one sample."""
    title = f"{sample.category}, {sample.id}: {'defective' if sample.label else 'good'}"
    figure = style.new_figure(7.5, 2.5, title, stamp, warn=warn)
    show_inputs(figure.subplots(1, 3), sample, bar=True)
    return figure


def plot_contact_sheet(
    samples: Sequence[Sample], columns: int = 5, title: str = "", stamp: str = "", warn: bool = False
) -> style.Picture:
    """Many samples at a glance, cropped to the part: RGB above depth, the outline of the ground truth on both."""
    rows = -(-len(samples) // columns)
    figure = style.new_figure(1.45 * columns, 3.1 * rows, title, stamp, warn=warn)
    kinds = dict.fromkeys(f"{sample.category} {sample.defect}" for sample in samples)
    figure.alt = f"Image and depth of samples: {', '.join(kinds)}. {stamp}".replace("_", " ").removesuffix(". ")
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for k, sample in enumerate(samples):
        upper, lower = grid[2 * (k // columns), k % columns], grid[2 * (k // columns) + 1, k % columns]
        show_rgb(upper, sample)
        show_depth(lower, sample)
        for axes in (upper, lower):
            axes.axis("on")
            style.bare(axes)
            style.outline(axes, sample.gt[0], 0.6)
            if sample.valid.any():
                crop(axes, sample.valid[0], margin=6)
        upper.set_title(f"{sample.category}\n{sample.defect}", fontsize=7)
    return figure


def plot_heatmap(sample: Sample, prediction: Prediction, threshold: float, warning: str = "") -> style.Picture:
    """RGB, depth and the heatmap over the image, with the verdict. warning: a line below the verdict.

    The heatmap's scale runs from half to one and a half of the threshold, so that colours mean the same in every
    picture of one detector; pixels above the threshold are outlined.
    """
    psi, score = prediction.psi, prediction.score
    # An image score may be a scaled maximum (released code); this is the threshold on the map's own scale.
    level = threshold * float(psi.max()) / score if score > 0 else threshold
    verdict = "not OK" if score > threshold else "OK"
    title = f"{verdict}: image score {score:.4g}, threshold {threshold:.4g}"
    caption = "Heatmap: fused and blurred residual map over the grey image; outline: pixels above the threshold."
    figure = style.new_figure(8.4, 2.7, title, warning, caption, warn=True)
    left, middle, right = figure.subplots(1, 3)
    show_rgb(left, sample)
    style.bare(left, "RGB")
    show_depth(middle, sample, bar=True)
    style.bare(middle, style.DEPTH_NAME)
    low, high = 0.5 * level, 1.5 * level
    image = overlay(right, sample, psi, low, high, 0.7, prediction.scored)
    style.outline(right, psi > level)
    style.bare(right, f"anomaly map: {verdict}")
    bar = style.colour_bar(right, image, "Ψ / threshold")
    if level > 0:
        bar.set_ticks([low, level, high], labels=["≤ 0.5", "1", "≥ 1.5"])
    return figure
