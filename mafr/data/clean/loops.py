"""The counting and drawing loops of RANSAC, compiled: in numpy each takes several passes over memory."""

from __future__ import annotations

from mafr.compiled import exact


@exact
def count_near(products, offsets, threshold, out):
    """out (P,): how many of products (P, N) + offsets (P,) lie within ± threshold, all float64."""
    for plane in range(out.shape[0]):
        count = 0
        for i in range(products.shape[1]):
            count += abs(products[plane, i] + offsets[plane]) < threshold
        out[plane] = count


@exact
def keep_different(chosen, drawn, k, last):
    """chosen (R, K)[:, k]: drawn (R,), or `last` where the row holds that already among its first k numbers."""
    for row in range(chosen.shape[0]):
        taken = False
        for j in range(k):
            taken |= chosen[row, j] == drawn[row]
        chosen[row, k] = last if taken else drawn[row]
