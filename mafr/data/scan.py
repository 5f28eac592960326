"""A sample before it is brought to `Config.image_size`: image and cloud in the image's own pixels, without padding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mafr.data.formats.images import check_same_size, decode_rgb, decode_xyz, read_bytes
from mafr.data.transforms import common_side, crop_square


@dataclass(frozen=True)
class Scan:
    """An image of H x W pixels and its organised cloud, and the square around whose middle a `Sample` shows them."""

    rgb: np.ndarray  # (H, W, 3) uint8
    xyz: np.ndarray  # (H, W, 3) float32, metres; (0, 0, 0) where there is no point
    side: int  # of the square, in the image's pixels

    @classmethod
    def of(cls, rgb: np.ndarray, xyz: np.ndarray) -> Scan:
        """From an image (H, W, 3) and its cloud, which has the image's size or is padded to the square."""
        height, width = rgb.shape[:2]
        side = common_side((height, width), xyz.shape[:2])
        return cls(rgb, crop_square(xyz, height, width), side)

    @classmethod
    def read(cls, rgb: Path, xyz: Path) -> Scan:
        """From the files of a processed sample. Raises DataError where one is damaged, or the two differ in size."""
        image, cloud = decode_rgb(read_bytes(rgb), rgb), decode_xyz(read_bytes(xyz), xyz)
        if common_side(image.shape[:2], cloud.shape[:2]) is None:
            check_same_size(image.shape[:2], rgb, cloud.shape[:2], xyz)
        return cls.of(image, cloud)

    def stretched(self, side: int) -> np.ndarray:
        """The image as a square, whatever its own shape: (3, side, side) float32 in [0, 1].

        Bilinear, smoothed where it becomes smaller: what torchvision's `Resize((side, side))` does to an image.
        """
        square = np.asarray(Image.fromarray(self.rgb).resize((side, side), Image.Resampling.BILINEAR))
        return np.ascontiguousarray(square.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
