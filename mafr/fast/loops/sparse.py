"""Products of a sparse matrix in compressed rows (`mafr.features.interpolation.Rows`) and dense rows."""

from __future__ import annotations

from mafr.fast.loops.elementary import compiled


@compiled
def apply(index, weight, offsets, dense, start, out):
    """out (P, D) = matrix (P, n) · dense (n, D) + start (D,)."""
    width = dense.shape[1]
    for row in range(out.shape[0]):
        done = out[row]
        for j in range(width):
            done[j] = start[j]
        for entry in range(offsets[row], offsets[row + 1]):
            factor, source = weight[entry], dense[index[entry]]
            for j in range(width):
                done[j] += factor * source[j]


@compiled
def add_columns(rows, out):
    """Add the sum of (P, D) rows to out (D,)."""
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(out.shape[0]):
            out[j] += row[j]
