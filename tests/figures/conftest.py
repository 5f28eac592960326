"""Runs on disk, invented, that figures are drawn from."""

import pytest
from support import fake_results

from mafr.experiments.results import full_runs, load_result


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
    return load_result(full_runs(config, "mvtec3d", "paper")[0], paths)
