"""The ladder from the demo's settings to the preset for own parts, and its table."""

from dataclasses import replace

import numpy as np
import pytest

from mafr.cli import main
from mafr.cli.develop import STUDIES
from mafr.config import CATEGORIES, DATASETS, DEVELOPMENT, Config
from mafr.detector import Detector
from mafr.experiments.development import DATA, ON_TABLES, ladder, left_out, on_demo, preset, start, studies
from mafr.experiments.execute import execute, run_all
from mafr.experiments.plan import Run
from mafr.experiments.prepare import extract_for
from mafr.experiments.run_store import RECORD
from mafr.features.sources import splits
from mafr.paths import Paths
from mafr.tables.development import development_table


def test_the_ladder_leads_from_the_demo_to_the_preset_and_names_every_setting_once():
    steps = ladder().steps
    assert steps[-1].config == preset() == Config.preset("parts", overrides=DATA)
    assert not left_out()
    demo, first = Config.preset("demo"), start()
    same = {"epochs", "fusion", "view", "point_backbone", "rgb_backbone", "scored", "sigma", "schedule", "min_steps"}
    assert all(getattr(first, name) == getattr(demo, name) for name in same)
    assert all(step.before == number - 1 for number, step in enumerate(steps) if number)
    assert len({run.digest for step in steps for run in step.runs()}) >= len(DEVELOPMENT) * (len(steps) - 1)


def test_choices_are_made_on_categories_of_no_table():
    assert not set(DEVELOPMENT) & {name for names in CATEGORIES.values() for name in names}
    chosen_on = [study for study in studies() if study.name not in ON_TABLES]
    runs = [run for study in chosen_on for step in study.steps for run in step.runs()]
    assert {run.category for run in runs} == set(DEVELOPMENT)
    assert {run.config.generator for run in runs} == {"second"} and all(run.config.generated for run in runs)


def test_the_preset_is_measured_on_the_very_scans_of_the_tables(tmp_path):
    demo, preset_there = Config.preset("demo"), on_demo()
    place = Paths.resolve("parts", tmp_path)
    assert tuple(ON_TABLES) == DATASETS
    for study in (study for study in studies() if study.name in ON_TABLES):
        dataset = study.name
        assert preset_there.data_digest(dataset) == demo.data_digest(dataset)
        first, *others = study.steps
        assert first.config == preset_there and {step.before for step in others} == {0}
        # The demo's own row is the table's but for the names of profile and settings without meaning here.
        assert others[-1].config.feature_digest() == demo.feature_digest()
        for step in study.steps:
            assert step.place(place).data == Paths.resolve("demo", tmp_path).data
            assert [run.category for run in step.runs()] == list(CATEGORIES[dataset])


def _record(seed, gain, operators):
    rng = np.random.default_rng(seed)
    labels = [0] * 10 + [1] * 12
    scores = (rng.normal(size=22) + gain * np.array(labels)).tolist()
    metrics = {"i_auroc": gain, "p_auroc": 0.9, "aupro_30": 0.8, "aupro_01": 0.3}
    return {
        "samples": {"labels": labels}, "scores": dict.fromkeys(operators, scores),
        "metrics": dict.fromkeys(operators, metrics),
    }  # fmt: skip


def test_the_table_shows_finished_rows_and_paired_differences():
    study = ladder()
    steps = study.steps
    operators = ("product", "calibrated_sum")
    records = {
        run: _record(number, 0.5 + 0.1 * k, operators)
        for k, step in enumerate(steps[:3]) for number, run in enumerate(step.runs())
    }  # fmt: skip
    records.pop(steps[0].runs()[0])  # an unfinished row
    table = development_table(study, records)
    assert [row.labels[0] for row in table.entries] == [step.name for step in steps[1:3]]
    assert "difference_mean" not in table.entries[0].values, "there is no finished row before it"
    later = table.entries[1].values
    assert later["difference_low"] <= later["difference_mean"] <= later["difference_high"]
    assert later["i_auroc"] == pytest.approx(0.7)
    assert "GENERATED" in table.to_markdown()


def test_each_set_of_features_is_extracted_once_for_all_its_categories(monkeypatch):
    asked = []
    monkeypatch.setattr(splits, "extract_features", lambda p, config, d, them, w: asked.append((config, them)))
    extract_for([run for step in ladder().steps for run in step.runs()], None)
    digests = [config.feature_digest() for config, _ in asked]
    assert len(digests) == len(set(digests)) == len({step.config.feature_digest() for step in ladder().steps})
    assert all(them == list(DEVELOPMENT) for _, them in asked)


def test_names_of_the_tables_are_those_of_the_command_line():
    assert tuple(study.name for study in studies()) == STUDIES


def test_a_run_that_takes_another_s_head_is_as_if_it_was_trained(smoke, monkeypatch):
    config, paths = smoke
    first = Run("mvtec3d", "bagel", config, 3)
    scored = {"fusion": "calibrated_sum", "sigma": 2.0, "scored": "filled", "expected_share": 0.5}
    second = replace(first, config=replace(config, **scored))
    longer = replace(first, config=replace(config, epochs=config.epochs + 1))
    assert first.head_digest == second.head_digest != longer.head_digest
    execute(first, paths)
    trained = execute(second, paths)
    (second.folder(paths) / RECORD).unlink()
    monkeypatch.setattr(Detector, "fit_split", lambda *args, **more: pytest.fail("trained again"))
    taken = run_all([second], paths, 1, {first.head_digest: first})[second]
    for name in ("metrics", "scores", "threshold", "scales", "history"):
        assert taken[name] == trained[name]


def test_without_finished_runs_the_command_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAFR_HOME", str(tmp_path))
    assert main(["develop", "--tables-only"]) == 1
    assert "leave out --tables-only" in capsys.readouterr().err
    assert main(["develop", "laddder"]) == 1
    assert "ladder, alternatives" in capsys.readouterr().err
