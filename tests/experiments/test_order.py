"""Rows on real and on generated scans, and how alike they rank."""

import dataclasses

import numpy as np
import pytest

from mafr.cli import main
from mafr.config import deciding, deciding_settings
from mafr.errors import ResultError
from mafr.experiments.order import SOURCES, correlation_gain, entries, rank_correlation, values_of
from mafr.scoring import MAP
from mafr.tables.order import order_table, runs_of

CATEGORY = "cable_gland"
RANKS = {"real": 1, "second": 1, "first": -1}  # of the invented values: the first generator ranks the other way round


@pytest.fixture(scope="module")
def records():
    found = {}
    for source in SOURCES:
        found[source] = {}
        for k, entry in enumerate(entries()):
            value = 0.6 + 0.01 * k * RANKS[source]
            run = entry.run(source, CATEGORY)
            metrics = found[source].setdefault(run, {"metrics": {}})["metrics"]
            metrics[entry.operator] = {"i_auroc": value, "aupro_30": value}
    return found


def test_a_row_has_the_same_method_on_every_source():
    for entry in entries():
        real, second, first = (entry.run(source, CATEGORY) for source in SOURCES)
        assert not real.config.generated and second.config.generated and first.config.generated
        assert (second.config.generator, first.config.generator) == ("second", "first")
        assert len({real.digest, second.digest, first.digest}) == 3
        decided = [deciding_settings(run.config, run.method, "mvtec3d") for run in (real, second, first)]
        own = {"generated", *deciding("data")}
        decided = [{name: value for name, value in one.items() if name not in own} for one in decided]
        assert decided[0] == decided[1] == decided[2]
    assert any(entry.operator == MAP for entry in entries()) and len(set(map(id, entries()))) == len(entries())


def test_the_table_says_which_generator_ranks_like_real_scans(records):
    table = order_table(CATEGORY, records)
    last = table.frame.iloc[-1]
    assert last["second_i_auroc"] == 1 and last["first_i_auroc"] == -1 and np.isnan(last["real_i_auroc"])
    assert len(table.entries) == len(entries()) + 2
    text = table.to_markdown()
    assert "GENERATED" in text and "CC BY-NC-SA 4.0" in text and "AST" in text
    some = {source: dict(list(found.items())[:3]) for source, found in records.items()}
    assert 2 < len(order_table(CATEGORY, some).entries) < len(table.entries)


def test_rank_correlations_and_their_interval():
    rng = np.random.default_rng(0)
    real = rng.random(20)
    near, far = real + 0.05 * rng.random(20), rng.random(20)
    assert rank_correlation(real, np.exp(real)) == pytest.approx(1)
    low, high = correlation_gain(real, near, far, 1)
    assert 0 < low < high < 2
    low, high = correlation_gain(real, near, near, 1)
    assert low == high == 0


def test_rows_of_one_run_are_no_evidence_of_their_own():
    """Every row four times over: the interval stays that of the runs, where counting rows would halve it."""
    rng = np.random.default_rng(0)
    real = rng.random(10)
    second, first = real + 0.5 * rng.random(10), real + rng.random(10)
    once = correlation_gain(real, second, first, 1)
    lists = [np.repeat(values, 4) for values in (real, second, first)]
    assert correlation_gain(*lists, 1, np.repeat(range(10), 4)) == pytest.approx(once)
    low, high = correlation_gain(*lists, 1)
    assert high - low < 0.7 * (once[1] - once[0])


def test_the_table_counts_runs_and_names_the_command_where_there_are_none(records):
    runs = {entry.run("real", CATEGORY) for entry in entries()}
    said = f"The {len(entries())} rows come from {len(runs)} runs"
    table = order_table(CATEGORY, records)
    assert len(runs) < len(entries()) and said in table.to_markdown()
    told = runs_of(table.frame["Method"][:-2])
    own = [entry.run("real", CATEGORY) for entry in entries()]
    assert [told.index(one) for one in told] == [own.index(run) for run in own]
    with pytest.raises(ResultError, match=f"mafr survey --scores --categories {CATEGORY}"):
        order_table(CATEGORY, {source: {} for source in SOURCES})


def test_rows_need_every_source(records):
    entry = entries()[0]
    without = {source: dict(found) for source, found in records.items()}
    del without["first"][entry.run("first", CATEGORY)]
    assert entry not in values_of(without, CATEGORY, "i_auroc")
    assert dataclasses.replace(entry) in values_of(records, CATEGORY, "i_auroc")


def test_scores_need_a_published_category_with_processed_scans(tmp_path, capsys):
    assert main(["survey", "--data-root", str(tmp_path), "--scores"]) == 1
    assert "holds no published category" in capsys.readouterr().err
    (tmp_path / "processed/eyecandies/CandyCane").mkdir(parents=True)
    assert main(["survey", "--data-root", str(tmp_path), "--scores"]) == 1
    assert "mvtec3d holds no published category" in capsys.readouterr().err
    (tmp_path / "processed/mvtec3d/cable_gland").mkdir(parents=True)
    assert main(["survey", "--data-root", str(tmp_path), "--scores", "--categories", "bagel"]) == 1
    assert "cable_gland" in capsys.readouterr().err
