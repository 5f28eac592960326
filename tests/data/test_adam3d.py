"""3D-ADAM's layout, and own data in it: masks in ground_truth, jpeg images, no validation folder."""

import hashlib
import io
import json
import shutil
import zipfile
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image
from support import rawdata

from mafr.cli import main
from mafr.data import open_dataset, preprocess
from mafr.data.acquire import folders
from mafr.data.held_out import held_out
from mafr.data.layout import RawSample, scan_split
from mafr.errors import DataError

Usage = namedtuple("Usage", "total used free")


def _data(*arguments) -> int:
    return main(["data", *map(str, arguments), "--workers", "1"])


def _tree(folder) -> dict:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _zip(folder, top: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _tree(folder).items():
            archive.writestr(f"{top}/{name}", content)
    return buffer.getvalue()


# ---------------------------------------------------- from raw to samples


def test_masks_in_ground_truth_are_those_of_gt(tmp_path):
    config = rawdata.config()
    folder = rawdata.write_adam3d(tmp_path / "raw")
    preprocess("adam3d", tmp_path / "raw", tmp_path / "out", config)
    test = open_dataset("adam3d", tmp_path / "out", "1m1", "test", config)
    assert [(sample.defect, bool(sample.gt.any())) for sample in test] == [("cut", True)] * 2 + [("good", False)] * 2
    assert (tmp_path / "out/1m1/test/cut/gt/001.png").read_bytes() == (
        folder / "test/cut/ground_truth/001.png"
    ).read_bytes()
    rawdata.write_png(folder / "test/cut/gt/000.png", rawdata.mask(True))
    with pytest.raises(DataError, match=r"test/cut: masks in gt and in ground_truth; keep those that hold"):
        scan_split(folder, "test", raw=True)
    shutil.rmtree(folder / "test/cut/gt")
    (folder / "test/cut/ground_truth/000.png").unlink()
    with pytest.raises(DataError, match=r"no ground_truth/NNN.png for rgb 000"):
        scan_split(folder, "test", raw=True)


def test_jpeg_images_become_pngs_of_the_same_pixels(tmp_path):
    config = rawdata.config()
    folder = rawdata.write_adam3d(tmp_path / "raw")
    (folder / "train/good/rgb/003.jpg").rename(folder / "train/good/rgb/003.JPEG")
    preprocess("adam3d", tmp_path / "raw", tmp_path / "out", config)
    for split, name in (("train", "000.jpg"), ("train", "003.JPEG"), ("test", "000.jpg")):
        places = [tmp_path / "out/1m1" / place / "good/rgb" / f"{name[:3]}.png" for place in (split, "validation")]
        path = next(place for place in places if place.exists())  # one training sample is held out
        assert path.read_bytes().startswith(b"\x89PNG")
        pixels = np.asarray(Image.open(folder / split / "good/rgb" / name).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    kept = "test/good/rgb/001.png"
    assert (tmp_path / "out/1m1" / kept).read_bytes() == (folder / kept).read_bytes()


def test_one_sample_as_png_and_as_jpeg_is_refused(tmp_path):
    folder = rawdata.write_adam3d(tmp_path / "raw")
    (folder / "train/good/rgb/001.jpg").write_bytes((folder / "train/good/rgb/000.jpg").read_bytes())
    with pytest.raises(DataError, match=r"both 001.jpg and 001.png hold sample 001"):
        preprocess("adam3d", tmp_path / "raw", tmp_path / "out", rawdata.config())


# --------------------------------------------------- a tenth is held out


def _samples(train: int, *others: str) -> list[RawSample]:
    return [RawSample(key, ()) for key in (*(f"train/good/{k:03d}" for k in range(train)), *others)]


def test_a_tenth_of_the_good_training_samples_is_held_out():
    assert [len(held_out(_samples(n))) for n in (1, 2, 9, 14, 15, 100)] == [0, 1, 1, 1, 2, 10]
    held = held_out(_samples(100, "test/cut/000", "train/cut/000"))
    assert held == held_out(list(reversed(_samples(100, "train/cut/000")))) <= {s.key for s in _samples(100)}
    assert len(held & held_out(_samples(110))) >= 8  # few others where samples are added
    assert not held_out(_samples(100, "validation/good/000"))
    candies = [RawSample(f"train/{k:03d}", ()) for k in range(20)]
    assert len(held_out(candies)) == 2
    assert not held_out([*candies, RawSample("val/000", ())])


def test_what_is_held_out_is_said_listed_and_not_trained_on(tmp_path, capsys):
    config = rawdata.config()
    rawdata.write_adam3d(tmp_path / "raw", train=20)
    preprocess("adam3d", tmp_path / "raw", tmp_path / "out", config)
    error = capsys.readouterr().err
    assert "no validation folder in 1m1 (2 of 20): a tenth of the good training samples" in error
    place = tmp_path / "out", "1m1"
    train, validation = (open_dataset("adam3d", *place, split, config) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (18, 2)
    numbers = {name.split("/")[2] for name in (*train.ids, *validation.ids)}
    assert len(numbers) == 20
    manifest = json.loads((tmp_path / "out/1m1/manifest.json").read_text())
    assert manifest["held_out"]["samples"] == validation.ids
    assert manifest["counts"] == {"train": {"good": 18}, "validation": {"good": 2}, "test": {"cut": 2, "good": 2}}
    again = tmp_path / "again"
    preprocess("adam3d", tmp_path / "raw", again, rawdata.config(seed=7), workers=2)
    assert _tree(again) == _tree(tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in again.rglob("*")}
    preprocess("adam3d", tmp_path / "raw", again, config)
    assert {p: p.stat().st_mtime_ns for p in again.rglob("*")} == before


def test_copies_with_validation_samples_name_none_that_were_held_out(tmp_path, capsys):
    rawdata.write_mvtec3d(tmp_path / "raw")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", rawdata.config())
    assert "held_out" not in json.loads((tmp_path / "out/bracket/manifest.json").read_text())
    assert capsys.readouterr().err == ""


def test_samples_move_when_a_validation_folder_comes_or_samples_go(tmp_path):
    config, out = rawdata.config(), tmp_path / "out"
    folder = rawdata.write_adam3d(tmp_path / "raw")
    preprocess("adam3d", tmp_path / "raw", out, config)
    (held,) = open_dataset("adam3d", out, "1m1", "validation", config).ids
    for kind in ("rgb", "xyz"):
        for path in (folder / "train/good" / kind).glob(f"{held.split('/')[2]}.*"):
            path.unlink()
    preprocess("adam3d", tmp_path / "raw", out, config)
    (other,) = open_dataset("adam3d", out, "1m1", "validation", config).ids
    assert other != held
    assert len(open_dataset("adam3d", out, "1m1", "train", config)) == 10
    shutil.copytree(folder / "train", folder / "validation")
    preprocess("adam3d", tmp_path / "raw", out, config)
    sizes = [len(open_dataset("adam3d", out, "1m1", split, config)) for split in ("train", "validation")]
    assert sizes == [11, 11]


def test_an_interrupted_call_leaves_no_sample_in_two_splits(tmp_path, monkeypatch):
    """Samples are added between the interruption and the next call, so that others are held out."""
    config, out = rawdata.config(), tmp_path / "out"
    folder = rawdata.write_adam3d(tmp_path / "raw", train=4)
    with monkeypatch.context() as patch:
        patch.setattr("mafr.data.preprocessing._finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            preprocess("adam3d", tmp_path / "raw", out, config)
    (first,) = (out / "1m1/validation/good/rgb").iterdir()
    for kind in ("rgb", "xyz"):
        for path in (folder / "train/good" / kind).glob(f"{first.stem}.*"):
            path.unlink()
    preprocess("adam3d", tmp_path / "raw", out, config)
    (second,) = open_dataset("adam3d", out, "1m1", "validation", config).ids
    assert len(open_dataset("adam3d", out, "1m1", "train", config)) == 2
    assert not (out / "1m1/train/good/rgb" / f"{second.split('/')[2]}.png").exists()


def test_a_copy_of_before_without_validation_names_the_command(tmp_path):
    config, out = rawdata.config(), tmp_path / "out"
    rawdata.write_adam3d(tmp_path / "raw", train=2)
    preprocess("adam3d", tmp_path / "raw", out, config)
    shutil.rmtree(out / "1m1/validation")
    path = out / "1m1/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["samples"] = {k: v for k, v in manifest["samples"].items() if not k.startswith("validation/")}
    manifest["counts"]["train"]["good"] = 2
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"validation: no validation samples; `mafr data adam3d --data-root DIR"):
        open_dataset("adam3d", out, "1m1", "validation", config)


# ------------------------------------------------------------ the command


def test_the_archive_from_its_address_to_all_commands(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * 10**12, 10**12, 10**12))
    assert folders.ADAM3D_ADDRESSES == (
        "https://huggingface.co/datasets/pmchard/3D-ADAM_anomalib/resolve/main/adam3d_cropped.zip",
    )
    rawdata.write_adam3d(tmp_path / "made", "1m1")
    rawdata.write_adam3d(tmp_path / "made", "tapatbb")
    content = server.files["/adam3d_cropped.zip"] = _zip(tmp_path / "made", "adam3d_cropped")
    monkeypatch.setattr(folders, "ADAM3D_ADDRESSES", (f"{server.address}/adam3d_cropped.zip",))
    monkeypatch.setattr(folders, "ADAM3D_SHA256", hashlib.sha256(content).hexdigest())
    root = tmp_path / "root"
    assert _data("adam3d", "--root", root) == 0
    errors = capsys.readouterr().err
    assert "no categories in " in errors and "downloading 3D-ADAM (" in errors and "CC BY-NC-SA 4.0" in errors
    assert "no validation folder in 1m1 (1 of 12), tapatbb (1 of 12)" in errors
    assert {p.name for p in (root / "processed/adam3d").iterdir()} == {"1m1", "tapatbb"}
    asked = len(server.asked)
    assert _data("adam3d", "--root", root) == 0  # all is there
    assert len(server.asked) == asked
    assert _data("adam3d", "--root", tmp_path / "one", "--categories", "tapatbb") == 0
    assert [p.name for p in (tmp_path / "one/processed/adam3d").iterdir()] == ["tapatbb"]
    monkeypatch.setattr(folders, "ADAM3D_SHA256", "00")
    assert _data("adam3d", "--root", tmp_path / "other") == 1
    assert "the SHA-256 of the downloaded file is" in capsys.readouterr().err


def test_a_mistyped_category_keeps_the_archive(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * 10**12, 10**12, 10**12))
    rawdata.write_adam3d(tmp_path / "made")
    server.files["/a.zip"] = _zip(tmp_path / "made", "adam3d_cropped")
    command = ("adam3d", "--root", tmp_path, "--allow-incomplete", "--url", f"{server.address}/a.zip", "--categories")
    assert _data(*command, "1m7") == 1
    assert "the archive holds 1m1, not 1m7; correct --categories: the archive is kept" in capsys.readouterr().err
    server.files["/a.zip"] = b""
    assert _data(*command, "1m1") == 0


def test_archives_and_folders_of_ones_own(tmp_path):
    rawdata.write_adam3d(tmp_path / "made")
    (tmp_path / "a.zip").write_bytes(_zip(tmp_path / "made", "set"))
    assert _data("adam3d", "--root", tmp_path / "one", "--archive", tmp_path / "a.zip") == 0
    assert _data("adam3d", "--root", tmp_path / "two", "--source", tmp_path / "made") == 0
    one, two = (_tree(tmp_path / name / "processed/adam3d/1m1") for name in ("one", "two"))
    manifests = [json.loads(files.pop("manifest.json"))["raw_fingerprint"] for files in (one, two)]
    assert one == two != {}
    assert manifests[0] == manifests[1]


@pytest.mark.slow
def test_fit_and_run_take_the_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAFR_HOME", str(tmp_path / "home"))
    rawdata.write_adam3d(tmp_path / "made")
    assert _data("adam3d", "--root", tmp_path, "--source", tmp_path / "made") == 0
    settings = ("--profile", "smoke", "--data-root", str(tmp_path), "--dataset", "adam3d", "--category", "1m1")
    assert main(["fit", *settings, "--out", str(tmp_path / "detector")]) == 0
    assert "threshold" in capsys.readouterr().out
    pair = [tmp_path / "processed/adam3d/1m1/test/cut" / name for name in ("rgb/001.png", "xyz/001.tiff")]
    assert main(["predict", "--detector", str(tmp_path / "detector"), "--processed", "--rgb", str(pair[0]), "--xyz",
                 str(pair[1])]) == 0  # fmt: skip
    assert main(["run", *settings]) == 0
    assert "product" in capsys.readouterr().out
    assert main(["features", *settings]) == 0


def test_of_a_single_training_sample_none_is_held_out(tmp_path):
    rawdata.write_adam3d(tmp_path / "raw", train=1)
    preprocess("adam3d", tmp_path / "raw", tmp_path / "out", rawdata.config())
    with pytest.raises(DataError, match=r"no validation samples; none can be held out of a single good training sa"):
        open_dataset("adam3d", tmp_path / "out", "1m1", "validation", rawdata.config())


def test_only_good_training_samples_are_counted(tmp_path, capsys):
    folder = rawdata.write_adam3d(tmp_path / "raw", train=10)
    shutil.copytree(folder / "test/cut", folder / "train/cut")
    for path in (folder / "train/cut/xyz").iterdir():
        rawdata.write_tiff(path, rawdata.scene(99 + len(path.stem) + int(path.stem)))
    preprocess("adam3d", tmp_path / "raw", tmp_path / "out", rawdata.config())
    assert "no validation folder in 1m1 (1 of 10)" in capsys.readouterr().err
