"""Features extracted anew at every access: for `extractor_mode` "train", whose features cannot be stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from mafr.config import Config
from mafr.data.samples import Sample, labels_of
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.features.interpolation import densify


class LiveFeatures:
    """Stands where a `FeatureStore` stands, but holds samples instead of tokens.

    Each access to a sample is a new draw, numbered from 0 a sample: equal sequences of accesses give equal
    features.
    """

    live = True  # nothing may be kept between accesses

    def __init__(self, samples: Sequence[Sample], config: Config, extractor: FeatureExtractor) -> None:
        """samples: any sequence of samples; a lazy one, such as an opened data set, is read at each access."""
        self.samples, self.config, self.extractor = samples, config, extractor
        self._draws = np.zeros(len(samples), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the data, the settings and the weights; the samples must know theirs."""
        parts = (self.samples.fingerprint, self.config.feature_digest(), str(sorted(self.extractor.weights.items())))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def ids(self) -> list[str]:
        """Names of the samples, as the data set gives them."""
        return list(self.samples.ids)

    @property
    def category(self) -> str:
        """The data set's."""
        return self.samples.category

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, 1 anomalous."""
        return labels_of(self.samples)

    @property
    def defects(self) -> list[str]:
        """Defect folder of each sample."""
        return list(self.samples.defects)

    def seek(self, draw: int) -> None:
        """Make the next access to each sample its draw number `draw`."""
        self._draws[:] = draw

    def tokens(self, indices: Sequence[int]) -> Tokens:
        """The next draw of some samples' tokens."""
        parts = []
        for number in indices:
            parts.append(self.extractor.extract(self.samples[number], draw=int(self._draws[number])))
            self._draws[number] += 1
        return Tokens.cat(parts)

    def dense(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Dense features of the next draw, see `mafr.features.interpolation.densify`."""
        return densify(self.tokens(indices), self.config)

    def gt(self, indices: Sequence[int]) -> np.ndarray:
        """(n, S, S) bool ground truth of some samples, true where anomalous."""
        return np.stack([self.samples[number].gt[0] for number in indices])

    def mask(self, indices: Sequence[int]) -> np.ndarray:
        """(n, S, S) bool, true where the pixel has a 3D point."""
        return np.stack([self.samples[number].valid[0] for number in indices])
