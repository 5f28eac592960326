"""Preprocessing: against scikit-learn, against plain formulas, and as a whole."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.cluster import DBSCAN
from support import rawdata
from support.places import CHECKOUT

from mafr.data import mvtec3d, open_dataset, preprocess
from mafr.data.clean.dbscan import dbscan, largest_cluster
from mafr.data.clean.plane import border_points, fit_plane
from mafr.data.eyecandies import crop, decode_depth, defect_name, unproject
from mafr.data.formats.images import decode_mask, decode_xyz, encode_mask, encode_xyz
from mafr.errors import DataError
from mafr.paths import write_atomically

# ------------------------------------------------------------------ clusters


def _cloud(kind: str, rng: np.random.Generator) -> np.ndarray:
    n = int(rng.integers(1, 500))
    if kind == "noise":
        return rng.random((n, 3)) * rng.uniform(0.01, 0.08)
    if kind == "two":
        shift = [rng.uniform(0.005, 0.03), 0, 0]
        return np.concatenate([rng.normal(0, 0.002, (n, 3)), rng.normal(0, 0.002, (n // 2 + 1, 3)) + shift])
    if kind == "bridge":
        sheet = rng.random((n, 3)) * [0.04, 0.04, 0]
        beads = np.linspace([0.04, 0.02, 0], [0.09, 0.02, 0], int(rng.integers(5, 200)))
        return np.concatenate([sheet, beads, sheet + np.array([0.09, 0, 0])])
    if kind == "lattice":  # many equal distances and repeated points
        return np.round(rng.random((n, 3)) * 0.02, 3)
    shells = rng.normal(size=(2 * n, 3))  # nested spheres, 6 mm apart or a little more
    shells /= np.linalg.norm(shells, axis=1, keepdims=True)
    return shells * np.where(np.arange(2 * n) % 2, 0.004, 0.0101 + rng.uniform(-2e-4, 2e-4))[:, None]


@pytest.mark.parametrize("min_points", [1, 4, 30])
@pytest.mark.parametrize("kind", ["noise", "two", "bridge", "lattice", "shells"])
def test_dbscan_gives_the_labels_of_scikit_learn(kind, min_points):
    rng = np.random.default_rng(min_points)
    clusters = noise = 0
    for _ in range(12):
        points = rng.permutation(_cloud(kind, rng).astype(np.float32)).astype(np.float64)
        # 6.03 mm on the lattice: no distance lies exactly on the limit, where rounding would decide.
        eps = 0.00603 if kind == "lattice" else 0.006
        expected = DBSCAN(eps=eps, min_samples=min_points).fit_predict(points)
        np.testing.assert_array_equal(dbscan(points, eps, min_points), expected)
        clusters += expected.max() + 1
        noise += np.count_nonzero(expected < 0)
    assert clusters
    assert noise or min_points == 1 or kind == "two"


def test_dense_cells_on_both_sides_of_a_gap_join_only_within_eps():
    rng = np.random.default_rng(0)
    sheet = rng.random((6000, 3)) * [0.02, 0.03, 0.0005]
    sheet[0] = [0.02, 0.015, 0]
    for gap, clusters in ((0.0059, 1), (0.0061, 2)):
        points = np.concatenate([sheet, sheet * [-1, 1, 1] + [0.04 + gap, 0, 0]])
        expected = DBSCAN(eps=0.006, min_samples=30).fit_predict(points)
        assert expected.max() + 1 == clusters
        np.testing.assert_array_equal(dbscan(points, 0.006, 30), expected)


def test_far_outliers_do_not_overflow_the_grid():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.random((200, 3)) * 0.01, [[1e6, -1e6, 1e6], [3e6, 2e6, -1e6]]])
    np.testing.assert_array_equal(dbscan(points, 0.006, 30), DBSCAN(eps=0.006, min_samples=30).fit_predict(points))


def test_noise_is_no_cluster():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.random((500, 3)), rng.random((60, 3)) * 0.003])
    kept, other = largest_cluster(points, 0.006, 30)  # more noise than cluster
    assert kept[500:].all()
    assert kept.sum() == 60
    assert other == 0
    for few in (points[:20], np.empty((0, 3))):
        kept, other = largest_cluster(few, 0.006, 30)
        assert kept.shape == (len(few),)
        assert not kept.any()
        assert other == 0


def test_the_largest_cluster_and_the_share_of_the_next():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.random((n, 3)) * 0.003 + k for k, n in enumerate((50, 200, 40))])
    kept, other = largest_cluster(points, 0.006, 30)
    assert np.flatnonzero(kept).tolist() == list(range(50, 250))
    assert other == 0.25


# ------------------------------------------------------------------ plane


def test_plane_ignores_what_stands_on_it_and_depends_on_the_seed_text_alone():
    rng = np.random.default_rng(0)
    normal = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])
    xy = rng.random((2000, 2)) * 0.2
    table = np.column_stack([xy, (0.5 - xy @ normal[:2]) / normal[2]]) + rng.normal(0, 2e-4, (2000, 3))
    points = np.concatenate([table, rng.random((500, 3)) * 0.2 + [0, 0, 0.2]])
    found, offset = fit_plane(points, "a", 0.004, 50, 200)
    assert abs(found @ normal) > 1 - 1e-4
    assert np.abs(table @ found + offset).max() < 0.002
    again, _ = fit_plane(points, "a", 0.004, 50, 200)
    np.testing.assert_array_equal(found, again)


def test_planes_compared_some_at_a_time_win_as_all_at_once(monkeypatch):
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.random((5000, 3)) * [0.2, 0.2, 0.006], rng.random((1000, 3)) * 0.2])
    found = []
    for at_once in (1, 50_000, 10**9):
        monkeypatch.setattr("mafr.data.clean.plane._CHUNK", at_once)
        normal, offset = fit_plane(points, "bagel/train/good/000", 0.004, 50, 200)
        found.append((normal.tobytes(), offset))
    assert found[0] == found[1] == found[2]


def test_border_points_are_the_valid_ones_near_the_edge():
    xyz = np.ones((30, 40, 3), dtype=np.float32)
    xyz[0, 0] = 0
    assert len(border_points(xyz, 10)) == 30 * 40 - 10 * 20 - 1


def test_cleaning_keeps_the_dome_and_pads_around_the_centre(tmp_path):
    xyz = rawdata.scene(0)
    cleaned = mvtec3d.clean_cloud(xyz, "remove", tmp_path)
    assert cleaned.shape == (100, 100, 3)
    part = cleaned[30:70, 20:80]  # 40 x 60 in the middle of 100 x 100
    assert np.count_nonzero(cleaned.any(axis=2)) == np.count_nonzero(part.any(axis=2))
    kept = part.any(axis=2)
    np.testing.assert_array_equal(part[kept], xyz[kept])  # no point is moved
    radius = np.hypot(xyz[..., 0], xyz[..., 1])
    assert kept[(radius < 0.016) & xyz.any(axis=2)].all()
    assert not kept[radius > 0.0185].any()


def test_plane_none_only_pads(tmp_path):
    xyz = rawdata.scene(0)
    padded = mvtec3d.clean_cloud(xyz, "none", tmp_path)
    np.testing.assert_array_equal(padded[30:70, 20:80], xyz)


@pytest.mark.parametrize(("size", "side"), [((400, 900), 900), ((800, 600), 800), ((201, 150), 300)])
def test_side_is_the_next_multiple_of_100(size, side, tmp_path):
    assert mvtec3d.clean_cloud(np.ones((*size, 3), np.float32), "none", tmp_path).shape == (side, side, 3)


# ------------------------------------------------------------- Eyecandies


def _plain_eyecandies(depth: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published procedure, pixel by pixel."""
    height, width = depth.shape
    focal = 711.11 * width / 512
    camera = np.array([[focal, 0, width / 2, 0], [0, focal, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    inverse = np.linalg.inv(camera @ pose)
    points = []
    for v in range(height):
        for u in range(width):
            points.append((depth[v, u] * inverse @ [u, v, 1, 1 / depth[v, u]])[:3])
    points = np.array(points)
    plus, minus = points[width // 2], points[-(width // 2)]
    s = np.array([0, minus[1], minus[2]])
    a, b = plus[1] - minus[1], plus[2] - minus[2]
    cos, sin = b / np.sqrt(a * a + b * b), a / np.sqrt(a * a + b * b)
    rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    result, valid = np.zeros_like(points), np.zeros(len(points), dtype=bool)
    for k, p in enumerate(points):
        q = rotation @ (p - s)
        if q[1] > -0.02 or q[2] > 1.8 or abs(q[0]) > 1:
            continue
        p = rotation.T @ q + s
        result[k], valid[k] = [0.1 * p[0], -0.1 * p[2], 0.1 * p[1]], True
    return result.reshape(height, width, 3), valid.reshape(height, width)


def test_unprojection_and_cropping_match_the_plain_procedure():
    depth = 1.5 + np.random.default_rng(0).random((24, 32))
    expected, valid = _plain_eyecandies(depth, rawdata.POSE)
    assert 0.1 < valid.mean() < 0.9
    xyz = crop(unproject(depth, rawdata.POSE), depth > 0, "remove")
    np.testing.assert_array_equal(xyz.any(axis=2), valid)
    np.testing.assert_allclose(xyz, expected, atol=1e-7)
    assert crop(unproject(depth, rawdata.POSE), depth > 0, "none").any(axis=2).all()


def test_depth_spans_the_range_in_the_yaml(tmp_path):
    buffer = io.BytesIO()
    values = np.array([[0, 65535], [13107, 26214]], dtype=np.uint16)
    Image.fromarray(values).save(buffer, format="png")
    info = b"normalization:\n  max: 3.0\n  min: 0.5\n"
    np.testing.assert_allclose(decode_depth(buffer.getvalue(), info, tmp_path, tmp_path), [[0.5, 3.0], [1.0, 1.5]])


def test_defect_names():
    no, yes = np.zeros((2, 2), dtype=bool), np.ones((2, 2), dtype=bool)
    assert defect_name({"gt": no, "bumps": no}) == "good"
    assert defect_name({"gt": yes, "bumps": no, "dents": yes}) == "dents"
    assert defect_name({"gt": yes, "bumps": yes, "dents": yes}) == "combined"
    assert defect_name({"gt": yes, "bumps": no}) == "anomaly"


# ------------------------------------------------------------------- files


def test_files_come_back_as_they_were(tmp_path):
    xyz = rawdata.scene(3)
    np.testing.assert_array_equal(decode_xyz(encode_xyz(xyz), tmp_path), xyz)
    assert encode_xyz(xyz) == encode_xyz(xyz)
    mask = rawdata.mask(True) > 0
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), tmp_path), mask)


# ------------------------------------------------------------------- whole


def _tree(folder) -> dict:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_mvtec3d_from_raw_to_processed(tmp_path):
    raw, out, config = tmp_path / "raw", tmp_path / "processed", rawdata.config()
    folder = rawdata.write_mvtec3d(raw)
    before = _tree(raw)
    preprocess("mvtec3d", raw, out, config)
    assert _tree(raw) == before
    files = _tree(out / "bracket")
    assert {name for name in files if "/gt/" in name} == {
        "test/good/gt/000.png", "test/good/gt/001.png", "test/crack/gt/009.png", "test/crack/gt/010.png",
    }  # fmt: skip
    assert files["test/crack/rgb/010.png"] == before["bracket/test/crack/rgb/010.png"]
    raw_xyz = tifffile.imread(folder / "test/crack/xyz/010.tiff")
    expected = mvtec3d.clean_cloud(raw_xyz, "remove", tmp_path)
    np.testing.assert_array_equal(tifffile.imread(out / "bracket/test/crack/xyz/010.tiff"), expected)
    manifest = json.loads(files["manifest.json"])
    assert manifest["counts"] == {
        "train": {"good": 3}, "validation": {"good": 1}, "test": {"crack": 2, "good": 2},
    }  # fmt: skip
    assert (manifest["dataset"], manifest["plane"], manifest["source"]) == ("mvtec3d", "remove", None)
    assert not any(name.split("/")[-1].startswith(".") or name.startswith(".") for name in files)


def test_processes_in_parallel_give_the_same_bytes(tmp_path):
    config = rawdata.config()
    rawdata.write_mvtec3d(tmp_path / "raw")
    rawdata.write_mvtec3d(tmp_path / "raw", "clamp")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "one", config)
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "two", config, workers=2)
    assert _tree(tmp_path / "one") == _tree(tmp_path / "two")


def test_eyecandies_from_raw_to_processed(tmp_path):
    raw, out, config = tmp_path / "raw", tmp_path / "processed", rawdata.config()
    rawdata.write_eyecandies(raw)
    preprocess("eyecandies", raw, out, config)
    names = set(_tree(out / "Lollipop"))
    expected = {"train/good/{}/000{}", "train/good/{}/001{}", "validation/good/{}/000{}"}
    kinds = (("rgb", ".png"), ("xyz", ".tiff"))
    wanted = {name.format(*kind) for name in expected for kind in kinds}
    for defect, index in (("good", "00"), ("bumps", "01"), ("colors", "02"), ("combined", "03")):
        wanted |= {f"test/{defect}/{kind}/{index}{suffix}" for kind, suffix in (*kinds, ("gt", ".png"))}
    assert names == wanted | {"manifest.json"}
    xyz = tifffile.imread(out / "Lollipop/test/bumps/xyz/01.tiff")
    depth = np.random.default_rng(4).integers(0, 65536, (32, 32)) / 65535 + 1.5
    np.testing.assert_allclose(xyz, _plain_eyecandies(depth, rawdata.POSE)[0], atol=1e-7)


def _times(folder) -> dict:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*.tiff")}


def test_what_is_up_to_date_is_kept(tmp_path):
    raw, out, config = tmp_path / "raw", tmp_path / "processed", rawdata.config()
    rawdata.write_mvtec3d(raw)
    preprocess("mvtec3d", raw, out, config)
    first, manifest = _times(out), (out / "bracket/manifest.json").stat().st_mtime_ns
    preprocess("mvtec3d", raw, out, config)
    assert _times(out) == first
    assert (out / "bracket/manifest.json").stat().st_mtime_ns == manifest


def test_damaged_outputs_are_made_again_and_no_others(tmp_path):
    raw, out, config = tmp_path / "raw", tmp_path / "processed", rawdata.config()
    rawdata.write_mvtec3d(raw)
    preprocess("mvtec3d", raw, out, config)
    whole, first = _tree(out), _times(out)
    base = out / "bracket/test/crack"
    for path in (base / "xyz/009.tiff", base / "rgb/010.png"):
        path.write_bytes(path.read_bytes()[:-100])
    preprocess("mvtec3d", raw, out, config)
    assert _tree(out) == whole
    changed = {p.relative_to(base).as_posix() for p, time in _times(out).items() if first[p] != time}
    assert changed == {"xyz/009.tiff", "xyz/010.tiff"}


def test_manifests_of_before_without_sizes_are_kept(tmp_path):
    raw, out, config = tmp_path / "raw", tmp_path / "processed", rawdata.config()
    rawdata.write_mvtec3d(raw)
    preprocess("mvtec3d", raw, out, config)
    path = out / "bracket/manifest.json"
    manifest = json.loads(path.read_text())
    for record in manifest["samples"].values():
        del record["sizes"]
    path.write_text(json.dumps(manifest))
    first = _times(out)
    preprocess("mvtec3d", raw, out, config)
    assert json.loads(path.read_text()) == manifest
    assert _times(out) == first


def test_only_changed_samples_are_made_again_and_only_their_split_changes(tmp_path):
    raw, out, config = tmp_path / "raw", tmp_path / "processed", rawdata.config()
    folder = rawdata.write_mvtec3d(raw)
    preprocess("mvtec3d", raw, out, config)
    first, before = _times(out), json.loads((out / "bracket/manifest.json").read_text())
    rawdata.write_tiff(folder / "test/crack/xyz/009.tiff", rawdata.scene(77))
    os.utime(folder / "train/good/rgb/000.png")  # touched, not changed
    for kind, suffix in (("rgb", "png"), ("xyz", "tiff"), ("gt", "png")):
        (folder / f"test/good/{kind}/001.{suffix}").unlink()
    preprocess("mvtec3d", raw, out, config)
    after = json.loads((out / "bracket/manifest.json").read_text())
    changed = {p.relative_to(out).as_posix() for p, time in _times(out).items() if first[p] != time}
    assert changed == {"bracket/test/crack/xyz/009.tiff"}
    assert not list((out / "bracket/test/good").rglob("001.*"))
    assert after["fingerprints"]["train"] == before["fingerprints"]["train"]
    assert after["fingerprints"]["test"] != before["fingerprints"]["test"]
    assert after["raw_fingerprint"] != before["raw_fingerprint"]


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    raw, out, config = tmp_path / "raw", tmp_path / "processed", rawdata.config()
    rawdata.write_mvtec3d(raw)
    preprocess("mvtec3d", raw, tmp_path / "whole", config)
    calls = []

    def convert(folder, sample, contents, plane, real=mvtec3d.convert):
        calls.append(sample.key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(folder, sample, contents, plane)

    monkeypatch.setattr(mvtec3d, "convert", convert)
    with pytest.raises(KeyboardInterrupt):
        preprocess("mvtec3d", raw, out, config)
    with pytest.raises(DataError, match="not preprocessed, or not to the end"):
        open_dataset("mvtec3d", out, "bracket", "train", config)
    preprocess("mvtec3d", raw, out, config)
    assert len(calls) == 4 + 5  # three of eight were there already
    assert _tree(out) == _tree(tmp_path / "whole")


def test_two_calls_at_once_leave_what_one_makes(tmp_path):
    rawdata.write_mvtec3d(tmp_path / "raw")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "alone", rawdata.config())
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from support import rawdata\n"
        "from mafr.data import preprocess; places = [Path(sys.argv[2], name) for name in ('raw', 'out')]\n"
        "preprocess('mvtec3d', *places, rawdata.config())"
    )
    command = [sys.executable, "-c", code, str(CHECKOUT / "tests"), str(tmp_path)]
    calls = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(call.communicate(timeout=60)[1], call.returncode) for call in calls] == [("", 0)] * 2
    assert _tree(tmp_path / "out") == _tree(tmp_path / "alone")


def test_another_plane_mode_replaces_everything_even_after_an_interruption(tmp_path, monkeypatch):
    raw, out, config = tmp_path / "raw", tmp_path / "processed", rawdata.config()
    rawdata.write_mvtec3d(raw)
    preprocess("mvtec3d", raw, out, config)
    removed = _tree(out)
    count = []

    def stop_late(path, content, real=write_atomically):
        count.append(path)
        if len(count) > 5:
            raise KeyboardInterrupt
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("mafr.data.preprocessing.write_atomically", stop_late)
        with pytest.raises(KeyboardInterrupt):
            preprocess("mvtec3d", raw, out, config, plane="none")
    preprocess("mvtec3d", raw, out, config)  # back to the first mode: nothing of the other may stay
    assert _tree(out) == removed
    preprocess("mvtec3d", raw, out, config, plane="none")
    xyz = tifffile.imread(out / "bracket/train/good/xyz/000.tiff")
    np.testing.assert_array_equal(xyz[30:70, 20:80], tifffile.imread(raw / "bracket/train/good/xyz/000.tiff"))
