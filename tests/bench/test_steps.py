"""One training step, timed: the three ways are the same step, and its products are counted rightly."""

import pytest
import torch

from mafr.bench.steps import StepRow, _Products, as_json, mafr_steps, report, step_times
from mafr.bench.work import make_sample
from mafr.config import Config
from mafr.features.extract import FeatureExtractor

CONFIG = Config.preset("smoke", overrides={"random_weights": True, "threads": 1, "device": "cpu"})


def weights_after(way, monkeypatch):
    """What a way's optimiser holds after two steps."""
    kept = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: (step(self), kept.append(self))[0])
    for _ in range(2):
        way()
    parameters = [p for group in kept[-1].param_groups for p in group["params"]]
    return torch.cat([p.detach().flatten() for p in parameters])


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_three_ways_train_the_same_weights(variant, monkeypatch):
    config = Config.preset("smoke", variant, overrides={"random_weights": True, "dropout": 0.0, "device": "cpu"})
    tokens = FeatureExtractor.from_config(config, random_weights=True).extract(make_sample(config, 0.4))
    case = mafr_steps(config, tokens)
    plain, general, product = (weights_after(way, monkeypatch) for way in (case.plain, case.general, case.product))
    # Adam's first steps are one learning rate per weight, whose sign is lost where a gradient is rounding alone.
    near = (general - product).abs() < 0.1 * config.learning_rate
    assert near.float().mean() > 0.99
    assert abs(plain.norm() - product.norm()) < 1e-3 * plain.norm()


def test_products_are_counted_and_run_again():
    x, y = torch.randn(5, 7), torch.randn(7, 3)
    with _Products() as products:
        torch.addmm(torch.zeros(3), x, y)
        torch.randn(5, 3).addmm_(x, y)
        torch.nn.functional.conv2d(torch.randn(2, 4, 6, 6), torch.randn(8, 4, 3, 3))
    assert products.flop == 2 * 2 * 5 * 7 * 3 + 2 * 2 * 8 * 4 * 9 * 16
    assert len(products.calls) == 3
    for call, wanted in zip(products.calls[:2], (x @ y, x @ y), strict=True):
        torch.testing.assert_close(call(), wanted)


def test_the_command_measures_every_method():
    machine, rows = step_times(CONFIG, 0.5, repeats=1)
    assert [row.method for row in rows][:3] == ["MAFR, paper", "MAFR, released", "MAFR, paper, without attention"]
    for row in rows:
        assert min(row.floor_ms, row.product_ms, row.general_ms, row.plain_ms, row.gflop) > 0
    text = report(machine, rows)
    assert all(row.method in text for row in rows)
    row = StepRow("MAFR, paper", 9.0, 6.0, 3.0, 1.5, 0.4)
    kept = as_json(CONFIG, machine, [row])
    assert kept["steps"][0]["over_floor"] == 2 and kept["kind"] == "steps"
    assert report(machine, [row]).splitlines()[-1].split()[-3:] == ["2.0", "3.0", "0.40"]
