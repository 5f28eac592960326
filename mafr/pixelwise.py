"""The head's pointwise layers on rows of pixels, (P, C), without full-size temporaries.

What lies between two matrix products is memory-bound: each function here goes over the rows in parts that stay in
the processor's cache, computes in float32 whatever type the rows are stored in, and keeps only what its backward
pass cannot do without. Backward passes write the gradient into the memory of what they kept: fresh memory costs more
than the arithmetic. They can therefore run only once; torch raises an error the second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.kernels import kernel

_PART = 2**20  # values of a part: 4 MB in float32
_LEVELS = 2**16  # dropout draws 16 bits a value
_SUMMED = 8192  # rows of a product over rows
NORM_EPS = 1e-5  # of LayerNorm, torch's default


def parts(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of rows, each small enough for the cache on a CPU; all rows at once on a GPU."""
    step = rows if device.type != "cpu" else max(1, _PART // max(width, 1))
    for first in range(0, rows, max(step, 1)):
        yield slice(first, min(first + step, rows))


@dataclass(frozen=True)
class Dropout:
    """Seeded dropout masks of one training step; a layer's mask depends on nothing but `key` and its number.

    Those of a processor, at least: a GPU draws by its number of multiprocessors, so other models draw otherwise.

    The probability is rounded to 1/65,536, and what is kept is scaled by that rounded probability.
    """

    probability: float
    key: tuple[int, ...]

    @property
    def dropped(self) -> int:
        """Of 65,536 equally likely draws, how many drop a value."""
        return round(self.probability * _LEVELS)

    @property
    def scale(self) -> float:
        """What the kept values are multiplied by."""
        return _LEVELS / (_LEVELS - self.dropped)

    def mask(self, layer: int, first: int, rows: int, width: int, device: torch.device) -> Tensor:
        """(rows, width) bool, true where a value is dropped; `first`: number of the first row."""
        seed = np.random.SeedSequence((*self.key, layer, first))
        if device.type != "cpu":
            generator = torch.Generator(device).manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
            return torch.rand(rows, width, device=device, generator=generator) * _LEVELS < self.dropped
        generator = np.random.SFC64(seed)
        mask = np.empty((rows, width), dtype=bool)
        for part in parts(rows, width, device):
            count = (part.stop - part.start) * width
            draws = generator.random_raw(-(-count // 4)).view(np.uint16)[:count]  # four in 64 bits
            np.less(draws.reshape(-1, width), self.dropped, out=mask[part])
        return torch.from_numpy(mask)


def linear(x: Tensor, weight: Tensor, bias: Tensor, spend: bool) -> Tensor:
    """x (P, K), weight (N, K), bias (N,) float32 -> (P, N); the product is in x's type, its sums in float32.

    spend: nothing else needs x, and the backward pass may write into it.
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
        x, d_weight = x.detach(), torch.zeros_like(weight)
        for first in range(0, len(x), _SUMMED):  # bfloat16 products, their sum in float32
            part = slice(first, first + _SUMMED)
            d_weight += gradient[part].T @ x[part]
        d_bias = gradient.sum(dim=0, dtype=torch.float32)
        d_x = torch.mm(gradient, weight.to(x.dtype), out=x if ctx.spend else None)
        return d_x, d_weight, d_bias, None


def activate(
    h: Tensor, norm: nn.LayerNorm, order: str, dropped: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """GELU and LayerNorm ("gelu-norm"), or the other way round ("norm-gelu"), then dropout: (P, C) -> (P, C).

    dropped: (P, C) bool, see `Dropout.mask`; what is kept is multiplied by `scale`.
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
    return _drop(x, dropped, scale)


@kernel
def _activated_back(
    h: Tensor, gradient: Tensor, gamma: Tensor, beta: Tensor, order: str, dropped: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_activated` in rows (p, C), gamma and beta, float32; its inner values are computed again."""
    x, shape = h.float(), h.shape[1:]
    g = _drop(gradient.to(torch.float32, copy=True), dropped, scale)
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


def _drop(x: Tensor, dropped: Tensor | None, scale: float) -> Tensor:
    # Not a product with the mask, which torch would first convert to float.
    return x if dropped is None else x.masked_fill_(dropped, 0.0).mul_(scale)


def pixel_attention(x: Tensor, narrow: nn.Linear, wide: nn.Linear, taps: Tensor) -> Tensor:
    """CBAM with every pixel as a 1 x 1 map (released code): (P, C) -> (P, C).

    There both poolings agree, so that the channel gate is sigmoid(2 (wide(relu(narrow(x))))), and only the
    convolution's centre taps (1, 2) act. Products are in the rows' type.
    """
    return _PixelAttention.apply(x, narrow.weight, narrow.bias, wide.weight, wide.bias, taps)


class _PixelAttention(torch.autograd.Function):
    """Nothing but the input is kept; the backward pass computes the gates again."""

    @staticmethod
    def forward(ctx, x, w1, b1, w2, b2, taps):
        out = torch.empty_like(x)
        layers = [tensor.to(x.dtype) for tensor in (w1, b1, w2, b2)]
        for part in parts(*x.shape, x.device):
            _, _, gated, summary = _pixel_gates(x[part], layers)
            out[part] = gated.mul_(torch.sigmoid(summary @ taps.T))
        ctx.save_for_backward(x, w1, b1, w2, b2, taps)
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, *layers, taps = ctx.saved_tensors
        layers = [tensor.to(x.dtype) for tensor in layers]
        w1, _, w2, _ = layers
        out, width = x.detach(), x.shape[1]
        sums = [torch.zeros_like(t, dtype=torch.float32) for t in (*layers, taps)]
        for part in parts(*x.shape, x.device):
            inner, gate, gated, summary = _pixel_gates(x[part], layers)
            g, xs = gradient[part].to(torch.float32, copy=True), x[part].float()
            scale = torch.sigmoid(summary @ taps.T)  # (p, 1)
            d_logit = (g * gated).sum(dim=1, keepdim=True) * scale * (1 - scale)
            d_summary = d_logit @ taps  # (p, 2)
            highest = gated == summary[:, 1:]  # ties share the gradient, as torch's amax does
            share = d_summary[:, 1:] / highest.sum(dim=1, keepdim=True)
            g = g.mul_(scale).add_(d_summary[:, :1] / width).add_(torch.where(highest, share, 0.0))  # of `gated`
            d_wide = torch.ops.aten.sigmoid_backward(g * xs, gate).mul_(2).to(x.dtype)
            d_inner = (d_wide @ w2).masked_fill_(inner == 0, 0.0)
            grads = (d_inner.T @ x[part], d_inner.sum(0), d_wide.T @ inner, d_wide.sum(0), d_logit.T @ summary)
            out[part] = g.mul_(gate).add_(d_inner @ w1)
            for total, grad in zip(sums, grads, strict=True):
                total += grad
        return out, *sums


@kernel
def _pixel_gates(x: Tensor, layers: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows (p, C) -> the gate's hidden layer, the gate, the gated rows, and their mean and maximum (p, 2)."""
    w1, b1, w2, b2 = layers
    inner = F.linear(x, w1, b1).relu_()
    gate = F.linear(inner, w2, b2).float().mul_(2).sigmoid_()
    gated = x * gate
    return inner, gate, gated, mean_and_max(gated)


def map_attention(x: Tensor, channels: nn.Module, spatial: Callable[[Tensor], Tensor], kernel: Tensor) -> Tensor:
    """CBAM over one sample's pixels (paper, Sec. III-B2): (P, C) -> (P, C).

    channels: (average (C,), maximum (C,)) -> gate (C,); spatial: (summary (P, 2), kernel) -> logits (P,).
    """
    weights = list(channels.parameters())
    return _MapAttention.apply(x, channels, spatial, kernel, *weights)


class _MapAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, channels, spatial, kernel, *weights):
        rows, width = x.shape
        total, maximum = x.new_zeros(width, dtype=torch.float32), None
        for part in parts(rows, width, x.device):
            total += x[part].sum(dim=0, dtype=torch.float32)
            peak = x[part].amax(dim=0)
            maximum = peak if maximum is None else torch.maximum(maximum, peak)
        average, maximum = total / rows, maximum.float()
        with torch.no_grad():
            gate = channels(average, maximum)
            summary = torch.empty(rows, 2, device=x.device)
            for part in parts(rows, width, x.device):
                summary[part] = _gated_summary(x[part], gate)
            scale = torch.sigmoid(spatial(summary, kernel))
        out = torch.empty_like(x)
        for part in parts(rows, width, x.device):
            out[part] = (x[part].float() * gate).mul_(scale[part, None])
        ctx.channels, ctx.spatial = channels, spatial
        ctx.save_for_backward(x, kernel, average, maximum, gate, summary, scale, *weights)
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, kernel, average, maximum, gate, summary, scale, *weights = ctx.saved_tensors
        rows, width = x.shape
        d_scale = torch.empty_like(scale)
        for part in parts(rows, width, x.device):
            d_scale[part] = (x[part].float() * gate).mul_(gradient[part]).sum(dim=1)
        with torch.enable_grad():
            leaf, filters = summary.detach().requires_grad_(), kernel.detach().requires_grad_()
            logits = ctx.spatial(leaf, filters)
        d_summary, d_kernel = torch.autograd.grad(logits, (leaf, filters), d_scale * scale * (1 - scale))

        d_gate, ties = torch.zeros_like(gate), torch.zeros_like(gate)
        for part in parts(rows, width, x.device):
            xs = x[part].float()
            d = _d_gated(xs, gate, gradient[part], scale[part], summary[part], d_summary[part])
            d_gate += d.mul_(xs).sum(dim=0)
            ties += (xs == maximum).sum(dim=0)
        with torch.enable_grad():
            ends = average.detach().requires_grad_(), maximum.detach().requires_grad_()
            again = ctx.channels(*ends)
        d_average, d_maximum, *d_weights = torch.autograd.grad(again, (*ends, *weights), d_gate)
        d_average, d_maximum = d_average / rows, d_maximum / ties

        out = x.detach()
        for part in parts(rows, width, x.device):
            xs = x[part].float()
            d = _d_gated(xs, gate, gradient[part], scale[part], summary[part], d_summary[part])
            out[part] = d.mul_(gate).add_(torch.where(xs == maximum, d_average + d_maximum, d_average))
        return out, None, None, d_kernel, *d_weights


@kernel
def _gated_summary(x: Tensor, gate: Tensor) -> Tensor:
    """Rows (p, C) and a gate (C,) -> mean and maximum of the gated rows, (p, 2) float32."""
    return mean_and_max(x.float() * gate)


@kernel
def _d_gated(x: Tensor, gate: Tensor, gradient: Tensor, scale: Tensor, summary: Tensor, d_summary: Tensor) -> Tensor:
    """Gradient of the channel-gated rows: through the output, the channel mean and the channel maximum."""
    d = gradient.float() * scale[:, None]
    d += d_summary[:, :1] / x.shape[1]
    highest = x * gate == summary[:, 1:]  # ties share the gradient, as torch's amax does
    share = d_summary[:, 1:] / highest.sum(dim=1, keepdim=True)
    return d.add_(torch.where(highest, share, 0.0))


def mean_and_max(rows: Tensor) -> Tensor:
    """(P, C) -> (P, 2): mean and maximum over the channels."""
    return torch.stack([rows.mean(dim=1), rows.amax(dim=1)], dim=1)
