"""The generated stand-in for MVTec 3D-AD: deterministic, laid out as the original, with honest masks."""

import dataclasses
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.masks import check_points_move_inside_the_mask

from mafr.config import CATEGORIES, Config
from mafr.data import synthetic
from mafr.data.synthetic import generate
from mafr.data.synthetic.mvtec import write as mvtec
from mafr.data.synthetic.mvtec.write import defect_types, image_size, make_scan
from mafr.errors import ConfigError, DataError

SIDE = 80
KINDS = [(category, defect) for category in CATEGORIES["mvtec3d"] for defect in defect_types(category)]
# The real data set's folders (facts of the data set: numbers of defect types).
COUNTS = {
    "bagel": 4, "cable_gland": 4, "carrot": 5, "cookie": 4, "dowel": 4, "foam": 4, "peach": 5, "potato": 4,
    "rope": 3, "tire": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def config():
    return Config.preset(
        "smoke",
        overrides={"raw_side": 60, "mvtec3d_train": 2, "validation_count": 1, "test_good": 1, "test_defective": 3},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, config):
    return generate("mvtec3d", tmp_path_factory.mktemp("raw"), config, ["rope"])[0]


def _plane(xyz, width):
    """Robust plane through the border: (unit normal towards the camera, offset) and the border's valid points."""
    ring = np.ones(xyz.shape[:2], bool)
    ring[width:-width, width:-width] = False
    points = xyz[ring & (xyz != 0).any(-1)].astype(float)
    kept = points
    for _ in range(5):
        middle = kept.mean(axis=0)
        normal = np.linalg.svd(kept - middle, full_matrices=False)[2][2]
        away = np.abs((points - middle) @ normal)
        kept = points[away < max(0.001, np.median(away) * 3)]
    normal = normal * -np.sign(normal[2])
    return normal, normal @ middle, points


def test_defect_types_are_the_real_ones():
    assert {category: len(defect_types(category)) for category in CATEGORIES["mvtec3d"]} == COUNTS


def test_layout(folder, config):
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    expected = ["calibration/camera_parameters.json", "defects.json", "generated.json"]
    samples = [("train/good", 2), ("validation/good", 1), ("test/good", 1)]
    samples += [(f"test/{defect}", 1) for defect in ("contamination", "cut", "open")]
    for place, count in samples:
        expected += [f"{place}/{kind}" for n in range(count) for kind in (f"rgb/{n:03}.png", f"gt/{n:03}.png")]
        expected += [f"{place}/xyz/{n:03}.tiff" for n in range(count)]
    assert files == sorted(expected)
    rgb = np.asarray(Image.open(folder / "train/good/rgb/000.png"))
    gt = np.asarray(Image.open(folder / "train/good/gt/000.png"))
    xyz = tifffile.imread(folder / "train/good/xyz/000.tiff")
    assert rgb.shape == (27, 60, 3) and rgb.dtype == np.uint8  # 900 x 400 to scale
    assert gt.shape == (27, 60) and gt.dtype == np.uint8
    assert xyz.shape == (27, 60, 3) and xyz.dtype == np.float32
    assert 0.55 < np.median(xyz[..., 2][xyz[..., 2] > 0]) < 0.75  # metres


def test_masks_only_in_defective(folder):
    record = json.loads((folder / "defects.json").read_text())
    for path in folder.glob("*/*/gt/*.png"):
        gt = np.asarray(Image.open(path))
        split, defect = path.parts[-4], path.parts[-3]
        if defect == "good":
            assert not gt.any()
        else:
            entry = record[f"{split}/{defect}/{path.stem}"]
            assert (gt > 0).sum() == entry["pixels"] > 0
            assert entry["type"] == defect and entry["changes"] in ("geometry", "colour", "both")
    assert len(record) == 3


def test_complete_folder_is_kept_and_changed_settings_rewrite_it(tmp_path, config):
    folder = generate("mvtec3d", tmp_path, config, ["rope"])[0]
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    generate("mvtec3d", tmp_path, config, ["rope"])
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == times
    first = (folder / "train/good/xyz/000.tiff").read_bytes()
    generate("mvtec3d", tmp_path, dataclasses.replace(config, mvtec3d_train=1), ["rope"])
    assert sorted(p.name for p in (folder / "train/good/rgb").iterdir()) == ["000.png"]
    # A sample does not depend on how many others there are.
    assert (folder / "train/good/xyz/000.tiff").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["rope"]  # no temporary folder left


def test_interrupted_run_leaves_nothing_behind(tmp_path, config, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mvtec, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        generate("mvtec3d", tmp_path, config, ["rope"])
    assert not list(tmp_path.iterdir())


def test_temporary_folders_of_ended_processes_go_and_those_of_running_ones_stay(tmp_path, config):
    def left_by(process: int) -> Path:
        folder = tmp_path / f".rope.{socket.gethostname()}.{process}.{'a' * 16}.tmp"
        folder.mkdir()
        os.utime(folder, (0, 0))  # as old as can be
        return folder

    ended, running = left_by(999_999_999), left_by(os.getppid())
    generate("mvtec3d", tmp_path, config, ["rope"])
    assert running.exists() and not ended.exists()


def test_foreign_folders_are_not_touched(tmp_path, config):
    real = tmp_path / "rope" / "train" / "good"
    real.mkdir(parents=True)
    with pytest.raises(DataError, match="not generated"):
        generate("mvtec3d", tmp_path, config, ["rope"])
    assert real.is_dir()


def test_same_bytes_again_and_in_other_processes(tmp_path, config, folder, monkeypatch):
    made = generate("mvtec3d", tmp_path, config, ["rope", "dowel"], workers=2)
    again, jobs = made[0], []
    monkeypatch.setattr(synthetic, "map_parallel", lambda function, names, *_: jobs.extend(names))
    assert generate("mvtec3d", tmp_path, config, ["rope", "dowel"], workers=2) == made
    assert not jobs  # what is there needs no processes
    for path in folder.rglob("*.*"):
        assert (again / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


def test_unknown_names(tmp_path, config):
    with pytest.raises(ConfigError, match="unknown category"):
        generate("mvtec3d", tmp_path, config, ["brick"])
    with pytest.raises(ConfigError, match="unknown data set"):
        generate("mvtec2d", tmp_path, config)
    with pytest.raises(ConfigError, match="no generated"):
        make_scan("rope", "test", "thread", 0, SIDE)


@pytest.mark.parametrize("category", CATEGORIES["mvtec3d"])
def test_part_stands_on_a_table(category):
    side = 160
    scan = make_scan(category, "train", "good", 3, side)
    assert scan.rgb.shape[1::-1] == image_size(category, side)
    normal, offset, border = _plane(scan.xyz, 8)
    assert (np.abs(border @ normal - offset) < 0.003).mean() > 0.9
    assert len(border) > 0.45 * (2 * 8 * sum(scan.rgb.shape[:2]) - 4 * 64)
    height = scan.xyz @ normal - offset
    valid = (scan.xyz != 0).any(-1)
    above = valid & (height > 0.005)
    assert 0.06 < above.mean() < 0.6
    assert np.percentile(height[above], 95) > 0.009
    assert not above[:3].any() and not above[-3:].any() and not above[:, :2].any() and not above[:, -2:].any()
    assert 0.2 < 1 - valid.mean() < 0.5  # the black table, and a scanner's gaps
    noise = (height - height[valid & (np.abs(height) < 0.002)].mean())[valid & (np.abs(height) < 0.002)].std()
    assert 0.00005 < noise < 0.0004


@pytest.mark.parametrize(("category", "defect"), KINDS)
def test_every_defect_shows(category, defect):
    clean = make_scan(category, "test", "good", 0, SIDE)
    scan = make_scan(category, "test", defect, 0, SIDE, severity=0.7)
    assert not clean.gt.any() and not clean.info
    mask = scan.gt > 0
    assert 4 <= mask.sum() < 0.3 * mask.size
    assert mask.sum() == scan.info["pixels"]


def test_colour_defects_leave_the_points_alone():
    clean, spoilt = (make_scan("foam", "test", "color", 0, SIDE, 0.8, clean=clean) for clean in (True, False))
    mask = spoilt.gt > 0
    assert spoilt.info["changes"] == "colour"
    both = (clean.xyz != 0).any(-1) & (spoilt.xyz != 0).any(-1)
    # A darker pixel is measured with more noise, and no more than that.
    np.testing.assert_allclose(clean.xyz[both], spoilt.xyz[both], rtol=0, atol=1e-4)
    np.testing.assert_allclose(clean.xyz[both & ~mask], spoilt.xyz[both & ~mask], rtol=0, atol=1e-5)
    difference = np.abs(clean.rgb.astype(int) - spoilt.rgb).max(-1)
    assert np.median(difference[mask]) > 15
    assert np.median(difference[~mask]) <= 1


@pytest.mark.parametrize(("category", "defect"), [("dowel", "bent"), ("peach", "squeeze"), ("rope", "open")])
def test_shape_defects_move_points_inside_the_mask_only(category, defect):
    clean, spoilt = (make_scan(category, "test", defect, 1, SIDE, 0.8, clean=clean) for clean in (True, False))
    check_points_move_inside_the_mask(clean, spoilt)


def test_severity_makes_defects_larger():
    weak = [make_scan("bagel", "test", "crack", n, SIDE, 0.05).info["pixels"] for n in range(4)]
    strong = [make_scan("bagel", "test", "crack", n, SIDE, 0.95).info["pixels"] for n in range(4)]
    assert np.mean(strong) > 2 * np.mean(weak)


def test_severities_are_spread_evenly(config):
    large = dataclasses.replace(config, test_defective=40)
    plan = [row for row in mvtec.plan("bagel", large) if row[1] not in ("good",)]
    assert len(plan) == 40
    for defect in defect_types("bagel"):
        severities = sorted(s for _, name, _, s in plan if name == defect)
        assert len(severities) == 10
        assert severities[0] < 0.2 and severities[-1] > 0.8 and max(np.diff(severities)) < 0.25


def test_parts_differ_and_test_parts_are_not_training_parts():
    pictures = [make_scan("potato", split, "good", n, 60).rgb for split in ("train", "test") for n in range(2)]
    for a in range(4):
        for b in range(a):
            assert np.abs(pictures[a].astype(int) - pictures[b]).mean() > 3


def test_tire_codes_its_defect_types():
    codes = {defect: set(np.unique(make_scan("tire", "test", defect, 0, 60, 0.8).gt)) for defect in ("cut", "hole")}
    assert codes == {"cut": {0, 255}, "hole": {0, 254}}
