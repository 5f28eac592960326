"""What lies between the products of an affine coupling (`mafr.baselines.parts.flow`), on rows (P, C)."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops import ATAN_SCALE as SCALE
from mafr.fast.loops.elementary import F, compiled, dot, exp, inlined, total

ATAN_SCALE = F(SCALE)
_STEEP, _FLAT = F(2.414213562373095), F(0.4142135623730950)  # tan(3π/8), tan(π/8)


@inlined
def atan(x):
    """arctan(x) to some 2 units in the last place. Coefficients: Cephes, atanf."""
    size = abs(x)
    steep, middle = size > _STEEP, size > _FLAT
    above = F(-1.0) if steep else (size - F(1.0) if middle else size)
    below = size if steep else (size + F(1.0) if middle else F(1.0))
    start = F(np.pi / 2) if steep else (F(np.pi / 4) if middle else F(0.0))
    r = above / below
    z = r * r
    p = F(8.05374449538e-2)
    p = p * z + F(-1.38776856032e-1)
    p = p * z + F(1.99777106478e-1)
    p = p * z + F(-3.33329491539e-1)
    value = start + (p * z * r + r)
    return -value if x < F(0.0) else value


@compiled
def take(source, order, positions, out):
    """out (P, L + K): the columns `order` (L,) of source (P, C), beside the cell's row of positions (cells, K)."""
    width, count = order.shape[0], positions.shape[1]
    for i in range(source.shape[0]):
        row, done, place = source[i], out[i], positions[i % positions.shape[0]]
        for j in range(width):
            done[j] = row[order[j]]
        for j in range(count):
            done[width + j] = place[j]


@compiled
def put(left, right, order, out):
    """The inverse of `take` for gradients: columns (P, L) and (P, R) -> the columns `order` (L + R,) of out (P, C)."""
    split = left.shape[1]
    for i in range(out.shape[0]):
        first, second, done = left[i], right[i], out[i]
        for j in range(split):
            done[order[j]] = first[j]
        for j in range(second.shape[0]):
            done[order[split + j]] = second[j]


@compiled
def _stretch(raw, steepness, height, log_scale, scale):
    for j in range(log_scale.shape[0]):
        log_scale[j] = height * atan(raw[j] * steepness)
    for j in range(log_scale.shape[0]):
        scale[j] = exp(log_scale[j])


@compiled
def _move(x, scale, raw, gamma, out):
    for j in range(out.shape[0]):
        out[j] = x[j] * scale[j] + raw[j] * gamma


@compiled
def couple(raw, gamma, clamp, x, scale, y, first, logdet):
    """One half of a coupling: the columns of y (P, C) from `first` on = scale · x + shift.

    raw (P, 2 L): the subnet's output before its factor gamma, log-scales beside shifts; x (P, L or more): the half;
    scale (P, L) is written; the log-determinant is added to logdet (P,).
    """
    width = scale.shape[1]
    log_scale, steepness, height = np.empty(width, F), gamma / clamp, clamp * ATAN_SCALE
    for i in range(raw.shape[0]):
        _stretch(raw[i, :width], steepness, height, log_scale, scale[i])
        _move(x[i, :width], scale[i], raw[i, width:], gamma, y[i, first : first + width])
        logdet[i] += total(log_scale)


@compiled
def _slope(raw, steepness, out):
    for j in range(out.shape[0]):
        u = raw[j] * steepness
        out[j] = ATAN_SCALE / (F(1.0) + u * u)


@compiled
def _pull(g, x, scale, slope, push, out):
    for j in range(out.shape[0]):
        out[j] = (g[j] * x[j] * scale[j] - push) * slope[j]


@compiled
def _times(x, factor, out):
    for j in range(out.shape[0]):
        out[j] = x[j] * factor


@compiled
def _product(x, y, out):
    for j in range(out.shape[0]):
        out[j] = x[j] * y[j]


@compiled
def couple_back(g, first, push, raw, gamma, clamp, x, scale, d_x):
    """The gradients of `couple`: raw (P, 2 L) becomes its own, d_x (P, L) is that of the half; returns that of gamma.

    g (P, C): the gradient of y; push (P,): minus the gradient of the log-determinant.
    """
    width = scale.shape[1]
    slope, pulled, value, steepness = np.empty(width, F), np.empty(width, F), 0.0, gamma / clamp
    for i in range(raw.shape[0]):
        row, up = raw[i], g[i, first : first + width]
        _slope(row[:width], steepness, slope)
        _pull(up, x[i, :width], scale[i], slope, push[i], pulled)
        value += dot(pulled, row[:width]) + dot(up, row[width:])
        _times(pulled, gamma, row[:width])
        _times(up, gamma, row[width:])
        _product(up, scale[i], d_x[i])
    return F(value)


@compiled
def add_columns(x, out):
    """Add x (P, L) to the first L columns of out (P, C)."""
    width = x.shape[1]
    for i in range(x.shape[0]):
        row, done = x[i], out[i, :width]
        for j in range(width):
            done[j] += row[j]


@compiled
def likelihood(z, logdet, weight, g):
    """The sum of weight · (|z|² / 2 - logdet), z (P, C), the rest (P,); its gradient in z is written to g."""
    value = 0.0
    for i in range(z.shape[0]):
        value += weight[i] * (F(0.5) * dot(z[i], z[i]) - logdet[i])
        _times(z[i], weight[i], g[i])
    return F(value)
