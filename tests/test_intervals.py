"""Intervals of image AUROCs and of paired differences, against simulation and plain resampling."""

import numpy as np
import pytest
from scipy.stats import norm

from mafr.errors import MetricError
from mafr.intervals import HIGHER, LOWER, SAME, Difference, auroc_interval, compare, share_interval, verdict
from mafr.metrics import image_auroc


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.3, 3.3])
def test_an_interval_holds_the_true_value_about_as_often_as_it_says(apart):
    rng, true, held = np.random.default_rng(0), norm.cdf(apart / np.sqrt(2)), 0
    good, bad = rng.normal(size=(1000, 20, 1)), rng.normal(size=(1000, 1, 20)) + apart
    for value in (bad > good).mean(axis=(1, 2)):
        low, high = auroc_interval(value, 20, 20)
        held += low <= true <= high
    assert 930 <= held <= 990  # a Wilson-like interval is a little wide near 1


def test_an_interval_stays_open_where_resampling_would_close_it():
    low, high = auroc_interval(1.0, 20, 20)
    assert high == 1.0 and 0.85 < low < 0.95
    assert auroc_interval(0.0, 20, 20) == pytest.approx((0.0, 1 - low))
    assert auroc_interval(1.0, 5, 5)[0] < low < auroc_interval(1.0, 80, 80)[0]
    wide, narrow = auroc_interval(0.8, 20, 20), auroc_interval(0.8, 20, 20, level=0.5)
    assert wide[0] < narrow[0] < 0.8 < narrow[1] < wide[1]
    # Symmetric: good and anomalous may change places.
    assert auroc_interval(0.3, 20, 30) == pytest.approx([1 - end for end in auroc_interval(0.7, 30, 20)][::-1])
    for wrong in ((1.2, 5, 5), (0.5, 0, 5), (0.5, 5, 0)):
        with pytest.raises(MetricError, match="an interval needs"):
            auroc_interval(*wrong)


def test_the_interval_of_a_share_is_wilson_s():
    z, n, p = 1.959964, 20, 0.2
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    assert share_interval(4, 20) == pytest.approx(ends, abs=1e-6)
    low, high = share_interval(0, 20)
    assert low == 0 and 0.1 < high < 0.2
    with pytest.raises(MetricError, match="a share needs"):
        share_interval(0, 0)


def _two_categories():
    rng = np.random.default_rng(3)
    labels = [np.repeat([0, 1], (12, 18)), np.repeat([1, 0], (9, 11))]
    first = [rng.normal(size=len(known)) + known for known in labels]
    second = [scores + 0.4 * known for scores, known in zip(first, labels, strict=True)]
    return labels, first, second


def test_paired_differences_agree_with_a_plain_bootstrap_and_share_the_draws():
    labels, first, second = _two_categories()
    gains = [image_auroc(k, b) - image_auroc(k, a) for k, a, b in zip(labels, first, second, strict=True)]
    found = compare(zip(labels, first, second, strict=True), 4000, 1)
    assert found.mean == pytest.approx(np.mean(gains)) and found.low < found.mean < found.high
    assert (found.ahead, found.behind) == (sum(g > 0 for g in gains), sum(g < 0 for g in gains))
    assert found == compare(zip(labels, first, second, strict=True), 4000, 1)
    rng, drawn = np.random.default_rng(4), []
    for _ in range(1500):
        parts = []
        for known, a, b in zip(labels, first, second, strict=True):
            chosen = np.concatenate([rng.choice(np.flatnonzero(known == c), (known == c).sum()) for c in (0, 1)])
            parts.append(image_auroc(known[chosen], b[chosen]) - image_auroc(known[chosen], a[chosen]))
        drawn.append(np.mean(parts))
    assert np.allclose([found.low, found.high], np.quantile(drawn, [0.025, 0.975]), atol=0.012)
    same = compare(zip(labels, first, first, strict=True), 50, 1)
    assert same == Difference(0.0, 0.0, 0.0, 0, 0) and same.verdict == SAME


def test_trainings_of_several_seeds_widen_the_interval_by_their_spread():
    labels, first, second = _two_categories()
    rng = np.random.default_rng(5)
    alike = [np.stack([scores] * 3) for scores in second]
    shifts = np.array([-0.8, 0.0, 0.8])[:, None]
    apart = [scores + shifts * known for scores, known in zip(second, labels, strict=True)]
    one, three, spread = (
        compare(zip(labels, first, scores, strict=True), 3000, 1) for scores in (second, alike, apart)
    )
    assert three.mean == pytest.approx(one.mean)
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.06)
    assert spread.high - spread.low > 1.1 * (one.high - one.low)
    # The spread of a mean of three trainings, as a plain calculation has it: no images are drawn from two far classes.
    known = np.repeat([0, 1], 400)
    good = rng.normal(size=400)
    trainings = np.stack([np.concatenate([good, rng.normal(size=400) + gain]) for gain in (0.5, 1.0, 1.5)])
    values = [image_auroc(known, scores) for scores in trainings]
    found = compare([(known, np.concatenate([good, good]), trainings)], 4000, 2)
    assert (found.high - found.low) / 3.92 == pytest.approx(np.std(values, ddof=1) / np.sqrt(3), rel=0.25)


def test_one_rule_says_what_is_level():
    assert [verdict(*ends) for ends in ((0.01, 0.2), (-0.2, -0.01), (-0.1, 0.1), (0.0, 0.1))] == [
        HIGHER, LOWER, SAME, SAME,
    ]  # fmt: skip
    assert verdict(float("nan"), float("nan")) == SAME


def test_errors_say_what_is_wrong():
    labels, scores = np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3])
    with pytest.raises(MetricError, match="resamples"):
        compare([(labels, scores, scores)], 0, 1)
    with pytest.raises(MetricError, match="same samples"):
        compare([(labels, scores, scores[:2])], 10, 1)
    with pytest.raises(MetricError, match="one class"):
        compare([(np.zeros(3, int), scores, scores)], 10, 1)
    with pytest.raises(MetricError, match="1 of 3 scores are NaN"):
        compare([(labels, scores, np.array([0.1, np.nan, 0.3]))], 10, 1)
    with pytest.raises(MetricError, match="no category"):
        compare([], 10, 1)
