"""BTF, back to the feature (Horwitz & Hoshen, CVPR Workshops 2023, Sec. 5): FPFH and colour features in one bank.

At each of S/8 x S/8 patches the colour features (layers 2 and 3 of an ImageNet WideResNet-50-2, 1,536 values) and the
FPFH (33 values), both pooled 3 x 3 and then to the patches, stand side by side as they are: unscaled, so that the
FPFH, whose bins sum to 600, often decides. The bank is a coreset of the training patches; a patch's score is its
distance to the nearest kept one, the map is that, bilinearly enlarged and blurred with σ = 4 pixels, and the image
score is PatchCore's reweighted maximum. The published method scores the whole image, without a mask: off the part both
modalities are black or zero.

Departures. The blur is a Gaussian with the map's edge continued (the authors': Pillow's approximation on 8 bits).
Images are blackened off the part after they are resized, not before. The pooled FPFH is rounded to half precision, as
all stored features are. Small profiles: the colour features are the shared backbone's tokens (`btf_backbone` "shared"),
set to zero where a token's pixels have no 3D point, which stands for the blackening; FPFH is computed at every
`btf_step`-th pixel, see `mafr.baselines.parts.fpfh`.
"""

import hashlib
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.baselines.parts.fpfh import DIM, VERSION, organised_fpfh
from mafr.baselines.parts.memory_bank import MemoryBank
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.errors import DataError
from mafr.features.extract import FeatureExtractor
from mafr.features.sources.splits import Split
from mafr.features.timm_maps import WideResNet
from mafr.features.weights.files import WIDE_RESNET, WeightFile
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.paths import Paths, write_atomically
from mafr.scoring import smooth

PATCH = 8  # pixels along a patch
SIGMA = 4.0  # pixels, of the blur


class BTF(Method):
    """BTF from samples to scores."""

    name = "btf"

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        super().__init__(config, extractor)
        self.reads = ("rgb",) if config.btf_backbone == "shared" else ()
        self.bank: MemoryBank | None = None

    @classmethod
    def weight_files(cls, config: Config) -> tuple[WeightFile, ...]:
        return (WIDE_RESNET,) if config.btf_backbone == "wide_resnet50_2" else ()

    @cached_property
    def backbone(self) -> WideResNet:
        """The method's own backbone, loaded when first needed. Raises WeightsError for missing weights."""
        weights = Paths.resolve(self.config.profile).weights
        return WideResNet.from_config(self.config, weights).to(self.place.device)

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
        return Prediction.of(None, None, _blur(psi), self.bank.image_score(rows, distance, index))

    def searches(self) -> list[float]:
        return self.bank.searches

    def state(self) -> dict[str, Tensor]:
        return {"bank": self.bank.vectors}

    def restore(self, state: dict[str, Tensor]) -> None:
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
        """The pooled FPFH (33, side, side) float16; it depends on the sample alone and is kept in the split's cache."""
        size, step, folder = self.config.image_size, self.config.btf_step, split.cache
        path = None
        if folder is not None:
            key = hashlib.sha256(f"{VERSION} {size} {side} {step}".encode()).hexdigest()
            path = folder / f"fpfh-{key[:12]}" / f"{k}.npy"
            with suppress(OSError, ValueError, EOFError):  # not there yet, or damaged: computed (again)
                kept = np.load(path)
                if kept.shape == (DIM, side, side) and kept.dtype == np.float16:
                    return kept
        if sample.xyz.shape != (3, size, size):
            raise DataError(f"sample {sample.id} has {sample.xyz.shape[-1]} pixels per side; image_size is {size}")
        maps = torch.from_numpy(organised_fpfh(sample.xyz, step, torch.get_num_threads()))
        made = pool(maps[None], side)[0].half().numpy()
        if path is not None:
            buffer = io.BytesIO()
            np.save(buffer, made)
            write_atomically(path, buffer.getvalue())
        return made


def pool(maps: Tensor, side: int) -> Tensor:
    """Means of 3 x 3 without padding, then adaptive means to the patches: (1, C, h, w) -> (1, C, side, side)."""
    return F.adaptive_avg_pool2d(F.avg_pool2d(maps, 3, stride=1), side)


def _blur(psi: Tensor) -> Tensor:
    """A Gaussian blur of (1, 1, S, S) that continues the edge."""
    margin = math.ceil(4 * SIGMA)
    wide = smooth(F.pad(psi, (margin,) * 4, mode="replicate"), "gaussian", SIGMA)
    return wide[..., margin:-margin, margin:-margin]
