"""Curves over categories: training losses, ROC, per-region overlap, score histograms."""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mafr.baselines.registry import MAFR
from mafr.config import DATASET_TITLES, DATASETS, LOSS_TERMS, VARIANTS, Config
from mafr.errors import ResultError
from mafr.experiments.plan import TableMethod
from mafr.experiments.results import Result, missing_note, needs_warning, stamp, stored_records, stored_results
from mafr.figures.style import DEFECTIVE, GOOD, GREY, VARIANT_STYLES, Picture, log_scale, new_figure, small_axes
from mafr.metrics import pro_curve
from mafr.paths import Paths
from mafr.scoring import metric_maps

PRO_LIMIT = 0.3  # the largest false-positive rate of the paper's AUPRO
_TERM_NAMES = {"total": "total, eq. 6", "sim": "ZNSSD, eq. 3", "smooth": "smoothness, eq. 4", "census": "census, eq. 5"}
_COLUMNS = 6  # panels in a row


def training_curves(
    config: Config, paths: Paths, datasets: Sequence[str] = DATASETS, variants: Sequence[str] = VARIANTS
) -> Picture:
    """Loss terms of each epoch, mean over categories, both variants; a band from the lowest to the highest."""
    stored = [stored_records(TableMethod(MAFR, v), d, config, paths) for d in datasets for v in variants]
    records = [record for found in stored for record in found.values()]
    return plot_history(records, stamp(config, datasets, variants), warn=needs_warning(config))


def plot_history(records: Sequence[dict], stamp: str = "", warn: bool = False) -> Picture:
    """Loss terms per epoch of run records: a row per data set, a column per term, a line per variant.

    Raises ResultError without records.
    """
    if not records:
        raise ResultError("no finished run to draw a training curve from")
    datasets = list(dict.fromkeys(r["dataset"] for r in records))
    terms = [t for t in ("total", *LOSS_TERMS) if any(t in r["history"][0] for r in records)]
    caption = (
        "Lines: mean over categories; bands: lowest to highest category. The variants define the terms differently, "
        "so compare shapes, not heights."
    )
    figure = new_figure(2.6 * len(terms), 2.1 * len(datasets) + 0.2, "Training loss", stamp, caption, warn)
    grid = figure.subplots(len(datasets), len(terms), squeeze=False, sharex="row")
    for line, (row, dataset) in enumerate(zip(grid, datasets, strict=True)):
        for axes, term in zip(row, terms, strict=True):
            for variant, (colour, style) in VARIANT_STYLES.items():
                chosen = [r["history"] for r in records if (r["dataset"], r["variant"]) == (dataset, variant)]
                _curve_and_band(axes, [[e[term] for e in h if term in e] for h in chosen], colour, style, variant)
            log_scale(axes, "y")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            title, x = _TERM_NAMES[term] if line == 0 else "", "epoch" if line == len(datasets) - 1 else ""
            small_axes(axes, x, title=title, size=8)
        row[0].set_ylabel(f"{DATASET_TITLES[dataset]}\nloss (log scale)", fontsize=8)
    grid[0, -1].legend(fontsize=7, frameon=False)
    return figure


def _curve_and_band(axes: Axes, curves: list[list[float]], colour: str, style: str, name: str) -> None:
    # Categories of different size may train for different numbers of epochs: shorter curves end with NaN.
    table = pd.DataFrame(zip_longest(*(curve for curve in curves if curve), fillvalue=np.nan)).T
    if not table.empty:
        epochs = np.arange(1, table.shape[1] + 1)
        axes.plot(epochs, table.mean(), color=colour, linestyle=style, linewidth=1.4, label=name)
        axes.fill_between(epochs, table.min(), table.max(), color=colour, alpha=0.15, lw=0)


def roc_curves(
    config: Config, paths: Paths, datasets: Sequence[str] = DATASETS, variants: Sequence[str] = VARIANTS
) -> Picture:
    """ROC curves of the image scores, one panel per category and one for their mean."""

    def curves(dataset: str, variant: str) -> dict[str, tuple]:
        records = stored_records(TableMethod(MAFR, variant), dataset, config, paths)
        return {c: (*_image_roc(r), r["metrics"][config.fusion]["i_auroc"]) for c, r in records.items()}

    title = "Image-level ROC curves (numbers: I-AUROC)"
    caption = (
        "Mean: the average of the categories' curves at equal false-positive rates. With few test images the curves "
        "have few steps; the tables give the intervals."
    )
    labels = "false-positive rate", "true-positive rate"
    return _curve_panels(config, datasets, variants, title, caption, curves, np.linspace(0, 1, 201), labels)


def _image_roc(record: dict) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.metrics import roc_curve  # slow to load, and most callers need none

    scores = record["scores"][record["config"]["fusion"]]
    fpr, tpr, _ = roc_curve(record["samples"]["labels"], scores, drop_intermediate=False)
    return fpr, tpr


def pro_curves(
    config: Config, paths: Paths, datasets: Sequence[str] = DATASETS, variants: Sequence[str] = VARIANTS
) -> Picture:
    """Per-region overlap curves up to a false-positive rate of 30 %, one panel per category and one for their mean."""

    def curves(dataset: str, variant: str) -> dict[str, tuple]:
        results = stored_results(config, paths, dataset, variant)
        return {r.run.category: (*_region_curve(r), r.record["metrics"][config.fusion]["aupro_30"]) for r in results}

    title = "Per-region overlap curves (numbers: AUPRO@30%)"
    caption = (
        "Up to a false-positive rate of 0.3, where the paper's AUPRO@30% ends; the dotted line is at 0.01, where "
        "AUPRO@1% ends. Exact curves: every distinct score is a threshold. Mean: average of the categories' curves."
    )
    grid, labels = np.linspace(0, PRO_LIMIT, 301), ("false-positive rate (pixels)", "mean region overlap")
    return _curve_panels(config, datasets, variants, title, caption, curves, grid, labels, mark=0.01)


def _region_curve(result: Result) -> tuple[np.ndarray, np.ndarray]:
    maps = metric_maps(torch.from_numpy(result.maps)[:, None], result.config.map_scaling, "au_pro")
    return pro_curve(result.gt, maps[:, 0].numpy())


def score_histograms(
    config: Config, paths: Paths, datasets: Sequence[str] = DATASETS, variants: Sequence[str] = VARIANTS
) -> Picture:
    """Image scores of good and defective test samples, one panel per category; the first of `variants`."""
    records = {d: stored_records(TableMethod(MAFR, variants[0]), d, config, paths) for d in datasets}
    title = "Image scores of good and defective test samples"
    caption = (
        "Image scores have no unit, and categories differ in scale. Dashed: the threshold that `mafr predict` would "
        f"use, the {config.quantile:.0%} quantile of the good validation scores. Numbers: I-AUROC."
    )
    columns = {dataset: list(found) for dataset, found in records.items()}
    figure, panels = _panels(config, datasets, variants[:1], title, caption, columns)
    for dataset, category, axes in panels:
        if category is None:
            _legend(axes, [("good", GOOD, "-"), ("defective", DEFECTIVE, "-"), ("threshold", GREY, "--")])
            continue
        record = records[dataset][category]
        draw_scores(axes, np.array(record["scores"][config.fusion]), np.array(record["samples"]["labels"]))
        axes.axvline(record["threshold"], color=GREY, linestyle="--", linewidth=1.0)
        auroc = record["metrics"][config.fusion]["i_auroc"]
        small_axes(axes, "image score", "test samples", f"{category.replace('_', ' ')}  {auroc:.3f}")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def draw_scores(axes: Axes, scores: np.ndarray, labels: np.ndarray) -> None:
    """Two histograms on common bins: scores (N,) of good and of defective samples."""
    edges = np.histogram_bin_edges(scores, bins=15)
    look = {"element": "step", "alpha": 0.35, "linewidth": 1.0}
    for label, colour in ((0, GOOD), (1, DEFECTIVE)):
        sns.histplot(x=scores[labels == label], bins=edges, ax=axes, color=colour, **look)


def _curve_panels(
    config: Config,
    datasets: Sequence[str],
    variants: Sequence[str],
    title: str,
    caption: str,
    curves: Callable[[str, str], dict[str, tuple]],
    grid: np.ndarray,
    labels: tuple[str, str],
    mark: float | None = None,
) -> Picture:
    """Panels of curves; `curves(dataset, variant)` gives {category: (x, y, number)}."""
    values = {(d, v): curves(d, v) for d in datasets for v in variants}
    found = {d: [c for c in config.categories(d) if any(c in values[d, v] for v in variants)] for d in datasets}
    columns = {dataset: [*categories, "mean"] for dataset, categories in found.items()}
    figure, panels = _panels(config, datasets, variants, title, caption, columns)
    for dataset, category, axes in panels:
        if category is None:
            _legend(axes, [(v, *VARIANT_STYLES[v]) for v in variants])
            continue
        for k, variant in enumerate(variants):
            known = values[dataset, variant]
            if category == "mean" and known:
                # At a jump, where x repeats, np.interp takes the last and highest value.
                y = np.mean([np.interp(grid, x, y) for x, y, _ in known.values()], axis=0)
                curve = grid, y, float(np.mean([number for *_, number in known.values()]))
            elif category in known:
                curve = known[category]
            else:
                continue
            colour, style = VARIANT_STYLES[variant]
            axes.plot(*curve[:2], color=colour, linestyle=style, linewidth=1.3)
            place = {"ha": "right", "transform": axes.transAxes}
            axes.text(0.97, 0.06 + 0.12 * k, f"{curve[2]:.3f}", color=colour, fontsize=7.5, **place)
        if mark is not None:
            axes.axvline(mark, color=GREY, linestyle=":", linewidth=0.9)
        axes.set(xlim=(-0.01 * grid[-1], grid[-1] * 1.01), ylim=(-0.01, 1.02))
        small_axes(axes, *labels, category.replace("_", " "), fontweight="bold" if category == "mean" else None)
    return figure


def _panels(
    config: Config,
    datasets: Sequence[str],
    variants: Sequence[str],
    title: str,
    caption: str,
    columns: dict[str, list[str]],
) -> tuple[Picture, Iterator[tuple[str, str | None, Axes]]]:
    """A figure with rows of panels per data set, and (data set, column name, axes); None is for the legend."""
    rows = {d: -(-(len(columns[d]) + 1) // _COLUMNS) for d in datasets}
    width = min(_COLUMNS, max(len(columns[d]) + 1 for d in datasets))
    size = max(1.95 * width, 6.0), 1.75 * sum(rows.values()) + 0.3 * len(datasets)
    caption += "".join(missing_note(config, d, columns[d]) for d in datasets)
    figure = new_figure(*size, title, stamp(config, datasets, variants), caption, needs_warning(config))
    parts = figure.subfigures(len(datasets), 1, squeeze=False, height_ratios=[rows[d] for d in datasets])[:, 0]

    def panels() -> Iterator[tuple[str, str | None, Axes]]:
        for part, dataset in zip(parts, datasets, strict=True):
            part.suptitle(config.dataset_title(dataset), fontsize=9)
            cells = part.subplots(rows[dataset], width, squeeze=False).ravel()
            names = [*columns[dataset], None]
            for axes in cells[len(names) :]:
                axes.axis("off")
            yield from ((dataset, name, axes) for name, axes in zip(names, cells, strict=False))

    return figure, panels()


def _legend(axes: Axes, lines: Sequence[tuple[str, str, str]]) -> None:
    axes.axis("off")
    for name, colour, style in lines:
        axes.plot([], [], color=colour, linestyle=style, label=name)
    axes.legend(loc="center", fontsize=8, frameon=False)
