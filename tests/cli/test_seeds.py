"""`mafr seeds`: the runs of three seeds and Table S4, made once and then only read."""

import csv
import re
import shutil
import statistics
from dataclasses import replace

import pytest

from mafr.cli import main
from mafr.cli.reproduce import make_tables
from mafr.config import DATASETS, VARIANTS
from mafr.errors import ResultError
from mafr.experiments.plan import SEEDS, TABLES, all_runs, seed_methods, seed_runs
from mafr.experiments.run_store import read_record, read_records
from mafr.method import Method
from mafr.tables.seeds import METRICS, seeds_table


@pytest.fixture(scope="module")
def seeded(smoke, tmp_path_factory):
    """A root with the data, the features and, copied, the runs of the smoke profile; then `mafr seeds`."""
    config, paths = smoke
    root = tmp_path_factory.mktemp("seeds")
    for name in ("data", "features"):
        (root / name).symlink_to(paths.root / name)
    shutil.copytree(paths.root / "runs", root / "runs")
    before = set((paths.root / "features").rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAFR_HOME", str(root))
        assert main(["seeds", "--profile", "smoke", "--workers", "1"]) == 0
    assert set((paths.root / "features").rglob("*")) == before  # the same for all seeds
    return config, replace(paths, root=root)


def written(paths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.tables.iterdir()}


def test_the_runs_are_those_of_tables_1_and_2_with_two_more_seeds(smoke):
    config, _ = smoke
    runs = seed_runs(config)
    assert len(runs) == len(set(runs)) == SEEDS * 4 * 4 == 3 * 16
    assert {run.config.seed for run in runs} == {config.seed, config.seed + 1, config.seed + 2}
    assert {run.method for run in runs} == {"mafr", "cfm", "ast", "m3dm"}
    assert {run.variant for run in runs} == {"paper", ""} and {run.shots for run in runs} == {None}
    first = [run for run in runs if run.config.seed == config.seed]
    assert set(first) < set(all_runs(config))  # those that `mafr reproduce` has made


def test_a_second_seed_is_another_training(seeded):
    config, paths = seeded
    for run in (run for run in seed_runs(config) if run.config.seed == config.seed):
        one, two = (read_record(run.seeded(config.seed + k), paths) for k in (0, 1))
        assert one["scores"] != two["scores"] and two["seed"] == config.seed + 1
        assert one["data_fingerprint"] == two["data_fingerprint"] and one["samples"] == two["samples"]


def test_what_is_finished_is_not_made_again(seeded, monkeypatch):
    config, paths = seeded
    monkeypatch.setenv("MAFR_HOME", str(paths.root))
    before, trained, fit = written(paths), [], Method.fit_split

    def counted(method, *arguments, **named):
        trained.append((type(method).__name__, method.config.seed))
        return fit(method, *arguments, **named)

    monkeypatch.setattr(Method, "fit_split", counted)
    assert main(["seeds", "--profile", "smoke"]) == 0
    assert not trained and written(paths) == before
    run = next(run for run in seed_runs(config) if run.method == "cfm" and run.config.seed == config.seed + 2)
    shutil.rmtree(run.folder(paths))
    assert main(["seeds", "--profile", "smoke", "--workers", "1"]) == 0
    assert trained == [("CFM", config.seed + 2)] and written(paths) == before


def test_the_numbers_are_those_of_the_records(seeded):
    config, paths = seeded
    lines = list(csv.DictReader((paths.tables / "tableS4.csv").open()))
    by_name = {(line["Data set"], line["Category"], line["Method"]): line for line in lines}
    assert len(by_name) == len(lines) == 2 * 4 * (1 + 2)
    assert [line["Category"] for line in lines[:8]] == ["mean"] * 8
    for dataset in DATASETS:
        title = config.dataset_title(dataset)
        for method in seed_methods(dataset, config):
            found = []  # a list of metrics by seed for each category
            for run in method.runs(dataset, config):
                records = [read_record(run.seeded(config.seed + k), paths) for k in range(3)]
                name = "product" if run.variant else "map"
                found.append([[record["metrics"][name][metric] for metric in METRICS] for record in records])
                check(by_name[title, run.category, method.title], found[-1])
            by_seed = zip(*found, strict=True)  # for each seed, the metrics of every category
            means = [[statistics.fmean(values) for values in zip(*seed, strict=True)] for seed in by_seed]
            check(by_name[title, "mean", method.title], means)


def check(line: dict[str, str], seeds: list[list[float]]) -> None:
    """A row against the metrics of each seed."""
    assert line["seeds"] == "115 116 117" and line["profile"] == "smoke" and "NOT comparable" in line["data"]
    for metric, values in zip(METRICS, zip(*seeds, strict=True), strict=True):
        assert float(line[metric]) == pytest.approx(statistics.fmean(values), abs=6e-7)
        assert float(line[f"{metric}_std"]) == pytest.approx(statistics.stdev(values), abs=6e-7)


def test_the_printed_table_says_what_it_is(seeded):
    _, paths = seeded
    text = (paths.tables / "tableS4.md").read_text()
    assert "The spread over 3 seeds" in text and "seed 115, 116, 117" in text and "sample standard deviation" in text
    assert len(re.findall(r"\d ± \d", text)) == 3 * 24 and "| MVTec 3D-AD stand-in | mean | MAFR, paper |" in text
    assert r"$\pm$" in (paths.tables / "tableS4.tex").read_text()


def test_other_tables_neither_drop_it_nor_take_its_seeds(seeded, smoke):
    config, paths = seeded
    before = {name: content for name, content in written(paths).items() if name.startswith("tableS4")}
    make_tables(config, paths, VARIANTS, 1, TABLES)
    after = written(paths)
    assert before and before.items() <= after.items()
    assert after["table1.csv"] == (smoke[1].tables / "table1.csv").read_bytes()


def test_a_seed_without_all_runs_is_no_table(seeded):
    config, paths = seeded
    records = read_records(seed_runs(config), paths)
    del records[next(run for run in records if run.config.seed == config.seed + 1)]
    with pytest.raises(ResultError, match=f"runs of seed {config.seed + 1} are missing; `mafr seeds --profile smoke`"):
        seeds_table(records, config)
