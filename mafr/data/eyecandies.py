"""Eyecandies: raw folders, and unprojection and cropping as in CFM, M3DM and MAFR."""

import io
import re
from pathlib import Path

import numpy as np
import yaml

from mafr.data.formats.images import check_same_size, decode_image, decode_mask, decode_rgb, warn_of_mask
from mafr.data.layout import Processed, RawSample, numeric_order, some_of
from mafr.errors import DataError

FOCAL = 711.11  # pixels, for images 512 pixels wide
FOCAL_WIDTH = 512
LOWEST, DEEPEST, WIDEST = -0.02, 1.8, 1.0  # metres in the turned frame
IMAGE = "image_4.png"  # lit by one spotlight
DEFECTS = ("bumps", "dents", "colors", "normals")
SPLIT_NAMES = {"train": "train", "val": "validation", "test_public": "test"}  # test_private has no labels
LAYOUT = "{train,val,test_public}/data/<index>_<item>, as in the archives of Eyecandies"
PARAMETERS = {
    "focal": FOCAL, "focal_width": FOCAL_WIDTH, "image": IMAGE, "crop": [LOWEST, DEEPEST, WIDEST],
    "axes": ["x", "z", "y"], "scale": [0.1, -0.1, 0.1],
}  # fmt: skip
_NEEDED = {"rgb": IMAGE, "depth": "depth.png", "info": "info_depth.yaml", "pose": "pose.txt"}
_MASKS = {name: f"{name}_mask.png" for name in DEFECTS}


def scan(folder: Path) -> list[RawSample]:
    """The raw samples of a class's folder. Raises DataError where files are missing."""
    samples = []
    for split, name in SPLIT_NAMES.items():
        data = folder / split / "data"
        if not data.is_dir():
            continue
        names = {path.name for path in data.iterdir()}
        indices = sorted({match[1] for match in map(re.compile(r"(\d+)_").match, names) if match}, key=numeric_order)
        needed = _NEEDED | ({"gt": "mask.png"} if name == "test" else {})
        missing = [f"{index}_{item}" for index in indices for item in needed.values() if f"{index}_{item}" not in names]
        if missing:
            raise DataError(f"{data}: files are missing: {some_of(missing)}; extract the archive of the class again")
        for index in indices:
            roles = dict(needed)
            if name == "test":
                roles |= {role: item for role, item in _MASKS.items() if f"{index}_{item}" in names}
            files = tuple((role, f"{split}/data/{index}_{item}") for role, item in roles.items())
            samples.append(RawSample(f"{split}/{index}", files))
    return samples


def convert(folder: Path, raw: RawSample, contents: dict[str, bytes], plane: str) -> Processed:
    """Unproject and crop one sample from its files' contents, by role. Raises DataError for bad files."""
    paths = {role: folder / name for role, name in raw.files}
    split, index = raw.key.split("/")
    size = decode_rgb(contents["rgb"], paths["rgb"]).shape[:2]
    depth = decode_depth(contents["depth"], contents["info"], paths["depth"], paths["info"])
    check_same_size(size, paths["rgb"], depth.shape, paths["depth"])
    points = unproject(depth, _pose(contents["pose"], paths["pose"]))
    xyz = crop(points, depth > 0, plane)
    if not xyz.any():
        raise DataError(f"{paths['depth']}: no point is left after cropping; check {paths['pose']} and {paths['info']}")
    defect = "good"
    if "gt" in contents:
        masks = {}
        for role in ("gt", *(name for name in DEFECTS if name in paths)):
            masks[role] = decode_mask(contents[role], paths[role])
            check_same_size(size, paths["rgb"], masks[role].shape, paths[role])
        warn_of_mask(masks["gt"], paths["gt"])
        defect = defect_name(masks)
    return Processed(f"{SPLIT_NAMES[split]}/{defect}/{index}", contents["rgb"], xyz, contents.get("gt"))


def defect_name(masks: dict[str, np.ndarray]) -> str:
    """The folder of a test sample: "good" for an empty mask, else the type, "combined" for several.

    masks: "gt" and, if present, those of the types in `DEFECTS`; (H, W) bool.
    """
    if not masks["gt"].any():
        return "good"
    types = [name for name in DEFECTS if name in masks and masks[name].any()]
    if not types:
        return "anomaly"  # marked, but of no known type
    return types[0] if len(types) == 1 else "combined"


def decode_depth(depth: bytes, info: bytes, depth_path: Path, info_path: Path) -> np.ndarray:
    """(H, W) float64 depth in metres: 16-bit values between the two ends in info_depth.yaml."""
    values = np.asarray(decode_image(depth, depth_path))
    if values.ndim != 2 or values.dtype.kind not in "ui" or values.dtype.itemsize < 2:
        raise DataError(f"{depth_path}: a 16-bit grey depth image expected; extract the archive again")
    try:
        ends = yaml.safe_load(info)["normalization"]
        low, high = float(ends["min"]), float(ends["max"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{info_path}: numbers min and max under `normalization` expected ({type(error).__name__}); extract the "
            "archive again"
        ) from error
    if not (np.isfinite([low, high]).all() and low <= high):
        raise DataError(f"{info_path}: min {low} and max {high} are no range of depths; extract the archive again")
    return values / 65535.0 * (high - low) + low


def unproject(depth: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (H, W, 3) in the world: d · inv(K·pose) · (u, v, 1, 1/d) at integer pixels u, v.

    depth: (H, W), metres. pose: (4, 4), world to camera.
    """
    height, width = depth.shape
    focal = FOCAL * width / FOCAL_WIDTH
    camera = np.eye(4)
    camera[[0, 1], [0, 1]] = focal
    camera[:2, 2] = width / 2, height / 2
    inverse = np.linalg.inv(camera @ pose)[:3]  # (3, 4)
    v, u = np.mgrid[:height, :width]
    rays = u[..., None] * inverse[:, 0] + v[..., None] * inverse[:, 1] + inverse[:, 2]  # (H, W, 3)
    return depth[..., None] * rays + inverse[:, 3]


def crop(points: np.ndarray, measured: np.ndarray, plane: str) -> np.ndarray:
    """Drop the stage around the candy, swap the axes to (x, z, y) and scale by (0.1, -0.1, 0.1).

    The frame is turned so that the stage runs along one axis, seen from the middle pixels of the
    first and the last row. `plane="none"` keeps every point.

    points: (H, W, 3), world. measured: (H, W) bool, true where there is a depth. Returns (H, W, 3) float32; (0, 0, 0)
    where a point is invalid.
    """
    height, width = measured.shape
    valid = measured
    if plane == "remove":
        flat = points.reshape(-1, 3)
        front, back = flat[width // 2], flat[-(width // 2)]
        start = np.array([0.0, back[1], back[2]])
        a, b = front[1] - back[1], front[2] - back[2]
        norm = np.hypot(a, b)
        cos, sin = (b / norm, a / norm) if norm > 0 else (1.0, 0.0)
        rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        turned = (flat - start) @ rotation.T
        outside = (turned[:, 1] > LOWEST) | (turned[:, 2] > DEEPEST) | (np.abs(turned[:, 0]) > WIDEST)
        # Turning back gives the points themselves again, so they need not be touched.
        valid = valid & ~outside.reshape(height, width)
    swapped = points[..., [0, 2, 1]] * np.array([0.1, -0.1, 0.1])
    return np.where(valid[..., None], swapped, 0).astype(np.float32)


def _pose(content: bytes, path: Path) -> np.ndarray:
    try:
        pose = np.loadtxt(io.BytesIO(content))
    except ValueError as error:
        raise DataError(f"{path}: a 4x4 matrix of numbers expected ({error}); extract the archive again") from error
    if pose.shape != (4, 4) or not np.isfinite(pose).all() or abs(np.linalg.det(pose)) < 1e-12:
        raise DataError(f"{path}: an invertible 4x4 matrix expected, found shape {pose.shape}; extract it again")
    return pose
