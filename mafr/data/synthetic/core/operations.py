"""Operations that defects are made of: a place on the surface (`pick_site`), and changes of a Part's shape and look."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from mafr.data.synthetic.core import noise, sdf
from mafr.data.synthetic.core.noise import smoothstep
from mafr.data.synthetic.core.part import Look, Part, Surface
from mafr.data.synthetic.core.render import Hits
from mafr.data.synthetic.core.rows import Array, Field, Rng, length, take


def plain_look(
    colour: object, specular: float, shininess: float, wrap: float, mottle: float, scale: float, seed: int
) -> Look:
    """A surface function of one linear colour, mottled by noise of `scale` features per unit."""
    colour = np.asarray(colour, np.float32)

    def look(p: Array, n: Array) -> Surface:
        shade = 1 + np.float32(mottle) * noise.fbm(p * np.float32(scale), seed, 2)
        return Surface(np.clip(colour * shade[:, None], 0, 1), specular, shininess, wrap)

    return look


@dataclass(frozen=True)
class Site:
    """A defect's place: a surface point and a frame (columns u, v, normal)."""

    point: Array
    frame: Array

    def local(self, p: Array) -> Array:
        """(N, 3) world points -> (u, v, n)."""
        return (p - self.point) @ self.frame

    @property
    def normal(self) -> Array:
        return self.frame[:, 2]


def pick_site(rng: Rng, hits: Hits, margin: float, facing: float = 0.45, where: Field | None = None,
              along: object | None = None, spread: float = np.pi) -> Site:  # fmt: skip
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


def local(tool: Field, centre: Array, reach: float, beyond: float | None = None) -> Field:
    """The distance of a tool that lies within `reach` of the centre; a lower bound, or `beyond`, 1.3·reach away."""
    centre, reach = np.asarray(centre, np.float32), np.float32(reach)

    def bounded(p: Array) -> Array:
        q = p - centre
        out = length(q) - reach
        near = out < 0.3 * reach
        if beyond is not None:
            out = np.where(near, out, np.float32(beyond))
        if near.any():
            out[near] = tool(take(p, near))
        return out

    return bounded


def paint(part: Part, weight: Field, look: Look) -> Part:
    """Blend another look in by weight(p) in [0, 1]; the shape stays."""

    def surface(p: Array, n: Array) -> Surface:
        w = weight(p)
        base = part.surface(p, n).full()
        return base.blend(look(p, n).full(), w) if (w > 0).any() else base

    return replace(part, surface=surface)


def _reshaped(part: Part, change: Callable[[Field], Field], **others: object) -> Part:
    """The part with both its distance functions changed."""
    return replace(part, sdf=change(part.sdf), caster=change(part.caster) if part.caster else None, **others)


def carve(part: Part, tool: Field, inside: Look | None, rounding: float, edge: float) -> Part:
    """Take the tool's volume away; what it exposes looks like `inside`, fading out over `edge` around it."""
    if inside is not None:
        part = paint(part, lambda p: 1 - smoothstep(edge * 0.3, edge, tool(p)), inside)
    return _reshaped(part, lambda distance: lambda p: sdf.smooth_subtract(distance(p), tool(p), rounding))


def add(part: Part, solid: Field, look: Look, rounding: float, centre: Array, reach: float, soft: float) -> Part:
    """Join a solid that lies within `reach` of the centre; its look fades out over a tenth of `soft`, its thickness."""
    near_solid, cast_solid = local(solid, centre, reach), local(solid, centre, reach, beyond=1e3)
    painted = paint(part, lambda p: 1 - smoothstep(0.02 * soft, 0.1 * soft, near_solid(p)), look)
    low, high = np.asarray(part.box, np.float32)
    box = np.stack([np.minimum(low, centre - np.float32(reach)), np.maximum(high, centre + np.float32(reach))])
    box[0, 2] = low[2]
    return replace(
        painted, sdf=lambda p: sdf.smooth_union(part.sdf(p), near_solid(p), rounding), box=box,
        caster=lambda p: np.minimum(part.shadows(p), cast_solid(p)),
    )  # fmt: skip


def push(part: Part, field: Field, most: float) -> Part:
    """Move the surface outwards by field(p), at most by `most`: the box grows by it."""
    box, step = part.grown(max(most, 0)), part.step * 0.85
    return _reshaped(part, lambda distance: lambda p: distance(p) - field(p), box=box, step=step)


def warp(part: Part, mapping: Field, box: Array) -> Part:
    """The part seen through a mapping of space (changed world -> original world), its look included."""

    def surface(p: Array, n: Array) -> Surface:
        return part.surface(mapping(p), n)

    changes = {"surface": surface, "box": box, "step": part.step * 0.85}
    return _reshaped(part, lambda distance: lambda p: distance(mapping(p)), **changes)
