"""Image, mask and cloud files; anything wrong with a file becomes one clear DataError."""

import io
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from mafr.data.formats.kinds import advice_for, kind_of
from mafr.data.formats.tiffs import decode_tiff, is_tiff
from mafr.errors import DataError, notice

_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_IMAGES = ("a PNG", "a JPEG", "a GIF", "a BMP", "a WebP", "a PGM", "a PPM")  # kinds that Pillow reads
_STRIP = 2**18  # bytes of a cloud that are packed together, tifffile's own choice
_SUSPICIOUS = 0.5  # of an image; an inverted mask marks more, a defect less


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises DataError where it is missing, unreadable or empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from error
    if not content:
        raise DataError(f"{path}: the file is empty; copy or download it again")
    return content


def decode_image(content: bytes, path: Path, expected: str = "an 8-bit png or jpg") -> Image.Image:
    """A decoded image in its own mode. Raises DataError for damaged files and other kinds.

    path, expected: for the message.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except _IMAGE_ERRORS as error:
        kind = kind_of(content)
        if kind and not kind.startswith(_IMAGES):
            advice = advice_for(kind, "save what it shows as that")
            raise DataError(f"{path}: {kind}; {expected} is expected: {advice}") from error
        reason = "it begins as none" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"{path}: not a complete image ({reason}); {expected} is expected: copy or download it again"
        ) from error
    return image


def decode_rgb(content: bytes, path: Path) -> np.ndarray:
    """(H, W, 3) uint8, from a png or jpg. Raises DataError."""
    image = decode_image(content, path)
    if image.mode.startswith(("I", "F")):  # converting these would silently clip bright values
        raise DataError(f"{path}: an image of mode {image.mode}, more than 8 bits per channel; save it as an 8-bit png")
    if (bits := _bits(image, content)) > 8:  # read as 8 bits, such an image would keep its high bytes alone
        raise DataError(
            f"{path}: a colour image of {bits} bits per channel; 8 bits per channel are expected: scale its values to "
            "0 to 255, by the same factor in all images, and save it as an 8-bit png"
        )
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) if image.format in ("JPEG", "MPO") else 1
    if turned != 1:
        raise DataError(
            f"{path}: its EXIF orientation {turned} has viewers turn the image, and which way the cloud lies is not "
            "known; save the image without it, pixel by pixel as the cloud"
        )
    return np.asarray(image.convert("RGB"))


def _bits(image: Image.Image, content: bytes) -> int:
    """The bits per channel in a png's or tiff's file, which an image's mode does not tell for colours; 8 for others."""
    if image.format == "PNG":
        return content[content.index(b"IHDR") + 12]  # after the chunk's name 4, width 4 and height 4
    if image.format == "TIFF":
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,)))
    return 8


def decode_mask(content: bytes, path: Path) -> np.ndarray:
    """(H, W) bool: true where any colour channel is not zero (the tire category uses 253 to 255).

    In a palette image the colours count, not their indices. Raises DataError for damaged files and where no pixel is
    zero though the values differ, or a palette has no colour but black.
    """
    image = decode_image(content, path)
    values = np.asarray(image)
    if image.mode in ("P", "PA"):
        indices = values if image.mode == "P" else values[:, :, 0]
        levels = np.zeros(256, dtype=np.uint8)  # of each index; those without a colour are black
        colours = np.reshape(image.getpalette("RGB"), (-1, 3)).max(axis=1)
        levels[: len(colours)] = colours
        values = levels[indices]
        if not values.any() and indices.min() != indices.max():
            raise DataError(
                f"{path}: a palette image whose colours are all black, though its indices run from {indices.min()} to "
                f"{indices.max()}; save the mask as 8-bit grey"
            )
    if values.ndim == 3:
        colours = values.shape[2] - (image.mode in ("LA", "RGBA"))  # an opaque alpha is not a defect
        values = values[:, :, :colours]
        mask = (values != 0).any(axis=2)
    else:
        mask = values != 0
    if mask.all() and values.dtype != bool:
        levels = values if values.ndim == 2 else values.max(axis=2)
        lowest, highest = int(levels.min()), int(levels.max())
        if highest >= 2 * lowest:
            raise DataError(
                f"{path}: no pixel of the mask is zero, its values run from {lowest} to {highest}; write 0 where "
                "nothing is anomalous"
            )
    return mask


def warn_of_mask(mask: np.ndarray, path: Path) -> None:
    """Print a line where a mask (H, W) bool marks most of the image, as an inverted one does."""
    share = float(mask.mean())
    if share > _SUSPICIOUS:
        notice(
            f"warning: {path}: the mask marks {share:.1%} of the image; it should be zero wherever nothing is "
            "anomalous: is it inverted?"
        )


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
    if not is_tiff(content) and (kind := kind_of(content)):
        advice = advice_for(kind, "save the cloud as a tiff of shape (height, width, 3) in metres, as PLY or as PCD")
        raise DataError(f"{path}: {kind}, not a tiff of coordinates; {advice}")
    xyz = decode_tiff(content, path, "copy or download it again, or preprocess again")
    if xyz.ndim != 3 or xyz.shape[2] != 3:
        hint = (
            "; if it is a depth image, put it into depth/ in place of xyz/, with its camera in the category's "
            "intrinsics.json (`mafr predict`: --intrinsics FILE)"
        )
        raise DataError(
            f"{path}: an organised cloud of shape (height, width, 3) expected, found {xyz.shape}"
            f"{hint if xyz.ndim == 2 else ''}"
        )
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
    xyz = np.ascontiguousarray(xyz, dtype=np.float32)
    rows = min(max(_STRIP // (xyz.shape[1] * 12), 1), len(xyz))
    # By zlib itself: which library packs for tifffile, and so the file's bytes, depends on what is installed.
    strips = (zlib.compress(xyz[k : k + rows], 1) for k in range(0, len(xyz), rows))
    layout = {"shape": xyz.shape, "dtype": xyz.dtype, "rowsperstrip": rows, "compression": "zlib"}
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, strips, photometric="rgb", metadata=None, **layout)
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
