"""Tiny raw data in the real formats, for the tests of loading and preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from mafr.config import Config
from mafr.data import preprocess
from mafr.paths import Paths

SIZE = (40, 60)  # height, width: not square


def config(**overrides: object) -> Config:
    """Settings for data of one's own, small."""
    return Config.preset("smoke", overrides={"generated": False, "image_size": 28, "grid": 14} | overrides)


def home(root: Path, settings: Config) -> Paths:
    """The locations below `root`, with one category's raw and processed copies below `root / "data"`."""
    paths = Paths.resolve("smoke", root=root, data_root=root / "data")
    write_mvtec3d(paths.raw("mvtec3d"))
    preprocess("mvtec3d", paths.raw("mvtec3d"), paths.processed("mvtec3d"), settings)
    return paths


def scene(seed: int, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """A dome on a tilted table, 1.5 mm a pixel, with measuring noise and missing points; (H, W, 3) metres."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:height, :width]
    x, y = (u - width / 2) * 0.0015, (v - height / 2) * 0.0015
    radius = 0.018
    dome = np.sqrt(np.clip(radius**2 - x**2 - y**2, 0, None))
    z = 0.5 + 0.1 * x - 0.05 * y - dome + rng.normal(0, 1e-4, x.shape)
    xyz = np.stack([x, y, z], axis=2)
    xyz[rng.random((height, width)) < 0.02] = 0
    return xyz.astype(np.float32)


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_tiff(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack")


def read_tiff(path: Path) -> np.ndarray:
    return tifffile.imread(path)


def rgb(seed: int, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask(defective: bool, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    values = np.zeros((height, width), dtype=np.uint8)
    if defective:
        values[height // 2 - 4 : height // 2 + 4, width // 2 - 6 : width // 2 + 6] = 253
    return values


def write_mvtec3d(root: Path, category: str = "bracket") -> Path:
    """Raw folders of a category: 3 train, 1 validation, 2 + 2 test samples; test numbers run past 9."""
    folder = root / category
    plan = [("train", "good", (0, 2, 10)), ("validation", "good", (1,)), ("test", "good", (0, 1))]
    plan += [("test", "crack", (9, 10))]
    for split, defect, numbers in plan:
        for number in numbers:
            seed = 1000 * len(split) + 100 * len(defect) + number
            base = folder / split / defect
            write_png(base / "rgb" / f"{number:03d}.png", rgb(seed))
            write_tiff(base / "xyz" / f"{number:03d}.tiff", scene(seed))
            if split == "test":
                write_png(base / "gt" / f"{number:03d}.png", mask(defect != "good"))
    return folder


def write_adam3d(root: Path, category: str = "1m1", train: int = 12) -> Path:
    """Raw folders as 3D-ADAM has them: masks in ground_truth, no validation folder; every third image is a jpeg."""
    folder = root / category
    plan = [("train", "good", train), ("test", "good", 2), ("test", "cut", 2)]
    for split, defect, count in plan:
        for number in range(count):
            base, seed = folder / split / defect, 500 * len(split) + 50 * len(defect) + number
            write_png(base / "rgb" / f"{number:03d}.{'png' if number % 3 else 'jpg'}", rgb(seed))
            write_tiff(base / "xyz" / f"{number:03d}.tiff", scene(seed))
            if split == "test":
                write_png(base / "ground_truth" / f"{number:03d}.png", mask(defect != "good"))
    return folder


def write_eyecandies(root: Path, category: str = "Lollipop", side: int = 32) -> Path:
    """Raw folders of a class: 2 train, 1 val, 4 test_public (good, bumps, colors, several types)."""
    folder = root / category
    marks = {"00": (), "01": ("bumps",), "02": ("colors",), "03": ("dents", "normals")}
    plan = [("train", "000", ()), ("train", "001", ()), ("val", "000", ())]
    plan += [("test_public", index, types) for index, types in marks.items()]
    for k, (split, index, types) in enumerate(plan):
        base = folder / split / "data"
        write_png(base / f"{index}_image_4.png", rgb(k, side, side))
        depth = np.random.default_rng(k).integers(0, 65536, (side, side)).astype(np.uint16)
        write_png(base / f"{index}_depth.png", depth)
        (base / f"{index}_info_depth.yaml").write_text("normalization:\n  max: 2.5\n  min: 1.5\n")
        np.savetxt(base / f"{index}_pose.txt", POSE)
        if split == "test_public":
            write_png(base / f"{index}_mask.png", mask(bool(types), side, side))
            for name in ("bumps", "dents", "colors", "normals"):
                write_png(base / f"{index}_{name}_mask.png", mask(name in types, side, side))
    return folder


_ANGLE = 2.2  # the camera looks down from in front
POSE = np.array(
    [
        [1.0, 0.0, 0.0, 0.01],
        [0.0, np.cos(_ANGLE), -np.sin(_ANGLE), 0.1],
        [0.0, np.sin(_ANGLE), np.cos(_ANGLE), 1.9],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
