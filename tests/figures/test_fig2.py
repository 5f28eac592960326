"""Fig. 2: the written rules by which its samples and colours are chosen."""

import json
import shutil

import numpy as np
import pytest
from support import fake_results
from support.fake_results import words

from mafr.experiments.plan import Run
from mafr.experiments.results import colour_range, stored_results
from mafr.experiments.run_store import load_maps
from mafr.figures.fig2 import figure2
from mafr.paths import Paths


def test_figure_2_has_a_row_a_category_and_states_its_rules(stored, result):
    config, paths = stored
    figure = figure2(config, paths)
    assert [axes.get_title() for axes in figure.axes[3:8]] == ["Ψ2D", "Ψ3D", "MAFR", "CFM", "BTF"]  # as far as run
    shown = [axes for axes in figure.axes if axes.get_visible()]  # what is not only keeps the pictures in line
    assert len(shown) == 8 * len(config.categories("mvtec3d")) + 2  # and two bars
    ends = [[label.get_text() for label in axes.get_xticklabels()] for axes in shown[-2:]]
    assert ends == [["far", "near"], ["median of the good images' pixels", "99.9 % of all pixels"]]
    text = words(figure)
    assert "median image score" in text and "99.9 %" in text
    name = result.defects[result.median_defective()]
    assert f"bagel {name}" in text


def test_figure_2_shows_the_maps_on_the_common_scale(stored):
    config, paths = stored
    figure = figure2(config, paths)
    for row, result in enumerate(stored_results(config, paths, "mvtec3d", "paper")):
        btf = Run("mvtec3d", result.run.category, config, method="btf")
        for column, maps in ((5, result.maps), (7, load_maps(btf, paths).astype(np.float32))):
            image = figure.axes[8 * row + column].get_images()[0]
            assert image.get_clim() == pytest.approx(colour_range(maps, result.mask, result.labels))
            shown = np.ma.filled(image.get_array(), np.nan)
            expected = np.where(result.mask, maps, np.nan)[result.median_defective()]
            assert np.array_equal(shown, expected, equal_nan=True)


def test_a_method_that_was_not_run_in_a_category_is_named(stored, tmp_path):
    config, paths = stored
    other = Paths.resolve("smoke", root=tmp_path)
    shutil.copytree(paths.root / "runs", tmp_path / "runs")
    shutil.rmtree(Run("mvtec3d", "tire", config, method="btf").folder(other))
    figure = figure2(config, other)
    assert [text.get_text() for text in figure.axes[15].texts] == ["not run"]
    assert not figure.axes[15].get_images() and figure.axes[7].get_images()


def test_maps_of_a_method_on_other_data_are_not_shown(stored, tmp_path):
    config, paths = stored
    other = Paths.resolve("smoke", root=tmp_path)
    shutil.copytree(paths.root / "runs", tmp_path / "runs")
    path = Run("mvtec3d", "tire", config, method="btf").folder(other) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_fingerprint": "other"}))
    assert [text.get_text() for text in figure2(config, other).axes[15].texts] == ["not run"]


def test_missing_categories_are_named(patched, tmp_path):
    config, paths = fake_results.write_runs(tmp_path, ["mvtec3d"], skip=["tire"])
    assert "Not run yet: tire" in words(figure2(config, paths))
