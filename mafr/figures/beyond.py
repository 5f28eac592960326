"""Pictures of the preset for own parts: its steps, its window, and how generated scans rank beside real ones."""

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from mafr.data.samples import Sample
from mafr.data.window import Window
from mafr.experiments.order import SECOND, SOURCES, most_moved, rank_correlation
from mafr.figures.paired import draw_differences
from mafr.figures.samples import show_rgb
from mafr.figures.style import BLACK, BLUE, ORANGE, Picture, bare, new_figure, small_axes
from mafr.tables.published import METRIC_TITLES

_COLOURS = {"second": BLUE, "first": ORANGE}
_MOST = 4  # rows that are named


def plot_steps(frame: pd.DataFrame, title: str, stamp: str, against: str = "the first row") -> Picture:
    """A table of `mafr develop`: metrics of each row, and its difference of I-AUROC with the 95 % interval.

    against: what each row is held against.
    """
    names, rows = list(frame["Settings"]), np.arange(len(frame))[::-1]
    figure = new_figure(9.2, 0.55 + 0.27 * len(frame), title, stamp, warn=True)
    left, right = figure.subplots(1, 2, sharey=True)
    for name, colour in (("i_auroc", BLACK), ("aupro_30", BLUE)):
        left.plot(frame[name], rows, "o", color=colour, markersize=4.5, label=METRIC_TITLES[name])
    left.legend(fontsize=6.5, loc="lower right", bbox_to_anchor=(0, 1), frameon=False)
    small_axes(left, "mean over the categories")
    left.set_yticks(rows, names)
    left.set_ylim(-0.7, len(frame) - 0.3)
    left.grid(axis="x", color="0.92")
    draw_differences(right, rows, *(frame[f"difference_{part}"] for part in ("mean", "low", "high")))
    small_axes(right, f"I-AUROC minus that of {against},\n95 % interval; grey: level")
    return figure


def plot_window(sample: Sample, grid: int, stamp: str, warn: bool = False) -> Picture:
    """The cells of the whole image, and those of the window around the part; grid: cells along a side."""
    size, window = sample.rgb.shape[-1], Window.of(sample.valid[0])
    figure = new_figure(6.4, 3.1, f"{grid} × {grid} cells of the whole image, and of the window", stamp, warn=warn)
    places = {"whole image": (0.0, 0.0, 1.0), "window around the part": (window.left, window.top, window.side)}
    for axes, (name, (left, top, side)) in zip(figure.subplots(1, 2), places.items(), strict=True):
        show_rgb(axes, sample)
        lines = np.linspace(0, 1, grid + 1) * side * size - 0.5
        axes.vlines(left * size + lines, top * size - 0.5, (top + side) * size - 0.5, color="white", linewidth=0.3)
        axes.hlines(top * size + lines, left * size - 0.5, (left + side) * size - 0.5, color="white", linewidth=0.3)
        frame = Rectangle((left * size - 0.5, top * size - 0.5), side * size, side * size, fill=False, ec=ORANGE)
        axes.add_patch(frame)
        bare(axes, name)
    return figure


def plot_order(frame: pd.DataFrame, title: str, stamp: str) -> Picture:
    """Each row of `mafr survey --scores`: its value on real scans across, on generated ones upwards.

    Of the second generator the methods and the `_MOST` rows that change their place most are named, by a number.
    """
    rows = frame.dropna(subset=["real_i_auroc"]).reset_index(drop=True)
    metrics = ("i_auroc", "aupro_30")
    named = {n for metric in metrics for n in most_moved(rows, metric, _MOST).index}
    key = "; ".join(f"{number} {rows['Method'][n]}" for number, n in enumerate(sorted(named), start=1))
    numbers = {n: number for number, n in enumerate(sorted(named), start=1)}
    figure = new_figure(9.0, 3.4, title, stamp, f"Numbered, the rows that change their place most: {key}.", warn=True)
    for axes, metric in zip(figure.subplots(1, 2), metrics, strict=True):
        for source in (name for name in SOURCES if name in _COLOURS):
            across, up = rows[f"real_{metric}"], rows[f"{source}_{metric}"]
            marker = "o" if source == SECOND else "x"
            label = f"{source} generator: rank correlation {rank_correlation(across, up):.2f}"
            axes.plot(across, up, marker, color=_COLOURS[source], markersize=4.5, label=label)
            for n, number in numbers.items() if source == SECOND else ():
                axes.annotate(str(number), (across[n], up[n]), (4, 3), textcoords="offset points", fontsize=8)
        small_axes(axes, "real scans", "generated scans", METRIC_TITLES[metric])
        axes.legend(fontsize=6.5, loc="lower right", frameon=False)
        axes.grid(color="0.92")
        axes.axline((across.max(), across.max()), slope=1, color="0.7", linewidth=0.8, zorder=0)  # as hard as real ones
    return figure
