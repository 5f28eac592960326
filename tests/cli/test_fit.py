"""`mafr fit`: it says what to expect, and takes features from the store that `mafr run` fills."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import rawdata

from mafr import training
from mafr.baselines.registry import load_detector, method_class
from mafr.cli import main
from mafr.config import Config
from mafr.data import open_dataset, preprocess
from mafr.detector import Detector
from mafr.errors import MafrError
from mafr.features.extract import FeatureExtractor
from mafr.paths import Paths

SETTINGS = {"image_size": 64, "grid": 32, "groups": 32, "group_size": 8, "epochs": 1, "min_steps": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rawdata.home(tmp_path_factory.mktemp("home"), rawdata.config()).data


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAFR_HOME", str(tmp_path))
    return tmp_path


def command(name: str, data: Path, *more: str) -> list[str]:
    changes = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    return [name, "--profile", "smoke", "--data-root", str(data), *changes, "--category", "bracket", *more]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def settings() -> Config:
    return Config.preset("smoke", overrides={"generated": False} | SETTINGS)


def test_the_detector_is_that_of_the_samples_to_the_byte_and_a_second_fit_extracts_nothing(
    data: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, validation = (open_dataset("mvtec3d", data / "processed/mvtec3d", "bracket", split, settings())
                         for split in ("train", "validation"))  # fmt: skip
    direct = Detector(settings()).fit(train, show=False)
    direct.calibrate(validation)
    assert main(command("fit", data, "--out", str(home / "first"))) == 0
    assert content(home / "first") == content(direct.save(home / "direct"))
    store = Paths.resolve("smoke").features("mvtec3d") / "bracket"
    assert sorted(path.name.partition("-")[0] for path in store.iterdir()) == ["train", "validation"]  # not the test's
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "from_config", None)  # no backbone is even loaded
        assert main(command("fit", data, "--out", str(home / "second"))) == 0
    assert content(home / "second") == content(home / "first")


def test_fit_and_run_share_their_features(data: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(command("fit", data, "--out", str(home / "own"))) == 0
    extracted, encode = [], FeatureExtractor.encode
    monkeypatch.setattr(FeatureExtractor, "encode", lambda self, batch, draw=0: (
        extracted.extend(one.name for one in batch), encode(self, batch, draw))[1])  # fmt: skip
    assert main(command("run", data, "--variant", "paper", "--workers", "1")) == 0
    assert extracted and all(name.startswith("test/") for name in extracted)
    (folder,) = Paths.resolve("smoke").runs("mvtec3d").glob("bracket/mafr-*/detector")
    assert content(folder)["model.safetensors"] == content(home / "own")["model.safetensors"]
    ran, own = load_detector(folder), load_detector(home / "own")
    assert ran.validation_scores == pytest.approx(own.validation_scores) and len(own.validation_scores) == 1


def test_it_says_scores_threshold_false_alarms_and_too_few_parts(data: Path, home: Path, capsys) -> None:
    assert main(command("fit", data, "--method", "depthvm", "--out", str(home / "out"))) == 0
    lines = capsys.readouterr().out.splitlines()
    record = json.loads((home / "out" / "detector.json").read_text())
    score = f"{record['validation_scores'][0]:.4g}"
    assert record["threshold"] == record["validation_scores"][0]
    assert lines[0].endswith(f"out; threshold {score}, the 95% quantile of the good validation scores")
    assert lines[1:3] == ["validation scores, 1 from the highest down, * above the threshold:", f"  {score}"]
    assert lines[3].startswith("expected of new good parts to be called not OK: 50%, 95% interval 0% to 98% (")
    assert lines[4].startswith("warning: 1 good validation part is too few") and "At least 19 would do" in lines[4]
    assert record["false_alarms"]["expected"] == 0.5
    assert not (home / "features").exists()  # the method reads none


@pytest.mark.parametrize(("split", "text"), [
    ("train", "train on good samples only"), ("validation", "validation: no good sample to take the threshold from"),
])  # fmt: skip
def test_mislabelled_parts_cost_no_extraction(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys, split: str, text: str
) -> None:
    raw = rawdata.write_mvtec3d(tmp_path / "raw/mvtec3d") / split
    (raw / "good").rename(raw / "bent")
    for path in (raw / "bent" / "rgb").iterdir():
        rawdata.write_png(raw / "bent" / "gt" / path.name, rawdata.mask(True))
    preprocess("mvtec3d", tmp_path / "raw/mvtec3d", tmp_path / "processed/mvtec3d", rawdata.config())
    monkeypatch.setattr(FeatureExtractor, "from_config", None)
    assert main(command("fit", tmp_path, "--out", str(home / "out"))) == 1
    assert text in capsys.readouterr().err


def test_drawn_features_are_in_no_store_and_score_as_before(data: Path, home: Path) -> None:
    config = Config.preset("smoke", overrides={"generated": False, "extractor_mode": "train"} | SETTINGS)
    train, validation = (open_dataset("mvtec3d", data / "processed/mvtec3d", "bracket", split, config)
                         for split in ("train", "validation"))  # fmt: skip
    direct = Detector(config).fit(train, show=False)
    direct.calibrate(validation)
    assert main(command("fit", data, "--set", "extractor_mode=train", "--out", str(home / "out"))) == 0
    assert content(home / "out") == content(direct.save(home / "direct"))
    assert not (home / "features").exists() and np.isfinite(direct.threshold)


def test_own_parts_get_the_preset_unless_a_profile_is_named(data: Path, home: Path, capsys) -> None:
    """Its sizes made small: which features, maps and scores it takes does not depend on them."""
    small = {"image_size": 64, "grid": 8, "groups": 32, "epochs": 1, "min_steps": 4}
    changes = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    asked = ["fit", "--data-root", str(data), "--category", "bracket", *changes, "--out", str(home / "own")]
    assert main(asked) == 0
    record = json.loads((home / "own/detector.json").read_text())
    config = record["config"]
    assert (config["profile"], config["view"], config["fusion"]) == ("parts", "part", "calibrated_sum")
    assert not config["generated"] and np.array(record["scales"]["mean"]).shape == (2, 3)
    own = load_detector(home / "own")
    assert own.expected is not None and len(own.validation_scores) == 1
    test = open_dataset("mvtec3d", data / "processed/mvtec3d", "bracket", "test", own.config)
    again = own.predict(test[0])
    assert again.psi.shape == (64, 64) and again.score >= 0
    assert not again.psi_rgb[~test[0].valid[0]].any() or own.config.scored == "filled"
    assert main([*asked, "--method", "depthvm"]) == 0
    assert json.loads((home / "own/detector.json").read_text())["config"]["profile"] == "demo"
    capsys.readouterr()


@pytest.mark.parametrize("blocked", ["a file", "a file above"])
def test_a_place_that_takes_no_detector_is_named_before_the_training(
    data: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys, blocked: str
) -> None:
    (home / "out").write_text("")
    monkeypatch.setattr(Detector, "train", None)
    out = home / "out" if blocked == "a file" else home / "out" / "a" / "b"
    assert main(command("fit", data, "--out", str(out))) == 1
    assert f"{home / 'out'} is a file where a folder is needed" in capsys.readouterr().err
    assert not (home / "features").exists()


@pytest.mark.parametrize("error", [MafrError("the loss became nan"), KeyboardInterrupt()])
def test_a_training_that_fails_leaves_no_folder(
    data: Path, home: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        assert (home / "new" / "out").is_dir()
        raise error

    monkeypatch.setattr(method_class("depthvm"), "train", fail)
    assert main(command("fit", data, "--method", "depthvm", "--out", str(home / "new" / "out"))) > 0
    assert not (home / "new").exists()


def test_an_interrupted_training_goes_on_to_the_same_bytes(
    data: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def fit(out: str, *more: str) -> list[int]:
        """The exit status, then the epochs that were trained."""
        epochs.clear()
        return [main([*command("fit", data), "--set", "epochs=3", *more, "--out", str(home / out)]), *epochs]

    def counted(*arguments: object) -> dict[str, float]:
        epochs.append(arguments[5])
        if epochs[-1] == stop:
            raise KeyboardInterrupt
        return one_epoch(*arguments)

    epochs, one_epoch, stop = [], training._epoch, 2
    monkeypatch.setattr(training, "_epoch", counted)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    assert fit("out") == [130, 0, 1, 2]
    (state,) = (home / "out").iterdir()
    assert f"interrupted; features that are stored are kept, the same command goes on with the state in {state}" in (
        capsys.readouterr().err
    )
    assert fit("other", "--set", "seed=1") == [130, 0, 1, 2]
    (home / "out" / next((home / "other").iterdir()).name).touch()  # of other settings: neither taken nor kept
    stop = None
    assert fit("out") == [0, 2]
    assert fit("whole") == [0, 0, 1, 2]
    assert content(home / "out") == content(home / "whole")
    stop = 0
    assert fit("none", "--set", "seed=2") == [130, 0]
    assert "the same command starts anew" in capsys.readouterr().err and not (home / "none").exists()
