"""One test sample as the explorer shows it: the computation, its picture, and its cloud in 3D."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from mafr.data.samples import Sample
from mafr.experiments.results import Result, colour_range
from mafr.figures.curves import draw_scores
from mafr.figures.samples import overlay, rgb_image, show_depth, show_map, show_rgb, show_truth
from mafr.figures.style import (
    BLUE,
    DEFECTIVE,
    DEPTH_NAME,
    GOOD,
    GREEN,
    HEAT,
    NOTHING,
    ORANGE,
    Picture,
    bare,
    new_figure,
    outline,
)

MAX_POINTS = 4000  # of a cloud drawn in 3D
# Seen from above and the front, moved up so that the axis labels below are not cut.
_CAMERA = {"eye": {"x": 0, "y": -1.2, "z": 2.1}, "center": {"x": 0, "y": -0.25, "z": -0.1}}
AGREEMENT = {"hit": GREEN, "missed": ORANGE, "false alarm": BLUE}


@dataclass(frozen=True)
class View:
    """What is shown of one test sample under some scoring settings; S = `Config.image_size`.

    sample, index: which one of the test set. psi_rgb, psi_xyz, psi: (S, S) residual maps and final map.
    ranges: (low, high) of the colours of these three, the same for the whole test set.
    threshold: of the pixels; detected: (S, S) bool, those above it.
    iou: |detected and true| / |detected or true|; overlap: mean share of each true region that is detected;
    both None for a good sample. false_positives: share of its anomaly-free pixels with a point detected.
    scores, labels: (N,) of the whole test set; score: this sample's.
    above_good: share of the good test samples (itself aside) with a lower score.
    """

    sample: Sample
    index: int
    psi_rgb: np.ndarray
    psi_xyz: np.ndarray
    psi: np.ndarray
    ranges: tuple[tuple[float, float], ...]
    threshold: float
    detected: np.ndarray
    iou: float | None
    overlap: float | None
    false_positives: float
    scores: np.ndarray
    labels: np.ndarray
    above_good: float

    @property
    def score(self) -> float:
        return float(self.scores[self.index])


def explore(result: Result, index: int, maps: np.ndarray, scores: np.ndarray, rate: float = 0.01) -> View:
    """Look at test sample `index` under maps (N, S, S) and scores (N,), as `Result.rescored` gives them.

    rate: the share of the good test images' pixels (those with a 3D point) that may be above the threshold.
    Raises IndexError for a sample that is not there, ValueError for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate must be in (0, 1), not {rate}")
    sample, labels = result.samples[index], result.labels
    good = labels == 0
    threshold = float(np.quantile(maps[good][result.mask[good]], 1 - rate))
    detected, gt = maps[index] > threshold, result.gt[index]
    normal = result.mask[index] & ~gt
    others = scores[good & (np.arange(len(labels)) != index)]
    psi_rgb, psi_xyz = result.residuals([index])
    return View(
        sample=sample,
        index=index,
        psi_rgb=psi_rgb[0],
        psi_xyz=psi_xyz[0],
        psi=maps[index],
        ranges=(*result.residual_ranges, colour_range(maps, result.mask, labels)),
        threshold=threshold,
        detected=detected,
        iou=float((detected & gt).sum() / (detected | gt).sum()) if gt.any() else None,
        overlap=region_overlap(gt, detected) if gt.any() else None,
        false_positives=float((detected & normal).sum() / max(normal.sum(), 1)),
        scores=scores,
        labels=labels,
        above_good=float((others < scores[index]).mean()) if len(others) else float("nan"),
    )


def region_overlap(gt: np.ndarray, detected: np.ndarray) -> float:
    """Mean over the 8-connected regions of gt (S, S) of the share that `detected` (S, S) covers."""
    regions, count = ndimage.label(gt, structure=np.ones((3, 3)))
    return float(np.mean(ndimage.mean(detected.astype(float), regions, range(1, count + 1))))


def summary(view: View) -> str:
    """The numbers of a view in two sentences."""
    kind = f"defective ({view.sample.defect})" if view.sample.label else "good"
    first = f"{kind}; image score {view.score:.4g}, above {view.above_good:.0%} of the good test samples"
    second = f"pixels above {view.threshold:.4g}: {view.false_positives:.2%} of the anomaly-free ones"
    if view.iou is not None:
        second += f"; IoU with the ground truth {view.iou:.3f}; region overlap {view.overlap:.3f}"
    return f"{first[0].upper()}{first[1:]}. {second[0].upper()}{second[1:]}."


@dataclass(frozen=True)
class Compared:
    """Another method's final map (S, S) of the same sample, and its colours' (low, high) over the test set."""

    title: str
    psi: np.ndarray
    limits: tuple[float, float]


def plot_view(
    view: View,
    opacity: float = 0.6,
    stamp: str = "",
    warn: bool = False,
    clouds: bool = False,
    compared: Compared | None = None,
) -> Picture:
    """The picture of a view; `clouds` adds the 3D cloud, coloured by RGB and by the final map.

    compared: shown in the place of the agreement of mask and ground truth.
    """
    sample, valid, columns = view.sample, view.sample.valid[0], 5 if clouds else 4
    caption = (
        f"{summary(view)} Grey: no 3D point. Cyan outline: ground truth. The colours of a map have one scale for the "
        "whole test set of the category."
    )
    title = f"{sample.category.replace('_', ' ')}, {sample.id}"
    figure = new_figure(2.2 * columns, 4.6, title, stamp, caption, warn)
    cells = figure.add_gridspec(2, columns)
    upper, lower = ([figure.add_subplot(cells[row, k]) for k in range(4)] for row in (0, 1))
    for axes, name, show in zip(
        upper, ("RGB", DEPTH_NAME, "ground truth"), (show_rgb, show_depth, show_truth), strict=False
    ):
        show(axes, sample)
        bare(axes, name)
    _score_panel(upper[3], view)
    for axes, name, psi, limits in zip(
        lower, ("Ψ2D", "Ψ3D"), (view.psi_rgb, view.psi_xyz), view.ranges[:2], strict=False
    ):
        show_map(axes, psi, valid, *limits)
        outline(axes, sample.gt[0], width=0.8)
        bare(axes, name)
    overlay(lower[2], sample, view.psi, *view.ranges[2], opacity)
    outline(lower[2], sample.gt[0], width=0.8)
    bare(lower[2], "Ψ over the image")
    if compared is None:
        _agreement_panel(lower[3], view)
    else:
        show_map(lower[3], compared.psi, valid, *compared.limits)
        outline(lower[3], sample.gt[0], width=0.8)
        bare(lower[3], f"{compared.title}, for comparison")
    if clouds:
        points, *colours = cloud_points(view)
        for row, (name, colour) in enumerate(zip(("RGB in 3D", "Ψ in 3D"), colours, strict=True)):
            _cloud_panel(figure.add_subplot(cells[row, 4], projection="3d"), points, colour, name)
    return figure


def _score_panel(axes: Axes, view: View) -> None:
    draw_scores(axes, view.scores, view.labels)
    axes.axvline(view.score, color="black", linewidth=1.2)
    # The three labels stand above the bars rather than on them.
    axes.set_ylim(top=axes.get_ylim()[1] * 1.45)
    low, high = axes.get_xlim()
    x, side = (0.02, "left") if view.score > (low + high) / 2 else (0.98, "right")
    for text, colour, y in (("good", GOOD, 0.97), ("defective", DEFECTIVE, 0.88), ("line: this one", "black", 0.79)):
        axes.text(x, y, text, color=colour, fontsize=6.5, ha=side, va="top", transform=axes.transAxes)
    axes.set_title("where its score falls", fontsize=8)
    axes.set_xlabel("image score", fontsize=7)
    axes.set_ylabel("test samples", fontsize=7)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=6.5, length=2)
    axes.spines[["top", "right"]].set_visible(False)


def _agreement_panel(axes: Axes, view: View) -> None:
    sample, gt = view.sample, view.sample.gt[0]
    image = np.full((*gt.shape, 3), NOTHING)
    image[sample.valid[0]] = to_rgb("#303030")
    parts = (view.detected & gt, gt & ~view.detected, view.detected & ~gt)
    for (name, colour), part in zip(AGREEMENT.items(), parts, strict=True):
        image[part] = to_rgb(colour)
        axes.plot([], [], "s", color=colour, markersize=4, label=name)
    axes.imshow(image)
    bare(axes, "mask against ground truth")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=6.5, frameon=False,
                handletextpad=0.1, columnspacing=0.8, borderaxespad=0.1)  # fmt: skip


def cloud_points(view: View, count: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most `count` points of the cloud, always the same ones, and their two colours.

    Returns points (n, 3) in mm around their mean, x to the right, y up in the image, z towards the camera, and
    two (n, 3) colours in [0, 1]: RGB and the final map's heat.
    """
    rows, columns = np.nonzero(view.sample.valid[0])
    # One in `thinning` points on a slanted lattice: even in all directions, unlike whole rows or a random draw.
    thinning, kept = 1, np.ones(len(rows), dtype=bool)
    while kept.sum() > count:
        thinning += 1
        kept = (rows + round(0.382 * thinning) * columns) % thinning == 0
    rows, columns = rows[kept], columns[kept]
    points = view.sample.xyz[:, rows, columns].T.astype(np.float64) * 1000
    points = (points - points.mean(axis=0)) * _towards_viewer(view.sample)
    low, high = view.ranges[2]
    heat = colormaps[HEAT](np.clip((view.psi[rows, columns] - low) / max(high - low, 1e-12), 0, 1))[:, :3]
    return points, rgb_image(view.sample)[rows, columns], heat


def _towards_viewer(sample: Sample) -> np.ndarray:
    """Signs that make x rise to the right and y upwards in the image; the depth always points away."""
    rows, columns = np.nonzero(sample.valid[0])
    x, y = sample.xyz[0, rows, columns], sample.xyz[1, rows, columns]
    right = np.sign(((columns - columns.mean()) * (x - x.mean())).sum()) or 1.0
    down = np.sign(((rows - rows.mean()) * (y - y.mean())).sum()) or 1.0
    return np.array([right, -down, -1.0])


def _cloud_panel(axes: Axes, points: np.ndarray, colours: np.ndarray, name: str) -> None:
    x, y, z = points.T
    axes.scatter(x, y, z, c=colours, s=1.2, linewidths=0, depthshade=False)
    axes.set_box_aspect(np.ptp(points, axis=0) + 1e-9, zoom=1.25)
    axes.view_init(elev=50, azim=-75)
    axes.set_axis_off()
    axes.set_title(name, fontsize=8)


def cloud_figure(view: View, size: int = 2) -> go.Figure:
    """The cloud to turn around, with buttons for its colours; they work without a kernel."""
    points, rgb, heat = cloud_points(view)
    x, y, z = points.astype(np.float32).T
    traces = [
        go.Scatter3d(x=x, y=y, z=z, mode="markers", name=name, visible=name == "Ψ", hoverinfo="x+y+z",
                     marker={"size": size, "color": [_hex(c) for c in colours]})
        for name, colours in (("Ψ", heat), ("RGB", rgb))
    ]  # fmt: skip
    buttons = [
        {"label": name, "method": "restyle", "args": ["visible", [name == "Ψ", name == "RGB"]]} for name in ("Ψ", "RGB")
    ]
    axis = {f"{name}axis": {"title": {"text": f"{name} / mm"}} for name in "xyz"}
    return go.Figure(
        traces,
        {
            "scene": axis | {"aspectmode": "data", "camera": _CAMERA},
            "title": {"text": f"{view.sample.category}, {view.sample.id}: {len(points)} points", "font": {"size": 13}},
            "updatemenus": [{"buttons": buttons, "type": "buttons", "direction": "right", "x": 0, "y": 1.02}],
            "margin": {"l": 0, "r": 0, "b": 0, "t": 40},
            "width": 640,
            "height": 480,
            "showlegend": False,
        },
    )


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in colour)
