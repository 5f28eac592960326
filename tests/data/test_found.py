"""What lies in people's folders: rubbish of systems, folders too high or too deep, odd names, odd kinds of files."""

import os
import shutil
import unicodedata

import pytest
from support import rawdata

from mafr.cli import main
from mafr.data import open_dataset, preprocess
from mafr.data.layout import scan_split, subfolders
from mafr.errors import DataError, MafrError, printable

RUBBISH = ("__MACOSX", "@eaDir", "lost+found", "System Volume Information", "$RECYCLE.BIN", "$Recycle.Bin", ".Trashes")


@pytest.fixture
def raw(tmp_path):
    rawdata.write_mvtec3d(tmp_path / "raw")
    return tmp_path / "raw"


def _preprocess(raw, dataset="mvtec3d", **settings):
    preprocess(dataset, raw, raw.parent / "out", rawdata.config(), **settings)
    return sorted(p.name for p in (raw.parent / "out").iterdir())


# ------------------------------------------------------ beside categories


def test_folders_of_operating_systems_are_no_categories(raw, capsys):
    for name in RUBBISH:
        (raw / name / "bracket").mkdir(parents=True)
        (raw / "bracket/test" / name / "rgb").mkdir(parents=True)  # nor defects
        (raw / "bracket/test/crack/rgb" / name).mkdir()
    assert subfolders(raw) == ["bracket"]
    assert _preprocess(raw) == ["bracket"]
    assert capsys.readouterr().err == ""


def test_folders_without_train_are_passed_over_and_named(raw, capsys):
    (raw / "docs/pictures").mkdir(parents=True)
    (raw / "empty").mkdir()
    assert _preprocess(raw) == ["bracket"]
    assert "as there is no train folder in them: docs, empty" in capsys.readouterr().err
    with pytest.raises(DataError, match="docs: the category is empty"):
        _preprocess(raw, categories=["docs"])  # asked for


def test_a_category_named_as_the_source_names_the_folder_above(raw):
    with pytest.raises(DataError, match=rf"bracket: this is a category itself.*folder above it, {raw} \(with --cat"):
        preprocess("mvtec3d", raw / "bracket", raw.parent / "out", rawdata.config())
    with pytest.raises(DataError, match=r"this is a category itself"):
        preprocess("mvtec3d", raw / "bracket", raw.parent / "out", rawdata.config(), categories=["bracket"])
    candy = rawdata.write_eyecandies(raw.parent / "candies")
    with pytest.raises(DataError, match=r"Lollipop: this is a category itself"):
        preprocess("eyecandies", candy, raw.parent / "out", rawdata.config())
    _preprocess(raw)
    with pytest.raises(DataError, match=r"bracket: this is a category itself; name the folder above it"):
        open_dataset("mvtec3d", raw.parent / "out/bracket", "bracket", "train", rawdata.config())


def test_a_source_one_folder_too_high_names_the_right_one(raw, tmp_path):
    with pytest.raises(DataError, match=rf"no category folders here, but in {raw}: name that folder"):
        preprocess("mvtec3d", tmp_path, tmp_path.parent / f"{tmp_path.name}-out", rawdata.config())


def test_a_file_in_place_of_the_source(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"a.zip: a file, where a folder of categories is needed; archives go"):
        preprocess("mvtec3d", tmp_path / "a.zip", tmp_path / "out", rawdata.config())


def test_categories_are_stripped_and_taken_once(raw, tmp_path, capsys):
    rawdata.write_mvtec3d(raw, "clamp")
    command = ["data", "mvtec3d", "--source", str(raw), "--root", str(tmp_path), "--workers", "1", "--categories"]
    assert main([*command, "bracket, clamp ,bracket"]) == 0
    assert sorted(p.name for p in (tmp_path / "processed/mvtec3d").iterdir()) == ["bracket", "clamp"]
    assert main([*command, " , "]) == 1
    assert "--categories names no category" in capsys.readouterr().err


# ------------------------------------------------------------------ names

NFC, NFD = (unicodedata.normalize(form, "Gehäuse-é") for form in ("NFC", "NFD"))


def test_names_compare_in_either_spelling_of_unicode(raw):
    config, out = rawdata.config(), raw.parent / "out"
    (raw / "bracket").rename(raw / NFD)
    base = raw / NFD / "test/crack"
    for kind, suffix, form in (("rgb", "png", NFC), ("xyz", "tiff", NFD), ("gt", "png", NFD)):
        (base / kind / f"009.{suffix}").rename(base / kind / f"{form}.{suffix}")
    assert _preprocess(raw, categories=[NFC]) == [NFD]  # asked for as typed, found as spelled
    test = open_dataset("mvtec3d", out, NFC, "test", config)
    assert f"test/crack/{NFC}" in test.ids
    processed = out / NFD / "test/crack"  # copied by a computer that spells names the other way
    (processed / "rgb" / f"{NFC}.png").rename(processed / "rgb" / f"{NFD}.png")
    assert len(open_dataset("mvtec3d", out, NFD, "test", config)) == 4


def test_twins_that_differ_in_spelling_alone_are_refused(raw):
    images = raw / "bracket/test/crack/rgb"
    for form in (NFC, NFD):
        (images / f"{form}.png").write_bytes((images / "009.png").read_bytes())
    with pytest.raises(DataError, match=r"both .* and .* hold sample"):
        _preprocess(raw)
    for form in (NFC, NFD):
        (raw / form).mkdir()
    with pytest.raises(DataError, match=r"two folders are named .* in two spellings of Unicode"):
        subfolders(raw)


def test_names_that_are_not_utf8_are_refused(raw):
    images = raw / "bracket/test/crack/rgb"
    (images / "009.png").rename(images / os.fsdecode(b"k\xe4fer.png"))
    with pytest.raises(DataError, match=r"the name k\\udce4fer.png is not written in UTF-8; rename it"):
        _preprocess(raw)


def test_control_characters_of_names_do_not_reach_the_terminal(raw, capsys, tmp_path):
    assert printable("a\x1b[31mb\nc\u202ed \udcff é") == "a\\x1b[31mb\\nc\\u202ed \\udcff é"
    images = raw / "bracket/test/crack/rgb"
    (images / "009.png").rename(images / "009\x1b[2J.png")
    with pytest.raises(MafrError) as caught:
        _preprocess(raw)
    assert "for rgb 009\\x1b[2J" in str(caught.value) and "\x1b" not in str(caught.value)
    (raw / "bracket").rename(raw / "bra\x1b[2Jcket")
    (raw / "do\x1b[2Jcs").mkdir()
    assert main(["data", "mvtec3d", "--source", str(raw), "--root", str(tmp_path / "a\x1bb"), "--workers", "1"]) == 1
    shown = capsys.readouterr()
    assert "do\\x1b[2Jcs" in shown.err
    assert "\x1b" not in shown.err + shown.out


# ------------------------------------------------------------------ kinds


@pytest.mark.parametrize("name", ["009.npy", "009.exr", "009.jpg"])
def test_clouds_of_other_kinds_are_named(name, raw):
    base = raw / "bracket/test/crack/xyz"
    (base / "009.tiff").rename(base / name)
    with pytest.raises(DataError, match=rf"no xyz/NNN.tiff for rgb 009; xyz holds {name}, where only .tiff, .tif,"):
        _preprocess(raw)


def test_images_of_other_kinds_are_named(raw):
    base = raw / "bracket/test/crack/rgb"
    (base / "009.png").rename(base / "009.bmp")
    with pytest.raises(DataError, match=r"no rgb/NNN.png for xyz 009; rgb holds 009.bmp, where only .png, .jpg, .jpeg"):
        _preprocess(raw)


def test_a_split_of_other_kinds_alone_names_them(raw):
    for kind, suffix in (("rgb", "bmp"), ("xyz", "npy")):
        for path in (raw / "bracket/train/good" / kind).iterdir():
            path.rename(path.with_suffix(f".{suffix}"))
    with pytest.raises(DataError, match=r"train: no samples \(rgb holds 000.bmp, 002.bmp, 010.bmp, where only"):
        scan_split(raw / "bracket", "train", raw=True)


def test_masks_of_other_kinds_are_named(raw):
    for path in (raw / "bracket/test/crack/gt").iterdir():
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"no masks \(gt holds 009.jpg, 010.jpg, where only .png are read\)"):
        _preprocess(raw)


def test_folders_that_are_no_split_are_named(tmp_path, capsys):
    rawdata.write_mvtec3d(tmp_path / "raw")
    (tmp_path / "raw/bracket/validation").rename(tmp_path / "raw/bracket/val")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "processed", rawdata.config())
    error = capsys.readouterr().err
    assert f"{tmp_path}/raw/bracket: val is not read; the folders of a category are train, validation, test" in error


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["Good", "OK", "normal"])
def test_the_folder_of_good_parts_by_another_name(raw, split, name):
    (raw / "bracket" / split / "good").rename(raw / "bracket" / split / name)
    shutil.rmtree(raw / "bracket" / split / name / "gt", ignore_errors=True)
    with pytest.raises(DataError, match=rf"{split}/{name}: the folder of good parts must be named good; rename it"):
        _preprocess(raw)


def test_splits_in_capitals(raw):
    (raw / "bracket/train").rename(raw / "bracket/Train")
    with pytest.raises(DataError, match=r"bracket/train: no samples; .*; found is Train: rename it to train"):
        _preprocess(raw)
    shutil.rmtree(raw / "bracket/test")
    shutil.rmtree(raw / "bracket/validation")
    with pytest.raises(DataError, match=r"the category is empty; expected are .*; found is Train: rename it to train"):
        _preprocess(raw)
