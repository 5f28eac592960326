"""What the candy builders share: the `Candy` record, colours, and a few patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mafr.data.synthetic.core.noise import smoothstep
from mafr.data.synthetic.core.part import Part
from mafr.data.synthetic.core.sdf import displace

Array = np.ndarray


@dataclass(frozen=True)
class Candy:
    """A candy in its own frame.

    Attributes:
        part: solid and look.
        grain: fine relief of the whole surface as (strength, wave length in belt units); it turns normals only.
        seed: of the grain.
        yaw: largest turn about the vertical when laid on the belt, radians.
        tilt: standard deviation of the tilt, degrees.
        params: what was drawn, for `obj_params.yaml`.
    """

    part: Part
    grain: tuple[float, float]
    seed: int
    yaw: float = np.pi
    tilt: float = 1.5
    params: dict[str, object] = field(default_factory=dict)


def colour(red: float, green: float, blue: float) -> Array:
    """A display colour (0 to 255) as linear albedo, (3,) float32."""
    return ((np.array([red, green, blue], np.float32) / 255) ** np.float32(2.2)).astype(np.float32)


def tinted(rng: np.random.Generator, base: Array, spread: float = 0.06) -> Array:
    """`base` a little lighter or darker, and a little off in hue."""
    return (base * np.exp(rng.normal(0, spread)) * np.exp(rng.normal(0, spread / 3, 3))).astype(np.float32)


def mix(first: Array, second: Array, weight: Array) -> Array:
    """first where weight is 0, second where it is 1. Colours (3,) or (N, 3), weight (N,); (N, 3) float32."""
    w = np.asarray(weight, np.float32)[:, None]
    return (first * (1 - w) + second * w).astype(np.float32)


def band(phase: Array, low: float, high: float, soft: float) -> Array:
    """1 where the cyclic `phase` (period 1) lies between low and high, with soft edges. (N,) in [0, 1]."""
    middle, half = (low + high) / 2, (high - low) / 2
    away = np.abs(np.mod(phase - middle + 0.5, 1.0) - 0.5)
    return smoothstep(half + soft, half - soft, away)


def embossed(d: Array, p: Array, amount: float, pattern: Callable[[Array], Array]) -> Array:
    """`sdf.displace`, continuous as far from the surface as any bump or dent moves it."""
    return displace(d, p, amount, pattern, reach=0.1)


def number(rng: np.random.Generator) -> int:
    """A seed for the noise functions."""
    return int(rng.integers(1 << 40))


def rounded(**values: float) -> dict[str, object]:
    """Drawn values as plain rounded numbers."""
    return {name: round(float(value), 4) for name, value in values.items()}
