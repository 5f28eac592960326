"""Stored features of one small category, and a copy of them that a test may change."""

import shutil
from pathlib import Path

import pytest
from support import rawdata

from mafr.data import open_dataset
from mafr.features.sources import checks
from mafr.features.sources.splits import extract_features, store_folder
from mafr.paths import Paths

CONFIG = rawdata.config(
    image_size=64, grid=32, groups=32, group_size=8, extractor_mode="batch-statistics", epochs=1, min_steps=0
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Stored features of one category; not to be changed."""
    paths = rawdata.home(tmp_path_factory.mktemp("home"), CONFIG)
    extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    return paths


@pytest.fixture
def paths(made: Paths, tmp_path: Path) -> Paths:
    """A copy of the features, for a test to change, beside the same data."""
    checks._GOOD.clear()  # as in a new process
    shutil.copytree(made.root / "features", tmp_path / "features")
    return Paths.resolve("smoke", root=tmp_path, data_root=made.data_root)


def folder_of(paths: Paths, split: str = "train") -> Path:
    samples = open_dataset("mvtec3d", paths.processed("mvtec3d"), "bracket", split, CONFIG)
    return store_folder(paths, "mvtec3d", samples, CONFIG)
