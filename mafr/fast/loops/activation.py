"""GELU, LayerNorm and dropout of rows (P, W) in one pass, either order, with the gradient."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.elementary import LANES, F, compiled, gauss, total


@compiled
def _gelu(x, out, slope):
    """(W,) x -> GELU and its derivative."""
    for j in range(x.shape[0]):
        value = x[j]
        cumulative, density = gauss(value)
        out[j] = value * cumulative
        slope[j] = cumulative + value * density


@compiled
def _normalise(x, eps, squares, lanes):
    """(W,) x in place: mean 0, variance 1 (eps is added to the variance); returns what it was divided by, inverse."""
    width = x.shape[0]
    mean = total(x, lanes) / F(width)
    for j in range(width):
        x[j] -= mean
    for j in range(width):
        squares[j] = x[j] * x[j]
    inverse = F(1.0) / np.sqrt(total(squares, lanes) / F(width) + eps)
    for j in range(width):
        x[j] *= inverse
    return inverse


@compiled
def _normalise_back(g, x, inverse, products, lanes):
    """The gradient g (W,) of a normalised row x, in place, becomes that of the row before."""
    width = g.shape[0]
    for j in range(width):
        products[j] = g[j] * x[j]
    mean, slope = total(g, lanes) / F(width), total(products, lanes) / F(width)
    for j in range(width):
        g[j] = (g[j] - mean - x[j] * slope) * inverse


@compiled
def activate(h, gamma, beta, kept, scale, norm_first, eps, out, inverse):
    """h (P, W) -> out (P, W); `inverse` (P,) is for `activate_back`, which computes the rest again from h.

    norm_first: GELU of the norm instead of the norm of the GELU. kept (P, W) bool, scale: of dropout.
    """
    rows, width = h.shape
    lanes, spare, slope = np.empty(LANES, F), np.empty(width, F), np.empty(width, F)
    for i in range(rows):
        done, chosen = out[i], kept[i]
        if norm_first:
            for j in range(width):
                done[j] = h[i, j]
        else:
            _gelu(h[i], done, slope)
        inverse[i] = _normalise(done, eps, spare, lanes)
        for j in range(width):
            done[j] = done[j] * gamma[j] + beta[j]
        if norm_first:
            for j in range(width):
                spare[j] = done[j]
            _gelu(spare, done, slope)
        for j in range(width):
            done[j] = done[j] * scale if chosen[j] else F(0.0)


@compiled
def activate_back(g, h, gamma, beta, kept, scale, norm_first, inverse, d_gamma, d_beta):
    """The gradient g (P, W) of `activate`'s output, in place, becomes that of h; adds to d_gamma and d_beta."""
    rows, width = g.shape
    lanes, spare = np.empty(LANES, F), np.empty(width, F)
    x, slope, outer = np.empty(width, F), np.empty(width, F), np.empty(width, F)
    for i in range(rows):
        row, chosen = g[i], kept[i]
        if norm_first:
            for j in range(width):
                x[j] = h[i, j]
        else:
            _gelu(h[i], x, slope)
        mean = total(x, lanes) / F(width)
        for j in range(width):
            x[j] = (x[j] - mean) * inverse[i]
        for j in range(width):
            row[j] = row[j] * scale if chosen[j] else F(0.0)
        if norm_first:
            for j in range(width):
                spare[j] = x[j] * gamma[j] + beta[j]
            _gelu(spare, outer, slope)
            for j in range(width):
                row[j] *= slope[j]
        for j in range(width):
            d_beta[j] += row[j]
        for j in range(width):
            d_gamma[j] += row[j] * x[j]
        for j in range(width):
            row[j] *= gamma[j]
        _normalise_back(row, x, inverse[i], spare, lanes)
        if not norm_first:
            for j in range(width):
                row[j] *= slope[j]
