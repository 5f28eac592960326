"""From restored features to anomaly maps and image scores (Sec. III-C, eqs. 7-8).

The chain: `residual_map` (eq. 7), `at_pixels`, `anomaly_map` (eq. 8: `fuse`, mask, `smooth`), `image_score`. MAFR's
`ResidualMaps` of a test set go through it; methods with a single map give `FinalMaps`. Either is an `Answer`.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from mafr.config import CALIBRATED, FUSIONS, Config
from mafr.data.window import Window
from mafr.errors import MafrError
from mafr.standardise import Scales

MAP = "map"  # the operator's name for methods that have a single map instead of one per fusion operator
PREFIX = "calibrated_"  # of the operators on maps that are standardised first
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
    # Both filters are separable and linear, zero padding included: one small matrix per side is enough.
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

    Cells without a 3D point have no residual and must not lower their neighbours', so the interpolated map is divided
    by the interpolated `valid`. At full size (g = size) nothing changes.
    """
    if psi.shape[-1] == size:
        return psi
    weight = valid.to(psi.dtype)
    total = F.interpolate(psi * weight, (size, size), mode="bilinear", align_corners=False)
    share = F.interpolate(weight, (size, size), mode="bilinear", align_corners=False)
    return torch.where(share > 0, total / share.clamp_min(1e-6), torch.zeros_like(total))


def whole_image(psi: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
    """Bring residual maps (B, 1, g, g) of windows around parts to whole images (B, 1, S, S), as `upsample` does.

    mask: (B, 1, S, S) bool, the whole images' pixels with a 3D point, from whose bounding boxes the windows follow, or
    the same `filled`, which leaves the boxes as they are.
    """
    size = mask.shape[-1]
    places = [Window.of(one[0].numpy()).places(size) for one in mask]
    rows, columns = (torch.from_numpy(np.stack(axis)).float() * 2 - 1 for axis in zip(*places, strict=True))
    at = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=-1)  # (B, S, S, 2): x, y
    weight = valid.to(psi.dtype)
    both = torch.cat([psi * weight, weight], dim=1)
    total, share = F.grid_sample(both, at, padding_mode="border", align_corners=False).split(1, dim=1)
    return torch.where(share > 0, total / share.clamp_min(1e-6), torch.zeros_like(total))


def score_mask(valid: Tensor, mask: Tensor) -> Tensor:
    """The pixels that are scored (Sec. III-C): (B, 1, S, S) bool.

    At full size these are the feature maps' own `valid` pixels, as in the released code; a smaller grid is too coarse
    for that, and `mask` (B, 1, S, S), true where a pixel has a 3D point, takes its place.
    """
    return valid if valid.shape[-1] == mask.shape[-1] else mask


def filled(mask: Tensor) -> Tensor:
    """Masks of parts (B, 1, S, S) bool with gaps of up to a thirtieth of the image closed and holes filled.

    Nothing is added outside a mask's bounding box.
    """
    reach = max(1, round(mask.shape[-1] / 56))
    closed = []
    for one in mask[:, 0].numpy():
        wide = ndimage.binary_closing(np.pad(one, 2 * reach), iterations=reach)
        closed.append(ndimage.binary_fill_holes(wide)[2 * reach : -2 * reach, 2 * reach : -2 * reach])
    return torch.from_numpy(np.stack(closed))[:, None]


def at_pixels(
    psi_rgb: Tensor, psi_xyz: Tensor, valid: Tensor, mask: Tensor, size: int, view: str = "whole"
) -> tuple[Tensor, Tensor, Tensor]:
    """Residual maps of cells (B, 1, g, g) at the scored pixels: psi_rgb, psi_xyz, mask, each (B, 1, S, S).

    valid: (B, 1, g, g) bool, cells with a 3D point; mask: (B, 1, S, S) bool, the scored pixels, see `score_mask` and
    `filled`; size: S; view: the setting, which says whether the cells are those of the whole image or of the window
    that follows from the mask, see `whole_image`.
    """
    if view == "part":
        return whole_image(psi_rgb, valid, mask) * mask, whole_image(psi_xyz, valid, mask) * mask, mask
    return upsample(psi_rgb, valid, size) * mask, upsample(psi_xyz, valid, size) * mask, mask


def anomaly_map(psi_rgb: Tensor, psi_xyz: Tensor, mask: Tensor, config: Config, how: str) -> Tensor:
    """Fuse, set to zero where there is no 3D point, blur: (B, 1, S, S) maps and bool mask -> (B, 1, S, S)."""
    return smooth(fuse(psi_rgb, psi_xyz, how) * mask, config.blur, config.sigma)


def image_score(psi: Tensor, how: str = "max") -> Tensor:
    """One score per image, (B, 1, H, W) -> (B,).

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
    """The maps (B, 1, H, W) that a pixel metric uses: as they are (scaling="none"), or each scaled ("per-metric").

    "per-metric" (released code): divided by the root of the mean of all pixels for metric="p_auroc", by the
    mean of the non-zero pixels for metric="au_pro".
    """
    if scaling == "none":
        return psi
    if metric == "p_auroc":
        return psi / _or_one(psi.mean(dim=(1, 2, 3), keepdim=True)).sqrt()
    return psi / _positive_mean(psi).reshape(-1, 1, 1, 1)


def _positive_mean(psi: Tensor) -> Tensor:
    """Mean of the non-zero pixels of each map, 1 for a map without any: (B,)."""
    return _or_one(psi.sum(dim=(1, 2, 3)) / (psi != 0).sum(dim=(1, 2, 3)).clamp_min(1))


def _or_one(mean: Tensor) -> Tensor:
    return torch.where(mean > 0, mean, torch.ones_like(mean))


@dataclass(frozen=True)
class ResidualMaps:
    """The residual maps of N samples, eq. 7, from which each of `operators` makes final maps."""

    psi_rgb: Tensor  # (N, 1, g, g)
    psi_xyz: Tensor
    valid: Tensor  # (N, 1, g, g) bool, cells with a 3D point
    mask: Tensor  # (N, 1, S, S) bool, pixels with a 3D point
    config: Config
    scales: Scales | None = None  # of good validation parts, where they are known

    @property
    def operators(self) -> tuple[str, ...]:
        """The fusion operators, `CALIBRATED` ones where the scales are known."""
        return FUSIONS + (CALIBRATED if self.scales else ())

    @property
    def main(self) -> str:
        """The operator that the image score and the threshold come from."""
        return self.config.fusion

    @cached_property
    def pixels(self) -> tuple[Tensor, Tensor, Tensor]:
        """psi_rgb, psi_xyz and the scored pixels, see `at_pixels`."""
        return self._at_pixels(self.psi_rgb, self.psi_xyz)

    @cached_property
    def scaled_pixels(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same of maps on a common scale, the 3D one times its weight."""
        psi_rgb, psi_xyz = self.scales.apply(self.psi_rgb, self.psi_xyz, self.valid)
        return self._at_pixels(psi_rgb, self.config.xyz_weight * psi_xyz)

    @cached_property
    def scored(self) -> Tensor:
        """The pixels that are scored, (N, 1, S, S) bool."""
        mask = score_mask(self.valid, self.mask) if self.config.view == "whole" else self.mask
        return filled(mask) if self.config.scored == "filled" else mask

    def _at_pixels(self, psi_rgb: Tensor, psi_xyz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return at_pixels(psi_rgb, psi_xyz, self.valid, self.scored, self.config.image_size, self.config.view)

    def maps(self, how: str) -> Tensor:
        """Final maps (N, 1, S, S) of an operator. Raises MafrError for one that needs scales that are not known."""
        if how not in CALIBRATED:
            return self._final(self.pixels, how)
        if self.scales is None:
            raise MafrError(
                f"{how} compares the maps with those of good validation parts: call calibrate first, or choose another "
                "fusion"
            )
        return self._final(self.scaled_pixels, how.removeprefix(PREFIX))

    def _final(self, pixels: tuple[Tensor, Tensor, Tensor], how: str) -> Tensor:
        parts = zip(*(part.split(CHUNK) for part in pixels), strict=True)
        return torch.cat([anomaly_map(*part, self.config, how) for part in parts])

    def final(self, how: str) -> tuple[Tensor, np.ndarray]:
        """Final maps (N, 1, S, S) and image scores (N,) float64 of an operator."""
        maps = self.maps(how)
        return maps, image_score(maps, self.config.image_score).double().numpy()


@dataclass(frozen=True)
class FinalMaps:
    """The final maps (N, 1, S, S) and image scores (N,) of N samples by a method that has a single map per sample."""

    maps: Tensor
    scores: np.ndarray
    config: Config  # its `map_scaling` scales the maps for the pixel metrics
    operators, main = (MAP,), MAP

    def final(self, how: str) -> tuple[Tensor, np.ndarray]:
        return self.maps, self.scores


Answer = ResidualMaps | FinalMaps
