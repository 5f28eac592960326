"""BTF, back to the feature (Horwitz & Hoshen, CVPR Workshops 2023, Sec. 5): FPFH and colour features in one bank.

At each of S/8 x S/8 patches the colour features (layers 2 and 3 of an ImageNet WideResNet-50-2, 1,536 values) and the
FPFH (33 values), both pooled 3 x 3 and then to the patches, stand side by side as they are: unscaled, so that the
FPFH, whose bins sum to 600, often decides. The bank is a coreset of the training patches; a patch's score is its
distance to the nearest kept one, the map is that, bilinearly enlarged and blurred with σ = 4 pixels, and the image
score is PatchCore's reweighted maximum. The published method scores the whole image, without a mask: off the part both
modalities are black or zero.

Departures. The blur is a Gaussian with the map's edge continued (the authors': Pillow's approximation on 8 bits).
Images are blackened off the part after they are resized, not before. The pooled FPFH is rounded to half precision, as
all stored features are. Its normals face the camera; the authors leave their signs to Open3D's eigensolver, which
lowers what FPFH alone scores (`mafr.baselines.single_features`); what that does to BTF could not be measured without
the pretrained network. Small profiles: the colour features are the shared backbone's tokens (`btf_backbone` "shared"),
set to zero where a token's pixels have no 3D point, which stands for the blackening; FPFH is computed at every
`btf_step`-th pixel, see `mafr.features.fpfh`.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.baselines.parts.patches import PATCH, PatchMethod, pool, pooled_fpfh
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.features.extract import FeatureExtractor
from mafr.features.sources.splits import Split
from mafr.features.timm_maps import WideResNet
from mafr.features.weights.files import WIDE_RESNET, WeightFile
from mafr.paths import Paths


class BTF(PatchMethod):
    """BTF from samples to scores."""

    name = "btf"

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        super().__init__(config, extractor)
        self.reads = ("rgb",) if config.btf_backbone == "shared" else ()

    @classmethod
    def weight_files(cls, config: Config) -> tuple[WeightFile, ...]:
        return (WIDE_RESNET,) if config.btf_backbone == "wide_resnet50_2" else ()

    @cached_property
    def backbone(self) -> WideResNet:
        """The method's own backbone, loaded when first needed. Raises WeightsError for missing weights."""
        weights = Paths.resolve(self.config.profile).weights
        return WideResNet.from_config(self.config, weights).to(self.place.device)

    def patches(self, split: Split, k: int) -> Tensor:
        """The features of one sample's patches, colour first: (patches, D) float32, row by row, on the device."""
        sample = split.sample(k)
        side = self.config.image_size // PATCH
        colour = [pool(part, side) for part in self._colour(split, k, sample)]
        shape = pooled_fpfh(split, k, sample, self.config.image_size, self.config.btf_step)
        return torch.cat([*colour, torch.from_numpy(shape).to(colour[0])[None]], dim=1)[0].flatten(1).T.contiguous()

    def _colour(self, split: Split, k: int, sample: Sample) -> Sequence[Tensor]:
        """Maps of colour features (1, C, h, w) float32."""
        valid = torch.from_numpy(sample.valid)[None]
        if self.config.btf_backbone == "wide_resnet50_2":
            return self.backbone((torch.from_numpy(sample.rgb) * valid).to(self.place.device))
        tokens = split.tokens([k]).rgb.float()
        seen = F.adaptive_max_pool2d(valid.float(), tokens.shape[-2:])
        return [(tokens * seen).to(self.place.device)]
