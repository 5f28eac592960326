"""Sums, products and extremes of rows with a few columns, and choosing rows: the renderer's innermost loops.

numpy runs one small loop per row where the last axis is short and contiguous, several times slower than one loop per
column. So points are kept one coordinate after the other in memory (`take`, `np.stack([x, y, z]).T`: (N, 3) arrays in
Fortran's order), and rows are reduced one column at a time. The values are numpy's own to the last bit, on which
generated data rest.
"""

from collections.abc import Callable
from functools import reduce

import numpy as np

from mafr.data.synthetic.core import loops

Array = np.ndarray
Rng = np.random.Generator
Field = Callable[[Array], Array]  # a value per point: (N, 3) -> (N,)


def row_dot(a: Array, b: Array) -> Array:
    """`(a * b).sum(-1)` of arrays (..., few) of one type, for up to seven columns."""
    total = a[..., 0] * b[..., 0] + a.dtype.type(0)  # numpy starts from 0 too: no row sums to minus zero
    for k in range(1, a.shape[-1]):
        total += a[..., k] * b[..., k]
    return total


def row_max(a: Array) -> Array:
    """`a.max(-1)` of (..., few)."""
    return reduce(np.maximum, np.moveaxis(a, -1, 0))


def length(v: Array) -> Array:
    """Euclidean norm along the last axis."""
    if v.ndim == 2 and v.shape[1] == 3 and v.dtype == np.float32:
        out = np.empty(len(v), np.float32)
        loops.lengths(v.T, out)
        return out
    return np.sqrt(row_dot(v, v))


def unit(v: object) -> Array:
    """v / |v| along the last axis, float32; zero vectors stay zero."""
    v = np.asarray(v, np.float32)
    return v / np.maximum(length(v)[..., None], 1e-12)


def take(a: Array, where: Array) -> Array:
    """`a[where]`, rows of (N, few) by numbers or a mask (N,), one coordinate after the other in memory."""
    if where.dtype == bool:
        rows = np.empty(np.count_nonzero(where) + 1, np.int64)
        loops.numbers(where, rows)
        rows = rows[:-1]
    else:
        rows = where
    out = np.empty((a.shape[1], len(rows)), a.dtype)
    loops.gather(a.T, rows, out)
    return out.T
