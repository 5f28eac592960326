"""Tokens of a whole split on disk, memory-mapped: extracted once, read in every epoch."""

import hashlib
import itertools
import json
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mafr.config import FEATURE_SETTINGS, Config
from mafr.data import FolderDataset
from mafr.data.samples import Sample
from mafr.disk import writing
from mafr.errors import ConfigError, DataError, notice
from mafr.features.encoders import known_weights
from mafr.features.extract import FEATURE_VERSION, TOKEN_NAMES, FeatureExtractor, Tokens
from mafr.features.interpolation import densify
from mafr.features.sources.checks import Checksums, DamagedStoreError, open_arrays, read_meta, sealed
from mafr.parallel.progress import bar, default_workers
from mafr.paths import leftovers, process_temporary, sweep, temporary_beside, write_json
from mafr.processor import common_reach, limited

IMAGE_SETTINGS = ("image_background",)  # in which stores may differ and hold the same of the clouds
_META = "meta.json"
_ARRAYS = (*TOKEN_NAMES, "gt", "mask")


class FeatureStore:
    """The tokens of one split and what scoring needs beside them. Opened by `find_store` or `build_store`."""

    live = False  # the same at every access

    def __init__(self, folder: Path, config: Config) -> None:
        """Raises DamagedStoreError for a folder that is not a complete store; see `find_store`."""
        self.folder, self.config = folder, config
        self.meta, sums = read_meta(folder / _META)
        self.ids: list[str] = self.meta["ids"]
        self.defects: list[str] = self.meta["defects"]
        self.labels = np.asarray(self.meta["labels"], dtype=np.int64)  # (n,), 1 anomalous
        self.category, self.split = self.meta["category"], self.meta["split"]
        self.fingerprint: str = self.meta["fingerprint"]  # SHA-256 (hex) over everything that decides the content
        self.size: int = self.meta["size"]  # bytes of the arrays on disk
        self.place: str | None = self.meta.get("place")  # `Place.kind` of the extraction; None in older stores
        self.same_bytes: str = self.meta.get("same_bytes", "")  # its reach, see `mafr.processor`
        self._arrays = open_arrays(folder, config, len(self.ids))
        self._checksums = Checksums(folder, config, sums, self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def tokens(self, indices: Sequence[int]) -> Tokens:
        """The stored tokens of some samples, copied into memory. Raises DamagedStoreError."""
        return Tokens(*(torch.from_numpy(self._taken(name, indices)) for name in TOKEN_NAMES))

    def dense(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Dense features of some samples, see `mafr.features.interpolation.densify`."""
        return densify(self.tokens(indices), self.config)

    def gt(self, indices: Sequence[int]) -> np.ndarray:
        """(n, S, S) bool ground truth of some samples, true where anomalous."""
        return self._bits("gt", indices)

    def mask(self, indices: Sequence[int]) -> np.ndarray:
        """(n, S, S) bool, true where the pixel has a 3D point."""
        return self._bits("mask", indices)

    def row(self, number: int) -> dict[str, np.ndarray]:
        """One sample's part of each array as it lies on the disk, by name."""
        return {name: self._taken(name, [number])[0] for name in self._arrays}

    def check(self) -> None:
        """Hold everything that has not been read yet against its checksum. Raises DamagedStoreError."""
        self._checksums.check_all(self._arrays)

    def _taken(self, name: str, indices: Sequence[int]) -> np.ndarray:
        chosen = np.asarray(indices, dtype=np.int64)
        rows = self._arrays[name][chosen]
        self._checksums.check(name, chosen, rows.__getitem__)
        return rows

    def _bits(self, name: str, indices: Sequence[int]) -> np.ndarray:
        side = self.config.image_size
        packed = self._taken(name, indices)
        return np.unpackbits(packed, axis=1, count=side * side).view(bool).reshape(-1, side, side)


def build_store(
    dataset: FolderDataset,
    folder: Path,
    config: Config,
    extractor: FeatureExtractor,
    batch: int = 0,
    beside: FeatureStore | None = None,
) -> FeatureStore:
    """Extract all samples of a split into `folder`; an equal store that exists already is returned.

    The folder appears whole or not at all. Samples go to mapped files as they are extracted, so that memory does not
    grow with their number. batch: samples per call of the networks, while threads prepare the next ones; 0: 8 on a
    GPU, 1 without threads on the CPU. beside: a store of the same data, weights and settings but for those of the image
    (`IMAGE_SETTINGS`); all but the image's tokens is copied from it. A damaged store is named on stderr and made again,
    one from another kind of place is made again.
    Raises DataError for samples without enough points and for an empty split, ConfigError in `extractor_mode` "train",
    StorageError where the disk refuses it.
    """
    if config.extractor_mode == "train":
        raise ConfigError(
            "extractor_mode 'train' gives other features at every call; they cannot be stored. Use "
            "extractor_mode 'batch-statistics', or mafr.features.sources.on_demand.OnDemandFeatures"
        )
    if extractor.config.feature_digest() != config.feature_digest():
        raise ConfigError("the extractor was built for other feature settings than the store's")
    if not len(dataset):
        raise DataError(f"{dataset.category}/{dataset.split}: there are no samples to extract features of")
    asked = folder, config, dataset.fingerprint, extractor.weights, True, extractor.place.kind
    existing = partial(open_store, *asked)
    try:
        found = find_store(*asked)
    except DamagedStoreError as error:
        notice(f"{error}; the features are made again")
        found = None
    if found is not None:
        return found
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    for left in leftovers(folder):
        shutil.rmtree(left, ignore_errors=True)
    temporary = process_temporary(folder)
    try:
        with writing(folder):
            temporary.mkdir()
        batch = batch or (8 if extractor.place.device.type == "cuda" else 1)
        _write(temporary, dataset, config, extractor, batch, beside)
        with writing(folder):
            if existing() is None:  # a store that another process has just finished is kept: it may be mapped already
                _replace(folder, temporary, existing)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return FeatureStore(folder, config)


def _replace(folder: Path, fresh: Path, existing: Callable[[], FeatureStore | None]) -> None:
    """Put a finished store into place, instead of an outdated or damaged one."""
    old = temporary_beside(folder)
    with suppress(FileNotFoundError):
        folder.rename(old)  # deleted in place, it would be in the way for longer
    try:
        fresh.rename(folder)
    except OSError:  # another process finished in between
        if existing() is None:
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def open_store(
    folder: Path, config: Config, fingerprint: str, weights: dict[str, str] | None = None, checked: bool = False,
    place: str | None = None,
) -> FeatureStore | None:  # fmt: skip
    """The store that `find_store` finds, or None also where it is damaged."""
    with suppress(DamagedStoreError):
        return find_store(folder, config, fingerprint, weights, checked, place)
    return None


def find_store(
    folder: Path, config: Config, fingerprint: str, weights: dict[str, str] | None = None, checked: bool = False,
    place: str | None = None,
) -> FeatureStore | None:  # fmt: skip
    """The store in `folder`, or None where it is missing, or of other settings, data or weights.

    fingerprint: of the data set. weights: SHA-256 of each backbone's weights; None: the pinned ones. checked: hold all
    of it against its checksums now; what is read is, in any case. place: the `Place.kind` that it must be from, where
    it says one; None: any, for readers. Raises DamagedStoreError, naming the file.
    """
    if not folder.is_dir():
        return None
    meta, _ = read_meta(folder / _META)
    wanted = {"version": FEATURE_VERSION, "feature_digest": config.feature_digest(), "data_fingerprint": fingerprint}
    if any(meta.get(name) != value for name, value in wanted.items()):
        return None
    if place is not None and meta.get("place", place) != place:
        return None
    written = meta["weights"]
    expected = known_weights(config) if weights is None else weights
    # A backbone without a pinned file (None) may have any weights but random ones.
    fits = all(
        written.get(name) == digest if digest else written.get(name) != "random" for name, digest in expected.items()
    )
    if not fits:
        return None
    store = FeatureStore(folder, config)
    if checked:
        store.check()
    return store


def _write(
    folder: Path,
    dataset: FolderDataset,
    config: Config,
    extractor: FeatureExtractor,
    batch: int,
    beside: FeatureStore | None,
) -> None:
    count, arrays = len(dataset), {}
    ids, defects, labels = [], [], []
    sums: dict[str, list[int]] = {}
    rows = _rows(dataset, extractor, batch) if beside is None else _rows_beside(dataset, extractor, batch, beside)
    for number, (sample, values) in enumerate(bar(rows, count, f"features {dataset.category}/{dataset.split}")):
        if not arrays:
            arrays, sums = _new_arrays(folder, values, count), {name: [] for name in values}
        for name, value in values.items():
            arrays[name][number] = value
            # Of what is meant to be written, not of what the disk has made of it.
            sums[name].append(zlib.crc32(np.ascontiguousarray(value, dtype=arrays[name].dtype)))
        ids.append(sample.id)
        defects.append(sample.defect)
        labels.append(int(sample.label))
    for array in arrays.values():
        array.flush()
    identity = {
        "version": FEATURE_VERSION,
        "feature_digest": config.feature_digest(),
        "data_fingerprint": dataset.fingerprint,
        "weights": extractor.weights,
        "category": dataset.category,
        "split": dataset.split,
    }
    meta = {
        **identity,
        "fingerprint": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        "settings": {name: getattr(config, name) for name in FEATURE_SETTINGS},
        "count": count,
        "size": sum(int(array.nbytes) for array in arrays.values()),
        "ids": ids,
        "labels": labels,
        "defects": defects,
        "place": extractor.place.kind,
        "same_bytes": limited() if beside is None else common_reach((limited(), beside.same_bytes)),
    }
    write_json(folder / _META, sealed(meta, sums))


def _new_arrays(folder: Path, rows: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Mapped files for `count` rows like each of `rows`, their disk space reserved at once."""
    arrays, left = {}, count * sum(row.nbytes for row in rows.values())
    for name, row in rows.items():
        path = folder / f"{name}.npy"
        with writing(path, left):
            arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=row.dtype, shape=(count, *row.shape))
            if hasattr(os, "posix_fallocate"):
                # Writing to a mapped file on a full disk kills the process without a message; this raises OSError.
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        left -= arrays[name].nbytes
    return arrays


T = TypeVar("T")
Row = tuple[Sample, dict[str, np.ndarray]]  # a sample and its part of each array


def _rows(dataset: FolderDataset, extractor: FeatureExtractor, batch: int) -> Iterator[Row]:
    """All samples in order, extracted."""
    for part in _batches(_prepared(dataset, extractor.prepare, batch), batch):
        tokens = extractor.encode([one for _, one in part])
        for row, (sample, _) in enumerate(part):
            values = {name: getattr(tokens, name)[row].numpy() for name in TOKEN_NAMES}
            yield sample, values | {"gt": np.packbits(sample.gt[0]), "mask": np.packbits(sample.valid[0])}


def _rows_beside(dataset: FolderDataset, extractor: FeatureExtractor, batch: int, store: FeatureStore) -> Iterator[Row]:
    """The same, of which the image's tokens alone are extracted; the rest is that of another store."""
    numbers = itertools.count()
    for part in _batches(_prepared(dataset, lambda sample: sample, batch), batch):
        rgb = extractor.image_tokens([sample for sample, _ in part]).half().cpu()
        for row, (sample, _) in enumerate(part):
            yield sample, store.row(next(numbers)) | {"rgb": rgb[row].numpy()}


def _batches(items: Iterator, size: int) -> Iterator[list]:
    while part := list(itertools.islice(items, size)):
        yield part


def _prepared(dataset: FolderDataset, prepare: Callable[[Sample], T], batch: int) -> Iterator[tuple[Sample, T]]:
    """All samples in order, each with `prepare` of it; with batches, threads are at most two batches ahead."""

    def load(number: int) -> tuple[Sample, T]:
        sample = dataset[number]
        return sample, prepare(sample)

    numbers = iter(range(len(dataset)))
    if batch == 1:
        yield from map(load, numbers)
        return
    pool = ThreadPoolExecutor(max(1, min(batch, default_workers() - 1)))
    try:
        waiting = deque(pool.submit(load, number) for number in itertools.islice(numbers, 2 * batch))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(load, number) for number in itertools.islice(numbers, 1))
    finally:
        pool.shutdown(cancel_futures=True)
