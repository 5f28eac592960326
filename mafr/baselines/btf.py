"""BTF, back to the feature (Horwitz & Hoshen, CVPR Workshops 2023, Sec. 5): FPFH and colour features in one bank.

At each of S/8 x S/8 patches the colour features (layers 2 and 3 of an ImageNet WideResNet-50-2, 1,536 values) and the
FPFH (33 values), both pooled 3 x 3 and then to the patches, stand side by side as they are: unscaled, so that the
FPFH, whose bins sum to 600, often decides. The bank is a coreset of the training patches; a patch's score is its
distance to the nearest kept one, the map is that, bilinearly enlarged and blurred with σ = 4 pixels, and the image
score is PatchCore's reweighted maximum. The published method scores the whole image, without a mask: off the part both
modalities are black or zero.

Departures. The blur is a Gaussian with the map's edge continued (the authors': Pillow's approximation on 8 bits).
Images are blackened off the part after they are resized, not before. Small profiles: the colour features are the shared
backbone's tokens (`btf_backbone` "shared"), set to zero where a token's pixels have no 3D point, which stands for the
blackening; FPFH is computed at every `btf_step`-th pixel, see `mafr.baselines.parts.fpfh`.

A pooled FPFH depends on the sample alone: where a split names a folder `cache`, it is kept there and computed once,
whatever the method is trained on. It is rounded to half precision either way, as all stored features are.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.baselines.parts.fpfh import DIM, VERSION, organised_fpfh
from mafr.baselines.parts.memory_bank import MemoryBank
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.device import computing
from mafr.errors import DataError
from mafr.features.extract import FeatureExtractor
from mafr.features.sources.splits import Split
from mafr.features.weights.files import WIDE_RESNET, WeightFile
from mafr.features.wide_resnet import WideResNet
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.paths import Paths, write_atomically
from mafr.scoring import smooth

PATCH = 8  # pixels a patch's side
SIGMA = 4.0  # pixels, of the blur


class BTF(Method):
    """BTF from samples to scores, with the interface of `mafr.Detector`."""

    name: ClassVar[str] = "btf"

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        """Raises ConfigError for a device or precision that this machine does not have."""
        super().__init__(config, extractor)
        self.reads = ("rgb",) if config.btf_backbone == "shared" else ()
        self.bank: MemoryBank | None = None
        self._backbone: WideResNet | None = None

    @classmethod
    def weight_files(cls, config: Config) -> tuple[WeightFile, ...]:
        return (WIDE_RESNET,) if config.btf_backbone == "wide_resnet50_2" else ()

    @property
    def backbone(self) -> WideResNet:
        """The method's own backbone, loaded when first needed. Raises WeightsError for missing weights."""
        if self._backbone is None:
            weights = Paths.resolve(self.config.profile).weights
            self._backbone = WideResNet.from_config(self.config, weights).to(self.place.device)
        return self._backbone

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        """Fill the memory bank with a coreset of the patches of `indices`."""
        with computing(self._exact), torch.inference_mode():
            rows = [self.patches(split, k) for k in (bar(indices, what="features") if show else indices)]
            self.bank = MemoryBank.build(torch.cat(rows), self.config)

    def score(self, split: Split, k: int) -> Prediction:
        """Distances to the bank as a map, and the reweighted largest one."""
        with computing(self._exact):
            rows = self.patches(split, k)
            distance, index = self.bank.nearest(rows)
            side = math.isqrt(len(rows))
            psi = F.interpolate(
                distance.view(1, 1, side, side), (self.config.image_size,) * 2, mode="bilinear", align_corners=False
            )
            return Prediction.of(None, None, _blur(psi), self.bank.image_score(rows, distance, index))

    def searches(self) -> list[float]:
        return self.bank.searches

    def state(self) -> dict[str, Tensor]:
        """The memory bank."""
        return self.bank.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.bank = MemoryBank.restore(state, device=self.place.device)

    def patches(self, split: Split, k: int) -> Tensor:
        """The features of one sample's patches, colour first: (patches, D) float32, row by row, on the device."""
        sample = split.sample(k)
        side = self.config.image_size // PATCH
        colour = [pool(part, side) for part in self._colour(split, k, sample)]
        shape = torch.from_numpy(self._shape(split, k, sample, side)).to(colour[0])
        return torch.cat([*colour, shape[None]], dim=1)[0].flatten(1).T.contiguous()

    def _colour(self, split: Split, k: int, sample: Sample) -> Sequence[Tensor]:
        """Maps of colour features (1, C, h, w) float32."""
        valid = torch.from_numpy(sample.valid)[None]
        if self.config.btf_backbone == "wide_resnet50_2":
            return self.backbone((torch.from_numpy(sample.rgb) * valid).to(self.place.device))
        tokens = split.tokens([k]).rgb.float()
        seen = F.adaptive_max_pool2d(valid.float(), tokens.shape[-2:])
        return [(tokens * seen).to(self.place.device)]

    def _shape(self, split: Split, k: int, sample: Sample, side: int) -> np.ndarray:
        """The pooled FPFH (33, side, side) float16, from the split's cache where it has one."""
        folder = split.cache
        if folder is None:
            return self._pooled_fpfh(sample, side)
        key = hashlib.sha256(f"{VERSION} {self.config.image_size} {side} {self.config.btf_step}".encode()).hexdigest()
        path = folder / f"fpfh-{key[:12]}" / f"{k}.npy"
        try:
            kept = np.load(path)
        except (OSError, ValueError, EOFError):  # not there yet, or damaged: computed (again)
            kept = None
        if kept is not None and kept.shape == (DIM, side, side) and kept.dtype == np.float16:
            return kept
        made, buffer = self._pooled_fpfh(sample, side), io.BytesIO()
        np.save(buffer, made)
        write_atomically(path, buffer.getvalue())
        return made

    def _pooled_fpfh(self, sample: Sample, side: int) -> np.ndarray:
        size = self.config.image_size
        if sample.xyz.shape != (3, size, size):
            raise DataError(f"sample {sample.id} has {sample.xyz.shape[-1]} pixels a side; image_size is {size}")
        maps = torch.from_numpy(organised_fpfh(sample.xyz, self.config.btf_step, torch.get_num_threads()))
        return pool(maps[None], side)[0].half().numpy()


def pool(maps: Tensor, side: int) -> Tensor:
    """Means of 3 x 3 without padding, then adaptive means to the patches: (1, C, h, w) -> (1, C, side, side)."""
    return F.adaptive_avg_pool2d(F.avg_pool2d(maps, 3, stride=1), side)


def _blur(psi: Tensor) -> Tensor:
    """A Gaussian blur of (1, 1, S, S) that continues the edge."""
    margin = math.ceil(4 * SIGMA)
    wide = smooth(F.pad(psi, (margin,) * 4, mode="replicate"), "gaussian", SIGMA)
    return wide[..., margin:-margin, margin:-margin]
