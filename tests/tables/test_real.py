"""Tables and pictures of real scans, from invented records."""

import numpy as np
import pytest
from support.fake_results import words

from mafr.config import CALIBRATED, FUSIONS
from mafr.experiments.validation import trials
from mafr.figures import real as figures
from mafr.scoring import MAP
from mafr.tables import published as paper
from mafr.tables import real as tables

CATEGORIES = {"mvtec3d": ("cable_gland",), "eyecandies": ("CandyCane",)}
NAMES = ("i_auroc", "p_auroc", "aupro_30", "aupro_01", "aupro99_30", "aupro99_01")


@pytest.fixture(scope="module")
def done():
    """A record for every trial, its numbers told apart by a counter."""
    return {trial: record(trial, k / 1000) for k, trial in enumerate(trials(CATEGORIES))}


def record(trial, shift: float) -> dict:
    metrics = dict.fromkeys(NAMES, 0.5 + shift) | {"i_auroc_low": 0.4, "i_auroc_high": 0.9}
    metrics["by_defect"] = {defect: metrics | {"count": 3} for defect in ("bent", "cut")}
    train = 223 if trial.run.dataset == "mvtec3d" else 50
    return {
        "metrics": dict.fromkeys(FUSIONS + CALIBRATED if trial.run.method == "mafr" else (MAP,), metrics),
        "counts": {"train": train, "validation": 8, "test_good": 25, "test_defective": 25},
    }


def test_published_numbers_stand_beside_measured_ones(done):
    frame = tables.validation_table(done).frame.set_index(["Method", "Settings"])
    row = frame.loc["FPFH", "as published"]
    assert (row["published_i_auroc"], row["published_p_auroc"], row["published_aupro99_30"]) == (0.534, 0.965, 0.878)
    assert row["difference_i_auroc"] == pytest.approx(row["measured_i_auroc"] - 0.534)
    assert frame.loc["DepthVM", "as published"]["published_i_auroc"] == 0.551
    assert np.isnan(frame.loc["DepthVM", "as published"]["published_p_auroc"])


def test_every_table_names_source_licence_and_parts_of_data_sets(done):
    for make in tables.TABLES:
        text = make(done).to_markdown()
        assert "CC BY-NC-SA 4.0" in text
        if "CandyCane" in text:
            assert "CandyCane, train / validation / test good / test anomalous: 50 / 8 / 25 / 25 (a part: 1000" in text


def test_what_was_rendered_is_called_no_scan_and_has_its_own_origin(done):
    text = tables.methods_table(done).to_markdown()
    assert "Real scans: MVTec 3D-AD, cable_gland, train" in text
    assert "Original Eyecandies (rendered by its authors): CandyCane, train" in text
    assert "Real scans: Eyecandies" not in text
    of = {name: words(figures.plot_epochs(done, name)) for name in ("cable_gland", "CandyCane")}
    assert "Real scans: MVTec 3D-AD" in of["cable_gland"] and "Eyecandies" not in of["cable_gland"]
    assert "Original Eyecandies (rendered by its authors)" in of["CandyCane"]
    assert "Real scans" not in of["CandyCane"] and "MVTec" not in of["CandyCane"]
    both = words(figures.plot_differences(tables.differences_table(done)))
    assert "Real scans: MVTec 3D-AD" in both and "Original Eyecandies" in both


def test_all_operators_and_published_values_of_large_backbones(done):
    frame = tables.methods_table(done).frame
    own = frame.set_index(["Category", "Method", "Training"]).loc["cable_gland", "MAFR, paper", "6 epochs"]
    assert list(own["Map"]) == [paper.MAP_TITLES[how] for how in FUSIONS + CALIBRATED]
    assert own.set_index("Map")["published"].dropna().to_dict() == {paper.FUSION_TITLES["product"]: 0.934}


def test_the_preset_s_rows_name_their_training_scans_and_the_choice_s_origin(done):
    table = tables.preset_table(done)
    frame = table.frame
    gland = frame[frame["Category"] == "cable_gland"]
    assert list(gland["Map"][:4]) == ["calibrated sum", "Ψ2D", "Ψ3D", "Ψ2D · Ψ3D"] and len(gland) == 4 * 4
    assert "not the paper's" in table.to_markdown() and "GENERATED development categories" in table.to_markdown()


def test_tables_are_written_where_there_are_rows(done, tmp_path):
    some = {trial: one for trial, one in done.items() if trial.part == "features"}
    written = tables.write_real_tables(some, tmp_path)
    assert {path.name for path in written} == {"validation.csv", "validation.md", "validation.tex"}
    assert len(tables.write_real_tables(done, tmp_path)) == 3 * len(tables.TABLES)


def test_pictures_show_every_trial(done):
    beside = figures.plot_beside_published(tables.validation_table(done), {"i_auroc": "I-AUROC"})
    labels = {text.get_text() for axes in beside.axes for text in axes.get_yticklabels()}
    assert "FPFH\nas published" in labels
    assert figures.plot_epochs(done, "cable_gland")._repr_png_()
    changed = figures.plot_differences(tables.differences_table(done))
    assert "valid_only = False" in {text.get_text() for axes in changed.axes for text in axes.get_yticklabels()}
    printed = {method: row["cable_gland"] for method, row in paper.by_category(1).items()}
    names = {text.get_text() for text in figures.plot_methods(done, "cable_gland", printed).axes[0].get_yticklabels()}
    assert {"MAFR, paper, 100 epochs", "CFM, as long as published"} <= names
