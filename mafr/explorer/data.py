"""What the heatmap explorer shows of a category: its test samples packed for the browser.

MAFR's maps are packed as the residuals of cells, from which the page computes what `mafr.scoring` does (with the
`parts` preset, as those of pixels); the compared methods' as final maps at half the resolution, since they cannot be
taken apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from mafr.baselines.registry import MAFR, method_settings, title
from mafr.config import Config
from mafr.data.display import around_middle, thinned, thinning
from mafr.experiments.plan import FIGURE_METHODS, Run, TableMethod
from mafr.experiments.results import (
    Result,
    colour_range,
    compared_maps,
    load_result,
    needs_warning,
    stamp,
    stored_records,
)  # fmt: skip
from mafr.experiments.run_store import read_record
from mafr.page.packed import Packed, image_url
from mafr.paths import Paths
from mafr.scoring import PREFIX

POINTS = 3000  # of a cloud, at most
QUALITY = 80  # of images
HALF = 2  # by which the compared methods' maps are smaller
RATES = tuple(round(-0.05 * step, 2) for step in range(80, 9, -1))  # the slider's steps: powers of ten


def explorable(config: Config, paths: Paths, dataset: str) -> list[str]:
    """The categories with a finished run of the variant on good and defective test images, in the paper's order."""
    found = stored_records(TableMethod(MAFR, config.variant), dataset, config, paths)
    return [category for category, record in found.items() if _fits(record)]


def _fits(record: dict | None) -> bool:
    """Whether good test images are held against defective ones."""
    return record is not None and set(record["samples"]["labels"]) == {0, 1}


def category_data(config: Config, paths: Paths, dataset: str, category: str, variants: Sequence[str]) -> dict | None:
    """A category's samples under the variants with a finished run on good and defective images; None without any."""
    runs = {variant: Run(dataset, category, config.with_variant(variant)) for variant in variants}
    results = {v: load_result(run, paths) for v, run in runs.items() if _fits(read_record(run, paths))}
    if not results:
        return None
    first = next(iter(results.values()))
    others = compared_maps(config, paths, dataset, category, first.ids, FIGURE_METHODS)
    return {
        "category": category.replace("_", " "),
        "stamp": stamp(config, [dataset], list(results)),
        "warn": needs_warning(config),
        "side": config.image_size,
        "grid": config.image_size if _at_pixels(first) else config.grid,
        "half": HALF,
        "variants": {variant: _variant(result) for variant, result in results.items()},
        "methods": [_method(name, maps, first, config, paths, dataset) for name, maps in others.items()],
        "samples": [_sample(k, results, others) for k in range(len(first.ids))],
        "start": first.ids[first.median_defective()],  # the sample of Fig. 2
    }


def as_json(data: dict) -> str:
    """Short text."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _variant(result: Result) -> dict:
    config = result.config
    return {
        "fusion": config.fusion.removeprefix(PREFIX), "blur": config.blur, "sigma": config.sigma,
        "score": config.image_score, "ranges": result.residual_ranges, "known": _known(result),
    }  # fmt: skip


def _known(result: Result) -> dict:
    """What the page computes from all samples, by the run's own settings: so that a category is there at once."""
    good = result.labels == 0
    values = result.maps[good][result.mask[good]]
    thresholds = np.quantile(values, [1 - 10**rate for rate in RATES])
    return {
        "scores": [float(f"{score:.7g}") for score in result.scores],
        "range": colour_range(result.maps, result.mask, result.labels),
        "thresholds": {f"{rate:.2f}": float(f"{value:.7g}") for rate, value in zip(RATES, thresholds, strict=True)},
    }


def _method(name: str, maps: np.ndarray, result: Result, config: Config, paths: Paths, dataset: str) -> dict:
    run = Run(dataset, result.run.category, method_settings(name, config, dataset=dataset), method=name)
    record = read_record(run, paths)
    return {
        "name": name, "title": title(name), "range": colour_range(maps, result.mask, result.labels),
        "scores": [float(f"{score:.6g}") for score in record["scores"]["map"]],
    }  # fmt: skip


def _at_pixels(result: Result) -> bool:
    """Whether the page cannot make the maps from cells: those of a window around the part, or on a common scale."""
    return result.config.view != "whole" or result.scaled


def _sample(k: int, results: dict[str, Result], others: dict[str, np.ndarray]) -> dict:
    first = next(iter(results.values()))
    sample, packed, pixels = first.samples[k], Packed(), _at_pixels(first)
    valid = sample.valid[0]
    packed.bits(first.mask[k])  # what is scored
    packed.bits(first.gt[k])
    packed.bits(valid)
    cells = first.mask[k] if pixels else first.valid[k, 0].numpy()
    packed.bits(cells)
    residuals = {}
    for variant, result in results.items():
        cell_maps = result.psi_rgb[k].numpy(), result.psi_xyz[k].numpy()
        both = result.residuals([k], result.scaled) if pixels else cell_maps
        residuals[variant] = [packed.words(part[0][cells]) for part in both]
    maps = {name: packed.levels(_smaller(part[k])) for name, part in others.items()}
    cloud = around_middle(sample, *thinned(valid, POINTS)) if valid.any() else np.zeros((0, 3))
    rgb = np.round(255 * np.moveaxis(np.clip(sample.rgb, 0, 1), 0, -1)).astype(np.uint8)
    return {
        "id": first.ids[k], "defect": first.defects[k].replace("_", " "), "label": int(first.labels[k]),
        "image": image_url(rgb, QUALITY), "residuals": residuals, "maps": maps,
        "cloud": packed.points(cloud) | {"lattice": thinning(valid, POINTS)}, "bytes": packed.text(),
    }  # fmt: skip


def _smaller(values: np.ndarray) -> np.ndarray:
    """The means of blocks of a map (S, S)."""
    side = values.shape[0] // HALF
    return values[: side * HALF, : side * HALF].reshape(side, HALF, side, HALF).mean(axis=(1, 3))
