"""The README's picture: three defective parts with MAFR's anomaly map, cropped to the part."""

from mafr.baselines.registry import MAFR
from mafr.config import Config
from mafr.experiments.plan import TableMethod
from mafr.experiments.results import colour_range, load_result, missing_note, needs_warning, no_run, stamp
from mafr.experiments.run_store import read_records
from mafr.figures.samples import crop, show_depth, show_map, show_rgb, show_truth
from mafr.figures.style import Picture, bare, new_figure, outline
from mafr.paths import Paths

_MARGIN = 6  # pixels around the part


def overview(config: Config, paths: Paths, dataset: str = "mvtec3d", variant: str = "paper") -> Picture:
    """The categories with the lowest, the median and the highest I-AUROC: inputs, ground truth and final map.

    Four columns, so that it can be read on a phone. Samples and colour scales as in `figure2`. Raises ResultError if
    none of the data set's runs is finished.
    """
    runs = TableMethod(MAFR, variant).runs(dataset, config)
    records = read_records(runs, paths)
    if not records:
        raise no_run(config, dataset, variant)
    scores = {run.category: record["metrics"][config.fusion]["i_auroc"] for run, record in records.items()}
    ordered = sorted(scores, key=lambda category: (scores[category], category))
    chosen = list(dict.fromkeys([ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]]))
    names = ("image", "depth", "true defect", "anomaly map Ψ")
    source = stamp(config, [dataset], [variant])
    figure = new_figure(1.25 * len(names), 1.25 * len(chosen), "", source, "", needs_warning(config))
    figure.alt = (
        f"{source}. The categories where MAFR's I-AUROC is lowest, median and highest; of each the defective test "
        "sample with the median image score: image, depth, true defect, anomaly map. Black is the median pixel of the "
        "good images, the lightest colour the top 0.1 % of all pixels. Light grey: no 3D point. Cyan: the true defect."
        f"{missing_note(config, dataset, list(scores))}"
    )
    grid = figure.subplots(len(chosen), len(names), squeeze=False)
    for category, row in zip(chosen, grid, strict=True):
        result = load_result(next(run for run in records if run.category == category), paths)
        k = result.median_defective()
        sample = result.samples[k]
        for axes, show in zip(row, (show_rgb, show_depth, show_truth), strict=False):
            show(axes, sample)
        show_map(row[3], result.maps[k], result.mask[k], *colour_range(result.maps, result.mask, result.labels))
        outline(row[3], sample.gt[0], 0.7)
        for axes in row:
            bare(axes)
            crop(axes, sample.valid[0], _MARGIN)
        name = f"{sample.category}: {sample.defect}".replace("_", " ")
        row[0].set_ylabel(f"{name}\nI-AUROC {scores[sample.category]:.3f}", fontsize=8)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=10)
    return figure
