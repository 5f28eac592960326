"""Features of samples that are in no store, extracted when asked for."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mafr.data.samples import Sample, labels_of
from mafr.disk import writing
from mafr.errors import MafrError
from mafr.features.extract import TOKEN_NAMES, FeatureExtractor, Tokens
from mafr.features.interpolation import densify
from mafr.parallel.progress import bar
from mafr.paths import scratch_folder

IN_MEMORY = 8  # samples; the tokens of a few need not go through the disk
_ON_DISK = Path("/var/tmp")  # where it exists; /tmp may be memory


class OnDemandFeatures:
    """Stands where a `FeatureStore` stands, for any sequence of samples; lazy ones are read at each access.

    Tokens are extracted once and kept while the object lives. In `extractor_mode` "train" (`live`) each access is a
    new draw instead, numbered from 0 per sample: equal sequences of accesses give equal features.
    """

    def __init__(self, samples: Sequence[Sample], extractor: FeatureExtractor | None) -> None:
        """extractor: None for methods that use no tokens."""
        self.samples, self.extractor = samples, extractor
        self.live = extractor is not None and extractor.config.extractor_mode == "train"
        self._draws = np.zeros(len(samples), dtype=np.int64)
        self._kept = ScratchTokens()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the data, the settings and the weights; only for samples that know their own."""
        weights, digest = str(sorted(self.extractor.weights.items())), self.extractor.config.feature_digest()
        return hashlib.sha256(f"{self.samples.fingerprint} {digest} {weights}".encode()).hexdigest()

    @property
    def category(self) -> str:
        return self.samples.category

    @property
    def ids(self) -> list[str]:
        return list(self.samples.ids)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, 1 anomalous."""
        return labels_of(self.samples)

    @property
    def defects(self) -> list[str]:
        return list(self.samples.defects)

    def seek(self, draw: int) -> None:
        """Make the next access to each sample its draw number `draw`."""
        self._draws[:] = draw

    def extract(self, indices: Sequence[int]) -> None:
        """Extract tokens of some samples beforehand, with a progress bar; nothing where each access is a new draw."""
        if not self.live:
            for k in bar(indices, what="extracting features") if len(indices) > 1 else indices:
                self._tokens(k)

    def tokens(self, indices: Sequence[int]) -> Tokens:
        """The tokens of some samples, or their next draw. Raises MafrError without an extractor."""
        return Tokens.cat([self._tokens(k) for k in indices])

    def _tokens(self, k: int) -> Tokens:
        if self.extractor is None:
            raise MafrError("this method was built without a feature extractor")
        if self.live:
            self._draws[k] += 1
            return self.extractor.extract(self.samples[k], draw=int(self._draws[k]) - 1)
        if k not in self._kept:
            self._kept.put(k, self.extractor.extract(self.samples[k]))
        return self._kept.get(k)

    def dense(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Dense features of some samples, see `mafr.features.interpolation.densify`."""
        return densify(self.tokens(indices), self.extractor.config)

    def gt(self, indices: Sequence[int]) -> np.ndarray:
        """(n, S, S) bool ground truth of some samples, true where anomalous."""
        return np.stack([self.samples[k].gt[0] for k in indices])

    def mask(self, indices: Sequence[int]) -> np.ndarray:
        """(n, S, S) bool, true where the pixel has a 3D point."""
        return np.stack([self.samples[k].valid[0] for k in indices])


class ScratchTokens:
    """Tokens by number: a few in memory, the rest in mapped files of a temporary folder that goes with the object.

    So memory does not grow with the number of samples. The environment's TMPDIR decides where the folder is, if set.
    """

    def __init__(self) -> None:
        self._few: dict[int, Tokens] = {}
        self._filed: set[int] = set()
        self._folder: tempfile.TemporaryDirectory | None = None

    def __contains__(self, number: int) -> bool:
        return number in self._few or number in self._filed

    def __len__(self) -> int:
        return len(self._few) + len(self._filed)

    def put(self, number: int, tokens: Tokens) -> None:
        """Keep one sample's tokens (B = 1)."""
        if len(self._few) < IN_MEMORY:
            self._few[number] = tokens
            return
        for name in TOKEN_NAMES:
            array = getattr(tokens, name).numpy()
            with writing(path := self._path(number, name), array.nbytes):
                np.save(path, array)
        self._filed.add(number)

    def get(self, number: int) -> Tokens:
        """One sample's tokens; not to be written to."""
        if number in self._few:
            return self._few[number]
        # "c" (copy on write): torch asks for writable memory; the file stays as it is.
        arrays = (np.load(self._path(number, name), mmap_mode="c") for name in TOKEN_NAMES)
        return Tokens(*map(torch.from_numpy, arrays))

    def _path(self, number: int, name: str) -> Path:
        if self._folder is None:
            place = _ON_DISK if "TMPDIR" not in os.environ and os.access(_ON_DISK, os.W_OK) else None
            self._folder = scratch_folder("mafr-tokens", place)
        return Path(self._folder.name) / f"{number}-{name}.npy"
