"""The head's pointwise layers on rows of pixels, (P, C), without full-size temporaries.

Operations between two matrix products are memory-bound: each function here processes the rows in parts that stay in
the processor's cache, computes in float32 whatever the rows' type, and keeps only what its backward pass needs.
Backward passes write gradients into the memory of what was kept, since fresh memory costs more than the arithmetic.
They can therefore run only once; torch raises an error the second time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.device import kernel

_PART = 2**20  # values of a part: 4 MB in float32
_LEVELS = 2**16  # dropout draws 16 bits per value,
_DRAWN = 2**20  # and so many values from a seed
_SUMMED = 8192  # rows of a product over rows
_APART = 100  # distance between the seeds of two blocks; stored runs were drawn with it
OUTPUT_ROWS = 4096  # pixels whose restored features exist at a time when a CPU scores
NORM_EPS = 1e-5  # of LayerNorm, torch's default


Layer = tuple[int, int]  # a block of the head (0 the encoder, 1 and 2 the decoders) and the number of a layer in it


def parts(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of rows, each small enough for the cache on a CPU; all rows at once on a GPU."""
    step = rows if device.type != "cpu" else max(1, _PART // max(width, 1))
    for first in range(0, rows, max(step, 1)):
        yield slice(first, min(first + step, rows))


@dataclass(frozen=True)
class Dropout:
    """Seeded dropout masks of one training step; on a CPU, a layer's mask depends on `key`, its block and number alone.

    A GPU draws by its number of multiprocessors, so that other models draw other masks. The probability is rounded to
    1/65,536, and what is kept is scaled by that rounded probability.
    """

    probability: float
    key: tuple[int, ...]

    @property
    def dropped(self) -> int:
        """The number of the 65,536 equally likely draws that drop a value."""
        return round(self.probability * _LEVELS)

    @property
    def scale(self) -> float:
        """The factor of the kept values."""
        return _LEVELS / (_LEVELS - self.dropped)

    def mask(self, layer: Layer, first: int, rows: int, width: int, device: torch.device) -> Tensor:
        """(rows, width) bool, true where a value is dropped; `first`: number of the first row."""
        if device.type != "cpu":
            seed = self._seed(layer, first)
            generator = torch.Generator(device).manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
            return torch.rand(rows, width, device=device, generator=generator) * _LEVELS < self.dropped
        # Rows that begin within a draw leave out those before them: how rows are split changes no mask.
        before = first % _rows_drawn(width)
        kept = np.empty((before + rows, width), dtype=bool)
        for part in self.parts(before + rows, width):
            self.keep(layer, first - before + part.start, kept[part])
        return torch.from_numpy(kept[before:]).logical_not_()

    @staticmethod
    def parts(rows: int, width: int) -> list[slice]:
        """The rows that `keep` draws at a time: of the same slices, the same values."""
        step = _rows_drawn(width)
        return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]

    def keep(self, layer: Layer, first: int, out: np.ndarray) -> None:
        """Write whether each value of some rows is kept, (rows, width) bool; `first`: number of the first row."""
        np.greater_equal(self.draws(layer, *out.shape, first), self.dropped, out=out)

    def draws(self, layer: Layer, rows: int, width: int, first: int = 0) -> np.ndarray:
        """(rows, width) uint16 on a CPU: a value below `dropped` is dropped."""
        return _draw(np.random.SFC64(self._seed(layer, first)), rows * width).reshape(rows, width)

    def _seed(self, layer: Layer, first: int) -> np.random.SeedSequence:
        block, number = layer
        return np.random.SeedSequence((*self.key, _APART * block + number, first))


def _rows_drawn(width: int) -> int:
    """Rows that are drawn from one seed."""
    return max(1, _DRAWN // width)


def _draw(generator: np.random.BitGenerator, count: int) -> np.ndarray:
    return generator.random_raw(-(-count // 4)).view(np.uint16)[:count]  # four in 64 bits


def linear(x: Tensor, weight: Tensor, bias: Tensor, spend: bool) -> Tensor:
    """x (P, K), weight (N, K), bias (N,) float32 -> (P, N); the product is in x's type, its sums in float32.

    spend: whether the backward pass may write into x, because nothing else needs it.
    """
    return _Linear.apply(x, weight, bias, spend)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, spend):
        ctx.save_for_backward(x, weight)
        ctx.spend = spend
        return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        x = x.detach()
        d_weight = (gradient[:_SUMMED].T @ x[:_SUMMED]).to(weight.dtype)
        for first in range(_SUMMED, len(x), _SUMMED):  # bfloat16 products, their sum in float32
            part = slice(first, first + _SUMMED)
            d_weight += gradient[part].T @ x[part]
        d_bias = gradient.sum(dim=0, dtype=torch.float32)
        d_x = torch.mm(gradient, weight.to(x.dtype), out=x if ctx.spend else None)
        return d_x, d_weight, d_bias, None


def activate(h: Tensor, norm: nn.LayerNorm, order: str, dropped: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """GELU and LayerNorm ("gelu-norm"), or the other way round ("norm-gelu"), then dropout: (P, C) -> (P, C).

    dropped: (P, C) bool, of `Dropout.mask`; `scale` multiplies what is kept.
    """
    return _Activate.apply(h, norm.weight, norm.bias, order, dropped, scale)


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, gamma, beta, order, dropped, scale):
        out = torch.empty_like(h)
        for part in parts(*h.shape, h.device):
            out[part] = _activated(h[part], gamma, beta, order, None if dropped is None else dropped[part], scale)
        ctx.save_for_backward(h, gamma, beta, dropped)
        ctx.order, ctx.scale = order, scale
        return out

    @staticmethod
    def backward(ctx, gradient):
        h, gamma, beta, dropped = ctx.saved_tensors
        out = h.detach()
        d_gamma, d_beta = torch.zeros_like(gamma), torch.zeros_like(beta)
        for part in parts(*h.shape, h.device):
            mask = None if dropped is None else dropped[part]
            g, g_gamma, g_beta = _activated_back(h[part], gradient[part], gamma, beta, ctx.order, mask, ctx.scale)
            out[part] = g
            d_gamma += g_gamma
            d_beta += g_beta
        return out, d_gamma, d_beta, None, None, None


@kernel
def _activated(h: Tensor, gamma: Tensor, beta: Tensor, order: str, dropped: Tensor | None, scale: float) -> Tensor:
    """Rows of any type (p, C) -> (p, C) float32."""
    x, shape = h.float(), h.shape[1:]
    if order == "gelu-norm":
        x = F.layer_norm(F.gelu(x), shape, gamma, beta, NORM_EPS)
    else:
        x = F.gelu(F.layer_norm(x, shape, gamma, beta, NORM_EPS))
    return _drop_(x, dropped, scale)


@kernel
def _activated_back(
    h: Tensor, gradient: Tensor, gamma: Tensor, beta: Tensor, order: str, dropped: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_activated` with respect to h (p, C), gamma and beta, float32; inner values are computed again."""
    x, shape = h.float(), h.shape[1:]
    g = _drop_(gradient.to(torch.float32, copy=dropped is not None), dropped, scale)
    inner = F.gelu(x) if order == "gelu-norm" else x
    normed, mean, deviation = torch.native_layer_norm(inner, shape, gamma, beta, NORM_EPS)
    if order == "norm-gelu":
        g = torch.ops.aten.gelu_backward(g, normed)
    g, d_gamma, d_beta = torch.ops.aten.native_layer_norm_backward(
        g, inner, shape, mean, deviation, gamma, beta, [True, True, True]
    )
    if order == "gelu-norm":
        g = torch.ops.aten.gelu_backward(g, x)
    return g, d_gamma, d_beta


def _drop_(x: Tensor, dropped: Tensor | None, scale: float) -> Tensor:
    """Dropout of float32 rows, in place."""
    # Multiplying by a bool mask would make torch convert it to float first.
    return x if dropped is None else x.masked_fill_(dropped, 0.0).mul_(scale)
