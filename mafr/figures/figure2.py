"""The figures of the reproduction, drawn from stored runs; what notebooks call returns matplotlib figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mafr.baselines.methods import title
from mafr.config import DATASET_TITLES, DATASETS, VARIANTS, Config
from mafr.errors import ResultError
from mafr.experiments.results import (
    colour_range,
    compared_maps,
    needs_warning,
    not_run,
    stamp,
    stored_records,
    stored_results,
)
from mafr.figures.architecture import architecture
from mafr.figures.costs import cost_accuracy, method_points
from mafr.figures.curves import draw_scores, plot_history, pro_curves, roc_curves, score_histograms, training_curves
from mafr.figures.pictures import (
    DEPTH,
    DEPTH_NAME,
    HEAT,
    Picture,
    bare,
    new_figure,
    outline,
    plot_contact_sheet,
    plot_heatmap,
    plot_maps,
    plot_sample,
    save_heatmap,
    save_png,
    scale_bar,
    show_depth,
    show_map,
    show_rgb,
    show_truth,
)
from mafr.parallel.progress import map_parallel
from mafr.paths import Paths

__all__ = [
    "architecture", "cost_accuracy", "draw_scores", "figure2", "plot_contact_sheet", "plot_heatmap", "plot_history",
    "plot_maps", "plot_sample", "pro_curves", "roc_curves", "save_heatmap", "save_png", "score_histograms",
    "training_curves", "write_figures",
]  # fmt: skip

FIGURE_METHODS = ("cfm", "m3dm", "btf", "ast")  # whose maps Fig. 2 shows beside MAFR's


def write_figures(
    config: Config, paths: Paths, variants: Sequence[str] = VARIANTS, workers: int | None = 1
) -> list[Path]:
    """Draw every figure that the stored runs allow, as PNG into `paths.figures`; returns what was written.

    Fig. 1 needs no run. A data set or variant without any finished run is left out with a note; categories
    that are missing are named in the figure. Raises ResultError if nothing has been run at all.

    workers: so many local processes, a figure each; None for as many as suit the machine.
    """
    jobs: list[tuple] = [("fig1_architecture.png", architecture, config.with_variant(variants[0]))]
    found = {(d, v) for d in DATASETS for v in variants if stored_records(config, paths, d, v)}
    if not found:
        _write(jobs, paths, workers)
        raise ResultError(
            f"no finished run in {paths.runs(DATASETS[0]).parent}; `mafr reproduce --profile {config.profile}` makes "
            "them, and the figures after"
        )
    for dataset, variant in ((d, v) for d in DATASETS for v in variants if (d, v) not in found):
        print(f"not drawn: {DATASET_TITLES[dataset]}, {variant} variant; none of its runs is finished", file=sys.stderr)
    datasets = [d for d in DATASETS if any((d, v) in found for v in variants)]
    drawn = [v for v in variants if any((d, v) in found for d in datasets)]
    for dataset, name in zip(DATASETS, ("fig2_qualitative.png", "fig2_eyecandies.png"), strict=True):
        if (dataset, drawn[0]) in found:
            jobs.append((name, figure2, config, paths, dataset, drawn[0]))
    for name, draw in {
        "training_curves.png": training_curves,
        "roc_curves.png": roc_curves,
        "pro_curves.png": pro_curves,
        "score_histograms.png": score_histograms,
    }.items():
        jobs.append((name, draw, config, paths, datasets, drawn))
    if any(method_points(config, paths, dataset, drawn) for dataset in datasets):
        jobs.append(("cost_accuracy.png", cost_accuracy, config, paths, datasets, drawn))
    else:
        print("not drawn: costs; no method has timed runs of all categories", file=sys.stderr)
    return _write(jobs, paths, workers)


def _write(jobs: list[tuple], paths: Paths, workers: int | None) -> list[Path]:
    """Draw and save figures; jobs: (file name, function, its arguments...)."""
    return map_parallel(_save, [(paths.figures / name, *call) for name, *call in jobs], workers, "figures")


def _save(job: tuple) -> Path:
    path, draw, *arguments = job
    return save_png(draw(*arguments), path)


# ------------------------------------------------------------------- Fig. 2


def figure2(config: Config, paths: Paths, dataset: str = "mvtec3d", variant: str = "paper") -> Picture:
    """Fig. 2: one defective test sample a category with MAFR's maps and the compared methods' final maps.

    Which sample: the defective one with MAFR's median image score (the lower of two; equal scores by id).
    Colour scale: for each category, method and map kind, from the median over the anomaly-free test images' pixels
    to the 99.9 % quantile over all test images' pixels, pixels with a 3D point only.
    Raises ResultError if none of the data set's runs is finished.
    """
    categories = list(stored_records(config, paths, dataset, variant))
    if not categories:
        raise ResultError(
            f"no finished run of {DATASET_TITLES[dataset]}, {variant} variant; `mafr run --profile {config.profile} "
            f"--table {1 + DATASETS.index(dataset)} --variant {variant}` makes them"
        )
    methods = [m for m in FIGURE_METHODS if stored_records(config, paths, dataset, variant, m)]
    caption = (
        "Each row: the defective test sample with the median image score of its category by MAFR (lower of two), so "
        "neither the best nor the worst. The maps of a category share one scale a column, over its whole test set: "
        "black is the median pixel of the good images, the lightest colour the 99.9 % quantile of all pixels. Depth: "
        "each sample's own scale. Grey: no 3D point. Outline: ground truth."
        f"{not_run(config, dataset, categories)}"
    )
    number = "Fig. 2: qualitative" if dataset == "mvtec3d" else "Qualitative"
    heading = f"{number} results, {config.dataset_title(dataset)}"
    source = stamp(config, [dataset], [variant])
    names = ("RGB", DEPTH_NAME, "ground truth", "Ψ2D", "Ψ3D", "MAFR", *(title(m) for m in methods))
    width, height = 0.4 + 1.2 * len(names), 1.22 * len(categories) + 0.45
    figure = new_figure(width, height, heading, source, caption, warn=needs_warning(config))
    grid = figure.subplots(len(categories), len(names), squeeze=False)
    for row, result in zip(grid, stored_results(config, paths, dataset, variant), strict=True):
        k = result.median_defective()
        sample = result.samples[k]
        for axes, show in zip(row, (show_rgb, show_depth, show_truth), strict=False):
            show(axes, sample)
        others = compared_maps(config, paths, dataset, result.run.category, result.ids, methods)
        shown = [*result.residuals(range(len(result.ids))), result.maps, *(others.get(m) for m in methods)]
        for axes, maps in zip(row[3:], shown, strict=True):
            if maps is None:
                axes.text(0.5, 0.5, "not run", ha="center", va="center", fontsize=7, transform=axes.transAxes)
                continue
            show_map(axes, maps[k], result.mask[k], *colour_range(maps, result.mask, result.labels))
            outline(axes, sample.gt[0], width=0.8)
        for axes in row:
            bare(axes)
        name = result.run.category.replace("_", " ")
        row[0].set_ylabel(f"{name}\n{sample.defect.replace('_', ' ')}", fontsize=8)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=8)
    scale_bar(grid[:, 1:2], DEPTH, "far", "near")
    scale_bar(grid[:, 3:], HEAT, "median of the good images' pixels", "99.9 % of all pixels")
    return figure
