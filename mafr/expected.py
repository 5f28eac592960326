"""The residual that restored features lead one to expect, so that a map does not show where restoring is hard.

On good parts the residual of a cell is large where the surface is hard to restore, a thread or a glossy edge, and what
was restored there tells how large. A ridge regression learns the logarithm of both residuals from the restored features
of good training cells; a share of what it expects is then divided away (setting `expected_share`). Not the whole: a
defect's restored features are unusual too, and would explain it away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 300.0  # on standardised features, against thousands of cells
MOST_SAMPLES = 60  # at most so many training samples are looked at, evenly chosen
_LEAST = 1e-9


@dataclass(frozen=True)
class Expected:
    """log residual ≈ restored · weight + bias, of both maps: image first, points second."""

    weight: Tensor  # (C + D, 2) float32
    bias: Tensor  # (2,)

    @classmethod
    def fit(cls, cells: Iterable[tuple[Tensor, Tensor]]) -> Expected:
        """From good samples' cells: restored features side by side, (P, C + D), and residuals, (P, 2)."""
        count, moments = 0, None
        for restored, psi in cells:
            x, y = restored.double(), psi.double().clamp_min(_LEAST).log()
            both = torch.cat([x, y, x.new_ones(len(x), 1)], dim=1)
            product = both.T @ both
            moments, count = product if moments is None else moments + product, count + len(x)
        width = len(moments) - 3
        mean = moments[-1, :-1] / count
        covariance = moments[:-1, :-1] / count - torch.outer(mean, mean)
        spread = covariance[:width, :width].diagonal().clamp_min(0).sqrt() + 1e-6
        matrix = covariance[:width, :width] / torch.outer(spread, spread)
        matrix += RIDGE / count * torch.eye(width, dtype=matrix.dtype)
        weight = torch.linalg.solve(matrix, covariance[:width, width:] / spread[:, None]) / spread[:, None]
        return cls(weight.float(), (mean[width:] - mean[:width] @ weight).float())

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Expected | None:
        """The inverse of `state`, whose entries are taken out of `state`; None where they are not there."""
        found = [state.pop(f"{_NAME}.{name}", None) for name in ("weight", "bias")]
        return None if None in found else cls(*found)

    def state(self) -> dict[str, Tensor]:
        """The numbers as a saved detector keeps them."""
        return {f"{_NAME}.weight": self.weight, f"{_NAME}.bias": self.bias}

    def divided(self, psi: Tensor, restored: Tensor, share: float) -> Tensor:
        """Residuals (P, 2) over the expected ones to the power of `share`; restored: (P, C + D)."""
        return psi * torch.exp(-share * (restored @ self.weight + self.bias))


_NAME = "expected"
