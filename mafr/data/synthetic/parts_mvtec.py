"""The ten categories of the MVTec-like half, by name."""

from __future__ import annotations

from mafr.data.synthetic.parts_mvtec_baked import BAKED
from mafr.data.synthetic.parts_mvtec_base import Recipe
from mafr.data.synthetic.parts_mvtec_coiled import COILED
from mafr.data.synthetic.parts_mvtec_grown import GROWN
from mafr.data.synthetic.parts_mvtec_made import MADE

RECIPES: dict[str, Recipe] = dict(sorted((BAKED | COILED | GROWN | MADE).items()))
