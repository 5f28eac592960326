"""The ten categories of the MVTec-like half, by name."""

from __future__ import annotations

from mafr.data.synthetic.mvtec.bagel_cookie import BAKED
from mafr.data.synthetic.mvtec.carrot_peach_potato import GROWN
from mafr.data.synthetic.mvtec.gland_dowel_foam import MADE
from mafr.data.synthetic.mvtec.recipe import Recipe
from mafr.data.synthetic.mvtec.rope_tire import COILED

RECIPES: dict[str, Recipe] = dict(sorted((BAKED | COILED | GROWN | MADE).items()))
