"""The benchmark compares like with like, counts arithmetic rightly and prints what it measured."""

import dataclasses

import numpy as np
import pytest
import torch

from mafr.bench import work as bench_work
from mafr.bench.bench import STAGES, Row, as_json, bench, report
from mafr.bench.plain import plain_metrics
from mafr.bench.work import Case, difference, make_maps, make_sample
from mafr.config import Config
from mafr.metrics import evaluate

CONFIG = Config.preset("smoke", overrides={"random_weights": True, "threads": 1})


@pytest.mark.parametrize("share", [0.25, 0.6, 1.0])
def test_the_sample_has_the_share_of_valid_pixels(share):
    sample = make_sample(CONFIG, share)
    assert sample.valid.mean() == pytest.approx(share, abs=1e-4)
    assert np.array_equal(sample.xyz, make_sample(CONFIG, share).xyz)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_both_paths_make_the_same_map(variant, tmp_path):
    case = Case(CONFIG.with_variant(variant), 0.5, tmp_path / "tokens.pt")
    works = {kind: bench_work._Work(kind, case) for kind in ("sample", "tokens", "plain")}
    plain = works["plain"].run("inference").result
    for kind, stage in (("sample", "sample to map"), ("tokens", "inference from tokens")):
        assert difference(works[kind].run(stage).result, plain) < 5e-3  # tokens are kept in half precision
    for kind, work in works.items():
        for stage in work.stages:
            assert work.run(stage).seconds > 0, (kind, stage)


def test_plain_metrics_are_the_metrics():
    gt, maps = make_maps(dataclasses.replace(CONFIG, image_size=56), seed=1)
    ours = evaluate(gt, maps)
    for name, value in plain_metrics(gt, maps).items():
        assert value == pytest.approx(ours[name], rel=1e-9), name


def test_arithmetic_is_counted_also_in_place():
    left, right, total = torch.ones(3, 4), torch.ones(4, 5), torch.zeros(3, 5)
    with bench_work._Operations() as counter, torch.no_grad():
        total.addmm_(left, right)
        torch.mm(left, right, out=total)
    assert counter.total == 2 * (2 * 3 * 4 * 5)


def test_arithmetic_is_counted_also_without_gradients():
    layer, x = torch.nn.Linear(30, 20), torch.randn(10, 30)
    for mode in (torch.enable_grad, torch.inference_mode):
        with bench_work._Operations() as counter, mode():
            layer(x)
        assert counter.total == 2 * 10 * 20 * 30
        q, k, v = torch.randn(3, 1, 4, 50, 16)  # one product with the keys, one with the values
        with bench_work._Operations() as counter, mode():
            torch.nn.functional.scaled_dot_product_attention(q, k, v)
        assert counter.total == 2 * (2 * 4 * 50 * 50 * 16)


def test_the_command_measures_pairs(capsys):
    machine, rows = bench(CONFIG, ("paper",), (0.5,), ("training step", "metrics"), repeats=1)
    assert [row.stage for row in rows] == ["training step", "metrics"]
    assert all(row.plain_s > 0 and row.product_s > 0 for row in rows)
    # Memory has a meaning in the command's own processes alone: here other tests' is given back meanwhile.
    assert all(row.plain_mb > 0 and row.product_mb > 0 for row in rows)
    assert rows[0].product_gflop > 0
    text = report(machine, rows)
    assert "training step" in text and machine["device"] in text
    assert machine["why"] in text and all(name in text for name in machine["instruction_sets"])
    assert as_json(CONFIG, machine, rows)["rows"][0]["ratio"] == pytest.approx(rows[0].plain_s / rows[0].product_s)


def test_a_missing_map_shows_no_difference():
    row = Row("paper", 0.25, next(iter(STAGES)), 2.0, 1.0, 10.0, 5.0, 3.0, 0.1, float("nan"))
    machine = {"device": "d", "threads": 1, "precision": "float32", "gflops": 1.0, "gflops_float32": 1.0}
    machine |= {"why": "float32, as set", "instruction_sets": []}
    assert report(machine, [row]).splitlines()[-1].rstrip().endswith("0.100")
    kept = as_json(CONFIG, machine, [row])
    assert kept["rows"][0]["difference"] is None and kept["kind"] == "speed" and len(kept["date"]) == 10
