"""GELU, LayerNorm and dropout of rows (P, W) in one pass, either order, with the gradient."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.elementary import F, compiled, dot, gauss, total


@compiled
def gelu_of(x, out, slope):
    """(W,) x -> GELU and its derivative, in arrays apart: shared ones make the loop slow."""
    for j in range(x.shape[0]):
        value = x[j]
        cumulative, density = gauss(value)
        out[j] = value * cumulative
        slope[j] = cumulative + value * density


@compiled
def normalise_row(x, eps):
    """(W,) x in place: mean 0, variance 1 (eps is added to the variance); returns what it was divided by, inverse."""
    width = x.shape[0]
    mean = total(x) / F(width)
    for j in range(width):
        x[j] -= mean
    inverse = F(1.0) / np.sqrt(dot(x, x) / F(width) + eps)
    for j in range(width):
        x[j] *= inverse
    return inverse


@compiled
def normalise(x, eps):
    """Each row of x (P, W), in place: mean 0, variance 1."""
    for i in range(x.shape[0]):
        normalise_row(x[i], eps)


@compiled
def _normalise_back(g, x, inverse):
    """The gradient g (W,) of a normalised row x, in place, becomes that of the row before."""
    width = g.shape[0]
    mean, slope = total(g) / F(width), dot(g, x) / F(width)
    for j in range(width):
        g[j] = (g[j] - mean - x[j] * slope) * inverse


@compiled
def activate(h, gamma, beta, draws, dropped, scale, norm_first, eps, out, slope, inverse):
    """h (P, W) -> out (P, W). For `activate_back`: h becomes what the norm returns before gamma and beta, slope (P, W)
    GELU's derivative, inverse (P,) the norm's factor.

    norm_first: GELU of the norm instead of the norm of the GELU. draws (P, W) unsigned: below `dropped` a value is
    dropped, the others are scaled by `scale`.
    """
    rows, width = h.shape
    spare = np.empty(width, F)
    for i in range(rows):
        x, done, drawn = h[i], out[i], draws[i]
        if not norm_first:
            for j in range(width):
                spare[j] = x[j]
            gelu_of(spare, x, slope[i])
        inverse[i] = normalise_row(x, eps)
        for j in range(width):
            done[j] = x[j] * gamma[j] + beta[j]
        if norm_first:
            for j in range(width):
                spare[j] = done[j]
            gelu_of(spare, done, slope[i])
        for j in range(width):
            done[j] = done[j] * scale if drawn[j] >= dropped else F(0.0)


@compiled
def activate_back(g, x, gamma, draws, dropped, scale, norm_first, slope, inverse, d_gamma, d_beta):
    """The gradient g (P, W) of `activate`'s output, in place, becomes that of its input; adds to d_gamma and d_beta.

    x, slope, inverse: as `activate` left them.
    """
    rows, width = g.shape
    for i in range(rows):
        row, normed, drawn, steep = g[i], x[i], draws[i], slope[i]
        for j in range(width):
            row[j] = row[j] * scale if drawn[j] >= dropped else F(0.0)
        if norm_first:
            for j in range(width):
                row[j] *= steep[j]
        for j in range(width):
            d_beta[j] += row[j]
        for j in range(width):
            d_gamma[j] += row[j] * normed[j]
        for j in range(width):
            row[j] *= gamma[j]
        _normalise_back(row, normed, inverse[i])
        if not norm_first:
            for j in range(width):
                row[j] *= steep[j]
