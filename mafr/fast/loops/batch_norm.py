"""Batch norm in training and leaky ReLU of rows (P, W) in one, with the gradient."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.elementary import F, compiled


@compiled
def normalise(x, gamma, beta, eps, slope, inverse, running_mean, running_variance, momentum, out):
    """(P, W) x -> out. x becomes normalised, inverse (W,) what it was multiplied by; running values move on."""
    rows, width = x.shape
    mean, variance = np.empty(width, F), np.empty(width, F)
    share = F(1.0) / F(rows)
    mean[:] = F(0.0)
    variance[:] = F(0.0)
    for i in range(rows):
        row = x[i]
        for j in range(width):
            mean[j] += row[j]
    for j in range(width):
        mean[j] *= share
    for i in range(rows):
        row = x[i]
        for j in range(width):
            row[j] -= mean[j]
        for j in range(width):
            variance[j] += row[j] * row[j]
    for j in range(width):
        variance[j] *= share
        inverse[j] = F(1.0) / np.sqrt(variance[j] + eps)
    unbiased = F(rows) / F(max(rows - 1, 1))
    for j in range(width):
        running_mean[j] += momentum * (mean[j] - running_mean[j])
        running_variance[j] += momentum * (variance[j] * unbiased - running_variance[j])
    for i in range(rows):
        row, done = x[i], out[i]
        for j in range(width):
            row[j] *= inverse[j]
        for j in range(width):
            done[j] = row[j] * gamma[j] + beta[j]
        for j in range(width):
            done[j] = done[j] if done[j] > F(0.0) else done[j] * slope


@compiled
def normalise_back(g, x, out, gamma, slope, inverse, d_gamma, d_beta):
    """The gradient g (P, W) of `out`, in place, becomes that of the input; d_gamma and d_beta (W,) are written.

    x and out as `normalise` left them.
    """
    rows, width = g.shape
    share, factor, shift, tilt = F(1.0) / F(rows), np.empty(width, F), np.empty(width, F), np.empty(width, F)
    d_gamma[:] = F(0.0)
    d_beta[:] = F(0.0)
    for i in range(rows):
        up, row, done = g[i], x[i], out[i]
        for j in range(width):
            up[j] = up[j] if done[j] > F(0.0) else up[j] * slope
        for j in range(width):
            d_beta[j] += up[j]
        for j in range(width):
            d_gamma[j] += up[j] * row[j]
    for j in range(width):
        factor[j] = gamma[j] * inverse[j]
        shift[j] = d_beta[j] * share
        tilt[j] = d_gamma[j] * share
    for i in range(rows):
        up, row = g[i], x[i]
        for j in range(width):
            up[j] = (up[j] - shift[j] - row[j] * tilt[j]) * factor[j]
