"""The effect of bfloat16 on a trained detector's results stays within the stated bounds."""

import json

import pytest
import torch

from mafr.bench.emulation import emulated_bfloat16
from mafr.bench.precision import PIXEL_METRICS, as_json, precision_effect, report
from mafr.config import Config
from mafr.device import Place, native_bfloat16
from mafr.errors import ConfigError


def test_bfloat16_changes_hardly_anything(smoke):
    config, paths = smoke
    effects = precision_effect(config, paths, ("paper", "released"), train=True)
    assert {(e.category, e.variant) for e in effects} == {
        (category, variant) for category in config.categories("mvtec3d") for variant in ("paper", "released")
    }
    for effect in effects:
        assert abs(effect.pairs) <= 2, effect
        assert all(abs(effect.scored[name]) <= 0.002 for name in PIXEL_METRICS), effect
    assert any(effect.scored[name] != 0 for effect in effects for name in PIXEL_METRICS)  # it was bfloat16
    text = report(config, effects)
    assert "largest of paper/released, bfloat16 in training and scoring" in text
    assert "bagel" in text
    kept = as_json(config, effects)
    assert [(row["statistic"], row["variant"]) for row in kept["summary"]] == 2 * [
        ("mean", "paper"), ("mean", "released"), ("largest", "paper/released"),
    ]  # fmt: skip
    largest = max(abs(effect.trained["i_auroc"]) for effect in effects)
    assert kept["summary"][-1]["i_auroc"] == largest and json.loads(json.dumps(kept)) == kept


def _rounded(exact):
    return exact.bfloat16()


def test_emulated_products_are_sums_in_float32_rounded_once():
    g = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*shape, generator=g).bfloat16() for shape in ((50, 300), (40, 300), (40,)))
    exact = x.float() @ w.float().T + b.float()
    with emulated_bfloat16():
        out = torch.empty(50, 40, dtype=torch.bfloat16)
        torch.mm(x, w.T, out=out)
        found = [torch.nn.functional.linear(x, w, b), out + 0]
        with torch.inference_mode():
            found += [torch.nn.functional.linear(x, w, b), x @ w.T]
        leaf = w.float().requires_grad_()
        torch.nn.functional.linear(x, leaf.to(torch.bfloat16), b).float().sum().backward()
    torch.testing.assert_close(found[0], _rounded(exact), rtol=2**-8, atol=0)
    torch.testing.assert_close(found[1], _rounded(x.float() @ w.float().T), rtol=2**-8, atol=0)
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    torch.testing.assert_close(leaf.grad, x.float().sum(0).expand(40, 300), rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(native_bfloat16("cpu"), reason="this processor has bfloat16 products")
def test_bfloat16_is_taken_inside_the_emulation_only():
    config = Config.preset("smoke", overrides={"precision": "bfloat16"})
    with emulated_bfloat16():
        assert Place.of(config).half
    with pytest.raises(ConfigError, match="natively"):
        Place.of(config)


@pytest.mark.skipif(not native_bfloat16("cpu"), reason="this processor has no bfloat16 products")
def test_the_emulation_agrees_with_the_processor():
    x, w = (torch.randn(64, 200, generator=torch.Generator().manual_seed(k)).bfloat16() for k in (1, 2))
    native = torch.nn.functional.linear(x, w)
    with emulated_bfloat16():
        torch.testing.assert_close(torch.nn.functional.linear(x, w), native, rtol=2**-7, atol=1e-2)
