"""CBAM on rows of pixels, (P, C), without full-size temporaries; `mafr.model.CBAM` is the same on dense maps.

As in `mafr.fast.layers`, rows are processed in parts, in float32 (products in the rows' type), and gradients are
written into the memory of the rows that were kept, so that a backward pass runs only once.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.device import kernel
from mafr.fast.layers import parts
from mafr.fast.pixels import Canvas
from mafr.model import mean_and_max


def pixel_attention(x: Tensor, narrow: nn.Linear, wide: nn.Linear, taps: Tensor) -> Tensor:
    """CBAM with every pixel as a 1 x 1 map (released code): (P, C) -> (P, C).

    Both poolings agree there, so that the channel gate is sigmoid(2 wide(relu(narrow(x)))), and only the convolution's
    centre taps (1, 2) act.
    """
    return _PixelAttention.apply(x, narrow.weight, narrow.bias, wide.weight, wide.bias, taps)


class _PixelAttention(torch.autograd.Function):
    """Only the input is kept; the backward pass computes the gates again."""

    @staticmethod
    def forward(ctx, x, w1, b1, w2, b2, taps):
        layers = [tensor.to(x.dtype) for tensor in (w1, b1, w2, b2)]
        out = torch.empty_like(x)
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
            g, xs = gradient[part].float(), x[part].float()
            scale = torch.sigmoid(summary @ taps.T)  # (p, 1)
            d_logit = (g * gated).sum(dim=1, keepdim=True) * scale * (1 - scale)
            d_summary = d_logit @ taps  # (p, 2)
            g = (g * scale).add_(d_summary[:, :1] / width)  # of `gated`
            g += _shared(gated.eq_(summary[:, 1:]), d_summary[:, 1:])
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


def map_attention(x: Tensor, narrow: nn.Linear, wide: nn.Linear, filters: Tensor, canvas: Canvas) -> Tensor:
    """CBAM over one sample's pixels (paper, Sec. III-B2): (P, C) -> (P, C).

    The channel gate is sigmoid(MLP(mean) + MLP(maximum)) with wide(relu(narrow(...))) as MLP; filters: (1, 2, k, k), of
    the convolution over mean and maximum of a pixel's gated channels; canvas: where the rows lie.
    """
    return _MapAttention.apply(x, narrow.weight, narrow.bias, wide.weight, wide.bias, filters, canvas)


class _MapAttention(torch.autograd.Function):
    """All gradients in closed form: automatic ones inside a backward pass cost more than a small map's arithmetic."""

    @staticmethod
    def forward(ctx, x, w1, b1, w2, b2, filters, canvas):
        rows, width = x.shape
        total, maximum = x.new_zeros(width, dtype=torch.float32), x.new_full((width,), -torch.inf)
        for part in parts(rows, width, x.device):
            total += x[part].sum(dim=0, dtype=torch.float32)
            maximum = torch.maximum(maximum, x[part].amax(dim=0))
        ends = total / rows, maximum.float()
        inner = [F.linear(end, w1, b1).relu_() for end in ends]
        gate = torch.sigmoid(F.linear(inner[0], w2, b2) + F.linear(inner[1], w2, b2))
        summary = torch.empty(rows, 2, device=x.device)
        for part in parts(rows, width, x.device):
            summary[part] = _gated_summary(x[part], gate)
        image = canvas.spread(summary).permute(2, 0, 1)[None]  # (1, 2, h, w)
        logits = canvas.gather(F.conv2d(image, filters, padding=filters.shape[-1] // 2)[0].permute(1, 2, 0))
        scale = torch.sigmoid(logits)  # (P, 1)
        out = torch.empty_like(x)
        for part in parts(rows, width, x.device):
            out[part] = (x[part].float() * gate).mul_(scale[part])
        ctx.canvas = canvas
        ctx.save_for_backward(x, *ends, *inner, gate, summary, image, scale, filters, w1, w2)
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, average, maximum, *inner, gate, summary, image, scale, filters, w1, w2 = ctx.saved_tensors
        rows, width = x.shape
        d_scale = torch.empty_like(scale)
        for part in parts(rows, width, x.device):
            d_scale[part] = (x[part].float() * gate).mul_(gradient[part]).sum(dim=1, keepdim=True)
        d_summary, d_filters = _convolution_back(d_scale * scale * (1 - scale), image, filters, ctx.canvas)

        d_gate, ties = torch.zeros_like(gate), torch.zeros_like(gate)
        for part in parts(rows, width, x.device):
            xs = x[part].float()
            d = _d_gated(xs, gate, gradient[part], scale[part], summary[part], d_summary[part])
            d_gate += d.mul_(xs).sum(dim=0)
            ties += xs.clone().eq_(maximum).sum(dim=0)
        d_average, d_maximum, *d_weights = _gate_back(d_gate, gate, (average, maximum), inner, w1, w2)
        d_average, d_maximum = d_average / rows, d_maximum / ties

        out = x.detach()
        for part in parts(rows, width, x.device):
            xs = x[part].float()
            d = _d_gated(xs, gate, gradient[part], scale[part], summary[part], d_summary[part])
            highest = xs.clone().eq_(maximum)
            out[part] = d.mul_(gate).add_(torch.addcmul(d_average, highest, d_maximum))
        return out, *d_weights, d_filters, None


def _convolution_back(d_logits: Tensor, image: Tensor, filters: Tensor, canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Gradients of the spatial convolution's input (P, 2) and filters (1, 2, k, k), from those of its logits (P, 1)."""
    d_image = canvas.spread(d_logits).permute(2, 0, 1)[None]
    padding = filters.shape[-1] // 2
    d_image, d_filters, _ = torch.ops.aten.convolution_backward(
        d_image, image, filters, None, [1, 1], [padding, padding], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return canvas.gather(d_image[0].permute(1, 2, 0)), d_filters


def _gate_back(
    d_gate: Tensor, gate: Tensor, ends: Sequence[Tensor], inner: Sequence[Tensor], w1: Tensor, w2: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the channel gate's two inputs (C,), and of w1, b1, w2, b2."""
    d_out = torch.ops.aten.sigmoid_backward(d_gate, gate)
    back = (d_out[None] @ w2)[0]  # (hidden,), the same for both ways through the MLP
    d_inner = [back.masked_fill(hidden == 0, 0.0) for hidden in inner]
    d_w1 = torch.outer(d_inner[0], ends[0]).add_(torch.outer(d_inner[1], ends[1]))
    d_w2 = torch.outer(d_out, inner[0]).add_(torch.outer(d_out, inner[1]))
    d_ends = [(d[None] @ w1)[0] for d in d_inner]
    return *d_ends, d_w1, d_inner[0] + d_inner[1], d_w2, d_out + d_out


@kernel
def _gated_summary(x: Tensor, gate: Tensor) -> Tensor:
    """Rows (p, C) and a gate (C,) -> mean and maximum of the gated rows, (p, 2) float32."""
    return mean_and_max(x.float() * gate)


@kernel
def _d_gated(x: Tensor, gate: Tensor, gradient: Tensor, scale: Tensor, summary: Tensor, d_summary: Tensor) -> Tensor:
    """Gradient of the channel-gated rows: through the output, the channel mean and the channel maximum."""
    d = gradient.float() * scale
    d += d_summary[:, :1] / x.shape[1]
    return d.add_(_shared((x * gate).eq_(summary[:, 1:]), d_summary[:, 1:]))


# Masks are float32, 1 or 0: bool masks take a CPU several times as long.
def _shared(highest: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (p, 1) of a maximum, shared by its ties as torch's amax does; highest: (p, C), 1 at them."""
    return highest.mul_(gradient / highest.sum(dim=1, keepdim=True))
