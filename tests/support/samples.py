"""Samples, tokens and heads that several test modules share: small, made from a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mafr.config import Config
from mafr.data.samples import Sample
from mafr.device import Place
from mafr.features.extract import Tokens, cell_weights
from mafr.features.interpolation import densify
from mafr.losses import CompositeLoss
from mafr.model import MAFR


def make_sample(seed: int = 0, size: int = 112, hole: bool = True, name: str = "test/crack") -> Sample:
    """A wavy disc half a metre away, with a hole, on nothing."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:size, :size] / size - 0.5
    inside = u**2 + v**2 < 0.2
    if hole:
        inside &= (u - 0.1) ** 2 + (v - 0.1) ** 2 > 0.01
    depth = 0.5 + 0.01 * np.sin(9 * u + seed) + rng.normal(0, 1e-4, u.shape)
    xyz = np.where(inside, np.stack([u * 0.1, v * 0.1, depth]), 0).astype(np.float32)
    return Sample(
        rgb=rng.random((3, size, size), dtype=np.float32),
        xyz=xyz,
        gt=(u > 0.3)[None] & inside[None],
        label=seed % 2,
        defect="crack" if seed % 2 else "good",
        category="bagel",
        id=f"{name}/{seed:03d}",
    )


@dataclasses.dataclass
class Split:
    samples: Sequence[Sample]
    category: str = "bagel"
    split: str = "test"
    fingerprint: str = "f" * 64

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Sample:
        return self.samples[number]


SMALL = {"grid": 28, "image_size": 112, "groups": 40, "group_size": 8, "rgb_dim": 152, "xyz_dim": 192, "dropout": 0.0}


CPU = Place(torch.device("cpu"), torch.float32)


def config_of(variant: str, **changes: object) -> Config:
    return Config.preset("smoke", variant, SMALL | changes)


def tokens_of(config: Config, seed: int = 0, side: int = 14) -> Tokens:
    """Tokens of a bumpy disc; the image's tokens on a coarser grid than the cells, as DINO's are."""
    g = torch.Generator().manual_seed(seed)
    size = config.image_size
    y, x = np.mgrid[:size, :size] / size - 0.5
    height = 1 + 0.1 * np.sin(9 * x) * np.cos(7 * y)
    xyz = np.where((x - 0.05) ** 2 + (y / 0.8) ** 2 < 0.12, np.stack([x + 1, y + 1, height]), 0).astype(np.float32)
    points = xyz[:, (xyz != 0).any(axis=0)].T
    centres = points[np.random.default_rng(seed).choice(len(points), config.groups, replace=False)]
    index, weight = cell_weights(xyz, centres, config.grid)
    return Tokens(
        torch.randn(1, config.rgb_dim, side, side, generator=g).half(),
        torch.randn(1, config.groups, config.xyz_dim, generator=g).half(),
        torch.from_numpy(index)[None],
        torch.from_numpy(weight)[None],
    )


def model_of(config: Config, seed: int = 3) -> MAFR:
    torch.manual_seed(seed)
    model = MAFR.from_config(config)
    with torch.no_grad():  # norms and biases that are not at their start
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) if parameter.ndim == 1 else 0)
    return model


def plain_step(config: Config, tokens: Tokens, model: MAFR) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses by term and gradients by weight on dense maps, by torch alone; the model keeps no gradients."""
    e_rgb, e_xyz, valid = densify(tokens, config)
    restored = model(e_rgb, e_xyz, valid if config.valid_only else None)
    total, plain = CompositeLoss(config)(e_rgb, restored[0], e_xyz, restored[1], valid)
    total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return plain, gradients


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def small(variant: str = "paper", **settings) -> Config:
    values = {"rgb_dim": 20, "xyz_dim": 32, "grid": 8, "image_size": 16, "groups": 64, "epochs": 4, "min_steps": 0}
    return Config.preset("smoke", variant, values | settings)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class FakeFeatures:
    """Good samples on a low-dimensional manifold, some pixels without a point."""

    def __init__(self, config: Config, count: int, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        basis = torch.randn(4, config.rgb_dim + config.xyz_dim, generator=torch.Generator().manual_seed(99))
        latent = torch.randn(count, config.grid, config.grid, 4, generator=g)
        maps = (latent @ basis).permute(0, 3, 1, 2)
        self.valid = torch.rand(count, 1, config.grid, config.grid, generator=g) < 0.7
        self.side = config.image_size
        self.rgb, self.xyz = maps[:, : config.rgb_dim], maps[:, config.rgb_dim :] * self.valid

    def __len__(self) -> int:
        return len(self.rgb)

    live = False

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self), dtype=np.int64)

    def name(self, k: int) -> str:
        return str(k)

    def extract(self, indices) -> None:
        """They are ready."""

    def mask(self, k: int) -> np.ndarray:
        """The pixels of the cells with a point, (S, S) bool."""
        step = self.side // self.valid.shape[-1]
        return self.valid[k, 0].numpy().repeat(step, axis=0).repeat(step, axis=1)

    def tokens(self, indices):
        """One token a cell: the features of a cell are its token's."""
        k, cells = list(indices), self.valid[0].numel()
        index = torch.zeros(len(k), cells, 3, dtype=torch.int16)
        index[:, :, 0] = torch.arange(cells)
        weight = torch.zeros(len(k), cells, 3)
        weight[:, :, 0] = self.valid[k].flatten(1)
        return Tokens(self.rgb[k].contiguous(), self.xyz[k].flatten(2).transpose(1, 2).contiguous(), index, weight)


def has_warning_colour(path: Path) -> bool:
    """Whether a figure's stamp stands on the ground of warnings."""
    colours = np.asarray(Image.open(path).convert("RGB"), dtype=int).reshape(-1, 3)
    return bool((np.abs(colours - (0xFF, 0xE3, 0xC2)).max(axis=1) <= 4).sum() > 200)
