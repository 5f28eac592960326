"""Eqs. 3-7 on rows (P, C), with their gradients in the restored features; see `mafr.fast.objective`."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.activation import normalise_row
from mafr.fast.loops.elementary import F, compiled, dot, exp, total

EPS = F(1e-8)
_BLOCK = 128  # rows whose sums are float32; those of all blocks are added in float64


@compiled
def _add_to(sums, totals):
    for j in range(sums.shape[0]):
        totals[j] += sums[j]
        sums[j] = F(0.0)


@compiled
def means(x):
    """The mean (C,) of each channel of x (P, C)."""
    rows, channels = x.shape
    sums, totals, mean = np.zeros(channels, F), np.zeros(channels, np.float64), np.empty(channels, F)
    for first in range(0, rows, _BLOCK):
        for i in range(first, min(first + _BLOCK, rows)):
            row = x[i]
            for j in range(channels):
                sums[j] += row[j]
        _add_to(sums, totals)
    for j in range(channels):
        mean[j] = F(totals[j] / rows)
    return mean


@compiled
def moments(x, z, mean_x, mean_z):
    """(3, C) float64 over the rows of x and z (P, C): the variance of x, that of z, and their covariance."""
    rows, channels = x.shape
    sums, found = np.zeros((3, channels), F), np.zeros((3, channels), np.float64)
    of_x, of_z, of_both = sums[0], sums[1], sums[2]
    for first in range(0, rows, _BLOCK):
        for i in range(first, min(first + _BLOCK, rows)):
            row, other = x[i], z[i]
            for j in range(channels):
                a, b = row[j] - mean_x[j], other[j] - mean_z[j]
                of_x[j] += a * a
                of_z[j] += b * b
                of_both[j] += a * b
        for k in range(3):
            _add_to(sums[k], found[k])
    return found / rows


@compiled
def combine(x, z, mean_x, mean_z, factor_x, factor_z, out):
    """out (P, C) = factor_x · (x - mean_x) + factor_z · (z - mean_z), with (C,) factors and means."""
    for i in range(x.shape[0]):
        row, other, done = x[i], z[i], out[i]
        for j in range(done.shape[0]):
            done[j] = (row[j] - mean_x[j]) * factor_x[j] + (other[j] - mean_z[j]) * factor_z[j]


@compiled
def sim_channels(restored, z, count, weight, gradient):
    """Eq. 3 over each pixel's channels, for some of `count` pixels: their share of the value.

    z (P, C): the original features, each row with mean 0 and variance 1. Adds weight times the gradient (P, C).
    """
    rows, channels = restored.shape
    y, g = np.empty(channels, F), np.empty(channels, F)
    scale, value = F(2.0) / F(count * channels), 0.0
    for i in range(rows):
        row, known, done = restored[i], z[i], gradient[i]
        for j in range(channels):
            y[j] = row[j]
        inverse = normalise_row(y, EPS)
        for j in range(channels):
            g[j] = y[j] - known[j]
        value += dot(g, g)
        for j in range(channels):
            g[j] *= scale
        shift, slope = total(g) / F(channels), dot(g, y) / F(channels)
        for j in range(channels):
            done[j] += (g[j] - shift - y[j] * slope) * inverse * weight
    return F(value / (count * channels))


@compiled
def _push(restored, e, ahead, e_ahead, guide, guide_ahead, share, value, push):
    """One difference of eq. 4 in all channels (C,): adds to the value; push: the gradient at the pixel ahead."""
    for j in range(push.shape[0]):
        step = (ahead[j] - e_ahead[j]) - (restored[j] - e[j])
        weight = exp(-abs(guide_ahead[j] - guide[j])) * share
        value[j] += abs(step) * weight
        push[j] = weight if step > F(0.0) else (-weight if step < F(0.0) else F(0.0))


@compiled
def _add(push, weight, out):
    for j in range(push.shape[0]):
        out[j] += push[j] * weight


@compiled
def smooth(restored, e, guide, lower, share, weight, gradient):
    """Eq. 4 of restored - e, both (P, C). Adds weight times its gradient (P, C), returns the value.

    guide (P, C): the features whose edges are spared. lower (P,): the row of the pixel below one whose two forward
    differences count, else -1; the pixel to its right is the next row. share: what the mean multiplies a difference by.
    """
    channels = restored.shape[1]
    value, right, down = np.zeros(channels, F), np.empty(channels, F), np.empty(channels, F)
    for i in range(lower.shape[0]):
        below = lower[i]
        if below >= 0:
            _push(restored[i], e[i], restored[i + 1], e[i + 1], guide[i], guide[i + 1], share, value, right)
            _push(restored[i], e[i], restored[below], e[below], guide[i], guide[below], share, value, down)
            _add(right, weight, gradient[i + 1])
            _add(down, weight, gradient[below])
            for j in range(channels):
                right[j] += down[j]
            _add(right, -weight, gradient[i])
    return total(value)


@compiled
def _move_window(line, channels, side, old, sums):
    """Move a window of side x side pixels one line on. line ((n + side - 1) · C,): the new line, zeros at both ends.

    old (n · C,): what the line that leaves the window held along `side` pixels; that of the new one takes its place.
    sums (n · C,): over the whole window.
    """
    moving = np.zeros(channels, F)
    for k in range(side - 1):
        _add(line[k * channels : (k + 1) * channels], F(1.0), moving)
    for place in range(0, old.shape[0], channels):
        ahead, behind = line[place + (side - 1) * channels :], line[place:]
        left, summed = old[place : place + channels], sums[place : place + channels]
        for j in range(channels):
            moving[j] += ahead[j]
        for j in range(channels):
            summed[j] += moving[j] - left[j]
        for j in range(channels):
            left[j] = moving[j]
        for j in range(channels):
            moving[j] -= behind[j]


@compiled
def census(restored, e, counts, side, y, column, width, weight, gradient):
    """Eq. 5 of restored - e, (P, C). Adds weight times its gradient (P, C), returns the value.

    y, column (P,): where the pixels lie in a rectangle of this width, line by line; counts (P,): the pixels that count
    in the window of `side` (odd) around each. Lines pass through two windows, of the sums and of their gradient.
    """
    rows, channels = restored.shape
    reach, height, share = side // 2, y[rows - 1] + 1, F(1.0) / F(rows * channels)
    line = np.empty((width + 2 * reach) * channels, F)
    lines, push_lines = np.zeros((side, width * channels), F), np.zeros((side, width * channels), F)
    sums, pushes, value = np.zeros(width * channels, F), np.zeros(width * channels, F), np.zeros(channels, F)
    taken = summed = pushed = 0  # pixels that have passed
    for a in range(height + 2 * reach):
        line[:] = F(0.0)
        while taken < rows and y[taken] == a:
            place = (column[taken] + reach) * channels
            row, known, done = restored[taken], e[taken], line[place : place + channels]
            for j in range(channels):
                done[j] = row[j] - known[j]
            taken += 1
        _move_window(line, channels, side, lines[a % side], sums)
        if a < reach:
            continue
        line[:] = F(0.0)
        while summed < rows and y[summed] == a - reach:
            place, inverse = column[summed] * channels, F(1.0) / counts[summed]
            found, step = sums[place : place + channels], inverse * share
            done = line[place + reach * channels : place + (reach + 1) * channels]
            for j in range(channels):
                value[j] += abs(found[j]) * inverse
            for j in range(channels):
                done[j] = step if found[j] > F(0.0) else (-step if found[j] < F(0.0) else F(0.0))
            summed += 1
        _move_window(line, channels, side, push_lines[a % side], pushes)
        while pushed < rows and y[pushed] == a - 2 * reach:
            place = column[pushed] * channels
            _add(pushes[place : place + channels], weight, gradient[pushed])
            pushed += 1
    return total(value) * share


@compiled
def take(rows, first, out):
    """The channels of rows (P, C) from `first` on -> out (P, c)."""
    for i in range(out.shape[0]):
        row, done = rows[i], out[i]
        for j in range(done.shape[0]):
            done[j] = row[first + j]


@compiled
def put(part, first, out):
    """part (P, c) -> the channels of out (P, C) from `first` on."""
    for i in range(part.shape[0]):
        row, done = part[i], out[i]
        for j in range(row.shape[0]):
            done[first + j] = row[j]


@compiled
def distances(restored, original, out):
    """Eq. 7: out (P,), the distance of the rows (P, C)."""
    difference = np.empty(restored.shape[1], F)
    for i in range(out.shape[0]):
        row, known = restored[i], original[i]
        for j in range(difference.shape[0]):
            difference[j] = known[j] - row[j]
        out[i] = np.sqrt(dot(difference, difference))
