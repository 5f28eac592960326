"""Shared fixtures: one small reproduction, made once per session."""

import os

# Before torch is imported: two test processes on two cores must not fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from collections.abc import Iterator

import pytest
from hypothesis import settings
from support.places import CHECKOUT
from support.server import Server, serve

from mafr.cli.reproduce import reproduce
from mafr.config import Config
from mafr.data.acquire import fetch
from mafr.paths import Paths

settings.register_profile("repeatable", derandomize=True)  # the same command twice tests the same
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> tuple[Config, Paths]:
    """The smoke profile with its data, features, runs, tables and figures, in a root folder of its own.

    Its notebooks are copies of the checkout's, not executed. Tests may add to it but must not change it.
    """
    root = tmp_path_factory.mktemp("home")
    (root / "notebooks").mkdir()
    for notebook in sorted((CHECKOUT / "notebooks").glob("*.ipynb")):
        shutil.copy2(notebook, root / "notebooks")
    shutil.copytree(CHECKOUT / "tables" / "bench", root / "tables" / "bench")  # notebook 12 reads it
    config, paths = Config.preset("smoke"), Paths.resolve("smoke", root=root)
    reproduce(config, paths, stages=("data", "features", "runs", "tables", "figures"))
    return config, paths


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A web server for downloads, which here wait for nothing."""
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    monkeypatch.setattr(fetch, "TIMEOUT", 5)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve() as running:
        yield running
