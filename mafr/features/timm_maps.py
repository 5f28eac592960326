"""ImageNet networks of timm, whole or in part: backbones that compared methods publish and MAFR does not use."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.config import Config
from mafr.features.rgb import RANDOM, timm_model
from mafr.features.weights.files import (
    EFFICIENTNET_B5,
    WeightFile,
    check_file,
    provide_files,
    read_tensors,
    reading,
)

B5_STRIDE, B5_DIM = 32, 304  # of layer 36, the last block of the sixth stage


def timm_network(
    name: str, file: WeightFile, config: Config, weights_dir: Path | None = None
) -> tuple[nn.Module, str]:
    """timm's network `name` with the weights in `file`, frozen and in eval mode, and their SHA-256.

    The file is downloaded if `weights_dir` (default: the profile's) does not hold it. With `config.random_weights`
    the network is initialised from a fixed seed instead, and "random" stands for the hash.
    Raises WeightsError for missing or unfit weights.
    """
    path = None if config.random_weights else provide_files(config, weights_dir, (file,))[file]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm_model(name)
    digest = RANDOM
    if path is not None:
        digest = check_file(file, path)
        _load(network, path, file.title)
    return network.eval().requires_grad_(False), digest


class EfficientNetB5(nn.Module):
    """EfficientNet-B5 up to layer 36, where it has 304 channels at stride 32 (AST's choice)."""

    def __init__(self, network: nn.Module, side: int) -> None:
        """network: timm's `tf_efficientnet_b5`; it is taken apart. side: of the images it takes, in pixels."""
        super().__init__()
        self.side = side
        for name in ("mean", "std"):
            column = torch.tensor(network.default_cfg[name]).view(-1, 1, 1)
            self.register_buffer(name, column, persistent=False)
        self.layers = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:6])
        self.eval()

    @classmethod
    def from_config(cls, config: Config, side: int, weights_dir: Path | None = None) -> EfficientNetB5:
        """With ImageNet weights, or untrained with `config.random_weights`; raises WeightsError, see `timm_network`."""
        return cls(timm_network("tf_efficientnet_b5.aa_in1k", EFFICIENTNET_B5, config, weights_dir)[0], side)

    @torch.no_grad()
    def forward(self, rgb: Tensor) -> Tensor:
        """rgb (B, 3, S, S) in [0, 1], brought to `side` bilinearly -> (B, 304, side / 32, side / 32)."""
        rgb = F.interpolate(rgb, (self.side, self.side), mode="bilinear", align_corners=False)
        return self.layers((rgb - self.mean) / self.std)


def _load(network: nn.Module, path: Path, title: str) -> None:
    weights = read_tensors(path, title)
    with reading(path, title):
        network.load_state_dict({name: value.float() for name, value in weights.items()})
