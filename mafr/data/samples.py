"""Samples, the common currency of all data sets; and the choice of few-shot training samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mafr.data.scan import Scan
from mafr.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One scan: an image and its organised point cloud, pixel by pixel; S is `Config.image_size`."""

    rgb: np.ndarray  # (3, S, S) float32 in [0, 1]
    xyz: np.ndarray  # (3, S, S) float32, metres; (0, 0, 0) where there is no point
    gt: np.ndarray  # (1, S, S) bool, true where anomalous
    label: int  # 0 good, 1 anomalous
    defect: str  # name of the defect folder; "good" for normal samples
    category: str  # e.g. "bagel"
    id: str  # "<split>/<defect>/<number>", e.g. "test/crack/003"
    # The same before resizing, for methods that see more pixels than S; None where there is none. A copy with another
    # image or cloud must not keep it.
    scan: Callable[[], Scan] | None = field(default=None, repr=False, compare=False)

    @property
    def valid(self) -> np.ndarray:
        """(1, S, S) bool, true where the pixel has a 3D point."""
        return (self.xyz != 0).any(axis=0, keepdims=True)


def labels_of(samples: Sequence[Sample]) -> np.ndarray:
    """(N,) int64, 1 anomalous; a data set knows them without reading its files."""
    known = getattr(samples, "labels", None)
    return np.asarray([sample.label for sample in samples] if known is None else known, dtype=np.int64)


def name_of(sample: Sample) -> str:
    """Category and id, for messages."""
    return f"{sample.category} {sample.id}".strip()


def few_shot(count: int, total: int, seed: int) -> list[int]:
    """Indices of `count` of `total` samples, ascending: the start of one seeded permutation.

    Equal seeds give nested subsets: 5 shots are among 10 shots. No sample is repeated.
    Raises DataError for a count below 1 or above `total`.
    """
    if not 1 <= count <= total:
        raise DataError(f"{count} shots asked for, but there are {total} training samples; ask for 1 to {total}")
    return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())
