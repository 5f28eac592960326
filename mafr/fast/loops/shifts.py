"""Values of neighbouring cells, for convolutions on rows (P, C); `places` as `mafr.fast.convolution.neighbours` gives.

P is a multiple of the cells of a map: the maps of a batch lie one after the other. A place of -1 holds zeros.
"""

from __future__ import annotations

from mafr.fast.loops.elementary import F, compiled


@compiled
def _copy(source, out):
    for j in range(out.shape[0]):
        out[j] = source[j]


@compiled
def _add(source, out):
    for j in range(out.shape[0]):
        out[j] += source[j]


@compiled
def gather(x, places, out):
    """out (P, T · C): each cell's T neighbours of x (P, C)."""
    (cells, taps), width = places.shape, x.shape[1]
    for first in range(0, x.shape[0], cells):
        for cell in range(cells):
            done = out[first + cell]
            for tap in range(taps):
                at = places[cell, tap]
                if at >= 0:
                    _copy(x[first + at], done[tap * width : (tap + 1) * width])
                else:
                    done[tap * width : (tap + 1) * width] = F(0.0)


@compiled
def gather_back(g, places, out):
    """The gradient of x (P, C) in `gather`, from that of its result (P, T · C)."""
    (cells, taps), width = places.shape, out.shape[1]
    out[:] = F(0.0)
    for first in range(0, out.shape[0], cells):
        for cell in range(cells):
            row = g[first + cell]
            for tap in range(taps):
                at = places[cell, tap]
                if at >= 0:
                    _add(row[tap * width : (tap + 1) * width], out[first + at])


@compiled
def collect(x, places, start, out):
    """out (P, C) = start (C,) + the sum over the taps t of part t of neighbour t; x (P, T · C)."""
    (cells, taps), width = places.shape, out.shape[1]
    for first in range(0, out.shape[0], cells):
        for cell in range(cells):
            done = out[first + cell]
            _copy(start, done)
            for tap in range(taps):
                at = places[cell, tap]
                if at >= 0:
                    _add(x[first + at, tap * width : (tap + 1) * width], done)


@compiled
def collect_back(g, places, out):
    """The gradient of x (P, T · C) in `collect`, from that of its result (P, C)."""
    (cells, taps), width = places.shape, g.shape[1]
    out[:] = F(0.0)
    for first in range(0, g.shape[0], cells):
        for cell in range(cells):
            row = g[first + cell]
            for tap in range(taps):
                at = places[cell, tap]
                if at >= 0:
                    _add(row, out[first + at, tap * width : (tap + 1) * width])


@compiled
def add_row(row, out):
    """Add row (C,) to each of out (P, C)."""
    for i in range(out.shape[0]):
        _add(row, out[i])


@compiled
def bend(x, slope, out):
    """ReLU that keeps `slope` of what is negative, (P, C)."""
    for i in range(x.shape[0]):
        row, done = x[i], out[i]
        for j in range(row.shape[0]):
            done[j] = row[j] if row[j] > F(0.0) else row[j] * slope


@compiled
def bend_back(g, out, slope):
    """The gradient g (P, C) of `bend`'s result, in place, becomes that of its input."""
    for i in range(g.shape[0]):
        up, row = g[i], out[i]
        for j in range(up.shape[0]):
            up[j] = up[j] if row[j] > F(0.0) else up[j] * slope
