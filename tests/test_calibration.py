"""What a threshold promises: the interval against known values and draws, the warning, saved and older detectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binomtest
from support.samples import config_of, make_sample

from mafr.baselines.mvtec_benchmark import DepthVM
from mafr.calibration import LEVEL, SHOWN, FalseAlarms, score_lines
from mafr.data.samples import Sample
from mafr.errors import MafrError, WeightsError
from mafr.method import score_threshold


@pytest.mark.parametrize(("count", "quantile"), [(1, 0.95), (2, 0.5), (10, 0.95), (21, 0.95), (40, 0.9), (300, 0.99)])
def test_the_interval_is_clopper_and_pearsons_for_the_scores_above_the_threshold(count: int, quantile: float) -> None:
    scores = np.random.default_rng(count).random(count)
    above = int((scores > score_threshold(scores, quantile)).sum())
    exact = binomtest(above, count).proportion_ci(LEVEL, method="exact")
    promised = FalseAlarms.of(count, quantile)
    assert (promised.low, promised.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert promised.low < promised.expected < promised.high


def test_ten_scores_by_hand() -> None:
    promised = FalseAlarms.of(10, 0.95)  # the threshold lies between the 9th and the 10th
    assert promised.expected == pytest.approx((10 - 8.55) / 11)
    assert promised.low == pytest.approx(beta.ppf(0.025, 1, 10))
    assert promised.high == pytest.approx(beta.ppf(0.975, 2, 9))
    assert str(promised).startswith("13%, 95% interval 0.25% to 45% (distribution-free")
    highest = FalseAlarms.of(10, 1.0)
    assert (highest.low, highest.expected) == (0.0, pytest.approx(1 / 11))
    assert highest.high == pytest.approx(1 - 0.025 ** (1 / 10)) and highest.warning == ""


@pytest.mark.parametrize("shape", [0.3, 1.0, 4.0])  # skewed to the right, even, skewed to the left
def test_the_rate_lies_in_the_interval_as_often_as_it_says_whatever_the_distribution(shape: float) -> None:
    count, quantile, times = 25, 0.9, 4000
    draws = np.random.default_rng(0).random((times, count)) ** (1 / shape)
    rates = 1 - np.quantile(draws, quantile, axis=1) ** shape  # of new parts with the same distribution
    promised = FalseAlarms.of(count, quantile)
    assert ((promised.low <= rates) & (rates <= promised.high)).mean() >= LEVEL
    order = np.sort(draws, axis=1)
    bounds = [1 - (order[:, k] ** shape).mean() for k in (22, 21)]  # h = 21.6 lies between these, counted from 0
    assert bounds[0] - 0.005 < promised.expected < bounds[1] + 0.005
    if shape == 1:
        assert rates.mean() == pytest.approx(promised.expected, abs=0.003)


def test_too_few_parts_are_said_with_the_number_that_would_do() -> None:
    warning = FalseAlarms.of(8, 0.95).warning
    assert warning.startswith("8 good validation parts are too few to set a threshold for 5% false alarms: even the ")
    assert "exceeded by 1 in 9 new good parts. At least 19 would do" in warning
    assert "with 200 the interval ends below 10%" in warning
    assert FalseAlarms.of(1, 0.9).warning.startswith("1 good validation part is too few")
    assert FalseAlarms.of(18, 0.95).warning and not FalseAlarms.of(19, 0.95).warning
    assert FalseAlarms.of(8, 0.9).warning and not FalseAlarms.of(9, 0.9).warning
    for wanted in (0.2, 0.1, 0.05, 0.01, 0.001):  # the second number keeps what it says
        many = round(10 / wanted)
        assert f"with {many} the" in FalseAlarms.of(1, 1 - wanted).warning
        assert all(FalseAlarms.of(many + k, 1 - wanted).high < 2 * wanted for k in range(50))


def test_scores_are_listed_from_the_highest_down() -> None:
    assert score_lines([0.1, 0.25, 0.2], 0.22) == "  0.25* 0.2 0.1"
    lines = score_lines(np.arange(100) / 100, 0.95).splitlines()
    assert all(len(line) <= 100 for line in lines)
    words = " ".join(lines).replace("(76 more)", "…").split()
    assert words[:5] == ["0.99*", "0.98*", "0.97*", "0.96*", "0.95"]
    assert words[-5:] == ["…", "0.03", "0.02", "0.01", "0"]
    assert len(words) == SHOWN + 1


def fitted() -> tuple[DepthVM, list[Sample]]:
    """A detector that needs no backbones, and good validation samples."""
    samples = [make_sample(seed) for seed in range(0, 16, 2)]
    return DepthVM(config_of("paper")).fit(samples[:4], show=False), samples[4:]


def test_a_saved_detector_keeps_its_validation_scores_and_older_ones_load(tmp_path: Path) -> None:
    detector, validation = fitted()
    assert detector.false_alarms is None
    threshold = detector.calibrate(validation)
    scores = [detector.predict(sample).score for sample in validation]
    assert detector.validation_scores == scores and threshold == score_threshold(scores, 0.95)
    again = DepthVM.load(detector.save(tmp_path / "new"))
    assert (again.validation_scores, again.threshold) == (scores, threshold)
    assert again.false_alarms == detector.false_alarms == FalseAlarms.of(len(scores), 0.95)
    record = json.loads((tmp_path / "new" / "detector.json").read_text())
    promised = detector.false_alarms
    assert record["false_alarms"]["interval"] == [promised.low, promised.high]
    assert record["false_alarms"]["expected"] == promised.expected and "Clopper" in record["false_alarms"]["source"]
    del record["validation_scores"], record["false_alarms"]
    (tmp_path / "new" / "detector.json").write_text(json.dumps(record))
    older = DepthVM.load(tmp_path / "new")
    assert (older.validation_scores, older.false_alarms, older.threshold) == ([], None, threshold)
    for wrong in (None, ["high"], 3):
        (tmp_path / "new" / "detector.json").write_text(json.dumps(record | {"validation_scores": wrong}))
        with pytest.raises(WeightsError, match="save the detector again"):
            DepthVM.load(tmp_path / "new")
    nan, huge = float("nan"), 10**400
    for wrong in ({"threshold": nan}, {"threshold": huge}, {"validation_scores": [1.0, float("inf")]}):
        (tmp_path / "new" / "detector.json").write_text(json.dumps(record | wrong))
        with pytest.raises(WeightsError, match=r"detector\.json .*; save the detector again"):
            DepthVM.load(tmp_path / "new")


def test_no_good_validation_sample_is_an_error() -> None:
    detector, _ = fitted()
    with pytest.raises(MafrError, match="at least one good validation sample"):
        detector.calibrate([])
