"""Patches in a memory bank, as in BTF's code: what BTF and the single features of its study share.

A map of features is pooled 3 x 3 and then to patches of 8 x 8 pixels. The bank is a coreset of the training patches; a
patch's score is its distance to the nearest kept one, the map is that, bilinearly enlarged and blurred, and the image
score is PatchCore's reweighted maximum. The whole image is scored, without a mask.
"""

import hashlib
import io
import math
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.baselines.parts.memory_bank import MemoryBank
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.errors import DataError
from mafr.features.extract import FeatureExtractor
from mafr.features.fpfh import DIM, VERSION, organised_fpfh
from mafr.features.interpolation import channels_last
from mafr.features.sources.splits import Split
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.paths import write_atomically
from mafr.scoring import smooth

PATCH = 8  # pixels along a patch
SIGMA = 4.0  # pixels, of the blur


class PatchMethod(Method):
    """Patches scored by their distance to a bank of training patches. Subclasses fill in `patches`."""

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        super().__init__(config, extractor)
        self.bank: MemoryBank | None = None

    @abstractmethod
    def patches(self, split: Split, k: int) -> Tensor:
        """The features of one sample's patches: (patches, D) float32, row by row, on the device."""

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        """Fill the memory bank with a coreset of the patches of `indices`."""
        with torch.inference_mode():
            rows = [self.patches(split, k) for k in bar(indices, what="features", show=show)]
            self.bank = MemoryBank.build(torch.cat(rows), self.config)

    def score(self, split: Split, k: int) -> Prediction:
        """Distances to the bank as a map, and the reweighted largest one."""
        rows = self.patches(split, k)
        distance, index = self.bank.nearest(rows)
        side, size = math.isqrt(len(rows)), (self.config.image_size,) * 2
        psi = F.interpolate(distance.view(1, 1, side, side), size, mode="bilinear", align_corners=False)
        return Prediction.of(None, None, blur(psi), self.bank.image_score(rows, distance, index))

    def searches(self) -> list[float]:
        return self.bank.searches

    def state(self) -> dict[str, Tensor]:
        return {"bank": self.bank.vectors}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.bank = MemoryBank.restore(state, device=self.place.device)


def pooled_fpfh(split: Split, k: int, sample: Sample, size: int, step: int, normals: str = "camera") -> np.ndarray:
    """The FPFH of a sample's patches, (33, side, side) float16; it is kept in the split's cache, if there is one.

    sample: number k of the split; size: pixels per side, `Config.image_size`; side: size // 8; step: histograms at
    every step-th pixel in both directions; normals: as for `organised_fpfh`. Raises DataError for a sample of another
    size.
    """
    side, path = size // PATCH, None
    if split.cache is not None:
        signs = "" if normals == "camera" else f" {normals}"  # kept ones are older than the choice
        key = hashlib.sha256(f"{VERSION} {size} {side} {step}{signs}".encode()).hexdigest()
        path = split.cache / f"fpfh-{key[:12]}" / f"{k}.npy"
        if (kept := _kept(path, (DIM, side, side))) is not None:
            return kept
    check_size(sample, size)
    maps = torch.from_numpy(organised_fpfh(sample.xyz, step, torch.get_num_threads(), normals))
    made = pool(maps[None], side)[0].half().numpy()
    if path is not None:
        buffer = io.BytesIO()
        np.save(buffer, made)
        write_atomically(path, buffer.getvalue() + _checksum(buffer.getvalue()))
    return made


def _kept(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """A kept array, or None where it is not there yet, or not as it was written; old files carry no checksum."""
    with suppress(OSError, ValueError, EOFError):
        content = path.read_bytes()
        stream = io.BytesIO(content)
        kept, end = np.load(stream), stream.tell()
        good = content[end:] in (b"", _checksum(content[:end]))
        return kept if good and kept.shape == shape and kept.dtype == np.float16 else None
    return None


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "big")


def check_size(sample: Sample, size: int) -> None:
    """Raises DataError for a sample that does not have `size` pixels per side."""
    if sample.xyz.shape != (3, size, size):
        raise DataError(f"sample {sample.id} has {sample.xyz.shape[-1]} pixels per side; image_size is {size}")


def pool(maps: Tensor, side: int) -> Tensor:
    """Means of 3 x 3 without padding, then adaptive means to the patches: (1, C, h, w) -> (1, C, side, side)."""
    return F.adaptive_avg_pool2d(F.avg_pool2d(channels_last(maps), 3, stride=1), side)


def blur(psi: Tensor) -> Tensor:
    """A Gaussian blur of (1, 1, S, S) that continues the edge."""
    margin = math.ceil(4 * SIGMA)
    wide = smooth(F.pad(psi, (margin,) * 4, mode="replicate"), "gaussian", SIGMA)
    return wide[..., margin:-margin, margin:-margin]
