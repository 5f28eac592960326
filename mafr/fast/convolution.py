"""Convolutions of small maps on a CPU: rows of cells, one matrix product, neighbours by compiled loops.

A map (B, C, H, W) is given as rows (B · H · W, C). torch's own convolutions reorder their arrays at every call, which
on a few hundred cells costs more than the arithmetic. Equal to `nn.Conv2d` up to rounding
(tests/fast/test_convolution.py).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mafr.errors import ConfigError
from mafr.fast.loops import shifts, sparse

WIDER_OUT, WIDER_IN = (2, 3, 1, 0), (1, 2, 3, 0)  # the order in memory of a weight's (outputs, inputs, rows, columns)


def rows_of(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B · H · W, C), contiguous."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).contiguous()


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


class Buffer(NamedTuple):
    """The same numbers (P, C) for torch and for compiled loops; asking torch for an array costs as much as a loop."""

    tensor: Tensor
    array: np.ndarray

    @classmethod
    def of(cls, tensor: Tensor) -> Buffer:
        return cls(tensor, tensor.numpy())


class Scratch:
    """Buffers that each step fills anew: under one name and shape always the same memory."""

    def __init__(self) -> None:
        self.kept: dict[Hashable, Buffer] = {}

    def __call__(self, name: Hashable, rows: int, width: int) -> Buffer:
        """(rows, width) with the values of its last use."""
        key = name, rows, width
        if key not in self.kept:
            self.kept[key] = Buffer.of(torch.zeros(rows, width))
        return self.kept[key]


class Convolution:
    """An `nn.Conv2d` that keeps the size, with weights and gradients that `arrange` and `FlatWeights` have laid out.

    The narrower side is shifted: a layer with fewer inputs gathers its inputs' neighbours, then multiplies; one with
    fewer outputs multiplies first and adds what its neighbours have for it.
    """

    def __init__(self, layer: nn.Conv2d, height: int, width: int, scratch: Scratch) -> None:
        """Raises ConfigError for a layer that does not keep the size or has edges beside zero or replicated ones."""
        size, mode = layer.kernel_size[0], layer.padding_mode
        same = (size // 2, size // 2), (size, size), (1, 1), (1, 1), 1
        if (layer.padding, layer.kernel_size, layer.stride, layer.dilation, layer.groups) != same or size % 2 == 0:
            raise ConfigError(f"only a plain convolution with an odd kernel that keeps the size will do, not {layer}")
        if mode not in ("zeros", "replicate"):
            raise ConfigError(f"edges must be zeros or replicate, not {mode}")
        self.places = neighbours(height, width, size, mode == "replicate")
        self.inputs, self.outputs, self.scratch = layer.in_channels, layer.out_channels, scratch
        self.shifts_last = _order(layer) == WIDER_IN
        self.matrix, self.d_matrix = self._matrix(layer.weight.detach()), self._matrix(layer.weight.grad)
        self.transposed = self.matrix.T
        self.bias, self.d_bias = layer.bias.detach().numpy(), layer.bias.grad.numpy()

    def forward(self, x: Buffer) -> Buffer:
        """(P, inputs) -> (P, outputs); x must stay until `backward`."""
        rows, taps = x.array.shape[0], self.places.shape[1]
        out = self.scratch((self, "out"), rows, self.outputs)
        if self.shifts_last:
            self.x = x
            product = self.scratch("product", rows, taps * self.outputs)
            torch.mm(x.tensor, self.matrix, out=product.tensor)
            shifts.collect(product.array, self.places, self.bias, out.array)
        else:
            self.x = self.scratch((self, "x"), rows, taps * self.inputs)
            shifts.gather(x.array, self.places, self.x.array)
            torch.mm(self.x.tensor, self.matrix, out=out.tensor)
            shifts.add_row(self.bias, out.array)
        return out

    def backward(self, g: Buffer, wanted: int | None = None) -> Buffer | None:
        """Take the gradient of the output (P, outputs); write those of weight and bias, in place of earlier ones.

        Returns the gradient of the first `wanted` channels of the input (None: of all; 0: nothing), which lasts until
        another layer of this scratch memory goes backward.
        """
        rows, spread = g.array.shape[0], g
        if self.shifts_last:
            spread = self.scratch("product", rows, self.matrix.shape[1])
            shifts.collect_back(g.array, self.places, spread.array)
        torch.mm(self.x.tensor.T, spread.tensor, out=self.d_matrix)
        self.d_bias[:] = 0
        sparse.add_columns(g.array, self.d_bias)
        if wanted == 0:
            return None
        wanted = self.inputs if wanted is None else wanted
        d_x = self.scratch("gradient", rows, wanted if self.shifts_last else self.inputs)
        if self.shifts_last:
            torch.mm(spread.tensor, self.transposed[:, :wanted], out=d_x.tensor)
            return d_x
        gathered = self.scratch("product", rows, len(self.matrix))
        torch.mm(g.tensor, self.transposed, out=gathered.tensor)
        shifts.gather_back(gathered.array, self.places, d_x.array)
        return d_x if wanted == self.inputs else Buffer.of(d_x.tensor[:, :wanted].contiguous())

    def _matrix(self, weight: Tensor) -> Tensor:
        there = weight.permute(WIDER_IN if self.shifts_last else WIDER_OUT)
        return there.view(self.inputs if self.shifts_last else weight[0].numel(), -1)


def _order(layer: nn.Conv2d) -> tuple[int, ...]:
    return WIDER_OUT if layer.in_channels < layer.out_channels else WIDER_IN
