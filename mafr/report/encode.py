"""A part's image, map and cloud as short text: about 25 to 55 kB at 224 x 224 pixels.

The image is WebP. All else is one deflated run of bytes in base64, in this order:

- one bit per pixel, row by row, the first in the highest bit: whether it has a 3D point; the last byte is filled up;
- the same: whether heat is shown there;
- one byte per pixel of the map: its value in steps of 1/255 of the map's own range, as the difference, modulo 256, from
  what the pixels to the left, above and above left predict (left + above - above left; 0 outside the map), which
  deflates to a third;
- the cloud's coordinates x, y and z as differences, modulo 65536, from those of the point before it, in steps of
  1/65535 of its longest side: first the high bytes of all x, all y, all z, then the low ones. The points are those of
  the pixels with a point where (row + slant x column) % step is 0, row by row.

So a map's value is off by at most 1/510 of its range and a coordinate by half a step, a micrometre for a part of 13 cm.
"""

import base64
import io
import json
import zlib

import numpy as np
from PIL import Image

from mafr.data.display import around_middle, thinned, thinning
from mafr.data.samples import Sample
from mafr.report.part import Part

POINTS = 6000  # of a cloud, at most
QUALITY = 90  # of the image


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
    valid = (part.xyz != 0).any(axis=0)
    low, step, levels = _levels(part.heat)
    lattice = thinning(valid, POINTS)
    cloud, corner, unit = _coordinates(part, valid)
    shown = valid if part.scored is None else part.scored
    content = np.packbits(valid).tobytes() + np.packbits(shown).tobytes() + _map_bytes(levels) + _cloud_bytes(cloud)
    value = {
        "side": len(valid),
        "image": f"data:image/webp;base64,{_webp(part.rgb)}",
        "bytes": base64.b64encode(zlib.compress(content, 6)).decode(),
        "heat": {"low": low, "step": step},
        "cloud": {"count": len(cloud), "lattice": lattice, "corner": corner, "step": unit},  # mm
    }
    return json.dumps(value, separators=(",", ":"))


def _webp(rgb: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "WEBP", quality=QUALITY, method=2)  # slower ones save nothing
    return base64.b64encode(buffer.getvalue()).decode()


def _levels(heat: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The least value, the step, and the map (S, S) uint8 in steps; what is no number counts as the least."""
    finite = np.isfinite(heat)
    values = heat.astype(np.float64)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    step = (high - low) / 255
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low
    return float(low), float(step), np.round(values / (step or 1.0)).astype(np.uint8)


def _map_bytes(levels: np.ndarray) -> bytes:
    padded = np.pad(levels, ((1, 0), (1, 0)))  # uint8: differences wrap
    return (padded[1:, 1:] - padded[1:, :-1] - padded[:-1, 1:] + padded[:-1, :-1]).tobytes()


def _coordinates(part: Part, valid: np.ndarray) -> tuple[np.ndarray, list[float], float]:
    """(n, 3) uint16 in steps, the corner (x, y, z) and the step in mm, towards the viewer."""
    if not valid.any():
        return np.zeros((0, 3), dtype=np.uint16), [0.0, 0.0, 0.0], 0.0
    sample = Sample(part.rgb, part.xyz, valid[None], 0, "", "", part.name)
    points = around_middle(sample, *thinned(valid, POINTS))
    corner = points.min(axis=0)
    step = float(np.ptp(points, axis=0).max() / 65535)
    return np.round((points - corner) / (step or 1.0)).astype(np.uint16), corner.tolist(), step


def _cloud_bytes(cloud: np.ndarray) -> bytes:
    change = np.diff(cloud, axis=0, prepend=np.zeros((1, 3), dtype=np.uint16)).T  # uint16: differences wrap
    return (change >> 8).astype(np.uint8).tobytes() + (change & 255).astype(np.uint8).tobytes()
