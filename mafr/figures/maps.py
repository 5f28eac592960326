"""Heatmaps of one sample: cropped to the part, on the scale of the category, with the defect in close-up."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy import ndimage

from mafr.data.samples import Sample
from mafr.experiments.results import Result, colour_range
from mafr.figures.samples import crop, show_depth, show_map, show_rgb, show_truth
from mafr.figures.style import DEPTH_NAME, OUTLINE, Picture, bare, new_figure, outline

HAIRLINE = 0.5
CAPTION = (
    "Cropped to the part; below, the largest piece of the defect in close-up. Each map's colours run from the median "
    "pixel of the good test images (black) to the 99.9 % quantile of all pixels of its test set. Cyan: the true "
    "defect. Light grey: no 3D point."
)


def plot_maps(
    result: Result, k: int, panels: Mapping[str, np.ndarray], title: str, stamp: str, warn: bool = False
) -> Picture:
    """Image, depth, true defect and maps of test sample `k`; a second row shows the defect alone.

    panels: name -> maps (N, S, S) of the whole test set, which decides their colours. The close-up of the image comes
    without and with the outline.
    """
    sample = result.samples[k]
    close = sample.gt[0].any()
    figure = new_figure(1.55 * (3 + len(panels)), 1.6 * (1 + close), title, stamp, CAPTION, warn)
    grid = figure.subplots(1 + close, 3 + len(panels), squeeze=False)
    scales = [colour_range(maps, result.mask, result.labels) for maps in panels.values()]
    for row in grid:
        for axes, show in zip(row, (show_rgb, show_depth, show_truth), strict=False):
            show(axes, sample)
        for axes, maps, scale in zip(row[3:], panels.values(), scales, strict=True):
            show_map(axes, maps[k], result.mask[k], *scale)
            outline(axes, sample.gt[0], HAIRLINE)
    for axes, name in zip(grid[0], ("image", DEPTH_NAME, "true defect", *panels), strict=True):
        bare(axes, name)
        crop(axes, sample.valid[0], margin=6)
    if close:
        _close_up(grid[1], sample)
    return figure


def plot_result(result: Result, k: int, stamp: str, warn: bool = False) -> Picture:
    """`plot_maps` with a run's own three maps."""
    psi_rgb, psi_xyz = result.residuals(range(len(result.ids)))
    sample = result.samples[k]
    panels = {"Ψ2D": psi_rgb, "Ψ3D": psi_xyz, "Ψ, fused and blurred": result.maps}
    title = f"{sample.category}, {sample.id}: {sample.defect}".replace("_", " ")
    return plot_maps(result, k, panels, title, stamp, warn)


def defect_window(gt: np.ndarray, least: int = 24) -> tuple[float, float, float]:
    """(row, column, half a side) in pixels of a square around the largest region of `gt`, (S, S) bool."""
    labels, _ = ndimage.label(gt, structure=np.ones((3, 3)))
    rows, columns = (labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])).nonzero()
    half = max(np.ptp(rows), np.ptp(columns), least) * 0.8
    return (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2, half


def _close_up(row: Sequence[Axes], sample: Sample) -> None:
    down, right, half = defect_window(sample.gt[0])
    for axes in row:
        axes.set(xlim=(right - half, right + half), ylim=(down + half, down - half))
        bare(axes)
    # The third panel, the true defect, becomes the image with its outline: what the first panel shows without it.
    row[2].clear()
    show_rgb(row[2], sample)
    outline(row[2], sample.gt[0], 2 * HAIRLINE)
    row[2].set(xlim=(right - half, right + half), ylim=(down + half, down - half))
    bare(row[2], "image, outlined")
    for spine in row[0].spines.values():
        spine.set(visible=True, color=OUTLINE, linewidth=0.6)
    row[0].set_ylabel("close-up", fontsize=8)
