"""From native pixels to the square, resized arrays of a `Sample`."""

import numpy as np
from PIL import Image


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


def resize_nearest(array: np.ndarray, size: int) -> np.ndarray:
    """Resize a square (S, S, ...) to (size, size, ...), taking the pixel under each new pixel's centre.

    The rule is Pillow's, so that clouds and masks stay aligned with the bicubic image.
    """
    index = (2 * np.arange(size) + 1) * array.shape[0] // (2 * size)
    return array[index[:, None], index[None, :]]


def rgb_tensor(rgb: np.ndarray, side: int, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, size, size) float32 in [0, 1]: padded by edge values, bicubic."""
    square = Image.fromarray(pad_square(rgb, side, edge=True))
    resized = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(resized.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def xyz_tensor(xyz: np.ndarray, side: int, size: int) -> np.ndarray:
    """(H, W, 3) -> (3, size, size) float32: padded by zeros, nearest."""
    resized = resize_nearest(pad_square(xyz, side), size)
    return np.ascontiguousarray(resized.transpose(2, 0, 1), dtype=np.float32)


def mask_tensor(mask: np.ndarray, side: int, size: int) -> np.ndarray:
    """(H, W) bool -> (1, size, size) bool: padded by zeros, nearest."""
    return resize_nearest(pad_square(mask, side), size)[None]
