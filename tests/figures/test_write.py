"""Figures written from stored runs: the same bytes each time, and what cannot be drawn is said."""

import io

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from support import fake_results
from support.fake_results import words

from mafr.config import Config
from mafr.errors import ResultError
from mafr.figures.costs import cost_accuracy
from mafr.figures.curves import pro_curves, roc_curves, score_histograms, training_curves
from mafr.figures.fig2 import figure2
from mafr.figures.overview import overview
from mafr.figures.write import write_figures
from mafr.paths import Paths


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_all_figures_are_written_twice_to_the_same_bytes(stored):
    config, paths = stored
    first = {path: path.read_bytes() for path in write_figures(config, paths)}
    assert [p.name for p in first] == [
        "fig1_architecture.png", "fig2_qualitative.png", "fig2_eyecandies.png", "overview.png", "training_curves.png",
        "roc_curves.png", "pro_curves.png", "score_histograms.png", "cost_accuracy.png",
    ]  # fmt: skip
    assert {p: p.read_bytes() for p in write_figures(config, paths)} == first
    for path, content in first.items():
        image = Image.open(io.BytesIO(content))
        assert "Software" not in image.info and "Creation Time" not in image.info
        assert path.parent == paths.figures
        assert len(np.unique(pixels(content).reshape(-1, 3), axis=0)) > 20, path


def test_no_pyplot_figure_is_left_behind(stored):
    config, paths = stored
    before = plt.get_fignums()
    write_figures(config, paths, ["paper"])
    assert plt.get_fignums() == before


def test_every_figure_of_results_says_that_data_is_generated(stored):
    config, paths = stored
    for draw in (figure2, overview, training_curves, roc_curves, pro_curves, score_histograms, cost_accuracy):
        text = words(draw(config, paths))
        assert "GENERATED DATA" in text and "smoke profile" in text, draw


def test_without_timed_runs_the_cost_figure_is_left_out(patched, tmp_path, capsys):
    config, paths = fake_results.write_runs(tmp_path, ["mvtec3d"], skip=["tire"])
    assert "cost_accuracy.png" not in [path.name for path in write_figures(config, paths)]
    assert "not drawn: costs" in capsys.readouterr().err


def test_data_set_without_runs_is_left_out_with_a_note(patched, tmp_path, capsys):
    config, paths = fake_results.write_runs(tmp_path, ["eyecandies"])
    names = [path.name for path in write_figures(config, paths)]
    assert "fig2_eyecandies.png" in names and "fig2_qualitative.png" not in names
    assert "not drawn: MVTec 3D-AD" in capsys.readouterr().err
    with pytest.raises(ResultError, match="--table 1"):
        figure2(config, paths)


def test_nothing_run_is_an_error_that_names_the_command(tmp_path):
    with pytest.raises(ResultError, match="mafr reproduce --profile smoke"):
        write_figures(Config.preset("smoke"), Paths.resolve("smoke", root=tmp_path))
