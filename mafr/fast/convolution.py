"""Convolutions of small maps on a CPU: rows of cells, one matrix product, neighbours by compiled loops.

A map (B, C, H, W) is given as rows (B · H · W, C). torch's own convolutions reorder their arrays at every call, which
on a few hundred cells costs more than the arithmetic. Equal to `nn.Conv2d` up to rounding
(tests/fast/test_convolution.py).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mafr.errors import ConfigError
from mafr.fast.loops import shifts, sparse

WIDER_OUT, WIDER_IN = (2, 3, 1, 0), (1, 2, 3, 0)  # the order in memory of a weight's (outputs, inputs, rows, columns)


def rows_of(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B · H · W, C), contiguous."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).contiguous()


def maps_of(rows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `rows_of`."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2).contiguous()


def neighbours(height: int, width: int, kernel: int, replicate: bool) -> np.ndarray:
    """Cells under each of the kernel's taps, (H · W, kernel²) int32; beyond the edge -1, or the nearest cell."""
    reach = kernel // 2
    steps = np.arange(-reach, reach + 1)
    y, x = (np.arange(size)[:, None] + steps for size in (height, width))  # (H, kernel), (W, kernel)
    at = y.clip(0, height - 1)[:, None, :, None] * width + x.clip(0, width - 1)[None, :, None, :]
    inside = ((y >= 0) & (y < height))[:, None, :, None] & ((x >= 0) & (x < width))[None, :, None, :]
    return np.where(inside | replicate, at, -1).reshape(height * width, kernel**2).astype(np.int32)


def arrange(network: nn.Module) -> None:
    """Lay the weights of all convolutions of a network out in memory as `Convolution` takes them; values stay."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            order = _order(layer)
            there = layer.weight.data.permute(order).contiguous()
            layer.weight.data = there.permute(np.argsort(order).tolist())


class Convolution:
    """An `nn.Conv2d` that keeps the size, with weights and gradients that `arrange` and `FlatWeights` have laid out.

    The narrower side is shifted: a layer with fewer inputs gathers its inputs' neighbours, then multiplies; one with
    fewer outputs multiplies first and adds what its neighbours have for it.
    """

    def __init__(self, layer: nn.Conv2d, height: int, width: int) -> None:
        """Raises ConfigError for a layer that does not keep the size or has edges beside zero or replicated ones."""
        size, mode = layer.kernel_size[0], layer.padding_mode
        same = (size // 2, size // 2), (size, size), (1, 1), (1, 1), 1
        if (layer.padding, layer.kernel_size, layer.stride, layer.dilation, layer.groups) != same or size % 2 == 0:
            raise ConfigError(f"only a plain convolution with an odd kernel that keeps the size will do, not {layer}")
        if mode not in ("zeros", "replicate"):
            raise ConfigError(f"edges must be zeros or replicate, not {mode}")
        self.places = neighbours(height, width, size, mode == "replicate")
        self.outputs, self.order = layer.out_channels, _order(layer)
        self.matrix, self.d_matrix = self._matrix(layer.weight.detach()), self._matrix(layer.weight.grad)
        self.bias, self.d_bias = layer.bias.detach(), layer.bias.grad

    def forward(self, x: Tensor) -> Tensor:
        """(P, inputs) -> (P, outputs)."""
        if self.order == WIDER_IN:
            self.x, out = x, x.new_empty(len(x), self.outputs)
            shifts.collect(torch.mm(x, self.matrix).numpy(), self.places, self.bias.numpy(), out.numpy())
            return out
        self.x = x.new_empty(len(x), len(self.matrix))
        shifts.gather(x.numpy(), self.places, self.x.numpy())
        return torch.addmm(self.bias, self.x, self.matrix)

    def backward(self, g: Tensor, wanted: slice | None = slice(None)) -> Tensor | None:
        """Take the gradient of the output (P, outputs); write those of weight and bias, in place of earlier ones.

        Returns the gradient of the input (P, inputs): of the channels `wanted`, or nothing with None.
        """
        x, self.x = self.x, None
        if self.order == WIDER_IN:
            spread = g.new_empty(len(g), self.matrix.shape[1])
            shifts.collect_back(g.numpy(), self.places, spread.numpy())
        else:
            spread = g
        torch.mm(x.T, spread, out=self.d_matrix)
        sparse.add_columns(g.numpy(), self.d_bias.zero_().numpy())
        if wanted is None:
            return None
        if self.order == WIDER_IN:
            return torch.mm(spread, self.matrix[wanted].T)
        gathered = torch.mm(g, self.matrix.T)
        d_x = g.new_empty(len(g), gathered.shape[1] // self.places.shape[1])
        shifts.gather_back(gathered.numpy(), self.places, d_x.numpy())
        return d_x[:, wanted]

    def _matrix(self, weight: Tensor) -> Tensor:
        there = weight.permute(self.order)
        rows = weight.shape[1] if self.order == WIDER_IN else weight[0].numel()
        return there.view(rows, -1)


def _order(layer: nn.Conv2d) -> tuple[int, ...]:
    return WIDER_OUT if layer.in_channels < layer.out_channels else WIDER_IN
