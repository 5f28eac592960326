"""Opening processed data: order, labels, transforms, few-shot subsets, single pairs, the real-image sample."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import rawdata
from support.places import TIRE, needs_tire

from mafr.data import Sample, few_shot, load_pair, open_dataset, preprocess
from mafr.data.scan import Scan
from mafr.data.transforms import common_side, mask_tensor, pad_square, resize_nearest, rgb_tensor, xyz_tensor
from mafr.errors import DataError


@pytest.fixture(scope="module")
def processed(tmp_path_factory):
    root = tmp_path_factory.mktemp("mvtec3d")
    rawdata.write_mvtec3d(root / "raw")
    preprocess("mvtec3d", root / "raw", root / "processed", rawdata.config())
    return root / "processed"


def test_order_labels_and_defects(processed):
    data = open_dataset("mvtec3d", processed, "bracket", "test", rawdata.config())
    assert data.ids == ["test/crack/009", "test/crack/010", "test/good/000", "test/good/001"]
    assert data.labels.tolist() == [1, 1, 0, 0]
    assert data.defects == ["crack", "crack", "good", "good"]
    train = open_dataset("mvtec3d", processed, "bracket", "train", rawdata.config())
    assert train.ids == ["train/good/000", "train/good/002", "train/good/010"]
    assert len(train) == 3
    assert (train.name, train.category, train.split) == ("mvtec3d", "bracket", "train")
    assert train.fingerprint != data.fingerprint


def test_samples_know_their_own_pixels(processed):
    """The stored image, and the cloud without the padding of preprocessing; also after a trip to another process."""
    folder = processed / "bracket" / "test" / "crack"
    sample = pickle.loads(pickle.dumps(open_dataset("mvtec3d", processed, "bracket", "test", rawdata.config())[0]))
    scan = sample.scan()
    with Image.open(folder / "rgb" / "009.png") as image:
        assert np.array_equal(scan.rgb, np.asarray(image))
    stored = rawdata.read_tiff(folder / "xyz" / "009.tiff")
    assert (stored.shape, scan.xyz.shape, scan.side) == ((100, 100, 3), (*rawdata.SIZE, 3), 100)
    assert np.array_equal(pad_square(scan.xyz, 100), stored)
    pair = load_pair(folder / "rgb" / "009.png", folder / "xyz" / "009.tiff", rawdata.config()).scan()
    assert np.array_equal(pair.rgb, scan.rgb) and np.array_equal(pair.xyz, scan.xyz) and pair.side == 100
    assert np.array_equal(xyz_tensor(scan.xyz, 100, 28), sample.xyz)


def test_a_scan_whose_files_changed_is_an_error(tmp_path):
    folder = rawdata.write_mvtec3d(tmp_path / "raw") / "train" / "good"
    image, cloud = folder / "rgb" / "000.png", folder / "xyz" / "000.tiff"
    rawdata.write_png(image, rawdata.rgb(0, 30, 30))
    with pytest.raises(DataError, match="30"):
        Scan.read(image, cloud)
    image.write_bytes(b"no image")
    with pytest.raises(DataError, match="not a complete image"):
        Scan.read(image, cloud)


def test_numbers_sort_by_value(tmp_path):
    folder = rawdata.write_mvtec3d(tmp_path / "raw")
    for kind, suffix in (("rgb", "png"), ("xyz", "tiff")):
        base = folder / "train/good" / kind
        base.joinpath(f"010.{suffix}").rename(base / f"1000.{suffix}")
        base.joinpath(f"002.{suffix}").rename(base / f"99.{suffix}")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", rawdata.config())
    data = open_dataset("mvtec3d", tmp_path / "out", "bracket", "train", rawdata.config())
    assert [name.split("/")[-1] for name in data.ids] == ["000", "99", "1000"]


def test_samples_have_the_promised_shapes_and_values(processed):
    data = open_dataset("mvtec3d", processed, "bracket", "test", rawdata.config())
    for sample in data:
        assert isinstance(sample, Sample)
        assert sample.rgb.shape == sample.xyz.shape == (3, 28, 28)
        assert (sample.gt.shape, sample.valid.shape) == ((1, 28, 28), (1, 28, 28))
        assert (sample.rgb.dtype, sample.xyz.dtype, sample.gt.dtype) == (np.float32, np.float32, bool)
        assert 0 <= sample.rgb.min() < sample.rgb.max() <= 1
        assert 0 < sample.valid.mean() < 0.5
        assert sample.gt.any() == (sample.label == 1) == (sample.defect != "good")
        assert sample.category == "bracket"
    assert [sample.id for sample in data] == data.ids
    assert data[-1].id == data.ids[-1]
    with pytest.raises(IndexError):
        data[4]


def test_subsets_slices_and_pickles(processed):
    data = open_dataset("mvtec3d", processed, "bracket", "train", rawdata.config())
    part = data.subset([2, 0])
    assert part.ids == ["train/good/010", "train/good/000"]
    assert part.fingerprint != data.fingerprint
    assert data[1:].ids == data.ids[1:]
    copy = pickle.loads(pickle.dumps(data))
    assert (copy.ids, copy.fingerprint) == (data.ids, data.fingerprint)
    np.testing.assert_array_equal(copy[0].xyz, data[0].xyz)


def test_image_cloud_and_mask_stay_aligned():
    # One marked block in a picture that is not square: it must come out at the same place in all three.
    height, width = 600, 800
    block = np.zeros((height, width), dtype=bool)
    block[200:300, 480:640] = True
    rgb = np.where(block[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    side = common_side(block.shape, (800, 800))
    image = rgb_tensor(rgb, side, 80)[0] > 0.5
    cloud = xyz_tensor(pad_square(np.where(block[..., None], np.float32(1), 0).repeat(3, axis=2), 800), side, 80)
    gt = mask_tensor(block, side, 80)[0]
    expected = np.zeros((80, 80), dtype=bool)
    expected[30:40, 48:64] = True  # 100 rows of padding above
    np.testing.assert_array_equal(gt, expected)
    np.testing.assert_array_equal(cloud[0] > 0, expected)
    np.testing.assert_array_equal(image, expected)


def test_images_are_padded_by_their_edges_and_the_rest_by_zeros():
    rgb = np.zeros((40, 90, 3), dtype=np.uint8)
    rgb[0] = (255, 0, 0)
    rgb[-1] = (0, 0, 255)
    image = rgb_tensor(rgb, 90, 90)
    np.testing.assert_array_equal(image[:, :26].transpose(1, 2, 0), np.broadcast_to([1.0, 0, 0], (26, 90, 3)))
    np.testing.assert_array_equal(image[:, -25:].transpose(1, 2, 0), np.broadcast_to([0, 0, 1.0], (25, 90, 3)))
    cloud = xyz_tensor(np.ones((40, 90, 3), np.float32), 90, 90)
    np.testing.assert_array_equal(np.flatnonzero(cloud[0].any(axis=1)), np.arange(25, 65))


@pytest.mark.parametrize(("side", "size"), [(800, 224), (200, 224), (100, 112), (7, 3)])
def test_nearest_is_pillows(side, size):
    values = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize_nearest(values, size), expected)


@pytest.mark.parametrize(
    ("image", "cloud", "side"),
    [((400, 900), (900, 900), 900), ((400, 900), (400, 900), 900), ((40, 60), (60, 60), None), ((8, 9), (9, 8), None)],
)
def test_common_side(image, cloud, side):
    assert common_side(image, cloud) == side


def test_eyecandies_opens_in_the_same_layout(tmp_path):
    rawdata.write_eyecandies(tmp_path / "raw")
    preprocess("eyecandies", tmp_path / "raw", tmp_path / "out", rawdata.config())
    data = open_dataset("eyecandies", tmp_path / "out", "Lollipop", "test", rawdata.config())
    assert data.defects == ["bumps", "colors", "combined", "good"]
    assert [sample.gt.any() for sample in data] == [True, True, True, False]
    assert len(open_dataset("eyecandies", tmp_path / "out", "Lollipop", "validation", rawdata.config())) == 1


# -------------------------------------------------------------- few-shot


def test_few_shot_subsets_are_nested_seeded_and_without_repeats():
    five, ten, everything = (few_shot(count, 80, 115) for count in (5, 10, 80))
    assert set(five) < set(ten)
    assert ten == sorted(set(ten))
    assert len(ten) == 10
    assert everything == list(range(80))
    assert few_shot(5, 80, 115) == five
    assert any(few_shot(5, 80, seed) != five for seed in (1, 2))
    assert all(type(k) is int for k in five)


@pytest.mark.parametrize("count", [81, 0, -1])
def test_few_shot_refuses_impossible_counts(count):
    with pytest.raises(DataError, match=r"80 training samples"):
        few_shot(count, 80, 1)


# ----------------------------------------------------------- single pairs


def test_a_pair_is_read_as_the_data_set_reads_it(processed, tmp_path):
    config = rawdata.config()
    data = open_dataset("mvtec3d", processed, "bracket", "test", config)
    base = processed / "bracket/test/crack"
    sample = load_pair(base / "rgb/009.png", base / "xyz/009.tiff", config)
    np.testing.assert_array_equal(sample.rgb, data[0].rgb)
    np.testing.assert_array_equal(sample.xyz, data[0].xyz)
    assert not sample.gt.any()
    assert (sample.id, sample.defect) == ("009", "unknown")
    rawdata.write_tiff(tmp_path / "raw.tiff", rawdata.scene(5))
    rawdata.write_png(tmp_path / "raw.png", rawdata.rgb(5))
    cleaned = load_pair(tmp_path / "raw.png", tmp_path / "raw.tiff", config, plane="remove")
    as_is = load_pair(tmp_path / "raw.png", str(tmp_path / "raw.tiff"), config, plane="none")
    assert 0 < cleaned.valid.mean() < as_is.valid.mean() / 2
    message = r"raw\.tiff: the cloud still shows the table.*`mafr data ... --plane none`.*--set plane=none"
    with pytest.raises(DataError, match=message):
        load_pair(tmp_path / "raw.png", tmp_path / "raw.tiff", config)


# ------------------------------------------------------ the real-image sample


def _some_tires(raw: Path) -> dict[str, int]:
    """Link a few samples of each folder into `raw`; folder -> count."""
    counts = {}
    for folder in sorted((TIRE / "tire").glob("*/*/rgb")):
        name = folder.parent.relative_to(TIRE / "tire")
        stems = sorted(path.stem for path in folder.glob("*.png"))[:2]
        counts[name.as_posix()] = len(stems)
        for kind, suffix in (("rgb", "png"), ("xyz", "tiff"), ("gt", "png")):
            for stem in stems:
                source = TIRE / "tire" / name / kind / f"{stem}.{suffix}"
                if not source.is_file():
                    continue
                if kind == "xyz" and source.stat().st_size < 1024:
                    # The clouds are links to one placeholder; some copies hold the links' text instead.
                    source = source.parent / source.read_text()
                target = raw / "tire" / name / kind / f"{stem}.{suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source.resolve(strict=True))
    return counts


@needs_tire
def test_real_tire_images_go_through(tmp_path):
    counts = _some_tires(tmp_path / "raw")
    config = rawdata.config(image_size=224, grid=28)
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    assert tifffile.imread(next((tmp_path / "out/tire/train/good/xyz").iterdir())).shape == (400, 400, 3)
    total = 0
    for split in ("train", "validation", "test"):
        data = open_dataset("mvtec3d", tmp_path / "out", "tire", split, config)
        total += len(data)
        for sample in data:
            assert sample.rgb.shape == (3, 224, 224)
            assert 0.1 < sample.valid.mean() < 0.5  # the placeholder dome, without its table
            assert sample.gt.any() == (sample.label == 1)  # masks of 253 to 255
    assert total == sum(counts.values())
    assert {"good", "hole", "cut", "contamination", "combined"} == set(data.defects)


def test_a_pair_without_a_table_equals_its_processed_copy(tmp_path):
    """60 x 40 pixels: both must be padded to the same square, or a detector would see another scale."""
    config = rawdata.config(plane="none")
    raw = rawdata.write_mvtec3d(tmp_path / "raw")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    stored = open_dataset("mvtec3d", tmp_path / "out", "bracket", "test", config)
    sample = stored[stored.ids.index("test/crack/009")]
    base = raw / "test" / "crack"
    pair = load_pair(base / "rgb" / "009.png", base / "xyz" / "009.tiff", config, plane="none")
    assert np.array_equal(pair.rgb, sample.rgb)
    assert np.array_equal(pair.xyz, sample.xyz)


def test_images_of_more_than_eight_bits_are_refused(tmp_path):
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)).save(tmp_path / "deep.png")
    rawdata.write_tiff(tmp_path / "a.tiff", rawdata.scene(0))
    with pytest.raises(DataError, match=r"deep\.png.*8-bit"):
        load_pair(tmp_path / "deep.png", tmp_path / "a.tiff", rawdata.config(), plane="remove")
