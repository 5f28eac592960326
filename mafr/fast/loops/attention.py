"""CBAM's gates on rows (P, C), over the map or per pixel, with their gradients; see `mafr.fast.attention`."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.elementary import F, compiled, dot, highest, sigmoid, total


@compiled
def _mlp(end, w1, b1, w2, inner, out):
    """out (C,) += w2 · relu(w1 · end + b1); `inner` (hidden,) is kept."""
    for k in range(inner.shape[0]):
        inner[k] = max(b1[k] + dot(w1[k], end), F(0.0))
    for j in range(out.shape[0]):
        for k in range(inner.shape[0]):
            out[j] += w2[j, k] * inner[k]


@compiled
def _summaries(x, summary):
    """Mean and maximum of each row (P, C) -> (P, 2)."""
    for i in range(x.shape[0]):
        summary[i, 0] = total(x[i]) / F(x.shape[1])
        summary[i, 1] = highest(x[i])


@compiled
def sums_and_maxima(x):
    """Of each channel of x (P, C): (2, C), the sum and the maximum."""
    rows, channels = x.shape
    found = np.empty((2, channels), F)
    total, top = found[0], found[1]
    for j in range(channels):
        total[j] = F(0.0)
        top[j] = x[0, j]
    for i in range(rows):
        row = x[i]
        for j in range(channels):
            total[j] += row[j]
        for j in range(channels):
            top[j] = max(top[j], row[j])
    return found


@compiled
def channel_gate(ends, w1, b1, w2, b2, inner, gate):
    """gate (C,) from the means and maxima of the channels, ends (2, C); inner (2, hidden) is kept."""
    for j in range(gate.shape[0]):
        gate[j] = b2[j] + b2[j]
    for which in range(2):
        _mlp(ends[which], w1, b1, w2, inner[which], gate)
    for j in range(gate.shape[0]):
        gate[j] = sigmoid(gate[j])


@compiled
def gated(x, gate, out, summary):
    """out (P, C) = x · gate (C,); summary (P, 2): mean and maximum of each row of it."""
    for i in range(x.shape[0]):
        row, done = x[i], out[i]
        for j in range(row.shape[0]):
            done[j] = row[j] * gate[j]
    _summaries(out, summary)


@compiled
def spatial_gate(summary, filters, y, column, image, scale):
    """scale (P,): the sigmoid of the convolution with filters (2, k, k) of the pixels' summary (P, 2).

    y, column (P,): where the pixels lie in the rectangle; image (2, height + k - 1, width + k - 1), zeros before.
    """
    side = filters.shape[1]
    middle = side // 2
    for i in range(summary.shape[0]):
        for c in range(2):
            image[c, y[i] + middle, column[i] + middle] = summary[i, c]
    for i in range(summary.shape[0]):
        value = F(0.0)
        for c in range(2):
            for a in range(side):
                for b in range(side):
                    value += filters[c, a, b] * image[c, y[i] + a, column[i] + b]
        scale[i] = sigmoid(value)


@compiled
def times(rows, factors):
    """rows (P, C) · factors (P,), in place."""
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(row.shape[0]):
            row[j] *= factors[i]


@compiled
def spatial_gate_back(g, x, gate, scale, d_logit):
    """d_logit (P,): the gradient of what `spatial_gate` takes the sigmoid of, from that of the output, g (P, C)."""
    spare = np.empty(x.shape[1], F)
    for i in range(x.shape[0]):
        row = x[i]
        for j in range(spare.shape[0]):
            spare[j] = row[j] * gate[j]
        d_logit[i] = dot(spare, g[i]) * scale[i] * (F(1.0) - scale[i])


@compiled
def convolution_back(d_logit, filters, image, y, column, d_filters, d_summary):
    """Writes the gradient of `spatial_gate`'s summary (P, 2), adds to that of its filters."""
    side = filters.shape[1]
    middle = side // 2
    d_image = np.zeros(image.shape, F)
    for i in range(d_logit.shape[0]):
        for c in range(2):
            for a in range(side):
                for b in range(side):
                    d_filters[c, a, b] += d_logit[i] * image[c, y[i] + a, column[i] + b]
                    d_image[c, y[i] + a, column[i] + b] += d_logit[i] * filters[c, a, b]
    for i in range(d_logit.shape[0]):
        for c in range(2):
            d_summary[i, c] = d_image[c, y[i] + middle, column[i] + middle]


@compiled
def _row_back(row, g, gate, scale, mean_push, top, top_push, gated, d):
    """The gradient d (C,) of one pixel's gated channels; a maximum's gradient is shared by its ties."""
    channels = row.shape[0]
    for j in range(channels):
        gated[j] = row[j] * gate[j]
    ties = 0
    for j in range(channels):
        ties += gated[j] == top
    shared = top_push / F(ties)
    for j in range(channels):
        d[j] = g[j] * scale + mean_push
    for j in range(channels):
        d[j] += shared if gated[j] == top else F(0.0)


@compiled
def gated_back(g, x, gate, top, scale, summary, d_summary, d_gate, ties):
    """The gradient g (P, C) of the output, in place, becomes that of `gated`'s. Adds to the gate's, and counts ties.

    top (C,): the channels' maxima, of which there are `ties` (C,).
    """
    rows, channels = x.shape
    spare, d = np.empty(channels, F), np.empty(channels, F)
    for i in range(rows):
        row, push = x[i], g[i]
        mean_push, top_push = d_summary[i, 0] / F(channels), d_summary[i, 1]
        _row_back(row, push, gate, scale[i], mean_push, summary[i, 1], top_push, spare, d)
        for j in range(channels):
            push[j] = d[j]
        for j in range(channels):
            d_gate[j] += d[j] * row[j]
        for j in range(channels):
            ties[j] += F(1.0) if row[j] == top[j] else F(0.0)


@compiled
def channel_gate_back(d_gate, gate, ties, rows, w1, w2, ends, inner, d_w1, d_b1, d_w2, d_b2, d_ends):
    """From the gate's gradient d_gate (C,), which it overwrites: adds to those of the weights and of ends (2, C)."""
    channels, hidden = gate.shape[0], inner.shape[1]
    for j in range(channels):
        d_gate[j] *= gate[j] * (F(1.0) - gate[j])
        d_b2[j] += d_gate[j] + d_gate[j]
    for which in range(2):
        for k in range(hidden):
            value = F(0.0)
            for j in range(channels):
                d_w2[j, k] += d_gate[j] * inner[which, k]
                value += d_gate[j] * w2[j, k]
            if inner[which, k] > F(0.0):
                d_b1[k] += value
                for j in range(channels):
                    d_w1[k, j] += value * ends[which, j]
                    d_ends[which, j] += value * w1[k, j]
    for j in range(channels):
        d_ends[0, j] /= F(rows)
        d_ends[1, j] /= ties[j]


@compiled
def ends_back(g, x, gate, top, d_ends):
    """The gradient g (P, C) of the gated rows, in place, becomes that of x; d_ends (2, C): of means and maxima."""
    mean_push, top_push = d_ends[0], d_ends[1]
    for i in range(x.shape[0]):
        row, push = x[i], g[i]
        for j in range(row.shape[0]):
            push[j] = push[j] * gate[j] + mean_push[j]
        for j in range(row.shape[0]):
            push[j] += top_push[j] if row[j] == top[j] else F(0.0)


@compiled
def pixel_gates(x, taps, out, gate, summary, scale):
    """CBAM with every pixel as a map of its own: x (P, C) -> out (P, C).

    gate (P, C) holds the MLP's output and becomes the gate; its logit is twice that, as both poolings agree. taps (2,):
    the convolution's centre. gate, summary (P, 2) and scale (P,) are kept for `pixel_gates_back`.
    """
    rows, channels = x.shape
    for i in range(rows):
        row, done, opened = x[i], out[i], gate[i]
        for j in range(channels):
            opened[j] = sigmoid(opened[j] + opened[j])
        for j in range(channels):
            done[j] = row[j] * opened[j]
    _summaries(out, summary)
    for i in range(rows):
        scale[i] = sigmoid(summary[i, 0] * taps[0] + summary[i, 1] * taps[1])
        done = out[i]
        for j in range(channels):
            done[j] *= scale[i]


@compiled
def pixel_gates_back(g, x, taps, gate, summary, scale, d_taps):
    """The gradient g (P, C) of the output, in place, becomes that of x through the product; adds to d_taps (2,).

    gate (P, C) becomes the gradient of what `pixel_gates` found there.
    """
    rows, channels = x.shape
    gated_row, spare = np.empty(channels, F), np.empty(channels, F)
    for i in range(rows):
        row, push, opened = x[i], g[i], gate[i]
        for j in range(channels):
            spare[j] = row[j] * opened[j]
        d_logit = dot(spare, push) * scale[i] * (F(1.0) - scale[i])
        for c in range(2):
            d_taps[c] += d_logit * summary[i, c]
        mean_push = d_logit * taps[0] / F(channels)
        _row_back(row, push, opened, scale[i], mean_push, summary[i, 1], d_logit * taps[1], gated_row, spare)
        for j in range(channels):
            push[j] = spare[j] * opened[j]
        for j in range(channels):
            opened[j] = F(2.0) * (spare[j] * row[j]) * (opened[j] * (F(1.0) - opened[j]))
