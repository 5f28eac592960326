"""Stored runs read back: the maps that were scored, rescoring, and refusal of other data."""

from dataclasses import replace

import numpy as np
import pytest
from support import fake_results

import mafr.experiments.results
from mafr.config import VARIANTS, Config
from mafr.errors import DataError, ResultError
from mafr.experiments.plan import TableMethod
from mafr.experiments.results import colour_range, load_result, stamp
from mafr.paths import Paths

DEMO = Config.preset("demo")


def test_maps_are_those_that_were_scored(result):
    assert np.allclose(result.maps.max(axis=(1, 2)), result.scores, rtol=1e-5)


def test_rescoring_with_the_runs_own_settings_changes_nothing(result):
    maps, scores = result.rescored(result.config.fusion, result.config.blur, result.config.sigma)
    assert np.allclose(maps, result.maps, rtol=1e-5, atol=1e-6)
    assert np.allclose(scores, result.scores, rtol=1e-5)


def test_rescoring_without_blur_is_the_masked_product(result):
    maps, _ = result.rescored("product", None, 1.0)
    psi_rgb, psi_xyz = result.residuals(range(len(result.ids)))
    assert np.array_equal(maps, psi_rgb * psi_xyz)
    assert not maps[~result.mask].any()


def test_sample_of_figure_2_is_the_lower_median_of_the_defective(result):
    k = result.median_defective()
    assert result.labels[k] == 1
    defective = np.sort(result.scores[result.labels == 1])
    assert result.scores[k] == defective[(len(defective) - 1) // 2]


def test_equal_scores_are_taken_by_id(result):
    record = {**result.record, "scores": {result.config.fusion: [1.0] * len(result.ids)}}
    tied = replace(result, record=record)
    bad = sorted(i for i, label in zip(result.ids, result.labels, strict=True) if label)
    assert tied.ids[tied.median_defective()] == bad[(len(bad) - 1) // 2]


def test_colour_range_by_hand():
    maps = np.arange(8.0).reshape(2, 2, 2)
    mask = np.ones((2, 2, 2), dtype=bool)
    mask[0, 0, 0] = False
    low, high = colour_range(maps, mask, np.array([0, 1]))
    assert low == 2.0  # the median of 1, 2, 3
    assert high == pytest.approx(np.quantile(np.arange(1.0, 8.0), 0.999))


def test_missing_run_names_file_and_command(stored):
    config, paths = stored
    run = TableMethod("mafr", "paper").runs("mvtec3d", replace(config, seed=7))[0]
    with pytest.raises(ResultError, match=r"metrics\.json.*mafr run --profile smoke --dataset mvtec3d"):
        load_result(run, paths)


def test_run_on_other_data_is_refused(stored, patched):
    config, paths = stored
    with patched.context() as patch:
        other = lambda *a: fake_results.FakeStore(fake_results.fake_samples("mvtec3d", "bagel"), "other")  # noqa: E731
        patch.setattr(mafr.experiments.results, "load_features", other)
        with pytest.raises(DataError, match="other data"):
            load_result(TableMethod("mafr", "paper").runs("mvtec3d", config)[0], paths)


def test_stamp_cannot_be_taken_for_real_data():
    assert "GENERATED" in stamp(DEMO, ["mvtec3d"], ["paper"])
    real = stamp(Config.preset("full"), ["mvtec3d"], VARIANTS)
    assert "GENERATED" not in real
    assert all(word in real for word in ("MVTec 3D-AD", "full", "paper", "released"))


@pytest.mark.parametrize(
    ("profile", "variant", "shown"),
    [
        ("demo", "paper", []),
        ("demo", "released", []),
        ("full", "paper", ["m3dm"]),
        ("full", "released", ["cfm", "m3dm"]),
    ],
)
def test_runs_on_other_data_are_told_where_features_are_shared(monkeypatch, tmp_path, profile, variant, shown):
    """At full size the variants' inputs differ and M3DM's images are black off the part: features of other hashes."""
    results = mafr.experiments.results
    record = {"samples": {"ids": ["a"]}}
    read = lambda run, paths: record | {"data_fingerprint": run.method}  # noqa: E731
    monkeypatch.setattr(results, "read_record", read)
    monkeypatch.setattr(results, "load_maps", lambda run, paths, count: np.zeros((count, 2, 2), np.float16))
    paths = Paths.resolve(profile, root=tmp_path)
    config = Config.preset(profile, variant)
    assert sorted(results.compared_maps(config, paths, "mvtec3d", "bagel", ["a"], ["m3dm", "cfm"])) == shown
