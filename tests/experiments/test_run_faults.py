"""Files of a finished run that are not what was written: one line where they are read, made again where runs are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support import fake_results, rawdata

from mafr.baselines.registry import load_detector
from mafr.config import Config
from mafr.errors import DataError, StorageError, WeightsError
from mafr.experiments import execute as execution
from mafr.experiments.execute import execute
from mafr.experiments.plan import Run
from mafr.experiments.results import load_result
from mafr.experiments.run_store import finished_record, load_maps, load_residuals, read_record
from mafr.features.sources.splits import extract_features
from mafr.paths import Paths

CONFIG = rawdata.config(
    image_size=64, grid=32, groups=32, group_size=8, extractor_mode="batch-statistics", epochs=1, min_steps=0
)
RUNS = (Run("mvtec3d", "bracket", CONFIG), Run("mvtec3d", "bracket", CONFIG, method="depthvm"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Two finished runs; not to be changed."""
    paths = rawdata.home(tmp_path_factory.mktemp("home"), CONFIG)
    extract_features(paths, CONFIG, "mvtec3d", ["bracket"])
    for run in RUNS:
        execute(run, paths)
    return paths


@pytest.fixture
def paths(made: Paths, tmp_path: Path) -> Paths:
    """A copy of the runs, for a test to damage, beside the same data and features."""
    shutil.copytree(made.root / "runs", tmp_path / "runs")
    (tmp_path / "features").symlink_to(made.root / "features")
    return Paths.resolve("smoke", root=tmp_path, data_root=made.data_root)


def changed(**values: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        record = json.loads(path.read_text())
        del record[name]
        path.write_text(json.dumps(record))

    return change


def arrays(change: Callable[[dict], dict]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with np.load(path) as found:
            kept = change(dict(found))
        np.savez(path, **kept)

    return write


RECORDS = {
    "empty": lambda path: path.write_text(""),
    "a list": lambda path: path.write_text("[]"),
    "no text": lambda path: path.write_bytes(b"\xff\x00"),
    "nested without end": lambda path: path.write_text("[" * 100_000),
    "no metrics": without("metrics"),
    "no fingerprint": without("data_fingerprint"),
    "no samples": without("samples"),
    "metrics a list": changed(metrics=[]),
    "a map's metrics a list": changed(metrics={"product": [1]}),
    "scores for none": changed(scores={"product": []}),
    "null samples": changed(samples={"ids": None, "labels": None, "defects": None}),
}
ARRAYS = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "no archive": lambda path: path.write_bytes(b"PK cut off"),
    "an array missing": arrays(lambda found: dict(list(found.items())[1:])),
    "fewer samples": arrays(lambda found: {name: array[:2] for name, array in found.items()}),
    "another shape": arrays(lambda found: {name: array[..., :7] for name, array in found.items()}),
    "another type": arrays(lambda found: {name: array.astype(np.int64) for name, array in found.items()}),
}


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("damage", RECORDS)
def test_a_damaged_record_is_one_line_and_the_run_is_made_again(
    paths: Paths, capsys: pytest.CaptureFixture, damage: str
) -> None:
    run = RUNS[1]
    path, record = run.folder(paths) / "metrics.json", read_record(run, paths)
    RECORDS[damage](path)
    with pytest.raises(DataError, match=r"metrics\.json is damaged \(.*\); `mafr run .* makes it again$") as caught:
        read_record(run, paths)
    assert str(path) in one_line(caught)
    assert execute(run, paths)["metrics"] == record["metrics"] == read_record(run, paths)["metrics"]
    (said,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"mafr: {re.escape(str(path))} is damaged \(.*\); the run is made again", said)


@pytest.mark.parametrize("damage", ARRAYS)
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.method)
def test_damaged_maps_are_one_line_and_the_run_is_made_again(
    paths: Paths, capsys: pytest.CaptureFixture, run: Run, damage: str
) -> None:
    load, name = (load_residuals, "residuals.npz") if run.method == "mafr" else (load_maps, "maps.npz")
    path = run.folder(paths) / name
    before = [np.asarray(array) for array in load(run, paths)]
    ARRAYS[damage](path)
    with pytest.raises(DataError, match=rf"{name} is damaged \(.*\); `mafr run .* makes it again$") as caught:
        load(run, paths, 4)
    assert str(path) in one_line(caught)
    execute(run, paths)
    assert f"mafr: {path} is damaged" in capsys.readouterr().err
    for array, again in zip(before, load(run, paths, 4), strict=True):
        assert np.array_equal(array, again)


def test_a_flipped_byte_in_maps_is_found_when_they_are_read(paths: Paths) -> None:
    path = RUNS[0].folder(paths) / "residuals.npz"
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"residuals\.npz is damaged \(Bad CRC-32"):
        load_residuals(RUNS[0], paths)


def test_absent_maps_leave_a_run_finished(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are large; tables do without them."""
    (RUNS[0].folder(paths) / "residuals.npz").unlink()
    monkeypatch.setattr(execution, "method_class", lambda name: pytest.fail("trained again"))
    assert finished_record(RUNS[0], paths) == execute(RUNS[0], paths)
    with pytest.raises(DataError, match=r"residuals\.npz is missing"):
        load_residuals(RUNS[0], paths)


def test_a_file_in_the_place_of_the_runs_is_named(paths: Paths) -> None:
    shutil.rmtree(paths.root / "runs")
    (paths.root / "runs").write_text("")
    assert read_record(RUNS[1], paths) is None
    with pytest.raises(StorageError, match="runs is a file where a folder is needed"):
        execute(RUNS[1], paths)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\x00", b"[" * 100_000, b"{}"])
def test_a_damaged_record_of_a_detector_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "detector.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"detector\.json (cannot be read as|is no detector)") as caught:
        load_detector(tmp_path)
    assert str(tmp_path) in one_line(caught)


@pytest.fixture
def invented(tmp_path: Path) -> Iterator[tuple[Config, Paths]]:
    with fake_results.as_features():
        yield fake_results.write_runs(tmp_path, datasets=("mvtec3d",))


def test_figures_refuse_maps_of_other_samples(invented: tuple[Config, Paths]) -> None:
    config, paths = invented
    run = Run("mvtec3d", config.categories("mvtec3d")[0], config)
    ARRAYS["fewer samples"](run.folder(paths) / "residuals.npz")
    with pytest.raises(DataError, match=r"psi_rgb is \(2, 1, 14, 14\) of float32; \(8, 1, 14, 14\) of float32 exp"):
        load_result(run, paths)
