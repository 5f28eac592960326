"""Data that is prepared though something about it is doubtful: one line for a category says so."""

import shutil

import pytest
from support import rawdata

from mafr.data import preprocess


@pytest.fixture
def raw(tmp_path):
    rawdata.write_mvtec3d(tmp_path / "raw")
    return tmp_path / "raw"


def notices(raw, capsys, out="out", **settings):
    preprocess("mvtec3d", raw, raw.parent / out, rawdata.config(), **settings)
    return capsys.readouterr().err.splitlines()


def copied(raw, source, target):
    """A scan under another name; source and target are keys, <split>/<defect>/<stem>."""
    one, other = ((raw / "bracket" / key).parent for key in (source, target))
    for kind, end in (("rgb", ".png"), ("xyz", ".tiff")):
        (other / kind).mkdir(parents=True, exist_ok=True)
        names = (f"{key.rpartition('/')[2]}{end}" for key in (source, target))
        shutil.copyfile(one / kind / next(names), other / kind / next(names))


# ------------------------------------------------------- one scan in two splits


def test_the_same_scan_in_two_splits_is_named(raw, capsys):
    copied(raw, "train/good/000", "validation/good/005")
    copied(raw, "train/good/002", "validation/good/006")
    copied(raw, "train/good/010", "test/good/010")
    shutil.copyfile(raw / "bracket/test/good/gt/000.png", raw / "bracket/test/good/gt/010.png")
    for _ in range(2):  # when it is made, and when all is up to date
        test, validation = notices(raw, capsys)
        assert "bracket: 1 test scan is also in train, byte for byte (test/good/010 is train/good/010): the met" in test
        assert "bracket: 2 validation scans are also in train, byte for byte (validation/good/005 is " in validation
        assert "threshold set by them will be too low" in validation


def test_a_held_out_copy_is_named_by_its_raw_file(raw, capsys):
    shutil.rmtree(raw / "bracket/validation")
    for key in ("002", "010", "003", "004"):  # whichever is held out
        copied(raw, "train/good/000", f"train/good/{key}")
    held, line = notices(raw, capsys)
    assert "is held out" in held
    assert "1 validation scan is also in train" in line
    assert "in the processed copy) is train/good/0" in line


def test_one_file_of_two_alike_is_no_copy(raw, capsys):
    shutil.copyfile(raw / "bracket/train/good/rgb/000.png", raw / "bracket/validation/good/rgb/001.png")
    assert not notices(raw, capsys)


# ---------------------------------------------------------- pieces left out


def test_a_second_piece_in_most_scans_is_said_once(raw, capsys):
    clouds = sorted(raw.rglob("*.tiff"))
    assert not notices(raw, capsys)
    for count, path in enumerate(clouds, 1):
        cloud = rawdata.read_tiff(path)
        cloud[12:28, 2:8, 2] -= 0.02  # a block beside the dome
        rawdata.write_tiff(path, cloud)
        found = notices(raw, capsys, f"out{count}")
        assert len(found) == (2 * count >= len(clouds))
    assert f"bracket: in {count} of {count} scans a second piece above the table" in found[0]
    assert "--plane none" in found[0]
    preprocess("mvtec3d", raw, raw.parent / "whole", rawdata.config(), plane="none")
    assert not capsys.readouterr().err


# -------------------------------------------------------------------- sizes


def test_training_images_of_two_sizes_are_counted(raw, capsys):
    for split in ("train", "test"):
        rawdata.write_png(raw / f"bracket/{split}/good/rgb/000.png", rawdata.rgb(0, 60, 80))
        rawdata.write_tiff(raw / f"bracket/{split}/good/xyz/000.tiff", rawdata.scene(ord(split[1]), 60, 80))
    rawdata.write_png(raw / "bracket/test/good/gt/000.png", rawdata.mask(False, 60, 80))
    (line,) = notices(raw, capsys)
    assert "bracket: the training images have 2 sizes, 60x40 (2), 80x60 (1) pixels" in line
