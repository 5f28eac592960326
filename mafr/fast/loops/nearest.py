"""The nearest of many features, decided by the differences themselves where products of matrices do not decide."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.elementary import F, compiled, summed

_PART = 128  # values that are looked through at once


@summed
def _squared(x, y):
    """The squared distance of (D,) rows."""
    value = F(0.0)
    for j in range(x.shape[0]):
        difference = x[j] - y[j]
        value += difference * difference
    return value


@compiled
def _any_below(values, reach):
    """Whether one of the values is at most `reach`, or is no number."""
    found = 0
    for j in range(values.shape[0]):
        found |= not values[j] > reach
    return found > 0


@compiled
def nearest(bank, queries, partial, reach, index, distance):
    """index (Q,) int64 and distance (Q,): the nearest of bank (M, D) to each query (Q, D), the first of equal ones.

    partial: (Q, M), squared distances, rounded, but for a term that is the same in a row; reach: (Q,), the value above
    which they are certainly not the least. Among the others the differences decide.
    """
    size = partial.shape[1]
    for i in range(queries.shape[0]):
        row, query = partial[i], queries[i]
        best, at = F(np.inf), -1
        for first in range(0, size, _PART):
            last = min(first + _PART, size)
            if _any_below(row[first:last], reach[i]):
                for j in range(first, last):
                    if not row[j] > reach[i]:
                        squared = _squared(query, bank[j])
                        if squared < best or at < 0:
                            best, at = squared, j
        index[i], distance[i] = at, np.sqrt(best)
