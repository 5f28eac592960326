"""Linear layers, and GELU, LayerNorm and dropout between them, with their gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mafr.fast.cpu.threads import add_up, each, row_parts
from mafr.fast.layers import NORM_EPS, Dropout, Layer
from mafr.fast.loops import activation, sparse
from mafr.features.interpolation import Rows

_EPS = np.float32(NORM_EPS)
ROWS = 8192  # rows whose activations are computed again at a time


class Linear:
    """A linear layer's weight and bias, and their gradients."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.transposed, self.d_weight, self.d_bias = self.weight.T, layer.weight.grad, layer.bias.grad

    def forward(self, x: Tensor) -> Tensor:
        """(P, K) -> (P, N)."""
        return torch.addmm(self.bias, x, self.transposed)

    def backward(self, x: Tensor, g: Tensor, add_to: Tensor | None = None) -> Tensor:
        """From the gradient of the output (P, N), that of the input x (P, K): in its place, or added to `add_to`.

        Not the bias's: it is a sum of rows, best taken where they are made.
        """
        self.d_weight.addmm_(g.T, x)
        return torch.mm(g, self.weight, out=x) if add_to is None else add_to.addmm_(g, self.weight)


class Activation:
    """GELU, norm and dropout of one layer. Of many rows only the input is kept, and the rest is computed again."""

    def __init__(self, norm: nn.LayerNorm, norm_first: bool, layer: Layer) -> None:
        self.norm_first, self.layer = norm_first, layer
        self.gamma, self.beta = array(norm.weight), array(norm.bias)
        self.sums = gradient(norm.weight), gradient(norm.bias)

    def forward(self, h: Tensor, dropout: Dropout | None) -> Tensor:
        """(P, W) -> (P, W); spends h."""
        out, parts = torch.empty_like(h), row_parts(*h.shape)
        self.h, self.few = h.numpy(), len(parts) == 1
        if dropout is None or not dropout.dropped:
            self.draws, below, scale = np.empty(h.shape, dtype=np.uint8), np.uint8(0), 1.0
        else:
            self.draws, below = self._draw(dropout, *h.shape)
            scale = dropout.scale
        self.dropped = below, np.float32(scale), self.norm_first
        if self.few:
            self.out, self.left = out, self._activate(self.h, self.draws, out.numpy())
        else:
            each(lambda part: self._activate(self.h[part].copy(), self.draws[part], out[part].numpy()), parts)
        return out

    def _draw(self, dropout: Dropout, rows: int, width: int) -> tuple[np.ndarray, np.integer]:
        """(rows, width), and the number below which a value is dropped."""
        if self.few:
            return dropout.draws(self.layer, rows, width), np.uint16(dropout.dropped)
        kept = np.empty((rows, width), dtype=bool)
        each(lambda part: dropout.keep(self.layer, part.start, kept[part]), dropout.parts(rows, width))
        return kept.view(np.uint8), np.uint8(1)

    def backward(self, g: Tensor, d_bias: Tensor) -> Tensor:
        """In place; the sum of the result's rows is added to d_bias (W,), that of the linear layer before."""
        up, sums = g.numpy(), (*self.sums, d_bias.numpy())
        if self.few:
            self._back(up, self.draws, *self.left, *sums)
        else:

            def back(part: slice, *sums: np.ndarray) -> None:
                h, draws = self.h[part].copy(), self.draws[part]
                self._back(up[part], draws, *self._activate(h, draws, np.empty_like(h)), *sums)

            add_up(back, row_parts(*g.shape), *sums)
        self.forget()
        return g

    def back_through(self, layer: Linear, g: Tensor, d_bias: Tensor) -> Tensor:
        """From the gradient g (P, N) of what a linear layer makes of the output, that of the input (P, W)."""
        if self.few:
            return self.backward(layer.backward(self.out, g), d_bias)
        h = torch.from_numpy(self.h)  # the gradient takes its place
        for first in range(0, len(h), ROWS):
            rows = slice(first, first + ROWS)
            self._part_through(layer, h[rows], self.draws[rows], g[rows], d_bias)
        self.forget()
        return h

    def _part_through(self, layer: Linear, h: Tensor, draws: np.ndarray, g: Tensor, d_bias: Tensor) -> None:
        parts, kept, up = row_parts(*h.shape), h.clone(), h.numpy()
        out, normed = torch.empty_like(h), kept.numpy()
        found = each(lambda part: self._activate(normed[part], draws[part], out[part].numpy()), parts)
        left = {part.start: one for part, one in zip(parts, found, strict=True)}
        layer.d_weight.addmm_(g.T, out)
        torch.mm(g, layer.weight, out=h)

        def back(part: slice, *sums: np.ndarray) -> None:
            self._back(up[part], draws[part], *left[part.start], *sums)

        add_up(back, parts, *self.sums, d_bias.numpy())

    def forget(self) -> None:
        """Free what only the backward pass needs."""
        self.h = self.out = self.draws = self.left = None

    def _activate(self, h: np.ndarray, draws: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, ...]:
        """Writes `out`; what `_back` takes, h's memory with it."""
        slope, inverse = np.empty_like(h), np.empty(len(h), dtype=np.float32)
        activation.activate(h, self.gamma, self.beta, draws, *self.dropped, _EPS, out, slope, inverse)
        return h, slope, inverse

    def _back(self, g: np.ndarray, draws: np.ndarray, h, slope, inverse, d_gamma, d_beta, d_bias) -> None:
        activation.activate_back(g, h, self.gamma, draws, *self.dropped, slope, inverse, d_gamma, d_beta)
        sparse.add_columns(g, d_bias)


def add_columns(rows: Tensor, total: Tensor) -> None:
    """Add the sum of (P, D) rows to total (D,)."""
    values = rows.numpy()
    add_up(lambda part, found: sparse.add_columns(values[part], found), row_parts(*rows.shape), total.numpy())


def spread(rows: Rows, tokens: Tensor, start: Tensor | None = None) -> Tensor:
    """`Rows.apply`, plus start (D,): (P, D)."""
    out, width = torch.empty(len(rows), tokens.shape[1]), tokens.shape[1]
    start = torch.zeros(width) if start is None else start
    index, weight, offsets = rows.index.numpy(), rows.weight.numpy(), rows.offsets.numpy()
    given, done, first = tokens.numpy(), out.numpy(), start.numpy()

    def one(part: slice) -> None:
        sparse.apply(index, weight, offsets[part.start : part.stop + 1], given, first, done[part])

    each(one, row_parts(len(rows), width))
    return out


def array(parameter: Tensor) -> np.ndarray:
    """A parameter's values, in place."""
    return parameter.detach().numpy()


def gradient(parameter: Tensor) -> np.ndarray | None:
    """A parameter's gradient, in place, if it has one."""
    return None if parameter.grad is None else parameter.grad.numpy()
