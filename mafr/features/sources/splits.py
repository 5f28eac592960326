"""Splits: samples together with their features, from the store that `extract_features` fills or extracted on demand."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from mafr.config import SETTINGS, Config
from mafr.data import FolderDataset, open_dataset
from mafr.data.layout import SPLITS
from mafr.data.samples import Sample, name_of
from mafr.device import Place, computing, native_bfloat16
from mafr.errors import ConfigError, DataError, notice
from mafr.features.extract import PARTS, FeatureExtractor, Tokens
from mafr.features.sources.checks import DamagedStoreError
from mafr.features.sources.on_demand import OnDemandFeatures
from mafr.features.sources.store import IMAGE_SETTINGS, FeatureStore, build_store, find_store, open_store
from mafr.features.weights.files import provide_files
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import Paths, write_json
from mafr.processor import common_reach, limited

_TIMING = "timing.json"
_TIMED = 10  # test samples whose extraction is timed, one by one


def store_folder(paths: Paths, dataset: str, samples: FolderDataset, config: Config) -> Path:
    """The folder of a split's stored features, named by what decides them, data included."""
    key = hashlib.sha256(f"{config.feature_digest()} {samples.fingerprint}".encode()).hexdigest()
    return paths.features(dataset) / samples.category / f"{samples.split}-{key[:12]}"


@dataclass(frozen=True)
class Split:
    """N samples with their features, as every method sees them; both are read when asked for."""

    samples: Sequence[Sample]
    store: FeatureStore | OnDemandFeatures  # labels, masks and, for methods that use them, tokens
    cache: Path | None = None  # a folder for what a method computes from samples alone, whatever it is trained on

    @property
    def live(self) -> bool:
        """Whether each access to tokens is a new draw (`extractor_mode` "train"); `seek` chooses its number."""
        return self.store.live

    @property
    def same_bytes(self) -> str:
        """The reach of the same bytes of samples and features, see `mafr.processor`; "" where one has none."""
        stored = isinstance(self.store, FeatureStore)
        reaches = [self.store.same_bytes if stored else limited()]
        reaches += [self.samples.same_bytes] if isinstance(self.samples, FolderDataset) else []
        return common_reach(reaches)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64, 1 anomalous."""
        return np.asarray(self.store.labels)

    def __len__(self) -> int:
        return len(self.store)

    def name(self, k: int) -> str:
        """Category and id of a sample, for messages."""
        if isinstance(self.samples, FolderDataset):
            entry = self.samples.entries[k]
            return f"{entry.rgb.parents[3]}: {entry.id}"
        return name_of(self.samples[k])

    def sample(self, k: int) -> Sample:
        return self.samples[k]

    def mask(self, k: int) -> np.ndarray:
        """(S, S) bool, true where a sample has a 3D point; a store need not read the whole sample."""
        return self.store.mask([k])[0]

    def tokens(self, indices: Sequence[int]) -> Tokens:
        return self.store.tokens(indices)

    def extract(self, indices: Sequence[int]) -> None:
        """Extract tokens of some samples beforehand where no store has them."""
        if isinstance(self.store, OnDemandFeatures):
            self.store.extract(indices)

    def seek(self, draw: int) -> None:
        """Continue with draw number `draw` of features that are drawn at each access; nothing for stored ones."""
        if self.live:
            self.store.seek(draw)


def split_of(samples: Sequence[Sample], extractor: FeatureExtractor | None) -> Split:
    """Samples that are in no store, with features extracted on demand; extractor: None for methods without tokens."""
    return Split(samples, OnDemandFeatures(samples, extractor))


def load_split(
    paths: Paths, dataset: str, category: str, split: str, config: Config, repair: bool = False
) -> Split:
    """Samples of a split with their stored features; in `extractor_mode` "train", with features drawn at each access.

    repair: hold all stored features against their checksums now, and make damaged ones and those of another kind of
    place again, with a line on stderr; without it features of any place are read.
    Raises DataError, naming the command, if features should be stored and are not, or are damaged.
    """
    samples, folder = _open(paths, config, dataset, category, split)
    if config.extractor_mode == "train":
        return Split(samples, OnDemandFeatures(samples, _extractor(config, paths.weights)), folder)
    command = f"`mafr features {paths.options}`"
    place = _place(config) if repair else None
    try:
        store = find_store(folder, config, samples.fingerprint, checked=repair, place=place)
        if store is None and place and (other := open_store(folder, config, samples.fingerprint)):
            notice(f"{folder}: {_elsewhere(other, place)}")
            _extract((paths, config, dataset, category, split))
            store = open_store(folder, config, samples.fingerprint)
    except DamagedStoreError as error:
        if not repair:
            raise DamagedStoreError(f"{error}; delete the folder {folder} and make it again with {command}") from error
        _extract((paths, config, dataset, category, split))
        store = open_store(folder, config, samples.fingerprint)
    if store is None:
        raise DataError(f"{folder} holds no features of this data; make them with {command}")
    return Split(samples, store, folder)


def load_features(
    paths: Paths, dataset: str, category: str, split: str, config: Config
) -> FeatureStore | OnDemandFeatures:
    """The features of `load_split`."""
    return load_split(paths, dataset, category, split, config).store


def extract_features(
    paths: Paths, config: Config, dataset: str, categories: Sequence[str], workers: Workers = 1,
    splits: Sequence[str] = SPLITS,
) -> None:  # fmt: skip
    """Extract and store the features of some splits of `categories`; what is stored already is kept.

    Features that were computed at another kind of place than the present one are made again, with a line on stderr, so
    that a run's inputs are of one kind.

    workers: number of local processes (None: one per GPU, or per processor), or a `mafr.parallel.dask.Cluster`.
    """
    if config.extractor_mode == "train":
        return  # nothing can be stored, see `load_split`
    jobs = [(paths, config, dataset, c, s) for c in categories for s in splits]
    place = _place(config) if workers is None or isinstance(workers, int) else workers.place
    missing = [job for job in jobs if _stored(job, place) is None]
    if others := [store for job in missing if (store := _stored(job)) is not None]:
        notice(f"{dataset}, {len(others)} of {len(jobs)} splits: {_elsewhere(others[0], place)}")
    if missing:
        provide_files(config, paths.weights)  # downloads once, not in every worker
    map_parallel(_extract, missing, workers, what=f"features {dataset}", gpus=gpu_count(config))


def gpu_count(config: Config) -> int:
    """The number of GPUs of this machine that the settings use: all that torch sees, or none.

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
    """Seconds per sample that each of `PARTS` took on a category's test samples, NaN where that is not known."""
    _, folder = _open(paths, config, dataset, category, "test")
    try:
        timing = json.loads((folder / _TIMING).read_text())
        return {part: float(timing[part]) for part in PARTS}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return dict.fromkeys(PARTS, float("nan"))


def _open(paths: Paths, config: Config, dataset: str, category: str, split: str) -> tuple[FolderDataset, Path]:
    """A split, and where its features are stored."""
    samples = open_dataset(dataset, paths.processed(dataset), category, split, config)
    return samples, store_folder(paths, dataset, samples, config)


def _stored(job: tuple[Paths, Config, str, str, str], place: str | None = None) -> FeatureStore | None:
    samples, folder = _open(*job)
    return open_store(folder, job[1], samples.fingerprint, place=place)


def _place(config: Config) -> str | None:
    """This process's kind of place by the settings; None where they ask for what it does not have."""
    try:
        return Place.of(config).kind
    except ConfigError:
        return None


def _elsewhere(store: FeatureStore, place: str) -> str:
    return f"the features were computed on {store.place}, here it is {place}; the two do not mix: they are made again"


@lru_cache(maxsize=1)
def _extractor(config: Config, weights: Path) -> FeatureExtractor:
    return FeatureExtractor.from_config(config, weights)  # loaded once per worker process


def _extract(job: tuple[Paths, Config, str, str, str]) -> None:
    paths, config, *_ = job
    samples, folder = _open(*job)
    extractor = _extractor(config, paths.weights)
    with computing(config):
        build_store(samples, folder, config, extractor, beside=_store_beside(paths, config, samples, extractor))
        if samples.split == "test":
            write_json(folder / _TIMING, _time_parts(samples, extractor))


def _store_beside(
    paths: Paths, config: Config, samples: FolderDataset, extractor: FeatureExtractor
) -> FeatureStore | None:
    """A store of the same samples whose settings differ in those of the image alone, if there is one."""
    for name in IMAGE_SETTINGS:
        for value in SETTINGS[name].metadata["choices"]:
            other = replace(config, **{name: value})
            folder = store_folder(paths, samples.name, samples, other)
            asked = folder, other, samples.fingerprint, extractor.weights, True, extractor.place.kind
            if other != config and (found := open_store(*asked)):
                return found
    return None


def _time_parts(samples: FolderDataset, extractor: FeatureExtractor) -> dict[str, float]:
    """Mean seconds of each of `PARTS` for one sample in memory, after an uncounted one to warm up."""
    chosen = range(min(_TIMED, len(samples)))
    spent = dict.fromkeys(PARTS, 0.0)
    for warm, number in enumerate((0, *chosen)):
        sample = samples[number]
        begin = time.perf_counter()
        one = extractor.prepare(sample)
        extractor.cloud_tokens([one]).cpu()
        middle = time.perf_counter()
        extractor.image_tokens([one]).cpu()
        if warm:
            spent["xyz"] += middle - begin
            spent["rgb"] += time.perf_counter() - middle
    return {part: seconds / len(chosen) for part, seconds in spent.items()}
