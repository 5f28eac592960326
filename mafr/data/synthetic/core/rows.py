"""Sums, products and extremes of rows with a few columns, and choosing rows: the renderer's innermost loops.

numpy runs one small loop a row where the last axis is short and contiguous, several times slower than a loop a column.
So points are kept a coordinate after the other in memory (`take`, `np.stack([x, y, z]).T`: (N, 3) arrays in Fortran's
order), and rows are reduced a column at a time. The values are numpy's own to the last bit, which generated data rest
on: `row_sum(a)` is `a.sum(-1)` for up to seven columns, `row_dot(a, b)` is `(a * b).sum(-1)`, `row_max(a)` is
`a.max(-1)`, `row_min(a)` is `a.min(-1)` and `take(a, where)` is `a[where]`.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

Array = np.ndarray


def _columns(a: Array) -> list[Array]:
    return [a[..., k] for k in range(a.shape[-1])]


def row_sum(a: Array) -> Array:
    """(..., few) -> (...)."""
    first, *others = _columns(a)
    total = first + a.dtype.type(0)  # numpy starts from 0 too: no row sums to minus zero
    for column in others:
        total += column
    return total


def row_dot(a: Array, b: Array) -> Array:
    """(..., few) twice, of one type -> (...)."""
    total = a[..., 0] * b[..., 0] + a.dtype.type(0)
    for k in range(1, a.shape[-1]):
        total += a[..., k] * b[..., k]
    return total


def row_max(a: Array) -> Array:
    """(..., few) -> (...)."""
    return reduce(np.maximum, _columns(a))


def row_min(a: Array) -> Array:
    """(..., few) -> (...)."""
    return reduce(np.minimum, _columns(a))


def take(a: Array, where: Array) -> Array:
    """Rows of (N, few), by numbers or a mask (N,): a coordinate after the other in memory."""
    rows = np.flatnonzero(where) if where.dtype == bool else where
    return a.T.take(rows, axis=1).T
