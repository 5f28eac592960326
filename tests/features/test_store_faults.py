"""A store that is not what was written is named, and made again where features are made."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.stored_features import CONFIG, folder_of

from mafr.config import Config
from mafr.errors import DataError, StorageError
from mafr.experiments.execute import execute
from mafr.experiments.plan import Run
from mafr.features.sources import checks, splits
from mafr.features.sources.checks import DamagedStoreError
from mafr.features.sources.splits import extract_features, load_features, load_split
from mafr.features.sources.store import find_store, open_store
from mafr.paths import Paths


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "timing.json"}


def change_meta(folder: Path, **values: object) -> None:
    """Another meta.json, of the time before checksums."""
    meta = json.loads((folder / "meta.json").read_text())
    meta.pop("crc32", None)
    (folder / "meta.json").write_text(json.dumps(meta | values))


def overwrite(path: Path, offset: int, new: bytes | None = None) -> None:
    """Other bytes in the middle of a file, without `new` a flipped one."""
    with path.open("r+b") as file:
        file.seek(offset)
        new = bytes([file.read(1)[0] ^ 1]) if new is None else new
        file.seek(offset)
        file.write(new)


def far_indices(folder: Path) -> None:
    change_meta(folder)
    index = np.load(folder / "index.npy")
    index[0, 5, 1] = 32
    np.save(folder / "index.npy", index)


# {damage: (the file that is named, what makes it)}; damage that opening finds, with or without checksums.
DAMAGE = {
    "null weights": ("meta.json", lambda f: change_meta(f, weights=None)),
    "null ids": ("meta.json", lambda f: change_meta(f, ids=None)),
    "labels in words": ("meta.json", lambda f: change_meta(f, labels=["good", "good", "bad"])),
    "too few labels": ("meta.json", lambda f: change_meta(f, labels=[0])),
    "a list": ("meta.json", lambda f: (f / "meta.json").write_text("[]")),
    "no text": ("meta.json", lambda f: (f / "meta.json").write_bytes(b"\xff\x00")),
    "nested without end": ("meta.json", lambda f: (f / "meta.json").write_text("[" * 100_000)),
    "meta missing": ("meta.json", lambda f: (f / "meta.json").unlink()),
    "another label": ("meta.json", lambda f: (f / "meta.json").write_text(
        (f / "meta.json").read_text().replace('"labels": [\n  0', '"labels": [\n  1'))),
    "empty array": ("rgb.npy", lambda f: (f / "rgb.npy").write_bytes(b"")),
    "array missing": ("gt.npy", lambda f: (f / "gt.npy").unlink()),
    "truncated": ("xyz.npy", lambda f: (f / "xyz.npy").write_bytes((f / "xyz.npy").read_bytes()[:-1])),
    "odd header": ("xyz.npy", lambda f: overwrite(f / "xyz.npy", 10, b"{'descr': ((((")),
    "fewer groups": ("xyz.npy", lambda f: np.save(f / "xyz.npy", np.load(f / "xyz.npy")[:, :16])),
    "another type": ("weight.npy", lambda f: np.save(f / "weight.npy", np.load(f / "weight.npy").astype(np.float32))),
    "one dimension": ("mask.npy", lambda f: np.save(f / "mask.npy", np.load(f / "mask.npy").ravel())),
}  # fmt: skip
# Damage that the content alone shows.
HIDDEN = {
    "flipped byte": ("xyz.npy", lambda f: overwrite(f / "xyz.npy", 5000)),
    "zeroed page": ("rgb.npy", lambda f: overwrite(f / "rgb.npy", 4096, bytes(4096))),
    "flipped in gt": ("gt.npy", lambda f: overwrite(f / "gt.npy", 128 + 17)),
    "indices out of range": ("index.npy", far_indices),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_where_features_are_read_and_made_again_where_they_are_made(
    paths: Paths, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(splits, "_time_parts", lambda samples, extractor: {})
    name, harm = DAMAGE[damage]
    folder = folder_of(paths)
    before = content(folder)
    harm(folder)
    assert content(folder) != before
    where = re.escape(str(folder / name))
    with pytest.raises(DataError, match=rf"^{where} .*; delete the folder .* and make it again with `mafr f") as caught:
        load_features(paths, "mvtec3d", "bracket", "train", CONFIG)
    assert "\n" not in str(caught.value)
    extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    (said,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"mafr: {where} .*; the features are made again", said)
    assert content(folder) == before
    assert not [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("damage", HIDDEN)
def test_changed_content_is_found_when_it_is_read(paths: Paths, damage: str) -> None:
    name, harm = HIDDEN[damage]
    folder = folder_of(paths)
    harm(folder)
    store = load_features(paths, "mvtec3d", "bracket", "train", CONFIG)
    with pytest.raises(DamagedStoreError, match=re.escape(f"{folder / name} is damaged: the part of train/good/")):
        for k in range(3):
            store.row(k)


@pytest.mark.parametrize("damage", HIDDEN)
def test_a_run_finds_changed_content_before_it_trains_and_makes_the_features_again(
    paths: Paths, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(splits, "_time_parts", lambda samples, extractor: {})
    name, harm = HIDDEN[damage]
    folder = folder_of(paths)
    before = content(folder)
    harm(folder)
    run = Run("mvtec3d", "bracket", CONFIG)
    record = execute(run, paths)
    assert f"mafr: {folder / name} is damaged: the part of train/good/" in capsys.readouterr().err
    assert content(folder) == before
    assert execute(run, paths) == record


def test_damaged_features_of_a_finished_run_do_not_cost_the_run(
    paths: Paths, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run("mvtec3d", "bracket", CONFIG)
    record = execute(run, paths)
    DAMAGE["null weights"][1](folder_of(paths))
    monkeypatch.setattr(splits, "_time_parts", lambda samples, extractor: {})
    monkeypatch.setattr("mafr.method.Method.fit_split", lambda *a: pytest.fail("trained again"))
    assert execute(run, paths) == record
    assert "meta.json is damaged" in capsys.readouterr().err


def test_what_was_checked_is_not_read_again_in_the_same_process(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, crc32 = [], checks.zlib.crc32
    monkeypatch.setattr(checks.zlib, "crc32", lambda data: rows.append(isinstance(data, np.ndarray)) or crc32(data))
    for expected in (6 * 3, 0):  # arrays times samples, then none
        rows.clear()
        split = load_split(paths, "mvtec3d", "bracket", "train", CONFIG, repair=True)
        assert len(split.tokens([0, 1])) == 2 and sum(rows) == expected


def test_a_store_that_is_older_than_the_checksums_is_taken_as_it_is(
    paths: Paths, capsys: pytest.CaptureFixture
) -> None:
    folder = folder_of(paths)
    change_meta(folder)
    overwrite(folder / "xyz.npy", 5000)
    before = content(folder)
    split = load_split(paths, "mvtec3d", "bracket", "train", CONFIG, repair=True)
    assert len(split.tokens(range(3))) == 3
    extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    assert content(folder) == before
    assert capsys.readouterr().err == ""


def test_checksums_change_neither_the_fingerprint_nor_the_arrays(made: Paths) -> None:
    folder = folder_of(made)
    meta = json.loads((folder / "meta.json").read_text())
    store = open_store(folder, CONFIG, meta["data_fingerprint"], checked=True)
    assert set(meta["crc32"]) == {"rgb", "xyz", "index", "weight", "gt", "mask", "meta.json"}
    assert {len(text) for name, text in meta["crc32"].items() if name != "meta.json"} == {3 * 8}
    identity = {k: meta[k] for k in ("version", "feature_digest", "data_fingerprint", "weights", "category", "split")}
    assert store.fingerprint == hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    for name in ("rgb", "gt"):
        assert (folder / f"{name}.npy").stat().st_size == 128 + np.load(folder / f"{name}.npy").nbytes


def test_a_full_disk_says_how_much_the_store_still_needs(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = folder_of(paths)
    size = json.loads((folder / "meta.json").read_text())["size"]
    shutil.rmtree(folder)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StorageError) as caught:
        extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    needed = re.search(r"the disk is full \(.* free, (\S+) kB more needed\)", str(caught.value))
    assert float(needed[1]) == pytest.approx(size / 1000, abs=0.06)
    assert str(folder.parent) in str(caught.value)
    assert not [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_a_file_in_the_place_of_the_features_is_named(paths: Paths) -> None:
    shutil.rmtree(paths.root / "features")
    (paths.root / "features").write_text("")
    with pytest.raises(DataError, match="holds no features"):
        load_features(paths, "mvtec3d", "bracket", "train", CONFIG)
    with pytest.raises(StorageError, match="features is a file where a folder is needed"):
        extract_features(paths, CONFIG, "mvtec3d", ["bracket"])


def test_other_settings_are_no_damage(made: Paths) -> None:
    folder = folder_of(made)
    fingerprint = json.loads((folder / "meta.json").read_text())["data_fingerprint"]
    other = Config.from_dict(CONFIG.as_dict() | {"groups": 16})
    assert find_store(folder, other, fingerprint) is None
    assert find_store(folder, CONFIG, "0" * 64) is None
    assert find_store(folder.with_name("train-absent"), CONFIG, fingerprint) is None
