"""Pictures of trials on real scans: numbers beside published ones, the course over epochs, heatmaps per defect type."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from mafr.baselines.registry import title
from mafr.config import CATEGORIES, FUSIONS
from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.experiments.certainty import auroc_with_interval
from mafr.experiments.results import Result, colour_range
from mafr.experiments.validation import Trial
from mafr.figures.samples import crop, show_depth, show_map, show_rgb
from mafr.figures.style import (
    BLACK,
    BLUE,
    DEPTH_NAME,
    GREEN,
    GREY,
    ORANGE,
    Picture,
    bare,
    new_figure,
    outline,
    small_axes,
)
from mafr.tables.layout import Table
from mafr.tables.published import FUSION_TITLES, METRIC_TITLES

Done = Mapping[Trial, Mapping]

_SOURCES = {  # what a picture of a data set's scans or of numbers from them says
    "mvtec3d": "Real scans: MVTec 3D-AD, (c) MVTec Software GmbH, CC BY-NC-SA 4.0",
    "eyecandies": "Original Eyecandies (rendered by its authors): Bonfiglioli et al., ACCV 2022",
}
_COLOURS = {"product": BLACK, "sum": ORANGE, "max": GREY, "rgb": BLUE, "xyz": GREEN}


def source_of(categories: Iterable[str]) -> str:
    """Origin and licence of the data sets of these categories, and of no other."""
    wanted = set(categories)
    return "; ".join(text for dataset, text in _SOURCES.items() if wanted & set(CATEGORIES[dataset]))


def plot_beside_published(table: Table, metrics: Mapping[str, str], stamp: str | None = None) -> Picture:
    """Published values (rings) and measured ones (dots) of a validation table, one panel for each of `metrics`.

    metrics: name of a column without its group -> heading.
    """
    frame = table.frame
    names = [f"{row['Method']}\n{row['Settings']}" for _, row in frame.iterrows()]
    stamp = stamp or source_of(frame["Category"])
    figure = new_figure(2.0 + 2.1 * len(metrics), 0.6 + 0.33 * len(frame), "Published and measured", stamp)
    (grid,) = figure.subplots(1, len(metrics), sharey=True, squeeze=False)
    for axes, (name, heading) in zip(grid, metrics.items(), strict=True):
        rows = np.arange(len(frame))[::-1]
        published, measured = frame[f"published_{name}"], frame[f"measured_{name}"]
        axes.hlines(rows, published, measured, color="0.7", zorder=0)
        axes.plot(published, rows, "o", mfc="white", mec=BLACK, label="published")
        axes.plot(measured, rows, "o", color=BLUE, markersize=4, label="measured")
        small_axes(axes, heading)
        axes.set_yticks(rows, names)
        axes.set_ylim(-0.7, len(frame) - 0.3)
        axes.grid(axis="x", color="0.92")
    axes.legend(fontsize=6.5, loc="lower left", bbox_to_anchor=(1, 0), frameon=False)
    return figure


def plot_epochs(done: Done, category: str, stamp: str | None = None) -> Picture:
    """Metrics of the five maps of the paper variant over epochs; crosses: the released variant."""
    chosen = [(t, r) for t, r in done.items() if t.part == "mafr" and t.run.category == category]
    stamp = stamp or source_of([category])
    figure = new_figure(8.6, 2.5, f"{category.replace('_', ' ')}: MAFR over epochs", stamp)
    grid = figure.subplots(1, 3)
    for axes, metric in zip(grid, ("i_auroc", "p_auroc", "aupro_01"), strict=True):
        for how in FUSIONS:
            course = {t.run.config.epochs: r["metrics"][how][metric] for t, r in chosen if t.run.variant == "paper"}
            # The maximum often equals the 2D map.
            line = {"linestyle": ":" if how == "max" else "-", "zorder": 3 if how == "max" else 2}
            look = {"color": _COLOURS[how], "label": FUSION_TITLES[how], "marker": "o", "markersize": 3}
            axes.plot(list(course), list(course.values()), **look, **line)
            for trial, record in chosen:
                if trial.run.variant == "released":
                    axes.plot(trial.run.config.epochs, record["metrics"][how][metric], "x", color=_COLOURS[how])
        small_axes(axes, "epochs", "", METRIC_TITLES[metric])
        axes.set_xscale("log")
        axes.set_xticks(list(course), list(map(str, course)))
        axes.minorticks_off()
    axes.plot([], [], "x", color=BLACK, label="released")
    axes.legend(fontsize=6.5, loc="lower left", bbox_to_anchor=(1, 0), frameon=False)
    return figure


def plot_methods(done: Done, category: str, printed: Mapping[str, float], stamp: str | None = None) -> Picture:
    """The I-AUROC of every trial of MAFR and the compared methods; rings: published, with large backbones."""
    chosen = [(t, r) for t, r in done.items() if t.part in ("mafr", "compared") and t.run.category == category]
    names = [f"{t.run.table_method.title}, {t.how}" for t, _ in chosen]
    stamp = stamp or source_of([category])
    figure = new_figure(6.4, 0.5 + 0.2 * len(chosen), f"{category.replace('_', ' ')}: I-AUROC of all methods", stamp)
    axes, rows = figure.subplots(), np.arange(len(chosen))[::-1]
    for row, (trial, record) in zip(rows, chosen, strict=True):
        metrics = record["metrics"]
        own, low, high = auroc_with_interval(
            record, trial.run.config.fusion if len(metrics) > 1 else next(iter(metrics))
        )
        axes.hlines(row, low, high, color="0.75", zorder=0)
        axes.plot(own, row, "o", color=BLACK if trial.part == "mafr" else BLUE, markersize=4)
        axes.plot(printed[title(trial.run.method)], row, "o", mfc="none", mec=ORANGE)
    small_axes(axes, "I-AUROC with its 95 % interval; orange rings: published, large backbones")
    axes.axvline(0.5, color="0.8", linestyle=":")
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.7, len(chosen) - 0.3)
    return figure


def plot_differences(table: Table, stamp: str | None = None) -> Picture:
    """Each changed setting's metrics minus those of the start with its seed; grey: how far the start's seeds part."""
    frame, metrics = table.frame, ("i_auroc", "p_auroc", "aupro_30")
    names = list(dict.fromkeys(name for name in frame["Setting"] if not name.startswith("paper, seed")))
    categories = list(dict.fromkeys(frame["Category"]))
    height = 0.5 + 0.19 * len(names)
    stamp = stamp or source_of(categories)
    figure = new_figure(9.0, height * len(categories), "Change by one setting", stamp)
    grid = figure.subplots(len(categories), len(metrics), squeeze=False, sharey=True)
    rows = np.arange(len(names))[::-1]
    for line, category in zip(grid, categories, strict=True):
        part = frame[frame["Category"] == category].set_index("Setting")
        start = part[part.index.str.startswith("paper, seed")]
        for axes, metric in zip(line, metrics, strict=True):
            spread = np.ptp(start[metric])
            axes.axvspan(-spread, spread, color="0.88", zorder=0)
            axes.plot(part[metric].reindex(names) - start[metric].iloc[0], rows, "o", color=BLUE, markersize=4)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.axvline(0, color="0.6", linewidth=0.8)
            axes.set_ylim(-0.7, len(names) - 0.3)
            small_axes(axes, "", "", f"{category.replace('_', ' ')}: {METRIC_TITLES[metric]}")
            axes.set_yticks(rows, names)
    return figure


def plot_defects(results: Mapping[str, Result], view: DepthAxis, stamp: str | None = None) -> Picture:
    """Of each defect type the sample with the median score by the last result: RGB, depth and every result's maps.

    results: heading -> result, all of one category; view: its viewing axis. Each map has one colour scale over the
    test set, as in Fig. 2.
    """
    *_, last = results.values()
    defects = sorted({name for name, label in zip(last.defects, last.labels, strict=True) if label})
    chosen = [_median(last, defect) for defect in defects]
    names = ["RGB", DEPTH_NAME] + [f"{name}\n{kind}" for name in results for kind in ("Ψ2D", "Ψ3D", "Ψ")]
    caption = (
        "Of each defect type the sample with the median image score (the lower of two) in the last three columns' run. "
        "Maps: black is the median pixel of the good images, the lightest colour the top 0.1 % of all pixels; light "
        "grey: no 3D point; cyan: the true defect."
    )
    stamp = stamp or source_of([last.run.category])
    figure = new_figure(1.25 * len(names), 1.3 * len(chosen), "", stamp, caption)
    grid = figure.subplots(len(chosen), len(names), squeeze=False)
    maps = [m for one in results.values() for m in (*one.residuals(range(len(one.ids))), one.maps)]
    ranges = [colour_range(m, last.mask, last.labels) for m in maps]
    for k, row in zip(chosen, grid, strict=True):
        sample = last.samples[k]
        show_rgb(row[0], sample)
        show_depth(row[1], sample, view=view)
        for axes, values, limits in zip(row[2:], maps, ranges, strict=True):
            show_map(axes, values[k], last.mask[k], *limits)
        for axes in row:
            outline(axes, sample.gt[0], 0.8)
            bare(axes)
            crop(axes, sample.valid[0])
        row[0].set_ylabel(sample.defect.replace("_", " "), fontsize=8)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=7.5)
    return figure


def _median(result: Result, defect: str) -> int:
    among = [k for k, name in enumerate(result.defects) if name == defect]
    order = sorted(among, key=lambda k: (result.scores[k], result.ids[k]))
    return order[(len(order) - 1) // 2]


def plot_scans(samples: Sequence[Sample], view: DepthAxis, stamp: str | None = None) -> Picture:
    """RGB above depth of some samples, cropped to the part, with the outline of the ground truth.

    view: the category's viewing axis.
    """
    stamp = stamp or source_of(one.category for one in samples)
    figure = new_figure(1.5 * len(samples), 3.1, "", stamp)
    grid = figure.subplots(2, len(samples), squeeze=False)
    for (upper, lower), sample in zip(grid.T, samples, strict=True):
        show_rgb(upper, sample)
        show_depth(lower, sample, view=view)
        for axes in (upper, lower):
            outline(axes, sample.gt[0], 0.8)
            bare(axes)
            crop(axes, sample.valid[0])
        upper.set_title(f"{sample.category.replace('_', ' ')}\n{sample.defect.replace('_', ' ')}", fontsize=8)
    return figure
