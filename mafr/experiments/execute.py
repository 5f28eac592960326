"""Execution of runs: training, scoring and storing, one by one or in parallel."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mafr.baselines.registry import MAFR, feature_config, method_class
from mafr.config import UNTRAINED
from mafr.data import FolderDataset, few_shot
from mafr.data.defects import check_test_set
from mafr.data.samples import Sample
from mafr.detector import Detector
from mafr.device import Place, computing
from mafr.errors import DataError, MafrError, notice
from mafr.experiments.evaluation import all_metrics
from mafr.experiments.plan import Run
from mafr.experiments.provenance import (
    git_commit,
    gpu_peak_megabytes,
    peak_megabytes,
    processor,
    reset_peak,
    software_versions,
)
from mafr.experiments.run_store import (
    DETECTOR,
    RECORD,
    data_fingerprint,
    finished_record,
    read_record,
    run_splits,
    save_answer,
)
from mafr.features.extract import PARTS
from mafr.features.sources.splits import Split, extraction_seconds, gpu_count
from mafr.memory import release_freed_memory
from mafr.method import Method
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import PACKAGE, Paths, write_json
from mafr.processor import common_reach, limited
from mafr.scoring import Answer


@dataclass(frozen=True)
class Outcome:
    """The results of one run.

    method: fitted, with its threshold from the good validation samples. answer: of the test set. metrics, scores: by
    fusion operator, or under `mafr.scoring.MAP` alone for a method with a single map. seconds: train_s; inference_s,
    of the test set from tokens or loaded samples to residual maps, or to final maps where a method has no other;
    map_s, final maps of these; score_s, metrics; query_s, the part of inference_s spent in searches in memory banks.
    """

    method: Method
    answer: Answer
    metrics: dict[str, dict]
    scores: dict[str, list[float]]
    seconds: dict[str, float]


@dataclass(frozen=True)
class TimedSplit(Split):
    """A split that records the seconds of reading its samples from disk, which count for no method."""

    reading: list[float] = field(default_factory=list)

    def sample(self, k: int) -> Sample:
        start = time.perf_counter()
        sample = super().sample(k)
        self.reading.append(time.perf_counter() - start)
        return sample


def fit_and_score(
    method: Method, splits: Mapping[str, Split], shots: Sequence[int], checkpoint: Path | None, whole: bool,
    head: Detector | None = None,
) -> Outcome:  # fmt: skip
    """Train a method on the samples `shots` and score it on the test set.

    checkpoint: where it may keep intermediate states. whole: trained on all samples, so that the cost table shows its
    times. head: a detector whose trained head is taken instead, see `Detector.take_head`.
    """
    config, train, test, validation = method.config, splits["train"], splits["test"], splits["validation"]
    if whole:  # the times must include everything that a new sample costs
        train, test = replace(train, cache=None), replace(test, cache=None)
    test, store = TimedSplit(test.samples, test.store, test.cache), test.store
    with computing(config):
        start = time.perf_counter()
        if head is None:
            method.fit_split(train, list(shots), checkpoint, validation=validation)
        else:
            method.take_head(head, train, list(shots))
        good = _good(validation)
        known = method.learn_scales(validation, good)
        trained, searched = time.perf_counter(), sum(method.searches())
        answer = method.answer(test, range(len(test)))
        inferred, searched = time.perf_counter(), sum(method.searches()) - searched
        several = len(answer.operators) > 1
        if several:
            answer.final(answer.main)  # timed alone: the maps of all operators are made below
        mapped = time.perf_counter()
        metrics, scores = all_metrics(answer, store.gt(range(len(test))), test.labels, store.defects)
        known = method.answer(validation, good) if known is None else known
        method.calibrate_by(known.final(known.main)[1].tolist())  # the default threshold of `mafr predict`
    seconds = {
        "train_s": trained - start,
        "inference_s": inferred - trained - sum(test.reading),
        "map_s": mapped - inferred if several else 0.0,
        "score_s": time.perf_counter() - mapped,
    }
    return Outcome(method, answer, metrics, scores, seconds | ({"query_s": searched} if method.searches() else {}))


def _good(validation: Split) -> list[int]:
    good = np.flatnonzero(validation.labels == 0).tolist()
    if not good:
        category = validation.store.category
        raise DataError(f"{category}: the validation folder holds no good sample to take the threshold from")
    return good


def execute(run: Run, paths: Paths, trained: Run | None = None) -> dict:
    """Train, score and store one run; returns its record. A run that is finished on the same data is only read.

    Damaged features and files of the run are named on stderr and made again. trained: a finished run on the same data
    with an equal `head_digest`, whose head is taken instead of training again.
    """
    if (record := finished_record(run, paths, say=True)) is not None:
        return record
    splits = run_splits(run, paths, repair=True)
    if (record := finished_record(run, paths)) is not None:  # its features alone were damaged
        return record
    if isinstance(test := splits["test"].samples, FolderDataset):
        check_test_set(test)  # before hours of training
    fingerprint = data_fingerprint({name: split.store for name, split in splits.items()})
    folder, total = run.folder(paths), len(splits["train"])
    shots = range(total) if run.shots is None else few_shot(run.shots, total, run.config.seed)
    checkpoint = folder / f"checkpoint-{fingerprint[:12]}.pt"
    release_freed_memory()  # of this process's previous run
    reset_peak()
    head = Detector.load(trained.folder(paths) / DETECTOR) if trained else None
    method = method_class(run.method)(run.config)
    made = fit_and_score(method, splits, shots, checkpoint, run.shots is None, head)
    inputs = [split.same_bytes for split in splits.values()]

    # A worker that was thought dead may only have been slow: the files of two executions must not be mixed.
    if (record := finished_record(run, paths)) is not None:
        return record
    if made.method.kept_with_runs:
        made.method.save(folder / DETECTOR)
    if made.method.kept_with_runs or run.shots is None:
        save_answer(made.answer, folder)
    counts = {"train": len(shots), "validation": len(splits["validation"])}
    if trained:
        taken = read_record(trained, paths)
        made.seconds["train_s"] += taken["timings"]["train_s"]
        inputs.append(_reach(taken))
    record = _record(run, paths, made, splits["test"], counts, fingerprint, common_reach([limited(), *inputs]))
    write_json(folder / RECORD, record)
    checkpoint.unlink(missing_ok=True)
    return record


def _record(
    run: Run, paths: Paths, made: Outcome, test: Split, counts: Mapping[str, int], fingerprint: str, reach: str
) -> dict:
    """The content of a run's `metrics.json`.

    counts: of the samples that it learned from; fingerprint: of the data; reach: of the same bytes, with all inputs.
    """
    config, method, defective = run.config, made.method, int(test.labels.sum())
    extracted = extraction_seconds(paths, run.dataset, run.category, feature_config(run.method, config))
    return {
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
        "counts": {**counts, "test_good": len(test) - defective, "test_defective": defective},
        "metrics": made.metrics,
        "threshold": method.threshold,
        **method.extras(),
        "samples": {"ids": list(test.store.ids), "labels": test.labels.tolist(), "defects": list(test.store.defects)},
        "scores": made.scores,
        "history": method.history,
        "timings": made.seconds | {f"extract_{p}_s": extracted[p] if p in method.reads else 0.0 for p in PARTS},
        "memory": {"peak_mb": peak_megabytes(), **gpu_peak_megabytes(), "model_mb": method.nbytes() / 1e6},
        "parameters": sum(tensor.numel() for tensor in method.state().values()),
        "place": {
            **Place.of(config).describe(), **processor(), "same_bytes": reach,
            **({"compiled": True} if config.compiled else {}),
        },
        "versions": software_versions(),
        "git_commit": git_commit(PACKAGE),
        "data_fingerprint": fingerprint,
        "config_digest": config.digest(),
        "run_digest": run.digest,
        "config": config.as_dict(),
    }


def run_all(
    runs: Sequence[Run], paths: Paths, workers: Workers = 1, trained: Mapping[str, Run] | None = None
) -> dict[Run, dict]:
    """Execute `runs`; each with its record, in the same order, equal runs once.

    workers: number of local processes (None: one per GPU, without GPUs one per processor), or a
    `mafr.parallel.dask.Cluster`. Finished runs are read, not repeated; that of a worker that died is done again, from
    its last checkpoint. With `Config.threads` 1 results do not depend on the workers. trained: finished runs by
    `head_digest`, whose heads are taken instead of training again.
    """
    known: dict[tuple, str] = {}
    records = {run: finished_record(run, paths, known) for run in runs}
    missing = [run for run, record in records.items() if record is None]
    _say_what_lacks_reach(records, paths)
    # The longest first, so that no worker is left alone with one at the end.
    missing.sort(key=lambda run: -(run.shots or 10**9))
    gpus = max((gpu_count(run.config) for run in missing), default=0)
    jobs = [(run, paths, (trained or {}).get(run.head_digest)) for run in missing]
    made = map_parallel(execute_job, jobs, workers, "runs", gpus)
    return records | dict(zip(missing, made, strict=True))


def _say_what_lacks_reach(records: Mapping[Run, dict | None], paths: Paths) -> None:
    """Under a limit of `mafr.processor`, say once which finished runs and which inputs of others are from without."""
    reach = limited()
    if not reach:
        return
    finished = [record for record in records.values() if record and _reach(record) != reach]
    known: dict[tuple, bool] = {}
    for run in (run for run, record in records.items() if record is None):
        key = (run.dataset, run.category, feature_config(run.method, run.config).feature_digest())
        with suppress(DataError):  # missing features are named when they are needed
            known[key] = known[key] if key in known else _inputs_lack(run, paths, reach)
    what = [f"{len(finished)} finished runs were made without it and are kept"] if finished else []
    if lacking := sorted({"/".join(key[:2]) for key, lacks in known.items() if lacks}):
        named = f"{lacking[0]} and {len(lacking) - 1} more" if len(lacking) > 1 else lacking[0]
        what.append(f"data or features of {named} were made without it, and records of runs on them do not name it")
    if what:
        notice(
            f"--same-bytes {reach} is not for all: {'; '.join(what)}. For it throughout start without data, features "
            "and runs, as with MAFR_HOME set to a new folder"
        )


def _inputs_lack(run: Run, paths: Paths, reach: str) -> bool:
    return any(split.same_bytes != reach for split in run_splits(run, paths).values())


def _reach(record: Mapping) -> str:
    return record.get("place", {}).get("same_bytes", "")


def run_sharing(runs: Sequence[Run], paths: Paths, workers: Workers = 1) -> dict[Run, dict]:
    """`run_all` where runs of MAFR that differ in the scoring alone share one training."""
    trained: dict[str, Run] = {}
    for run in runs:
        if run.method == MAFR:
            trained.setdefault(run.head_digest, run)
    run_all(list(trained.values()), paths, workers)
    return run_all(runs, paths, workers, trained)


def execute_job(job: tuple[Run, Paths, Run | None]) -> dict:
    """`execute` for one worker; a MafrError names the run."""
    run = job[0]
    try:
        return execute(*job)
    except MafrError as error:
        raise type(error)(f"{run}: {error}") from error
