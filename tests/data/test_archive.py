"""Archives: from miniature ones in both real formats to samples; and dangerous or damaged ones are refused."""

import io
import json
import os
import shutil
import socket
import sys
import tarfile
import time
import zipfile
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image
from support import miniature, rawdata

from mafr.cli import main
from mafr.config import CATEGORIES, Config
from mafr.data import open_dataset
from mafr.data.acquire import counts
from mafr.data.acquire.archive import is_archive, unpack, unpacked_size
from mafr.data.acquire.folders import unpack_archives
from mafr.errors import DataError

ITEMS = {
    *(f"image_{k}.png" for k in range(6)), "depth.png", "info_depth.yaml", "normals.png", "pose.txt",
    "obj_params.yaml", "metadata.yaml", "mask.png", "bumps_mask.png", "dents_mask.png", "colors_mask.png",
    "normals_mask.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    miniature.write_archives(
        folder, ("rope", "tire"), ("Lollipop",), side=120, train=2, validation=1, good=1, defective=4
    )
    return folder


def _data(*arguments) -> int:
    return main(["data", *map(str, arguments), "--workers", "1"])


def _tree(folder) -> dict:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _times(folder) -> dict:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


# ---------------------------------------------------------- all the way


def test_mvtec3d_from_archive_to_samples(archives, tmp_path, capsys):
    command = ("mvtec3d", "--root", tmp_path, "--archive", archives / "mvtec3d" / miniature.MVTEC3D_ARCHIVE)
    assert _data(*command) == 1
    assert "rope/train has 2 samples, 298 published; the archive was not unpacked whole" in capsys.readouterr().err
    assert _data(*command, "--allow-incomplete") == 0
    assert capsys.readouterr().err.count("--allow-incomplete") == 1
    raw, processed = (tmp_path / kind / "mvtec3d" for kind in ("raw", "processed"))
    assert {p.name for p in raw.iterdir()} == {"rope", "tire", ".archives.json"}
    assert (raw / "tire/calibration/camera_parameters.json").is_file()
    codes = {v for p in (raw / "tire/test").glob("[!g]*/gt/*.png") for v in np.unique(np.asarray(Image.open(p)))}
    assert {0, 253, 254, 255} >= codes > {0}
    assert codes & {253, 254}
    config = Config.preset("full")
    for name, size in (("rope", (120, 53)), ("tire", (90, 120))):
        assert Image.open(raw / name / "train/good/rgb/000.png").size == size
        test = open_dataset("mvtec3d", processed, name, "test", config)
        assert sorted(test.labels) == [0, 1, 1, 1, 1]
        for sample in test:
            assert sample.rgb.shape == sample.xyz.shape == (3, 224, 224)
            assert sample.valid.mean() > 0.015
            assert sample.gt.any() == bool(sample.label)
    before = _times(tmp_path)
    assert _data(*command, "--allow-incomplete") == 0
    assert _times(tmp_path) == before


def test_eyecandies_from_tars_named_zip_to_samples(archives, tmp_path):
    command = ("eyecandies", "--root", tmp_path, "--archive", archives / "eyecandies", "--allow-incomplete")
    assert _data(*command) == 0
    raw = tmp_path / "raw/eyecandies/Lollipop"
    for split, digits in (("train", 3), ("val", 3), ("test_public", 2)):
        names = {p.name.partition("_")[::2] for p in (raw / split / "data").iterdir()}
        assert {len(index) for index, _ in names} == {digits}
        assert {item for index, item in names if int(index) == 0} == ITEMS
    assert (raw / "test_private/data/000_depth.png").is_file()
    test = open_dataset("eyecandies", tmp_path / "processed/eyecandies", "Lollipop", "test", Config.preset("full"))
    assert len(test) == 5
    for sample in test:
        assert sample.valid.mean() > 0.05
        assert sample.gt.any() == bool(sample.label)
    assert {entry.defect for entry in test.entries} == {"good", "bumps", "dents", "colors", "normals"}


def test_categories_are_chosen_and_added(archives, tmp_path, capsys):
    command = ("mvtec3d", "--root", tmp_path, "--archive", archives / "mvtec3d", "--allow-incomplete", "--categories")
    assert _data(*command, "tire") == 0
    raw = tmp_path / "raw/mvtec3d"
    assert [p.name for p in raw.iterdir() if p.is_dir()] == ["tire"]
    before = _times(raw / "tire")
    assert _data(*command, "rope,tire") == 0
    assert {p.name for p in raw.iterdir() if p.is_dir()} == {"rope", "tire"}
    assert _times(raw / "tire") == before
    assert {p.name for p in (tmp_path / "processed/mvtec3d").iterdir()} == {"rope", "tire"}
    capsys.readouterr()
    assert _data(*command, "bagel") == 1
    assert "no bagel after unpacking mvtec_3d_anomaly_detection.tar.xz" in capsys.readouterr().err


def test_full_size_non_square_images_and_real_layout(tmp_path):
    """900x400 and 600x800 pixels, as rope and tire have them."""
    for name, width, height in (("rope", 900, 400), ("tire", 600, 800)):
        base = tmp_path / "src/mvtec_3d" / name / "train/good"
        rawdata.write_png(base / "rgb/000.png", rawdata.rgb(0, height, width))
        points = rawdata.scene(0, height, width)
        rawdata.write_tiff(base / "xyz/000.tiff", points * np.float32(0.1))
    archive = tmp_path / "mvtec.zip"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(tmp_path / "src", ".")
    assert _data("mvtec3d", "--root", tmp_path, "--archive", archive, "--allow-incomplete", "--plane", "none") == 0
    config = Config.preset("full", overrides={"plane": "none"})
    for name, side in (("rope", 900), ("tire", 800)):
        folder = tmp_path / "processed/mvtec3d"
        (sample,) = open_dataset("mvtec3d", folder, name, "train", config)
        assert sample.xyz.shape == (3, 224, 224)
        assert rawdata.read_tiff(folder / name / "train/good/xyz/000.tiff").shape == (side, side, 3)
        assert 0.4 < sample.valid.mean() < 0.8  # the rest is padding


# ------------------------------------------------------------- unpacking


def _member(name: str, content: bytes = b"x", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def _tar(path, *members, mode: str = "w"):
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


GOOD = _member("set/bagel/train/good/rgb/000.png", b"picture", mtime=1_600_000_000)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tars_by_content_under_any_name(mode, tmp_path):
    path = _tar(tmp_path / "a.zip", GOOD, _member("set/readme.txt"), _member("set/._x"), mode=mode)
    assert is_archive(path)
    assert unpack([path], tmp_path / "out") == {path: ["bagel"]}
    assert _tree(tmp_path / "out") == {"bagel/train/good/rgb/000.png": b"picture"}
    assert (tmp_path / "out/bagel/train/good/rgb/000.png").stat().st_mtime == 1_600_000_000


def test_zips_by_content_and_category_from_the_file_name(tmp_path):
    path = tmp_path / "Lollipop.tar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/data/000_pose.txt", "1 0")
        archive.writestr("__MACOSX/train/data/000_pose.txt", "rubbish")
    assert unpacked_size(path) == 10
    assert unpack([path], tmp_path / "out") == {path: ["Lollipop"]}
    assert _tree(tmp_path / "out") == {"Lollipop/train/data/000_pose.txt": b"1 0"}


def test_files_beside_the_splits_of_own_data(tmp_path):
    path = _tar(tmp_path / "own.tar", GOOD, _member("set/bagel/intrinsics.json", b"{}"), _member("notes.json"))
    unpack([path], tmp_path / "out")
    assert (tmp_path / "out/bagel/intrinsics.json").read_bytes() == b"{}"


def test_links_inside_become_plain_files(tmp_path):
    path = _tar(
        tmp_path / "a.tar", GOOD,
        _member("set/bagel/train/good/rgb/001.png", b"", type=tarfile.SYMTYPE, linkname="000.png"),
        _member("set/bagel/train/good/rgb/002.png", b"", type=tarfile.LNKTYPE, linkname=GOOD[0].name),
    )  # fmt: skip
    unpack([path], tmp_path / "out")
    files = [tmp_path / f"out/bagel/train/good/rgb/00{k}.png" for k in (1, 2)]
    assert [f.read_bytes() for f in files] == [b"picture", b"picture"]
    assert not any(f.is_symlink() for f in files)


def test_a_folder_of_links_alone(tmp_path):
    link = _member("set/bagel/test/good/rgb/000.png", b"", type=tarfile.LNKTYPE, linkname=GOOD[0].name)
    unpack([_tar(tmp_path / "a.tar", GOOD, link)], tmp_path / "out")
    assert (tmp_path / "out/bagel/test/good/rgb/000.png").read_bytes() == b"picture"


BAD_MEMBERS = {
    "climbs": _member("bagel/train/../../../evil.png"),
    "absolute": _member("/bagel/train/evil.png"),
    "backslash": _member("bagel/train/..\\..\\evil.png"),
    "drive": _member("C:/bagel/train/evil.png"),
    "ignored but climbing": _member("../readme.txt"),
    "folder outside": _member("../train", b"", type=tarfile.DIRTYPE),
    "symlink out": _member("bagel/train/evil", b"", type=tarfile.SYMTYPE, linkname="../../../etc"),
    "symlink absolute": _member("bagel/train/evil", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link out": _member("bagel/train/evil", b"", type=tarfile.LNKTYPE, linkname="../../etc/passwd"),
    "link to nothing": _member("bagel/train/evil", b"", type=tarfile.LNKTYPE, linkname="bagel/none"),
    "device": _member("bagel/train/evil", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "pipe": _member("bagel/train/evil", b"", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", BAD_MEMBERS)
def test_dangerous_entries_of_tars(kind, tmp_path):
    member = BAD_MEMBERS[kind]
    path = _tar(tmp_path / "evil.tar", GOOD, member)
    before = _tree(tmp_path)
    with pytest.raises(DataError, match="entry ") as caught:
        unpack([path], tmp_path / "in/raw")
    assert member[0].name in str(caught.value).replace("\\\\", "\\")
    outside = {k: v for k, v in _tree(tmp_path).items() if not k.startswith("in/raw/.unpacking-")}
    assert outside == before
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", ["../evil.png", "/bagel/train/evil.png", "bagel/train/..\\evil.png", "../train/"])
def test_dangerous_entries_of_zips(name, tmp_path):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("bagel/train/good/rgb/000.png"), "x")
        archive.writestr(zipfile.ZipInfo(name), "x" if not name.endswith("/") else "")
    with pytest.raises(DataError, match=r"entry .*leaves the folder"):
        unpack([path], tmp_path / "in/raw")
    assert not list(tmp_path.rglob("evil.png"))


def test_links_in_zips(tmp_path):
    path = tmp_path / "evil.zip"
    link = zipfile.ZipInfo("bagel/train/evil")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="'bagel/train/evil' is neither a file nor a folder"):
        unpack([path], tmp_path / "raw")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "zip"])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_archives_that_are_cut_off(mode, part, tmp_path):
    rng = np.random.default_rng(0)
    files = {f"bagel/train/good/rgb/{k:03d}.png": rng.bytes(20_000) for k in range(5)}
    path = tmp_path / "a.tar"
    if mode == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        _tar(path, *(_member(name, content) for name, content in files.items()), mode=mode)
    content = path.read_bytes()
    # A plain tar ends in empty blocks, of which it can spare a few: its cuts go by what is before them.
    path.write_bytes(content[: int(part * (104_960 if mode == "w" else len(content)))])
    with pytest.raises(DataError, match=r"a.tar: (damaged or not complete|neither a tar nor a zip)"):
        unpack([path], tmp_path / "raw")
    assert not (tmp_path / "raw/bagel").exists()
    path.write_bytes(content)  # the whole file: what was written already is used, the leftovers go
    unpack([path], tmp_path / "raw")
    assert _tree(tmp_path / "raw") == files
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["bagel"]


def test_plain_tars_cut_between_two_files(tmp_path):
    path = _tar(tmp_path / "a.tar", GOOD, _member("bagel/train/good/rgb/001.png", b"y"))
    path.write_bytes(path.read_bytes()[:1024])  # a header and its content, whole
    with pytest.raises(DataError, match="damaged or not complete"):
        unpack([path], tmp_path / "raw")


def test_damaged_zips_by_the_command(tmp_path, capsys):
    for name, date, kept in (("cut", (2020, 1, 1), -30), ("month", (2020, 13, 1), None)):
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo("bagel/train/good/rgb/000.png", (*date, 0, 0, 0)), "x")
        path.write_bytes(path.read_bytes()[:kept])
        assert _data("mvtec3d", "--root", tmp_path, "--archive", path) == 1
        assert f"{name}.zip: damaged or not complete" in capsys.readouterr().err


def test_a_flipped_bit_is_noticed(tmp_path):
    for mode, name in (("w:xz", "a.xz"), ("w:gz", "a.gz")):
        path = _tar(tmp_path / name, _member("bagel/train/a", np.random.default_rng(0).bytes(50_000)), mode=mode)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged or not complete"):
            unpack([path], tmp_path / "raw")


def test_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    members = [_member(f"bagel/train/good/rgb/{k:03d}.png", bytes([k]) * 100, mtime=k) for k in range(6)]
    path = _tar(tmp_path / "a.tar", *members)
    opened = []

    def utime(target, times, real=os.utime):
        opened.append(target.name)
        if len(opened) == 4:
            raise KeyboardInterrupt
        real(target, times)

    monkeypatch.setattr(sys.modules["mafr.data.acquire.archive"].os, "utime", utime)
    with pytest.raises(KeyboardInterrupt):
        unpack([path], tmp_path / "raw")
    assert not (tmp_path / "raw/bagel").exists()
    (staged,) = (tmp_path / "raw").iterdir()
    staged.rename(staged.with_name(staged.name.replace(f".{os.getpid()}.", ".999999999.")))  # of a killed process
    unpack([path], tmp_path / "raw")
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["bagel"]
    assert opened[4:] == ["003.png", "004.png", "005.png"]  # three were there, the fourth not known to be whole
    assert len(_tree(tmp_path / "raw")) == 6


def _stop_after_one_file(patch):
    def utime(*_):
        raise KeyboardInterrupt

    patch.setattr(sys.modules["mafr.data.acquire.archive"].os, "utime", utime)


def test_categories_that_another_call_has_begun_are_not_taken_for_whole(tmp_path, monkeypatch):
    path = _tar(tmp_path / "a.tar", GOOD, _member("set/bagel/train/b"), _member("set/tire/train/a"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _stop_after_one_file(patch)
        unpack([path], tmp_path / "raw", ["bagel"])
    unpack([path], tmp_path / "raw", ["tire"])
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["tire"]


def test_only_what_ended_processes_have_staged_is_removed(tmp_path):
    here = socket.gethostname()
    running = tmp_path / f"raw/.unpacking-01234567.{here}.{os.getppid()}.tmp/bagel/train/a"
    killed = tmp_path / f"raw/.unpacking-01234567.{here}.999999999.tmp/bagel/train/a"
    for path in (running, killed):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    unpack([_tar(tmp_path / "a.tar", GOOD)], tmp_path / "raw")
    assert {p.name for p in (tmp_path / "raw").iterdir()} == {"bagel", running.parents[2].name}
    assert running.is_file()


def test_staged_files_count_as_room(tmp_path, monkeypatch):
    members = [_member(f"bagel/train/{k}", b"x" * size) for k, size in enumerate((600_000, 400_000))]
    path = _tar(tmp_path / "a.tar", *members)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _stop_after_one_file(patch)
        unpack([path], tmp_path / "raw")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 900_000))
    with pytest.raises(DataError, match=r"needs 1\.4 MB of disk"):
        unpack_archives("mvtec3d", [path], tmp_path / "other")
    unpack_archives("mvtec3d", [path], tmp_path / "raw")
    assert len(list((tmp_path / "raw/bagel/train").iterdir())) == 2


def test_several_archives_in_parallel(tmp_path):
    paths = [_tar(tmp_path / f"{n}.tar", _member(f"{n}/train/data/000_a", n.encode())) for n in ("A", "B", "C")]
    assert unpack(paths, tmp_path / "raw", workers=2) == {p: [p.stem] for p in paths}
    assert set(_tree(tmp_path / "raw")) == {f"{n}/train/data/000_a" for n in "ABC"}


def test_unpacked_archives_are_not_read_again(archives, tmp_path, monkeypatch):
    source = [archives / "mvtec3d"]
    unpack_archives("mvtec3d", source, tmp_path / "raw")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["mafr.data.acquire.folders"], "unpack", lambda *_: pytest.fail("read again"))
        unpack_archives("mvtec3d", source, tmp_path / "raw", ["tire"])
        unpack_archives("mvtec3d", source, tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw/tire")
    unpack_archives("mvtec3d", source, tmp_path / "raw")
    assert (tmp_path / "raw/tire").is_dir()


# --------------------------------------------------------- clear refusals


def test_what_is_no_archive(tmp_path, capsys):
    (tmp_path / "a.tar").write_text("<html>quota exceeded</html>")
    rawdata.write_mvtec3d(tmp_path / "folders")
    for source, message in (
        (tmp_path / "a.tar", "neither a tar nor a zip archive"),
        (tmp_path / "none.tar", "no such file or folder"),
        (tmp_path / "folders", "such as bracket, go with --source"),
    ):
        assert _data("mvtec3d", "--root", tmp_path / "work", "--archive", source) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(DataError, match="no category folders in the archive"):
        unpack([_tar(tmp_path / "b.tar", _member("readme.txt"))], tmp_path / "raw")
    with pytest.raises(DataError, match=r"c\.tar: no such file; name an archive"):
        unpack([tmp_path / "c.tar"], tmp_path / "raw")


def test_what_is_no_archive_is_said_before_the_disk_is_asked(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(b"x" * 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: pytest.fail("asked for the disk"))
    with pytest.raises(DataError, match="neither a tar nor a zip archive"):
        unpack_archives("mvtec3d", [tmp_path / "a.tar"], tmp_path / "raw")


def test_too_little_disk_is_said_first(archives, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with pytest.raises(DataError, match=r"MVTec 3D-AD needs .* of disk \(.* unpacked, .*\), 1.0 MB are free"):
        unpack_archives("mvtec3d", [archives / "mvtec3d"], tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_options_that_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit):
        _data("mvtec3d", "--root", tmp_path, "--archive", "a", "--source", "b")
    assert "not allowed with" in capsys.readouterr().err


# ----------------------------------------------------------------- counts


def test_published_counts_add_up():
    table = counts.PUBLISHED["mvtec3d"].values()
    sums = [sum(getattr(row, name) for row in table) for name in ("train", "validation", "good", "anomalous")]
    assert sums == [2656, 294, 249, 948]
    assert {name: tuple(rows) for name, rows in counts.PUBLISHED.items()} == CATEGORIES
    assert 20e9 < counts.unpacked_bytes("mvtec3d", CATEGORIES["mvtec3d"]) < 40e9


def test_counts_name_the_first_difference(tmp_path, monkeypatch, capsys):
    rawdata.write_mvtec3d(tmp_path / "m", "bagel")
    rawdata.write_mvtec3d(tmp_path / "m", "bracket")  # one's own: not checked
    rawdata.write_eyecandies(tmp_path / "e")
    bagel, lollipop = counts.Published(3, 1, 2, 2, 60, 40), counts.Published(2, 1, 1, 3, 32, 32)
    monkeypatch.setattr(counts, "PUBLISHED", {"mvtec3d": {"bagel": bagel}, "eyecandies": {"Lollipop": lollipop}})
    counts.check_counts("mvtec3d", tmp_path / "m")
    counts.check_counts("eyecandies", tmp_path / "e")
    assert capsys.readouterr().err == ""
    next((tmp_path / "m/bagel/test/crack/rgb").iterdir()).unlink()
    with pytest.raises(DataError, match="do not pair up"):
        counts.check_counts("mvtec3d", tmp_path / "m")
    for kind, suffix in (("xyz", "tiff"), ("gt", "png"), ("rgb", "png")):
        for stem in ("009", "010"):
            (tmp_path / f"m/bagel/test/crack/{kind}/{stem}.{suffix}").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"bagel/test \(anomalous\) has 0 samples, 2 published"):
        counts.check_counts("mvtec3d", tmp_path / "m")
    rawdata.write_png(tmp_path / "e/Lollipop/test_public/data/01_mask.png", rawdata.mask(False, 32, 32))
    with pytest.raises(DataError, match=r"Lollipop/test \(good\) has 2 samples, 1 published"):
        counts.check_counts("eyecandies", tmp_path / "e")
    counts.check_counts("eyecandies", tmp_path / "e", allow_incomplete=True)
    assert capsys.readouterr().err.count("\n") == 1


# --------------------------------------------------------- what is refused


def test_raw_data_that_was_not_preprocessed_names_the_command(tmp_path):
    rawdata.write_mvtec3d(tmp_path / "processed/mvtec3d", "bagel")
    command = r"mafr data mvtec3d --data-root"
    with pytest.raises(DataError, match=command):
        open_dataset("mvtec3d", tmp_path / "processed/mvtec3d", "bagel", "test", Config.preset("full"))


@pytest.mark.slow
def test_a_second_call_at_full_size_takes_seconds(tmp_path):
    """A class of Eyecandies with all of its 19,550 files; contents are not looked at again."""
    folder = rawdata.write_eyecandies(tmp_path / "raw/eyecandies", side=32)
    for split, count in (("train", 1000), ("val", 100), ("test_public", 50)):
        data, digits = folder / split / "data", 2 if split == "test_public" else 3
        first = {p.name[digits + 1 :]: p for p in data.glob("0" * digits + "_*")}
        others = {f"other_{k}" for k in range(17 - len(first))}
        for k in range(count):
            for item, path in first.items():
                if not (target := data / f"{k:0{digits}d}_{item}").exists():
                    os.link(path, target)
            for item in others:
                (data / f"{k:0{digits}d}_{item}").touch()
    arguments = ("eyecandies", "--root", tmp_path, "--allow-incomplete")
    assert _data(*arguments) == 0
    times = []
    for _ in range(3):
        began = time.process_time()  # this process's own, its threads' included
        assert _data(*arguments) == 0
        times.append(time.process_time() - began)
    assert min(times) < 5
    manifest = json.loads((tmp_path / "processed/eyecandies/Lollipop/manifest.json").read_text())
    assert len(manifest["samples"]) == 1150
