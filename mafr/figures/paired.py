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
    """Rows of Table S5 as its csv file has them: I-AUROC of what is measured less that of each other."""
    rows = np.arange(len(frame))[::-1]
    figure = new_figure(7.0, 0.55 + 0.24 * len(frame), title, stamp, warn=warn)
    axes = figure.subplots()
    draw_differences(axes, rows, frame["difference"], frame["low"], frame["high"])
    one = frame["Measured"].nunique() == 1
    names = frame["Held against"] if one else frame["Measured"] + " − " + frame["Held against"]
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.7, len(frame) - 0.3)
    own = frame["Measured"].iloc[0] if one else "first"
    small_axes(axes, f"I-AUROC of {own} less that of the other, 95 % interval; grey: level")
    axes.grid(axis="x", color="0.92")
    return figure
