"""Finished runs read from the store for figures: samples, residual maps, scores, and a stamp of their provenance."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mafr.baselines.registry import MAFR, feature_config, method_settings
from mafr.config import CALIBRATED, CATEGORIES, DATASET_TITLES, DATASETS, UNTRAINED, Config
from mafr.data import FolderDataset, open_dataset
from mafr.data.layout import SPLITS
from mafr.errors import DataError, ResultError
from mafr.experiments.plan import Run, TableMethod, table_of
from mafr.experiments.run_store import data_fingerprint, load_maps, load_residuals, read_record, read_records
from mafr.features.sources.splits import load_features
from mafr.features.sources.store import FeatureStore
from mafr.paths import Paths
from mafr.scoring import PREFIX, ResidualMaps, at_pixels, fuse, image_score, smooth
from mafr.standardise import Scales

SATURATION = 0.999  # of a category's test pixels: where colour scales end


@dataclass(frozen=True)
class Result:
    """One finished run and the test set that it was scored on; N samples, S = `Config.image_size`.

    record: the run's record. samples: the N test samples, read when asked for. store: their features and masks.
    psi_rgb, psi_xyz: (N, 1, g, g) residual maps, eq. 7; valid: (N, 1, g, g) bool, cells with 3D points.
    """

    run: Run
    record: dict
    samples: FolderDataset
    store: FeatureStore
    psi_rgb: Tensor
    psi_xyz: Tensor
    valid: Tensor

    @property
    def config(self) -> Config:
        return self.run.config

    @cached_property
    def ids(self) -> list[str]:
        return self.record["samples"]["ids"]

    @cached_property
    def defects(self) -> list[str]:
        return self.record["samples"]["defects"]

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) 0 good, 1 anomalous."""
        return np.asarray(self.record["samples"]["labels"])

    @cached_property
    def scores(self) -> np.ndarray:
        """(N,) image scores of the configured fusion."""
        return np.asarray(self.record["scores"][self.config.fusion])

    @cached_property
    def answer(self) -> ResidualMaps:
        """The residual maps as they were scored."""
        points = torch.from_numpy(np.asarray(self.store.mask(range(len(self.ids)))))[:, None]
        scales = Scales.from_dict(self.record["scales"]) if "scales" in self.record else None
        return ResidualMaps(self.psi_rgb, self.psi_xyz, self.valid, points, self.config, scales)

    @cached_property
    def mask(self) -> np.ndarray:
        """(N, S, S) bool, the pixels that are scored."""
        return self.answer.scored[:, 0].numpy()

    @cached_property
    def gt(self) -> np.ndarray:
        """(N, S, S) bool, true where anomalous."""
        return np.asarray(self.store.gt(range(len(self.ids))))

    @cached_property
    def maps(self) -> np.ndarray:
        """(N, S, S) final maps as they were scored: fused, masked and blurred, eq. 8."""
        return self.answer.maps(self.config.fusion)[:, 0].numpy()

    @property
    def scaled(self) -> bool:
        """Whether the final map is made of maps on a common scale, see `mafr.standardise`."""
        return self.config.fusion in CALIBRATED

    def residuals(self, indices: Sequence[int], scaled: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The residual maps of some samples at full size, zero where nothing is scored: two (n, S, S).

        scaled: those on a common scale, in standard deviations of good validation parts.
        """
        chosen, answer = list(indices), self.answer
        if scaled:
            psi_rgb, psi_xyz, _ = (part[chosen] for part in answer.scaled_pixels)
        elif chosen == list(range(len(self.ids))):
            psi_rgb, psi_xyz, _ = answer.pixels  # once, also for the final maps
        else:
            parts = (part[chosen] for part in (answer.psi_rgb, answer.psi_xyz, answer.valid, answer.scored))
            psi_rgb, psi_xyz, _ = at_pixels(*parts, self.config.image_size, self.config.view)
        return psi_rgb[:, 0].numpy(), psi_xyz[:, 0].numpy()

    @cached_property
    def residual_ranges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """`colour_range` of the two residual maps over the test set, those that the final map is made of."""
        psi_rgb, psi_xyz = self.residuals(range(len(self.ids)), self.scaled)
        return colour_range(psi_rgb, self.mask, self.labels), colour_range(psi_xyz, self.mask, self.labels)

    def rescored(self, how: str, blur: str | None, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """Maps (N, S, S) and image scores (N,) with another fusion operator and blur.

        how: one of `FUSIONS`, or with "calibrated_" before it for maps on a common scale. blur: "gaussian", "box" or
        None for no blur; sigma in pixels. Raises ValueError for others.
        """
        both = self.residuals(range(len(self.ids)), how.startswith(PREFIX))
        maps = fuse(*(torch.from_numpy(psi)[:, None] for psi in both), how.removeprefix(PREFIX))
        if blur is not None:
            maps = smooth(maps, blur, sigma)
        return maps[:, 0].numpy(), image_score(maps, self.config.image_score).numpy().astype(np.float64)

    def median_defective(self) -> int:
        """Index of the defective sample with the median image score (the lower of two, ties by id)."""
        defective = np.flatnonzero(self.labels == 1)
        order = sorted(defective, key=lambda k: (self.scores[k], self.ids[k]))
        return int(order[(len(order) - 1) // 2])


def colour_range(maps: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The colour scale of a category's maps, one for all its samples: (lowest, highest) value shown.

    From the median over the good images' pixels to the 99.9 % quantile over all images' pixels, only those with
    a 3D point. maps: (N, S, S); mask: (N, S, S) bool, where there is a point; labels: (N,).
    """
    good = labels == 0
    low = float(np.median(maps[good][mask[good]]))
    return low, float(np.quantile(maps[mask], SATURATION))


def load_result(run: Run, paths: Paths) -> Result:
    """A finished run from the store. Raises ResultError if it is not there, DataError if its data changed."""
    record = read_record(run, paths)
    if record is None:
        raise ResultError(
            f"{run} has not been run: {run.folder(paths) / 'metrics.json'} is missing; make it with "
            f"`mafr run {paths.options} --dataset {run.dataset} --category {run.category}"
            f" --variant {run.config.variant}`"
        )
    stores = {s: load_features(paths, run.dataset, run.category, s, run.config) for s in SPLITS}
    if record["data_fingerprint"] != data_fingerprint(stores):
        raise DataError(
            f"{run.folder(paths)} was computed on other data than {paths.processed(run.dataset)} holds now; run it "
            f"again with `mafr run --profile {run.config.profile}`"
        )
    samples = open_dataset(run.dataset, paths.processed(run.dataset), run.category, "test", run.config)
    residuals = load_residuals(run, paths, len(record["samples"]["ids"]))
    return Result(run, record, samples, stores["test"], *residuals)


def stored_records(method: TableMethod, dataset: str, config: Config, paths: Paths) -> dict[str, dict]:
    """{category: record} of a method's finished full runs, in the paper's order."""
    return {run.category: record for run, record in read_records(method.runs(dataset, config), paths).items()}


def compared_maps(
    config: Config, paths: Paths, dataset: str, category: str, ids: Sequence[str], methods: Iterable[str]
) -> dict[str, np.ndarray]:
    """{method: (N, S, S) final maps} of the compared methods' finished runs on all samples.

    ids: the N test samples in their order. Runs on other samples, or on features of other data than MAFR's run, are
    left out.
    """
    found, own = {}, read_record(Run(dataset, category, config), paths)
    for method in methods:
        run = Run(dataset, category, method_settings(method, config, dataset=dataset), method=method)
        record = read_record(run, paths)
        if record is None or record["samples"]["ids"] != list(ids):
            continue
        same = feature_config(method, run.config).feature_digest() == config.feature_digest()
        if own is None or not same or record["data_fingerprint"] == own["data_fingerprint"]:
            found[method] = load_maps(run, paths, len(ids)).astype(np.float32)
    return found


def stored_results(config: Config, paths: Paths, dataset: str, variant: str) -> Iterator[Result]:
    """MAFR's finished full runs, loaded one at a time: a full test set is large."""
    for run in TableMethod(MAFR, variant).runs(dataset, config):
        if read_record(run, paths) is not None:
            yield load_result(run, paths)


def no_run(config: Config, dataset: str, variant: str) -> ResultError:
    """The error where none of MAFR's full runs on a data set is finished, with the command that makes them."""
    own = not config.generated and set(config.categories(dataset)) - set(CATEGORIES[dataset])
    which = f"--table {table_of(dataset)}" if dataset in DATASETS else f"--dataset {dataset} --category NAME"
    if own:
        which = f"--data-root DIR --dataset {dataset} --category {config.categories(dataset)[0]}"
    return ResultError(
        f"no finished run of {DATASET_TITLES[dataset]}, {variant} variant; `mafr run --profile {config.profile} "
        f"{which} --variant {variant}` makes them"
    )


def missing_note(config: Config, dataset: str, found: Sequence[str]) -> str:
    """A sentence for captions that names the categories missing from `found`; empty if none is."""
    missing = [c for c in config.categories(dataset) if c not in found]
    return f" Not run yet: {', '.join(missing)}." if missing else ""


def stamp(config: Config, datasets: Sequence[str], variants: Sequence[str]) -> str:
    """The provenance of numbers and pictures in one line: data, profile, variants."""
    names = " and ".join(DATASET_TITLES[d] if config.generated else config.dataset_title(d) for d in datasets)
    if config.generated:
        names = f"GENERATED DATA in the format of {names}, not the real one"
    which = "variant" if len(variants) == 1 else "variants"
    text = f"{names} · {config.profile} profile · {' and '.join(variants)} {which}"
    return f"{UNTRAINED} · {text}" if config.random_weights else text


def needs_warning(config: Config) -> bool:
    """Whether a stamp must be conspicuous: generated data, or untrained backbones."""
    return config.generated or config.random_weights
