"""Residual maps on a common scale, from good validation parts: for operators that add or compare the two maps.

The two modalities' residuals have other units and noise, and cells at a part's silhouette have other residuals than
those inside. Each map is taken in standard deviations above the mean of good cells as far from the silhouette.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RINGS = 3  # classes of cells: at the silhouette, next to those, further inside
_LEAST = 8  # good cells that a class needs for a scale of its own


@dataclass(frozen=True)
class Scales:
    """What good validation parts say of the two residual maps: image first, points second."""

    mean: Tensor  # (2, RINGS) float32, of good cells, by ring
    deviation: Tensor  # (2, RINGS)

    @classmethod
    def of(cls, psi_rgb: Tensor, psi_xyz: Tensor, valid: Tensor) -> Scales:
        """Of good parts' residual maps, each (N, 1, g, g); valid: bool. A ring with few cells gets the scale of all."""
        number = rings(valid)
        means, deviations = [], []
        for psi in (psi_rgb, psi_xyz):
            every = psi[valid].double()
            for ring in range(RINGS):
                chosen = psi[valid & (number == ring)].double()
                some = chosen if len(chosen) >= _LEAST else every
                means.append(some.mean())
                deviations.append(some.std().clamp_min(1e-12))
        return cls(*(torch.stack(part).float().view(2, RINGS) for part in (means, deviations)))

    @classmethod
    def from_dict(cls, values: Mapping[str, list]) -> Scales:
        """The inverse of `as_dict`. Raises KeyError or ValueError for values that do not fit."""
        parts = {name: torch.tensor(values[name], dtype=torch.float32) for name in ("mean", "deviation")}
        for name, part in parts.items():
            if part.shape != (2, RINGS):
                raise ValueError(f"{name} of the scales has shape {tuple(part.shape)} instead of (2, {RINGS})")
        return cls(**parts)

    def as_dict(self) -> dict[str, list]:
        """The numbers as they are written."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def apply(self, psi_rgb: Tensor, psi_xyz: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Residual maps (N, 1, g, g) in standard deviations above the mean; below it, and at invalid cells, 0."""
        number = rings(valid)
        scaled = (
            ((psi - self.mean[k][number]) / self.deviation[k][number]).clamp_min(0) * valid
            for k, psi in enumerate((psi_rgb, psi_xyz))
        )
        return tuple(scaled)


def rings(valid: Tensor) -> Tensor:
    """The ring of each cell, int64 in the shape of valid (N, 1, g, g): 0 at the silhouette or the image's edge."""
    number, inside = torch.zeros(valid.shape, dtype=torch.int64), valid
    for _ in range(RINGS - 1):
        inside = F.max_pool2d(F.pad((~inside).float(), (1, 1, 1, 1), value=1.0), 3, stride=1) == 0
        number += inside
    return number
