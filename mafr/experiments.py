"""The grid of runs behind the tables, and the run store that they are kept in.

A run is (data set, category, method, settings, shots). Its record, `metrics.json`, holds everything a
table needs; it is written last, so a run is finished when its record exists. Runs are independent.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from mafr import __version__
from mafr.config import DATASETS, Config
from mafr.data import FolderDataset, few_shot, open_dataset
from mafr.detector import Detector, score_threshold
from mafr.errors import ConfigError, DataError, MafrError
from mafr.evaluation import all_metrics, fused_maps
from mafr.features.extract import FeatureExtractor
from mafr.features.live import LiveFeatures
from mafr.features.store import FeatureStore, build_store, open_store
from mafr.paths import Paths, write_json
from mafr.progress import map_parallel
from mafr.scoring import image_score
from mafr.training import torch_threads

RESULTS_VERSION = 1  # raised whenever a change of the code changes numbers; finished runs are then repeated
SPLITS = ("train", "validation", "test")
LOSS_ABLATION = (("sim",), ("census",), ("smooth",), ("sim", "smooth", "census"))  # rows of Table IV
TABLES = (1, 2, 3, 4, 5)
# Settings that say which runs are made or how they are shown, not what one run computes.
_NOT_OF_A_RUN = {"mvtec3d_categories", "eyecandies_categories", "shots"}


@dataclass(frozen=True)
class Run:
    """One training and its scoring. `shots` None: all training samples."""

    dataset: str
    category: str
    config: Config
    shots: int | None = None
    method: str = "mafr"

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that decides the result, the data aside."""
        others = {f"{dataset}_train" for dataset in DATASETS if dataset != self.dataset}
        settings = {k: v for k, v in self.config.as_dict().items() if k not in _NOT_OF_A_RUN | others}
        identity = [self.dataset, self.category, self.method, self.shots, RESULTS_VERSION, settings]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def folder(self, paths: Paths) -> Path:
        """`runs/<profile>/<dataset>/<category>/<method>-<short hash>`."""
        return paths.runs(self.dataset) / self.category / f"{self.method}-{self.digest[:12]}"

    def __str__(self) -> str:
        shots = "all samples" if self.shots is None else f"{self.shots} shots"
        terms = "+".join(self.config.loss_terms)
        return f"{self.dataset}/{self.category} {self.method} {self.config.variant} {terms} {shots}"


def table_runs(table: int, config: Config, variants: Sequence[str] = ("paper", "released")) -> list[Run]:
    """The runs that a table of the paper needs. Tables III-V use the first of `variants`."""
    if table not in TABLES:
        raise ConfigError(f"unknown table {table}; the tables are {', '.join(map(str, TABLES))}")
    if table in (1, 2):
        dataset = DATASETS[table - 1]
        return [
            Run(dataset, category, config.with_variant(variant))
            for variant in variants
            for category in config.categories(dataset)
        ]
    base = config.with_variant(variants[0])
    categories = base.categories("mvtec3d")
    if table == 3:
        return [Run("mvtec3d", c, base, shots) for shots in (*base.shots, None) for c in categories]
    if table == 4:
        settings = [replace(base, loss_terms=terms) for terms in LOSS_ABLATION]
        return [Run("mvtec3d", c, setting) for setting in settings for c in categories]
    return [Run("mvtec3d", c, base) for c in categories]


def all_runs(
    config: Config, tables: Iterable[int] = TABLES, variants: Sequence[str] = ("paper", "released"), seeds: int = 1
) -> list[Run]:
    """The runs of several tables and `seeds` consecutive seeds, each run once."""
    runs = [
        run
        for k in range(seeds)
        for table in tables
        for run in table_runs(table, replace(config, seed=config.seed + k), variants)
    ]
    return list(dict.fromkeys(runs))


# ---------------------------------------------------------------- features


def store_folder(paths: Paths, dataset: str, samples: FolderDataset, config: Config) -> Path:
    """Where the features of a split are stored: named by what decides them, data included."""
    key = hashlib.sha256(f"{config.feature_digest()} {samples.fingerprint}".encode()).hexdigest()
    return paths.features(dataset) / samples.category / f"{samples.split}-{key[:12]}"


def load_features(
    paths: Paths, dataset: str, category: str, split: str, config: Config
) -> FeatureStore | LiveFeatures:
    """The stored features of a split; in `extractor_mode` "train", features drawn anew at each access.

    Raises DataError, naming the command, if features should be stored and are not.
    """
    samples = open_dataset(dataset, paths.processed(dataset), category, split, config)
    if config.extractor_mode == "train":
        return LiveFeatures(samples, config, _extractor(config, paths.weights))
    folder = store_folder(paths, dataset, samples, config)
    store = open_store(folder, config, samples.fingerprint)
    if store is None:
        raise DataError(
            f"{folder} holds no features of this data; make them with `mafr features {paths.options}`"
        )
    return store


def extract_features(
    paths: Paths, config: Config, dataset: str, categories: Sequence[str], workers: int = 1
) -> None:
    """Extract and store the features of all splits of `categories`; what is stored already is kept."""
    if config.extractor_mode == "train":
        return  # nothing can be stored, see `load_features`
    jobs = [(paths, config, dataset, c, s) for c in categories for s in SPLITS]
    missing = [job for job in jobs if not _has_features(*job)]
    map_parallel(_extract, missing, workers, what=f"features {dataset}")


def _has_features(paths: Paths, config: Config, dataset: str, category: str, split: str) -> bool:
    samples = open_dataset(dataset, paths.processed(dataset), category, split, config)
    folder = store_folder(paths, dataset, samples, config)
    return open_store(folder, config, samples.fingerprint) is not None


@lru_cache(maxsize=1)
def _extractor(config: Config, weights: Path) -> FeatureExtractor:
    return FeatureExtractor.from_config(config, weights)  # loaded once a worker process


def _extract(job: tuple[Paths, Config, str, str, str]) -> None:
    paths, config, dataset, category, split = job
    samples = open_dataset(dataset, paths.processed(dataset), category, split, config)
    folder = store_folder(paths, dataset, samples, config)
    extractor = _extractor(config, paths.weights)
    start = time.perf_counter()
    with torch_threads(config.threads):
        build_store(samples, folder, config, extractor)
    seconds = time.perf_counter() - start
    write_json(folder / "timing.json", {"seconds": seconds, "samples": len(samples)})


# -------------------------------------------------------------------- runs


def read_record(run: Run, paths: Paths) -> dict | None:
    """The record of a finished run, or None. Raises DataError for one that cannot be read."""
    path = run.folder(paths) / "metrics.json"
    try:
        record = json.loads(path.read_text())
        return record if record["run_digest"] == run.digest else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}); delete its folder and run again") from error


def read_records(runs: Iterable[Run], paths: Paths) -> list[dict]:
    """The records of the finished ones among `runs`."""
    return [record for run in runs if (record := read_record(run, paths)) is not None]


def data_fingerprint(stores: Mapping[str, FeatureStore]) -> str:
    """SHA-256 (hex) of the features of the three splits, and so of the data behind them."""
    return hashlib.sha256("".join(stores[s].fingerprint for s in SPLITS).encode()).hexdigest()


def _stores(run: Run, paths: Paths) -> dict:
    return {s: load_features(paths, run.dataset, run.category, s, run.config) for s in SPLITS}


def _finished(run: Run, paths: Paths) -> dict | None:
    """The record of a run that is finished on the data as it is now."""
    record = read_record(run, paths)
    if record is None or record["data_fingerprint"] != data_fingerprint(_stores(run, paths)):
        return None
    return record


def execute(run: Run, paths: Paths) -> dict:
    """Train, score and store one run; a finished one on the same data is returned as it is."""
    if (record := _finished(run, paths)) is not None:
        return record
    stores = _stores(run, paths)
    fingerprint = data_fingerprint(stores)
    folder, config, train = run.folder(paths), run.config, stores["train"]
    if np.any(train.labels):
        odd = train.ids[int(np.flatnonzero(train.labels)[0])]
        raise DataError(
            f"{paths.processed(run.dataset) / run.category}: {odd} is an anomalous sample; the train folder must hold "
            "good samples only, the others belong to the test folder"
        )
    shots = range(len(train)) if run.shots is None else few_shot(run.shots, len(train), config.seed)
    checkpoint = folder / f"checkpoint-{fingerprint[:12]}.pt"

    start = time.perf_counter()
    detector = Detector(config).fit_features(train, list(shots), checkpoint)
    trained = time.perf_counter()
    psi_rgb, psi_xyz, valid = residual_maps(detector, stores["test"])
    inferred = time.perf_counter()
    test, everything = stores["test"], range(len(stores["test"]))
    with torch_threads(config.threads):
        metrics, scores = all_metrics(
            psi_rgb,
            psi_xyz,
            valid,
            torch.from_numpy(test.mask(everything))[:, None],
            test.gt(everything),
            np.asarray(test.labels),
            test.defects,
            config,
        )
    detector.threshold = _validation_threshold(detector, stores["validation"])
    scored = time.perf_counter()

    detector.save(folder / "detector")
    _save_residuals(folder / "residuals.npz", psi_rgb, psi_xyz, valid)
    record = {
        "dataset": run.dataset,
        "category": run.category,
        "method": run.method,
        "profile": config.profile,
        "variant": config.variant,
        "loss_terms": list(config.loss_terms),
        "shots": run.shots,
        "seed": config.seed,
        "generated": config.generated,
        "counts": {
            "train": len(shots),
            "validation": len(stores["validation"]),
            "test_good": int((np.asarray(test.labels) == 0).sum()),
            "test_defective": int((np.asarray(test.labels) == 1).sum()),
        },
        "metrics": metrics,
        "threshold": detector.threshold,
        "samples": {"ids": list(test.ids), "labels": [int(x) for x in test.labels], "defects": list(test.defects)},
        "scores": scores,
        "history": detector.history,
        "timings": {
            "train_s": trained - start,
            "inference_s": inferred - trained,
            "score_s": scored - inferred,
            "extract_s": _extraction_seconds(paths, run),
        },
        "memory": {"peak_mb": peak_megabytes()},
        "parameters": sum(p.numel() for p in detector.model.parameters()),
        "versions": software_versions(),
        "git_commit": git_commit(Path(__file__).parent),
        "data_fingerprint": fingerprint,
        "config_digest": config.digest(),
        "run_digest": run.digest,
        "config": config.as_dict(),
    }
    write_json(folder / "metrics.json", record)
    checkpoint.unlink(missing_ok=True)
    return record


def run_all(runs: Sequence[Run], paths: Paths, workers: int = 1) -> list[dict]:
    """Execute `runs`, in `workers` local processes; records in the same order.

    Finished runs are read, not repeated. With `Config.threads` 1 results do not depend on the number of workers.
    """
    # Reading needs no processes of its own.
    records = {run: record for run in runs if (record := _finished(run, paths)) is not None}
    missing = list(dict.fromkeys(run for run in runs if run not in records))
    # The longest first, so that no worker is left alone with one at the end.
    missing.sort(key=lambda run: -(run.shots or 10**9))
    made = map_parallel(_execute_job, [(run, paths) for run in missing], workers, what="runs")
    records.update(zip(missing, made, strict=True))
    return [records[run] for run in runs]


def _execute_job(job: tuple[Run, Paths]) -> dict:
    run, paths = job
    try:
        return execute(run, paths)
    except MafrError as error:
        raise type(error)(f"{run}: {error}") from error


def residual_maps(detector: Detector, store: FeatureStore) -> tuple[torch.Tensor, ...]:
    """Eq. 7 on every stored sample: (psi_rgb, psi_xyz, valid), each (N, 1, g, g)."""
    parts = []
    for k in range(len(store)):
        e_rgb, e_xyz, valid = store.dense([k])
        parts.append((*detector.residuals(e_rgb, e_xyz, valid), valid))
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def load_residuals(run: Run, paths: Paths) -> tuple[torch.Tensor, ...]:
    """The stored residual maps of a finished run: (psi_rgb, psi_xyz, valid), each (N, 1, g, g)."""
    path = run.folder(paths) / "residuals.npz"
    if not path.exists():
        raise DataError(f"{path} is missing; make it with `mafr run {paths.options}`")
    try:
        with np.load(path) as arrays:
            return tuple(torch.from_numpy(arrays[name]) for name in ("psi_rgb", "psi_xyz", "valid"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); delete its folder and run again") from error


def _save_residuals(path: Path, psi_rgb: torch.Tensor, psi_xyz: torch.Tensor, valid: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        np.savez(temporary, psi_rgb=psi_rgb.numpy(), psi_xyz=psi_xyz.numpy(), valid=valid.numpy())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _validation_threshold(detector: Detector, store: FeatureStore) -> float:
    """The quantile of the scores of the good validation samples, the default threshold of `mafr predict`."""

    config = detector.config
    psi_rgb, psi_xyz, valid = residual_maps(detector, store)
    mask = torch.from_numpy(store.mask(range(len(store))))[:, None]
    maps = fused_maps(psi_rgb, psi_xyz, valid, mask, config, config.fusion)
    scores = image_score(maps, config.image_score).numpy()[np.asarray(store.labels) == 0]
    if not len(scores):
        raise DataError(f"{store.category}: the validation folder holds no good sample to take the threshold from")
    return score_threshold(scores.tolist(), config.quantile)


def _extraction_seconds(paths: Paths, run: Run) -> float:
    """Seconds a sample that extraction took for this category's test set."""
    samples = open_dataset(run.dataset, paths.processed(run.dataset), run.category, "test", run.config)
    folder = store_folder(paths, run.dataset, samples, run.config)
    try:
        timing = json.loads((folder / "timing.json").read_text())
    except FileNotFoundError:
        return float("nan")
    return timing["seconds"] / timing["samples"]


def peak_megabytes() -> float:
    """Largest resident size of this process so far, MB (Linux, macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@lru_cache(maxsize=1)
def software_versions() -> dict[str, str]:
    """What computed a result."""
    names = ("torch", "timm", "numpy", "scipy")
    return {"mafr": __version__, "python": platform.python_version(), **{n: version(n) for n in names}}


@lru_cache(maxsize=4)
def git_commit(folder: Path) -> str | None:
    """The commit of the checkout that `folder` lies in, or None outside one."""
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
