"""Miniature raw archives of both data sets, laid out and packed as the published ones are."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mafr.config import Config
from mafr.data.manifest import GENERATED
from mafr.data.synthetic import generate

MVTEC3D = ("bagel", "tire")  # tire: not square, masks coded 253 to 255
EYECANDIES = ("ChocolateCookie", "Marshmallow")
MVTEC3D_ARCHIVE = "mvtec_3d_anomaly_detection.tar.xz"


def write_archives(
    folder: Path,
    mvtec3d: Sequence[str] = MVTEC3D,
    eyecandies: Sequence[str] = EYECANDIES,
    side: int = 240,
    train: int = 3,
    validation: int = 1,
    good: int = 2,
    defective: int = 2,
) -> dict[str, list[Path]]:
    """Write `<folder>/<data set>/<archives>`: one tar.xz for MVTec 3D-AD, a tar named .zip a class for Eyecandies.

    Args:
        side: longer side of an image in pixels.
        train, validation, good, defective: samples a category; one defective sample is one type.

    Returns:
        data set -> its archives, for `mafr data <data set> --archive ... --allow-incomplete`.
    """
    config = Config.preset(
        "smoke",
        overrides={
            "raw_side": side, "mvtec3d_train": train, "eyecandies_train": train, "validation_count": validation,
            "test_good": good, "test_defective": defective,
        },
    )  # fmt: skip
    archives: dict[str, list[Path]] = {"mvtec3d": [], "eyecandies": []}
    with tempfile.TemporaryDirectory() as scratch:
        for dataset, names in (("mvtec3d", mvtec3d), ("eyecandies", eyecandies)):
            raw = Path(scratch) / dataset
            (folder / dataset).mkdir(parents=True, exist_ok=True)
            for made in generate(dataset, raw, config, names):
                for extra in (GENERATED, "defects.json"):  # the published archives hold neither
                    (made / extra).unlink(missing_ok=True)
            if dataset == "mvtec3d" and names:
                path = folder / dataset / MVTEC3D_ARCHIVE
                with tarfile.open(path, "w:xz", preset=0) as tar:
                    for name in names:
                        tar.add(raw / name, name)
                archives[dataset].append(path)
            elif dataset == "eyecandies":
                for name in names:
                    _add_private(raw / name)
                    path = folder / dataset / f"{name}.zip"  # a tar all the same, as published
                    with tarfile.open(path, "w") as tar:
                        tar.add(raw / name, name)
                    archives[dataset].append(path)
    return archives


def _add_private(category: Path) -> None:
    """A sample of test_private: no masks."""
    target = category / "test_private" / "data"
    target.mkdir(parents=True)
    for path in sorted((category / "val" / "data").glob("000_*")):
        if not path.name.endswith("mask.png"):
            shutil.copyfile(path, target / path.name)
