"""Patch-wise contrastive learning: LayerNorm before a linear layer, unit rows, InfoNCE, with their gradients."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.activation import normalise_row
from mafr.fast.loops.elementary import F, compiled, dot, exp, highest, total


@compiled
def normalise(x, gamma, beta, eps, normed, out):
    """x (P, W) -> normed (P, W), each row with mean 0 and variance 1, and out = normed · gamma + beta."""
    rows, width = x.shape
    for i in range(rows):
        row, done, scaled = x[i], normed[i], out[i]
        for j in range(width):
            done[j] = row[j]
        normalise_row(done, eps)
        for j in range(width):
            scaled[j] = done[j] * gamma[j] + beta[j]


@compiled
def normalise_back(weight, d_bias, gamma, beta, d_weight, d_gamma, d_beta):
    """Gradients of the linear layer after `normalise` and of gamma and beta (W,), where x learns nothing.

    weight (K, W) and the gradient d_bias (K,): the layer's. d_weight: on entry (gradient of the layer's output)^T ·
    normed; on return the weight's gradient. The gradient of `normalise`'s output is never needed: gamma's is the sum
    over k of weight · d_weight, as on entry, and beta's that of weight · d_bias.
    """
    d_gamma[:], d_beta[:] = F(0.0), F(0.0)
    for k in range(weight.shape[0]):
        row, own, change = weight[k], d_weight[k], d_bias[k]
        for j in range(row.shape[0]):
            d_gamma[j] += row[j] * own[j]
        for j in range(row.shape[0]):
            d_beta[j] += row[j] * change
        for j in range(row.shape[0]):
            own[j] = own[j] * gamma[j] + change * beta[j]


@compiled
def unit(x, least, length):
    """x (P, W) in place -> rows of length 1; length (P,): the former lengths, `least` at least."""
    for i in range(x.shape[0]):
        row = x[i]
        length[i] = max(np.sqrt(dot(row, row)), least)
        inverse = F(1.0) / length[i]
        for j in range(row.shape[0]):
            row[j] *= inverse


@compiled
def unit_back(g, x, least, length):
    """The gradient g (P, W) of `unit`'s result x, in place, becomes that of its input."""
    for i in range(g.shape[0]):
        row, one = g[i], x[i]
        # A length that counts as `least` does not change.
        along, inverse = dot(row, one) if length[i] > least else F(0.0), F(1.0) / length[i]
        for j in range(row.shape[0]):
            row[j] = (row[j] - one[j] * along) * inverse


@compiled
def cross_entropy(similar, sharpness, share):
    """The sum over the rows of similar (P, P) of -log softmax(sharpness · row) at the diagonal, a float64.

    similar becomes the gradient with respect to sharpness · similar, times `share`.
    """
    loss = 0.0
    for i in range(similar.shape[0]):
        row = similar[i]
        top, own = highest(row), row[i]
        for j in range(row.shape[0]):
            row[j] = exp((row[j] - top) * sharpness)
        whole = total(row)
        loss += np.log(np.float64(whole)) + np.float64((top - own) * sharpness)
        factor = share / whole
        for j in range(row.shape[0]):
            row[j] *= factor
        row[i] -= share
    return loss
