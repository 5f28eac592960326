"""Ten candies as solids: what `build_candy(category, rng)` returns, one part at a time.

Lengths in belt units, in which a candy is 0.5 to 1.1 long (the published cropping scales them by 0.1 to metres).
A candy's own frame has z up and its lowest point near z = 0; `place` lays it on the belt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mafr.data.synthetic.core import sdf as s
from mafr.data.synthetic.core.part import Part
from mafr.data.synthetic.core.render import Surface
from mafr.data.synthetic.eyecandies import discs, lumps, ropes
from mafr.data.synthetic.eyecandies.candy import Candy

Array = np.ndarray

BUILDERS: dict[str, Callable[[np.random.Generator], Candy]] = {
    "CandyCane": ropes.candy_cane,
    "ChocolateCookie": discs.chocolate_cookie,
    "ChocolatePraline": lumps.chocolate_praline,
    "Confetto": lumps.confetto,
    "GummyBear": lumps.gummy_bear,
    "HazelnutTruffle": lumps.hazelnut_truffle,
    "LicoriceSandwich": ropes.licorice_sandwich,
    "Lollipop": discs.lollipop,
    "Marshmallow": ropes.marshmallow,
    "PeppermintCandy": discs.peppermint_candy,
}


@dataclass(frozen=True)
class Placed:
    """A candy on the belt: the same in world coordinates, and how it was laid there."""

    part: Part
    grain: tuple[float, float]
    seed: int
    params: dict[str, object]


def build_candy(category: str, rng: np.random.Generator) -> Candy:
    """One candy of a class, its shape and material drawn from `rng`, in its own frame."""
    return BUILDERS[category](rng)


def place(candy: Candy, rng: np.random.Generator) -> Placed:
    """Lay a candy on the belt: any turn about the vertical that its class allows, a slight tilt and shift."""
    yaw = float(rng.uniform(-candy.yaw, candy.yaw))
    tilt = rng.normal(0, np.deg2rad(candy.tilt), 2)
    turn = s.rotation("z", yaw) @ s.rotation("x", float(tilt[0])) @ s.rotation("y", float(tilt[1]))
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
        return part.sdf(s.turn(p - offset, turn))

    def surface(p: Array, normals: Array) -> Surface:
        return part.surface(s.turn(p - offset, turn), s.turn(normals, turn))

    params = dict(candy.params) | {
        "rotation_degrees": round(float(np.rad2deg(yaw)), 3),
        "tilt_degrees": [round(float(x), 3) for x in np.rad2deg(tilt)],
        "offset": [round(float(x), 4) for x in offset],
    }
    return Placed(Part(distance, surface, box, part.step), candy.grain, candy.seed, params)
