"""The same scan gives the same part and the same score, by whatever way and under whatever name it comes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import rawdata

from mafr import Config
from mafr.data import load_pair, open_dataset, preprocess
from mafr.data.clean import plane
from mafr.data.layout import SEED_CONTENTS
from mafr.data.manifest import build_manifest
from mafr.experiments.plan import Run


@pytest.fixture
def ragged(monkeypatch):
    """Cleaning whose result depends on RANSAC's draws: few of them, and a cut through the dome near its top."""
    monkeypatch.setattr("mafr.data.mvtec3d.PLANE_ITERATIONS", 2)
    monkeypatch.setattr("mafr.data.mvtec3d.PLANE_SAMPLE", 4)
    monkeypatch.setattr("mafr.data.mvtec3d.PLANE_INLIER", 2e-5)
    monkeypatch.setattr("mafr.data.mvtec3d.PLANE_DISTANCE", 0.015)


def equal(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("rgb", "xyz")) and np.array_equal(
        a.scan().xyz, b.scan().xyz
    )


def test_prepared_data_and_a_pair_of_files_are_equal_to_the_byte_whatever_the_name(tmp_path, ragged):
    config = rawdata.config()
    folder = rawdata.write_mvtec3d(tmp_path / "raw") / "test" / "crack"
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    data = open_dataset("mvtec3d", tmp_path / "out", "bracket", "test", config)
    sample = data[data.ids.index("test/crack/009")]
    pairs = [(folder / "rgb" / "009.png", folder / "xyz" / "009.tiff")]
    for k, name in enumerate(("scan", "another name")):
        pairs.append((tmp_path / f"{name}.png", tmp_path / f"{name}-{k}.tiff"))
        for source, copy in zip(pairs[0], pairs[-1], strict=True):
            shutil.copy(source, copy)
    for rgb, xyz in pairs:
        assert equal(load_pair(rgb, xyz, config, plane="remove"), sample)


def test_draws_would_differ_by_name(tmp_path, ragged):
    """What the test above is about: seeded by names, these scans come out differently."""
    from mafr.data.mvtec3d import clean_cloud

    cloud = rawdata.scene(1)
    kept = {clean_cloud(cloud, "remove", tmp_path, name).tobytes() for name in "abcd"}
    assert len(kept) > 1
    assert len({clean_cloud(cloud, "remove", tmp_path).tobytes() for _ in range(2)}) == 1


def test_equal_scans_score_equally(smoke, tmp_path):
    from mafr.baselines.registry import load_detector

    generated, paths = smoke
    config = Config.preset("smoke", overrides={"generated": False})
    shutil.copytree(paths.raw("mvtec3d") / "bagel", tmp_path / "raw" / "mine")
    (tmp_path / "raw" / "mine" / "generated.json").unlink()
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    detector = load_detector(Run("mvtec3d", "bagel", generated).folder(paths) / "detector")
    for sample in open_dataset("mvtec3d", tmp_path / "out", "mine", "test", config)[:3]:
        split, defect, number = sample.id.split("/")
        place = paths.raw("mvtec3d") / "bagel" / split / defect
        pair = load_pair(place / "rgb" / f"{number}.png", place / "xyz" / f"{number}.tiff", config, plane="remove")
        assert equal(pair, sample)
        assert detector.predict(pair).score == detector.predict(sample).score


def test_generated_data_is_seeded_by_its_names_as_before(tmp_path, monkeypatch):
    seeds = []
    real = plane.fit_plane
    monkeypatch.setattr("mafr.data.mvtec3d.fit_plane", lambda points, text, *rest: seeds.append(text) or real(
        points, text, *rest))  # fmt: skip
    config = rawdata.config(generated=True, raw_side=60)
    folder = rawdata.write_mvtec3d(tmp_path / "raw", "bagel")
    stamp = {"data_digest": config.data_digest("mvtec3d")}
    (folder / "generated.json").write_text(json.dumps(stamp))
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config, ["bagel"])
    assert sorted(seeds)[0] == "bagel/test/crack/009"
    records = json.loads((tmp_path / "out" / "bagel" / "manifest.json").read_text())["samples"]
    assert not any("seed" in record for record in records.values())


def test_the_manifest_says_what_seeded_each_sample_and_keeps_older_ones(tmp_path):
    config = rawdata.config()
    folder = rawdata.write_mvtec3d(tmp_path / "raw")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    path = tmp_path / "out" / "bracket" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert {record["seed"] for record in manifest["samples"].values()} == {SEED_CONTENTS}
    # As an older version wrote it: nothing is said, the names seeded the draws. It stays valid as it is.
    old = [{"id": name, **{k: v for k, v in record.items() if k != "seed"}}
           for name, record in manifest["samples"].items()]  # fmt: skip
    older = build_manifest("mvtec3d", "bracket", "remove", manifest["parameters"], None, old)
    assert older["fingerprints"] != manifest["fingerprints"]  # other files: stored features do not fit them
    path.write_text(json.dumps(older))
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    assert json.loads(path.read_text()) == older
    assert len(open_dataset("mvtec3d", tmp_path / "out", "bracket", "train", config)) == 3
    rawdata.write_tiff(folder / "test/good/xyz/000.tiff", rawdata.scene(7))  # one scan is another one
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    said = {name: record.get("seed") for name, record in json.loads(path.read_text())["samples"].items()}
    assert said.pop("test/good/000") == SEED_CONTENTS
    assert set(said.values()) == {None}


def test_nothing_is_said_of_draws_where_none_are_made(tmp_path):
    rawdata.write_mvtec3d(tmp_path / "raw")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", rawdata.config(plane="none"))
    path = Path(tmp_path / "out" / "bracket" / "manifest.json")
    assert not any("seed" in record for record in json.loads(path.read_text())["samples"].values())
