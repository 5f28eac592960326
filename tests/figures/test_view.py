"""One sample under some scoring settings: threshold, agreement with the ground truth, cloud and picture."""

import numpy as np
import pytest

from mafr.figures.view import MAX_POINTS, cloud_points, explore, plot_view, region_overlap, summary


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


def test_plot_view_draws_maps_and_clouds(result):
    view = look(result, result.median_defective())
    assert len(plot_view(view).axes) == 8
    assert len(plot_view(view, clouds=True).axes) == 10
