"""Candies: the record that builders return, how one is laid on the belt, and the builders' colours and patterns.

Lengths in belt units, in which a candy is 0.5 to 1.1 long (the published cropping scales them by 0.1 to metres).
"""

from dataclasses import dataclass

import numpy as np

from mafr.data.synthetic.core import sdf
from mafr.data.synthetic.core.noise import smoothstep
from mafr.data.synthetic.core.part import Part, Surface
from mafr.data.synthetic.core.rows import Array, Field, Rng


@dataclass(frozen=True)
class Candy:
    """A candy in its own frame (z up, its lowest point near z = 0) or, once placed, in the world."""

    part: Part
    grain: tuple[float, float]  # strength and wave length of a fine relief that only turns normals
    seed: int  # of the grain
    params: dict[str, object]  # drawn values, for `obj_params.yaml`
    tilt: float  # standard deviation of the tilt on the belt, degrees


def place(candy: Candy, rng: Rng) -> Candy:
    """A candy laid on the belt: turned about the vertical, a little tilted and shifted."""
    yaw = float(rng.uniform(-np.pi, np.pi))
    tilt = rng.normal(0, np.deg2rad(candy.tilt), 2)
    turn = sdf.rotation("z", yaw) @ sdf.rotation("x", float(tilt[0])) @ sdf.rotation("y", float(tilt[1]))
    offset = np.array([rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05), 0.0], np.float32)
    part = candy.part
    low, high = np.asarray(part.box, np.float32)
    middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 0.0], np.float32)
    offset -= turn @ middle  # the box's middle comes to lie near the middle of the view
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    moved = corners @ turn.T + offset
    box = np.stack([moved.min(0), moved.max(0)]).astype(np.float32)
    box[0, 2] = max(box[0, 2], -0.02)

    def distance(p: Array) -> Array:
        return part.sdf(sdf.turn(p - offset, turn))

    def surface(p: Array, normals: Array) -> Surface:
        return part.surface(sdf.turn(p - offset, turn), sdf.turn(normals, turn))

    params = candy.params | {
        "rotation_degrees": round(float(np.rad2deg(yaw)), 3),
        "tilt_degrees": [round(float(x), 3) for x in np.rad2deg(tilt)],
        "offset": [round(float(x), 4) for x in offset],
    }
    return Candy(Part(distance, surface, box, part.step), candy.grain, candy.seed, params, candy.tilt)


def colour(red: float, green: float, blue: float) -> Array:
    """A display colour (0 to 255) as linear albedo, (3,) float32."""
    return ((np.array([red, green, blue], np.float32) / 255) ** np.float32(2.2)).astype(np.float32)


def tinted(rng: Rng, base: Array, spread: float = 0.06) -> Array:
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


def embossed(d: Array, p: Array, amount: float, pattern: Field) -> Array:
    """`sdf.displace`, continuous as far from the surface as any bump or dent moves it."""
    return sdf.displace(d, p, amount, pattern, reach=0.1)


def draw_seed(rng: Rng) -> int:
    """A seed for the noise functions."""
    return int(rng.integers(1 << 40))


def rounded(**values: float) -> dict[str, object]:
    """Drawn values as plain rounded numbers."""
    return {name: round(float(value), 4) for name, value in values.items()}
