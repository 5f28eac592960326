"""Faults while data is made: full disks, files in the way, long names, hostile archives, damaged manifests, changes."""

import errno
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from support import rawdata

from mafr.cli import main
from mafr.data import open_dataset, preprocess
from mafr.data.acquire import folders, limits
from mafr.data.acquire.archive import unpack
from mafr.disk import size_text
from mafr.errors import DataError, FullDiskError

Usage = namedtuple("Usage", "total used free")
GOOD = "set/bagel/train/good/rgb/000.png"


def _tree(folder) -> dict:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _tar(path, *members: tuple[str, bytes], mode: str = "w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


# --------------------------------------------------------------- archives


def _windows_zip(path, *names: str, system: int = 0):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.create_system = system
            archive.writestr(info, "" if name.endswith(("/", "\\")) else "x")
    return path


def test_zips_made_on_windows_are_unpacked(tmp_path):
    names = ("set\\", "set\\bagel\\", "set\\bagel\\train\\good\\rgb\\000.png", "set\\bagel\\train\\good\\xyz\\000.tiff")
    path = _windows_zip(tmp_path / "a.zip", *names)
    assert unpack([path], tmp_path / "raw") == {path: ["bagel"]}
    assert set(_tree(tmp_path / "raw")) == {"bagel/train/good/rgb/000.png", "bagel/train/good/xyz/000.tiff"}


EVIL = (
    "bagel\\train\\..\\..\\..\\evil.png", "\\bagel\\train\\evil.png", "C:\\bagel\\train\\evil", "..\\train\\",
    "\\\\host\\bagel\\train\\evil.png",
)  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_dangerous_names_of_windows_stay_dangerous(name, tmp_path):
    with pytest.raises(DataError, match=r"entry .* leaves the folder"):
        unpack([_windows_zip(tmp_path / "a.zip", "bagel\\train\\a.png", name)], tmp_path / "raw")
    assert not list(tmp_path.rglob("evil*"))


def test_backslashes_of_other_systems_are_no_separators(tmp_path):
    with pytest.raises(DataError, match=r"leaves the folder"):
        unpack([_windows_zip(tmp_path / "a.zip", "bagel\\train\\a.png", system=3)], tmp_path / "raw")


def test_a_sparse_entry_of_a_terabyte_is_refused_and_leaves_nothing(tmp_path):
    info = tarfile.TarInfo("bagel/train/good/xyz/000.tiff")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:482] = bytes(96)  # no data, only a hole
    block[483:495] = (10**12).to_bytes(12, "big")
    block[483] |= 0x80
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    path = tmp_path / "sparse.tar"
    path.write_bytes(_tar(tmp_path / "a.tar", (GOOD, b"x")).read_bytes()[:1024] + bytes(block) + bytes(10_240))
    with pytest.raises(DataError, match=r"sparse.tar: entry 'bagel/.*' claims 1.0 TB, no file of a data set has"):
        unpack([path], tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


@pytest.mark.parametrize("kind", ["w:gz", "w:xz", "zip", "links"])
def test_bombs_are_stopped_while_they_unpack_and_leave_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREELY", 2**21)
    path, name = tmp_path / "bomb", "bagel/train/good/xyz/{}.tiff"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for k in range(8):
                archive.writestr(name.format(k), bytes(2**20))
    elif kind == "links":
        with tarfile.open(path, "w") as tar:
            for k in range(600):
                info = tarfile.TarInfo(name.format(k))
                info.type, info.linkname = (tarfile.LNKTYPE, name.format(0)) if k else (tarfile.REGTYPE, "")
                info.size = 0 if k else 500_000
                tar.addfile(info, io.BytesIO(bytes(info.size)))
    else:
        _tar(path, *((name.format(k), bytes(2**20)) for k in range(8)), mode=kind)
    with pytest.raises(DataError, match=r"more than 100 times the archive's own bytes so far; it is not to be trusted"):
        unpack([path], tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


def test_archives_of_usual_ratios_pass_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREELY", 2**16)
    noisy = np.random.default_rng(0).bytes(200_000)
    members = {f"bagel/train/good/xyz/{k}.tiff": noisy + bytes(2_000_000) for k in range(4)}
    unpack([_tar(tmp_path / "a", *members.items(), mode="w:gz")], tmp_path / "raw")
    assert _tree(tmp_path / "raw") == members
    unpack([_tar(tmp_path / "b", ("tire/train/good/xyz/0.tiff", bytes(10**7)))], tmp_path / "raw")  # not packed at all


def test_an_entry_larger_than_the_disk_says_where_and_how_much(tmp_path, monkeypatch):
    path = _tar(tmp_path / "a.tar", (GOOD, b"x"), ("set/bagel/train/good/xyz/000.tiff", bytes(10**7)))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 5 * 10**6))
        with pytest.raises(FullDiskError, match=r"raw.*: the disk is full \(5.0 MB free, 10.0 MB more needed\)"):
            unpack([path], tmp_path / "raw")
    assert len(_tree(tmp_path / "raw")) == 1  # kept: with room again the same call goes on
    unpack([path], tmp_path / "raw")
    assert len(_tree(tmp_path / "raw/bagel")) == 2


def test_a_full_disk_does_not_delete_the_downloaded_archive(server, tmp_path, monkeypatch, capsys):
    rawdata.write_adam3d(tmp_path / "made")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "made", "set")
    server.files["/a.tar"] = (tmp_path / "a.tar").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    command = ["data", "adam3d", "--root", str(tmp_path), "--workers", "1", "--allow-incomplete", "--url"]
    command.append(f"{server.address}/a.tar")
    with monkeypatch.context() as patch:
        patch.setattr("mafr.data.acquire.archive._write", full)
        assert main(command) == 1
    assert "the disk is full (" in capsys.readouterr().err
    assert (tmp_path / "downloads/adam3d" / folders.ADAM3D_ARCHIVE).is_file()
    assert main(command) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_an_entry_that_needs_a_folder_where_another_is_a_file(order, tmp_path):
    members = [("bagel/train/good", b"x"), ("bagel/train/good/rgb/000.png", b"y")][::order]
    with pytest.raises(DataError, match=r"a.tar: entry 'bagel/train/good.*' needs a folder where another entry"):
        unpack([_tar(tmp_path / "a.tar", *members)], tmp_path / "raw")


def test_an_entry_whose_name_is_too_long(tmp_path):
    path = _tar(tmp_path / "a.tar", (f"bagel/train/good/rgb/{'0' * 300}.png", b"x"))
    with pytest.raises(DataError, match=r"a.tar: entry 'bagel/train/good/rgb/0+…0+.png': the name is too long"):
        unpack([path], tmp_path / "raw")


# ------------------------------------------------------------ preprocessing


def test_a_full_disk_while_preprocessing_says_where_and_how_much(tmp_path, monkeypatch, capsys):
    folder = rawdata.write_mvtec3d(tmp_path / "raw/mvtec3d")
    command = ["data", "mvtec3d", "--root", str(tmp_path), "--workers", "1"]
    real, clouds = Path.write_bytes, []

    def write(path, content):
        if path.parent.name == "xyz":
            clouds.append(path)
            if len(clouds) > 3:  # three samples' images and clouds; five more to come
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        patch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 123_000))
        assert main(command) == 1
    error = capsys.readouterr().err
    place = tmp_path / "processed/mvtec3d"
    raw = sum(p.stat().st_size for split in ("validation", "test") for p in (folder / split).rglob("*") if p.is_file())
    assert f"{place}: the disk is full (123.0 kB free, {size_text(0.4 * raw)} more needed); make" in error
    assert main(command) == 0


def test_a_file_where_a_folder_is_needed_is_named(tmp_path, capsys):
    rawdata.write_mvtec3d(tmp_path / "made")
    command = ["data", "mvtec3d", "--source", str(tmp_path / "made"), "--workers", "1", "--root"]
    (tmp_path / "root").write_text("")
    assert main([*command, str(tmp_path / "root")]) == 1
    assert f"{tmp_path}/root is a file where a folder is needed" in capsys.readouterr().err
    (tmp_path / "other/processed/mvtec3d").mkdir(parents=True)
    (tmp_path / "other/processed/mvtec3d/bracket").write_text("")
    assert main([*command, str(tmp_path / "other")]) == 1
    assert "mvtec3d/bracket is a file where a folder is needed" in capsys.readouterr().err


def test_names_of_nearly_all_the_length_that_a_disk_allows(tmp_path):
    folder = rawdata.write_mvtec3d(tmp_path / "raw")
    for kind, suffix in (("rgb", "png"), ("xyz", "tiff")):
        (folder / "train/good" / kind / f"000.{suffix}").rename(folder / "train/good" / kind / f"{'x' * 240}.{suffix}")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", rawdata.config())
    assert (tmp_path / "out" / folder.name / "train/good/xyz" / f"{'x' * 240}.tiff").is_file()


# --------------------------------------------------------------- manifests


@pytest.fixture
def done(tmp_path):
    rawdata.write_mvtec3d(tmp_path / "raw")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", rawdata.config())
    return tmp_path


def _first(manifest: dict) -> dict:
    return next(iter(manifest["samples"].values()))


DAMAGES = {
    "samples a list": (lambda m: m.update(samples=list(m["samples"])), "'samples' is of another kind"),
    "a sample a text": (lambda m: m["samples"].update({"train/good/000": "x"}), "the record of sample train/good/000"),
    "a record without key": (lambda m: _first(m).pop("key"), "the record of sample"),
    "a record with odd sizes": (lambda m: _first(m).update(sizes="big"), "the record of sample"),
    "a name without split": (lambda m: m["samples"].update({"000": _first(m)}), "the record of sample 000"),
    "no raw_listing": (lambda m: m.pop("raw_listing"), "no 'raw_listing'"),
    "no settings": (lambda m: m.pop("settings"), "no 'settings'"),
    "fingerprints of no split": (lambda m: m.update(fingerprints={}), "no fingerprint of train"),
    "counts a number": (lambda m: m.update(counts=3), "'counts' is of another kind"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_manifests_of_the_wrong_shape_are_damaged(kind, done):
    damage, words = DAMAGES[kind]
    path = done / "out/bracket/manifest.json"
    manifest = json.loads(path.read_text())
    damage(manifest)
    path.write_text(json.dumps(manifest))
    message = rf"manifest.json: damaged \({words}.*\); delete it and preprocess again"
    with pytest.raises(DataError, match=message):
        open_dataset("mvtec3d", done / "out", "bracket", "test", rawdata.config())
    with pytest.raises(DataError, match=message):
        preprocess("mvtec3d", done / "raw", done / "out", rawdata.config())
    path.unlink()
    preprocess("mvtec3d", done / "raw", done / "out", rawdata.config())
    assert len(open_dataset("mvtec3d", done / "out", "bracket", "test", rawdata.config())) == 4


@pytest.mark.parametrize("content", ["{}", '{"settings": 1, "record": []}', '{"record": {"id": "a", "key": 3}}'])
def test_odd_notes_of_an_interrupted_call_are_dropped(content, done):
    journal = done / "out/bracket/.journal"
    journal.mkdir()
    (done / "out/bracket/manifest.json").unlink()
    whole = json.dumps({"settings": None, "record": None}) if content == "{}" else content
    (journal / "a.json").write_text(whole)
    preprocess("mvtec3d", done / "raw", done / "out", rawdata.config())
    assert not journal.exists()


# ----------------------------------------------------------------- verify


def _keeping_time(path, content: bytes) -> None:
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _flipped(path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


def test_a_raw_file_changed_with_its_time_kept_is_found_by_verify(done, capsys):
    config, cloud = rawdata.config(), done / "raw/bracket/test/crack/xyz/009.tiff"
    rawdata.write_tiff(done / "other.tiff", rawdata.scene(99))
    _keeping_time(cloud, (done / "other.tiff").read_bytes())
    before = _tree(done / "out")
    preprocess("mvtec3d", done / "raw", done / "out", config)
    assert _tree(done / "out") == before  # size and time decide
    preprocess("mvtec3d", done / "raw", done / "out", config, verify=True, workers=2)
    error = capsys.readouterr().err
    assert "bracket: the contents of 8 of 8 samples are verified, 1 have changed and are made again: test/cr" in error
    after = _tree(done / "out")
    assert {name for name in after if after[name] != before[name]} == {
        "bracket/test/crack/xyz/009.tiff", "bracket/manifest.json"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["rgb/009.png", "xyz/009.tiff", "gt/009.png"])
def test_a_processed_file_changed_with_its_time_kept_is_made_again_by_verify(name, done, capsys):
    path, before = done / "out/bracket/test/crack" / name, _tree(done / "out")
    _keeping_time(path, _flipped(path))
    (done / "root/processed").mkdir(parents=True)
    (done / "out").rename(done / "root/processed/mvtec3d")
    command = ["data", "mvtec3d", "--source", str(done / "raw"), "--root", str(done / "root"), "--workers", "1"]
    assert main(command) == 0
    assert _tree(done / "root/processed/mvtec3d") != before
    capsys.readouterr()
    assert main([*command, "--verify"]) == 0
    assert "1 have changed and are made again: test/crack/009" in capsys.readouterr().err
    assert _tree(done / "root/processed/mvtec3d") == before


def test_the_help_of_data_says_what_counts_as_changed(capsys):
    with pytest.raises(SystemExit):
        main(["data", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--verify compare contents, too; without it a raw file counts as changed when its size or time is" in said


def test_what_is_as_it_was_is_not_touched_by_verify(done, capsys):
    times = {p: p.stat().st_mtime_ns for p in (done / "out").rglob("*")}
    preprocess("mvtec3d", done / "raw", done / "out", rawdata.config(), verify=True)
    assert {p: p.stat().st_mtime_ns for p in (done / "out").rglob("*")} == times
    assert capsys.readouterr().err == "mafr: bracket: the contents of 8 of 8 samples are verified\n"


def test_verify_takes_all_kinds_of_raw_data(tmp_path, capsys):
    rawdata.write_adam3d(tmp_path / "adam3d")
    rawdata.write_eyecandies(tmp_path / "eyecandies")
    for dataset in ("adam3d", "eyecandies"):
        for verify in (False, True):
            preprocess(dataset, tmp_path / dataset, tmp_path / "out" / dataset, rawdata.config(), verify=verify)
    assert "16 of 16 samples are verified\n" in (error := capsys.readouterr().err)
    assert "7 of 7 samples are verified\n" in error
