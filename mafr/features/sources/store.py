"""Tokens of a whole split on disk, memory-mapped: extracted once, read in every epoch."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from mafr.config import FEATURE_SETTINGS, Config
from mafr.data.samples import Sample
from mafr.errors import ConfigError, DataError
from mafr.features.encoders import known_weights
from mafr.features.extract import FEATURE_VERSION, TOKEN_NAMES, FeatureExtractor, Prepared, Tokens
from mafr.features.interpolation import densify
from mafr.parallel.progress import bar, default_workers
from mafr.paths import leftovers, process_temporary, write_json

_META = "meta.json"
_ARRAYS = (*TOKEN_NAMES, "gt", "mask")


class SplitOfSamples(Protocol):
    """One category's split, as `mafr.data.open_dataset` returns it."""

    category: str
    split: str
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Sample: ...


class FeatureStore:
    """The tokens of one split and what scoring needs beside them. Opened by `open_store` or `build_store`.

    Attributes:
        ids, defects: names a sample; labels: (n,) int64, 1 anomalous.
        category, split: where the samples come from.
        fingerprint: SHA-256 (hex) over all that decides the content.
        size: bytes of the arrays on disk.
    """

    live = False  # the same at every access

    def __init__(self, folder: Path, config: Config) -> None:
        """Raises OSError, ValueError or KeyError for a folder that is no whole store; see `open_store`."""
        self.folder, self.config = Path(folder), config
        self.meta: dict = json.loads((self.folder / _META).read_text(encoding="utf-8"))
        self.ids: list[str] = self.meta["ids"]
        self.defects: list[str] = self.meta["defects"]
        self.labels = np.asarray(self.meta["labels"], dtype=np.int64)
        self.category, self.split = self.meta["category"], self.meta["split"]
        self.fingerprint, self.size = self.meta["fingerprint"], self.meta["size"]
        self._arrays = {name: np.load(self._file(name), mmap_mode="r") for name in _ARRAYS}
        if any(len(array) != len(self.ids) for array in self._arrays.values()):
            raise ValueError(f"{self.folder}: the arrays hold another number of samples than {_META}")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def __len__(self) -> int:
        return len(self.ids)

    def tokens(self, indices: Sequence[int]) -> Tokens:
        """The stored tokens of some samples, copied into memory."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Tokens(*(torch.from_numpy(self._arrays[name][chosen]) for name in TOKEN_NAMES))

    def dense(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Dense features of some samples, see `mafr.features.interpolation.densify`."""
        return densify(self.tokens(indices), self.config)

    def gt(self, indices: Sequence[int]) -> np.ndarray:
        """(n, S, S) bool ground truth of some samples, true where anomalous."""
        return self._bits("gt", indices)

    def mask(self, indices: Sequence[int]) -> np.ndarray:
        """(n, S, S) bool, true where the pixel has a 3D point."""
        return self._bits("mask", indices)

    def _bits(self, name: str, indices: Sequence[int]) -> np.ndarray:
        side = self.config.image_size
        packed = self._arrays[name][np.asarray(indices, dtype=np.int64)]
        return np.unpackbits(packed, axis=1, count=side * side).view(bool).reshape(-1, side, side)


def build_store(
    dataset: SplitOfSamples, folder: Path, config: Config, extractor: FeatureExtractor, batch: int = 0
) -> FeatureStore:
    """Extract all samples of a split into `folder`; an equal store that is there already is returned.

    The folder appears whole or not at all. Samples are written to mapped files as they are extracted: memory
    does not grow with their number. batch: samples that the networks take at once, while threads read the next
    ones and find their neighbours; 0 stands for 8 on a GPU, and for 1, all in turn, on the CPU. Raises
    DataError for samples without enough points and for an empty split, ConfigError in `extractor_mode` "train",
    whose features differ from draw to draw.
    """
    folder = Path(folder)
    if config.extractor_mode == "train":
        raise ConfigError(
            "extractor_mode 'train' gives other features at every call; they cannot be stored. "
            "Use mafr.features.sources.live.LiveFeatures"
        )
    if extractor.config.feature_digest() != config.feature_digest():
        raise ConfigError("the extractor was built for other feature settings than the store's")
    if not len(dataset):
        raise DataError(f"{dataset.category}/{dataset.split}: there are no samples to extract features of")
    found = open_store(folder, config, dataset.fingerprint, extractor.weights)
    if found is not None:
        return found
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in leftovers(folder):
        shutil.rmtree(left, ignore_errors=True)
    temporary = process_temporary(folder)
    temporary.mkdir()
    try:
        _write(temporary, dataset, config, extractor, batch or (8 if extractor.place.device.type == "cuda" else 1))
        # What another process has just finished is kept: somebody may have it mapped already.
        if (found := open_store(folder, config, dataset.fingerprint, extractor.weights)) is not None:
            return found
        if folder.exists():  # an outdated or damaged store
            shutil.rmtree(folder)
        try:
            temporary.rename(folder)
        except OSError:  # the other process was faster by a hair
            if (found := open_store(folder, config, dataset.fingerprint, extractor.weights)) is None:
                raise
            return found
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return FeatureStore(folder, config)


def open_store(
    folder: Path, config: Config, fingerprint: str, weights: dict[str, str] | None = None
) -> FeatureStore | None:
    """The store in `folder`, or None where there is none for these settings, data and weights.

    fingerprint: the data set's. weights: SHA-256 of each backbone's weights; None stands for the pinned ones.
    A damaged store counts as none, so that it is built anew.
    """
    try:
        store = FeatureStore(folder, config)
        same = (
            store.meta["version"] == FEATURE_VERSION
            and store.meta["feature_digest"] == config.feature_digest()
            and store.meta["data_fingerprint"] == fingerprint
        )
        written = store.meta["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    expected = known_weights(config) if weights is None else weights
    # A backbone without a pinned file (None) may have any weights but random ones.
    fits = all(
        written.get(name) == digest if digest else written.get(name) != "random" for name, digest in expected.items()
    )
    return store if same and fits else None


def _write(folder: Path, dataset: SplitOfSamples, config: Config, extractor: FeatureExtractor, batch: int) -> None:
    count, arrays, number = len(dataset), {}, 0
    ids, defects, labels = [], [], []
    prepared = iter(bar(_prepared(dataset, extractor, batch), count, f"features {dataset.category}/{dataset.split}"))
    while part := list(itertools.islice(prepared, batch)):
        tokens = extractor.encode([one for _, one in part])
        for row, (sample, _) in enumerate(part):
            for name, value in _rows(sample, tokens, row):
                if name not in arrays:
                    arrays[name] = _new_array(folder / f"{name}.npy", value, count)
                arrays[name][number] = value
            ids.append(sample.id)
            defects.append(sample.defect)
            labels.append(int(sample.label))
            number += 1
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
    write_json(
        folder / _META,
        {
            **identity,
            "fingerprint": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
            "settings": {name: getattr(config, name) for name in FEATURE_SETTINGS},
            "count": count,
            "size": sum(int(array.nbytes) for array in arrays.values()),
            "ids": ids,
            "labels": labels,
            "defects": defects,
        },
    )


def _new_array(path: Path, row: np.ndarray, count: int) -> np.ndarray:
    """A mapped file for `count` rows like `row`, its space taken on the disk at once."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=row.dtype, shape=(count, *row.shape))
    if hasattr(os, "posix_fallocate"):
        # Writing to a mapped file on a full disk kills the process without a word; this raises OSError.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _prepared(dataset: SplitOfSamples, extractor: FeatureExtractor, batch: int) -> Iterator[tuple[Sample, Prepared]]:
    """All samples in order; with batches, threads are at most two batches ahead."""

    def load(number: int) -> tuple[Sample, Prepared]:
        sample = dataset[number]
        return sample, extractor.prepare(sample)

    count = len(dataset)
    if batch == 1:
        yield from map(load, range(count))
        return
    pool = ThreadPoolExecutor(max(1, min(batch, default_workers() - 1)))
    try:
        waiting = deque(pool.submit(load, number) for number in range(min(2 * batch, count)))
        for following in range(len(waiting), count + len(waiting)):
            yield waiting.popleft().result()
            if following < count:
                waiting.append(pool.submit(load, following))
    finally:
        pool.shutdown(cancel_futures=True)


def _rows(sample: Sample, tokens: Tokens, row: int) -> Iterator[tuple[str, np.ndarray]]:
    for name in TOKEN_NAMES:
        yield name, getattr(tokens, name)[row].numpy()
    yield "gt", np.packbits(sample.gt[0])
    yield "mask", np.packbits(sample.valid[0])
