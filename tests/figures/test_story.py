"""The walk of a sample through the method: its steps are the detector's own, and the pictures share their scales."""

import numpy as np
import pytest
from support.fake_results import words

from mafr import Detector
from mafr.data import open_dataset
from mafr.experiments.plan import Run
from mafr.features.extract import FeatureExtractor
from mafr.figures import story
from mafr.figures.paired import plot_paired
from mafr.figures.style import BLACK, GREY, png_bytes
from mafr.tables.paired import paired_table


@pytest.fixture(scope="module")
def walks(smoke):
    config, paths = smoke
    detector = Detector.load(Run("mvtec3d", "bagel", config).folder(paths) / "detector")
    test = open_dataset("mvtec3d", paths.processed("mvtec3d"), "bagel", "test", config)
    extractor = FeatureExtractor.from_config(config, paths.weights)
    samples = [next(one for one in test if one.label == label) for label in (0, 1)]
    made = [story.walk(detector.model.eval(), one, extractor.extract(one), config) for one in samples]
    return detector, made


def test_a_walk_ends_where_the_detector_ends(walks):
    detector, made = walks
    for one in made:
        found = detector.predict(one.sample)
        for ours, its in ((one.psi_rgb, found.psi_rgb), (one.psi_xyz, found.psi_xyz), (one.psi, found.psi)):
            np.testing.assert_allclose(ours, its, rtol=1e-3, atol=1e-4 * its.max())
        assert one.score == pytest.approx(found.score, rel=1e-3)
        assert one.product == pytest.approx(one.psi_rgb * one.psi_xyz)


def test_restored_features_take_the_colours_of_the_original_ones(walks):
    _, made = walks
    figure = story.plot_walks(made, {"e_rgb": "E2D", "hat_rgb": "Ê2D"}, "features", "GENERATED")
    assert len(figure.axes) == 6 and {"E2D", "Ê2D", "good", "defective"} <= set(words(figure).split())
    same = [story.Walk(**{**vars(one), "hat_rgb": one.e_rgb}) for one in made]
    for row in np.array(story.plot_walks(same, {"e_rgb": "E2D", "hat_rgb": "Ê2D"}, "", "").axes).reshape(2, 3):
        assert np.array_equal(row[1].get_images()[0].get_array(), row[2].get_images()[0].get_array())


def test_a_column_has_one_scale_for_all_rows(walks):
    _, made = walks
    columns = {"Ψ2D": [one.psi_rgb for one in made], "cells": [one.valid[0, 0].float().numpy() for one in made]}
    figure = story.plot_columns(made, columns, "scores", "GENERATED")
    pictures = np.array(figure.axes[:6]).reshape(2, 3)
    for column in pictures[:, 1:].T:
        assert len({axes.get_images()[0].get_clim() for axes in column}) == 1
    frames = story.plot_frames({"step 0": made[1], "trained": made[1]}, "learns", "GENERATED")
    assert "step 0" in words(frames) and png_bytes(frames)


def test_losses_of_versions_share_one_scale(walks):
    _, made = walks
    versions = {"E itself": made[0].e_rgb, "shifted": made[0].e_rgb + 1}
    values = {"E itself": {"one": 0.0, "two": 1.0}, "shifted": {"one": 4.0, "two": 0.5}}
    figure = story.plot_losses(made[0], versions, values, "losses", "GENERATED")
    pictures = [axes.get_images()[0] for axes in figure.axes[:2]]
    assert pictures[0].get_clim() == pictures[1].get_clim()
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes[2:]]
    assert widths == [[1.0, 0.0], [0.5, 1.0]]  # from the bottom up, each relative to the largest of its loss
    assert png_bytes(figure)


def test_the_place_is_marked_in_bold():
    for number, name in enumerate(story.STEPS):
        bold = [text.get_text() for text in story.plot_place(number).axes[0].texts if text.get_fontweight() == "bold"]
        assert bold == [name]


def test_paired_differences_are_black_where_they_count(smoke):
    from mafr.experiments.plan import all_runs
    from mafr.experiments.run_store import read_records

    config, paths = smoke
    frame = paired_table(read_records(all_runs(config, (3, 5)), paths), config, (3, 5)).frame
    few = frame[frame["Table"].str.startswith("III")].reset_index(drop=True)
    figure = plot_paired(few, "few", "GENERATED")
    assert len(figure.axes) == 4
    rows = few[few["Table"] == few["Table"][0]].assign(low=[0.1, -0.1, -0.3, 0.1], high=[0.2, 0.1, -0.2, 0.3])
    axes = plot_paired(rows, "one", "GENERATED").axes[0]
    colours = {line.get_color(): line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"}
    assert colours == {BLACK: [3, 1, 0], GREY: [2]}
