"""The renderer's innermost loops, compiled (Numba): numpy needs several passes over memory for each of them.

Every operation is rounded by itself, in the order that numpy takes, so that generated data keep their bytes on every
processor: no fused operations, no sums in parts. All values are float32, points (3, N): one coordinate after the other.
"""

from __future__ import annotations

import numpy as np

from mafr.compiled import exact

F = np.float32
_SIDE = 64  # nodes per side of the noise volume, a power of two


@exact
def between_nodes(places, shift, volume, out):
    """out (N,): the noise at places (3, N) + shift (3,), in nodes; volume (side³, 8), see `noise`."""
    for i in range(out.shape[0]):
        x, y, z = places[0, i] + shift[0], places[1, i] + shift[1], places[2, i] + shift[2]
        low_x, low_y, low_z = np.floor(x), np.floor(y), np.floor(z)
        fx, fy, fz = x - low_x, y - low_y, z - low_z
        number = np.int64(np.int32(low_x)) & (_SIDE - 1)
        number = number * _SIDE + (np.int64(np.int32(low_y)) & (_SIDE - 1))
        number = number * _SIDE + (np.int64(np.int32(low_z)) & (_SIDE - 1))
        a = fz * volume[number, 1] + volume[number, 0]
        b = fz * volume[number, 3] + volume[number, 2]
        c = fz * volume[number, 5] + volume[number, 4]
        d = fz * volume[number, 7] + volume[number, 6]
        a = a + fy * (b - a)
        c = c + fy * (d - c)
        out[i] = a + fx * (c - a)


@exact
def gather(values, rows, out):
    """out (K, M): columns `rows` (M,) of values (K, N)."""
    for k in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[k, i] = values[k, rows[i]]


@exact
def numbers(mask, out):
    """out (M + 1,): the numbers of the M true values of mask (N,), then one without meaning."""
    at = 0
    for i in range(mask.shape[0]):
        out[at] = i
        at += mask[i]


@exact
def lengths(points, out):
    """out (N,): the Euclidean norm of points (3, N)."""
    for i in range(out.shape[0]):
        x, y, z = points[0, i], points[1, i], points[2, i]
        out[i] = np.sqrt(x * x + y * y + z * z)


@exact
def to_polygon(x, y, corners, out):
    """out (N,): the distance of points x, y (N,) to a polygon (K, 2), negative inside."""
    count = corners.shape[0]
    for i in range(out.shape[0]):
        best, inside = F(np.inf), False
        for k in range(count):
            ax, ay = corners[k, 0], corners[k, 1]
            bx, by = corners[(k + 1) % count, 0], corners[(k + 1) % count, 1]
            ex, ey, wx, wy = bx - ax, by - ay, x[i] - ax, y[i] - ay
            h = min(max((wx * ex + wy * ey) / (ex * ex + ey * ey), F(0)), F(1))
            dx, dy = wx - h * ex, wy - h * ey
            best = min(best, dx * dx + dy * dy)
            if (ay > y[i]) != (by > y[i]) and wx < ex * (wy / ey):
                inside = not inside
        out[i] = -np.sqrt(best) if inside else np.sqrt(best)


@exact
def along(origin, far, directions, out):
    """out (3, N): origin (3, N) + far (N,) · directions (3, N)."""
    for k in range(3):
        for i in range(out.shape[1]):
            out[k, i] = origin[k, i] + far[i] * directions[k, i]


@exact
def box_ends(origin, directions, box, enter, leave):
    """enter, leave (N,): where rays from origin (3, N) enter and leave box (2, 3); enter > leave where they miss it."""
    small = F(1e-9)
    for i in range(enter.shape[0]):
        first, last = F(-np.inf), F(np.inf)
        for k in range(3):
            d = directions[k, i]
            if abs(d) < small:
                d = small
            a, b = (box[0, k] - origin[k, i]) / d, (box[1, k] - origin[k, i]) / d
            first, last = max(first, min(a, b)), min(last, max(a, b))
        enter[i], leave[i] = max(first, F(0)), last


@exact
def advance(distance, eps, least, step, t, end, d, active, found):
    """One step of every ray; returns how many go on.

    distance (N,): to the surface at t (N,) along d (3, N). Rays nearer than `eps` write t into `found`, at their number
    in active (N,). The others advance by `step` times the distance, or `least`; those that do not pass `end` (N,) go
    on: they move to the front of t, end, d and active.
    """
    left = 0
    for i in range(distance.shape[0]):
        if distance[i] < eps:
            found[active[i]] = t[i]
            continue
        far = t[i] + (least if distance[i] < least else distance[i]) * step
        if far < end[i]:
            t[left], end[left], active[left] = far, end[i], active[i]
            for k in range(3):
                d[k, left] = d[k, i]
            left += 1
    return left


@exact
def darken(distance, softness, least, dark, t, end, origin, d, active, light):
    """One step of every shadow ray; returns how many go on, as `advance` does.

    light: at the rays' numbers in active (N,), the least of what it was and softness · distance / t, within [0, 1].
    Rays from origin (3, N) with no more light than `dark` end.
    """
    left = 0
    for i in range(distance.shape[0]):
        number, away = active[i], distance[i]
        passed = min(max(softness * away / t[i], F(0)), F(1))
        if passed < light[number]:
            light[number] = passed
        far = t[i] + (least if away < least else away)
        if far < end[i] and light[number] > dark:
            t[left], end[left], active[left] = far, end[i], number
            for k in range(3):
                origin[k, left], d[k, left] = origin[k, i], d[k, i]
            left += 1
    return left
