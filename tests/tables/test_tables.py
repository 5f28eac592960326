"""Tables from made-up records: layout, stamps, differences, missing runs, repeatable files."""

import csv
import dataclasses
import hashlib
import io
import json
import math
import pickle
import re

import numpy as np
import pandas as pd
import pytest

from mafr.baselines.registry import method_settings, title
from mafr.config import ADDED, CATEGORIES, FUSIONS, LOSS_TERMS, UNTRAINED, VARIANTS, Config
from mafr.data.acquire.counts import PUBLISHED
from mafr.errors import ConfigError, MafrError, ResultError
from mafr.experiments.plan import TABLE_METHODS, Run
from mafr.intervals import auroc_interval, compare, share_interval
from mafr.metrics import metric_names
from mafr.scoring import MAP
from mafr.tables import comparison as tables
from mafr.tables import published as paper
from mafr.tables.layout import Column, Row, Table
from mafr.tables.paired import paired_table
from mafr.tables.readme import LEVEL_MARK, results_block
from mafr.tables.supplement import SUPPLEMENT, supplementary_table

METRICS = ("i_auroc", *metric_names())
SMOKE = Config.preset("smoke")
FULL = Config.preset("full")


def value(*key):
    """A number in [0.5, 1) that depends on all of `key`."""
    return 0.5 + int(hashlib.sha256(repr(key).encode()).hexdigest()[:8], 16) / 2**33


def record(config, dataset, category, variant="paper", terms=LOSS_TERMS, shots=None, seed=115, method="mafr"):
    """A run with its record."""
    settings = dataclasses.replace(method_settings(method, config, variant, dataset), loss_terms=terms, seed=seed)
    key = (dataset, category, variant, sorted(terms), shots, seed)
    if method != "mafr":
        key = (dataset, category, method, shots, seed)
    metrics = {}
    for fusion in FUSIONS if method == "mafr" else (MAP,):
        cells = {name: value(*key, fusion, name) for name in METRICS}
        cells["by_defect"] = {
            defect: {"count": 4} | {name: value(*key, fusion, name, defect) for name in METRICS}
            for defect in ("crack", "hole")
        }
        metrics[fusion] = cells
    made = {
        "dataset": dataset, "category": category, "method": method, "profile": config.profile, "variant": variant,
        "loss_terms": list(terms), "shots": shots, "seed": seed,
        "counts": {"train": shots or 6, "validation": 2, "test_good": 3, "test_defective": 5},
        "metrics": metrics,
        "samples": {"ids": [f"test/{k}" for k in range(8)], "labels": [0] * 3 + [1] * 5,
                    "defects": ["good"] * 3 + ["crack"] * 2 + ["hole"] * 3},
        "threshold": 0.75,
        "scores": {fusion: [value(*key, fusion, k) for k in range(8)] for fusion in metrics},
        "timings": {"train_s": 1.5, "inference_s": 0.25, "map_s": 0.15, "score_s": 0.5, "extract_rgb_s": 0.05}
        | {"extract_xyz_s": 0.15},
        "memory": {"peak_mb": 512.0, "model_mb": 7.5}, "parameters": 1234,
        "config_digest": settings.digest(), "config": settings.as_dict(),
    }  # fmt: skip
    return Run(dataset, category, settings, shots, method), copied(made)


def copied(value):
    """As read from a file; a run's record may then be changed."""
    if isinstance(value, dict) and all(isinstance(run, Run) for run in value):
        return {run: copied(one) for run, one in value.items()}
    return json.loads(json.dumps(value))


def only(records, choose):
    """The records for which `choose` is true."""
    return {run: one for run, one in records.items() if choose(one)}


def all_records(config, seeds=(115,)):
    """The runs behind all tables with their records, of MAFR and of the compared methods."""
    made = []
    for seed in seeds:
        for dataset in CATEGORIES:
            for category in config.categories(dataset):
                made += [record(config, dataset, category, variant, seed=seed) for variant in VARIANTS]
        for category in config.categories("mvtec3d"):
            made += [record(config, "mvtec3d", category, shots=shots, seed=seed) for shots in config.shots]
            made += [record(config, "mvtec3d", category, terms=(term,), seed=seed) for term in LOSS_TERMS]
        for number, methods in TABLE_METHODS.items():
            dataset = "eyecandies" if number == 2 else "mvtec3d"
            for category in config.categories(dataset):
                for shots in config.shots if number == 3 else (None,):
                    made += [record(config, dataset, category, shots=shots, seed=seed, method=m) for m in methods]
    return dict(made)


SMOKE_RECORDS = all_records(SMOKE)
FULL_RECORDS = all_records(FULL)


def every_table(records, config):
    return [
        *(make(records, config) for make in tables.TABLES.values()),
        *(supplementary_table(name, records, config) for name in SUPPLEMENT),
    ]


def cell(table, kind, column, row=0):
    """A published value, or one of MAFR's own rows."""
    rows = table.rows(kind)
    if kind != "published" and "Method" in rows:
        rows = of_mafr(rows)
    return rows[column].iloc[row]


def of_mafr(frame):
    """The rows of MAFR, the first of which is of the paper's variant."""
    return frame[frame["Method"].str.startswith("MAFR")].reset_index(drop=True)


def test_table_1_on_real_data_has_published_measured_and_difference_rows():
    table = tables.table1(FULL_RECORDS, FULL)
    published = table.rows("published")
    assert list(published.columns) == ["Method", *CATEGORIES["mvtec3d"], "mean"]
    assert published["Method"].tolist()[0] == "DepthGAN [4]" and published["Method"].tolist()[-1] == "MAFR"
    assert published.iloc[:, 1:].to_numpy().tolist() == [list(row) for row in paper.TABLE_1.values()]

    measured, difference = table.rows("measured"), table.rows("difference")
    compared = [f"{title(method)} (run here)" for method in TABLE_METHODS[1]]
    assert measured["Method"].tolist() == [*compared, "MAFR (ours, paper)", "MAFR (ours, released)"]
    assert [name.split()[0] for name in compared] == list(paper.TABLE_1)[:-1]  # no row of the paper is left out
    assert difference["Method"].tolist()[-1] == "MAFR (ours, released) − published"
    assert measured["tire"][6] == value("mvtec3d", "tire", "btf", None, 115, "map", "i_auroc")
    assert difference["tire"][6] == pytest.approx(measured["tire"][6] - paper.by_category(1)["BTF"]["tire"])
    measured, difference = measured.iloc[-2:], difference.iloc[-2:]
    for k, variant in enumerate(VARIANTS):
        ours = [
            value("mvtec3d", category, variant, sorted(LOSS_TERMS), None, 115, "product", "i_auroc")
            for category in CATEGORIES["mvtec3d"]
        ]
        expected = np.array([*ours, np.mean(ours)])
        assert measured.iloc[k, 1:].to_numpy(float) == pytest.approx(expected, abs=1e-15)
        assert difference.iloc[k, 1:].to_numpy(float) == pytest.approx(expected - paper.TABLE_1["MAFR"], abs=1e-15)
    assert table.banner == ""


def test_methods_restrict_the_measured_rows(tmp_path):
    table = tables.table3(FULL_RECORDS, FULL, methods=("cfm", "ast"))
    names = table.rows("measured")["Method"].tolist()
    assert names == ["AST (run here)", "CFM (run here)", "MAFR (ours, paper)"]
    key = ("mvtec3d", "foam", "cfm", 10, 115, "map", "p_auroc")
    others = [value("mvtec3d", c, "cfm", 10, 115, "map", "p_auroc") for c in CATEGORIES["mvtec3d"]]
    assert value(*key) in others
    assert table.rows("measured")["p_auroc_10_shot"][1] == pytest.approx(np.mean(others), abs=1e-15)
    some = only(SMOKE_RECORDS, lambda r: r["method"] in ("mafr", "cfm"))
    written = tables.write_tables(some, SMOKE, tmp_path, methods=("cfm",))
    assert len(written) == 11 * 3
    with pytest.raises(ResultError, match="m3dm"):
        tables.write_tables(some, SMOKE, tmp_path, methods=("cfm", "m3dm"))
    with pytest.raises(ConfigError, match="unknown method magic"):
        tables.write_tables(some, SMOKE, tmp_path, methods=("magic",))


def test_runs_on_different_data_do_not_share_a_table():
    records = copied(SMOKE_RECORDS)
    for one in records.values():
        one["data_fingerprint"] = {"cfm_m": "of its own", "btf": "old"}.get(one["method"], "new")
    with pytest.raises(ResultError, match=r"BTF.* made on different data"):
        tables.table1(records, SMOKE)
    assert tables.table2(records, SMOKE)  # has no BTF; CFM-M's features are of its own


def test_missing_runs_of_a_compared_method_are_listed_with_its_command():
    with pytest.raises(ResultError, match=r"2 runs are missing[\s\S]*tire, BTF, all samples[\s\S]*--methods btf`"):
        tables.table1(only(SMOKE_RECORDS, lambda r: r["method"] != "btf"), SMOKE)


def test_table_2_takes_eyecandies_and_only_the_variants_asked_for():
    table = tables.table2(FULL_RECORDS, FULL, variants=("released",), methods=())
    assert len(table.rows("published")) == 7
    assert table.rows("measured")["Method"].tolist() == ["MAFR (ours, released)"]
    expected = value("eyecandies", "GummyBear", "released", sorted(LOSS_TERMS), None, 115, "product", "i_auroc")
    assert cell(table, "measured", "GummyBear") == expected


def test_table_3_takes_the_shots():
    table = tables.table3(FULL_RECORDS, FULL)
    assert len(table.columns) == 24 and len(table.rows("published")) == 5
    assert cell(table, "published", "p_auroc_50_shot", 4) == 0.998
    assert cell(table, "published", "aupro99_01_full", 3) == 0.455
    keys = [("mvtec3d", c, "paper", sorted(LOSS_TERMS), 10, 115, "product") for c in CATEGORIES["mvtec3d"]]
    exact, alike = (np.mean([value(*key, name) for key in keys]) for name in ("aupro_01", "aupro99_01"))
    assert cell(table, "measured", "aupro_01_10_shot") == pytest.approx(exact, abs=1e-15)
    assert cell(table, "measured", "aupro99_01_10_shot") == pytest.approx(alike, abs=1e-15)
    assert cell(table, "difference", "aupro99_01_10_shot") == pytest.approx(alike - 0.383, abs=1e-15)
    head = table.to_latex().splitlines()
    assert r" & \multicolumn{4}{c}{I-AUROC} & \multicolumn{4}{c}{P-AUROC}" in "\n".join(head)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("make", [tables.table3, tables.table4, tables.table5])
def test_differences_of_aupro_are_between_values_with_99_thresholds(make, variant):
    """Both forms are measured; the published ones have that form alone."""
    records = copied(FULL_RECORDS)
    config = FULL.with_variant(variant)
    if variant == "released":
        records |= {run: one for run, one in all_released(FULL).items() if run not in records}
    table = make(records, config, variant)
    assert "Published values are of the second form; differences are taken within it." in table.to_markdown()
    measured, difference = (
        of_mafr(table.rows(k)) if make is tables.table3 else table.rows(k) for k in ("measured", "difference")
    )
    for metric in ("aupro_30", "aupro_01"):
        exact, sampled = (
            f"{name}_full" if make is tables.table3 else name for name in (metric, metric.replace("_", "99_"))
        )
        assert measured[[exact, sampled]].notna().all(axis=None)
        assert table.rows("published")[exact].isna().all() and difference[exact].isna().all()
        gap = measured[sampled].iloc[-1] - table.rows("published")[sampled].iloc[-1]
        assert difference[sampled].iloc[-1] == pytest.approx(gap, abs=1e-12)


def all_released(config):
    """The released variant's runs of Tables III and IV that `all_records` leaves out."""
    made = []
    for category in config.categories("mvtec3d"):
        made += [record(config, "mvtec3d", category, "released", shots=shots) for shots in config.shots]
        made += [record(config, "mvtec3d", category, "released", terms=(term,)) for term in LOSS_TERMS]
    return dict(made)


def test_only_real_data_says_how_ast_s_code_differs_from_its_paper():
    for table, there in (
        (tables.table1(FULL_RECORDS, FULL), True),
        (tables.table2(FULL_RECORDS, FULL), False),
        (tables.table1(FULL_RECORDS, FULL, methods=("btf",)), False),
        (tables.table1(SMOKE_RECORDS, SMOKE), False),
    ):
        assert there == any("about 2 % above the paper's RGB + 3D numbers" in note for note in table.notes)


def test_table_3_with_other_shots_shows_published_values_only_where_they_agree():
    table = tables.table3(SMOKE_RECORDS, SMOKE)
    published = table.rows("published").iloc[:, 1:]
    assert list(published.columns)[:4] == ["i_auroc_2_shot", "i_auroc_3_shot", "i_auroc_4_shot", "i_auroc_full"]
    assert published["i_auroc_2_shot"].isna().all() and published["i_auroc_full"].notna().all()
    assert any("number of shots is the same" in note for note in table.notes)


def test_table_4_and_5_rows():
    four, five = tables.table4(FULL_RECORDS, FULL), tables.table5(FULL_RECORDS, FULL)
    labels = ["L_sim", "L_census", "L_smooth", "L_sim + L_census + L_smooth"]
    assert [four.rows(kind)["Loss function"].tolist() for kind in ("published", "measured", "difference")] == [
        labels
    ] * 3
    labels = ["Ψ2D", "Ψ3D", "Ψ2D + Ψ3D", "max(Ψ2D, Ψ3D)", "Ψ2D · Ψ3D"]
    assert [five.rows(kind)["Anomaly map"].tolist() for kind in ("published", "measured", "difference")] == [labels] * 3
    means = {}
    for fusion, terms in (("xyz", LOSS_TERMS), ("product", ("census",))):
        keys = [("mvtec3d", c, "paper", sorted(terms), None, 115, fusion) for c in CATEGORIES["mvtec3d"]]
        means[fusion] = np.mean([value(*key, "p_auroc") for key in keys])
    assert cell(four, "measured", "p_auroc", 1) == pytest.approx(means["product"], abs=1e-15)
    assert cell(five, "measured", "p_auroc", 1) == pytest.approx(means["xyz"], abs=1e-15)
    assert cell(five, "difference", "p_auroc", 1) == pytest.approx(means["xyz"] - 0.967, abs=1e-15)
    assert "$L_{\\mathrm{sim}}$ + $L_{\\mathrm{census}}$" in four.to_latex()
    assert "max($\\Psi_{2D}$, $\\Psi_{3D}$)" in five.to_latex()


def test_full_model_is_the_same_in_tables_3_to_5():
    three, four, five = (make(FULL_RECORDS, FULL) for make in (tables.table3, tables.table4, tables.table5))
    for metric in paper.METRICS:
        assert cell(three, "measured", f"{metric}_full") == cell(four, "measured", metric, 3)
        assert cell(four, "measured", metric, 3) == cell(five, "measured", metric, 4)


def test_generated_data_is_called_so_and_has_no_differences():
    for number, make in tables.TABLES.items():
        table = make(SMOKE_RECORDS, SMOKE)
        assert table.rows("difference").empty
        for text in (table.to_markdown(), table.to_latex()):
            assert "measured on generated data with small backbones" in text
            assert "NOT comparable with the published rows" in text
            assert "orientation only" in text
        for line in csv.DictReader(io.StringIO(table.to_csv())):
            if line["kind"] == "measured":
                assert line["data"].startswith("measured on generated data with small backbones")
                assert "NOT comparable" in line["data"]
            else:
                assert line["data"] == "as published", number
    for name in SUPPLEMENT:
        table = supplementary_table(name, SMOKE_RECORDS, SMOKE)
        assert "generated data" in table.to_markdown() and "NOT comparable" in table.to_latex()
        assert (table.frame["kind"] == "measured").all()


def test_stamp_names_profile_variant_data_seed_counts_and_digest():
    for table in every_table(SMOKE_RECORDS, SMOKE):
        text = table.to_markdown()
        assert "profile smoke" in text and "variant paper" in text and "seed 115" in text
        assert f"paper {SMOKE.digest()[:12]}" in text
        assert "3 / 5 in each of 2 categories" in text
        assert "generated stand-in for " in text
        measured = table.frame[table.frame["kind"] == "measured"]
        stamp = (of_mafr(measured) if "Method" in measured else measured).iloc[0]
        assert (stamp["profile"], stamp["variant"], stamp["seeds"]) == ("smoke", "paper", "115")
        assert stamp["config"] == SMOKE.digest()[:12]


@pytest.mark.parametrize(("records", "config"), [(SMOKE_RECORDS, SMOKE), (FULL_RECORDS, FULL)])
def test_no_measured_cell_of_a_measured_category_is_empty(records, config):
    for table in every_table(records, config):
        measured = table.rows("measured")
        skipped = set(CATEGORIES["mvtec3d"] + CATEGORIES["eyecandies"])
        skipped -= {*config.mvtec3d_categories, *config.eyecandies_categories}
        assert not measured.empty
        assert measured.drop(columns=[c for c in skipped if c in measured]).notna().all(axis=None), table.name
        for line in csv.DictReader(io.StringIO(table.to_csv())):
            assert all(text != "" for name, text in line.items() if line["kind"] == "measured"), table.name


def test_a_subset_of_categories_shows_the_others_as_not_measured():
    table = tables.table1(SMOKE_RECORDS, SMOKE)
    row = of_mafr(table.rows("measured")).iloc[0]
    assert row["bagel"] > 0 and row["tire"] > 0 and math.isnan(row["rope"])
    assert row["mean"] == pytest.approx((row["bagel"] + row["tire"]) / 2)
    text = table.to_markdown()
    assert "Measured in 2 categories only (bagel, tire); our means are over these." in text
    shown = [f"{row['bagel']:.3f}", *["—"] * 8, f"{row['tire']:.3f}", f"{row['mean']:.3f}"]
    assert f"| MAFR (ours, paper) | {' | '.join(shown)} |" in text
    lines = csv.DictReader(io.StringIO(table.to_csv()))
    line = next(x for x in lines if x["kind"] == "measured" and x["Method"].startswith("MAFR"))
    assert line["rope"] == "n/a" and float(line["bagel"]) == pytest.approx(row["bagel"], abs=1e-6)


def test_a_subset_of_real_categories_compares_like_with_like():
    config = dataclasses.replace(FULL, mvtec3d_categories=("carrot", "bagel"))
    records = all_records(config)
    table = tables.table1(records, config, variants=("paper",))
    row = of_mafr(table.rows("difference")).iloc[0]
    assert row["mean"] == pytest.approx((row["bagel"] + row["carrot"]) / 2, abs=1e-12)
    assert math.isnan(row["foam"])
    assert any("published mean over the same categories" in note for note in table.notes)
    five = tables.table5(records, config)
    assert five.rows("difference").empty and any("No differences are shown" in note for note in five.notes)


def test_categories_of_ones_own_get_columns():
    config = dataclasses.replace(FULL, mvtec3d_categories=("bagel", "bracket"))
    table = tables.table1(all_records(config), config, variants=("paper",))
    assert table.columns[-2].name == "bracket"
    row = table.rows("difference").iloc[0]
    assert not math.isnan(row["bagel"]) and math.isnan(row["bracket"]) and math.isnan(row["mean"])


def test_several_seeds_give_mean_and_deviation():
    table = tables.table1(all_records(SMOKE, seeds=(115, 116, 117)), SMOKE)
    bagel = [
        value("mvtec3d", "bagel", "paper", sorted(LOSS_TERMS), None, seed, "product", "i_auroc")
        for seed in (115, 116, 117)
    ]
    tire = [
        value("mvtec3d", "tire", "paper", sorted(LOSS_TERMS), None, seed, "product", "i_auroc")
        for seed in (115, 116, 117)
    ]
    mean, std = np.mean(bagel), np.std(bagel, ddof=1)
    assert cell(table, "measured", "bagel") == pytest.approx(mean)
    assert f"| {mean:.3f} ± {std:.3f} |" in table.to_markdown()
    assert rf"{mean:.3f} $\pm$ {std:.3f}" in table.to_latex()
    lines = csv.DictReader(io.StringIO(table.to_csv()))
    line = next(x for x in lines if x["kind"] == "measured" and x["Method"].startswith("MAFR"))
    assert float(line["bagel_std"]) == pytest.approx(std, abs=1e-6)
    # The mean's deviation is over the seeds' means, not a mean of deviations.
    expected = np.std((np.array(bagel) + tire) / 2, ddof=1)
    assert float(line["mean_std"]) == pytest.approx(expected, abs=1e-6)
    assert line["seeds"] == "115 116 117"
    assert any("standard deviation over 3 seeds" in note for note in table.notes)


def test_incomplete_seeds_are_left_out_and_named():
    records = SMOKE_RECORDS | dict([record(SMOKE, "mvtec3d", "bagel", seed=116)])
    table = tables.table1(records, SMOKE)
    assert cell(table, "measured", "bagel") == cell(tables.table1(SMOKE_RECORDS, SMOKE), "measured", "bagel")
    assert any("seed 116" in note and "Left out" in note for note in table.notes)


def test_missing_runs_are_listed_with_the_command():
    gone = only(SMOKE_RECORDS, lambda r: not (r["category"] == "tire" and r["variant"] == "released"))
    with pytest.raises(ResultError) as caught:
        tables.table1(gone, SMOKE)
    text = str(caught.value)
    assert "1 runs are missing" not in text and "1 run is missing" in text
    assert "mvtec3d/tire, MAFR, released, loss sim+smooth+census, all samples, seed 115" in text
    assert "`mafr run --table 1 --profile smoke --variant released`" in text
    assert "bagel" not in text
    with pytest.raises(MafrError, match=r"30 runs are missing[\s\S]*2 shots[\s\S]*--table 3 --profile smoke`"):
        tables.table3(only(SMOKE_RECORDS, lambda r: r["shots"] is None), SMOKE)
    with pytest.raises(ResultError, match=r"200 runs are missing[\s\S]*and 188 more[\s\S]*--table 1,2 --profile full`"):
        supplementary_table("S2", {}, FULL)


def test_runs_of_other_settings_do_not_count():
    changed = dataclasses.replace(SMOKE, epochs=3)
    # MAFR's runs of two categories and two variants: the compared methods do not look at its epochs.
    with pytest.raises(ResultError, match=r"4 runs are missing[\s\S]*MAFR, paper"):
        tables.table1(SMOKE_RECORDS, changed)
    # Settings of the other data set, or of which runs are made, do not matter.
    same = dataclasses.replace(SMOKE, eyecandies_train=9, shots=(1,))
    assert cell(tables.table1(SMOKE_RECORDS, same), "measured", "bagel") > 0
    mixed = all_records(changed) | SMOKE_RECORDS | all_records(dataclasses.replace(SMOKE, threads=2))
    assert tables.table1(mixed, SMOKE).frame.equals(tables.table1(SMOKE_RECORDS, SMOKE).frame)


def test_records_older_than_a_setting_count():
    older = copied(SMOKE_RECORDS)
    for one in older.values():
        one["config"] = {k: v for k, v in one["config"].items() if k not in ADDED or v != ADDED[k]}
    older = {dataclasses.replace(run, config=Config.from_dict(r["config"])): r for run, r in older.items()}
    assert tables.table1(older, SMOKE).frame.equals(tables.table1(SMOKE_RECORDS, SMOKE).frame)
    elsewhere = dataclasses.replace(SMOKE, device="auto", compiled=True)
    assert tables.table1(older, elsewhere).frame.equals(tables.table1(SMOKE_RECORDS, SMOKE).frame)
    with pytest.raises(ResultError, match=r"4 runs are missing[\s\S]*bagel, MAFR, paper"):  # no other method has steps
        tables.table1(older, dataclasses.replace(SMOKE, samples_a_step=2))


def test_a_run_has_one_record():
    run, twin = record(SMOKE, "mvtec3d", "bagel")
    again = Run("mvtec3d", "bagel", dataclasses.replace(SMOKE, shots=(1,)))
    assert run in SMOKE_RECORDS and again == run and hash(again) == hash(run)
    elsewhere = pickle.loads(pickle.dumps(Run("mvtec3d", "bagel", dataclasses.replace(SMOKE, device="auto"))))
    assert SMOKE_RECORDS[elsewhere] is SMOKE_RECORDS[run]
    twin["metrics"]["product"]["i_auroc"] = 0.5
    assert cell(tables.table1(SMOKE_RECORDS | {again: twin}, SMOKE), "measured", "bagel") == 0.5
    other = dataclasses.replace(run, config=dataclasses.replace(SMOKE, threads=5))
    assert cell(tables.table1(SMOKE_RECORDS | {other: twin}, SMOKE), "measured", "bagel") != 0.5


@pytest.mark.parametrize(("broken", "text"), [(None, "None"), (math.nan, "nan"), ("gone", "lacks 'i_auroc'")])
def test_a_record_without_a_number_raises(broken, text):
    bad = copied(SMOKE_RECORDS)
    cells = next(iter(bad.values()))["metrics"]["product"]
    if broken == "gone":
        del cells["i_auroc"]
    else:
        cells["i_auroc"] = broken
    with pytest.raises(ResultError, match=f"mvtec3d/bagel.*{text}"):
        tables.table1(bad, SMOKE)


def test_table_s1_has_an_interval_and_a_row_for_each_seed():
    table = supplementary_table("S1", all_records(SMOKE, seeds=(115, 116)), SMOKE, datasets=("mvtec3d",))
    assert len(table.frame) == (len(TABLE_METHODS[1]) + 2) * 2 * 2
    assert table.frame["seed"].tolist()[:2] == [115, 116]
    row = table.frame.iloc[0]
    assert (row["i_auroc_low"], row["i_auroc_high"]) == auroc_interval(row["i_auroc"], 3, 5)
    assert any("Newcombe" in note for note in table.notes)
    assert "| 115 |" in table.to_markdown()


def test_table_s2_and_s3_have_every_metric():
    two, three = supplementary_table("S2", SMOKE_RECORDS, SMOKE), supplementary_table("S3", SMOKE_RECORDS, SMOKE)
    assert [c.name for c in two.columns] == list(METRICS)
    rows = len(TABLE_METHODS[1]) + len(TABLE_METHODS[2]) + 2 * 2  # methods of both data sets, variants of MAFR
    assert len(two.frame) == rows * (2 + 1)  # categories and their mean
    means = two.frame[two.frame["Category"] == "mean"]
    assert means["aupro99_05"].iloc[0] == pytest.approx(two.frame["aupro99_05"].iloc[:2].mean())
    assert len(three.frame) == rows * 2 * 2
    assert three.frame["Defect"].tolist()[:2] == ["crack", "hole"] and (three.frame["count"] == 4).all()
    assert "| 4 |" in three.to_markdown()


def test_a_part_of_a_real_data_set_does_not_pass_for_the_whole():
    """Records of the real profile with the published numbers of samples, and with one sample fewer."""
    config = dataclasses.replace(SMOKE, generated=False)
    records = copied(only(all_records(config), lambda r: r["dataset"] == "mvtec3d"))
    for record in records.values():
        known = PUBLISHED["mvtec3d"][record["category"]]
        record["counts"] |= {"test_good": known.good, "test_defective": known.anomalous}
        if record["shots"] is None:
            record["counts"]["train"] = known.train
    whole = supplementary_table("S1", records, config, datasets=["mvtec3d"])
    assert set(whole.frame["data"]) == {"measured on real data"} and "NOT" not in whole.to_markdown()
    for record in records.values():
        record["counts"]["test_good"] -= record["category"] == "tire"
    part = supplementary_table("S1", records, config, datasets=["mvtec3d"])
    assert "NOT the published data set: tire with other numbers of samples" in part.to_markdown()
    assert all("NOT the published data set" in text for text in part.frame["data"])


def test_cost_names_every_processor_that_computed_it():
    def note(records):
        return next(note for note in supplementary_table("cost", records, SMOKE).notes if "Computed on" in note)

    assert note(SMOKE_RECORDS).startswith("Computed on: a processor that older records do not name. Times")
    one = {"device": "cpu", "processor": "Xeon", "instruction_sets": ["AVX2", "AVX512"], "same_bytes": ""}
    records = {run: made | {"place": one} for run, made in copied(SMOKE_RECORDS).items()}
    assert note(records).startswith("Computed on: Xeon (AVX2, AVX512). Times")
    runs = [run for run in records if run.shots is None]
    for run, other in zip(runs, ({"same_bytes": "x86"}, {"device": "H200"}, {"processor": "EPYC"}), strict=False):
        records[run]["place"] = one | other
    (text,) = re.findall("Computed on: (.*?)[.] Times", note(records))
    named = ["Xeon (AVX2, AVX512)", "Xeon (AVX2, AVX512), same bytes on x86-64 processors with AVX2",
             "H200, with Xeon (AVX2, AVX512)", "EPYC (AVX2, AVX512)"]  # fmt: skip
    assert sorted(text.split("; ")) == sorted(named)


def test_cost_is_a_table_of_its_own():
    table = supplementary_table("cost", SMOKE_RECORDS, SMOKE)
    assert table.name == "cost"
    names = [
        "sample_s", "model_mb", "parameters", "train_s", "extract_rgb_s", "extract_xyz_s", "inference_s", "map_s",
        "score_s", "peak_mb",
    ]  # fmt: skip
    assert [c.name for c in table.columns] == names
    assert table.frame["sample_s"].to_numpy() == pytest.approx(0.2 + (0.25 + 0.15) / 8)  # features, then 8 samples
    assert "1234 |" in table.to_markdown()
    for other in every_table(SMOKE_RECORDS, SMOKE)[:-1]:
        assert not {"train_s", "peak_mb"} & {c.name for c in other.columns}


def test_files_repeat_byte_for_byte_in_any_order_of_records(tmp_path):
    first = tables.write_tables(SMOKE_RECORDS, SMOKE, tmp_path / "a")
    later = dict(reversed(copied(SMOKE_RECORDS).items()))
    for one in later.values():  # what differs from run to run must not reach any table but the costs
        one["timings"]["train_s"] = 99.0
    second = tables.write_tables(later, SMOKE, tmp_path / "b")
    names = [f"table{number}" for number in (1, 2, 3, 4, 5, "S1", "S2", "S3", "S7")] + ["cost", "tableS5"]
    assert [p.name for p in first] == [f"{name}.{suffix}" for name in names for suffix in ("csv", "md", "tex")]
    for one, two in zip(first, second, strict=True):
        assert (one.read_bytes() == two.read_bytes()) == (one.stem != "cost"), one.name
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(p.name for p in first)


def test_write_tables_takes_only_what_is_asked_for(tmp_path):
    records = only(SMOKE_RECORDS, lambda r: r["dataset"] == "mvtec3d" and r["variant"] == "paper")
    written = tables.write_tables(records, SMOKE, tmp_path, tables=(1, 5), variants=("paper",))
    supplement = {f"tableS{number}" for number in (1, 2, 3, 5, 7)}
    assert {p.stem for p in written} == {"table1", "table5", "cost"} | supplement
    assert "Eyecandies" not in (tmp_path / "tableS2.md").read_text()
    with pytest.raises(ConfigError, match="unknown table 6"):
        tables.write_tables(records, SMOKE, tmp_path, tables=(6,))


def test_headings_span_their_columns_in_html():
    table = tables.table3(FULL_RECORDS, FULL)
    text = table.to_html()
    assert text == table._repr_html_()
    width = 1 + len(table.columns)
    assert text.count(f'<tr><th colspan="{width}"') == len(table.sections) == 3
    assert '<th colspan="4" style="text-align:center">AUPRO@30% (exact)</th>' in text
    rows = re.findall(r"<tr>(<td.*?)</tr>", text)
    assert len(rows) == len(table.frame) and all(row.count("<td") == width for row in rows)
    odd = Table("S1", "a <b> & c", ("x",), [Column("n", "n")], [Row(("<i>",), "measured", {"n": 1.0}, {})])
    assert "a &lt;b&gt; &amp; c" in odd.to_html() and "&lt;i&gt;" in odd.to_html()


def test_table_s5_holds_mafr_against_all_that_the_tables_compare():
    frame = paired_table(FULL_RECORDS, FULL).frame
    others = {table: rows["Held against"].tolist() for table, rows in frame.groupby("Table", sort=False)}
    assert list(others) == ["I", "II", "III, 5-shot", "III, 10-shot", "III, 50-shot", "III, full", "IV", "V"]
    assert others["I"][-3:] == ["M3DM", "CFM", "MAFR, released"] and len(others["I"]) == 11
    assert others["III, 5-shot"] == ["BTF", "AST", "M3DM", "CFM"]
    assert others["IV"] == ["L_sim", "L_census", "L_smooth"]
    assert set(frame["Result"]) <= {"higher", "level", "lower"}
    more = paired_table(FULL_RECORDS, FULL, among=True).frame
    assert more.iloc[: len(frame)].equals(frame)
    rows = more.iloc[len(frame) :][["Table", "Measured", "Held against"]].to_numpy().tolist()
    pairs = [[one, other] for one in ("AST", "CFM") for other in ("BTF", "M3DM")]
    assert rows[:4] == [["I, compared methods", *pair] for pair in pairs]
    assert rows[4:] == [["II, compared methods", one, "M3DM"] for one in ("AST", "CFM")]
    # A row is the paired comparison of the two records' scores, category by category.
    assert others["V"] == ["Ψ2D + Ψ3D", "max(Ψ2D, Ψ3D)", "Ψ2D", "Ψ3D", "Ψ3D"]
    row = frame[(frame["Table"] == "V") & (frame["Held against"] == "Ψ3D")].iloc[0]
    parts = []
    for run, one in FULL_RECORDS.items():
        if run == Run("mvtec3d", run.category, FULL):
            parts.append((one["samples"]["labels"], one["scores"]["xyz"], one["scores"]["product"]))
    found = compare(parts, FULL.bootstrap, FULL.seed)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((found.mean, found.low, found.high))
    assert (row["Result"], row["ahead"], row["behind"]) == (found.verdict, found.ahead, found.behind)


def test_table_s7_counts_false_alarms_and_misses_at_the_threshold():
    run, one = record(SMOKE, "mvtec3d", "bagel")
    one["scores"]["product"] = [0.7, 0.75, 0.8, 0.9, 0.2, 0.75, 0.76, 0.99]  # good, crack and hole
    table = supplementary_table("S7", SMOKE_RECORDS | {run: one}, SMOKE, datasets=("mvtec3d",))
    frame = table.frame[(table.frame["Category"] == "bagel") & (table.frame["Method"] == "MAFR, paper")]
    columns = ["images", "errors", "rate", "low", "high"]
    found = dict(zip(frame["Defect"], frame[columns].to_numpy().tolist(), strict=True))
    assert list(found) == ["good", "any defect", "crack", "hole"]
    assert found["good"] == pytest.approx([3, 1, 1 / 3, *share_interval(1, 3)])
    assert found["any defect"] == pytest.approx([5, 2, 2 / 5, *share_interval(2, 5)])
    assert (found["crack"][:2], found["hole"][:2]) == ([2, 1], [3, 1])


def test_runs_on_other_images_are_not_compared():
    records = copied(SMOKE_RECORDS)
    next(one for run, one in records.items() if run.method == "btf")["samples"]["ids"][0] = "test/other"
    with pytest.raises(ResultError, match="other images"):
        paired_table(records, SMOKE, tables=(1,))


def test_the_readme_marks_what_is_level(tmp_path):
    tables.write_tables(SMOKE_RECORDS, SMOKE, tmp_path)
    block, paired = results_block(tmp_path), pd.read_csv(tmp_path / "tableS5.csv")
    same = paired[(paired["Result"] == "level") & (paired["Measured"] != "Ψ2D")]
    same = same[~same["Table"].str.contains("compared")]
    assert len(same) and block.count(LEVEL_MARK) == len(same)
    lines = [line for line in block.splitlines() if LEVEL_MARK in line]
    assert all(any(name.split(", ")[-1] in line for line in lines) for name in same["Held against"])


def test_the_readme_says_what_several_seeds_say(tmp_path):
    tables.write_tables(SMOKE_RECORDS, SMOKE, tmp_path)
    assert "seeds" not in results_block(tmp_path)
    columns = ["Data set", "Category", "Method", "kind", "i_auroc", "data", "seeds"]
    found = (("A", "mean", "AST", 0.7), ("A", "mean", "MAFR, paper", 0.8), ("A", "bagel", "AST", 0.9),
             ("B", "mean", "CFM", 0.6))  # fmt: skip
    rows = [[*key, "measured", value, "GENERATED", "1 2"] for *key, value in found]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "tableS4.csv", index=False)
    assert "Over 2 seeds (`tableS4`): I: MAFR (paper) 0.800, AST 0.700; II: CFM 0.600." in results_block(tmp_path)


def test_nothing_is_written_when_a_table_cannot_be_made(tmp_path):
    records = only(SMOKE_RECORDS, lambda r: r["dataset"] == "mvtec3d")
    with pytest.raises(ResultError):
        tables.write_tables(records, SMOKE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_printing_rounds_signs_and_escapes():
    columns = (Column("a", "A_b"), Column("n", "N", decimals=0))
    rows = [
        Row(("x & y_z | 5%",), "difference", {"a": -0.0004, "n": 3}, {}),
        Row(("two",), "difference", {"a": -0.0126}, {}),
        Row(("three",), "measured", {"a": 1 / 3, "n": 7}, {"data": "d"}),
    ]
    table = Table("S9", "T", ("L",), columns, rows, notes=("100 % sure",))
    assert [cells for _, cells in table.cells()] == [
        ["three", "0.333", "7"], ["x & y_z | 5%", "0.000", "+3"], ["two", "−0.013", "—"],
    ]  # fmt: skip
    assert r"| x & y_z \| 5% | 0.000 | +3 |" in table.to_markdown()
    assert r"x \& y\_z | 5\% & 0.000 & +3 \\" in table.to_latex()
    assert r"two & $-$0.013 & --- \\" in table.to_latex() and r"100 \% sure" in table.to_latex()
    assert table.to_csv().splitlines() == [
        "L,kind,a,n,data,profile,variant,seeds,config",
        "three,measured,0.333333,7,d,,,,",
        "x & y_z | 5%,difference,-0.0004,3,,,,,",
        "two,difference,-0.0126,n/a,,,,,",
    ]
    with pytest.raises(ResultError, match="the measured row one is empty"):
        Table("S9", "T", ("L",), columns, [Row(("one",), "measured", {}, {})])


def test_print_and_csv_round_halves_alike():
    mean = 0.7475 - 1e-16  # a mean of multiples of a quarter of a thousandth, as it comes out
    columns, rows = (Column("n", "N"),), [Row(("x",), "measured", {"n": mean}, {})]
    table = Table("1", "t", ("L",), columns, rows)
    line = next(csv.DictReader(io.StringIO(table.to_csv())))
    assert f"{mean:.3f}" == "0.747" and f"{float(line['n']):.3f}" == "0.748"
    assert "| x | 0.748 |" in table.to_markdown() and "0.748" in table.to_latex()


def test_latex_environments_open_and_close():
    for table in every_table(FULL_RECORDS, FULL):
        text = table.to_latex()
        long = len(table.frame) >= 40
        for name in ("longtable",) if long else ("table*", "tabular"):
            assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
        assert text.count("{") == text.count("}")
        assert text.isascii()


def test_untrained_backbones_are_named_in_every_table_and_never_compared():
    config = dataclasses.replace(FULL, random_weights=True, mvtec3d_categories=("bagel", "tire"))
    records = all_records(config)
    for table in every_table(records, config):
        assert UNTRAINED in table.banner and UNTRAINED in table.notes[0]
        assert table.rows("difference").empty
        for text in (table.to_markdown(), table.to_latex()):
            assert text.count(UNTRAINED) >= 2
        rows = list(csv.DictReader(io.StringIO(table.to_csv())))
        assert all((UNTRAINED in row["data"]) == (row["kind"] == "measured") for row in rows)
    with pytest.raises(ResultError, match="--random-weights"):
        tables.table1(FULL_RECORDS, config)  # trained ones are no substitute
    with pytest.raises(ResultError, match=r"24 runs are missing[\s\S]*bagel, DepthGAN"):
        tables.table1(records, dataclasses.replace(config, random_weights=False))
