"""The recipe of an MVTec-like category, and helpers that its solid models share.

Lengths are millimetres, angles degrees, colours linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mafr.data.synthetic.core.part import Part
from mafr.data.synthetic.core.render import Hits
from mafr.data.synthetic.core.rows import Array, Field, Rng

# (part, hits, rng, severity) -> the part with the defect. hits: the clean part as the camera sees it; severity: from 0
# (hardly visible) to 1 (obvious).
DefectMaker = Callable[[Part, Hits, Rng, float], Part]

# What the second generator changes of every recipe, after the real cable gland's scans: the place of the camera and a
# black table.
SECOND = {
    "distance": 650.0, "tilt": 16.0, "lean": -8.0, "baseline": 160.0, "table": (0.004, 0.004, 0.0045),
    "table_gloss": 0.002, "tolerance": 0.008,
}  # fmt: skip

@dataclass(frozen=True)
class Recipe:
    """A category: its part, its defects by name, and the scanner. """

    make: Callable[[Rng], Part]
    defects: Mapping[str, DefectMaker]
    size: tuple[int, int] = (800, 800)  # the real data set's width and height
    view: float = 140.0  # along the longer side at the table
    tilt: float = 8.0  # of the camera off the vertical, along y
    lean: float = 0.0  # the same along x
    distance: float = 420.0  # of the camera
    spin: float = 180.0  # the part's turn on the table, ±
    shift: float = 5.0  # the part's shift on the table, ±
    azimuth: float = 130.0  # of the lamp
    elevation: float = 50.0
    lamp: float = 1.0  # strength
    ambient: float = 0.35
    warmth: float = 1.08  # the lamp's red over blue
    table: tuple[float, float, float] = (0.05, 0.05, 0.055)  # albedo
    table_gloss: float = 0.03
    baseline: float = 130.0  # from the camera to the projector, along x
    tolerance: float = 0.03  # of the rays' ends
    exposure: float = 1.0  # of the scanner's pattern
    defect_codes: Mapping[str, int] = field(default_factory=dict)  # values in the mask if not 255
    second: Mapping[str, object] = field(default_factory=dict)  # beside `SECOND`

    def of(self, generator: str) -> Recipe:
        """The recipe of the first or second generator."""
        return replace(self, **{**SECOND, **self.second}) if generator == "second" else self


def between(low: float, high: float, severity: float) -> float:
    """From low (severity 0) to high (severity 1)."""
    return low + (high - low) * severity


def stretched(p: Array, factors: object) -> Array:
    """Points scaled per coordinate, for textures."""
    return p * np.asarray(factors, np.float32)


def mix(a: object, b: object, weight: Array) -> Array:
    """Colours a where weight is 0, b where it is 1: (N, 3)."""
    return np.asarray(a, np.float32) * (1 - weight[:, None]) + np.asarray(b, np.float32) * weight[:, None]


def shrunk(body: Field, amount: float) -> Field:
    """A shadow caster for a displaced body: the smooth body, smaller by `amount` so that it lies within."""
    return lambda p: body(p) + np.float32(amount)


def seeds(rng: Rng, count: int) -> list[int]:
    """Seeds for the noises of one part."""
    return [int(s) for s in rng.integers(1 << 31, size=count)]
