"""Metrics against hand-solved cases, an independent threshold loop, scikit-learn and properties."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from mafr import metrics
from mafr.errors import MafrError, MetricError

# A row of 13 pixels. Regions: {0} and {3, 4}; of the ten others one ties with pixel 3 and two with pixel 4.
GT = np.zeros((1, 1, 13), dtype=bool)
GT[0, 0, [0, 3, 4]] = True
MAPS = np.full((1, 1, 13), 0.1)
MAPS[0, 0, [0, 3, 4]] = 0.9, 0.8, 0.5
MAPS[0, 0, [1, 2, 5, 6]] = 0.95, 0.8, 0.5, 0.5


def plain_curve(gt, maps):
    """(fpr, pro) at every distinct score, by a loop."""
    regions = []
    for image, scores in zip(gt, maps, strict=True):
        labels, count = ndimage.label(image, np.ones((3, 3)))
        regions += [scores[labels == k] for k in range(1, count + 1)]
    good = maps[~gt]
    x, y = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        x.append((good >= threshold).mean())
        y.append(np.mean([(region >= threshold).mean() for region in regions]))
    return np.array(x), np.array(y)


def plain_area(x, y, limit):
    """Trapezoids one by one, the last one cut at the limit."""
    area = 0.0
    for x0, x1, y0, y1 in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def plain_sampled_curve(gt, maps, count):
    """The released code's procedure as the facts describe it."""
    regions = []
    for image, scores in zip(gt, maps, strict=True):
        labels, found = ndimage.label(image, np.ones((3, 3)))
        regions += [scores[labels == k] for k in range(1, found + 1)]
    good = np.sort(maps[~gt])
    x, y = [1.0], [1.0]
    for position in np.floor(np.linspace(0, len(good) - 1, count)).astype(int):
        x.append(1 - (position + 1) / len(good))
        y.append(np.mean([(region > good[position]).mean() for region in regions]))
    return np.array(x[::-1]), np.array(y[::-1])


def random_case(seed, levels=None, shape=(3, 12, 10)):
    rng = np.random.default_rng(seed)
    gt = rng.random(shape) < 0.15
    gt[0, 0, 0], gt[0, 0, 1] = True, False
    maps = rng.random(shape) + 0.3 * gt
    maps[rng.random(shape) < 0.5] = 0  # as masking does
    if levels:
        maps = np.round(maps * levels) / levels
    return gt, maps


def test_au_pro_by_hand():
    # From the highest score down, (fpr, pro): 0.95 → (0.1, 0); 0.9 → (0.1, 0.5); 0.8 → (0.2, 0.75), a ramp,
    # as good and anomalous tie; 0.5 → (0.4, 1), a ramp; 0.1 → (1, 1).
    # To 0.3: 0.1·(0.5+0.75)/2 + 0.1·(0.75+0.875)/2 = 0.0625 + 0.08125 = 0.14375
    assert metrics.au_pro(GT, MAPS, 0.3) == pytest.approx(0.14375 / 0.3, abs=1e-12)
    # To 0.15, inside a ramp: 0.05·(0.5+0.625)/2 = 0.028125
    assert metrics.au_pro(GT, MAPS, 0.15) == pytest.approx(0.028125 / 0.15, abs=1e-12)
    # To 0.1, where the curve steps up: nothing
    assert metrics.au_pro(GT, MAPS, 0.1) == pytest.approx(0, abs=1e-12)
    # To 1: 0.0625 + 0.2·(0.75+1)/2 + 0.6 = 0.8375
    assert metrics.au_pro(GT, MAPS, 1.0) == pytest.approx(0.8375, abs=1e-12)


def test_au_pro_with_few_thresholds_by_hand():
    # Sorted good scores: six 0.1, two 0.5, 0.8, 0.95. Positions 0, 4, 9: thresholds 0.1, 0.1, 0.95 with
    # (fpr, pro) (0.9, 1), (0.5, 1), (0, 0). At 0.3 the line from (0, 0) to (0.5, 1) is at 0.6: 0.3·0.6/2.
    assert metrics.au_pro(GT, MAPS, 0.3, num_thresholds=3) == pytest.approx(0.3, abs=1e-12)
    # All ten positions: (0, 0), (0.1, 0.5), (0.2, 0.75), (0.3, 0.75): 0.025 + 0.0625 + 0.075 = 0.1625
    assert metrics.au_pro(GT, MAPS, 0.3, num_thresholds=10) == pytest.approx(0.1625 / 0.3, abs=1e-12)


def test_pixel_auroc_by_hand():
    # Good scores below each anomalous one, ties one half: 9 + (8 + 0.5) + (6 + 1) of 3·10 pairs.
    assert metrics.pixel_auroc(GT, MAPS) == 24.5 / 30


def test_image_auroc_by_hand():
    # Pairs won: 0.8 beats both, 0.5 beats 0.2 and ties with 0.5.
    assert metrics.image_auroc([0, 1, 0, 1], np.array([0.2, 0.8, 0.5, 0.5])) == 3.5 / 4


def test_diagonal_neighbours_are_one_region_and_images_are_apart():
    gt = np.zeros((2, 3, 3), dtype=bool)
    gt[0, 0, 0] = gt[0, 1, 1] = gt[0, 2, 0] = True  # one region of three
    gt[1, 0, 0] = True  # the same place in the next image: another region
    maps = np.zeros((2, 3, 3))
    maps[0, 0, 0] = 1.0
    # Every good score ties with the others at 0: the curve is a line from (0, 1/3/2) to (1, 1).
    start = 1 / 6
    assert metrics.au_pro(gt, maps, 0.5) == pytest.approx(start + (1 - start) * 0.25, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 20, 3])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3, 1.0])
def test_au_pro_equals_threshold_loops(seed, levels, limit):
    gt, maps = random_case(seed, levels)
    expected = plain_area(*plain_curve(gt, maps), limit)
    assert metrics.au_pro(gt, maps, limit) == pytest.approx(expected, abs=1e-12)
    for count in (2, 7, 99, 1000):
        expected = plain_area(*plain_sampled_curve(gt, maps, count), limit)
        assert metrics.au_pro(gt, maps, limit, count) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("levels", [None, 5])
def test_auroc_equals_scikit_learn(dtype, levels):
    gt, maps = random_case(11, levels)
    maps = maps.astype(dtype)
    expected = roc_auc_score(gt.ravel(), maps.ravel())
    assert metrics.pixel_auroc(gt, maps) == pytest.approx(expected, abs=1e-12)
    assert metrics.image_auroc(gt.ravel(), maps.ravel()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 5])
def test_evaluate_equals_the_single_functions(levels):
    gt, maps = random_case(5, levels)
    values = metrics.evaluate(gt, maps)
    assert tuple(values) == metrics.metric_names()
    assert tuple(values) == (
        "p_auroc", "aupro_30", "aupro_10", "aupro_05", "aupro_01",
        "aupro99_30", "aupro99_10", "aupro99_05", "aupro99_01",
    )  # fmt: skip
    assert values["p_auroc"] == metrics.pixel_auroc(gt, maps)
    for limit, name in zip((0.3, 0.1, 0.05, 0.01), ("30", "10", "05", "01"), strict=True):
        assert values[f"aupro_{name}"] == metrics.au_pro(gt, maps, limit)
        assert values[f"aupro99_{name}"] == metrics.au_pro(gt, maps, limit, 99)


def test_evaluate_with_maps_of_their_own_for_the_auroc():
    gt, maps = random_case(6)
    other = maps[:, ::-1]
    values = metrics.evaluate(gt, maps, auroc_maps=other)
    assert values["p_auroc"] == metrics.pixel_auroc(gt, other) != metrics.pixel_auroc(gt, maps)
    assert values["aupro_30"] == metrics.au_pro(gt, maps)


def test_infinite_scores_are_the_highest():
    gt, maps = random_case(7)
    top = np.where(maps >= np.quantile(maps, 0.9), np.inf, maps)
    finite = np.where(np.isinf(top), 99.0, top)
    assert metrics.evaluate(gt, top) == metrics.evaluate(gt, finite)


def test_one_false_positive_pixel_at_one_percent():
    # A perfect detector but for one good pixel on top. With 99 thresholds the curve rises from (0, 0) to
    # (0.0102, 1), so the first per cent is a triangle: 0.490; with 5,000 the triangle ends at 0.0002: 0.990.
    gt = np.zeros((20, 100, 100), dtype=bool)
    gt[:, 40:50, 40:50] = True
    maps = np.random.default_rng(0).random(gt.shape) + 2.0 * gt
    maps[0, 0, 0] = 9.0
    assert metrics.au_pro(gt, maps, 0.01, 99) == pytest.approx(0.490, abs=0.0005)
    assert metrics.au_pro(gt, maps, 0.01, 5000) == pytest.approx(0.990, abs=0.0005)
    assert metrics.au_pro(gt, maps, 0.01) == pytest.approx(1 - 1 / (0.01 * (~gt).sum()), abs=1e-9)


def test_curves_are_the_exact_ones_and_thin_ones_lie_on_them():
    gt, maps = random_case(8, levels=40)
    x, y = plain_curve(gt, maps)
    fpr, pro = metrics.pro_curve(gt, maps)
    assert plain_area(fpr, pro, 0.3) == pytest.approx(plain_area(x, y, 0.3), abs=1e-12)
    fpr, tpr = metrics.roc_curve(gt, maps)
    assert plain_area(fpr, tpr, 1.0) == pytest.approx(roc_auc_score(gt.ravel(), maps.ravel()), abs=1e-12)

    gt, maps = random_case(9, shape=(4, 60, 60))
    full_x, full_y = metrics.pro_curve(gt, maps, points=10**6)
    thin_x, thin_y = metrics.pro_curve(gt, maps, points=100)
    assert len(full_x) > 1000 and len(thin_x) <= 102
    assert (thin_x[0], thin_y[0], thin_x[-1], thin_y[-1]) == (0, 0, 1, 1)
    assert {*zip(thin_x, thin_y, strict=True)} <= {*zip(full_x, full_y, strict=True)}
    assert (np.diff(thin_x) >= 0).all() and (np.diff(thin_y) >= 0).all()
    assert plain_area(thin_x, thin_y, 1.0) == pytest.approx(plain_area(full_x, full_y, 1.0), abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 2, 10]))
def test_properties(seed, levels):
    gt, maps = random_case(seed, levels, shape=(2, 6, 7))
    values = metrics.evaluate(gt, maps)
    assert all(0 <= value <= 1 for value in values.values())
    # Only the order counts. Whole numbers, so that the increasing function is exact and makes no new ties.
    whole = np.round(maps * 1000)
    assert metrics.evaluate(gt, whole) == metrics.evaluate(gt, 3 * whole**3 + whole)
    assert metrics.pixel_auroc(gt, whole) + metrics.pixel_auroc(gt, -whole) == pytest.approx(1, abs=1e-15)
    perfect = metrics.evaluate(gt, maps + 9 * gt)
    for name, value in perfect.items():
        # Exact metrics are 1; at 99 thresholds the highest good score is a threshold too, and 1 as well.
        assert value == pytest.approx(1, abs=1e-12), name


def test_errors_say_what_is_wrong():
    scores = np.array([0.1, 0.2, 0.3])
    with pytest.raises(MetricError, match="only one class is present: all 3 samples are anomaly-free"):
        metrics.image_auroc(np.zeros(3, int), scores)
    with pytest.raises(MetricError, match="all 3 samples are anomalous"):
        metrics.image_auroc(np.ones(3, int), scores)
    with pytest.raises(MetricError, match="1 of 3 samples have the score NaN"):
        metrics.image_auroc([0, 1, 1], np.array([0.1, np.nan, 0.3]))
    with pytest.raises(MetricError, match="equal lengths"):
        metrics.image_auroc([0, 1], scores)
    with pytest.raises(MetricError, match="labels must be 0"):
        metrics.image_auroc([0, 1, 2], scores)
    for function in (metrics.pixel_auroc, metrics.au_pro, metrics.evaluate, metrics.pro_curve):
        with pytest.raises(MetricError, match="must have the same shape"):
            function(GT, MAPS[:, :, 1:])
        with pytest.raises(MetricError, match="only one class"):
            function(np.zeros_like(GT), MAPS)
        with pytest.raises(MetricError, match="NaN"):
            function(GT, np.where(GT, np.nan, MAPS))
    with pytest.raises(MetricError, match="limit"):
        metrics.au_pro(GT, MAPS, 0.0)
    with pytest.raises(MetricError, match="num_thresholds"):
        metrics.au_pro(GT, MAPS, 0.3, num_thresholds=1)
    assert issubclass(MetricError, MafrError)


def test_inputs_stay_as_they_are():
    gt, maps = random_case(2)
    kept_gt, kept_maps = gt.copy(), maps.copy()
    metrics.evaluate(gt, maps)
    metrics.pro_curve(gt, maps)
    assert (gt == kept_gt).all() and (maps == kept_maps).all()


def test_forty_maps_in_a_quarter_of_a_second():
    gt = np.zeros((40, 224, 224), dtype=bool)
    gt[:30, 100:130, 90:120] = True
    maps = np.random.default_rng(0).random(gt.shape, dtype=np.float32)
    maps[:, :, :112] = 0
    times = []
    for _ in range(3):
        start = time.process_time()  # this process's own, its threads' included
        metrics.evaluate(gt, maps)
        times.append(time.process_time() - start)
    assert min(times) < 0.25


def test_the_exact_metrics_of_1200_maps_in_five_seconds():
    rng = np.random.default_rng(0)
    maps = rng.random((1200, 224, 224), dtype=np.float32)
    gt = np.zeros(maps.shape, dtype=bool)
    for k, (top, left) in enumerate(rng.integers(0, 160, size=(600, 2))):
        gt[k, top : top + 30, left : left + 40] = True
    maps[gt] += 0.4
    start = time.process_time()  # this process's own, its threads' included
    metrics.evaluate(gt, maps)  # pixel AUROC and AUPRO at four limits, exact and by 99 thresholds
    assert time.process_time() - start < 5
