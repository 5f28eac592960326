"""The grid of runs and the run store: what is shared, what is repeated, what survives an interruption."""

import ctypes
import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.own_process import anonymous, measured

from mafr.baselines.btf import BTF
from mafr.baselines.registry import METHODS, method_class, method_settings
from mafr.config import CALIBRATED, FUSIONS, Config, concerns
from mafr.data import few_shot, open_dataset
from mafr.detector import Detector
from mafr.errors import ConfigError, DataError, MafrError, StorageError
from mafr.experiments import execute as execution
from mafr.experiments import run_store
from mafr.experiments.certainty import auroc_with_interval
from mafr.experiments.evaluation import all_metrics, map_metrics
from mafr.experiments.execute import execute, fit_and_score, run_all
from mafr.experiments.plan import TABLES, Run, all_runs, category_runs, compared_methods, table_runs
from mafr.experiments.provenance import peak_megabytes
from mafr.experiments.run_store import load_maps, load_residuals, read_record
from mafr.features.sources import splits
from mafr.features.sources.splits import extract_features, load_features, load_split
from mafr.features.sources.store import find_store
from mafr.memory import keep_freed_memory, release_freed_memory
from mafr.method import score_threshold
from mafr.scoring import ResidualMaps
from mafr.standardise import Scales


def test_the_grid_of_the_paper():
    config = Config.preset("demo")
    own = [len(table_runs(k, config, methods=("mafr",))) for k in (1, 2, 3, 4, 5)]
    assert own == [20, 20, 40, 40, 10]
    # Tables III-V reuse Table I's full runs of the paper's variant.
    assert len(all_runs(config, methods=("mafr",))) == 20 + 20 + 30 + 30
    assert len(all_runs(config, seeds=3, methods=("mafr",))) == 300
    # The compared methods: ten of Table I, six of Table II, four of Table III with three numbers of shots.
    assert len(all_runs(config)) == 100 + 100 + 60 + 120
    assert {run.method for run in all_runs(config)} == {"mafr", *compared_methods(TABLES)}
    assert [run.method for run in table_runs(2, config, ("paper",), ("cfm_m", "btf"))] == ["cfm_m"] * 10
    with pytest.raises(ConfigError, match="unknown table 6"):
        table_runs(6, config)


def test_a_run_is_named_by_what_decides_its_result():
    config = Config.preset("demo")
    run = Run("mvtec3d", "bagel", config)
    same = replace(config, shots=(1,), eyecandies_categories=("Lollipop",))
    assert Run("mvtec3d", "bagel", same).digest == run.digest
    others = [
        Run("mvtec3d", "tire", config),
        Run("mvtec3d", "bagel", config, shots=5),
        Run("mvtec3d", "bagel", replace(config, seed=1)),
        Run("mvtec3d", "bagel", replace(config, loss_terms=("sim",))),
        Run("mvtec3d", "bagel", config.with_variant("released")),
    ]
    assert len({r.digest for r in [run, *others]}) == 6


def test_a_setting_matters_to_the_methods_that_look_at_it():
    config = Config.preset("demo")

    def changed(method, **settings):
        run = Run("mvtec3d", "bagel", config, method=method)
        return run.digest != Run("mvtec3d", "bagel", replace(config, **settings), method=method).digest

    every = {"seed": 1, "grid": 56, "blur": "box"}
    assert all(changed(method, **{name: value}) for method in METHODS for name, value in every.items())
    assert [m for m in METHODS if changed(m, cfm_epochs=3)] == ["cfm", "cfm_m"]
    assert [m for m in METHODS if changed(m, bank_ratio=0.2)] == ["btf", "m3dm", "fpfh", "raw_depth", "hog", "sift"]
    assert [m for m in METHODS if changed(m, dropout=0.5)] == ["mafr"]
    sections = [base for base in Config.__mro__ if base.__module__ == "mafr.settings.compared"]
    names = {f.name for section in sections for f in dataclasses.fields(section)}
    unowned = [name for name in names if concerns("mafr", name) or not any(concerns(m, name) for m in METHODS)]
    assert not unowned
    # Both variants of MAFR stand beside one run of a compared method.
    assert table_runs(1, config, ("paper",), ("cfm",)) == table_runs(1, config, ("released",), ("cfm",))


def test_the_record_of_a_compared_method_holds_what_the_tables_need(smoke):
    config, paths = smoke
    for method, dataset in (("btf", "mvtec3d"), ("depthvm", "mvtec3d"), ("cfm_m", "eyecandies")):
        settings = method_settings(method, config, dataset=dataset)
        run = Run(dataset, config.categories(dataset)[0], settings, method=method)
        record = read_record(run, paths)
        assert set(record["metrics"]) == set(record["scores"]) == {"map"}
        assert record["memory"]["model_mb"] > 0 and record["timings"]["inference_s"] > 0
        charged = [name for name in ("extract_rgb_s", "extract_xyz_s") if record["timings"][name] > 0]
        read = {"btf": ["extract_rgb_s"], "depthvm": [], "cfm_m": ["extract_rgb_s", "extract_xyz_s"]}
        assert charged == read[method]
        assert ("query_s" in record["timings"]) == (method == "btf")
        if method == "btf":
            assert 0 < record["timings"]["query_s"] < record["timings"]["inference_s"]
        maps, scores = load_maps(run, paths), record["scores"]["map"]
        store = load_features(paths, dataset, run.category, "test", config)
        assert maps.shape == (len(store), config.image_size, config.image_size)
        labels = np.asarray(store.labels)
        measured = map_metrics(torch.from_numpy(maps.astype(np.float32))[:, None], np.array(scores),
                               store.gt(range(len(store))), labels, store.defects, config)  # fmt: skip
        assert measured["i_auroc"] == record["metrics"]["map"]["i_auroc"]
        # The stored maps are rounded to half precision.
        assert measured["aupro_30"] == pytest.approx(record["metrics"]["map"]["aupro_30"], abs=0.01)


@pytest.mark.parametrize("method", sorted(compared_methods(TABLES)))
def test_compared_methods_give_the_same_results_again(smoke, tmp_path, method):
    config, paths = smoke
    dataset = "eyecandies" if method in ("cfm_m", "rgbd", "rgbcdn") else "mvtec3d"
    settings = method_settings(method, config, dataset=dataset)
    run = Run(dataset, config.categories(dataset)[0], settings, method=method)
    first = read_record(run, paths)
    second = execute(run, replace(paths, root=linked(paths, tmp_path)))
    for name in ("metrics", "scores", "history", "threshold"):
        assert second[name] == first[name]


def test_a_method_of_no_table_runs_when_it_is_asked_for(smoke, tmp_path):
    config, paths = smoke
    paths = replace(paths, root=linked(paths, tmp_path))
    runs = category_runs("mvtec3d", "bagel", config, ("paper",), methods=("fpfh", "raw_depth", "hog", "sift"))
    assert not any(run.folder(paths).exists() for run in runs)
    for run, record in run_all(runs, paths).items():
        assert set(record["metrics"]) == {"map"} and record["method"] == run.method
        assert record["timings"]["extract_rgb_s"] == record["timings"]["extract_xyz_s"] == 0
        assert 0 < record["timings"]["query_s"] < record["timings"]["inference_s"]
        assert load_maps(run, paths).shape[1:] == (config.image_size,) * 2


def test_features_drawn_again_in_training_repeat_from_end_to_end(smoke, tmp_path):
    config, paths = smoke
    config = replace(config, extractor_mode="train", epochs=1, min_steps=0)
    run, records = Run("mvtec3d", "bagel", config, 2), []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        records.append(execute(run, replace(paths, root=linked(paths, tmp_path / name))))
    for name in ("metrics", "scores", "history", "threshold"):
        assert records[0][name] == records[1][name]
    train, good = ([*open_dataset("mvtec3d", paths.processed("mvtec3d"), "bagel", split, config)][:2]
                   for split in ("train", "validation"))  # fmt: skip
    detector = Detector(config).fit(train, show=False)
    assert detector.calibrate(good) > 0 and detector.predict(good[0]).score == detector.predict(good[0]).score
    with pytest.raises(ConfigError, match="extractor_mode 'eval'"):
        method_class("cfm")(config).fit(train)
    with pytest.raises(ConfigError, match="extractor_mode 'eval'"):
        category_runs("mvtec3d", "bagel", config, ["paper"], methods=["cfm"])


def test_times_of_full_runs_hold_what_few_shot_runs_may_find_computed(smoke, tmp_path):
    """The FPFH of a sample may lie in a few-shot run's cache; a full run, which the cost table reads, computes them."""
    config, paths = smoke
    used = []

    class Watched(BTF):
        def train(self, split, indices, show):
            used.append(split.cache)
            super().train(split, indices, show)

        def score(self, split, k):
            used.append(split.cache)
            return super().score(split, k)

    category = config.categories("mvtec3d")[0]
    parts = {name: load_split(paths, "mvtec3d", category, name, config) for name in ("train", "test", "validation")}
    tested = len(parts["test"])
    fit_and_score(Watched(config), parts, [0, 1], None, whole=True)
    assert set(used[: 1 + tested]) == {None}
    used.clear()
    fit_and_score(Watched(config), parts, [0, 1], None, whole=False)
    assert None not in used


def test_good_validation_samples_are_answered_once(smoke, monkeypatch):
    config, paths = smoke
    parts = {name: load_split(paths, "mvtec3d", "bagel", name, config) for name in ("train", "test", "validation")}
    answer, asked = Detector.answer, []

    def watched(self, split, indices):
        asked.append(split.store.split)
        return answer(self, split, indices)

    monkeypatch.setattr(Detector, "answer", watched)
    made = fit_and_score(Detector(config), parts, [0, 1], None, whole=False)
    assert asked == ["validation", "test"]
    good = answer(made.method, parts["validation"], np.flatnonzero(parts["validation"].labels == 0).tolist())
    assert made.method.threshold == score_threshold(good.final(good.main)[1], config.quantile)


def linked(paths, folder):
    """A root with the same data and features, and no runs."""
    for name in ("data", "features"):
        (folder / name).symlink_to(paths.root / name)
    return folder


def test_few_shot_subsets_are_nested_and_never_repeat():
    subsets = [few_shot(n, 80, seed=115) for n in (5, 10, 50, 80)]
    for small, large in itertools.pairwise(subsets):
        assert set(small) < set(large)
    assert [len(set(s)) for s in subsets] == [5, 10, 50, 80]
    assert few_shot(5, 80, seed=1) != subsets[0]
    with pytest.raises(MafrError, match="81"):
        few_shot(81, 80, seed=0)


def test_a_record_holds_what_the_tables_and_a_reader_need(smoke):
    config, paths = smoke
    record = read_record(Run("mvtec3d", "bagel", config), paths)
    assert set(record["metrics"]) == {*FUSIONS, *CALIBRATED}
    assert Config.from_dict(record["config"]) == config
    assert record["counts"] == {
        "train": config.mvtec3d_train,
        "validation": config.validation_count,
        "test_good": config.test_good,
        "test_defective": config.test_defective,
    }
    for how, values in record["metrics"].items():
        assert all(0 <= values[name] <= 1 for name in ("i_auroc", "p_auroc", "aupro_30", "aupro_01", "aupro99_30"))
        value, low, high = auroc_with_interval(record, how)
        assert value == values["i_auroc"] and low <= value <= high
    for name in ("seed", "versions", "git_commit", "data_fingerprint", "timings", "memory", "threshold", "history"):
        assert name in record


def test_the_peak_of_memory_is_the_process_s_own():
    """Not that of the process which started it."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    code = "from mafr.experiments.provenance import peak_megabytes; print(peak_megabytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 100 < peak_megabytes()  # torch is loaded here, not there


def test_a_run_begins_without_the_memory_that_the_one_before_has_freed(smoke, monkeypatch):
    config, paths = smoke
    released = []
    monkeypatch.setattr(execution, "release_freed_memory", lambda: released.append(True))
    execute(Run("mvtec3d", "bagel", replace(config, seed=8), 2), paths)
    assert released == [True]
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("needs glibc")

    held, left = measured(memory_of_freed_blocks)
    assert held > 200 * 1024 and left < 100 * 1024  # kB


def memory_of_freed_blocks() -> tuple[int, int]:
    """Anonymous memory, kB, that 300 freed MB still hold, and what they hold once it is given back."""
    keep_freed_memory()
    release_freed_memory()  # gaps that the blocks might fill
    before = anonymous()
    blocks = [torch.ones(2**18) for _ in range(300)]  # 1 MB each
    del blocks[:-1]  # the last one lies above the gap
    held = anonymous() - before
    release_freed_memory()
    return held, anonymous() - before


def test_stored_residuals_give_the_stored_metrics(smoke):
    config, paths = smoke
    run = Run("mvtec3d", "bagel", config)
    store = load_features(paths, "mvtec3d", "bagel", "test", config)
    psi_rgb, psi_xyz, valid = load_residuals(run, paths)
    everything = range(len(store))
    mask = torch.from_numpy(store.mask(everything))[:, None]
    labels = np.asarray(store.labels)
    record = read_record(run, paths)
    answer = ResidualMaps(psi_rgb, psi_xyz, valid, mask, config, Scales.from_dict(record["scales"]))
    metrics, _ = all_metrics(answer, store.gt(everything), labels, store.defects)
    assert metrics == record["metrics"]
    maps = answer.maps("product")
    assert maps.shape == (len(store), 1, config.image_size, config.image_size)
    with pytest.raises(MafrError, match="good and anomalous"):
        all_metrics(answer, store.gt(everything), 0 * labels, store.defects)


def test_finished_runs_are_read_and_changed_ones_repeated(smoke, monkeypatch):
    config, paths = smoke
    trained = []
    again = lambda config: trained.append(config) or pytest.fail("trained again")  # noqa: E731
    monkeypatch.setattr(execution, "method_class", lambda name: again)
    assert execute(Run("mvtec3d", "bagel", config), paths)["profile"] == "smoke"
    assert not trained
    with pytest.raises(pytest.fail.Exception):
        execute(Run("mvtec3d", "bagel", replace(config, seed=7)), paths)


def test_finished_runs_of_one_category_are_found_with_one_look_at_the_data(smoke, monkeypatch):
    config, paths = smoke
    runs = [run for run in table_runs(5, config) if run.category == "bagel"]
    runs += [replace(run, config=replace(run.config, seed=3), shots=2) for run in runs]
    first, looks, look = run_all(runs, paths), [], run_store.run_splits
    monkeypatch.setattr(run_store, "run_splits", lambda run, paths: looks.append(run) or look(run, paths))
    assert run_all(runs, paths) == first
    assert len(runs) > 1 and len(looks) == 1


def test_repeated_runs_are_equal_whatever_the_workers(smoke, tmp_path):
    config, paths = smoke
    runs = [Run("mvtec3d", c, replace(config, seed=3), 2) for c in config.categories("mvtec3d")]
    first = run_all(runs, paths, workers=1)
    for run in runs:
        (run.folder(paths) / "metrics.json").unlink()
    second = run_all(runs, paths, workers=2)
    for a, b in zip(first.values(), second.values(), strict=True):
        for name in ("metrics", "scores", "history", "threshold", "run_digest", "data_fingerprint"):
            assert a[name] == b[name]


def test_an_interrupted_write_leaves_no_record_and_the_others_intact(smoke, monkeypatch):
    config, paths = smoke
    run = Run("mvtec3d", "bagel", replace(config, seed=4), 2)
    before = sorted(paths.runs("mvtec3d").glob("*/*/metrics.json"))

    def full_disk(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mafr.paths.Path.write_bytes", full_disk)
    with pytest.raises(StorageError, match=r"mafr-\w+/detector: the disk is full \(.* free, .* more needed\)"):
        execute(run, paths)
    monkeypatch.undo()
    assert sorted(paths.runs("mvtec3d").glob("*/*/metrics.json")) == before
    assert not list(run.folder(paths).rglob("*.tmp"))
    assert execute(run, paths)["seed"] == 4


def test_a_full_disk_while_features_are_written_is_an_error_and_leaves_nothing(smoke, monkeypatch):
    config, paths = smoke
    other = replace(config, groups=48)

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full_disk)
    folder = paths.features("mvtec3d") / "bagel"
    before = sorted(folder.iterdir())
    with pytest.raises(StorageError, match=r"mvtec3d/bagel.*: the disk is full \(.* free, .* more needed\)"):
        extract_features(paths, other, "mvtec3d", ["bagel"])
    assert sorted(folder.iterdir()) == before


def test_anomalous_training_samples_are_refused(smoke, monkeypatch):
    config, paths = smoke

    def mislabelled(*arguments, **options):
        store = find_store(*arguments, **options)
        if store.split == "train":
            store.labels[1] = 1
        return store

    monkeypatch.setattr(splits, "find_store", mislabelled)
    with pytest.raises(DataError, match=r"train/good/\d+ is an anomalous sample"):
        execute(Run("mvtec3d", "bagel", replace(config, seed=6)), paths)


def test_a_damaged_record_is_named(smoke, tmp_path):
    config, paths = smoke
    run = Run("mvtec3d", "bagel", replace(config, seed=5))
    path = run.folder(paths) / "metrics.json"
    path.parent.mkdir(parents=True)
    for content in ("{", "{}", "[]"):
        path.write_text(content)
        with pytest.raises(DataError, match=r"metrics\.json is damaged"):
            read_record(run, paths)
    (path.parent / "residuals.npz").write_bytes(b"PK cut off")
    with pytest.raises(DataError, match=r"residuals\.npz is damaged"):
        load_residuals(run, paths)
    shutil.rmtree(path.parent)  # other tests read every record of this store
    assert json.loads((Run("mvtec3d", "bagel", config).folder(paths) / "metrics.json").read_text())


def test_missing_features_name_the_command(smoke):
    config, paths = smoke
    with pytest.raises(DataError, match="mafr features --profile smoke"):
        load_features(paths, "mvtec3d", "bagel", "test", replace(config, groups=32))
