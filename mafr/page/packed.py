"""Arrays of one sample as a run of deflated bytes in base64, which `decode.js` reads section by section.

Sections, in the order in which they were added:

- bits: a mask, one bit per value, the first in the highest bit of its byte; the last byte is filled up;
- levels: one byte per value of a map, in steps of 1/255 of its own range, as the difference, modulo 256, from what
  the values to the left, above and above left predict (left + above - above left; 0 outside the map), which deflates to
  a third;
- words: values in steps of 1/65535 of their range: first all high bytes, then all low ones;
- points: coordinates x, y and z as differences, modulo 65536, from those of the point before, in steps of 1/65535 of
  the longest side: first the high bytes of all x, all y, all z, then the low ones.

So a level is off by at most 1/510 of the map's range, a word by 1/131070, and a coordinate by half a step.
"""

import base64
import io
import zlib

import numpy as np
from PIL import Image

from mafr.figures.style import HEAT

QUALITY = 90  # of images


class Packed:
    """Sections in the order of the calls; what a call returns has to be given to the page."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def bits(self, mask: np.ndarray) -> None:
        """mask: bool, of any shape."""
        self._parts.append(np.packbits(mask).tobytes())

    def levels(self, values: np.ndarray) -> dict[str, float]:
        """values: (H, W); what is no number counts as the least. Returns the least value and the step."""
        low, step, scaled = _steps(values, 255)
        padded = np.pad(scaled.astype(np.uint8), ((1, 0), (1, 0)))  # uint8: differences wrap
        difference = padded[1:, 1:] - padded[1:, :-1] - padded[:-1, 1:] + padded[:-1, :-1]
        self._parts.append(difference.tobytes())
        return {"low": low, "step": step}

    def words(self, values: np.ndarray) -> dict[str, float]:
        """values: (n,). Returns the least value and the step."""
        low, step, scaled = _steps(values, 65535)
        self._parts.append(_bytes_apart(scaled.astype(np.uint16)))
        return {"low": low, "step": step}

    def points(self, cloud: np.ndarray) -> dict[str, object]:
        """cloud: (n, 3). Returns the number of points, the corner and the step."""
        if not len(cloud):
            return {"count": 0, "corner": [0.0, 0.0, 0.0], "step": 0.0}
        corner = cloud.min(axis=0)
        step = float(np.ptp(cloud, axis=0).max() / 65535)
        scaled = np.round((cloud - corner) / (step or 1.0)).astype(np.uint16)
        change = np.diff(scaled, axis=0, prepend=np.zeros((1, 3), dtype=np.uint16)).T  # uint16: differences wrap
        self._parts.append(_bytes_apart(change))
        return {"count": len(cloud), "corner": corner.tolist(), "step": step}

    def text(self) -> str:
        """All sections."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 6)).decode()


def image_url(rgb: np.ndarray, quality: int = QUALITY) -> str:
    """An image (H, W, 3) uint8 as a WebP data address."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "WEBP", quality=quality, method=2)  # slower methods save nothing
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def colours() -> str:
    """The 256 colours of heatmaps in this package, red, green and blue, as base64."""
    from matplotlib import colormaps

    table = (colormaps[HEAT](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    return base64.b64encode(table.tobytes()).decode()


def _steps(values: np.ndarray, count: int) -> tuple[float, float, np.ndarray]:
    """The least value, the step, and the values in steps, as floats."""
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    step = (high - low) / count
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low
    return float(low), float(step), np.round(values / (step or 1.0))


def _bytes_apart(words: np.ndarray) -> bytes:
    return (words >> 8).astype(np.uint8).tobytes() + (words & 255).astype(np.uint8).tobytes()
