"""From native pixels to the square, resized arrays of a `Sample`."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mafr.config import Config


@dataclass(frozen=True)
class InputRules:
    """How files become the arrays of a `Sample`: the settings of these names, S is `size`."""

    size: int
    cloud_sampling: str = "centre"
    point_rule: str = "any"
    mask_padding: str = "zeros"
    image_background: str = "kept"

    @classmethod
    def of(cls, config: Config) -> "InputRules":
        """Those of a configuration."""
        own = (config.cloud_sampling, config.point_rule, config.mask_padding, config.image_background)
        return cls(config.image_size, *own)

    def arrays(
        self, rgb: np.ndarray, xyz: np.ndarray, mask: np.ndarray | None, side: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`rgb` (3, S, S), `xyz` (3, S, S) and `gt` (1, S, S) of a sample; no mask: nothing is anomalous.

        rgb: (H, W, 3) uint8; xyz: (H, W, 3), or padded to (side, side, 3); mask: (H, W) bool; side: `common_side`.
        """
        if self.point_rule == "all":
            xyz = whole_points(xyz)
        if self.image_background == "black":
            rgb = black_background(rgb, xyz)
        image, cloud = rgb_tensor(rgb, side, self.size), xyz_tensor(xyz, side, self.size, self.cloud_sampling)
        if mask is None:
            return image, cloud, np.zeros((1, self.size, self.size), dtype=bool)
        return image, cloud, mask_tensor(mask, side, self.size, edge=self.mask_padding == "edge")


def square_side(height: int, width: int) -> int:
    """Side of the square that preprocessing pads to: the longer side, up to the next multiple of 100."""
    return -(-max(height, width) // 100) * 100


def common_side(image: tuple[int, int], cloud: tuple[int, int]) -> int | None:
    """Side of the square shared by an image and its cloud, both (height, width).

    The cloud has the image's size or is padded already (`square_side`); None for any other size.
    """
    if cloud == image:
        return max(image)
    side = square_side(*image)
    return side if cloud == (side, side) else None


def pad_square(array: np.ndarray, side: int, edge: bool = False) -> np.ndarray:
    """Pad (H, W, ...) to (side, side, ...) around its centre, by zeros or by the edge's values."""
    height, width = array.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    widths = [(top, side - height - top), (left, side - width - left)] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, widths, mode="edge" if edge else "constant")


def crop_square(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """The inverse of `pad_square`: the middle (height, width, ...)."""
    top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
    return array[top : top + height, left : left + width]


def whole_points(xyz: np.ndarray) -> np.ndarray:
    """A cloud (H, W, 3) without its points of which a coordinate is exactly zero: they become (0, 0, 0).

    The released code takes a point for missing by this rule.
    """
    return np.where((xyz != 0).all(axis=2, keepdims=True), xyz, xyz.dtype.type(0))


def black_background(rgb: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) that is black where its cloud, (H, W, 3) or padded to a square, has no point.

    For MVTec 3D-AD, whose processed clouds hold the part alone. The published preprocessing (M3DM's) blackens the table
    and what is not the part as well, but keeps the colour of pixels that the sensor never measured. The processed copy
    no longer knows these from the removed ones, so that here they are black too.
    """
    points = (crop_square(xyz, *rgb.shape[:2]) != 0).any(axis=2, keepdims=True)
    return np.where(points, rgb, np.uint8(0))


def resize_nearest(array: np.ndarray, size: int, rule: str = "centre") -> np.ndarray:
    """Resize a square (S, S, ...) to (size, size, ...), taking one pixel for each new one.

    rule: "centre" takes the pixel under the new one's centre, as Pillow does, so that clouds and masks stay aligned
    with the bicubic image; "floor" takes pixel floor(i · S / size), in float32, as torch's
    `interpolate(mode="nearest")` does, about half a new pixel further to the top left.
    """
    side = array.shape[0]
    if rule == "floor":
        scale = np.float32(side) / np.float32(size)
        index = np.minimum(np.floor(np.arange(size, dtype=np.float32) * scale).astype(np.int64), side - 1)
    else:
        index = (2 * np.arange(size) + 1) * side // (2 * size)
    return array[index[:, None], index[None, :]]


def rgb_tensor(rgb: np.ndarray, side: int, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, size, size) float32 in [0, 1]: padded by edge values, bicubic."""
    square = Image.fromarray(pad_square(rgb, side, edge=True))
    resized = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(resized.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def xyz_tensor(xyz: np.ndarray, side: int, size: int, rule: str = "centre") -> np.ndarray:
    """(H, W, 3) -> (3, size, size) float32: padded by zeros, nearest by the rule of `resize_nearest`."""
    resized = resize_nearest(pad_square(xyz, side), size, rule)
    return np.ascontiguousarray(resized.transpose(2, 0, 1), dtype=np.float32)


def mask_tensor(mask: np.ndarray, side: int, size: int, edge: bool = False) -> np.ndarray:
    """(H, W) bool -> (1, size, size) bool: padded by zeros, or by the edge's values; nearest, as Pillow does."""
    return resize_nearest(pad_square(mask, side, edge), size)[None]
