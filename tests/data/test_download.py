"""Downloads against a server on this machine: cut, resumed, expired, damaged, behind a confirmation page."""

import hashlib
import io
import shutil
import sys
import tarfile
from collections import namedtuple

import numpy as np
import pytest
from support import rawdata

from mafr.cli import main
from mafr.config import CATEGORIES
from mafr.data.acquire import folders as module
from mafr.data.acquire.drive import confirm_address
from mafr.data.acquire.fetch import FetchError, fetch, fetched
from mafr.data.acquire.folders import download_raw
from mafr.errors import DataError

ADVICE = "use --archive FILE"


CONTENT = np.random.default_rng(0).bytes(300_000)

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _a_roomy_disk(monkeypatch):
    """A machine with 1 TB free, whatever it really has, as the published sizes ask for."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * 10**12, 10**12, 10**12))


def _fetch(server, target, path="/a.tar", **options):
    remote = module.locate([server.address + path], "the set", ADVICE)
    server.asked.clear()
    server.cut[:] = options.pop("cut", [])
    return module.download(remote.address, target, "the set", ADVICE, **options)


# ------------------------------------------------------------- one file


def test_a_file_arrives_whole_with_its_checksum(server, tmp_path):
    server.files["/a.tar"] = CONTENT
    path = _fetch(server, tmp_path / "a.tar", checksum=hashlib.md5(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]
    server.asked.clear()
    module.download("http://nowhere", path, "the set", ADVICE)  # it is there
    assert server.asked == []


def test_a_cut_connection_goes_on_where_it_broke(server, tmp_path):
    server.files["/a.tar"] = CONTENT
    path = _fetch(server, tmp_path / "a.tar", cut=[100_000, 50_000, 1])
    assert path.read_bytes() == CONTENT
    assert server.spans == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_connection_that_is_reset_each_time_is_given_up(server, tmp_path):
    server.files["/a.tar"] = CONTENT
    for sent in (0, 200):  # the first bytes of an answer are not progress
        server.reset, server.asked = sent, []
        with pytest.raises(FetchError):
            fetch(server.address + "/a.tar", tmp_path / "a.tar")
        assert len(server.asked) < 30


def test_what_was_fetched_stays_for_the_next_call(server, tmp_path):
    server.files["/a.tar"] = CONTENT
    with pytest.raises(DataError, match=r"broke .*100,000 bytes are kept in .*a.tar.part: run the same command again"):
        _fetch(server, tmp_path / "a.tar", cut=[100_000] + [0] * 50)
    server.cut.clear()
    assert fetched(tmp_path / "a.tar") == 100_000
    assert _fetch(server, tmp_path / "a.tar").read_bytes() == CONTENT
    assert server.spans == ["bytes=100000-"]


@pytest.mark.parametrize("tag", ['"two"', ""])
def test_another_file_by_the_same_name_is_fetched_from_its_beginning(tag, server, tmp_path):
    server.files["/a.tar"] = CONTENT
    with pytest.raises(DataError, match="broke"):
        _fetch(server, tmp_path / "a.tar", cut=[100_000] + [0] * 50)
    server.cut.clear()
    other = CONTENT[::-1] + (b"" if tag else b"longer")
    server.files["/a.tar"], server.tag = other, tag
    assert _fetch(server, tmp_path / "a.tar").read_bytes() == other
    assert server.spans == ["bytes=100000-"]  # if the file is still the same, which it is not


def test_a_server_that_changes_the_file_meanwhile(server, tmp_path):
    """Its tag is another one than when the file was looked up: it sends the whole new file, of the same size."""
    server.files["/a.tar"] = CONTENT
    (tmp_path / "a.tar.part").write_bytes(b"?" * 100_000)
    (tmp_path / "a.tar.part.json").write_text('{"size": 300000, "tag": "\\"one\\""}')
    server.tag = '"two"'
    assert module.download(server.address + "/a.tar", tmp_path / "a.tar", "", "").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.files["/a.tar"], server.ranges, server.tag = CONTENT, False, ""
    assert _fetch(server, tmp_path / "a.tar", cut=[200_000, 1000]).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_server_that_does_not_say_the_length(server, tmp_path):
    server.files["/a.tar"], server.length = CONTENT, False
    assert _fetch(server, tmp_path / "a.tar").read_bytes() == CONTENT


def test_passing_trouble_is_waited_for(server, tmp_path):
    server.files["/a.tar"], server.fail = CONTENT, [503]
    assert module.locate([server.address + "/a.tar"], "", "").size == len(CONTENT)
    server.fail[:] = [500, 429]
    assert module.download(server.address + "/a.tar", tmp_path / "a.tar", "", "").read_bytes() == CONTENT


def test_a_wrong_checksum_removes_the_file(server, tmp_path):
    server.files["/a.tar"] = CONTENT
    with pytest.raises(DataError, match=rf"MD5 .* is {hashlib.md5(CONTENT).hexdigest()}, 00 is published.*{ADVICE}"):
        _fetch(server, tmp_path / "a.tar", checksum="00")
    assert list(tmp_path.iterdir()) == []


def test_expired_addresses(server):
    server.pages |= {"/gone": (404, "<html>no such share</html>"), "/page": (200, "<html>please log in</html>")}
    server.pages["/quota"] = (200, "<html>Too many users have viewed or downloaded this file recently</html>")
    server.files["/old"] = CONTENT
    reasons = {"/gone": "404 Not Found", "/page": "a web page, not the file", "/quota": "download quota"}
    for path, reason in reasons.items():
        with pytest.raises(DataError, match=rf"the set: no address gives the file \(127.*: .*{reason}.*{ADVICE}"):
            module.locate([server.address + path], "the set", ADVICE)
    addresses = [server.address + path for path in ("/gone", "/page", "/old")]
    assert module.locate(addresses, "the set", ADVICE).address == addresses[2]
    with pytest.raises(DataError, match="no http or https address"):
        module.locate(["file:///etc/passwd"], "the set", ADVICE)
    with pytest.raises(DataError, match=r"file \(127\.0\.0\.1:9: \[Errno \d+\] Connection refused\); use"):
        module.locate(["http://127.0.0.1:9/a"], "the set", ADVICE)


def test_html_that_claims_to_be_an_archive(server):
    server.files["/a.tar"] = b"\n<!DOCTYPE html><html>expired</html>"
    with pytest.raises(DataError, match="a web page, not the file"):
        module.locate([server.address + "/a.tar"], "the set", ADVICE)


# --------------------------------------------------------- Google Drive

FORM = """<html><title>Google Drive - Virus scan warning</title><form id="download-form" action="{}" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="abc"><input type="hidden"
name="export" value="download"><input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid"
value="6e&amp;5d"></form></html>"""
LINK = '<a id="uc-download-link" href="/uc?export=download&amp;confirm=Xy_1&amp;id=abc">Download anyway</a>'


@pytest.mark.parametrize(
    ("page", "behind"),
    [
        (FORM.format("/download"), "/download?id=abc&export=download&confirm=t&uuid=6e%265d"),
        (LINK, "/uc?export=download&confirm=Xy_1&id=abc"),
    ],
)
def test_the_confirmation_page_is_passed(page, behind, server, tmp_path):
    server.pages["/first?id=abc"] = (200, page)
    server.files[behind] = CONTENT
    assert _fetch(server, tmp_path / "a.tar", "/first?id=abc", cut=[70_000]).read_bytes() == CONTENT
    assert server.asked == [
        ("/first?id=abc", None), (behind, None), ("/first?id=abc", "bytes=70000-"), (behind, "bytes=70000-"),
    ]  # fmt: skip


def test_a_confirmation_page_that_comes_again(server):
    server.pages["/first"] = (200, FORM.format("/first2"))
    server.pages["/first2?id=abc&export=download&confirm=t&uuid=6e%265d"] = (200, FORM.format("/first"))
    server.pages["/first?id=abc&export=download&confirm=t&uuid=6e%265d"] = (200, FORM.format("/first2"))
    with pytest.raises(DataError, match="even after confirming"):
        module.locate([server.address + "/first"], "the set", ADVICE)


def test_confirmation_leads_nowhere_else():
    here = "https://drive.usercontent.google.com/download?id=abc"
    assert confirm_address(FORM.format(here.partition("?")[0]), here).startswith(here + "&export=download&confirm=t")
    assert confirm_address(FORM.format("https://elsewhere.example/download"), here) is None
    assert confirm_address(FORM.format("https://fakegoogle.com/download"), here) is None
    assert confirm_address(FORM.format("file:///etc/passwd"), here) is None
    assert confirm_address('<form action="/login"><input type="hidden" name="user"></form>', here) is None


# ---------------------------------------------------------- the command


def _archive(folder, name: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, name or folder.name)
    return buffer.getvalue()


def _data(*arguments) -> int:
    return main(["data", *map(str, arguments), "--workers", "1"])


def test_mvtec3d_from_its_addresses_to_processed(server, tmp_path, monkeypatch, capsys):
    content = _archive(rawdata.write_mvtec3d(tmp_path / "made", "bagel"))
    server.files["/old.tar.xz"] = content
    monkeypatch.setattr(module, "MVTEC3D_ADDRESSES", (server.address + "/new.tar.xz", server.address + "/old.tar.xz"))
    monkeypatch.setattr(module, "MVTEC3D_MD5", hashlib.md5(content).hexdigest())
    root = tmp_path / "root"
    command = ("mvtec3d", "--root", root, "--categories", "bagel")
    assert _data(*command) == 1  # the archive arrives and is unpacked; then the published counts are missed
    errors = capsys.readouterr().err
    assert "downloading MVTec 3D-AD" in errors
    assert "bagel/train has 3 samples, 244 published" in errors
    asked = len(server.asked)
    assert _data(*command, "--allow-incomplete") == 0
    assert (root / "processed/mvtec3d/bagel/manifest.json").is_file()
    assert not (root / "downloads/mvtec3d").exists()  # the archive is gone once it is unpacked
    assert len(server.asked) == asked  # and it is not asked for again
    monkeypatch.setattr(module, "MVTEC3D_MD5", "00")
    assert _data("mvtec3d", "--root", tmp_path / "other") == 1
    assert "00 is published" in capsys.readouterr().err


def test_eyecandies_class_by_class_and_on_after_a_break(server, tmp_path, capsys):
    for name in ("Lollipop", "Confetto"):
        folder = rawdata.write_eyecandies(tmp_path / "made", name)
        server.files[f"/{name}.tar"] = _archive(folder, "." if name == "Confetto" else None)
    root, url = tmp_path / "root", server.address + "/{category}.tar"
    command = ("eyecandies", "--root", root, "--url", url, "--allow-incomplete", "--categories", "Lollipop,Confetto")
    whole, server.files["/Confetto.tar"] = server.files["/Confetto.tar"], b"not an archive"
    assert _data(*command) == 1
    assert "neither a tar nor a zip archive; get the archive or a new address from https://eyecan-ai" in (
        capsys.readouterr().err
    )
    assert (root / "raw/eyecandies/Lollipop").is_dir()
    server.files["/Confetto.tar"] = whole
    server.asked.clear()
    assert _data(*command) == 0
    assert {path for path, _ in server.asked} == {"/Confetto.tar"}
    assert {p.name for p in (root / "processed/eyecandies").iterdir()} == {"Lollipop", "Confetto"}
    assert _data("eyecandies", "--root", tmp_path / "other", "--url", server.address) == 1
    assert "put {category} where its name belongs" in capsys.readouterr().err


def test_a_dead_address_names_the_page_and_the_local_way(server, tmp_path, capsys):
    for dataset, url, page in (
        ("mvtec3d", "/a.tar.xz", "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad"),
        ("eyecandies", "/{category}.tar", "https://eyecan-ai.github.io/eyecandies/"),
    ):
        assert _data(dataset, "--root", tmp_path, "--url", server.address + url) == 1
        errors = capsys.readouterr().err
        assert "404" in errors
        assert page in errors
        assert "--archive FILE" in errors


def test_too_little_disk_is_said_before_the_download(server, tmp_path, monkeypatch, capsys):
    server.files["/a.tar.xz"] = CONTENT
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 30 * 10**9))
    assert _data("mvtec3d", "--root", tmp_path, "--url", server.address + "/a.tar.xz") == 1
    errors = capsys.readouterr().err
    assert "MVTec 3D-AD needs 39." in errors
    assert "GB unpacked" in errors
    assert "30.0 GB are free" in errors
    assert len(server.asked) == 1  # looked at, not fetched


def test_raw_data_that_is_there_is_not_downloaded_again(tmp_path):
    rawdata.write_mvtec3d(tmp_path / "raw/mvtec3d", "bracket")
    assert _data("mvtec3d", "--root", tmp_path) == 0  # no server at all
    assert (tmp_path / "processed/mvtec3d/bracket/manifest.json").is_file()


def _tiny(folder, *categories) -> bytes:
    """An archive that unpacks, and no more."""
    for name in categories:
        (folder / name / "train").mkdir(parents=True)
        (folder / name / "train/a").write_bytes(b"x")
    return _archive(folder, "set")


@pytest.mark.parametrize("way", ["url", "categories", "begun"])
def test_missing_published_categories_are_named_and_fetched_when_asked(way, server, tmp_path, monkeypatch, capsys):
    raw, downloads, missing = tmp_path / "raw", tmp_path / "downloads", CATEGORIES["mvtec3d"][1:]
    (raw / "bagel").mkdir(parents=True)
    server.files["/a.tar.xz"] = _tiny(tmp_path / "made", *missing)
    monkeypatch.setattr(module, "MVTEC3D_ADDRESSES", (server.address + "/a.tar.xz",))
    download_raw("mvtec3d", raw, downloads, whole=False)
    assert f"not downloaded, as there is data already; --categories {','.join(missing)} " in capsys.readouterr().err
    assert server.asked == []
    if way == "begun":
        downloads.mkdir()
    options = {"url": {"url": server.address + "/a.tar.xz"}, "categories": {"categories": missing}, "begun": {}}
    download_raw("mvtec3d", raw, downloads, whole=False, **options[way])
    assert {p.name for p in raw.iterdir()} == set(CATEGORIES["mvtec3d"])
    assert not downloads.exists()


def test_partial_downloads_of_other_calls_stay(server, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "Confetto.tar.part").write_bytes(b"half")
    server.files["/Lollipop.tar"] = _tiny(tmp_path / "made", "Lollipop")
    download_raw("eyecandies", tmp_path / "raw", downloads, server.address + "/{category}.tar", ["Lollipop"])
    assert [p.name for p in downloads.iterdir()] == ["Confetto.tar.part"]


def test_what_an_interrupted_call_has_unpacked_counts_as_room(server, tmp_path, monkeypatch):
    (tmp_path / "Lollipop/train").mkdir(parents=True)
    (tmp_path / "Lollipop/train/a").write_bytes(CONTENT)
    server.files["/Lollipop.tar"] = content = _archive(tmp_path / "Lollipop")
    call = ("eyecandies", tmp_path / "raw", tmp_path / "downloads", server.address + "/{category}.tar", ["Lollipop"])

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sys.modules["mafr.data.acquire.archive"].os, "utime", stop)
        download_raw(*call)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, len(content)))
    download_raw(*call)
    assert (tmp_path / "raw/Lollipop/train/a").read_bytes() == CONTENT


def test_a_misspelt_category_is_said_before_anything_is_fetched(tmp_path, capsys):
    assert _data("mvtec3d", "--root", tmp_path, "--categories", "bagel,brakcet") == 1  # no server at all
    assert "unknown category 'brakcet'; nothing is there; published are bagel, cable" in capsys.readouterr().err
