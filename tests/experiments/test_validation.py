"""Trials on real scans: which there are, where they look, how they resume."""

from dataclasses import replace
from pathlib import Path

import pytest
from support import rawdata

from mafr.config import Config
from mafr.data import preprocess
from mafr.errors import ConfigError, DataError
from mafr.experiments.validation import (
    EPOCHS,
    PARTS,
    SHORTENED,
    SINGLE_FEATURES,
    demo_settings,
    real_categories,
    run_trials,
    stored_trials,
    text_and_code,
    trials,
)
from mafr.paths import Paths

GLAND = {"mvtec3d": ("cable_gland",)}


def test_every_trial_is_named_once_and_none_is_generated():
    made = trials({"mvtec3d": ("cable_gland", "tire"), "eyecandies": ("CandyCane",)})
    named = [(t.part, t.run.category, t.run.table_method, t.how) for t in made]
    assert len(set(named)) == len(named)
    assert not any(trial.run.config.generated for trial in made)
    assert {trial.part for trial in made} == set(PARTS)


def test_maf_r_trains_at_each_length_in_the_paper_variant_and_at_the_last_in_the_released_one():
    made = trials(GLAND, ["mafr"])
    assert [(t.run.variant, t.run.config.epochs) for t in made] == [*(("paper", n) for n in EPOCHS), ("released", 100)]


def test_single_features_come_as_published_first():
    made = [trial for trial in trials(GLAND, ["features"]) if trial.how == "as published"]
    assert [trial.run.method for trial in made] == list(SINGLE_FEATURES)
    assert {(trial.run.config.cloud_sampling, trial.run.config.bank_choice) for trial in made} == {("floor", "float16")}
    assert {trial.run.method: trial.run.config.fpfh_normals for trial in made}["fpfh"] == "open3d"
    towards = [trial.run.config for trial in trials(GLAND, ["features"]) if trial.how == "normals towards the camera"]
    (as_published,) = (trial.run.config for trial in made if trial.run.method == "fpfh")
    assert towards == [replace(as_published, fpfh_normals="camera")]


def test_shortened_trials_become_whole_on_request():
    less, whole = (trials(GLAND, ["benchmark", "ast"], whole=whole) for whole in (False, True))
    assert {t.run.method for t in less if t.shortened} == set(SHORTENED)
    assert not any(t.shortened for t in whole)
    full = Config.preset("full")
    for trial in whole:
        prefix = {"a": "ast_", "d": "depth_", "v": "voxel_"}[trial.run.method[0]]
        given = {n: v for n, v in trial.run.config.as_dict().items() if n.startswith(prefix) and n != "ast_mode"}
        assert given == {name: value for name, value in full.as_dict().items() if name in given}


def test_one_difference_at_a_time():
    made = [t for t in trials(GLAND, ["differences"]) if " = " in t.how]
    start = demo_settings().as_dict() | {"epochs": 20}
    for trial in made:
        changed = {n: v for n, v in trial.run.config.as_dict().items() if v != start[n]}
        assert len(changed) == 1 and trial.how == "{} = {}".format(*next(iter(changed.items())))
    assert {trial.how.partition(" = ")[0] for trial in made} == set(text_and_code()) - {"mask_padding"}


def test_an_unknown_part_and_an_empty_folder_are_said(tmp_path: Path):
    with pytest.raises(ConfigError, match="unknown part fpfh; the parts are features"):
        trials(GLAND, ["fpfh"])
    with pytest.raises(DataError, match="holds no published category"):
        real_categories(Paths("x", "demo", data_root=tmp_path))


def test_trials_run_on_a_folder_of_scans_and_resume(tmp_path: Path):
    raw = rawdata.write_mvtec3d(tmp_path / "data/raw/mvtec3d", "tire").parent
    paths = Paths(tmp_path, "demo", data_root=tmp_path / "data")
    preprocess("mvtec3d", raw, paths.processed("mvtec3d"), demo_settings())
    assert real_categories(paths) == {"mvtec3d": ("tire",), "eyecandies": ()}
    wanted = [t for t in trials(real_categories(paths), ["features"]) if t.run.method in ("raw_depth", "hog")]
    assert stored_trials(wanted, paths) == {}
    done = run_trials(wanted, paths)
    written = {t: (t.run.folder(paths) / "metrics.json").stat().st_mtime_ns for t in done}
    assert list(done) == wanted and run_trials(wanted, paths) == done == stored_trials(wanted, paths)
    assert written == {t: (t.run.folder(paths) / "metrics.json").stat().st_mtime_ns for t in done}
