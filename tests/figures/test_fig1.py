"""Fig. 1: its numbers are the settings'."""

from dataclasses import replace

import pytest
from support.fake_results import words

from mafr.config import CALIBRATED, FUSIONS, PROFILES, Config
from mafr.figures.fig1 import architecture, variant_differences

DEMO = Config.preset("demo")


@pytest.mark.parametrize(("profile", "numbers"), [("full", ("768", "1152", "1920", "968")), ("demo", ("152", "192"))])
def test_architecture_shows_the_configurations_dimensions(profile, numbers):
    text = words(architecture(Config.preset(profile)))
    assert all(number in text for number in numbers)
    assert str(Config.preset(profile).width) in text


def test_architecture_follows_the_settings():
    config = replace(DEMO, fusion="sum", loss_terms=("sim",), groups=99)
    text = words(architecture(config))
    assert "Ψ2D + Ψ3D" in text and "99 groups" in text and "· census" not in text
    assert "LayerNorm" not in words(architecture(config, differences=False))
    assert ("blur", "Gaussian, σ = 4.7 px", "box: five 5×5, three 7×7") in variant_differences(DEMO)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("fusion", FUSIONS + CALIBRATED)
def test_every_profile_is_drawn_with_every_operator(profile, fusion):
    config = replace(Config.preset(profile), fusion=fusion)
    text = words(architecture(config))
    assert ("z(Ψ2D)" in text) == ("standard deviations above the mean" in text) == (fusion in CALIBRATED)
    assert ("0.5 z(Ψ3D)" in text) == (profile == "parts" and fusion in CALIBRATED)
    assert ("outside the part" in text) == (profile == "parts")
