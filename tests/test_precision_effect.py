"""What bfloat16 changes in a trained detector's results stays within the stated bounds."""

import pytest

from mafr.device import native_bfloat16
from mafr.precision_effect import PIXEL_METRICS, precision_effect, report


@pytest.mark.skipif(not native_bfloat16("cpu"), reason="this processor has no bfloat16 products")
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
    text = report(effects)
    assert "trained: largest" in text
    assert "bagel" in text
