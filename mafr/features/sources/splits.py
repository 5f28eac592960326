"""Samples together with their features: from the store that `extract_features` fills, or extracted when asked for."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from mafr.config import Config
from mafr.data import FolderDataset, open_dataset
from mafr.data.layout import SPLITS
from mafr.data.samples import Sample, labels_of, name_of
from mafr.device import computing, native_bfloat16
from mafr.errors import ConfigError, DataError, MafrError
from mafr.features.extract import PARTS, FeatureExtractor, Tokens
from mafr.features.sources.live import LiveFeatures
from mafr.features.sources.scratch import ScratchTokens
from mafr.features.sources.store import FeatureStore, build_store, open_store
from mafr.features.weights.files import provide_files
from mafr.parallel.progress import Workers, bar, map_parallel
from mafr.paths import Paths, write_json

_TIMING = "timing.json"
TIMED = 10  # test samples whose extraction is timed, one by one


def store_folder(paths: Paths, dataset: str, samples: FolderDataset, config: Config) -> Path:
    """Where the features of a split are stored: named by what decides them, data included."""
    key = hashlib.sha256(f"{config.feature_digest()} {samples.fingerprint}".encode()).hexdigest()
    return paths.features(dataset) / samples.category / f"{samples.split}-{key[:12]}"


def load_features(paths: Paths, dataset: str, category: str, split: str, config: Config) -> FeatureStore | LiveFeatures:
    """The stored features of a split; in `extractor_mode` "train", features drawn anew at each access.

    Raises DataError, naming the command, if features should be stored and are not.
    """
    samples, folder = _open(paths, config, dataset, category, split)
    if config.extractor_mode == "train":
        return LiveFeatures(samples, config, _extractor(config, paths.weights))
    store = open_store(folder, config, samples.fingerprint)
    if store is None:
        raise DataError(f"{folder} holds no features of this data; make them with `mafr features {paths.options}`")
    return store


class Split(Protocol):
    """Samples with their features, as every method sees them; both are read when asked for.

    live: whether each access to tokens is a new draw (`extractor_mode` "train"), and `seek` chooses its number.
    """

    live: bool

    @property
    def labels(self) -> np.ndarray:
        """(N,) 1 anomalous."""
        ...

    def __len__(self) -> int: ...

    def name(self, k: int) -> str:
        """Category and id of a sample, for messages."""
        ...

    def sample(self, k: int) -> Sample: ...

    def mask(self, k: int) -> np.ndarray:
        """(S, S) bool, true where a sample has a 3D point; quicker than to read the whole sample."""
        ...

    def tokens(self, indices: Sequence[int]) -> Tokens: ...

    def extract(self, indices: Sequence[int]) -> None:
        """Have the tokens of some samples ready, with a progress bar where they must be extracted first."""
        ...

    def seek(self, draw: int) -> None: ...


@dataclass(frozen=True)
class StoredSplit:
    """A split's samples with the features of a store, or drawn anew at each access; N samples.

    store: labels, masks and, of methods that use them, tokens. cache: a folder for what a method computes of the
    samples alone, whatever it is trained on.
    """

    samples: Sequence[Sample]
    store: FeatureStore | LiveFeatures
    cache: Path | None = None

    @property
    def live(self) -> bool:
        return self.store.live

    @property
    def labels(self) -> np.ndarray:
        return np.asarray(self.store.labels)

    def __len__(self) -> int:
        return len(self.store)

    def name(self, k: int) -> str:
        if isinstance(self.samples, FolderDataset):
            entry = self.samples.entries[k]
            return f"{entry.rgb.parents[3]}: {entry.id}"
        return name_of(self.samples[k])

    def sample(self, k: int) -> Sample:
        return self.samples[k]

    def mask(self, k: int) -> np.ndarray:
        return self.store.mask([k])[0]

    def tokens(self, indices: Sequence[int]) -> Tokens:
        return self.store.tokens(indices)

    def extract(self, indices: Sequence[int]) -> None:
        """Stored tokens are ready, drawn ones never."""

    def seek(self, draw: int) -> None:
        if self.live:
            self.store.seek(draw)


class SampleSplit:
    """Samples whose tokens are extracted when first asked for, and kept on the disk meanwhile."""

    live = False

    def __init__(self, samples: Sequence[Sample], extractor: FeatureExtractor | None) -> None:
        """extractor: None for methods that use no tokens."""
        self.samples, self.extractor = samples, extractor
        self._kept = ScratchTokens()

    @property
    def labels(self) -> np.ndarray:
        return labels_of(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, k: int) -> str:
        return name_of(self.samples[k])

    def sample(self, k: int) -> Sample:
        return self.samples[k]

    def mask(self, k: int) -> np.ndarray:
        return self.samples[k].valid[0]

    def tokens(self, indices: Sequence[int]) -> Tokens:
        for k in indices:
            self._extract(k)
        return Tokens.cat([self._kept.get(k) for k in indices])

    def extract(self, indices: Sequence[int]) -> None:
        for k in bar(indices, what="extracting features") if len(indices) > 1 else indices:
            self._extract(k)

    def _extract(self, k: int) -> None:
        if self.extractor is None:
            raise MafrError("this method was built without a feature extractor")
        if k not in self._kept:
            self._kept.put(k, self.extractor.extract(self.samples[k]))

    def seek(self, draw: int) -> None:
        """There is one draw only."""


def split_of(samples: Sequence[Sample], config: Config, extractor: FeatureExtractor | None) -> Split:
    """Samples that are in no store, with features as `config.extractor_mode` wants them.

    extractor: None for methods that use no tokens.
    """
    if config.extractor_mode == "train" and extractor is not None:
        return StoredSplit(samples, LiveFeatures(samples, config, extractor))
    return SampleSplit(samples, extractor)


def load_split(paths: Paths, dataset: str, category: str, split: str, config: Config) -> StoredSplit:
    """Samples and features of a split, see `load_features`, whose errors it raises."""
    samples, folder = _open(paths, config, dataset, category, split)
    return StoredSplit(samples, load_features(paths, dataset, category, split, config), folder)


def extract_features(
    paths: Paths, config: Config, dataset: str, categories: Sequence[str], workers: Workers = 1
) -> None:
    """Extract and store the features of all splits of `categories`; what is stored already is kept.

    workers: so many local processes (None: one a GPU, without GPUs one a processor), or a `mafr.parallel.dask.Cluster`.
    """
    if config.extractor_mode == "train":
        return  # nothing can be stored, see `load_features`
    jobs = [(paths, config, dataset, c, s) for c in categories for s in SPLITS]
    missing = [job for job in jobs if not _has_features(*job)]
    if missing:
        provide_files(config, paths.weights)  # downloads once, not in every worker
    map_parallel(_extract, missing, workers, what=f"features {dataset}", gpus=gpu_count(config))


def gpu_count(config: Config) -> int:
    """How many GPUs of this machine the settings use: all that torch sees, or none.

    Raises ConfigError where `precision` "auto" would not mean the same on all of them.
    """
    count = 0 if config.device == "cpu" else torch.cuda.device_count()  # does not initialise CUDA
    if config.precision == "auto" and count > 1 and len({native_bfloat16("cuda", k) for k in range(count)}) > 1:
        raise ConfigError(
            "some GPUs of this machine multiply bfloat16, others do not: choose one precision for all with --set "
            "precision=float32, or some of them with CUDA_VISIBLE_DEVICES"
        )
    return count


def extraction_seconds(paths: Paths, dataset: str, category: str, config: Config) -> dict[str, float]:
    """Seconds a sample that each of `PARTS` took on a category's test samples, NaN where that is not known."""
    _, folder = _open(paths, config, dataset, category, "test")
    try:
        timing = json.loads((folder / _TIMING).read_text())
        return {part: float(timing[part]) for part in PARTS}
    except (OSError, ValueError, KeyError, TypeError):
        return dict.fromkeys(PARTS, float("nan"))


def _open(paths: Paths, config: Config, dataset: str, category: str, split: str) -> tuple[FolderDataset, Path]:
    """A split, and where its features are stored."""
    samples = open_dataset(dataset, paths.processed(dataset), category, split, config)
    return samples, store_folder(paths, dataset, samples, config)


def _has_features(paths: Paths, config: Config, dataset: str, category: str, split: str) -> bool:
    samples, folder = _open(paths, config, dataset, category, split)
    return open_store(folder, config, samples.fingerprint) is not None


@lru_cache(maxsize=1)
def _extractor(config: Config, weights: Path) -> FeatureExtractor:
    return FeatureExtractor.from_config(config, weights)  # loaded once a worker process


def _extract(job: tuple[Paths, Config, str, str, str]) -> None:
    paths, config, *_ = job
    samples, folder = _open(*job)
    extractor = _extractor(config, paths.weights)
    with computing(config):
        build_store(samples, folder, config, extractor)
        if samples.split == "test":
            write_json(folder / _TIMING, _time_parts(samples, extractor))


def _time_parts(samples: FolderDataset, extractor: FeatureExtractor) -> dict[str, float]:
    """Mean seconds of each of `PARTS` for one sample in memory; one that is not counted warms up."""
    chosen = range(min(TIMED, len(samples)))
    spent = dict.fromkeys(PARTS, 0.0)
    for warm, number in enumerate((0, *chosen)):
        sample = samples[number]
        begin = time.perf_counter()
        extractor.image_tokens(sample.rgb).cpu()
        middle = time.perf_counter()
        one = extractor.prepare(sample)
        extractor.cloud_tokens(one.patches, one.centres, one.middle).cpu()
        if warm:
            spent["rgb"] += middle - begin
            spent["xyz"] += time.perf_counter() - middle
    return {part: seconds / len(chosen) for part, seconds in spent.items()}
