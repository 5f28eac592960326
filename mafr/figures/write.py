"""The figures of the reproduction, drawn from stored runs into files."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mafr.baselines.registry import MAFR
from mafr.config import DATASET_TITLES, DATASETS, VARIANTS, Config
from mafr.errors import ResultError
from mafr.experiments.plan import TableMethod
from mafr.experiments.results import stored_records
from mafr.figures.costs import cost_accuracy, method_points
from mafr.figures.curves import pro_curves, roc_curves, score_histograms, training_curves
from mafr.figures.fig1 import architecture
from mafr.figures.fig2 import figure2
from mafr.figures.overview import overview
from mafr.figures.style import save_png
from mafr.parallel.progress import map_parallel
from mafr.paths import Paths


def write_figures(
    config: Config, paths: Paths, variants: Sequence[str] = VARIANTS, workers: int | None = 1
) -> list[Path]:
    """Draw every figure that the stored runs allow, as PNG into `paths.figures`; returns what was written.

    Fig. 1 needs no run. A data set or variant without any finished run is left out with a note; missing categories
    are named in the figure. Raises ResultError if nothing has been run at all.

    workers: number of local processes, one figure each; None for one per processor.
    """
    jobs: list[tuple] = [("fig1_architecture.png", architecture, config.with_variant(variants[0]))]
    pairs = [(d, v) for d in DATASETS for v in variants]
    found = [(d, v) for d, v in pairs if stored_records(TableMethod(MAFR, v), d, config, paths)]
    if not found:
        _write(jobs, paths, workers)
        raise ResultError(
            f"no finished run in {paths.runs(DATASETS[0]).parent}; `mafr reproduce --profile {config.profile}` makes "
            "them, and the figures after"
        )
    for dataset, variant in (pair for pair in pairs if pair not in found):
        print(f"not drawn: {DATASET_TITLES[dataset]}, {variant} variant; none of its runs is finished", file=sys.stderr)
    datasets = list(dict.fromkeys(d for d, _ in found))
    drawn = [v for v in variants if any(v == other for _, other in found)]
    for dataset, name in zip(DATASETS, ("fig2_qualitative.png", "fig2_eyecandies.png"), strict=True):
        if (dataset, drawn[0]) in found:
            jobs.append((name, figure2, config, paths, dataset, drawn[0]))
    if ("mvtec3d", drawn[0]) in found:
        jobs.append(("overview.png", overview, config, paths, "mvtec3d", drawn[0]))
    for draw in (training_curves, roc_curves, pro_curves, score_histograms):
        jobs.append((f"{draw.__name__}.png", draw, config, paths, datasets, drawn))
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
