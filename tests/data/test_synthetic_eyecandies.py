"""The generated Eyecandies stand-in: published format, repeatable bytes, true masks, and the published cropping."""

from __future__ import annotations

import dataclasses
import hashlib
import time

import numpy as np
import pytest
import yaml
from PIL import Image

from mafr.config import CATEGORIES, Config
from mafr.data.manifest import GENERATED
from mafr.data.synthetic import generate
from mafr.data.synthetic.eyecandies import write as ec
from mafr.data.synthetic.eyecandies.defects import KINDS, smallest_mask
from mafr.errors import ConfigError, DataError

SIDE = 80
SEVENTEEN = {
    *(f"image_{k}.png" for k in range(6)), "depth.png", "info_depth.yaml", "normals.png", "pose.txt", "obj_params.yaml",
    "metadata.yaml", "mask.png", "bumps_mask.png", "dents_mask.png", "colors_mask.png", "normals_mask.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def config():
    small = {"raw_side": SIDE, "eyecandies_train": 2, "validation_count": 1, "test_good": 2, "test_defective": 5}
    return Config.preset("smoke", overrides=small)


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    return generate("eyecandies", tmp_path_factory.mktemp("raw"), config, ["Lollipop"])[0]


def digest(folder):
    out = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            out.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return out.hexdigest()


def read_mask(path):
    mask = np.asarray(Image.open(path))
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}
    return mask > 0


def test_layout_is_the_published_one(folder, config):
    for split, count, digits in (("train", 2, 3), ("val", 1, 3), ("test_public", 7, 2)):
        names = {path.name for path in (folder / split / "data").iterdir()}
        assert names == {f"{k:0{digits}d}_{item}" for k in range(count) for item in SEVENTEEN}
    first = folder / "train" / "data"
    for k in range(6):
        image = Image.open(first / f"000_image_{k}.png")
        assert (image.size, image.mode) == ((SIDE, SIDE), "RGB")
    assert np.asarray(Image.open(first / "000_normals.png")).shape == (SIDE, SIDE, 3)
    depth = np.asarray(Image.open(first / "000_depth.png"))
    assert depth.dtype == np.uint16
    assert depth.max() - depth.min() > 60000  # the whole range is used
    assert np.loadtxt(first / "000_pose.txt").shape == (4, 4)
    bounds = yaml.safe_load((first / "000_info_depth.yaml").read_text())["normalization"]
    assert 0 < bounds["min"] < bounds["max"] < 10
    assert isinstance(yaml.safe_load((first / "000_obj_params.yaml").read_text()), dict)


def test_labels_and_masks_agree(folder):
    bad = []
    for k in range(7):
        stem = folder / "test_public" / "data"
        flags = yaml.safe_load((stem / f"{k:02d}_metadata.yaml").read_text())
        masks = {kind: read_mask(stem / f"{k:02d}_{kind}_mask.png") for kind in KINDS}
        whole = read_mask(stem / f"{k:02d}_mask.png")
        assert np.array_equal(whole, np.logical_or.reduce(list(masks.values())))
        assert bool(flags["anomalous"]) == whole.any()
        for kind in KINDS:
            assert bool(flags[kind]) == masks[kind].any()
            assert masks[kind].sum() >= smallest_mask(SIDE) or not masks[kind].any()
        if whole.any():
            bad.append(tuple(kind for kind in KINDS if masks[kind].any()))
    assert sorted(bad) == sorted([*((kind,) for kind in KINDS), KINDS])
    for split in ("train", "val"):
        for path in (folder / split / "data").glob("*_mask.png"):
            assert not read_mask(path).any()


def test_same_settings_same_bytes(folder, config, tmp_path):
    again = generate("eyecandies", tmp_path, config, ["Lollipop"])[0]
    assert digest(again) == digest(folder)
    other = generate("eyecandies", tmp_path, config, ["PeppermintCandy"])[0]
    assert digest(other) != digest(folder)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_complete_class_is_kept_and_others_are_made_again(config, tmp_path):
    tiny = dataclasses.replace(config, eyecandies_train=1, test_good=1, test_defective=1)
    folder = generate("eyecandies", tmp_path, tiny, ["Confetto"])[0]
    before = digest(folder)
    stamp = (folder / GENERATED).stat().st_mtime_ns
    times = []
    for _ in range(3):
        start = time.process_time()  # this process's own, its threads' included
        generate("eyecandies", tmp_path, tiny, ["Confetto"])
        times.append(time.process_time() - start)
    assert min(times) < 0.2
    assert (folder / GENERATED).stat().st_mtime_ns == stamp
    larger = dataclasses.replace(tiny, eyecandies_train=2)
    generate("eyecandies", tmp_path, larger, ["Confetto"])
    assert (folder / "train" / "data" / "001_image_4.png").is_file()
    # A class without a valid mark of completion that the generator made is made again.
    (folder / GENERATED).write_text("{")
    (folder / "val" / "data" / "000_depth.png").unlink()
    generate("eyecandies", tmp_path, tiny, ["Confetto"])
    assert digest(folder) == before


def test_interrupted_run_leaves_nothing_that_looks_complete(config, tmp_path, monkeypatch):
    tiny = dataclasses.replace(config, eyecandies_train=1, test_good=1, test_defective=1)
    write = ec.write_shot

    def fail(folder, name, shot):
        if folder.parent.name == "val":
            raise OSError("disk full")
        write(folder, name, shot)

    monkeypatch.setattr(ec, "write_shot", fail)
    with pytest.raises(OSError, match="disk full"):
        generate("eyecandies", tmp_path, tiny, ["Lollipop"])
    assert list(tmp_path.iterdir()) == []


def test_foreign_folder_and_unknown_class_are_refused(config, tmp_path):
    (tmp_path / "Lollipop" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="not generated"):
        generate("eyecandies", tmp_path, config, ["Lollipop"])
    assert [path.name for path in (tmp_path / "Lollipop").iterdir()] == ["train"]
    with pytest.raises(ConfigError, match="Lolipop"):
        generate("eyecandies", tmp_path, config, ["Lolipop"])


def test_plan_counts_and_spread():
    config = Config.preset("demo")
    splits = ec.plan(config)
    assert (len(splits["train"]), len(splits["val"])) == (config.eyecandies_train, config.validation_count)
    test = splits["test_public"]
    assert (test.count(()), len(test)) == (config.test_good, config.test_good + config.test_defective)
    assert all(test.count((kind,)) == config.test_defective // 5 for kind in KINDS)
    assert test.count(KINDS) == config.test_defective // 5
    half = len(test) // 2
    assert abs(test[:half].count(()) - test[half:].count(())) <= 1  # good and bad are interleaved
    assert ec.severities(1) == [0.5]
    assert np.allclose(sorted(ec.severities(10)), np.arange(10) / 10 + 0.05)
    assert ec.severities(10) != sorted(ec.severities(10))


def published_crop(data, name, side):
    """Unprojection and cropping as published, written out point by point: (S, S) bool of the points that stay."""
    bounds = yaml.safe_load((data / f"{name}_info_depth.yaml").read_text())["normalization"]
    depth = np.asarray(Image.open(data / f"{name}_depth.png")).astype(float)
    depth = depth / 65535 * (bounds["max"] - bounds["min"]) + bounds["min"]
    pose = np.loadtxt(data / f"{name}_pose.txt")
    focal = 711.11 * side / 512
    k = np.array([[focal, 0, side / 2, 0], [0, focal, side / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    u, v = np.meshgrid(np.arange(side), np.arange(side))
    d = depth.ravel()
    rows = np.stack([u.ravel(), v.ravel(), np.ones(d.size), 1 / d])
    points = (d * (np.linalg.inv(k @ pose) @ rows))[:3].T
    top, bottom = points[side // 2], points[-(side // 2)]
    a, b = top[1] - bottom[1], top[2] - bottom[2]
    cos, sin = b / np.hypot(a, b), a / np.hypot(a, b)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    s = np.array([0, bottom[1], bottom[2]])
    q = (points - s) @ turn.T
    gone = (q[:, 1] > -0.02) | (q[:, 2] > 1.8) | (np.abs(q[:, 0]) > 1)
    metres = ((q @ turn) + s)[:, [0, 2, 1]] * [0.1, -0.1, 0.1]
    return ~gone.reshape(side, side), metres.reshape(side, side, 3)


@pytest.mark.parametrize("category", CATEGORIES["eyecandies"])
def test_published_cropping_keeps_the_candy_and_drops_the_belt(category, tmp_path):
    side = 100
    for index in range(2):
        shot = ec.shoot(category, "train", index, side)
        ec.write_shot(tmp_path, f"{index:03d}", shot)
        kept, metres = published_crop(tmp_path, f"{index:03d}", side)
        overlap = (kept & shot.part).sum() / (kept | shot.part).sum()
        assert overlap > 0.93
        assert not (kept & ~shot.part).any()
        assert shot.part.mean() > 0.08
        # Not cut by the image's border, and of the published size: some 5 to 13 cm once scaled.
        border = np.concatenate([shot.part[0], shot.part[-1], shot.part[:, 0], shot.part[:, -1]])
        assert not border.any()
        extent = np.ptp(metres[kept], axis=0).max()
        assert 0.05 < extent < 0.13
        assert (metres[kept] != 0).all()  # a zero coordinate would mean "no point"


@pytest.mark.parametrize("category", ["CandyCane", "GummyBear", "HazelnutTruffle"])
def test_each_kind_changes_what_it_should(category):
    shots = {kind: ec.shoot(category, "kinds", 0, SIDE, (kind,), 0.8) for kind in KINDS}
    good = ec.shoot(category, "kinds", 0, SIDE)
    for kind, shot in shots.items():
        mask = shot.masks[kind]
        assert mask.sum() >= smallest_mask(SIDE)
        assert not any(shot.masks[other].any() for other in KINDS if other != kind)
        moved = np.abs(shot.depth - good.depth)
        if kind in ("bumps", "dents"):
            inside = shot.depth[mask] - good.depth[mask]
            assert np.median(np.abs(inside)) > 0.004
            assert (np.median(inside) < 0) == (kind == "bumps")  # a bump is nearer to the camera
            assert moved[~mask].max() < 0.02
        else:
            assert moved.max() == 0
        turned = (shot.normals * good.normals).sum(-1)
        if kind == "colors":
            assert np.allclose(turned[good.part], 1, atol=1e-5)
            difference = np.abs(shot.images[5].astype(int) - good.images[5].astype(int)).max(-1)
            assert difference[mask].mean() > 4 * difference[~mask].mean()
        else:
            assert turned[mask].mean() < turned[~mask].mean() - 0.005


def test_parts_vary_and_lights_differ():
    shots = [ec.shoot("CandyCane", "train", k, SIDE) for k in range(3)]
    for one, other in ((0, 1), (1, 2)):
        a, b = shots[one].part, shots[other].part
        assert (a & b).sum() / (a | b).sum() < 0.9
    bottom, right, top, left = (image.astype(float).mean(-1) for image in shots[0].images[1:5])
    half = SIDE // 2
    assert right[:, half:].mean() - right[:, :half].mean() > left[:, half:].mean() - left[:, :half].mean()
    assert bottom[half:].mean() - bottom[:half].mean() > top[half:].mean() - top[:half].mean()
