"""The explorer as a widget, without a front end: its traits, what it sends, and its picture where no kernel runs."""

import json

import numpy as np
import pytest
import traitlets

from mafr.config import Config
from mafr.errors import ResultError
from mafr.explorer import Explorer
from mafr.paths import Paths


@pytest.fixture
def explorer(stored):
    return Explorer(*stored)


def test_it_starts_with_the_sample_of_figure_2(explorer, result):
    assert (explorer.dataset, explorer.category) == ("mvtec3d", "bagel")
    median = result.median_defective()
    assert explorer.view().sample.id == result.ids[median]
    assert np.allclose(explorer.view().psi, result.maps[median], rtol=1e-5, atol=1e-6)
    first = json.loads(explorer._first)
    assert explorer._first_key == "mvtec3d/bagel" and first["start"] == result.ids[median]
    assert [one["id"] for one in first["samples"]] == list(result.ids)


def test_traits_choose_the_sample(explorer):
    explorer.dataset = "eyecandies"
    assert explorer.view().sample.category == "CandyCane"  # the first that is there
    explorer.category = "Lollipop"
    ids = explorer.result().ids
    explorer.sample = next(one for one in ids if "good" in one)
    sample = explorer.view().sample
    assert (sample.category, sample.defect, sample.label) == ("Lollipop", "good", 0)
    again = Explorer(explorer.config, explorer.paths, dataset="eyecandies", category="Lollipop", sample=sample.id)
    assert again.view().sample.id == sample.id and again._first_key == "eyecandies/Lollipop"


@pytest.mark.parametrize(("trait", "value"), [("fusion", "max"), ("blur", "none"), ("sigma", 9.0), ("rate", 0.2)])
def test_settings_change_what_is_computed(explorer, trait, value):
    before = explorer.view()
    setattr(explorer, trait, value)
    assert not np.array_equal(before.detected, explorer.view().detected)


def test_sigma_is_for_the_gaussian_only(explorer):
    explorer.blur = "box"
    box = explorer.view().psi
    explorer.sigma = 9.0
    assert np.array_equal(explorer.view().psi, box)


@pytest.mark.parametrize(("trait", "value"), [("fusion", "mean"), ("sigma", 0.0), ("rate", 2.0), ("opacity", 1.5)])
def test_values_out_of_range_are_refused(explorer, trait, value):
    with pytest.raises(traitlets.TraitError, match=trait):
        setattr(explorer, trait, value)


def test_asked_for_a_category_it_sends_the_data_or_the_reason(explorer, monkeypatch):
    sent = []
    monkeypatch.setattr(explorer, "send", lambda content, buffers=None: sent.append((content, buffers)))
    explorer._answer(explorer, {"load": "mvtec3d/tire"}, [])
    content, (data,) = sent.pop()
    assert content == {"key": "mvtec3d/tire"} and json.loads(data)["category"] == "tire"
    explorer._answer(explorer, {"load": "mvtec3d/peach"}, [])
    content, buffers = sent.pop()
    assert "no finished run of mvtec3d/peach; there are mvtec3d/bagel" in content["error"] and buffers is None


def test_the_picture_for_readers_without_a_kernel_carries_the_stamp(explorer):
    texts = " ".join(t.get_text() for t in explorer.static().texts)
    assert "GENERATED DATA" in texts and "smoke profile" in texts
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "mvtec3d/bagel" in data["text/plain"] and "run all cells" in data["text/plain"]


def test_the_other_variant_can_be_chosen(stored):
    config, paths = stored
    explorer = Explorer(config.with_variant("released"), paths)
    assert explorer.result().record["variant"] == "released"
    psi = explorer.view().psi
    explorer.variant = "paper"
    assert explorer.result().record["variant"] == "paper" and not np.array_equal(explorer.view().psi, psi)


def test_nothing_to_explore_names_the_command(tmp_path):
    with pytest.raises(ResultError, match="mafr run --profile smoke --variant paper"):
        Explorer(Config.preset("smoke"), Paths.resolve("smoke", root=tmp_path))


def test_a_first_category_that_is_not_there_is_named(stored):
    with pytest.raises(ResultError, match="no finished run of mvtec3d/peach"):
        Explorer(*stored, category="peach")
