"""The published preprocessing of MVTec 3D-AD (M3DM, CFM, MAFR): its constants, and what it does with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import rawdata

from mafr.data import mvtec3d, open_dataset, preprocess
from mafr.data.clean.plane import border_points, fit_plane


def test_the_published_constants() -> None:
    """Lengths in metres."""
    assert mvtec3d.PARAMETERS == {
        "border": 10,
        "plane_inlier": 0.004,
        "plane_sample": 50,
        "plane_iterations": 1000,
        "plane_distance": 0.005,
        "cluster_eps": 0.006,
        "cluster_points": 30,
    }


def test_they_are_the_ones_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    used: dict[str, tuple] = {}

    def border(xyz: np.ndarray, width: int) -> np.ndarray:
        used["border"] = (width,)
        return border_points(xyz, width)

    def plane(points: np.ndarray, seed_text: str, *settings: float) -> tuple[np.ndarray, float]:
        used["plane"] = settings
        return fit_plane(points, seed_text, *settings)

    def cluster(points: np.ndarray, *settings: float) -> tuple[np.ndarray, float]:
        used["cluster"] = settings
        return np.ones(len(points), dtype=bool), 0.0

    monkeypatch.setattr(mvtec3d, "border_points", border)
    monkeypatch.setattr(mvtec3d, "fit_plane", plane)
    monkeypatch.setattr(mvtec3d, "largest_cluster", cluster)
    mvtec3d.clean_cloud(rawdata.scene(0), "remove", tmp_path)
    assert used == {"border": (10,), "plane": (0.004, 50, 1000), "cluster": (0.006, 30)}


def test_points_within_five_millimetres_of_the_table_are_dropped(tmp_path: Path) -> None:
    v, u = np.mgrid[:60, :60]
    cloud = np.stack([u * 1e-3, v * 1e-3, np.full(u.shape, 0.5)], axis=2).astype(np.float32)
    cloud[20:30, 20:40, 2] -= 0.0049
    cloud[30:40, 20:40, 2] -= 0.0051
    kept = mvtec3d.clean_cloud(cloud, "remove", tmp_path)[20:80, 20:80].any(axis=2)
    expected = np.zeros((60, 60), dtype=bool)
    expected[30:40, 20:40] = True
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("value", [1, 253, 254, 255])
def test_every_mask_value_but_zero_is_anomalous(value: int, tmp_path: Path) -> None:
    """From the raw png to the sample; the tire category codes its defect types as 253 to 255."""
    config = rawdata.config(plane="none", image_size=100, grid=50)
    folder = rawdata.write_mvtec3d(tmp_path / "raw")
    mask = np.zeros(rawdata.SIZE, dtype=np.uint8)
    mask[10:14, 20:25] = value
    rawdata.write_png(folder / "test/crack/gt/009.png", mask)
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    data = open_dataset("mvtec3d", tmp_path / "out", "bracket", "test", config)
    sample = data[data.ids.index("test/crack/009")]
    marked = np.zeros((100, 100), dtype=bool)
    marked[40:44, 40:45] = True  # 40 x 60 pixels in the middle of 100 x 100
    np.testing.assert_array_equal(sample.gt[0], marked)
