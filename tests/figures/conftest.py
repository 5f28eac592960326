"""Runs on disk, invented, that figures are drawn from."""

import pytest
from support import fake_results

from mafr.experiments.plan import TableMethod
from mafr.experiments.results import load_result


@pytest.fixture(scope="module")
def patched():
    with fake_results.as_features() as patch:
        yield patch


@pytest.fixture(scope="module")
def stored(patched, tmp_path_factory):
    return fake_results.write_runs(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def result(stored):
    config, paths = stored
    return load_result(TableMethod("mafr", "paper").runs("mvtec3d", config)[0], paths)
