"""One test sample in the explorer: the computation, its picture, and its cloud in 3D."""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from mafr.data.display import around_middle, thinned
from mafr.data.samples import Sample
from mafr.experiments.results import Result, colour_range
from mafr.figures import style
from mafr.figures.curves import draw_scores
from mafr.figures.samples import overlay, rgb_image, show_inputs, show_outlined

MAX_POINTS = 4000  # of a cloud drawn in 3D
AGREEMENT = {"hit": style.GREEN, "missed": style.ORANGE, "false alarm": style.PURPLE}


@dataclass(frozen=True)
class SampleView:
    """One test sample under some scoring settings; S = `Config.image_size`.

    index: of the sample in the test set. psi_rgb, psi_xyz, psi: (S, S) residual maps and final map.
    ranges: (low, high) of the colours of these three, the same for the whole test set.
    threshold: of the pixels; detected: (S, S) bool, those above it.
    iou: |detected and true| / |detected or true|; overlap: mean share of each true region that is detected;
    both None for a good sample. false_positives: share of its anomaly-free pixels with a point detected.
    scores, labels: (N,) of the whole test set; score: this sample's.
    above_good: share of the good test samples, except this one, with a lower score.
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


def explore(result: Result, index: int, maps: np.ndarray, scores: np.ndarray, rate: float = 0.01) -> SampleView:
    """Test sample `index` under maps (N, S, S) and scores (N,), as `Result.rescored` gives them.

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
    psi_rgb, psi_xyz = result.residuals([index], result.scaled)
    ranges = (*result.residual_ranges, colour_range(maps, result.mask, labels))
    iou = float((detected & gt).sum() / (detected | gt).sum()) if gt.any() else None
    overlap = region_overlap(gt, detected) if gt.any() else None
    false_positives = float((detected & normal).sum() / max(normal.sum(), 1))
    above_good = float((others < scores[index]).mean()) if len(others) else float("nan")
    return SampleView(
        sample, index, psi_rgb[0], psi_xyz[0], maps[index], ranges, threshold, detected, iou, overlap,
        false_positives, scores, labels, above_good,
    )  # fmt: skip


def region_overlap(gt: np.ndarray, detected: np.ndarray) -> float:
    """Mean over the 8-connected regions of gt (S, S) of the share that `detected` (S, S) covers."""
    regions, count = ndimage.label(gt, structure=np.ones((3, 3)))
    return float(np.mean(ndimage.mean(detected.astype(float), regions, range(1, count + 1))))


def summary(view: SampleView) -> str:
    """The numbers of a view in two sentences."""
    kind = f"defective ({view.sample.defect})" if view.sample.label else "good"
    first = f"{kind}; image score {view.score:.4g}, above {view.above_good:.0%} of the good test samples"
    second = f"pixels above {view.threshold:.4g}: {view.false_positives:.2%} of the anomaly-free ones"
    if view.iou is not None:
        second += f"; IoU with the ground truth {view.iou:.3f}; region overlap {view.overlap:.3f}"
    return f"{first[0].upper()}{first[1:]}. {second[0].upper()}{second[1:]}."


def plot_view(
    view: SampleView,
    opacity: float = 0.6,
    stamp: str = "",
    warn: bool = False,
    clouds: bool = False,
) -> style.Picture:
    """The picture of a view; `clouds` adds the 3D cloud, coloured by RGB and by the final map."""
    sample, columns = view.sample, 5 if clouds else 4
    caption = (
        f"{summary(view)} Grey: no 3D point. Cyan outline: ground truth. The colours of a map have one scale for the "
        "whole test set of the category."
    )
    title = f"{sample.category.replace('_', ' ')}, {sample.id}"
    figure = style.new_figure(2.2 * columns, 4.6, title, stamp, caption, warn)
    cells = figure.add_gridspec(2, columns)
    upper, lower = ([figure.add_subplot(cells[row, k]) for k in range(4)] for row in (0, 1))
    show_inputs(upper, sample)
    _score_panel(upper[3], view)
    show_outlined(lower[0], sample, view.psi_rgb, *view.ranges[0], "Ψ2D")
    show_outlined(lower[1], sample, view.psi_xyz, *view.ranges[1], "Ψ3D")
    overlay(lower[2], sample, view.psi, *view.ranges[2], opacity)
    style.outline(lower[2], sample.gt[0], width=0.8)
    style.bare(lower[2], "Ψ over the image")
    _agreement_panel(lower[3], view)
    if clouds:
        points, *colours = cloud_points(view)
        for row, (name, colour) in enumerate(zip(("RGB in 3D", "Ψ in 3D"), colours, strict=True)):
            _cloud_panel(figure.add_subplot(cells[row, 4], projection="3d"), points, colour, name)
    return figure


def _score_panel(axes: Axes, view: SampleView) -> None:
    draw_scores(axes, view.scores, view.labels)
    axes.axvline(view.score, color="black", linewidth=1.2)
    # The three labels stand above the bars rather than on them.
    axes.set_ylim(top=axes.get_ylim()[1] * 1.45)
    low, high = axes.get_xlim()
    x, side = (0.02, "left") if view.score > (low + high) / 2 else (0.98, "right")
    labels = (("good", style.GOOD, 0.97), ("defective", style.DEFECTIVE, 0.88), ("line: this one", "black", 0.79))
    for text, colour, y in labels:
        axes.text(x, y, text, color=colour, fontsize=6.5, ha=side, va="top", transform=axes.transAxes)
    style.small_axes(axes, "image score", "test samples", "where its score falls")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _agreement_panel(axes: Axes, view: SampleView) -> None:
    sample, gt = view.sample, view.sample.gt[0]
    image = np.full((*gt.shape, 3), style.NO_POINT)
    image[sample.valid[0]] = to_rgb("#303030")
    parts = (view.detected & gt, gt & ~view.detected, view.detected & ~gt)
    for (name, colour), part in zip(AGREEMENT.items(), parts, strict=True):
        image[part] = to_rgb(colour)
        axes.plot([], [], "s", color=colour, markersize=4, label=name)
    axes.imshow(image)
    style.bare(axes, "mask against ground truth")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=6.5, frameon=False,
                handletextpad=0.1, columnspacing=0.8, borderaxespad=0.1)  # fmt: skip


def cloud_points(view: SampleView, count: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most `count` points of the cloud, always the same ones, with two colours.

    Returns points (n, 3) in mm around their mean, x to the right, y up in the image, z towards the camera, and
    their (n, 3) colours in [0, 1] by RGB and by the final map.
    """
    rows, columns = thinned(view.sample.valid[0], count)
    points = around_middle(view.sample, rows, columns)
    low, high = view.ranges[2]
    heat = colormaps[style.HEAT](np.clip((view.psi[rows, columns] - low) / max(high - low, 1e-12), 0, 1))[:, :3]
    return points, rgb_image(view.sample)[rows, columns], heat


def _cloud_panel(axes: Axes, points: np.ndarray, colours: np.ndarray, name: str) -> None:
    x, y, z = points.T
    axes.scatter(x, y, z, c=colours, s=1.2, linewidths=0, depthshade=False)
    axes.set_box_aspect(np.ptp(points, axis=0) + 1e-9, zoom=1.25)
    axes.view_init(elev=50, azim=-75)
    axes.set_axis_off()
    axes.set_title(name, fontsize=8)
