"""Pictures of single samples and their maps, and what all figures share: canvas, stamp, colours, PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from mafr.data.camera import View
from mafr.data.samples import Sample
from mafr.paths import write_atomically

if TYPE_CHECKING:
    from mafr.detector import Prediction

# Okabe and Ito's colours: told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#1A1A1A"
VARIANT_STYLES = {"paper": (BLUE, "-"), "released": (ORANGE, "--")}
GOOD, DEFECTIVE = BLUE, ORANGE
HEAT, DEPTH = "inferno", "cividis"
NOTHING = to_rgb("#E8E8E8")  # pixels without a 3D point
OUTLINE = "#00E5FF"  # the ground truth drawn on a heatmap: seen on black and on yellow
DPI = 120
DEPTH_NAME = "depth, tilt removed"


class Picture(Figure):
    """A matplotlib figure outside pyplot's global state that Jupyter shows as PNG by itself."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def new_figure(
    width: float, height: float, title: str = "", stamp: str = "", caption: str = "", warn: bool = False
) -> Picture:
    """A figure of `width` x `height` inches for its axes, with title and stamp above and caption below.

    `warn` puts the stamp on a coloured ground: data that is not what it stands for.
    """
    lines, marks = textwrap.wrap(caption, int(width * 17.5)), textwrap.wrap(stamp, int(width * 17.5))
    above = 0.1 + 0.28 * bool(title) + 0.24 * bool(marks) + 0.14 * max(len(marks) - 1, 0)
    below = 0.06 + 0.135 * len(lines)
    total = height + above + below
    figure = Picture(figsize=(width, total), dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(rect=(0, below / total, 1, height / total), w_pad=0.03, h_pad=0.03)
    y = total - 0.08
    if title:
        figure.text(0.08 / width, y / total, title, va="top", fontsize=11, fontweight="bold")
        y -= 0.3
    if marks:
        box = {"boxstyle": "round,pad=0.25", "facecolor": "#FFE3C2" if warn else "#EEEEEE", "edgecolor": "none"}
        figure.text(0.11 / width, y / total, "\n".join(marks), va="top", fontsize=7, bbox=box, linespacing=1.3)
    figure.text(0.08 / width, (below - 0.03) / total, "\n".join(lines), va="top", fontsize=7, color="#404040",
                linespacing=1.3)  # fmt: skip
    return figure


def png_bytes(figure: Figure, dpi: int | None = None) -> bytes:
    """The figure as PNG, the same bytes each time: neither date nor software version inside.

    Colours are rounded to steps of 5 of 255, which no one sees and which halves the file.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi or figure.dpi, pil_kwargs={"compress_level": 1})
    colours = np.asarray(Image.open(drawn).convert("RGB"), dtype=np.uint16)
    colours = ((colours + 2) // 5 * 5).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_png(figure: Figure, path: Path) -> Path:
    """Write `png_bytes` atomically; returns the path."""
    write_atomically(path, png_bytes(figure))
    return path


# ------------------------------------------------------------------ images


def rgb_image(sample: Sample) -> np.ndarray:
    """(S, S, 3) in [0, 1]."""
    return np.clip(sample.rgb.transpose(1, 2, 0), 0, 1)


def relief(sample: Sample) -> np.ndarray:
    """(S, S) depth with the tilt removed, mm: how far a point stands out towards the camera from the plane fitted
    to all points (least squares along the viewing axis). NaN where there is no point.

    Parts lie tilted to the camera, and the tilt alone would fill a colour scale.
    """
    valid = sample.valid[0]
    result = np.full(valid.shape, np.nan)
    if valid.any():
        view = View.fit([sample]) if valid.sum() > 3 else View(2, 1.0, 0.0)
        points = sample.xyz[:, valid].astype(np.float64) * 1000
        depth = view.direction * points[view.axis]
        x, y = np.delete(points, view.axis, axis=0)
        plane = np.stack([x, y, np.ones_like(x)], axis=1)
        result[valid] = plane @ np.linalg.lstsq(plane, depth, rcond=None)[0] - depth
    return result


def show_rgb(axes: Axes, sample: Sample) -> None:
    axes.imshow(rgb_image(sample))


def show_depth(axes: Axes, sample: Sample, bar: bool = False) -> None:
    """`relief`, from its 1 % to its 99 % quantile; light is near the camera, grey has no point."""
    height = relief(sample)
    low, high = np.nanquantile(height, [0.01, 0.99]) if np.isfinite(height).any() else (0.0, 1.0)
    axes.set_facecolor(NOTHING)
    image = axes.imshow(height, cmap=DEPTH, vmin=low, vmax=max(high, low + 1e-6))
    if bar:
        colour_bar(axes, image, "mm towards the camera")


def colour_bar(axes: Axes, image: object, name: str) -> object:
    """A labelled colour bar beside a picture; returns it."""
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label(name, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return bar


def scale_bar(grid: np.ndarray, colours: str, low: str, high: str) -> None:
    """A bar below an array of axes whose pictures have scales of their own: what its two ends mean."""
    shades = ScalarMappable(cmap=colours)
    shades.set_clim(0.0, 1.0)
    bar = grid.flat[0].figure.colorbar(
        shades, ax=grid, location="bottom", fraction=0.01, aspect=14 * grid.shape[1], pad=0.004, ticks=[0, 1]
    )
    bar.ax.set_xticklabels([low, high], fontsize=7)
    bar.ax.tick_params(length=0)
    first, last = bar.ax.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def show_truth(axes: Axes, sample: Sample) -> None:
    """Anomalous pixels white, the rest of the part dark, pixels without a point grey."""
    image = np.full((*sample.gt.shape[1:], 3), NOTHING)
    image[sample.valid[0]] = to_rgb("#303030")
    image[sample.gt[0]] = 1.0
    axes.imshow(image)


def show_map(axes: Axes, psi: np.ndarray, valid: np.ndarray, low: float, high: float) -> object:
    """A map (S, S) between `low` and `high`, grey where `valid` (S, S) is false; returns the image."""
    axes.set_facecolor(NOTHING)
    return axes.imshow(np.where(valid, psi, np.nan), cmap=HEAT, vmin=low, vmax=max(high, low + 1e-12))


def outline(axes: Axes, mask: np.ndarray, colour: str = OUTLINE, width: float = 1.0) -> None:
    """Draw the border of a mask (S, S) bool, if it has one."""
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=width)


def bare(axes: Axes, title: str = "") -> None:
    """No ticks and no frame: for pictures."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, fontsize=8)


# ----------------------------------------------------------------- figures


def plot_sample(sample: Sample) -> Picture:
    """RGB, depth and ground truth of one sample."""
    title = f"{sample.category}, {sample.id}: {'defective' if sample.label else 'good'}"
    figure = new_figure(7.5, 2.5, title)
    for axes, name, show in zip(
        figure.subplots(1, 3),
        ("RGB", DEPTH_NAME, "ground truth"),
        (show_rgb, lambda a, s: show_depth(a, s, bar=True), show_truth),
        strict=True,
    ):
        show(axes, sample)
        bare(axes, name)
    return figure


def plot_contact_sheet(samples: Sequence[Sample], columns: int = 5) -> Picture:
    """Many samples at a glance: RGB above depth, the outline of the ground truth on both."""
    samples = list(samples)
    rows = -(-len(samples) // columns)
    figure = new_figure(1.45 * columns, 3.1 * rows)
    grid = np.atleast_2d(figure.subplots(2 * rows, columns, squeeze=False))
    for axes in grid.ravel():
        axes.axis("off")
    for k, sample in enumerate(samples):
        upper, lower = grid[2 * (k // columns), k % columns], grid[2 * (k // columns) + 1, k % columns]
        show_rgb(upper, sample)
        show_depth(lower, sample)
        for axes in (upper, lower):
            axes.axis("on")
            bare(axes)
            outline(axes, sample.gt[0])
        upper.set_title(f"{sample.category}\n{sample.defect}", fontsize=7)
    return figure


def plot_maps(sample: Sample, psi_rgb: np.ndarray, psi_xyz: np.ndarray, psi: np.ndarray) -> Picture:
    """RGB, depth, ground truth and the three maps (S, S) of one sample, each map on a scale of its own."""
    figure = new_figure(9.6, 1.75, f"{sample.category}, {sample.id}",
                        caption="Each map runs from its own 1 % quantile to its maximum; grey: no 3D point; "
                        "outline: ground truth.")  # fmt: skip
    axes = figure.subplots(1, 6)
    for one, name, show in zip(
        axes, ("RGB", DEPTH_NAME, "ground truth"), (show_rgb, show_depth, show_truth), strict=False
    ):
        show(one, sample)
        bare(one, name)
    valid = sample.valid[0]
    for one, name, values in zip(axes[3:], ("Ψ2D", "Ψ3D", "Ψ (fused, blurred)"), (psi_rgb, psi_xyz, psi), strict=True):
        inside = values[valid] if valid.any() else np.zeros(1)
        show_map(one, values, valid, np.quantile(inside, 0.01), inside.max())
        outline(one, sample.gt[0])
        bare(one, name)
    return figure


def save_heatmap(sample: Sample, prediction: Prediction, threshold: float, path: Path, warning: str = "") -> Path:
    """Write RGB, depth and the heatmap over the image, with the verdict, as PNG; returns `path`.

    The heatmap's scale runs from half to one and a half of the threshold, so that colours mean the same in every
    picture of one detector; pixels above the threshold are outlined. `warning` stands below the verdict.
    """
    return save_png(plot_heatmap(sample, prediction, threshold, warning), Path(path))


def plot_heatmap(sample: Sample, prediction: Prediction, threshold: float, warning: str = "") -> Picture:
    """The figure of `save_heatmap`."""
    psi, score = prediction.psi, prediction.score
    # An image score may be a scaled maximum (released code); this is the threshold on the map's own scale.
    level = threshold * float(psi.max()) / score if score > 0 else threshold
    anomalous = score > threshold
    verdict = "not OK" if anomalous else "OK"
    figure = new_figure(8.4, 2.7, f"{verdict}: image score {score:.4g}, threshold {threshold:.4g}", warning, warn=True,
                        caption="Heatmap: fused and blurred residual map over the grey image; outline: pixels above "
                        "the threshold.")  # fmt: skip
    left, middle, right = figure.subplots(1, 3)
    show_rgb(left, sample)
    bare(left, "RGB")
    show_depth(middle, sample, bar=True)
    bare(middle, DEPTH_NAME)
    low, high = 0.5 * level, 1.5 * level
    image = overlay(right, sample, psi, low, high, 0.7)
    outline(right, psi > level)
    bare(right, f"anomaly map: {verdict}")
    bar = colour_bar(right, image, "Ψ / threshold")
    if level > 0:
        bar.set_ticks([low, level, high], labels=["≤ 0.5", "1", "≥ 1.5"])
    return figure


def overlay(axes: Axes, sample: Sample, psi: np.ndarray, low: float, high: float, opacity: float) -> object:
    """A heatmap (S, S) over the grey image, `opacity` in [0, 1]; returns the heatmap's image."""
    axes.imshow(rgb_image(sample).mean(axis=2), cmap="gray", vmin=0, vmax=1)
    values = np.where(sample.valid[0], psi, np.nan)
    return axes.imshow(values, cmap=HEAT, vmin=low, vmax=max(high, low + 1e-12), alpha=opacity)
