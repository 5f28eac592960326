"""Cost against accuracy: seconds per sample and means of metrics, one point per method."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mafr.config import DATASETS, VARIANTS, Config
from mafr.errors import ResultError
from mafr.experiments.plan import dataset_methods
from mafr.experiments.results import needs_warning, stamp, stored_records
from mafr.figures.label_placement import label_points
from mafr.figures.style import GREY, VARIANT_STYLES, Picture, log_scale, new_figure
from mafr.paths import Paths
from mafr.scoring import MAP
from mafr.tables.published import METRIC_TITLES
from mafr.tables.supplement import sample_seconds

METRICS = ("i_auroc", "aupro_01")
Point = tuple[str, str, float, dict[str, float]]  # label, colour, seconds per sample, means of METRICS


def cost_accuracy(
    config: Config, paths: Paths, datasets: Sequence[str] = DATASETS, variants: Sequence[str] = VARIANTS
) -> Picture:
    """Seconds per sample against mean I-AUROC and mean AUPRO@1%: a row per data set, a point per method.

    Means over the categories; methods that lack some of their runs are left out. Raises ResultError if nothing
    has been run with times.
    """
    points = {dataset: method_points(config, paths, dataset, variants) for dataset in datasets}
    points = {dataset: found for dataset, found in points.items() if found}
    if not points:
        raise ResultError("no method has finished runs of all categories to draw costs from")
    threads = "on one thread" if config.threads == 1 else f"on {config.threads or 'all'} threads"
    caption = (
        f"Seconds from the processed sample in memory to its final map, {threads}, while other runs may have "
        "shared the machine. A method is charged for the features that it reads: of the image, of the points, or none. "
        "Means over the categories."
    )
    title, source = "Cost and accuracy of the methods", stamp(config, list(points), variants)
    figure = new_figure(9, 3.2 * len(points), title, source, caption, needs_warning(config))
    grid = figure.subplots(len(points), len(METRICS), squeeze=False)
    for row, dataset in zip(grid, points, strict=True):
        for axes, metric in zip(row, METRICS, strict=True):
            _panel(axes, points[dataset], metric)
            axes.set_title(config.dataset_title(dataset), fontsize=9)
    figure.draw_without_rendering()  # labels are placed in the final layout
    for row, found in zip(grid, points.values(), strict=True):
        names, colours, seconds, means = zip(*found, strict=True)
        for axes, metric in zip(row, METRICS, strict=True):
            places = np.column_stack([seconds, [mean[metric] for mean in means]])
            label_points(axes, names, places, colours, size=7)
    return figure


def method_points(config: Config, paths: Paths, dataset: str, variants: Sequence[str] = VARIANTS) -> list[Point]:
    """The methods of a data set's table that have finished and timed runs of all categories."""
    points = []
    for method in dataset_methods(dataset, variants):
        records = list(stored_records(method, dataset, config, paths).values())
        seconds = [sample_seconds(record) for record in records]
        if len(records) < len(config.categories(dataset)) or None in seconds:
            continue
        name = config.fusion if method.variant else MAP
        means = {metric: float(np.mean([r["metrics"][name][metric] for r in records])) for metric in METRICS}
        colour = VARIANT_STYLES[method.variant][0] if method.variant else GREY
        points.append((method.title, colour, float(np.mean(seconds)), means))
    return points


def _panel(axes: Axes, points: Sequence[Point], metric: str) -> None:
    for _, colour, seconds, means in points:
        axes.plot(seconds, means[metric], "o", color=colour, markersize=5)
    log_scale(axes, "x")
    axes.margins(x=0.18, y=0.1)
    axes.set_xlabel("seconds per sample (log scale)", fontsize=8)
    axes.set_ylabel(f"mean {METRIC_TITLES[metric]}", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
