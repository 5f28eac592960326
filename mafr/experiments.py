"""The grid of runs behind the tables, and the run store that they are kept in.

A run is (data set, category, method, settings, shots). Its record, `metrics.json`, holds everything a
table needs; it is written last, so a run is finished when its record exists. Runs are independent.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mafr.config import DATASETS, PLACE_SETTINGS, UNTRAINED, Config
from mafr.data import few_shot
from mafr.data.layout import SPLITS
from mafr.detector import Detector, score_threshold
from mafr.device import Place, release_freed_memory
from mafr.errors import ConfigError, DataError, MafrError
from mafr.evaluation import all_metrics, fused_maps
from mafr.extraction import extraction_seconds, gpu_count, load_features
from mafr.features.store import FeatureStore
from mafr.paths import Paths, temporary_beside, write_json
from mafr.progress import Workers, map_parallel
from mafr.provenance import git_commit, peak_megabytes, software_versions
from mafr.scoring import image_score
from mafr.training import torch_threads

RESULTS_VERSION = 2  # raised whenever a change of the code changes numbers; finished runs are then repeated
LOSS_ABLATION = (("sim",), ("census",), ("smooth",), ("sim", "smooth", "census"))  # rows of Table IV
TABLES = (1, 2, 3, 4, 5)
# Settings that say which runs are made or how they are shown, not what one run computes.
_NOT_OF_A_RUN = {"mvtec3d_categories", "eyecandies_categories", "shots"} | PLACE_SETTINGS


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

    release_freed_memory()  # of this process's run before
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

    # A worker that was thought dead may have been slow only: one execution's files are not mixed with another's.
    if (record := _finished(run, paths)) is not None:
        return record
    detector.save(folder / "detector")
    _save_residuals(folder / "residuals.npz", psi_rgb, psi_xyz, valid)
    record = {
        **({"warning": UNTRAINED} if config.random_weights else {}),
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
            "extract_s": extraction_seconds(paths, run.dataset, run.category, config),
        },
        "memory": {"peak_mb": peak_megabytes()},
        "parameters": sum(p.numel() for p in detector.model.parameters()),
        "place": Place.of(config).describe(),
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


def run_all(runs: Sequence[Run], paths: Paths, workers: Workers = 1) -> list[dict]:
    """Execute `runs`; records in the same order.

    workers: so many local processes (None: one a GPU, without GPUs one a processor), or a `mafr.cluster.Cluster`.
    Finished runs are read, not repeated; that of a worker that died is done again, from its last checkpoint. With
    `Config.threads` 1 results do not depend on the workers.
    """
    # Reading needs no processes of its own.
    records = {run: record for run in runs if (record := _finished(run, paths)) is not None}
    missing = list(dict.fromkeys(run for run in runs if run not in records))
    # The longest first, so that no worker is left alone with one at the end.
    missing.sort(key=lambda run: -(run.shots or 10**9))
    gpus = max((gpu_count(run.config) for run in missing), default=0)
    made = map_parallel(execute_job, [(run, paths) for run in missing], workers, "runs", gpus)
    records.update(zip(missing, made, strict=True))
    return [records[run] for run in runs]


def execute_job(job: tuple[Run, Paths]) -> dict:
    """`execute` for one worker; a MafrError names the run."""
    run, paths = job
    try:
        return execute(run, paths)
    except MafrError as error:
        raise type(error)(f"{run}: {error}") from error


def residual_maps(detector: Detector, store: FeatureStore) -> tuple[torch.Tensor, ...]:
    """Eq. 7 on every stored sample: (psi_rgb, psi_xyz, valid), each (N, 1, g, g)."""
    parts = [detector.residuals(store.tokens([k])) for k in range(len(store))]
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
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            np.savez(file, psi_rgb=psi_rgb.numpy(), psi_xyz=psi_xyz.numpy(), valid=valid.numpy())
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
