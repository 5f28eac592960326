"""Eqs. 3-6 on rows (P, C), with their gradients in the restored features; see `mafr.fast.objective`."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.elementary import F, compiled, dot, total

EPS = F(1e-8)


@compiled
def sim_pixels(restored, minus_z, weight, gradient):
    """Eq. 3 over the pixels of each channel. Writes weight times its gradient (P, C), returns the value."""
    rows, channels = restored.shape
    mean, deviation, factor = np.zeros(channels, F), np.zeros(channels, F), np.empty(channels, F)
    pushed, shrink, value = np.zeros(channels, F), np.zeros(channels, F), np.zeros(channels, F)
    scale = F(2.0) / F(rows * channels)
    for i in range(rows):
        row = restored[i]
        for j in range(channels):
            mean[j] += row[j]
    for j in range(channels):
        mean[j] /= F(rows)
    for i in range(rows):
        row = restored[i]
        for j in range(channels):
            centred = row[j] - mean[j]
            deviation[j] += centred * centred
    for j in range(channels):
        deviation[j] = np.sqrt(max(deviation[j] / F(rows), F(1e-24)))
        factor[j] = F(1.0) / (deviation[j] + EPS)
    for i in range(rows):
        row, z, g = restored[i], minus_z[i], gradient[i]
        for j in range(channels):
            g[j] = z[j] + (row[j] - mean[j]) * factor[j]
        for j in range(channels):
            value[j] += g[j] * g[j]
        for j in range(channels):
            g[j] *= scale
        for j in range(channels):
            pushed[j] += g[j]
        for j in range(channels):
            shrink[j] += g[j] * (row[j] - mean[j])
    for j in range(channels):
        pushed[j] /= F(rows)
        # A constant channel's deviation has no derivative.
        shrink[j] = shrink[j] / F(rows) * factor[j] / deviation[j] if deviation[j] > F(1e-12) else F(0.0)
        factor[j] *= weight
    for i in range(rows):
        row, g = restored[i], gradient[i]
        for j in range(channels):
            g[j] = (g[j] - pushed[j] - (row[j] - mean[j]) * shrink[j]) * factor[j]
    return total(value) / F(rows * channels)


@compiled
def sim_channels(restored, z, weight, gradient):
    """Eq. 3 over each pixel's channels. Adds weight times its gradient (P, C), returns the value."""
    rows, channels = restored.shape
    y, g = np.empty(channels, F), np.empty(channels, F)
    scale, value = F(2.0) / F(rows * channels), 0.0
    for i in range(rows):
        row, known, done = restored[i], z[i], gradient[i]
        mean = total(row) / F(channels)
        for j in range(channels):
            y[j] = row[j] - mean
        inverse = F(1.0) / np.sqrt(dot(y, y) / F(channels) + EPS)
        for j in range(channels):
            y[j] *= inverse
        for j in range(channels):
            g[j] = y[j] - known[j]
        value += dot(g, g)
        for j in range(channels):
            g[j] *= scale
        shift, slope = total(g) / F(channels), dot(g, y) / F(channels)
        for j in range(channels):
            done[j] += (g[j] - shift - y[j] * slope) * inverse * weight
    return F(value / (rows * channels))


@compiled
def spread_difference(restored, original, y, column, out):
    """restored - original (P, C) -> the rectangle (height, width, C), zero where no pixel counts."""
    channels = out.shape[2]
    out[:] = F(0.0)
    for i in range(y.shape[0]):
        row, known, done = restored[i], original[i], out[y[i], column[i]]
        for j in range(channels):
            done[j] = row[j] - known[j]


@compiled
def _difference(base, ahead, weight, value, push):
    """One difference of eq. 4 in all channels (C,): adds to the value; push: the gradient at `ahead`."""
    for j in range(base.shape[0]):
        step, w = ahead[j] - base[j], weight[j]
        value[j] += abs(step) * w
        push[j] = w if step > F(0.0) else (-w if step < F(0.0) else F(0.0))


@compiled
def _pull(push, at_base, at_ahead):
    for j in range(push.shape[0]):
        at_base[j] -= push[j]
        at_ahead[j] += push[j]


@compiled
def smooth(delta, along_x, along_y, corners, y, column, weight, gradient):
    """Eq. 4 of the rectangle delta (h, w, C). Adds weight times its gradient (P, C), returns the value.

    along_x, along_y (h - 1, w - 1, C): see `mafr.fast.objective`; corners (h - 1, w - 1): where differences count.
    """
    height, width, channels = delta.shape
    change, value, push = np.zeros(delta.shape, F), np.zeros(channels, F), np.empty(channels, F)
    for a in range(height - 1):
        for b in range(width - 1):
            if corners[a, b] > F(0.0):
                _difference(delta[a, b], delta[a, b + 1], along_x[a, b], value, push)
                _pull(push, change[a, b], change[a, b + 1])
                _difference(delta[a, b], delta[a + 1, b], along_y[a, b], value, push)
                _pull(push, change[a, b], change[a + 1, b])
    for i in range(y.shape[0]):
        done, row = gradient[i], change[y[i], column[i]]
        for j in range(channels):
            done[j] += weight * row[j]
    return total(value)


@compiled
def _window_sum(image, side, spare):
    """Sums over the side x side window around each pixel of (h, w, C), zeros beyond the border, in place."""
    height, width, channels = image.shape
    reach = side // 2
    spare[:] = F(0.0)
    for a in range(height):
        for b in range(width):
            for other in range(max(b - reach, 0), min(b + reach + 1, width)):
                done, source = spare[a, b], image[a, other]
                for j in range(channels):
                    done[j] += source[j]
    image[:] = F(0.0)
    for a in range(height):
        for other in range(max(a - reach, 0), min(a + reach + 1, height)):
            for b in range(width):
                done, source = image[a, b], spare[other, b]
                for j in range(channels):
                    done[j] += source[j]


@compiled
def census(delta, counts, side, y, column, weight, gradient):
    """Eq. 5 of the rectangle delta (h, w, C), which it overwrites. Adds weight times its gradient, returns the value.

    counts (P,): the pixels that count in each window.
    """
    rows, channels = gradient.shape
    spare, value, share = np.empty(delta.shape, F), np.zeros(channels, F), F(1.0) / F(rows * channels)
    _window_sum(delta, side, spare)
    spare[:] = F(0.0)
    for i in range(rows):
        sums, push, inverse = delta[y[i], column[i]], spare[y[i], column[i]], F(1.0) / counts[i]
        for j in range(channels):
            value[j] += abs(sums[j]) * inverse
        step = inverse * share
        for j in range(channels):
            push[j] = step if sums[j] > F(0.0) else (-step if sums[j] < F(0.0) else F(0.0))
    _window_sum(spare, side, delta)
    for i in range(rows):
        done, row = gradient[i], spare[y[i], column[i]]
        for j in range(channels):
            done[j] += weight * row[j]
    return total(value) * share
