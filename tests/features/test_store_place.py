"""Features from another kind of place: read as they are, but not mixed into a run, and older stores are taken."""

import json

import pytest
from support.stored_features import CONFIG, folder_of

from mafr.data import open_dataset
from mafr.experiments.execute import execute
from mafr.experiments.plan import Run
from mafr.features.sources import splits
from mafr.features.sources.splits import extract_features, load_split
from mafr.features.sources.store import open_store
from mafr.paths import Paths

SPLITS = ("train", "validation", "test")
ELSEWHERE = "cuda in bfloat16"


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_time_parts", lambda samples, extractor: {})


def places(paths: Paths) -> list[str | None]:
    return [load_split(paths, "mvtec3d", "bracket", split, CONFIG).store.place for split in SPLITS]


def move(paths: Paths, split: str, place: str | None) -> None:
    """As if a split had been extracted elsewhere, or before stores said where."""
    path = folder_of(paths, split) / "meta.json"
    meta = json.loads(path.read_text()) | {"place": place}
    del meta["crc32"]
    if place is None:
        del meta["place"]
    path.write_text(json.dumps(meta))


def test_features_are_made_again_where_splits_would_mix_and_one_line_says_so(paths, capsys):
    assert places(paths) == ["cpu in float32"] * 3
    for split in ("train", "test"):
        move(paths, split, ELSEWHERE)
    assert places(paths) == [ELSEWHERE, "cpu in float32", ELSEWHERE]  # readers take them as they are
    assert capsys.readouterr().err == ""
    extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    (said,) = capsys.readouterr().err.splitlines()
    assert f"mvtec3d, 2 of 3 splits: the features were computed on {ELSEWHERE}, here it is cpu in float32" in said
    assert places(paths) == ["cpu in float32"] * 3
    extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    assert capsys.readouterr().err == ""


def test_a_run_does_not_mix_places_and_a_finished_one_stays(paths, capsys):
    run = Run("mvtec3d", "bracket", CONFIG)
    move(paths, "test", ELSEWHERE)
    execute(run, paths)
    record = (run.folder(paths) / "metrics.json").stat().st_mtime_ns
    assert f"computed on {ELSEWHERE}" in capsys.readouterr().err and places(paths) == ["cpu in float32"] * 3
    move(paths, "train", ELSEWHERE)
    execute(run, paths)
    assert (run.folder(paths) / "metrics.json").stat().st_mtime_ns == record
    assert places(paths)[0] == ELSEWHERE and capsys.readouterr().err == ""


def test_older_stores_do_not_say_and_are_taken(paths, capsys):
    for split in SPLITS:
        move(paths, split, None)
    before = [(folder_of(paths, split) / "meta.json").read_bytes() for split in SPLITS]
    extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    execute(Run("mvtec3d", "bracket", CONFIG), paths)
    assert [(folder_of(paths, split) / "meta.json").read_bytes() for split in SPLITS] == before
    assert capsys.readouterr().err == "" and places(paths) == [None] * 3


def test_what_a_process_cannot_compute_does_not_keep_it_from_reading(paths, monkeypatch, capsys):
    """Settings that ask for a GPU, where there is none: what is stored serves finished runs and pictures."""
    monkeypatch.setattr(splits, "_extract", lambda job: pytest.fail("extracted"))
    move(paths, "train", ELSEWHERE)
    config = CONFIG.from_dict(CONFIG.as_dict() | {"device": "cuda"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    extract_features(paths, config, "mvtec3d", ["bracket"])
    samples = open_dataset("mvtec3d", paths.processed("mvtec3d"), "bracket", "train", CONFIG)
    assert open_store(folder_of(paths, "train"), CONFIG, samples.fingerprint).place == ELSEWHERE
    assert open_store(folder_of(paths, "train"), CONFIG, samples.fingerprint, place="cpu in float32") is None
