"""Parts of all figures: canvas with title and stamp, axes, colours, bars, outlines, and repeatable files."""

import io
import textwrap
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from mafr.errors import ConfigError
from mafr.paths import write_atomically

# Okabe and Ito's colours: colour-blind readers can tell them apart.
BLUE, ORANGE, GREEN, PURPLE, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C", "#1A1A1A"
VARIANT_STYLES = {"paper": (BLACK, "-"), "released": (PURPLE, "--")}
GOOD, DEFECTIVE = BLUE, ORANGE
HEAT, DEPTH = "inferno", "cividis"
NO_POINT = to_rgb("#E8E8E8")  # pixels without a 3D point
LOSS_COLOURS = {"sim": BLUE, "smooth": ORANGE, "census": GREEN, "total": BLACK}  # of the terms, and of all together
OUTLINE = "#00E5FF"  # of the ground truth on a heatmap: visible on black and on yellow
DPI = 120
_FORMATS = {".png": "png", ".pdf": "pdf", ".svg": "svg", ".jpg": "jpg", ".jpeg": "jpg"}
DEPTH_NAME = "depth, tilt removed"
_ROUNDED = ((np.arange(256) + 2) // 5 * 5).astype(np.uint8)


class Picture(Figure):
    """A matplotlib figure outside pyplot's global state that Jupyter shows as PNG, with `alt` for who cannot see it."""

    alt = ""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:  # what Jupyter shows, and its metadata
        return png_bytes(self), {"alt": self.alt} if self.alt else {}


def new_figure(
    width: float, height: float, title: str = "", stamp: str = "", caption: str = "", warn: bool = False
) -> Picture:
    """A figure with `width` x `height` inches for its axes, title and stamp above them and the caption below.

    The three are its alternative text as well.

    warn: whether the stamp gets a conspicuous background, for data that is not the real data set.
    """
    lines, marks = textwrap.wrap(caption, int(width * 17.5)), textwrap.wrap(stamp, int(width * 17.5))
    above = 0.1 + 0.28 * bool(title) + 0.24 * bool(marks) + 0.14 * max(len(marks) - 1, 0)
    below = 0.06 + 0.135 * len(lines)
    total = height + above + below
    figure = Picture(figsize=(width, total), dpi=DPI, layout="constrained", facecolor="white")
    figure.alt = ". ".join(filter(None, [title, stamp, caption]))
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
    """The figure as PNG, the same bytes each time: without date and software version.

    Colours are rounded to steps of 5 of 255, which is invisible and halves the file.
    """
    before = figure.dpi, figure.canvas
    try:
        figure.dpi = dpi or figure.dpi
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # once; `savefig` draws a first time for the layout alone
        colours = np.asarray(canvas.buffer_rgba())[:, :, :3]
    finally:
        figure.dpi = before[0]
        figure.set_canvas(before[1])
    buffer = io.BytesIO()
    Image.fromarray(_ROUNDED[colours]).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_png(figure: Figure, path: Path) -> Path:
    """Write `png_bytes` atomically; returns the path."""
    write_atomically(path, png_bytes(figure))
    return path


def picture_format(path: Path) -> str:
    """png, pdf, svg or jpg, by a file's suffix. Raises ConfigError for any other."""
    name = _FORMATS.get(path.suffix.lower())
    if name is None:
        raise ConfigError(f"{path}: a picture's name must end in .png, .pdf, .svg or .jpg")
    return name


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure atomically in the format of the path's suffix, the same bytes each time; returns the path.

    Raises ConfigError for a suffix other than .png, .pdf, .svg, .jpg or .jpeg.
    """
    name = picture_format(path)
    if name == "png":
        return save_png(figure, path)
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(name)
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "mafr"}):  # else the names within an svg are drawn by chance
        figure.savefig(buffer, format=name, dpi=figure.dpi, metadata=undated)
    write_atomically(path, buffer.getvalue())
    return path


def small_axes(axes: Axes, x: str = "", y: str = "", title: str = "", size: float = 7, **font: object) -> None:
    """Small ticks, no frame above and on the right, labels of a font size: for panels of curves. font: of the title."""
    axes.set_title(title, fontsize=8, **font)
    axes.set_xlabel(x, fontsize=size)
    axes.set_ylabel(y, fontsize=size)
    axes.tick_params(which="both", labelsize=6.5, length=2)
    axes.spines[["top", "right"]].set_visible(False)


def log_scale(axes: Axes, name: str) -> None:
    """A logarithmic axis "x" or "y" with plain numbers at 1, 2 and 5 times the powers of ten."""
    axes.set(**{f"{name}scale": "log"})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def bare(axes: Axes, title: str = "") -> None:
    """No ticks and no frame: for pictures."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, fontsize=8)


def outline(axes: Axes, mask: np.ndarray, width: float = 1.0) -> None:
    """Draw the border of a mask (S, S) bool, if it has one."""
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors=[OUTLINE], linewidths=width)


def colour_bar(axes: Axes, image: object, name: str) -> object:
    """A labelled colour bar beside a picture; returns it."""
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label(name, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return bar


def scale_bar(grid: np.ndarray, colours: str, low: str, high: str, tall: float = 0.01) -> object:
    """A bar below an array of axes, each with its own scale, that says what the two ends of all scales mean.

    tall: its height, as a share of theirs. Returns it.
    """
    shades = ScalarMappable(cmap=colours)
    shades.set_clim(0.0, 1.0)
    bar = grid.flat[0].figure.colorbar(
        shades, ax=grid, location="bottom", fraction=tall, aspect=14 * grid.shape[1], pad=0.4 * tall, ticks=[0, 1]
    )
    bar.ax.set_xticklabels([low, high], fontsize=7)
    bar.ax.tick_params(length=0)
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    return bar
