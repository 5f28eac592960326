"""A record names a reach of the same bytes only where all that the run was made of has it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import rawdata

from mafr import processor
from mafr.config import Config
from mafr.data import open_dataset
from mafr.data.manifest import GENERATED
from mafr.data.synthetic import generate
from mafr.data.synthetic.mvtec.write import stamp
from mafr.experiments.execute import execute, run_all
from mafr.experiments.plan import Run
from mafr.features.sources.splits import extract_features, load_split
from mafr.paths import Paths
from mafr.processor import common_reach, limited

CONFIG = rawdata.config(
    image_size=64, grid=32, groups=32, group_size=8, extractor_mode="batch-statistics", epochs=1, min_steps=0
)
RUN = Run("mvtec3d", "bracket", CONFIG)
Limit = Callable[[str], None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Puts this process under a limit as far as `limited` knows; no library sees any of it."""
    monkeypatch.setattr(processor, "limits", lambda reach: {"REACH_OF_A_TEST": reach})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    return lambda reach: monkeypatch.setenv("REACH_OF_A_TEST", reach)


def made(root: Path) -> Paths:
    paths = rawdata.home(root, CONFIG)
    extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    return paths


def reach_of(record: dict) -> str:
    return record["place"]["same_bytes"]


def test_all_inputs_under_one_limit_give_its_reach(tmp_path, limit, capsys):
    limit("x86")
    paths = made(tmp_path)
    (record,) = run_all([RUN], paths).values()
    assert reach_of(record) == "x86" and "--same-bytes" not in capsys.readouterr().err
    limit("")
    assert limited() == "" and reach_of(execute(replace(RUN, shots=2), paths)) == ""


@pytest.mark.parametrize("left", ["data", "features", "older features"])
def test_an_input_from_without_is_said_once_and_takes_the_reach(tmp_path, limit, capsys, left):
    limit("x86" if left == "older features" else "")
    paths = made(tmp_path)
    limit("x86")
    if left == "data":
        shutil.rmtree(paths.features("mvtec3d"))
        extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    if left == "features":
        shutil.rmtree(paths.processed("mvtec3d"))
        rawdata.home(tmp_path, CONFIG)
    if left == "older features":
        for path in paths.features("mvtec3d").rglob("meta.json"):
            meta = json.loads(path.read_text())
            del meta["crc32"], meta["same_bytes"]
            path.write_text(json.dumps(meta))
    splits = [load_split(paths, "mvtec3d", "bracket", name, CONFIG) for name in ("train", "test")]
    assert [split.store.same_bytes for split in splits] == (["x86"] * 2 if left == "data" else [""] * 2)
    assert [split.samples.same_bytes for split in splits] == ([""] * 2 if left == "data" else ["x86"] * 2)
    capsys.readouterr()
    records = run_all([RUN, replace(RUN, shots=2)], paths)
    assert {reach_of(record) for record in records.values()} == {""}
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "--same-bytes" in line]
    assert "data or features of mvtec3d/bracket were made without it" in said and "MAFR_HOME" in said
    run_all([RUN], paths)
    assert "1 finished runs were made without it" in capsys.readouterr().err


def test_a_head_from_without_takes_the_reach(tmp_path, limit):
    limit("x86")
    paths = made(tmp_path)
    limit("")
    execute(RUN, paths)
    limit("x86")
    other = replace(RUN, config=replace(CONFIG, sigma=3.0))
    assert other.head_digest == RUN.head_digest
    assert reach_of(execute(other, paths, RUN)) == "" and reach_of(execute(replace(other, shots=2), paths)) == "x86"


def test_generated_data_names_its_reach_and_is_the_same_data(tmp_path, limit):
    config = Config.preset("smoke", overrides={"mvtec3d_train": 1, "validation_count": 1, "test_good": 1,
                                               "test_defective": 1, "raw_side": 80})  # fmt: skip
    limit("x86")
    (folder,) = generate("mvtec3d", tmp_path, config, ["rope"])
    assert json.loads((folder / GENERATED).read_text()) == stamp("rope", config) | {"same_bytes": "x86"}
    time = (folder / GENERATED).stat().st_mtime_ns
    limit("")
    generate("mvtec3d", tmp_path, config, ["rope"])
    assert (folder / GENERATED).stat().st_mtime_ns == time
    (free,) = generate("mvtec3d", tmp_path / "free", config, ["rope"])
    assert json.loads((free / GENERATED).read_text()) == stamp("rope", config)


def test_the_reach_decides_no_fingerprint(tmp_path, limit):
    found = []
    for reach in ("", "intel"):
        limit(reach)
        paths = made(tmp_path / (reach or "free"))
        samples = open_dataset("mvtec3d", paths.processed("mvtec3d"), "bracket", "train", CONFIG)
        store = load_split(paths, "mvtec3d", "bracket", "train", CONFIG).store
        assert samples.same_bytes == store.same_bytes == reach
        found.append((samples.fingerprint, store.fingerprint, store.folder.name))
    assert found[0] == found[1]


def test_reaches_join_to_what_all_share():
    assert common_reach(["x86", "x86"]) == "x86"
    assert common_reach(["x86", ""]) == common_reach(["x86", "intel"]) == common_reach([]) == ""
