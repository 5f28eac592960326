"""Conditional Real-NVP normalising flow over feature maps: the teacher of AST (Rudolph et al., WACV 2023, Sec. 3).

A block permutes the channels in a random but fixed way, splits them in halves a, b and transforms each by the other:

    a' = exp(s(b)) · a + t(b),    b' = exp(s'(a')) · b + t'(a')

s and t come from a two-layer convolutional subnet that also sees the condition, an encoding of the position. The
log-scale is clamped softly, 0.636 c · atan(s / c) with 0.636 ≈ 2/π, so that a scale stays within exp(±c). Each subnet
ends in a learned factor that begins at zero: an untrained flow is a permutation. Departure: the authors' code also cuts
the outputs at ±10⁶, which no trained flow reaches and no inverse undoes.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.errors import ConfigError
from mafr.fast.loops import ATAN_SCALE


class Subnet(nn.Module):
    """Two convolutions that keep the size, (B, inputs, H, W) -> (B, outputs, H, W), edges replicated; zero at first."""

    def __init__(self, inputs: int, outputs: int, hidden: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ConfigError(f"a coupling block's kernel must be odd, not {kernel}")
        same = {"padding": kernel // 2, "padding_mode": "replicate"}
        self.enter = nn.Conv2d(inputs, hidden, kernel, **same)
        self.leave = nn.Conv2d(hidden, outputs, kernel, **same)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return self.leave(F.relu(self.enter(x))) * self.gamma
        # On a GPU the gradient of torch's own padding is summed in any order, and no training would repeat.
        x = F.relu(F.conv2d(pad_edges(x, self.enter.padding[0]), self.enter.weight, self.enter.bias))
        return F.conv2d(pad_edges(x, self.leave.padding[0]), self.leave.weight, self.leave.bias) * self.gamma


def pad_edges(x: Tensor, width: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2 width, W + 2 width), edges replicated."""
    for dim in (3, 2):
        first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
        x = torch.cat([first] * width + [x] + [last] * width, dim=dim)
    return x


class Coupling(nn.Module):
    """Affine coupling of two halves of the channels under a condition, (B, K, H, W) or (1, K, H, W) for all."""

    def __init__(self, channels: int, condition: int, hidden: int, kernel: int, clamp: float) -> None:
        super().__init__()
        self.halves, self.clamp = (channels // 2, channels - channels // 2), clamp
        left, right = self.halves
        self.from_right = Subnet(right + condition, 2 * left, hidden, kernel)
        self.from_left = Subnet(left + condition, 2 * right, hidden, kernel)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) -> y of that shape and the log-determinant of each position (B, H, W)."""
        left, right = x.split(self.halves, dim=1)
        first, shift = self._scale_and_shift(self.from_right, right, condition)
        left = left * first.exp() + shift
        second, shift = self._scale_and_shift(self.from_left, left, condition)
        right = right * second.exp() + shift
        return torch.cat([left, right], dim=1), first.sum(dim=1) + second.sum(dim=1)

    def inverse(self, y: Tensor, condition: Tensor) -> Tensor:
        """y (B, C, H, W) -> x."""
        left, right = y.split(self.halves, dim=1)
        scale, shift = self._scale_and_shift(self.from_left, left, condition)
        right = (right - shift) * (-scale).exp()
        scale, shift = self._scale_and_shift(self.from_right, right, condition)
        return torch.cat([(left - shift) * (-scale).exp(), right], dim=1)

    def _scale_and_shift(self, subnet: Subnet, half: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        condition = condition.expand(len(half), -1, -1, -1)
        scale, shift = subnet(torch.cat([half, condition], dim=1)).chunk(2, dim=1)
        return self.clamp * ATAN_SCALE * torch.atan(scale / self.clamp), shift


class Flow(nn.Module):
    """Coupling blocks in sequence, one per kernel size, the channels permuted before each."""

    def __init__(self, channels: int, condition: int, hidden: int, kernels: Sequence[int], clamp: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Coupling(channels, condition, hidden, kernel, clamp) for kernel in kernels)
        # Permutations depend on the block's number alone, as in the authors' code.
        orders = np.stack([np.random.default_rng(k).permutation(channels) for k in range(len(kernels))])
        self.register_buffer("orders", torch.from_numpy(orders))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W), condition (B or 1, K, H, W) -> z of x's shape, log-determinant of each position (B, H, W)."""
        total = x.new_zeros(len(x), *x.shape[2:])
        for order, block in zip(self.orders, self.blocks, strict=True):
            x, logdet = block(x.index_select(1, order), condition)
            total = total + logdet
        return x, total

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """z (B, C, H, W) -> x, to rounding."""
        for order, block in zip(reversed(self.orders), reversed(self.blocks), strict=True):
            z = block.inverse(z, condition)[:, order.argsort()]
        return z


def likelihood_loss(z: Tensor, logdet: Tensor, weight: Tensor) -> Tensor:
    """Negative log-likelihood under a standard normal, without its constant (AST, Sec. 3): a scalar.

    z (B, C, H, W), logdet (B, H, W), weight (B, 1, H, W) in [0, 1]; the mean over all positions, whatever their weight.
    """
    return (weight[:, 0] * (0.5 * z.square().sum(dim=1) - logdet)).mean()


def positional_encoding(channels: int, height: int, width: int) -> Tensor:
    """Sines and cosines of column and row, (1, channels, height, width) float32: half of the channels each.

    Frequencies fall from 1 to nearly 10⁻⁴, as in CFLOW-AD (WACV 2022). Raises ConfigError unless 4 divides channels.
    """
    if channels % 4:
        raise ConfigError(f"a positional encoding takes a multiple of 4 channels, not {channels}")
    half = channels // 2
    rates = torch.exp(torch.arange(0, half, 2) * (-math.log(1e4) / half))  # (half / 2,)

    def line(count: int) -> Tensor:
        angles = rates[:, None] * torch.arange(count)  # (half / 2, count)
        return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)  # (half, count)

    columns = line(width)[:, None, :].expand(half, height, width)
    rows = line(height)[:, :, None].expand(half, height, width)
    return torch.cat([columns, rows])[None].contiguous()
