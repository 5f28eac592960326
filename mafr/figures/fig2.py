"""Fig. 2, the paper's qualitative figure, for either data set."""

from mafr.baselines.registry import MAFR, title
from mafr.config import Config
from mafr.experiments import results
from mafr.experiments.plan import FIGURE_METHODS, TableMethod
from mafr.figures.samples import crop, show_depth, show_map, show_rgb, show_truth
from mafr.figures.style import DEPTH, DEPTH_NAME, HEAT, Picture, bare, new_figure, outline, scale_bar
from mafr.paths import Paths


def figure2(config: Config, paths: Paths, dataset: str = "mvtec3d", variant: str = "paper") -> Picture:
    """Fig. 2: one defective test sample per category with MAFR's maps and the compared methods' final maps.

    Sample: the defective one with MAFR's median image score (the lower of two; equal scores by id).
    Colour scale: for each category, method and kind of map, from the median over the anomaly-free test images' pixels
    to the 99.9 % quantile over all test images' pixels, pixels with a 3D point only.
    Raises ResultError if none of the data set's runs is finished.
    """
    categories = list(results.stored_records(TableMethod(MAFR, variant), dataset, config, paths))
    if not categories:
        raise results.no_run(config, dataset, variant)
    methods = [m for m in FIGURE_METHODS if results.stored_records(TableMethod(m), dataset, config, paths)]
    caption = (
        "Each row: the defective test sample with the median image score of its category by MAFR (lower of two), so "
        "neither the best nor the worst. The maps of a category share one scale per column, over its whole test set: "
        "black is the median pixel of the good images, the lightest colour the 99.9 % quantile of all pixels. Depth: "
        "each sample's own scale. Cropped to the part. Light grey: no 3D point. Cyan: ground truth."
        f"{results.missing_note(config, dataset, categories)}"
    )
    heading = f"{'Fig. 2: q' if dataset == 'mvtec3d' else 'Q'}ualitative results, {config.dataset_title(dataset)}"
    source = results.stamp(config, [dataset], [variant])
    names = ("RGB", DEPTH_NAME, "ground truth", "Ψ2D", "Ψ3D", "MAFR", *(title(m) for m in methods))
    width, height = 0.4 + 1.2 * len(names), 1.22 * len(categories) + 0.45
    figure = new_figure(width, height, heading, source, caption, results.needs_warning(config))
    grid = figure.subplots(len(categories), len(names), squeeze=False)
    for row, result in zip(grid, results.stored_results(config, paths, dataset, variant), strict=True):
        k = result.median_defective()
        sample = result.samples[k]
        for axes, show in zip(row, (show_rgb, show_depth, show_truth), strict=False):
            show(axes, sample)
        others = results.compared_maps(config, paths, dataset, result.run.category, result.ids, methods)
        shown = [*result.residuals(range(len(result.ids))), result.maps, *(others.get(m) for m in methods)]
        for axes, maps in zip(row[3:], shown, strict=True):
            if maps is None:
                axes.text(0.5, 0.5, "not run", ha="center", va="center", fontsize=7, transform=axes.transAxes)
                continue
            show_map(axes, maps[k], result.mask[k], *results.colour_range(maps, result.mask, result.labels))
            outline(axes, sample.gt[0], width=0.6)
        for axes in row:
            bare(axes)
            crop(axes, sample.valid[0], margin=6)
        name = result.run.category.replace("_", " ")
        row[0].set_ylabel(f"{name}\n{sample.defect.replace('_', ' ')}", fontsize=8)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=8)
    tall = 0.15 / height  # of the figure, whatever its number of rows
    scale_bar(grid[:, 1:2], DEPTH, "far", "near", tall)
    scale_bar(grid[:, 3:], HEAT, "median of the good images' pixels", "99.9 % of all pixels", tall)
    for column in (grid[:, 0:1], grid[:, 2:3]):  # so that all pictures stay in line
        scale_bar(column, HEAT, "", "", tall).ax.set_visible(False)
    return figure
