"""A store that differs from another one in the image alone takes the rest from it: the same bytes, less work."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support import rawdata

from mafr.baselines.registry import method_settings
from mafr.config import DATASETS, Config
from mafr.data import open_dataset
from mafr.experiments import prepare
from mafr.features.extract import FeatureExtractor
from mafr.features.sources import splits
from mafr.features.sources.splits import extract_features, extraction_seconds, load_features, store_folder
from mafr.features.sources.store import build_store, open_store
from mafr.paths import Paths

SETTINGS = {"image_size": 64, "grid": 32, "groups": 32, "group_size": 8, "extractor_mode": "batch-statistics"}
BLACK = {"image_background": "black"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the data sets; the images are not square."""
    return rawdata.home(tmp_path_factory.mktemp("home"), rawdata.config()).data


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "timing.json"}


@pytest.mark.parametrize("first", ["kept", "black"])
def test_the_bytes_are_those_of_a_direct_extraction(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    second = {"kept": "black", "black": "kept"}[first]
    one, other = (rawdata.config(**SETTINGS, image_background=value) for value in (first, second))
    paths = Paths.resolve("smoke", root=tmp_path, data_root=data)
    extract_features(paths, one, "mvtec3d", ["bracket"])
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "prepare", None)  # no groups, no Point-MAE
        patch.setattr(FeatureExtractor, "cloud_tokens", None)
        patch.setattr(splits, "_time_parts", lambda samples, extractor: {})
        extract_features(paths, other, "mvtec3d", ["bracket"])
    samples = open_dataset("mvtec3d", paths.processed("mvtec3d"), "bracket", "test", other)
    copied, before = (store_folder(paths, "mvtec3d", samples, config) for config in (other, one))
    extractor = FeatureExtractor.from_config(other)
    build_store(samples, tmp_path / "direct", other, extractor)
    assert content(copied) == content(tmp_path / "direct")
    assert content(before)["rgb.npy"] != content(copied)["rgb.npy"]
    assert content(before)["xyz.npy"] == content(copied)["xyz.npy"]
    beside = open_store(before, one, samples.fingerprint)
    build_store(samples, tmp_path / "batched", other, extractor, batch=3, beside=beside)
    batched, single = (content(folder) for folder in (tmp_path / "batched", copied))
    assert {name for name in single if batched[name] != single[name]} <= {"rgb.npy"}  # products of other shapes


def test_nothing_is_taken_where_more_than_the_image_differs(data: Path, tmp_path: Path) -> None:
    config = rawdata.config(**SETTINGS)
    paths = Paths.resolve("smoke", root=tmp_path, data_root=data)
    extract_features(paths, config, "mvtec3d", ["bracket"])
    for change in ({"extractor_mode": "eval"}, {"cloud_sampling": "floor"}):
        other = dataclasses.replace(config, **BLACK, **change)
        extract_features(paths, other, "mvtec3d", ["bracket"])
        stores = [load_features(paths, "mvtec3d", "bracket", "train", one).tokens([0]) for one in (config, other)]
        assert not np.array_equal(stores[0].xyz, stores[1].xyz), change
        timed = extraction_seconds(paths, "mvtec3d", "bracket", other)
        assert timed["rgb"] > 0 and timed["xyz"] > 0


def test_at_full_size_features_are_made_for_each_variant_and_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, Config]] = []
    monkeypatch.setattr(splits, "extract_features", lambda p, config, dataset, *_: made.append((dataset, config)))
    paths = Paths.resolve("full", root=tmp_path)
    config = Config.preset("full", overrides={"random_weights": True})
    both = {variant: config.with_variant(variant) for variant in ("paper", "released")}
    prepare.extract_all(config, paths, methods=("mafr", "m3dm", "cfm", "cfm_m"))
    blackened = method_settings("m3dm", config, dataset="mvtec3d")
    assert blackened.image_background == "black"
    found = {name: [one.feature_digest() for dataset, one in made if dataset == name] for name in DATASETS}
    assert found["mvtec3d"] == [one.feature_digest() for one in (*both.values(), blackened)]
    assert found["eyecandies"][:2] == found["mvtec3d"][:2] and len(found["eyecandies"]) == 3  # with CFM-M's
    made.clear()
    prepare.extract_all(both["released"], paths, datasets=["mvtec3d"], methods=("cfm",), variants=("released",))
    # A compared method takes the inputs of `paper` whatever the variant.
    assert [one.feature_digest() for _, one in made] == [both[name].feature_digest() for name in ("released", "paper")]
    made.clear()
    prepare.extract_all(Config.preset("demo"), paths, datasets=["mvtec3d"], methods=("m3dm", "cfm"))
    assert len(made) == 1, "the small profiles keep one set of features"
