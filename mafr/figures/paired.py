"""Pictures of paired differences: which of them are findings."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mafr.figures.style import BLACK, GREY, Picture, new_figure, small_axes


def draw_differences(axes: Axes, rows: np.ndarray, mean: pd.Series, low: pd.Series, high: pd.Series) -> None:
    """Differences with their intervals at heights `rows`: black where the interval leaves out 0, else grey."""
    axes.axvline(0, color="0.6", linewidth=0.8)
    clear = np.asarray((low > 0) | (high < 0))
    for chosen, colour in ((clear, BLACK), (~clear, GREY)):
        axes.hlines(rows[chosen], low[chosen], high[chosen], color=colour)
        axes.plot(mean[chosen], rows[chosen], "o", color=colour, markersize=4)


def plot_paired(frame: pd.DataFrame, title: str, stamp: str, warn: bool = False) -> Picture:
    """Rows of Table S5 as its csv file has them: I-AUROC of what is measured minus that of each other.

    One panel for each value of the column "Table", with the same rows in all.
    """
    panels = [part.reset_index(drop=True) for _, part in frame.groupby("Table", sort=False)]
    rows = np.arange(len(panels[0]))[::-1]
    figure = new_figure(7.0 if len(panels) == 1 else 10.0, 0.55 + 0.24 * len(rows), title, stamp, warn=warn)
    every = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, part in zip(every, panels, strict=True):
        draw_differences(axes, rows, part["difference"], part["low"], part["high"])
        small_axes(axes, title=part["Table"][0] if len(panels) > 1 else "")
        axes.grid(axis="x", color="0.92")
    one = frame["Measured"].nunique() == 1
    first = panels[0]
    every[0].set_yticks(rows, first["Held against"] if one else first["Measured"] + " against " + first["Held against"])
    every[0].set_ylim(-0.7, len(rows) - 0.3)
    own = first["Measured"][0] if one else "the first"
    figure.supxlabel(f"I-AUROC of {own} minus that of the other, 95 % interval; grey: level", fontsize=7)
    return figure


def plot_both_ends(frame: pd.DataFrame, title: str, stamp: str, warn: bool = False) -> Picture:
    """Table S8 as its csv file has it: one setting changed at a time, left of the text, right of the code."""
    changed = frame.dropna(subset=["difference_mean"])
    parts = [part.reset_index(drop=True) for _, part in changed.groupby("Start", sort=False)]
    rows = np.arange(len(parts[0]))[::-1]
    figure = new_figure(9.6, 0.6 + 0.22 * len(rows), title, stamp, warn=warn)
    for axes, part in zip(figure.subplots(1, len(parts), sharex=True), parts, strict=True):
        draw_differences(axes, rows, *(part[f"difference_{name}"] for name in ("mean", "low", "high")))
        axes.set_yticks(rows, part["Changed"] + " = " + part["To"])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        start = part["Start"][0]
        small_axes(axes, f"I-AUROC minus that of {start}, 95 % interval; grey: level", "", f"{start}, one change")
        axes.grid(axis="x", color="0.92")
    return figure
