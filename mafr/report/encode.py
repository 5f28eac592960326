"""A part's image, map and cloud as short text: about 25 to 55 kB at 224 x 224 pixels.

The image is WebP. All else is packed (`mafr.page.packed`) in this order: the pixels with a 3D point, those where heat
is shown, the map's levels, the cloud's points. The points are those of the pixels with a point where
(row + slant x column) % step is 0, row by row.
"""

import json

import numpy as np

from mafr.data.display import around_middle, thinned, thinning
from mafr.data.samples import Sample
from mafr.page.packed import Packed, image_url
from mafr.report.part import Part

POINTS = 6000  # of a cloud, at most


def check_part(part: Part) -> None:
    """Raises ValueError for arrays whose shapes do not fit together."""
    side = part.heat.shape[0] if part.heat.ndim == 2 else 0
    shapes = {"rgb": (side, side, 3), "heat": (side, side), "xyz": (3, side, side)}
    shapes |= {} if part.scored is None else {"scored": (side, side)}
    odd = {name: getattr(part, name).shape for name, wanted in shapes.items() if getattr(part, name).shape != wanted}
    if odd or not side:
        expected = "rgb (S, S, 3), heat (S, S), xyz (3, S, S) and scored (S, S)"
        raise ValueError(f"part {part.name!r}: {expected} expected, found {odd}")
    if part.rgb.dtype != np.uint8:
        raise ValueError(f"part {part.name!r}: rgb must be uint8, not {part.rgb.dtype}")


def encode(part: Part) -> str:
    """A part's arrays as JSON without characters that HTML would read; see the module's text."""
    valid, packed = (part.xyz != 0).any(axis=0), Packed()
    packed.bits(valid)
    packed.bits(valid if part.scored is None else part.scored)
    heat = packed.levels(part.heat)
    cloud = packed.points(_points(part, valid)) | {"lattice": thinning(valid, POINTS)}  # mm
    value = {"side": len(valid), "image": image_url(part.rgb), "bytes": packed.text(), "heat": heat, "cloud": cloud}
    return json.dumps(value, separators=(",", ":"))


def _points(part: Part, valid: np.ndarray) -> np.ndarray:
    """(n, 3) in mm, towards the viewer."""
    if not valid.any():
        return np.zeros((0, 3))
    sample = Sample(part.rgb, part.xyz, valid[None], 0, "", "", part.name)
    return around_middle(sample, *thinned(valid, POINTS))
