"""GELU between linear layers, and the cosine loss, with gradients: what CFM computes between its products."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.activation import gelu_of
from mafr.fast.loops.elementary import F, compiled, dot


@compiled
def gelu(x, slope):
    """x (P, W) in place -> GELU(x); slope (P, W): its derivative."""
    rows, width = x.shape
    spare = np.empty(width, F)
    for i in range(rows):
        row, steep = x[i], slope[i]
        for j in range(width):
            spare[j] = row[j]
        gelu_of(spare, row, steep)


@compiled
def gelu_back(g, slope, d_bias):
    """The gradient g (P, W) of `gelu`'s output, in place, becomes that of its input; its sum is added to d_bias (W,).

    The bias is that of the linear layer before.
    """
    rows, width = g.shape
    for i in range(rows):
        row, steep = g[i], slope[i]
        for j in range(width):
            row[j] *= steep[j]
        for j in range(width):
            d_bias[j] += row[j]


@compiled
def lengths(rows, least, out):
    """out (P,): the Euclidean lengths of rows (P, D), `least` at least."""
    for i in range(rows.shape[0]):
        out[i] = max(np.sqrt(dot(rows[i], rows[i])), least)


@compiled
def cosine(mapped, wanted, wanted_length, least, share, d_bias):
    """The sum over P rows of 1 - cos(mapped, wanted), a float64; mapped (P, D) becomes its gradient times `share`.

    wanted: (P, D), wanted_length: (P,), its lengths; a shorter length of `mapped` than `least` counts as `least`. The
    sum of the gradient is added to d_bias (D,), the bias of the linear layer before.
    """
    rows, width = mapped.shape
    loss = 0.0
    for i in range(rows):
        row, other = mapped[i], wanted[i]
        product, length = dot(row, other), np.sqrt(dot(row, row))
        clamped = max(length, least)
        across = F(1.0) / (clamped * wanted_length[i])
        cosine = product * across
        loss += 1.0 - cosine
        # The derivative of the length is zero where it counts as `least`.
        along, across = cosine / (length * length) * share if length >= least else F(0.0), across * share
        for j in range(width):
            row[j] = row[j] * along - other[j] * across
        for j in range(width):
            d_bias[j] += row[j]
    return loss
