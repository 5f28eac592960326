"""Bad input: one clear DataError each, naming the file and the way out."""

import json
import shutil

import numpy as np
import pytest
from support import rawdata

from mafr.config import CATEGORIES, Config
from mafr.data import load_pair, open_dataset, preprocess
from mafr.data.acquire.counts import check_counts
from mafr.data.formats.images import decode_mask, decode_xyz
from mafr.errors import DataError


@pytest.fixture
def raw(tmp_path):
    rawdata.write_mvtec3d(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def done(raw, tmp_path):
    preprocess("mvtec3d", raw, tmp_path / "out", rawdata.config())
    return tmp_path / "out"


def _preprocess(raw, dataset="mvtec3d", config=None, out="out", **settings):
    preprocess(dataset, raw, raw.parent / out, config or rawdata.config(), **settings)


def _both(raw, done, index=0):
    """(root, attempt): bad raw files stop preprocessing, bad processed ones the reading of a sample."""
    return ((raw, lambda: _preprocess(raw, out="other")), (done, lambda: _open(done)[index]))


def _open(root, category="bracket", split="test", name="mvtec3d", config=None):
    return open_dataset(name, root, category, split, config or rawdata.config())


# ---------------------------------------------------------------- folders


def test_missing_folders_name_the_command(tmp_path, done):
    smoke, demo = Config.preset("smoke"), Config.preset("demo")
    with pytest.raises(DataError, match=r"nothing: no such folder.*`mafr data mvtec3d --data-root DIR`"):
        _preprocess(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"`mafr data generate --profile smoke`"):
        _preprocess(tmp_path / "nothing", config=smoke)
    with pytest.raises(DataError, match=r"bagel: no such folder.*`mafr data generate`"):
        _open(tmp_path / "nothing", "bagel", config=demo)
    message = r"bagel: no such folder \(found are bracket\).*`mafr data mvtec3d --data-root DIR --categories bagel`"
    with pytest.raises(DataError, match=message):
        _open(done, "bagel")
    with pytest.raises(DataError, match=message):
        _preprocess(tmp_path / "raw", categories=["bagel"])
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"void: no category folders"):
        _preprocess(tmp_path / "void")


def test_own_parts_are_prepared_from_their_own_folder(done):
    own, published = "`mafr data mvtec3d --source MY_PARTS --data-root DIR`", "`mafr data mvtec3d --data-root DIR`"
    shutil.copytree(done / "bracket", done / "bagel")
    for name, command in (("bracket", own), ("bagel", published)):
        with pytest.raises(DataError, match=f"again with {command}"):
            _open(done, name, config=rawdata.config(plane="none"))
        (done / name / "manifest.json").unlink()
        with pytest.raises(DataError, match=f"Preprocess it with {command}"):
            _open(done, name)
    with pytest.raises(DataError, match="Preprocess it with `mafr data adam3d --data-root DIR`"):
        _open(done, "bagel", name="adam3d")


def test_unknown_names(tmp_path, done):
    with pytest.raises(DataError, match=r"unknown data set 'mvtec'; choose one of mvtec3d, eyecandies"):
        _open(done, name="mvtec")
    with pytest.raises(DataError, match=r"unknown data set 'mvtec'"):
        _preprocess(tmp_path / "raw", "mvtec")
    with pytest.raises(DataError, match=r"unknown split 'val'; choose one of train, validation, test"):
        _open(done, split="val")
    with pytest.raises(DataError, match=r"unknown category 'brakcet'; found are bracket"):
        _open(done, "brakcet")
    with pytest.raises(DataError, match=r"unknown category 'brakcet'; found are bracket"):
        _preprocess(tmp_path / "raw", categories=["brakcet"])
    message = r"nothing/brakcet: no such folder \(nothing is there\); make the data ready with `mafr data mvtec3d"
    with pytest.raises(DataError, match=message):
        _open(tmp_path / "nothing", "brakcet")
    message = r"nothing: unknown category 'brakcet'; nothing is there; published are bagel, cable_gland, carrot,"
    with pytest.raises(DataError, match=message):
        _preprocess(tmp_path / "nothing", categories=["brakcet"])
    with pytest.raises(DataError, match=r"unknown plane mode 'keep'"):
        _preprocess(tmp_path / "raw", plane="keep")


@pytest.mark.parametrize("dataset", ["mvtec3d", "eyecandies"])
def test_empty_category(tmp_path, dataset):
    (tmp_path / "raw/thing/train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"thing: the category is empty; expected are"):
        _preprocess(tmp_path / "raw", dataset)
    name = CATEGORIES[dataset][0]
    (tmp_path / "raw" / name / name / "train/good").mkdir(parents=True)  # one folder too deep
    with pytest.raises(DataError, match=f"{name}: the category is empty; expected are"):
        check_counts(dataset, tmp_path / "raw")


def test_empty_split(raw):
    for path in (raw / "bracket/train/good").rglob("0*"):
        path.unlink()
    with pytest.raises(DataError, match=r"bracket/train: no samples; train/.*expected"):
        _preprocess(raw)


@pytest.mark.parametrize("dataset", ["mvtec3d", "eyecandies"])
def test_a_category_without_training_samples(tmp_path, dataset):
    write = rawdata.write_mvtec3d if dataset == "mvtec3d" else rawdata.write_eyecandies
    shutil.rmtree(write(tmp_path / "raw", "thing") / "train")
    with pytest.raises(DataError, match=r"thing/train: no samples; .* add them in the layout of"):
        _preprocess(tmp_path / "raw", dataset)
    assert not (tmp_path / "out").exists()


def test_raw_files_are_not_to_be_overwritten(raw):
    with pytest.raises(DataError, match="folders of their own"):
        preprocess("mvtec3d", raw, raw, rawdata.config())


# ---------------------------------------------------------------- pairing


def test_files_that_do_not_pair_up_are_listed(raw, done):
    for root, attempt in _both(raw, done):
        base = root / "bracket/test/crack"
        (base / "xyz/009.tiff").unlink()
        (base / "xyz/010.tiff").rename(base / "xyz/011.tiff")
        message = r"test/crack: files do not pair up: no xyz/NNN.tiff for rgb 009, 010; no rgb/NNN.png for xyz 011"
        with pytest.raises(DataError, match=message):
            attempt()


def test_missing_masks(raw):
    (raw / "bracket/test/crack/gt/010.png").unlink()
    with pytest.raises(DataError, match=r"no gt/NNN.png for rgb 010"):
        _preprocess(raw)
    (raw / "bracket/test/crack/gt/009.png").unlink()
    with pytest.raises(DataError, match=r"crack/gt: no masks; every defective sample needs"):
        _preprocess(raw)


def test_missing_items_of_eyecandies_are_listed(tmp_path):
    folder = rawdata.write_eyecandies(tmp_path / "raw")
    (folder / "train/data/001_depth.png").unlink()
    (folder / "train/data/000_pose.txt").unlink()
    with pytest.raises(DataError, match=r"train/data: files are missing: 000_pose.txt, 001_depth.png; extract"):
        _preprocess(tmp_path / "raw", "eyecandies")


def test_two_files_of_one_sample(raw):
    base = raw / "bracket/train/good/xyz"
    (base / "000.tif").write_bytes((base / "000.tiff").read_bytes())
    with pytest.raises(DataError, match=r"both 000.tif and 000.tiff hold sample 000"):
        _preprocess(raw)


# ------------------------------------------------------------- file contents

XYZ = "bracket/test/crack/xyz/009.tiff"
NAN = rawdata.scene(0)
NAN[3, 4] = (0.1, np.nan, 0.5)
INF = rawdata.scene(0)
INF[5, 6, 2] = np.inf
BAD_CLOUDS = {
    "two channels": (rawdata.scene(0)[..., :2].copy(), r"shape \(height, width, 3\) expected, found \(40, 60, 2\)"),
    "flat": (rawdata.scene(0)[..., 0].copy(), r"shape \(height, width, 3\) expected, found \(40, 60\)"),
    "integers": (np.ones((40, 60, 3), np.uint16), r"float32 coordinates in metres expected, found uint16"),
    "nan": (NAN, r"1 points are NaN or infinite; write \(0, 0, 0\)"),
    "inf": (INF, r"1 points are NaN or infinite"),
    "empty": (np.zeros((40, 60, 3), np.float32), r"the cloud has no valid point"),
    "size": (rawdata.scene(0, 44, 60), r"60x44 pixels, but .*009.png has 60x40"),
}


@pytest.mark.parametrize("kind", BAD_CLOUDS)
def test_bad_clouds(kind, raw, done):
    array, message = BAD_CLOUDS[kind]
    for root, attempt in _both(raw, done):
        rawdata.write_tiff(root / XYZ, array)
        with pytest.raises(DataError, match=r"xyz/009\.tiff: .*" + message):
            attempt()
    with pytest.raises(DataError, match=r"xyz/009\.tiff: .*" + message.replace("009.png", ".*png")):
        load_pair(raw / "bracket/test/crack/rgb/009.png", raw / XYZ, rawdata.config(), plane="remove")


@pytest.mark.parametrize("name", ["rgb/009.png", "xyz/009.tiff", "gt/009.png"])
@pytest.mark.parametrize("keep", [0.6, 0.1, 0])
def test_truncated_files(name, keep, raw, done):
    for root, attempt in _both(raw, done):
        path = root / "bracket/test/crack" / name
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(DataError, match=rf"{name}: (not a complete|not a tiff|the file is empty).*again"):
            attempt()


def test_a_link_copied_as_text_is_recognised(raw):
    (raw / XYZ).write_text("../../../placeholder_xyz.tiff")
    with pytest.raises(DataError, match=r"009.tiff: not a tiff but the text '../../../placeholder_xyz.tiff'.*link"):
        _preprocess(raw)


def test_masks_of_another_size(raw, done):
    for root, attempt in _both(raw, done):
        rawdata.write_png(root / "bracket/test/crack/gt/009.png", rawdata.mask(True, 40, 61))
        with pytest.raises(DataError, match=r"gt/009.png: 61x40 pixels, but .*rgb/009.png has 60x40"):
            attempt()


def test_good_samples_have_no_marked_pixels(raw, done):
    for root, attempt in _both(raw, done, 2):
        rawdata.write_png(root / "bracket/test/good/gt/000.png", rawdata.mask(True))
        with pytest.raises(DataError, match=r"good/gt/000.png: the mask of a good sample marks 96 pixels"):
            attempt()


def test_defective_samples_may_have_empty_masks(raw):
    rawdata.write_png(raw / "bracket/test/crack/gt/009.png", rawdata.mask(False))
    _preprocess(raw)
    sample = _open(raw.parent / "out")[0]
    assert (sample.label, sample.gt.any()) == (1, False)


def test_opaque_masks_are_not_defects(tmp_path):
    opaque = np.zeros((4, 4, 4), np.uint8)
    opaque[..., 3] = 255
    rawdata.write_png(tmp_path / "mask.png", opaque)
    assert not decode_mask((tmp_path / "mask.png").read_bytes(), tmp_path).any()


def test_images_that_are_none(raw):
    (raw / "bracket/train/good/rgb/000.png").write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(DataError, match=r"rgb/000.png: not a complete image"):
        _preprocess(raw)


@pytest.mark.parametrize(
    ("item", "content", "message"),
    [
        ("info_depth.yaml", b"normalization: {max: 2}", r"info_depth.yaml: numbers min and max .*KeyError"),
        ("info_depth.yaml", b"\x00: [", r"info_depth.yaml: numbers min and max"),
        ("info_depth.yaml", b"normalization: {min: 3, max: 2}", r"min 3.0 and max 2.0 are no range"),
        ("pose.txt", b"1 2 3\n", r"pose.txt: an invertible 4x4 matrix expected, found shape \(3,\)"),
        ("pose.txt", b"one two\n", r"pose.txt: a 4x4 matrix of numbers expected"),
        ("depth.png", None, r"depth.png: a 16-bit grey depth image expected"),
    ],
)
def test_bad_items_of_eyecandies(item, content, message, tmp_path):
    folder = rawdata.write_eyecandies(tmp_path / "raw")
    path = folder / f"train/data/000_{item}"
    if content is None:
        rawdata.write_png(path, rawdata.rgb(0, 32, 32))
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        _preprocess(tmp_path / "raw", "eyecandies")


# ----------------------------------------------------------- the table, units


def test_millimetres_are_recognised(raw):
    rawdata.write_tiff(raw / XYZ, rawdata.scene(0) * 1000)
    with pytest.raises(DataError, match=r"009.tiff: coordinates reach .*divide millimetres by 1,000"):
        _preprocess(raw)


def test_a_scan_without_table_names_the_way_out(raw):
    cloud = rawdata.scene(0)
    cloud[:10] = cloud[-10:] = cloud[:, :10] = cloud[:, -10:] = 0
    rawdata.write_tiff(raw / XYZ, cloud)
    with pytest.raises(DataError, match=r"0 valid points within 10 pixels.*`mafr data ... --plane none`.*--processed"):
        _preprocess(raw)


def test_a_table_without_part(raw):
    v, u = np.mgrid[:40, :60]
    table = np.stack([u * 0.0015, v * 0.0015, np.full(u.shape, 0.5)], axis=2).astype(np.float32)
    rawdata.write_tiff(raw / XYZ, table)
    with pytest.raises(DataError, match=r"009.tiff: no part is left without the table plane"):
        _preprocess(raw)


# ---------------------------------------------------------------- manifests


def test_raw_data_is_not_opened_silently(raw):
    with pytest.raises(DataError, match=r"no manifest.json: this data is not preprocessed.*`mafr data mvtec3d"):
        _open(raw)


def test_another_plane_mode(raw, done):
    with pytest.raises(DataError, match=r'preprocessed with plane="remove", but the settings say plane="none"'):
        _open(done, config=rawdata.config(plane="none"))
    _preprocess(raw, plane="none")
    with pytest.raises(DataError, match=r"--set plane=none"):
        _open(done)
    assert len(_open(done, config=rawdata.config(plane="none"))) == 4


def test_damaged_manifests(done):
    path = done / "bracket/manifest.json"
    whole = path.read_text()
    for content in (whole[:100], "[]", "[" * 100_000, json.dumps({"format": 1, "dataset": "mvtec3d"})):
        path.write_text(content)
        with pytest.raises(DataError, match=r"manifest.json: damaged .*; delete it and preprocess again"):
            _open(done)
    path.write_text(json.dumps(json.loads(whole) | {"format": 0}))
    with pytest.raises(DataError, match=r"format 0 of mvtec3d; format 1 of mvtec3d expected"):
        _open(done)
    path.write_text(whole)
    with pytest.raises(DataError, match=r"format 1 of mvtec3d; format 1 of eyecandies expected"):
        _open(done, name="eyecandies")


def test_samples_added_or_removed_since(done):
    base = done / "bracket/test/crack"
    for kind, suffix in (("rgb", "png"), ("xyz", "tiff"), ("gt", "png")):
        (base / kind / f"010.{suffix}").rename(base / kind / f"012.{suffix}")
    with pytest.raises(DataError, match=r"2 samples differ .*the first is test/crack/010"):
        _open(done)


def test_generated_and_real_data_are_never_mixed_up(tmp_path):
    config = Config.preset("smoke", overrides={"mvtec3d_categories": ("bagel",), "image_size": 28, "grid": 14})
    folder = rawdata.write_mvtec3d(tmp_path / "raw", "bagel")
    with pytest.raises(DataError, match=r"was not generated, but profile smoke expects generated data"):
        _preprocess(tmp_path / "raw", config=config)
    (folder / "generated.json").write_text(json.dumps({"data_digest": config.data_digest("mvtec3d")}))
    with pytest.raises(DataError, match=r"this data is generated, but the settings say real data"):
        _preprocess(tmp_path / "raw")
    _preprocess(tmp_path / "raw", config=config)
    assert len(_open(tmp_path / "out", "bagel", config=config)) == 4
    with pytest.raises(DataError, match=r"this data is generated, but the settings say real data"):
        _open(tmp_path / "out", "bagel")
    other = Config.preset("smoke", overrides={"mvtec3d_categories": ("bagel",), "raw_side": 120})
    message = r"generated with other settings.*`mafr data generate --profile smoke`"
    with pytest.raises(DataError, match=message):
        _open(tmp_path / "out", "bagel", config=other)
    with pytest.raises(DataError, match=message):
        _preprocess(tmp_path / "raw", config=other)
    (folder / "generated.json").write_text("{")
    with pytest.raises(DataError, match=r"generated.json: damaged .*make the data again"):
        _preprocess(tmp_path / "raw", config=config)


def test_one_bad_file_in_parallel_is_one_error(raw):
    rawdata.write_mvtec3d(raw, "clamp")
    (raw / "clamp" / "train/good/xyz/000.tiff").write_bytes(b"II*\0 broken, but not a text")
    with pytest.raises(DataError, match=r"clamp/train/good/xyz/000.tiff: not a complete tiff"):
        _preprocess(raw, workers=2)
    assert decode_xyz((raw.parent / "raw/bracket/train/good/xyz/000.tiff").read_bytes(), raw).any()


def test_a_depth_image_in_place_of_a_cloud(raw):
    rawdata.write_tiff(raw / XYZ, rawdata.scene(0)[..., 2])
    with pytest.raises(DataError, match=r"found \(40, 60\); if it is a depth image, put it into depth/.*intrinsics.js"):
        _preprocess(raw)
