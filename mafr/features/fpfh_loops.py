"""The histograms of `mafr.features.fpfh`, pair by pair, in float64."""

from __future__ import annotations

import math

import numpy as np

from mafr.compiled import exact

_BINS = 11
_HALF, _TURN = _BINS / 2, _BINS / (2 * np.pi)


@exact
def _bin(value):
    """The bin of a value in [-5.5, 5.5]."""
    return min(max(math.floor(value + _HALF), 0), _BINS - 1)


@exact
def own_histograms(points, normals, distance, index, out):
    """out (N, 33): of each point's pairs with its neighbours, 11 bins of three angles, each set summing to 100.

    points, normals: (N, 3); distance, index: (N, K), the first of a row the point itself, an index of -1 none. With d
    the unit vector from the source to the target, u the source's normal, v = d x u / |d x u|, w = u x v and n the
    target's normal, the angles are atan2(w·n, u·n), v·n and u·d. The source is the one whose normal is nearer to the
    line between the two.
    """
    for i in range(index.shape[0]):
        histogram, count = out[i], 0
        histogram[:] = 0.0
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        ux, uy, uz = normals[i, 0], normals[i, 1], normals[i, 2]
        for k in range(1, index.shape[1]):
            j = index[i, k]
            if j < 0:
                continue
            count += 1
            apart = distance[i, k] > 0
            length = distance[i, k] if apart else 1.0
            dx, dy, dz = points[j, 0] - x, points[j, 1] - y, points[j, 2] - z
            nx, ny, nz = normals[j, 0], normals[j, 1], normals[j, 2]
            own, other = (ux * dx + uy * dy + uz * dz) / length, (nx * dx + ny * dy + nz * dz) / length
            # Exchanging source and target also reverses d: v·n and u·n stay, the two cosines swap and change sign.
            # Points with the same neighbours have the same normal: there rounding decides, so it must be as in Open3D.
            swap = abs(own) < abs(other)
            along, across = (-other, -own) if swap else (own, other)
            cosine = ux * nx + uy * ny + uz * nz
            # d·(u x n) = (d x u)·n
            volume = dx * (uy * nz - uz * ny) + dy * (uz * nx - ux * nz) + dz * (ux * ny - uy * nx)
            sine = math.sqrt(max(0.0, 1 - along * along))  # |d x u|
            if sine > 1e-9 and apart:
                inverse = 1 / sine
                # w·n = (n·d - (u·d)(u·n)) / |d x u|
                angle = math.atan2((across - along * cosine) * inverse, cosine)
                first, second, third = _bin(angle * _TURN), _bin(volume / length * inverse * _HALF), _bin(along * _HALF)
            else:  # Open3D: all three zero
                first = second = third = _bin(0.0)
            histogram[first] += 1
            histogram[_BINS + second] += 1
            histogram[2 * _BINS + third] += 1
        share = 100 / max(1, count)
        for b in range(histogram.shape[0]):
            histogram[b] *= share


@exact
def add_neighbours(distance, index, own, out):
    """out (N, 33): each point's own histogram, and those of its neighbours weighted by 1/distance², sums 100 again."""
    for i in range(index.shape[0]):
        around, histogram = out[i], own[i]
        around[:] = 0.0
        for k in range(1, index.shape[1]):
            j = index[i, k]
            if j >= 0 and distance[i, k] > 0:
                weight, other = 1 / (distance[i, k] * distance[i, k]), own[j]
                for b in range(around.shape[0]):
                    around[b] += weight * other[b]
        for first in range(0, around.shape[0], _BINS):
            sums = 0.0
            for b in range(first, first + _BINS):
                sums += around[b]
            scale = 100 / sums if sums != 0 else 0.0
            for b in range(first, first + _BINS):
                around[b] = histogram[b] + around[b] * scale
