"""Single features of BTF's study (Horwitz & Hoshen, CVPR Workshops 2023, Sec. 4): FPFH, raw depth, HoG, SIFT.

Each stands alone in a memory bank of patches of 8 x 8 pixels (`mafr.baselines.parts.patches`), and none needs
pretrained weights, so published numbers can return on real scans. All follow the authors' public code
(github.com/eliahuhorwitz/3D-ADS) at its values, its flaws included:

- Raw depth takes 64 consecutive pixels of the image's rows as a patch (`raw_patches` "rows"), though the map is
  enlarged as if each had been a block of 8 x 8: it is scrambled. "blocks" is what was meant.
- SIFT takes bins of 4 pixels that lie one pixel apart, not four, so that a descriptor sees 7 x 7 pixels, not 16 x 16.

The profiles depart from the code in three settings; to compare with published values, set all three.

- `cloud_sampling` "floor": the code samples clouds as torch's "nearest" does.
- `bank_choice` "float16": it chooses the coreset in half precision. No feature here is wide enough to be projected.
- `fpfh_normals` "open3d": it leaves the signs of normals to Open3D's eigensolver.

Then the real cable gland gives, I-AUROC / P-AUROC / AUPRO@30% with 99 thresholds (published values in brackets):

    raw depth  0.507 (0.507)  0.751 (0.750)  0.315 (0.314)
    HoG        0.587 (0.587)  0.933 (0.933)  0.761 (0.761)
    SIFT       0.640 (0.640)  0.957 (0.957)  0.845 (0.845)
    FPFH       0.516 (0.534)  0.965 (0.965)  0.878 (0.878)

From the pixels' centres HoG has I-AUROC 0.530 and raw depth AUPRO@30% 0.284. FPFH by floor, other settings changed:

    normals    coreset    I-AUROC  P-AUROC  AUPRO@30%
    open3d     float16    0.523    0.965    0.877
    open3d     float32    0.544    0.966    0.880
    camera     float16    0.626    0.972    0.899
    camera     float32    0.616    0.972    0.899

The I-AUROC of FPFH is near chance and moves with every rounding: the same settings gave 0.516 in a run of the store and
0.523 outside it; with histograms in full precision the first two are 0.521 and 0.511, and with Open3D 0.20 itself 0.512
both times. Its maps hardly move.

Departures. The blur is a Gaussian with the map's edge continued; the code's, Pillow's on 8 bits scaled by each map's
maximum, changes the published forms by 0.002 at most (but takes 0.1 of the P-AUROC of raw depth in blocks, whose small
values it rounds to 0). The pooled FPFH is rounded to half precision.

Clouds that are not in the camera's frame, as those of Eyecandies, have no published values: their depth is that along
the fitted viewing axis (`depth_along`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mafr.baselines.parts.depth_features import hog, pooled_sift, raw_depth
from mafr.baselines.parts.inputs import CAMERA
from mafr.baselines.parts.patches import PATCH, PatchMethod, check_size, pooled_fpfh
from mafr.config import Config
from mafr.data.depth_axis import DepthAxis
from mafr.errors import ConfigError
from mafr.features.extract import FeatureExtractor
from mafr.features.sources.splits import Split


class SingleFeature(PatchMethod):
    """One feature in a bank of patches. Raises ConfigError where the image does not divide into patches."""

    reads = ()

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        super().__init__(config, extractor)
        if config.image_size % PATCH:
            raise ConfigError(f"image_size {config.image_size} must be a multiple of {PATCH}, the pixels of a patch")


class FPFH(SingleFeature):
    """FPFH alone, 33 values."""

    name = "fpfh"

    def patches(self, split: Split, k: int) -> Tensor:
        config = self.config
        maps = pooled_fpfh(split, k, split.sample(k), config.image_size, config.fpfh_step, config.fpfh_normals)
        return torch.from_numpy(maps).to(self.place.device).float().flatten(1).T.contiguous()


class DepthFeature(SingleFeature):
    """A feature of the depth image. Subclasses fill in `describe`."""

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        super().__init__(config, extractor)
        self.view = CAMERA

    @abstractmethod
    def describe(self, depth: np.ndarray) -> Tensor:
        """Depth (S, S) float32, metres, 0 where there is no point -> (patches, D) float32, row by row."""

    def patches(self, split: Split, k: int) -> Tensor:
        sample = split.sample(k)
        check_size(sample, self.config.image_size)
        return self.describe(self.view.depth(sample.xyz)).to(self.place.device)

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        if self.config.depth_along == "fitted":
            self.view = DepthAxis.fit(split.sample(k) for k in indices)
        super().train(split, indices, show)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"view": torch.tensor(self.view.numbers, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.view = DepthAxis.of_numbers(state["view"].tolist())
        super().restore(state)


class RawDepth(DepthFeature):
    """Raw depth, 64 values."""

    name = "raw_depth"

    def describe(self, depth: np.ndarray) -> Tensor:
        return raw_depth(depth, self.config.raw_patches)


class HoG(DepthFeature):
    """Histograms of oriented gradients of the depth image, 8 values."""

    name = "hog"

    def describe(self, depth: np.ndarray) -> Tensor:
        return hog(depth)


class SIFT(DepthFeature):
    """Dense SIFT of the depth image, 128 values."""

    name = "sift"

    def describe(self, depth: np.ndarray) -> Tensor:
        return pooled_sift(depth)
