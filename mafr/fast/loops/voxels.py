"""Mean colours of a turned cloud's points on a voxel grid, in one pass over the points."""

from __future__ import annotations

import numpy as np

from mafr.fast.loops.elementary import F, compiled


@compiled
def turned_grid(points, colours, turn, start, low, scale, grid):
    """grid (3, side, side, side) float32: the mean colour of each voxel's points, -1 where it has none.

    points, colours: (N, 3) float32. A point p lies, once turned, at turn · p + start (float64, then rounded to
    float32), in the voxel of number floor((that - low) · scale) along each axis; points outside the grid are left out.
    """
    side, cells = grid.shape[1], grid.shape[1] ** 3
    count, sums = np.zeros(cells, np.int64), np.zeros((3, cells))
    place = np.empty(3, np.int64)
    for i in range(points.shape[0]):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        inside = True
        for axis in range(3):
            at = np.float64(F(turn[axis, 0] * x + turn[axis, 1] * y + turn[axis, 2] * z + start[axis]))
            number = np.floor((at - low[axis]) * scale)
            inside = inside and number >= 0 and number < side
            place[axis] = np.int64(number) if inside else 0
        if inside:
            cell = (place[0] * side + place[1]) * side + place[2]
            count[cell] += 1
            for channel in range(3):
                sums[channel, cell] += colours[i, channel]
    flat = grid.reshape((3, cells))
    for channel in range(3):
        for cell in range(cells):
            flat[channel, cell] = F(sums[channel, cell] / count[cell]) if count[cell] else F(-1.0)
