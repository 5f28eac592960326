"""What one run computes from stored features: training, maps of the test set, metrics, threshold, costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from mafr.baselines.base import Baseline
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.detector import Detector, score_threshold
from mafr.device import computing
from mafr.errors import DataError
from mafr.experiments.evaluation import MAP, all_metrics, fused_maps, map_metrics
from mafr.features.extract import PARTS
from mafr.features.sources.splits import StoredSplit
from mafr.features.sources.store import FeatureStore
from mafr.paths import temporary_beside
from mafr.scoring import image_score

RESIDUALS, MAPS = "residuals.npz", "maps.npz"
HIGHEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Outcome:
    """The results of one run.

    metrics, scores: by fusion operator, or under `mafr.experiments.evaluation.MAP` alone for a method that has one map.
    threshold: of the good validation samples. seconds: train_s; inference_s, of the test set from tokens or loaded
    samples to residual maps, or to final maps where a method has no other; map_s, final maps of these; score_s,
    metrics; query_s, the part of inference_s that went into searches in memory banks.
    model_bytes: size of what the method stores. reads: which of `mafr.features.extract.PARTS` it looks at.
    save: writes the detector into a folder and the maps beside it.
    """

    metrics: dict[str, dict]
    scores: dict[str, list[float]]
    threshold: float
    history: list[dict[str, float]]
    seconds: dict[str, float]
    parameters: int
    model_bytes: int
    reads: tuple[str, ...]
    save: Callable[[Path], None]


@dataclass(frozen=True)
class TimedSplit(StoredSplit):
    """A split that keeps the seconds in which its samples were read from the disk, which no method is charged for."""

    reading: list[float] = field(default_factory=list)

    def sample(self, k: int) -> Sample:
        start = time.perf_counter()
        sample = super().sample(k)
        self.reading.append(time.perf_counter() - start)
        return sample


def mafr_outcome(config: Config, stores: dict[str, FeatureStore], shots: Sequence[int], checkpoint: Path) -> Outcome:
    """MAFR trained on some training samples; what was trained is kept in `checkpoint` on the way."""
    test = stores["test"]
    start = time.perf_counter()
    detector = Detector(config).fit_features(stores["train"], list(shots), checkpoint)
    trained = time.perf_counter()
    residuals = residual_maps(detector, test)
    inferred = time.perf_counter()
    with computing(config):
        mask = torch.from_numpy(test.mask(range(len(test))))[:, None]
        fused_maps(*residuals, mask, config, config.fusion)  # timed apart: below all operators' maps are made
        mapped = time.perf_counter()
        gt, labels = test.gt(range(len(test))), np.asarray(test.labels)
        metrics, scores = all_metrics(*residuals, mask, gt, labels, test.defects, config)
    detector.threshold = _validation_threshold(detector, stores["validation"])
    scored = time.perf_counter()

    def save(folder: Path) -> None:
        detector.save(folder / "detector")
        names = ("psi_rgb", "psi_xyz", "valid")
        _save_arrays(folder / RESIDUALS, dict(zip(names, (part.numpy() for part in residuals), strict=True)))

    sizes = [(p.numel(), p.numel() * p.element_size()) for p in detector.model.parameters()]
    return Outcome(
        metrics,
        scores,
        detector.threshold,
        detector.history,
        {
            "train_s": trained - start,
            "inference_s": inferred - trained,
            "map_s": mapped - inferred,
            "score_s": scored - mapped,
        },
        sum(count for count, _ in sizes),
        sum(size for _, size in sizes),
        PARTS,
        save,
    )


def baseline_outcome(detector: Baseline, splits: dict[str, StoredSplit], shots: Sequence[int], keep: bool) -> Outcome:
    """A compared method trained on some training samples. keep: also store the test set's maps, as float16."""
    config, test, validation = detector.config, splits["test"], splits["validation"]
    store = test.store
    train = splits["train"]
    if keep:  # the cost table's times must hold all that a new sample costs
        train, test = replace(train, cache=None), replace(test, cache=None)
    test = TimedSplit(test.samples, test.store, test.cache)
    with computing(config):
        start = time.perf_counter()
        detector.fit_split(train, list(shots))
        trained, searched = time.perf_counter(), sum(detector.searches())
        predictions = detector.score_split(test, range(len(test)))
        inferred, searched = time.perf_counter(), sum(detector.searches()) - searched
        maps = np.stack([p.psi for p in predictions])
        scores = np.array([p.score for p in predictions])
        gt, labels = store.gt(range(len(store))), np.asarray(store.labels)
        own = replace(config, map_scaling="none")  # scaling the maps by metric is the released MAFR's
        metrics = map_metrics(torch.from_numpy(maps)[:, None], scores, gt, labels, store.defects, own)
        good = [k for k in range(len(validation)) if validation.store.labels[k] == 0]
        calibration = [p.score for p in detector.score_split(validation, good)]
    detector.threshold = _threshold(calibration, store.category, config.quantile)
    scored = time.perf_counter()

    def save(folder: Path) -> None:
        if keep:
            _save_arrays(folder / MAPS, {"maps": np.clip(maps, None, HIGHEST).astype(np.float16)}, compress=True)

    return Outcome(
        {MAP: metrics},
        {MAP: scores.tolist()},
        detector.threshold,
        detector.history,
        {
            "train_s": trained - start,
            "inference_s": inferred - trained - sum(test.reading),
            "map_s": 0.0,
            "score_s": scored - inferred,
            **({"query_s": searched} if detector.searches() else {}),
        },
        sum(tensor.numel() for tensor in detector.state().values()),
        detector.nbytes(),
        detector.reads,
        save,
    )


def residual_maps(detector: Detector, store: FeatureStore) -> tuple[torch.Tensor, ...]:
    """Eq. 7 on every stored sample: (psi_rgb, psi_xyz, valid), each (N, 1, g, g)."""
    parts = [detector.residuals(store.tokens([k])) for k in range(len(store))]
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def _validation_threshold(detector: Detector, store: FeatureStore) -> float:
    """The quantile of the scores of the good validation samples, the default threshold of `mafr predict`."""
    config = detector.config
    residuals = residual_maps(detector, store)
    mask = torch.from_numpy(store.mask(range(len(store))))[:, None]
    maps = fused_maps(*residuals, mask, config, config.fusion)
    scores = image_score(maps, config.image_score).numpy()[np.asarray(store.labels) == 0]
    return _threshold(scores.tolist(), store.category, config.quantile)


def _threshold(scores: list[float], category: str, quantile: float) -> float:
    if not scores:
        raise DataError(f"{category}: the validation folder holds no good sample to take the threshold from")
    return score_threshold(scores, quantile)


def _save_arrays(path: Path, arrays: dict[str, np.ndarray], compress: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            (np.savez_compressed if compress else np.savez)(file, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
