"""The README's picture: which categories and samples it shows, by a written rule."""

import pytest
from support.fake_results import words

from mafr.errors import ResultError
from mafr.experiments.results import stored_results
from mafr.figures.overview import overview
from mafr.paths import Paths


def test_the_overview_shows_the_lowest_the_median_and_the_highest_category(stored):
    config, paths = stored
    results = {r.run.category: r for r in stored_results(config, paths, "mvtec3d", "paper")}
    scores = {name: r.record["metrics"][config.fusion]["i_auroc"] for name, r in results.items()}
    ordered = sorted(scores, key=lambda name: (scores[name], name))
    shown = list(dict.fromkeys([ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]]))
    figure = overview(config, paths)
    rows = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert [row.split(":")[0].replace(" ", "_") for row in rows] == shown
    assert all(f"I-AUROC {scores[name]:.3f}" in row for name, row in zip(shown, rows, strict=True))
    assert "median image score" in figure.alt and "GENERATED" in words(figure)


def test_the_overview_is_cropped_to_the_part(stored):
    config, paths = stored
    results = {r.run.category: r for r in stored_results(config, paths, "mvtec3d", "paper")}
    figure = overview(config, paths)
    for first in range(0, len(figure.axes), 4):
        axes = figure.axes[first]
        result = results[axes.get_ylabel().split(":")[0].replace(" ", "_")]
        rows, columns = result.samples[result.median_defective()].valid[0].nonzero()
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert left < columns.min() and columns.max() < right and top < rows.min() and rows.max() < bottom
        assert right - left == pytest.approx(bottom - top)


def test_without_runs_there_is_no_overview(stored, tmp_path):
    with pytest.raises(ResultError, match="no finished run"):
        overview(stored[0], Paths.resolve("smoke", root=tmp_path))
