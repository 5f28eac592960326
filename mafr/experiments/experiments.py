"""The grid of runs behind the tables, and the run store that they are kept in.

A run is (data set, category, method, settings, shots). Its record, `metrics.json`, holds everything a
table needs; it is written last, so a run is finished when its record exists. Runs are independent.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from mafr.baselines.methods import MAFR, METHODS, TABLE_METHODS, baseline_settings, check_methods, concerns
from mafr.baselines.registry import baseline_class, feature_config
from mafr.config import ADDED, DATASETS, UNTRAINED, Config, deciding
from mafr.data import few_shot
from mafr.data.layout import SPLITS
from mafr.device import Place, release_freed_memory
from mafr.errors import ConfigError, DataError, MafrError
from mafr.experiments.outcomes import MAPS, RESIDUALS, baseline_outcome, mafr_outcome
from mafr.experiments.provenance import git_commit, gpu_peak_megabytes, peak_megabytes, reset_peak, software_versions
from mafr.features.extract import PARTS
from mafr.features.sources.splits import StoredSplit, extraction_seconds, gpu_count, load_features, load_split
from mafr.features.sources.store import FeatureStore
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import PACKAGE, Paths, write_json

RESULTS_VERSION = 3  # raised whenever a change of the code changes numbers; finished runs are then repeated
LOSS_ABLATION = (("sim",), ("census",), ("smooth",), ("sim", "smooth", "census"))  # rows of Table IV
TABLES = (1, 2, 3, 4, 5)
# Settings that say which runs are made, or where, not what one run computes.
_NOT_OF_A_RUN = set(deciding("runs", "place"))


@dataclass(frozen=True)
class Run:
    """One training and its scoring. `shots` None: all training samples."""

    dataset: str
    category: str
    config: Config
    shots: int | None = None
    method: str = MAFR

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that decides the result, the data aside."""
        others = {f"{dataset}_train" for dataset in DATASETS if dataset != self.dataset}
        settings = {
            name: value
            for name, value in self.config.as_dict().items()
            if name not in _NOT_OF_A_RUN | others
            and concerns(self.method, name)
            and not (name in ADDED and value == ADDED[name])
        }
        identity = [self.dataset, self.category, self.method, self.shots, RESULTS_VERSION, settings]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def folder(self, paths: Paths) -> Path:
        """`runs/<profile>/<dataset>/<category>/<method>-<short hash>`."""
        return paths.runs(self.dataset) / self.category / f"{self.method}-{self.digest[:12]}"

    def __str__(self) -> str:
        shots = "all samples" if self.shots is None else f"{self.shots} shots"
        of_mafr = f" {self.config.variant} {'+'.join(self.config.loss_terms)}" if self.method == MAFR else ""
        return f"{self.dataset}/{self.category} {self.method}{of_mafr} {shots}"


def table_runs(
    table: int,
    config: Config,
    variants: Sequence[str] = ("paper", "released"),
    methods: Iterable[str] = METHODS,
) -> list[Run]:
    """The runs that a table of the paper needs: those of MAFR, and of the compared methods that it names.

    Tables III-V use the first of `variants`. methods: only these; names of methods that a table lacks are passed
    over. Raises ConfigError for a table or a method that does not exist.
    """
    if table not in TABLES:
        raise ConfigError(f"unknown table {table}; the tables are {', '.join(map(str, TABLES))}")
    chosen = check_methods(methods)
    base = config.with_variant(variants[0])
    dataset = "eyecandies" if table == 2 else "mvtec3d"
    categories, shots = base.categories(dataset), ((*base.shots, None) if table == 3 else (None,))
    settings = [base]
    if table in (1, 2):
        settings = [config.with_variant(variant) for variant in variants]
    if table == 4:
        settings = [replace(base, loss_terms=terms) for terms in LOSS_ABLATION]
    runs = [Run(dataset, c, setting, n) for setting in settings for n in shots for c in categories]
    runs = runs if MAFR in chosen else []
    compared = [method for method in TABLE_METHODS.get(table, ()) if method in chosen]
    if compared and config.extractor_mode == "train":
        raise ConfigError("the compared methods are for extractor_mode 'eval'; leave them out with --methods mafr")
    return runs + [
        Run(dataset, c, baseline_settings(config), n, method) for method in compared for n in shots for c in categories
    ]


def all_runs(
    config: Config,
    tables: Iterable[int] = TABLES,
    variants: Sequence[str] = ("paper", "released"),
    seeds: int = 1,
    methods: Iterable[str] = METHODS,
) -> list[Run]:
    """The runs of several tables and `seeds` consecutive seeds, each run once."""
    runs = [
        run
        for k in range(seeds)
        for table in tables
        for run in table_runs(table, replace(config, seed=config.seed + k), variants, methods)
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


def _splits(run: Run, paths: Paths) -> dict[str, FeatureStore | StoredSplit]:
    """What a run reads, by split: features for MAFR, samples and features for a compared method."""
    if run.method == MAFR:
        return {s: load_features(paths, run.dataset, run.category, s, run.config) for s in SPLITS}
    settings = feature_config(run.method, run.config)
    return {s: load_split(paths, run.dataset, run.category, s, settings) for s in SPLITS}


def _stores(splits: Mapping[str, FeatureStore | StoredSplit]) -> dict[str, FeatureStore]:
    return {name: part.store if isinstance(part, StoredSplit) else part for name, part in splits.items()}


def _finished(run: Run, paths: Paths, known: dict[tuple, str] | None = None) -> dict | None:
    """The record of a run that is finished on the data as it is now.

    known: fingerprints that were looked up before, by what decides them, to be added to.
    """
    record, known = read_record(run, paths), {} if known is None else known
    if record is None:
        return None
    features = feature_config(run.method, run.config).feature_digest()
    key = (run.dataset, run.category, run.method == MAFR, features)
    if key not in known:
        known[key] = data_fingerprint(_stores(_splits(run, paths)))
    return record if record["data_fingerprint"] == known[key] else None


def execute(run: Run, paths: Paths) -> dict:
    """Train, score and store one run; a finished one on the same data is returned as it is."""
    if (record := _finished(run, paths)) is not None:
        return record
    splits = _splits(run, paths)
    stores = _stores(splits)
    fingerprint = data_fingerprint(stores)
    folder, config, train, test = run.folder(paths), run.config, stores["train"], stores["test"]
    if np.any(train.labels):
        odd = train.ids[int(np.flatnonzero(train.labels)[0])]
        raise DataError(
            f"{paths.processed(run.dataset) / run.category}: {odd} is an anomalous sample; the train folder must hold "
            "good samples only, the others belong to the test folder"
        )
    shots = range(len(train)) if run.shots is None else few_shot(run.shots, len(train), config.seed)
    checkpoint = folder / f"checkpoint-{fingerprint[:12]}.pt"
    release_freed_memory()  # of this process's run before
    reset_peak()
    if run.method == MAFR:
        outcome = mafr_outcome(config, stores, shots, checkpoint)
    else:
        outcome = baseline_outcome(baseline_class(run.method)(config), splits, shots, keep=run.shots is None)

    # A worker that was thought dead may have been slow only: one execution's files are not mixed with another's.
    if (record := _finished(run, paths)) is not None:
        return record
    outcome.save(folder)
    extracted = extraction_seconds(paths, run.dataset, run.category, feature_config(run.method, config))
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
        "metrics": outcome.metrics,
        "threshold": outcome.threshold,
        "samples": {"ids": list(test.ids), "labels": [int(x) for x in test.labels], "defects": list(test.defects)},
        "scores": outcome.scores,
        "history": outcome.history,
        "timings": outcome.seconds | {f"extract_{p}_s": extracted[p] if p in outcome.reads else 0.0 for p in PARTS},
        "memory": {"peak_mb": peak_megabytes(), **gpu_peak_megabytes(), "model_mb": outcome.model_bytes / 1e6},
        "parameters": outcome.parameters,
        "place": Place.of(config).describe() | ({"compiled": True} if config.compiled else {}),
        "versions": software_versions(),
        "git_commit": git_commit(PACKAGE),
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

    workers: so many local processes (None: one a GPU, without GPUs one a processor), or a `mafr.parallel.dask.Cluster`.
    Finished runs are read, not repeated; that of a worker that died is done again, from its last checkpoint. With
    `Config.threads` 1 results do not depend on the workers.
    """
    # Reading needs no processes of its own.
    known: dict[tuple, str] = {}
    records = {run: record for run in runs if (record := _finished(run, paths, known)) is not None}
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


def load_residuals(run: Run, paths: Paths) -> tuple[torch.Tensor, ...]:
    """The stored residual maps of a finished run of MAFR: (psi_rgb, psi_xyz, valid), each (N, 1, g, g)."""
    names = ("psi_rgb", "psi_xyz", "valid")
    return tuple(torch.from_numpy(array) for array in _load_arrays(run, paths, RESIDUALS, names))


def load_maps(run: Run, paths: Paths) -> np.ndarray:
    """The stored final maps of a compared method's finished run on all samples: (N, S, S) float16."""
    return _load_arrays(run, paths, MAPS, ("maps",))[0]


def _load_arrays(run: Run, paths: Paths, name: str, names: Sequence[str]) -> list[np.ndarray]:
    path = run.folder(paths) / name
    if not path.exists():
        raise DataError(f"{path} is missing; delete its folder and make it with `mafr run {paths.options}`")
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in names]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); delete its folder and run again") from error
