"""A generated part: a solid, given by a signed distance function, and its look. Defects make a changed Part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mafr.data.synthetic.core.rows import Array, Field


@dataclass
class Surface:
    """Reflectance of surface points; all but the albedo (N,) or numbers."""

    albedo: Array  # (N, 3) linear
    specular: Array | float = 0.0  # strength of the highlight
    shininess: Array | float = 20.0  # its exponent
    wrap: Array | float = 0.0  # in [0, 1): lets light creep around edges, a cheap stand-in for subsurface scattering

    def full(self) -> Surface:
        """The same with one row per point in every field."""
        n = len(self.albedo)
        numbers = (self.specular, self.shininess, self.wrap)
        return Surface(np.asarray(self.albedo, np.float32), *(np.broadcast_to(np.float32(x), n) for x in numbers))

    def blend(self, other: Surface, weight: Array) -> Surface:
        """This surface where weight (N,) is 0, the other where it is 1."""
        w = np.asarray(weight, np.float32)
        pairs = ((self.specular, other.specular), (self.shininess, other.shininess), (self.wrap, other.wrap))
        mixed = (np.float32(a) * (1 - w) + np.float32(b) * w for a, b in pairs)
        return Surface(self.albedo * (1 - w[:, None]) + other.albedo * w[:, None], *mixed)


Look = Callable[[Array, Array], Surface]  # points and normals (N, 3) -> Surface


@dataclass(frozen=True)
class Part:
    """A solid and its look, in its own frame (= the world, see `render`), standing on z = 0."""

    sdf: Field  # negative inside; away from the surface a lower bound is enough
    surface: Look
    box: Array  # (2, 3), low and high corner around the solid
    step: float = 0.8  # fraction of the distance that tracing may safely advance
    caster: Field | None = None  # instead of the sdf where its loose lower bound would leave ghosts in soft shadows

    @property
    def shadows(self) -> Field:
        """The distance function that shadows and occlusion are computed from."""
        return self.caster or self.sdf

    def grown(self, margin: object) -> Array:
        """The box, larger by a margin (a number or (3,)); never below the ground."""
        box = np.asarray(self.box, np.float32).copy()
        box[0] -= np.asarray(margin, np.float32)
        box[1] += np.asarray(margin, np.float32)
        box[0, 2] = max(box[0, 2], 0.0) if self.box[0][2] >= 0 else box[0, 2]
        return box
