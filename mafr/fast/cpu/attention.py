"""CBAM on rows of pixels, (P, C), with its gradients; see `mafr.fast.attention`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mafr.fast.cpu.layers import ROWS, Linear, add_columns, array, gradient
from mafr.fast.cpu.threads import add_up, each, row_parts
from mafr.fast.loops import attention as loops
from mafr.fast.pixels import Canvas
from mafr.model import CBAM


class MapAttention:
    """Attention over all of a sample's pixels (paper, Sec. III-B2)."""

    def __init__(self, cbam: CBAM) -> None:
        narrow, _, wide = cbam.channel_attention.fc
        learnt = (narrow.weight, narrow.bias, wide.weight, wide.bias)
        self.weights, self.gradients = [array(p) for p in learnt], [gradient(p) for p in learnt]
        filters = cbam.spatial_attention.conv.weight
        self.filters, self.d_filters, self.hidden = array(filters)[0], gradient(filters), narrow.out_features

    def forward(self, rows: Tensor, canvas: Canvas) -> Tensor:
        """(P, C) -> (P, C)."""
        x, out = rows.numpy(), torch.empty_like(rows)
        done, (count, channels), beyond = out.numpy(), x.shape, self.filters.shape[-1] - 1
        parts = row_parts(count, channels)
        found = each(lambda part: loops.sums_and_maxima(x[part]), parts)
        ends = np.stack([np.sum([one[0] for one in found], axis=0) / np.float32(count), np.max(found, axis=0)[1]])
        gate, inner = np.empty(channels, dtype=np.float32), np.empty((2, self.hidden), dtype=np.float32)
        loops.channel_gate(ends, *self.weights, inner, gate)
        summary, scale = np.empty((count, 2), dtype=np.float32), np.empty(count, dtype=np.float32)
        each(lambda part: loops.gated(x[part], gate, done[part], summary[part]), parts)
        image = np.zeros((2, canvas.height + beyond, canvas.width + beyond), dtype=np.float32)
        loops.spatial_gate(summary, self.filters, *canvas.places, image, scale)
        each(lambda part: loops.times(done[part], scale[part]), parts)
        self.kept = x, canvas.places, ends, gate, inner, summary, image, scale
        return out

    def backward(self, g: Tensor) -> Tensor:
        """In place."""
        (x, places, ends, gate, inner, summary, image, scale), up = self.kept, g.numpy()
        self.kept = None
        parts, top = row_parts(*x.shape), ends[1]
        d_logit, d_summary = np.empty_like(scale), np.empty_like(summary)
        each(lambda part: loops.spatial_gate_back(up[part], x[part], gate, scale[part], d_logit[part]), parts)
        loops.convolution_back(d_logit, self.filters, image, *places, self.d_filters[0], d_summary)
        d_gate, ties = np.zeros_like(gate), np.zeros_like(gate)

        def back(part: slice, d_gate: np.ndarray, ties: np.ndarray) -> None:
            given = x[part], gate, top, scale[part], summary[part], d_summary[part]
            loops.gated_back(up[part], *given, d_gate, ties)

        add_up(back, parts, d_gate, ties)
        d_ends = np.zeros_like(ends)
        w1, _, w2, _ = self.weights
        loops.channel_gate_back(d_gate, gate, ties, len(x), w1, w2, ends, inner, *self.gradients, d_ends)
        each(lambda part: loops.ends_back(up[part], x[part], gate, top, d_ends), parts)
        return g


class PixelAttention:
    """Every pixel as a map of its own (released code): of the filters only the centre meets a value.

    Of many pixels only the rows are kept, and the gates are computed again.
    """

    def __init__(self, cbam: CBAM) -> None:
        narrow, _, wide = cbam.channel_attention.fc
        self.narrow, self.wide = Linear(narrow), Linear(wide)
        filters = cbam.spatial_attention.conv.weight
        self.middle = filters.shape[-1] // 2
        self.filters, self.d_filters = filters, gradient(filters)

    def forward(self, rows: Tensor, canvas: Canvas) -> Tensor:
        """(P, C) -> (P, C)."""
        self.taps = array(self.filters)[0, :, self.middle, self.middle].copy()
        out, self.few = torch.empty_like(rows), len(rows) <= ROWS
        for first in range(0, len(rows), ROWS):
            part = slice(first, first + ROWS)
            left = self._gates(rows[part], out[part])
        self.kept = rows, left if self.few else None
        return out

    def backward(self, g: Tensor) -> Tensor:
        """In place."""
        (rows, left), self.kept = self.kept, None
        d_taps = np.zeros(2, dtype=np.float32)
        for first in range(0, len(rows), ROWS):
            part = slice(first, first + ROWS)
            self._back(rows[part], *(left or self._gates(rows[part], torch.empty_like(rows[part]))), g[part], d_taps)
        self.d_filters[0, :, self.middle, self.middle] += d_taps
        return g

    def _gates(self, rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
        """Writes `out`; what `_back` takes."""
        inner = self.narrow.forward(rows).relu_()
        gate = self.wide.forward(inner)
        x, opened, done = rows.numpy(), gate.numpy(), out.numpy()
        summary, scale = np.empty((len(x), 2), dtype=np.float32), np.empty(len(x), dtype=np.float32)

        def one(part: slice) -> None:
            loops.pixel_gates(x[part], self.taps, done[part], opened[part], summary[part], scale[part])

        each(one, row_parts(*x.shape))
        return inner, gate, summary, scale

    def _back(self, rows: Tensor, inner: Tensor, gate: Tensor, summary, scale, g: Tensor, d_taps: np.ndarray) -> None:
        x, opened, up = rows.numpy(), gate.numpy(), g.numpy()

        def back(part: slice, d_taps: np.ndarray) -> None:
            loops.pixel_gates_back(up[part], x[part], self.taps, opened[part], summary[part], scale[part], d_taps)

        add_up(back, row_parts(*x.shape), d_taps)
        shut = inner == 0
        add_columns(gate, self.wide.d_bias)  # the gates' gradient lies in their place now
        d_inner = self.wide.backward(inner, gate).masked_fill_(shut, 0.0)
        add_columns(d_inner, self.narrow.d_bias)
        self.narrow.backward(rows, d_inner, g)


class NoAttention:
    """The rows as they are."""

    def __init__(self, cbam: CBAM) -> None:
        self.kept = None

    def forward(self, rows: Tensor, canvas: Canvas) -> Tensor:
        """(P, C) -> (P, C)."""
        return rows

    def backward(self, g: Tensor) -> Tensor:
        """As given."""
        return g


ATTENTION = {"map": MapAttention, "pixel": PixelAttention, "none": NoAttention}  # by CBAM's scope
