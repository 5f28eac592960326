"""The user's own organised clouds: xyz tiffs, PLY, PCD, and depth images with their camera, all as one array."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mafr.data.formats.gaps import drop_constants, drop_far, drop_repeated
from mafr.data.formats.images import check_same_size, decode_image, decode_xyz
from mafr.data.formats.kinds import kind_of
from mafr.data.formats.points import decode_pcd, decode_ply, is_pcd, is_ply
from mafr.data.formats.tiffs import decode_tiff, is_tiff, tiff_shape
from mafr.errors import DataError

CAMERA_FILES = ("intrinsics.json", "camera_parameters.json")  # in a category's folder or in its calibration/
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
FARTHEST = 20.0  # metres; a part or scan beyond it is in another unit, a few points are none of it
COARSEST = 0.05  # metres between neighbouring pixels; a coarser scan of a part is in another unit
WIDEST = 150.0  # degrees; a wider view means that the focal length is not in pixels of this image
# The usual names of a 3 x 3 matrix: ours and OpenCV's, ROS's, Open3D's, BOP's.
_MATRICES = ("camera_matrix", "K", "intrinsic_matrix", "cam_K")
# The usual names of distortion coefficients: ours and RealSense's, OpenCV's, ROS's; then single ones.
_DISTORTION = ("distortion", "coeffs", "dist", "dist_coeffs", "distCoeffs", "distortion_coefficients", "D")
_DISTORTION += ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera; a file without fx and fy, for its unit alone, leaves `focal` and `centre` None."""

    focal: tuple[float, float] | None  # pixels, x and y
    centre: tuple[float, float] | None  # principal point, pixels
    skew: float  # pixels; almost always 0
    depth_scale: float | None  # metres per step of an integer depth image
    unit: float  # metres
    size: tuple[int, int] | None  # (height, width) if given
    path: Path  # for messages


def decode_intrinsics(content: bytes, path: Path) -> Intrinsics:
    """A camera from json: fx, fy, cx, cy (or focal_length_px; or a 3 x 3 camera_matrix), depth_scale, unit.

    The matrix comes row by row: fx, skew, cx; 0, fy, cy; 0, 0, 1. `depth_scale` below 1 is metres per step of an
    integer depth image, above 1 steps per metre; `unit` (m, cm or mm) is that of PLY and PCD coordinates and of depth
    images in floating point. Raises DataError for other content.
    """
    try:
        values = json.loads(content)
        if not isinstance(values, Mapping):
            raise ValueError("not an object")
        focal, centre, skew = _pinhole(values)
        scale = values.get("depth_scale")
        scale = None if scale is None else float(scale)
        size = (int(values["height"]), int(values["width"])) if {"height", "width"} <= set(values) else None
        numbers = [*(focal or ()), *(centre or ()), skew, 1.0 if scale is None else scale]
        if not np.isfinite(numbers).all() or min(*(focal or (1.0,)), numbers[-1]) <= 0:
            raise ValueError("focal lengths and depth_scale must be positive")
        bent = [f"{name} {values[name]}" for name in _DISTORTION if _is_bent(values.get(name))]
        if bent:
            raise ValueError(f"{', '.join(bent)}: distortion is not supported: undistort image and depth first")
        if values.get("unit", "m") not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}")
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise DataError(
            f"{path}: no camera parameters ({type(error).__name__}: {error}); numbers fx, fy, cx, cy in pixels and, "
            "for integer depth, depth_scale in metres expected"
        ) from error
    if scale is not None and scale > 1:
        scale = 1 / scale
    return Intrinsics(focal, centre, skew, scale, UNITS[values.get("unit", "m")], size, path)


def _is_bent(value: object) -> bool:
    if isinstance(value, Mapping):  # OpenCV and ROS write matrices as rows, cols and data
        value = value.get("data", list(value.values()))
    return bool(np.any(np.asarray(0 if value is None else value, dtype=float)))


def _pinhole(values: Mapping) -> tuple[tuple[float, float] | None, tuple[float, float] | None, float]:
    """Focal lengths, principal point, skew."""
    names = [name for name in _MATRICES if name in values]
    if names and (names[0] == "camera_matrix" or "fx" not in values):
        return _from_matrix(names[0], values[names[0]])
    if "focal_length_px" in values:
        values = {"fx": values["focal_length_px"], "fy": values["focal_length_px"], **values}
    skew = float(values.get("skew") or 0.0)
    if "fx" not in values and "fy" not in values:
        return None, None, skew
    return (float(values["fx"]), float(values["fy"])), (float(values["cx"]), float(values["cy"])), skew


def _from_matrix(name: str, value: object) -> tuple[tuple[float, float], tuple[float, float], float]:
    if isinstance(value, Mapping):
        value = value["data"]
    matrix = np.asarray(value, dtype=float)
    if matrix.size != 9:
        raise ValueError(f"{name} has {matrix.size} numbers instead of 3 x 3")
    (fx, skew, cx), (below, fy, cy), last = matrix.reshape(3, 3).tolist()
    if last != [0, 0, 1] or below != 0:
        turned = " is transposed, or column by column" if [cx, cy] == [0, 0] and any(last[:2]) else ""
        raise ValueError(
            f"{name}{turned}: rows fx, skew, cx; 0, fy, cy; 0, 0, 1 expected, found {matrix.reshape(3, 3).tolist()}"
        )
    return (fx, fy), (cx, cy), skew


def decode_cloud(
    content: bytes, path: Path, image: tuple[int, int], image_path: Path, camera: Intrinsics | None = None
) -> np.ndarray:
    """An organised cloud (H, W, 3) float32, metres, from an xyz tiff, PLY or PCD file; (0, 0, 0) for no point.

    A point that many pixels share stands for "no data", see `mafr.data.formats.gaps`.

    image: (height, width); PLY and PCD files must hold a point for each of its pixels, row by row. camera: for the unit
    of PLY and PCD files. Raises DataError where the file is damaged or not organised as the image is, or no point is
    valid.
    """
    if not is_ply(content) and not is_pcd(content):
        return drop_repeated(drop_far(decode_xyz(content, path), FARTHEST, path), path)
    points, size = (decode_ply if is_ply(content) else decode_pcd)(content, path)
    if size is not None and size[0] * size[1] == len(points):
        check_same_size(image, image_path, size, path)
    elif len(points) != image[0] * image[1]:
        raise DataError(
            f"{path}: {len(points):,} points, not organised, but {image_path} has {image[1]}x{image[0]} = "
            f"{image[0] * image[1]:,} pixels; save an organised cloud: a point for each pixel, row by row, NaN or "
            "(0, 0, 0) where there is none"
        )
    return _finished(points.reshape(*image, 3) * (camera.unit if camera else 1.0), path)


def decode_depth_image(content: bytes, path: Path, camera: Intrinsics) -> np.ndarray:
    """An organised cloud from a depth image along the optical axis: integers in steps of the scale, or floats.

    Returns (H, W, 3) float32, metres: z·(u − cx)/fx, z·(v − cy)/fy, z at integer pixels u, v (with a skew s, u − cx
    less s·(v − cy)/fy); (0, 0, 0) where the depth is zero, negative, not finite or stands for no data, see
    `mafr.data.formats.gaps`. Raises DataError where the file is damaged or no depth image, or the camera does not fit
    it: another size, a principal point outside the image, a view of 150 degrees or more.
    """
    if is_tiff(content):
        values = decode_tiff(content, path)
    else:
        values = np.asarray(decode_image(content, path, "a depth image, a 16-bit png or a tiff,"))
    if values.ndim != 2 or values.dtype.kind not in "uif" or values.dtype.itemsize < 2:
        raise DataError(
            f"{path}: a depth image with one channel of 16-bit integers or floats expected, found "
            f"{values.dtype} of shape {values.shape} ({kind_of(content)})"
        )
    if camera.focal is None:
        raise DataError(f"{path}: this depth image's camera has no fx, fy, cx, cy; add them to its intrinsics.json")
    if camera.size is not None and camera.size != values.shape:
        raise DataError(
            f"{path}: {values.shape[1]}x{values.shape[0]} pixels, but the camera's width and height are "
            f"{camera.size[1]}x{camera.size[0]}; the intrinsics must be those of the stored image"
        )
    _check_view(camera, values.shape, path)
    if values.dtype.kind != "f" and camera.depth_scale is None:
        raise DataError(
            f"{path}: depth in integer steps, but the camera says no depth_scale; add it in metres per step, e.g. "
            '"depth_scale": 0.001 for millimetres'
        )
    values = drop_constants(values, path)
    z = values.astype(np.float64) * (camera.unit if values.dtype.kind == "f" else camera.depth_scale)
    z = np.where(np.isfinite(z) & (z > 0), z, 0)
    x = z * ((np.arange(z.shape[1]) - camera.centre[0]) / camera.focal[0])
    y = z * ((np.arange(z.shape[0]) - camera.centre[1]) / camera.focal[1])[:, None]
    if camera.skew:
        x -= y * (camera.skew / camera.focal[0])
    return _finished(np.stack([x, y, z], axis=2), path)


def _check_view(camera: Intrinsics, size: tuple[int, int], path: Path) -> None:
    """Raise DataError where a camera cannot have taken an image of this (height, width)."""
    for axis, focal, centre, pixels in zip("xy", camera.focal, camera.centre, size[::-1], strict=True):
        view = np.degrees(np.arctan(centre / focal) + np.arctan((pixels - centre) / focal))
        if not 0 <= centre <= pixels:
            odd = f"the principal point must lie within the image, 0 to {pixels}"
        elif view >= WIDEST:
            odd = f"a view of {view:.0f} degrees, {WIDEST:.0f} and more are not possible"
        else:
            continue
        raise DataError(
            f"{camera.path}: f{axis} {focal:g} and c{axis} {centre:g} do not fit {path} of {size[1]}x{size[0]} "
            f"pixels: {odd}; give them in pixels of the stored image"
        )


def decode_scan(
    content: bytes, path: Path, image: tuple[int, int], image_path: Path, camera: Intrinsics | None = None
) -> np.ndarray:
    """An organised cloud (H, W, 3) by `decode_cloud` or, where the content is a depth image, `decode_depth_image`."""
    is_png = content.startswith(b"\x89PNG")
    if is_png and camera is None:
        raise DataError(f"{path}: a depth image needs its camera: give --intrinsics FILE (intrinsics= in Python)")
    if is_png or (camera is not None and camera.focal is not None and len(tiff_shape(content)) == 2):
        return decode_depth_image(content, path, camera)
    return decode_cloud(content, path, image, image_path, camera)


def camera_file(folder: Path) -> Path | None:
    """The camera parameters of a category's folder, None where there are none."""
    places = [place / name for place in (folder, folder / "calibration") for name in CAMERA_FILES]
    return next((path for path in places if path.is_file()), None)


def _finished(points: np.ndarray, path: Path) -> np.ndarray:
    points = np.where(np.isfinite(points).all(axis=2, keepdims=True), points, 0).astype(np.float32)
    points = drop_repeated(drop_far(points, FARTHEST, path), path)
    if not points.any():
        raise DataError(f"{path}: no valid point; scan again or leave it out")
    if odd := odd_unit(points):
        raise DataError(
            f'{path}: {odd}, hardly metres; put {{"unit": "mm"}} (or "cm"), or the right depth_scale, into '
            "intrinsics.json beside the splits (`mafr predict`: --intrinsics FILE)"
        )
    return points


def odd_unit(points: np.ndarray) -> str:
    """The reason that coordinates of an organised cloud (H, W, 3) cannot be metres, "" where they can.

    It is judged by medians: a few points may lie anywhere, and steps over edges and gaps are long in any unit.
    """
    farthest = float(np.abs(points).max())
    valid = points.any(axis=2)
    if farthest > FARTHEST:
        middle = float(np.median(np.abs(points[valid]).max(axis=1)))
        if middle > FARTHEST:
            half = f", half of them {middle:.4g}" if farthest > 2 * middle else ""
            return f"coordinates reach {farthest:.4g}{half}"
    pairs = valid[:, 1:] & valid[:, :-1]
    steps = np.linalg.norm(np.diff(points, axis=1)[pairs], axis=1)
    step = float(np.median(steps)) if steps.size else 0.0
    return f"neighbouring pixels are {step:.4g} apart" if step > COARSEST else ""
