"""What defects are made of: where (`Site`, `pick_site`) and how a Part is changed.

- `pick_site(rng, hits, margin, ...)` takes a visible pixel well inside the part's silhouette.
- `Site(point, frame)`: `site.local(p)` gives (u, v, n), n along the surface normal.
- `carve(part, tool, inside, ...)`, `add(part, solid, look, ...)`, `push(part, field, most)`,
  `paint(part, weight, look)`, `warp(part, mapping, box)`; `local(tool, centre, reach)` evaluates a tool only near by.
- `paint_of(colour, ...)`: a simple look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mafr.data.synthetic.core import noise, sdf
from mafr.data.synthetic.core.noise import smoothstep
from mafr.data.synthetic.core.part import Part
from mafr.data.synthetic.core.render import Hits, Surface
from mafr.data.synthetic.core.rows import row_dot, take

Array = np.ndarray
Look = Callable[[Array, Array], Surface]


def paint_of(colour: object, specular: float = 0.03, shininess: float = 15.0, wrap: float = 0.0,
             mottle: float = 0.12, scale: float = 0.5, seed: int = 0) -> Look:  # fmt: skip
    """A surface function of one linear colour, mottled by noise of `scale` features a unit."""
    colour = np.asarray(colour, np.float32)

    def look(p: Array, n: Array) -> Surface:
        shade = 1 + np.float32(mottle) * noise.fbm(p * np.float32(scale), seed, 2)
        return Surface(np.clip(colour * shade[:, None], 0, 1), specular, shininess, wrap)

    return look


@dataclass(frozen=True)
class Site:
    """Where a defect is: a surface point and a frame (columns u, v, normal)."""

    point: Array
    frame: Array

    def local(self, p: Array) -> Array:
        """(N, 3) world points -> (u, v, n)."""
        return (p - self.point) @ self.frame

    @property
    def normal(self) -> Array:
        return self.frame[:, 2]


def pick_site(
    rng: np.random.Generator, hits: Hits, margin: float, facing: float = 0.45,
    where: Callable[[Array], Array] | None = None, along: object | None = None, spread: float = np.pi,
) -> Site:  # fmt: skip
    """A random visible place at least `margin` pixels inside the silhouette whose surface faces the camera.

    where: keeps points (N, 3) -> bool, if any pass. along: a world direction that u follows, within ± spread radians.
    Falls back to less strict places on parts too narrow for the margin.
    """
    inside = ndimage.distance_transform_edt(hits.part)
    good = hits.part & (hits.facing >= facing)
    if where is not None:
        kept = np.zeros_like(good)
        kept[hits.part] = where(hits.points[hits.part])
        good = good & kept if (good & kept).any() else (kept if kept.any() else good)
    if not good.any():
        good = hits.part
    deep = good & (inside >= min(margin, 0.75 * inside[good].max()))
    rows = np.flatnonzero(deep)
    chosen = rows[rng.integers(len(rows))]
    point = hits.points.reshape(-1, 3)[chosen]
    # The mean normal of the neighbourhood, so that small relief does not tip the defect over.
    row, column = np.unravel_index(chosen, deep.shape)
    window = (slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3))
    normal = hits.normals[window][hits.part[window]].mean(axis=0)
    frame = sdf.frame(normal)
    if along is not None:
        flat = frame.T @ np.asarray(along, np.float32)
        angle = np.arctan2(flat[1], flat[0]) + rng.uniform(-spread, spread)
    else:
        angle = rng.uniform(0, 2 * np.pi)
    return Site(point, sdf.frame(normal, angle))


# --- what defects are made of


def local(
    tool: Callable[[Array], Array], centre: Array, reach: float, beyond: float | None = None
) -> Callable[[Array], Array]:
    """The tool's distance within 1.3·reach of the centre, a lower bound beyond; the tool lies within `reach`.

    beyond: this number instead of the lower bound.
    """
    centre, reach = np.asarray(centre, np.float32), np.float32(reach)

    def bounded(p: Array) -> Array:
        q = p - centre
        out = np.sqrt(row_dot(q, q)) - reach
        near = out < 0.3 * reach
        if beyond is not None:
            out = np.where(near, out, np.float32(beyond))
        if near.any():
            out[near] = tool(take(p, near))
        return out

    return bounded


def carve(part: Part, tool: Callable[[Array], Array], inside: Look | None, rounding: float, edge: float) -> Part:
    """Take the tool's volume away; what it lays bare looks like `inside`, fading out over `edge` around it."""

    def distance(p: Array) -> Array:
        return sdf.smooth_subtract(part.sdf(p), tool(p), rounding)

    def caster(p: Array) -> Array:
        return sdf.smooth_subtract(part.shadows(p), tool(p), rounding)

    def surface(p: Array, n: Array) -> Surface:
        base = part.surface(p, n).full()
        if inside is None:
            return base
        weight = 1 - smoothstep(edge * 0.3, edge, tool(p))
        near = weight > 0
        if not near.any():
            return base
        return base.blend(inside(p, n).full(), weight)

    return part.with_(sdf=distance, surface=surface, caster=caster if part.caster else None)


def add(
    part: Part, solid: Callable[[Array], Array], look: Look, rounding: float, centre: Array, reach: float, soft: float
) -> Part:
    """Join a solid that lies within `reach` of the centre; its look fades out over a tenth of `soft`, its thickness."""
    near_solid, cast_solid = local(solid, centre, reach), local(solid, centre, reach, beyond=1e3)

    def distance(p: Array) -> Array:
        return sdf.smooth_union(part.sdf(p), near_solid(p), rounding)

    def caster(p: Array) -> Array:
        return np.minimum(part.shadows(p), cast_solid(p))

    def surface(p: Array, n: Array) -> Surface:
        base = part.surface(p, n).full()
        weight = 1 - smoothstep(0.02 * soft, 0.1 * soft, near_solid(p))
        return base.blend(look(p, n).full(), weight) if (weight > 0).any() else base

    box = np.asarray(part.box, np.float32)
    low = np.minimum(box[0], centre - np.float32(reach))
    low[2] = box[0, 2]
    box = np.stack([low, np.maximum(box[1], centre + np.float32(reach))])
    return part.with_(sdf=distance, surface=surface, box=box, caster=caster)


def push(part: Part, field: Callable[[Array], Array], most: float) -> Part:
    """Move the surface outwards by field(p); `most` is how far at most (the box grows by it)."""
    box = part.grown(max(most, 0), max(most, 0))
    caster = (lambda p: part.caster(p) - field(p)) if part.caster else None
    return part.with_(sdf=lambda p: part.sdf(p) - field(p), box=box, step=part.step * 0.85, caster=caster)


def paint(part: Part, weight: Callable[[Array], Array], look: Look) -> Part:
    """Blend another look in by weight(p) in [0, 1]; the shape stays."""

    def surface(p: Array, n: Array) -> Surface:
        w = weight(p)
        base = part.surface(p, n).full()
        return base.blend(look(p, n).full(), w) if (w > 0).any() else base

    return part.with_(surface=surface)


def warp(part: Part, mapping: Callable[[Array], Array], box: object, step: float = 0.7) -> Part:
    """The part seen through a mapping of space (changed world -> original world), its look included."""
    return part.with_(
        sdf=lambda p: part.sdf(mapping(p)), surface=lambda p, n: part.surface(mapping(p), n),
        box=np.asarray(box, np.float32), step=part.step * step,
        caster=(lambda p: part.caster(mapping(p))) if part.caster else None,
    )  # fmt: skip
