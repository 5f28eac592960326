"""WideResNet-50-2, the image backbone of BTF (PatchCore's), through timm."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mafr.config import Config
from mafr.features.timm_maps import timm_network
from mafr.features.weights.files import WIDE_RESNET

# What timm's `wide_resnet50_2` has stood for since early 2021, so also for the authors.
NAME = "wide_resnet50_2.racm_in1k"


class WideResNet(nn.Module):
    """The maps of layers 2 and 3 of an ImageNet WideResNet-50-2."""

    def __init__(self, network: nn.Module) -> None:
        """network: timm's `wide_resnet50_2`; it is taken apart."""
        super().__init__()
        for name in ("mean", "std"):
            column = torch.tensor(network.default_cfg[name]).view(-1, 1, 1)
            self.register_buffer(name, column, persistent=False)
        self.to_8 = nn.Sequential(
            network.conv1, network.bn1, network.act1, network.maxpool, network.layer1, network.layer2
        )
        self.to_16 = network.layer3
        self.eval()

    @classmethod
    def from_config(cls, config: Config, weights_dir: Path | None = None) -> WideResNet:
        """With ImageNet weights, or untrained with `config.random_weights`; raises WeightsError, see `timm_network`."""
        return cls(timm_network(NAME, WIDE_RESNET, config, weights_dir)[0])

    @torch.no_grad()
    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """rgb (B, 3, S, S) in [0, 1] -> maps (B, 512, S/8, S/8) and (B, 1024, S/16, S/16)."""
        fine = self.to_8((rgb - self.mean) / self.std)
        return fine, self.to_16(fine)
