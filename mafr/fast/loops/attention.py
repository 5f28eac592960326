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
def map_gates(x, w1, b1, w2, b2, filters, y, column, height, width, out, gate, ends, inner, summary, image, scale):
    """x (P, C) -> out (P, C); the rest is kept for `map_gates_back`.

    y, column (P,): where the pixels lie in the height x width rectangle. filters (2, k, k). gate (C,); ends (2, C):
    mean and maximum of each channel; inner (2, hidden); summary (P, 2); image (2, height + k - 1, width + k - 1);
    scale (P,).
    """
    rows, channels = x.shape
    side = filters.shape[1]
    average, top = ends[0], ends[1]
    for j in range(channels):
        average[j] = F(0.0)
        top[j] = x[0, j]
    for i in range(rows):
        row = x[i]
        for j in range(channels):
            average[j] += row[j]
        for j in range(channels):
            top[j] = max(top[j], row[j])
    for j in range(channels):
        average[j] /= F(rows)
        gate[j] = b2[j] + b2[j]
    for which in range(2):
        _mlp(ends[which], w1, b1, w2, inner[which], gate)
    for j in range(channels):
        gate[j] = sigmoid(gate[j])
    for i in range(rows):
        row, done = x[i], out[i]
        for j in range(channels):
            done[j] = row[j] * gate[j]
    _summaries(out, summary)
    image[:] = F(0.0)
    middle = side // 2
    for i in range(rows):
        for c in range(2):
            image[c, y[i] + middle, column[i] + middle] = summary[i, c]
    for i in range(rows):
        value = F(0.0)
        for c in range(2):
            for a in range(side):
                for b in range(side):
                    value += filters[c, a, b] * image[c, y[i] + a, column[i] + b]
        scale[i] = sigmoid(value)
        done = out[i]
        for j in range(channels):
            done[j] *= scale[i]


@compiled
def _convolution_back(d_logit, filters, image, y, column, d_filters, d_summary):
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
def _gated_back(row, g, gate, scale, mean_push, top, top_push, gated, d):
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
def map_gates_back(
    g, x, w1, w2, filters, y, column, gate, ends, inner, summary, image, scale, d_w1, d_b1, d_w2, d_b2, d_filters
):
    """The gradient g (P, C) of `map_gates`'s output, in place, becomes that of x; adds to the weights' gradients."""
    rows, channels = x.shape
    hidden = inner.shape[1]
    gated, spare = np.empty(channels, F), np.empty(channels, F)
    d_logit, d_summary = np.empty(rows, F), np.empty((rows, 2), F)
    for i in range(rows):
        row, push = x[i], g[i]
        for j in range(channels):
            spare[j] = row[j] * gate[j]
        d_logit[i] = dot(spare, push) * scale[i] * (F(1.0) - scale[i])
    _convolution_back(d_logit, filters, image, y, column, d_filters, d_summary)

    d_gate, ties, top = np.zeros(channels, F), np.zeros(channels, F), ends[1]
    for i in range(rows):
        row, push = x[i], g[i]
        mean_push, top_push = d_summary[i, 0] / F(channels), d_summary[i, 1]
        _gated_back(row, push, gate, scale[i], mean_push, summary[i, 1], top_push, gated, spare)
        for j in range(channels):
            push[j] = spare[j]
        for j in range(channels):
            d_gate[j] += spare[j] * row[j]
        for j in range(channels):
            ties[j] += F(1.0) if row[j] == top[j] else F(0.0)
    for j in range(channels):
        d_gate[j] *= gate[j] * (F(1.0) - gate[j])
        d_b2[j] += d_gate[j] + d_gate[j]
    d_ends = np.zeros((2, channels), F)
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
    for i in range(rows):
        row, push = x[i], g[i]
        for j in range(channels):
            push[j] = push[j] * gate[j] + d_ends[0, j]
        for j in range(channels):
            push[j] += d_ends[1, j] if row[j] == top[j] else F(0.0)


@compiled
def pixel_gates(x, logits, taps, out, gate, summary, scale):
    """CBAM with every pixel as a map of its own: x (P, C), logits (P, C) of the channel gates -> out (P, C).

    taps (2,): the convolution's centre. gate (P, C), summary (P, 2), scale (P,) are kept for `pixel_gates_back`.
    """
    rows, channels = x.shape
    for i in range(rows):
        row, done, opened, value = x[i], out[i], gate[i], logits[i]
        for j in range(channels):
            opened[j] = sigmoid(value[j])
        for j in range(channels):
            done[j] = row[j] * opened[j]
    _summaries(out, summary)
    for i in range(rows):
        scale[i] = sigmoid(summary[i, 0] * taps[0] + summary[i, 1] * taps[1])
        done = out[i]
        for j in range(channels):
            done[j] *= scale[i]


@compiled
def pixel_gates_back(g, x, taps, gate, summary, scale, d_logits, d_taps):
    """The gradient g (P, C) of the output, in place, becomes that of x through the product; and d_logits (P, C)."""
    rows, channels = x.shape
    gated, spare = np.empty(channels, F), np.empty(channels, F)
    for i in range(rows):
        row, push, opened, wanted = x[i], g[i], gate[i], d_logits[i]
        for j in range(channels):
            spare[j] = row[j] * opened[j]
        d_logit = dot(spare, push) * scale[i] * (F(1.0) - scale[i])
        for c in range(2):
            d_taps[c] += d_logit * summary[i, c]
        mean_push = d_logit * taps[0] / F(channels)
        _gated_back(row, push, opened, scale[i], mean_push, summary[i, 1], d_logit * taps[1], gated, spare)
        for j in range(channels):
            wanted[j] = spare[j] * row[j] * opened[j] * (F(1.0) - opened[j])
        for j in range(channels):
            push[j] = spare[j] * opened[j]
