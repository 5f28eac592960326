"""Signed distance functions of (N, 3) float32 points, negative inside, in the points' unit.

Primitives are centred on the origin, long axis z unless said otherwise. Most distances are bounds rather than exact
after displacing, bending or joining: trace such parts with a step of 0.6 to 0.9 (`Part.step`).
"""

import numpy as np
from scipy.ndimage import map_coordinates

from mafr.data.synthetic.core import loops
from mafr.data.synthetic.core.rows import Array, Field, length, row_max, take


def _f(values: object) -> Array:
    return np.asarray(values, dtype=np.float32)


def sphere(p: Array, radius: float) -> Array:
    """Exact."""
    return length(p) - np.float32(radius)


def ellipsoid(p: Array, radii: object) -> Array:
    """First-order distance, good near the surface for axis ratios up to about three."""
    radii = _f(radii)
    k0 = length(p / radii)
    k1 = length(p / (radii * radii))
    return k0 * (k0 - 1) / np.maximum(k1, 1e-9)


def capsule(p: Array, a: object, b: object, radius_a: float, radius_b: float | None = None) -> Array:
    """A segment from a to b with round ends; two radii make it taper (then a bound)."""
    a, b = _f(a), _f(b)
    axis = b - a
    pa = p - a
    h = np.clip(pa @ (axis / np.float32(axis @ axis)), 0, 1)
    away = length(pa - h[:, None] * axis)
    radius_b = radius_a if radius_b is None else radius_b
    return away - (np.float32(radius_a) + np.float32(radius_b - radius_a) * h)


def _corner(q: Array, r: Array) -> Array:
    """Distance outside a corner where q, r are the distances to its two sides."""
    return np.hypot(np.maximum(q, 0), np.maximum(r, 0)) + np.minimum(np.maximum(q, r), 0)


def box(p: Array, half: object, rounding: float = 0.0) -> Array:
    """Half sizes (3,), edges rounded by `rounding` (within the sizes). Exact."""
    q = np.abs(p) - (_f(half) - np.float32(rounding))
    return length(np.maximum(q, 0)) + np.minimum(row_max(q), 0) - np.float32(rounding)


def cylinder(p: Array, radius: float, half: float, rounding: float = 0.0) -> Array:
    """Axis z, from -half to half. Exact."""
    q = np.hypot(p[:, 0], p[:, 1]) - np.float32(radius - rounding)
    return _corner(q, np.abs(p[:, 2]) - np.float32(half - rounding)) - np.float32(rounding)


def cone(p: Array, low: float, high: float, half: float, rounding: float = 0.0) -> Array:
    """A frustum: radius `low` at z = -half, `high` at z = half. A bound outside its corners."""
    slope = np.float32((high - low) / (2 * half))
    side = np.hypot(p[:, 0], p[:, 1]) - (np.float32((low + high) / 2 - rounding) + slope * p[:, 2])
    side /= np.sqrt(1 + slope * slope)
    return _corner(side, np.abs(p[:, 2]) - np.float32(half - rounding)) - np.float32(rounding)


def polygon(x: Array, y: Array, corners: object) -> Array:
    """Distance to a simple polygon (K, 2) in the plane, negative inside. Exact."""
    out = np.empty(len(x), np.float32)
    loops.to_polygon(x, y, _f(corners), out)
    return out


def prism(p: Array, corners: object, half: float, rounding: float = 0.0) -> Array:
    """A polygon in x, y extruded from z = -half to half; `rounding` grows the polygon, not the height."""
    side = polygon(p[:, 0], p[:, 1], corners)
    return _corner(side, np.abs(p[:, 2]) - np.float32(half - rounding)) - np.float32(rounding)


def smooth_union(a: Array, b: Array, k: float) -> Array:
    """Union with a fillet about k wide (polynomial minimum)."""
    if k <= 0:
        return np.minimum(a, b)
    h = np.maximum(np.float32(k) - np.abs(a - b), 0) / np.float32(k)
    return np.minimum(a, b) - h * h * np.float32(k / 4)


def smooth_intersect(a: Array, b: Array, k: float) -> Array:
    """Intersection with an edge rounded over k."""
    return -smooth_union(-a, -b, k)


def smooth_subtract(a: Array, tool: Array, k: float) -> Array:
    """a without the tool, the edge rounded over k."""
    return -smooth_union(-a, tool, k)


def move(p: Array, offset: object) -> Array:
    """Points seen from `offset`."""
    return p - _f(offset)


def turn(p: Array, rotation: object) -> Array:
    """Points in the frame whose axes are the columns of `rotation` (3, 3)."""
    return (_f(rotation).T @ p.T).T


def rotation(axis: object, angle: float) -> Array:
    """Rotation matrix by `angle` radians about an axis ("x", "y", "z" or a vector). (3, 3) float32."""
    if isinstance(axis, str):
        axis = np.eye(3)["xyz".index(axis)]
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew).astype(np.float32)


def frame(normal: object, angle: float = 0.0) -> Array:
    """A right-handed frame whose third column is `normal`, the first turned about it by `angle`. (3, 3)."""
    n = np.asarray(normal, float) / np.linalg.norm(normal)
    helper = np.array([1.0, 0, 0]) if abs(n[0]) < 0.7 else np.array([0, 1.0, 0])
    u = helper - n * (helper @ n)
    u /= np.linalg.norm(u)
    v = np.cross(n, u)
    first = np.cos(angle) * u + np.sin(angle) * v
    return np.stack([first, np.cross(n, first), n], axis=1).astype(np.float32)


def bend(p: Array, curvature: float, start: float) -> Array:
    """Curl x towards y beyond x = start: a straight primitive evaluated here becomes an arc of that curvature."""
    q, radius, start = p.copy(), np.float32(1.0 / curvature), np.float32(start)
    x, y = p[:, 0] - start, p[:, 1]
    angle = np.arctan2(x, (radius - y) * np.sign(radius)) * np.sign(radius)
    away = np.hypot(x, radius - y) * np.sign(radius)
    bent = (x > 0) & (np.abs(angle) < 2.5)
    q[:, 0] = np.where(bent, angle * radius + start, p[:, 0])
    q[:, 1] = np.where(bent, radius - away, y)
    return q


def relief(pattern: Field, half: float, step: float, height: float) -> Field:
    """pattern at (x, y, height) from a table of the given step, for costly patterns that are seen from above."""
    nodes = np.arange(-half, half + step, step, dtype=np.float32)
    x, y = np.meshgrid(nodes, nodes, indexing="ij")
    table = pattern(np.stack([x.ravel(), y.ravel(), np.full(x.size, height, np.float32)], axis=1)).reshape(x.shape)

    def looked_up(p: Array) -> Array:
        places = (p.T[:2] + np.float32(half)) / np.float32(step)
        return map_coordinates(table, places, order=1, mode="nearest", output=np.float32, prefilter=False)

    return looked_up


def displace(d: Array, p: Array, amount: float, pattern: Field, reach: float = 0.0) -> Array:
    """d - amount·pattern(p), the pattern in [-1, 1] only evaluated where |d| < 3·amount (or `reach`, if larger).

    Farther out d - amount is returned, which no displaced surface lies nearer than. A solid whose surface is moved
    farther than that afterwards (a dent) needs a larger reach, or the step between the two shows.
    """
    amount = np.float32(amount)
    near = np.abs(d) < max(3 * amount, np.float32(reach))
    out = d - np.sign(d).astype(np.float32) * amount
    if near.any():
        out[near] = d[near] - amount * pattern(take(p, near))
    return out
