"""From restored features to anomaly maps and image scores (Sec. III-C, eqs. 7-8).

The chain: `residual_map` (eq. 7), `at_pixels`, `anomaly_map` (eq. 8: `fuse`, mask, `smooth`), `image_score`. A test set
goes through it as `ResidualMaps`, or comes as `FinalMaps` from a method that has one map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.config import FUSIONS, Config

MAP = "map"  # the name of a method's only map, where another has one for each of FUSIONS
CHUNK = 16  # maps handled at once; bounds memory at full size


def residual_map(e: Tensor, e_hat: Tensor) -> Tensor:
    """Euclidean distance over channels, eq. 7: (B, C, H, W) twice -> (B, 1, H, W)."""
    return torch.linalg.vector_norm(e - e_hat, dim=1, keepdim=True)


def fuse(psi_rgb: Tensor, psi_xyz: Tensor, how: str = "product") -> Tensor:
    """Combine the two residual maps, eq. 8 and Table V. Raises ValueError for an unknown `how`."""
    if how == "product":
        return psi_rgb * psi_xyz
    if how == "sum":
        return psi_rgb + psi_xyz
    if how == "max":
        return torch.maximum(psi_rgb, psi_xyz)
    if how == "rgb":
        return psi_rgb
    if how == "xyz":
        return psi_xyz
    raise ValueError(f"how must be one of {', '.join(FUSIONS)}, not {how!r}")


def smooth(psi: Tensor, how: str = "gaussian", sigma: float = math.sqrt(22.0)) -> Tensor:
    """Blur maps (B, 1, H, W); zeros beyond the border.

    "gaussian" (paper; `sigma` in pixels, cut off at four sigma) or "box" (released code: five 5 x 5 means,
    then three 7 x 7, whose variances add up to 22 pixels squared). Raises ValueError otherwise.
    """
    # Both filters are separable and linear, zero padding included: one small matrix a side does it all.
    rows = _blur_matrix(psi.shape[-2], how, sigma).to(psi)
    columns = _blur_matrix(psi.shape[-1], how, sigma).to(psi)
    return rows @ psi @ columns.T


@lru_cache(maxsize=8)
def _blur_matrix(size: int, how: str, sigma: float) -> Tensor:
    """The (size, size) matrix of a one-dimensional blur with zeros beyond the border."""
    offsets = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    if how == "gaussian":
        radius = max(1, math.ceil(4 * sigma))
        total = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).sum()
        matrix = np.where(offsets <= radius, np.exp(-0.5 * (offsets / sigma) ** 2) / total, 0.0)
    elif how == "box":
        matrix = np.eye(size)
        for width in (5,) * 5 + (7,) * 3:
            matrix = np.where(offsets <= width // 2, 1.0 / width, 0.0) @ matrix
    else:
        raise ValueError(f"how must be 'gaussian' or 'box', not {how!r}")
    return torch.from_numpy(matrix)


def upsample(psi: Tensor, valid: Tensor, size: int) -> Tensor:
    """Bring a residual map (B, 1, g, g) to (B, 1, size, size), bilinearly over valid cells only.

    Cells without a 3D point have no residual of their own and must not darken their neighbours, so the
    interpolated map is divided by the interpolated `valid`. At full size (g = size) nothing changes.
    """
    if psi.shape[-1] == size:
        return psi
    weight = valid.to(psi.dtype)
    total = F.interpolate(psi * weight, (size, size), mode="bilinear", align_corners=False)
    share = F.interpolate(weight, (size, size), mode="bilinear", align_corners=False)
    return torch.where(share > 0, total / share.clamp_min(1e-6), torch.zeros_like(total))


def score_mask(valid: Tensor, mask: Tensor) -> Tensor:
    """Where pixels are scored (Sec. III-C): (B, 1, S, S) bool.

    At full size the feature maps' own `valid` (B, 1, S, S) decides, as in the released code; with a smaller
    grid it is too coarse for that, and `mask` (B, 1, S, S), true where a pixel has a 3D point, takes its place.
    """
    return valid if valid.shape[-1] == mask.shape[-1] else mask


def at_pixels(
    psi_rgb: Tensor, psi_xyz: Tensor, valid: Tensor, mask: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Residual maps of cells (B, 1, g, g) at the pixels that are scored: psi_rgb, psi_xyz, mask, each (B, 1, S, S).

    valid: (B, 1, g, g) bool, cells with a 3D point; mask: (B, 1, S, S) bool, see `score_mask`; size: S.
    """
    mask = score_mask(valid, mask)
    return upsample(psi_rgb, valid, size) * mask, upsample(psi_xyz, valid, size) * mask, mask


def anomaly_map(psi_rgb: Tensor, psi_xyz: Tensor, mask: Tensor, config: Config, how: str) -> Tensor:
    """Fuse, zero where there is no 3D point, blur: (B, 1, S, S) maps and bool mask -> (B, 1, S, S)."""
    return smooth(fuse(psi_rgb, psi_xyz, how) * mask, config.blur, config.sigma)


def image_score(psi: Tensor, how: str = "max") -> Tensor:
    """A score an image, (B, 1, H, W) -> (B,).

    "max" (paper, Sec. III-C), or "max-over-root-mean" (released code): the maximum divided by the root of
    the mean of the non-zero pixels. A map of zeros scores 0. Raises ValueError for another `how`.
    """
    peak = psi.amax(dim=(1, 2, 3))
    if how == "max":
        return peak
    if how == "max-over-root-mean":
        return peak / _positive_mean(psi).sqrt()
    raise ValueError(f"how must be 'max' or 'max-over-root-mean', not {how!r}")


def metric_maps(psi: Tensor, scaling: str, metric: str) -> Tensor:
    """The maps a pixel metric sees: as they are ("none"), or scaled an image at a time.

    "per-metric" (released code): divided by the root of the mean of all pixels for metric="p_auroc", by the
    mean of the non-zero pixels for metric="au_pro".
    """
    if scaling == "none":
        return psi
    if metric == "p_auroc":
        mean = psi.mean(dim=(1, 2, 3), keepdim=True)
        return psi / torch.where(mean > 0, mean, torch.ones_like(mean)).sqrt()
    return psi / _positive_mean(psi).reshape(-1, 1, 1, 1)


def _positive_mean(psi: Tensor) -> Tensor:
    """Mean of the non-zero pixels of each map, 1 for a map without any: (B,)."""
    count = (psi != 0).sum(dim=(1, 2, 3))
    mean = psi.sum(dim=(1, 2, 3)) / count.clamp_min(1)
    return torch.where(mean > 0, mean, torch.ones_like(mean))


class Answer(Protocol):
    """What a method says of N samples.

    config: the settings by which the maps are scaled for the pixel metrics. operators: the names of its final maps;
    main: the one that its image score and its threshold come from.
    """

    config: Config

    @property
    def operators(self) -> tuple[str, ...]: ...

    @property
    def main(self) -> str: ...

    def final(self, how: str) -> tuple[Tensor, np.ndarray]:
        """Final maps (N, 1, S, S) and image scores (N,) float64 of an operator."""
        ...


@dataclass(frozen=True)
class ResidualMaps:
    """Eq. 7 on N samples, from which any fusion operator makes final maps.

    psi_rgb, psi_xyz: (N, 1, g, g); valid: (N, 1, g, g) bool, cells with a 3D point; mask: (N, 1, S, S) bool.
    """

    psi_rgb: Tensor
    psi_xyz: Tensor
    valid: Tensor
    mask: Tensor
    config: Config

    @property
    def operators(self) -> tuple[str, ...]:
        return FUSIONS

    @property
    def main(self) -> str:
        return self.config.fusion

    @cached_property
    def pixels(self) -> tuple[Tensor, Tensor, Tensor]:
        """`at_pixels`: psi_rgb, psi_xyz and the mask that is scored, each (N, 1, S, S)."""
        return at_pixels(self.psi_rgb, self.psi_xyz, self.valid, self.mask, self.config.image_size)

    def maps(self, how: str) -> Tensor:
        """Final maps (N, 1, S, S) of an operator."""
        parts = zip(*(part.split(CHUNK) for part in self.pixels), strict=True)
        return torch.cat([anomaly_map(*part, self.config, how) for part in parts])

    def final(self, how: str) -> tuple[Tensor, np.ndarray]:
        maps = self.maps(how)
        return maps, image_score(maps, self.config.image_score).double().numpy()


@dataclass(frozen=True)
class FinalMaps:
    """The only maps (N, 1, S, S) and image scores (N,) of a method."""

    maps: Tensor
    scores: np.ndarray
    config: Config

    @property
    def operators(self) -> tuple[str, ...]:
        return (MAP,)

    @property
    def main(self) -> str:
        return MAP

    def final(self, how: str) -> tuple[Tensor, np.ndarray]:
        return self.maps, self.scores
