"""Image, mask and cloud files; anything wrong with a file becomes one clear DataError."""

import io
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from mafr.errors import DataError

_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises DataError where it is missing, unreadable or empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from error
    if not content:
        raise DataError(f"{path}: the file is empty; copy or download it again")
    return content


def decode_image(content: bytes, path: Path) -> Image.Image:
    """A decoded image in its own mode. Raises DataError for damaged files; `path` is for the message."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except _IMAGE_ERRORS as error:
        raise DataError(
            f"{path}: not a complete image ({error}); an 8-bit png is expected: copy or download it again"
        ) from error
    return image


def decode_rgb(content: bytes, path: Path) -> np.ndarray:
    """(H, W, 3) uint8. Raises DataError."""
    image = decode_image(content, path)
    if image.mode.startswith(("I", "F")):  # converting these would silently clip bright values
        raise DataError(f"{path}: an image of mode {image.mode}, more than 8 bits per channel; save it as an 8-bit png")
    return np.asarray(image.convert("RGB"))


def decode_mask(content: bytes, path: Path) -> np.ndarray:
    """(H, W) bool: true where any colour channel is not zero (the tire category uses 253 to 255)."""
    image = decode_image(content, path)
    values = np.asarray(image)
    if values.ndim == 3:
        colours = values.shape[2] - (image.mode in ("LA", "RGBA"))  # an opaque alpha is not a defect
        return (values[:, :, :colours] != 0).any(axis=2)
    return values != 0


def decode_xyz(content: bytes, path: Path) -> np.ndarray:
    """An organised cloud (H, W, 3) float32.

    Raises DataError for damaged files, other shapes or types, values that are not finite, and clouds without a point.
    """
    if len(content) < 1024 and content.isascii() and content.decode().isprintable():
        # A symbolic link that was copied or checked out as a plain file.
        raise DataError(
            f"{path}: not a tiff but the text {content.decode()[:80]!r}, probably a link that was copied as text; put "
            "the file it names in its place"
        )
    try:
        xyz = tifffile.imread(io.BytesIO(content))
        if not xyz.size:
            raise ValueError("no image in it")
    except Exception as error:  # tifffile lets many kinds of errors through for damaged files
        raise DataError(
            f"{path}: not a complete tiff ({error}); copy or download it again, or preprocess again"
        ) from error
    if xyz.ndim != 3 or xyz.shape[2] != 3:
        raise DataError(f"{path}: an organised cloud of shape (height, width, 3) expected, found {xyz.shape}")
    if xyz.dtype not in (np.float32, np.float64):
        raise DataError(f"{path}: float32 coordinates in metres expected, found {xyz.dtype}")
    if not np.isfinite(xyz).all():
        count = np.count_nonzero(~np.isfinite(xyz).all(axis=2))
        raise DataError(f"{path}: {count} points are NaN or infinite; write (0, 0, 0) where there is no point")
    if not xyz.any():
        raise DataError(f"{path}: the cloud has no valid point, all are (0, 0, 0); scan again or leave it out")
    return xyz.astype(np.float32, copy=False)


def encode_xyz(xyz: np.ndarray) -> bytes:
    """An organised cloud (H, W, 3) as a float32 tiff, losslessly packed (half of a cloud is zeros)."""
    buffer = io.BytesIO()
    packing = {"compression": "zlib", "compressionargs": {"level": 1}}
    tifffile.imwrite(buffer, np.ascontiguousarray(xyz, dtype=np.float32), photometric="rgb", metadata=None, **packing)
    return buffer.getvalue()


def encode_png(image: np.ndarray, level: int = -1) -> bytes:
    """An image as a png file. level: zlib's, 0 to 9; -1 is its default."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png", compress_level=level)
    return buffer.getvalue()


def encode_mask(mask: np.ndarray) -> bytes:
    """A mask (H, W) bool as an 8-bit png of 0 and 255."""
    return encode_png(np.where(mask, 255, 0).astype(np.uint8))


def check_same_size(first: tuple[int, int], first_path: Path, second: tuple[int, int], second_path: Path) -> None:
    """Raise DataError unless two (height, width) agree."""
    if first != second:
        raise DataError(
            f"{second_path}: {second[1]}x{second[0]} pixels, but {first_path} has {first[1]}x{first[0]}; image, "
            "cloud and mask of a sample must match pixel by pixel"
        )


def check_mask_label(mask: np.ndarray, defect: str, path: Path) -> None:
    """Raise DataError where a good sample's mask marks anomalous pixels."""
    if defect == "good" and mask.any():
        raise DataError(
            f"{path}: the mask of a good sample marks {np.count_nonzero(mask)} pixels; empty the mask or move the "
            "sample to a defect's folder"
        )
