"""A part: a solid with a look. Defects take a Part and give a changed one (`defects.py`).

- `Part(sdf, surface, box, step=0.8, caster=None)`: sdf (N, 3) -> (N,); surface (points, normals) -> `render.Surface`;
  box (2, 3) holds the solid, in its own frame (= the world, see `render`), standing on z = 0; step: the tracing step
  that is safe for this sdf; caster: what casts its shadows, by default the sdf (`part.shadows`). An sdf may be a loose
  lower bound away from the surface, which is fine for tracing but would leave ghosts in soft shadows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mafr.data.synthetic.core.render import Surface

Array = np.ndarray


@dataclass(frozen=True)
class Part:
    """A solid and its look; see the module's text."""

    sdf: Callable[[Array], Array]
    surface: Callable[[Array, Array], Surface]
    box: Array
    step: float = 0.8
    caster: Callable[[Array], Array] | None = None

    @property
    def shadows(self) -> Callable[[Array], Array]:
        """The distance function that shadows and occlusion are computed from."""
        return self.caster or self.sdf

    def with_(self, **changes: object) -> Part:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def grown(self, low: object = 0.0, high: object = 0.0) -> Array:
        """The box, larger by `low` and `high` (numbers or (3,)); never below the ground."""
        box = np.asarray(self.box, np.float32).copy()
        box[0] -= np.asarray(low, np.float32)
        box[1] += np.asarray(high, np.float32)
        box[0, 2] = max(box[0, 2], 0.0) if self.box[0][2] >= 0 else box[0, 2]
        return box
