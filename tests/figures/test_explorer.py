"""The heatmap explorer: its computation without a front end, and its widgets driven from code."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest

from mafr.config import Config
from mafr.errors import ResultError
from mafr.experiments.plan import Run
from mafr.experiments.results import colour_range
from mafr.experiments.run_store import load_maps
from mafr.figures.explorer import Explorer
from mafr.figures.view import MAX_POINTS, cloud_figure, cloud_points, explore, plot_view, region_overlap, summary
from mafr.paths import Paths


@pytest.fixture
def explorer(stored):
    return Explorer(*stored)


def look(result, index, rate=0.01):
    return explore(result, index, result.maps, result.scores, rate)


def test_threshold_leaves_the_asked_share_of_good_pixels_above(result):
    view = look(result, 0, rate=0.05)
    good = result.labels == 0
    above = result.maps[good][result.mask[good]] > view.threshold
    assert above.mean() == pytest.approx(0.05, abs=1e-3)
    assert np.array_equal(view.detected, result.maps[0] > view.threshold)


def test_agreement_with_the_ground_truth_by_counting(result):
    k = result.median_defective()
    view = look(result, k)
    gt, found = result.gt[k], view.detected
    assert gt.any() and found.any()
    assert view.iou == pytest.approx((gt & found).sum() / (gt | found).sum())
    assert view.overlap == pytest.approx((gt & found).sum() / gt.sum())  # a single region
    normal = result.mask[k] & ~gt
    assert view.false_positives == pytest.approx(found[normal].mean())


def test_region_overlap_weighs_regions_equally():
    gt = np.zeros((8, 8), dtype=bool)
    gt[:2, :2], gt[4:, 4:] = True, True  # 4 and 16 pixels
    detected = np.zeros_like(gt)
    detected[:2, :2] = True
    assert region_overlap(gt, detected) == pytest.approx(0.5)
    diagonal = np.eye(8, dtype=bool)  # 8-connected: one region
    assert region_overlap(diagonal, np.arange(64).reshape(8, 8) < 32) == pytest.approx(0.5)


def test_good_sample_has_no_overlap_and_is_not_compared_with_itself(result):
    best = int(np.argmax(np.where(result.labels == 0, result.scores, -np.inf)))
    view = look(result, best)
    assert view.iou is None and view.overlap is None
    assert view.above_good == 1.0
    assert "IoU" not in summary(view)


def test_summary_names_the_numbers(result):
    view = look(result, result.median_defective())
    text = summary(view)
    assert f"{view.iou:.3f}" in text and f"{view.score:.4g}" in text and view.sample.defect in text


@pytest.mark.parametrize("rate", [0, 1, -0.1])
def test_rate_out_of_range(result, rate):
    with pytest.raises(ValueError, match="rate"):
        look(result, 0, rate)


def test_cloud_points_are_few_the_same_and_face_the_viewer(result):
    view = look(result, 0)
    points, rgb, heat = cloud_points(view, 500)
    again = cloud_points(view, 500)
    assert 300 < len(points) == len(rgb) == len(heat) <= 500
    assert all(np.array_equal(a, b) for a, b in zip((points, rgb, heat), again, strict=True))
    everything, *_ = cloud_points(view)
    assert len(everything) == min(MAX_POINTS, view.sample.valid.sum())
    # In row order: the first points are the image's upper rows, so they are high in y; right is large x.
    assert everything[0, 1] > everything[-1, 1]
    # The image's mm, as the fake samples have them: x in steps of a pixel's millimetre.
    assert np.ptp(everything[:, 0]) == pytest.approx(np.ptp(np.nonzero(view.sample.valid[0])[1]), abs=1e-3)


def test_cloud_figure_is_small_and_switches_colours_without_a_kernel(result):
    view = look(result, 0)
    figure = cloud_figure(view)
    assert isinstance(figure, go.Figure) and not isinstance(figure, go.FigureWidget)
    assert [trace.visible for trace in figure.data] == [True, False]
    shown = [button.args[1] for button in figure.layout.updatemenus[0].buttons]
    assert [list(s) for s in shown] == [[True, False], [False, True]]
    content = figure.to_json()
    assert len(content) < 400_000
    assert json.loads(content)["layout"]["scene"]["xaxis"]["title"]["text"] == "x / mm"


def test_plot_view_draws_maps_and_clouds(result):
    view = look(result, result.median_defective())
    assert len(plot_view(view).axes) == 8
    assert len(plot_view(view, clouds=True).axes) == 10


# ----------------------------------------------------------------- widgets


def test_explorer_starts_with_the_sample_of_figure_2(explorer, result):
    assert explorer.category.value == "bagel"
    assert explorer.sample.value == result.median_defective()
    assert bytes(explorer.image.value).startswith(b"\x89PNG")
    assert np.allclose(explorer.view().psi, result.maps[result.median_defective()], rtol=1e-5, atol=1e-6)


def test_choosing_goes_from_data_set_to_sample(explorer):
    explorer.dataset.value = "eyecandies"
    assert explorer.category.value == "CandyCane"
    explorer.category.value = "Lollipop"
    explorer.defect.value = "good"
    sample = explorer.view().sample
    assert (sample.category, sample.defect, sample.label) == ("Lollipop", "good", 0)
    explorer.sample.value = explorer.sample.options[-1][1]
    assert explorer.view().sample.id == explorer.sample.options[-1][0]


@pytest.mark.parametrize(("control", "value"), [("fusion", "max"), ("blur", "none"), ("sigma", 9.0), ("rate", 0.2)])
def test_scoring_controls_change_what_is_shown(explorer, control, value):
    before, picture = explorer.view(), explorer.image.value
    getattr(explorer, control).value = value
    after = explorer.view()
    assert not np.array_equal(before.detected, after.detected)
    assert explorer.image.value != picture


def test_opacity_changes_the_picture_only(explorer):
    before, picture = explorer.view(), explorer.image.value
    explorer.opacity.value = 0.1
    assert np.array_equal(before.psi, explorer.view().psi)
    assert explorer.image.value != picture


def test_sigma_is_for_the_gaussian_only(explorer):
    explorer.blur.value = "box (released code)"
    assert explorer.sigma.disabled
    box = explorer.view().psi
    assert not explorer.clouds.children  # plotly's widget is not made before it is asked for
    explorer.blur.value = "Gaussian"
    assert not explorer.sigma.disabled
    assert not np.array_equal(box, explorer.view().psi)


def test_cloud_widget_appears_on_request_and_follows_the_choice(explorer):
    explorer.show_cloud.click()
    (first,) = explorer.clouds.children
    assert isinstance(first, go.FigureWidget)
    explorer.defect.value = "good"
    (second,) = explorer.clouds.children
    assert "test/good" in second.layout.title.text


def test_static_picture_carries_the_stamp(explorer):
    texts = " ".join(t.get_text() for t in explorer.static().texts)
    assert "GENERATED DATA" in texts and "smoke profile" in texts


def test_explorer_of_the_released_variant(stored):
    config, paths = stored
    explorer = Explorer(config.with_variant("released"), paths)
    assert explorer.blur.value == "box (released code)"
    assert explorer.result().record["variant"] == "released"


def test_nothing_to_explore_names_the_command(tmp_path):
    with pytest.raises(ResultError, match="mafr run --profile smoke --variant paper"):
        Explorer(Config.preset("smoke"), Paths.resolve("smoke", root=tmp_path))


def test_another_methods_map_stands_beside(explorer, stored):
    config, paths = stored
    assert [value for _, value in explorer.method.options] == [None, "btf", "cfm"]  # as far as run
    before = explorer.image.value
    explorer.method.value = "cfm"
    assert explorer.image.value != before
    other = explorer._compared()
    maps = load_maps(Run("mvtec3d", explorer.category.value, config, method="cfm"), paths).astype(np.float32)
    assert other.title == "CFM" and np.array_equal(other.psi, maps[explorer.sample.value])
    assert other.limits == colour_range(maps, explorer.result().mask, explorer.result().labels)
    explorer.dataset.value = "eyecandies"  # where BTF was not run
    assert [value for _, value in explorer.method.options] == [None, "cfm"]
