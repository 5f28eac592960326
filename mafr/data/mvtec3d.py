"""MVTec 3D-AD and data in its layout, 3D-ADAM's too: raw folders, and the preprocessing of M3DM, CFM and MAFR."""

import hashlib
from pathlib import Path

import numpy as np

from mafr.data.clean.dbscan import largest_cluster
from mafr.data.clean.plane import border_points, fit_plane, has_point
from mafr.data.formats.clouds import camera_file, decode_cloud, decode_depth_image, decode_intrinsics, odd_unit
from mafr.data.formats.images import (
    check_mask_label,
    check_same_size,
    decode_mask,
    decode_rgb,
    encode_mask,
    encode_png,
    warn_of_mask,
)
from mafr.data.layout import SEED_CONTENTS, SPLITS, Processed, RawSample, scan_split, subfolders
from mafr.data.manifest import GENERATED
from mafr.data.transforms import pad_square, square_side
from mafr.errors import DataError

BORDER = 10  # pixels
PLANE_INLIER = 0.004  # metres, as all lengths here
PLANE_SAMPLE = 50
PLANE_ITERATIONS = 1000
PLANE_DISTANCE = 0.005
CLUSTER_EPS = 0.006
CLUSTER_POINTS = 30
NO_TABLE = (
    "parts without a table, or cleaned of it already, are prepared with `mafr data ... --plane none` and fitted with "
    '--set plane=none (plane="none" in Python); `mafr predict` takes a scan that is prepared already with --processed'
)
LAYOUT = "{train,validation,test}/<good or a defect's name>/{rgb,xyz,gt} with NNN.png, NNN.tiff and NNN.png"
PARAMETERS = {
    "border": BORDER, "plane_inlier": PLANE_INLIER, "plane_sample": PLANE_SAMPLE, "plane_iterations": PLANE_ITERATIONS,
    "plane_distance": PLANE_DISTANCE, "cluster_eps": CLUSTER_EPS, "cluster_points": CLUSTER_POINTS,
}  # fmt: skip


def scan(folder: Path) -> list[RawSample]:
    """The raw samples of a category's folder. Raises DataError where files are missing or do not fit together."""
    samples = []
    camera = camera_file(folder)
    generated = (folder / GENERATED).is_file()
    for split in SPLITS:
        if not subfolders(folder / split):
            continue  # 3D-ADAM and the user's own parts come without a validation set, see `mafr.data.held_out`
        for entry in scan_split(folder, split, raw=True):
            if entry.is_depth and camera is None:
                raise DataError(
                    f"{entry.xyz}: a depth image needs its camera: write {folder / 'intrinsics.json'} with fx, fy, cx, "
                    "cy in pixels and depth_scale in metres"
                )
            roles = {"rgb": entry.rgb, "depth" if entry.is_depth else "xyz": entry.xyz, "gt": entry.gt}
            if entry.xyz.suffix.lower() not in (".tiff", ".tif") or entry.is_depth:  # xyz tiffs need none
                roles["camera"] = camera
            files = ((role, path.relative_to(folder).as_posix()) for role, path in roles.items() if path)
            # Generated data keeps the rule that its processed copies were always made by.
            samples.append(RawSample(entry.id, tuple(files), f"{folder.name}/{entry.id}" if generated else ""))
    return samples


def decode(
    folder: Path, raw: RawSample, contents: dict[str, bytes]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image (H, W, 3) uint8, cloud (H, W, 3) float32 and mask (H, W) bool of a raw sample; None where it has no mask.

    contents: its files, by role. Raises DataError for files that are bad or do not fit together.
    """
    paths = {role: folder / name for role, name in raw.files}
    image = decode_rgb(contents["rgb"], paths["rgb"])
    size = image.shape[:2]
    camera = decode_intrinsics(contents["camera"], paths["camera"]) if "camera" in contents else None
    if "depth" in contents:
        xyz = decode_depth_image(contents["depth"], paths["depth"], camera)
    else:
        xyz = decode_cloud(contents["xyz"], paths["xyz"], size, paths["rgb"], camera)
    check_same_size(size, paths["rgb"], xyz.shape[:2], cloud_file(folder, raw))
    if "gt" not in contents:
        return image, xyz, None
    mask = decode_mask(contents["gt"], paths["gt"])
    check_same_size(size, paths["rgb"], mask.shape, paths["gt"])
    check_mask_label(mask, raw.key.split("/")[1], paths["gt"])
    warn_of_mask(mask, paths["gt"])
    return image, xyz, mask


def cloud_file(folder: Path, raw: RawSample) -> Path:
    """The file of a raw sample's cloud or depth image."""
    return folder / next(name for role, name in raw.files if role in ("xyz", "depth"))


def convert(folder: Path, raw: RawSample, contents: dict[str, bytes], plane: str) -> Processed:
    """Preprocess one sample from its files' contents, by role. Raises DataError for bad files."""
    image, xyz, mask = decode(folder, raw, contents)
    gt = contents.get("gt")
    if mask is None and raw.key.startswith("test/"):
        gt = encode_mask(np.zeros(image.shape[:2], dtype=bool))
    cleaned, dropped = largest_piece(xyz, plane, cloud_file(folder, raw), raw.seed_text)
    drawn = plane != "none" and not raw.seed_text
    is_png = dict(raw.files)["rgb"].lower().endswith(".png")  # a jpeg's pixels are kept without another loss
    rgb = contents["rgb"] if is_png else encode_png(image)
    return Processed(raw.key, rgb, cleaned, gt, SEED_CONTENTS if drawn else "", dropped)


def clean_cloud(xyz: np.ndarray, plane: str, path: Path, seed_text: str = "") -> np.ndarray:
    """The part alone: without the table and strays, padded by zeros to a square.

    A plane is fitted to the border by RANSAC, points near it are dropped, and the largest DBSCAN
    cluster of the others is kept. `plane="none"` only pads, for scans without a table.

    xyz: (H, W, 3) float32, metres; (0, 0, 0) where there is no point. seed_text: decides RANSAC's draws; "": the cloud
    itself does, so that the same scan gives the same part whatever its file is called. Returns (S, S, 3) float32; S is
    the next multiple of 100. Raises DataError where the coordinates are not metres, no table is found, or nothing is
    left without it; `path` is for the message.
    """
    return largest_piece(xyz, plane, path, seed_text)[0]


def largest_piece(xyz: np.ndarray, plane: str, path: Path, seed_text: str = "") -> tuple[np.ndarray, float]:
    """The part by `clean_cloud`; and the largest piece above the table that is left out, in points per point of it."""
    if odd := odd_unit(xyz):  # the unit in intrinsics.json is that of other files than xyz tiffs
        raise DataError(
            f"{path}: {odd}; metres expected: divide millimetres by 1,000 and centimetres by 100, or save the cloud as "
            'PLY or PCD with {"unit": "mm"} (or "cm") in intrinsics.json'
        )
    side = square_side(*xyz.shape[:2])
    if plane == "none":
        return pad_square(xyz, side), 0.0
    border = border_points(xyz, BORDER)
    if len(border) < PLANE_SAMPLE:
        raise DataError(
            f"{path}: {len(border)} valid points within {BORDER} pixels of the edge, too few to find the table plane; "
            f"{NO_TABLE}"
        )
    normal, offset = _table(border, seed_text or contents_seed(xyz))
    points = xyz.astype(np.float64)
    kept = has_point(xyz) & (np.abs(points @ normal + offset) >= PLANE_DISTANCE)
    kept[kept], dropped = largest_cluster(points[kept], CLUSTER_EPS, CLUSTER_POINTS)
    if not kept.any():
        raise DataError(
            f"{path}: no part is left without the table plane (nothing more than {PLANE_DISTANCE} m above it has "
            f"{CLUSTER_POINTS} points within {CLUSTER_EPS} m); check the unit; {NO_TABLE}"
        )
    return pad_square(np.where(kept[:, :, None], xyz, np.float32(0)), side), dropped


def shows_table(xyz: np.ndarray) -> bool:
    """Whether a plane fills most of the border of a cloud (H, W, 3): it was not preprocessed."""
    height, width = xyz.shape[:2]
    pixels = height * width - max(height - 2 * BORDER, 0) * max(width - 2 * BORDER, 0)
    border = border_points(xyz, BORDER)
    if len(border) < max(PLANE_SAMPLE, pixels // 2):
        return False
    normal, offset = _table(border, contents_seed(xyz))
    return bool(np.count_nonzero(np.abs(border @ normal + offset) < PLANE_INLIER) >= pixels // 2)


def contents_seed(xyz: np.ndarray) -> str:
    """A cloud's shape and SHA-256, as the text that seeds RANSAC."""
    points = np.ascontiguousarray(xyz, dtype=np.float32)
    return f"{points.shape} {hashlib.sha256(points).hexdigest()}"


def _table(border: np.ndarray, seed_text: str) -> tuple[np.ndarray, float]:
    return fit_plane(border, seed_text, PLANE_INLIER, PLANE_SAMPLE, PLANE_ITERATIONS)
