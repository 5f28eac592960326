"""The square around a part, for networks that see it instead of the whole image.

Maps are made in the window and brought back to the whole image (`mafr.scoring`), where masks and metrics are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mafr.data.scan import Scan
from mafr.data.transforms import InputRules, black_background, pad_square, whole_points

MARGIN = 1.1  # side of the window over the part's longer extent


@dataclass(frozen=True)
class Window:
    """A square within the padded image; all lengths are shares of the image's side."""

    top: float
    left: float
    side: float

    @classmethod
    def of(cls, mask: np.ndarray) -> Window:
        """Around the pixels of a part, (S, S) bool, a tenth larger; the whole image where there are none."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return cls(0.0, 0.0, 1.0)
        size = len(mask)
        side = min(float(size), MARGIN * (max(np.ptp(rows), np.ptp(columns)) + 1))
        top, left = ((axis[0] + axis[-1] + 1 - side) / 2 for axis in (rows, columns))
        low = (min(max(start, 0.0), size - side) for start in (top, left))
        return cls(*(start / size for start in low), side / size)

    def arrays(self, scan: Scan, rules: InputRules) -> tuple[np.ndarray, np.ndarray]:
        """The window of a scan: the image (3, S, S) float32 in [0, 1], bicubic, and the cloud (3, T, T) float32 metres.

        T is S, or less where the window has fewer pixels: no point is taken twice.
        """
        xyz = whole_points(scan.xyz) if rules.point_rule == "all" else scan.xyz
        rgb = black_background(scan.rgb, xyz) if rules.image_background == "black" else scan.rgb
        square = Image.fromarray(pad_square(rgb, scan.side, edge=True))
        left, top = self.left * scan.side, self.top * scan.side
        box = (left, top, left + self.side * scan.side, top + self.side * scan.side)
        image = np.asarray(square.resize((rules.size, rules.size), Image.Resampling.BICUBIC, box=box))
        count = max(1, min(rules.size, int(self.side * scan.side)))
        places = (np.arange(count) + 0.5) / count * self.side
        rows, columns = (np.int64((start + places) * scan.side) for start in (self.top, self.left))
        cloud = pad_square(xyz, scan.side)[rows[:, None], columns]
        return (
            np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / np.float32(255),
            np.ascontiguousarray(cloud.transpose(2, 0, 1), dtype=np.float32),
        )

    def places(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns (size,) of the whole image's pixels in the window: 0 and 1 are its edges."""
        centres = (np.arange(size) + 0.5) / size
        return (centres - self.top) / self.side, (centres - self.left) / self.side
