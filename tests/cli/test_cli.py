"""The command line: it teaches, it predicts, and bad input ends in one clear line and exit status 1."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from mafr.cli import main
from mafr.config import Config
from mafr.errors import ConfigError
from mafr.experiments.plan import Run
from mafr.experiments.run_store import read_record
from mafr.tables.published import METRIC_TITLES


@pytest.fixture
def at_smoke(smoke, monkeypatch):
    config, paths = smoke
    monkeypatch.setenv("MAFR_HOME", str(paths.root))
    return config, paths


def refused(capsys, *arguments: str) -> str:
    """Run a command that must fail: its one-line message."""
    assert main(list(arguments)) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("mafr: ")]
    return line


def test_help_teaches(capsys):
    for arguments in (["--help"], ["run", "--help"], ["predict", "--help"], ["data", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "mafr reproduce --profile smoke" in text
    assert "mafr predict --detector" in text


@pytest.mark.parametrize(("encoding", "spread"), [("ascii", "mean +- deviation"), ("latin-1", "mean ± deviation")])
def test_help_degrades_where_the_output_has_no_such_characters(encoding, spread):
    code = "import sys; from mafr.cli import main; sys.exit(main(['reproduce', '--help']))"
    own = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=own, check=True)
    text = done.stdout.decode(encoding)
    assert "1,2,..." in text and spread in text and not done.stderr


def test_results_and_messages_degrade_too(monkeypatch):
    def show(arguments) -> None:
        print("0.95 ± 0.01 → 3 × 3, größe, 漢")
        raise ConfigError("größe→ is unknown")

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    monkeypatch.setattr("mafr.cli.inputs.print_settings", show)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["config"]) == 1
    for stream in (out, err):
        stream.flush()
    assert out.buffer.getvalue() == b"0.95 +- 0.01 -> 3 x 3, gr??e, ?\n"
    assert err.buffer.getvalue() == b"mafr: gr??e-> is unknown\n"


def test_help_loads_no_torch():
    show = "import sys; from mafr.cli.parser import build_parser; build_parser().format_help()"
    show += "; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False"]


def test_config_prints_every_setting(capsys):
    assert main(["config", "--profile", "full", "--variant", "released", "--set", "epochs=3"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if len(line.split()) > 1)
    assert lines["epochs"] == "3"
    assert lines["cbam_scope"] == "pixel"
    assert set(Config.preset("full").as_dict()) == set(lines)


def test_lists_and_names_may_hold_spaces(capsys, tmp_path):
    assert main(["config", "--set", "mvtec3d_categories=bagel, tire ,"]) == 0
    assert "['bagel', 'tire']" in capsys.readouterr().out
    assert main(["config", "--set", "adam3d_categories=1m1, spiral"]) == 0  # none by default
    assert "['1m1', 'spiral']" in capsys.readouterr().out
    message = refused(capsys, "reproduce", "--profile", "smoke", "--stages", " runs, training")
    assert "unknown stage training; the stages are" in message
    for command in (["run"], ["features"], ["fit", "--out", str(tmp_path / "out")]):
        chosen = ["--profile", "smoke", "--data-root", str(tmp_path), "--category", " lid\t"]
        assert "/lid: no such folder" in refused(capsys, *command, *chosen)


def test_names_of_categories_and_folders_are_printed_escaped(capsys, tmp_path, monkeypatch):
    assert str(Run("mvtec3d", "a\x1b[2J", Config.preset("smoke"))).startswith("mvtec3d/a\\x1b[2J, ")
    monkeypatch.setenv("MAFR_HOME", str(tmp_path / "a\x1b[2J"))
    monkeypatch.setattr("mafr.cli.reproduce.reproduce", lambda *_: None)
    assert main(["reproduce", "--profile", "smoke"]) == 0
    assert "a\\x1b[2J" in (shown := capsys.readouterr().out) and "\x1b" not in shown


@pytest.mark.parametrize(
    ("setting", "message"),
    [("epoch=3", "mafr config"), ("epochs", "NAME=VALUE"), ("epochs=many", "no value like"), ("epochs=0", "positive")],
)
def test_bad_settings(capsys, setting, message):
    assert message in refused(capsys, "config", "--set", setting)


def test_unknown_profile_method_and_category(at_smoke, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "--profile", "large"])
    assert stop.value.code == 2
    assert "choose from" in capsys.readouterr().err
    assert "bagle" in refused(capsys, "run", "--profile", "smoke", "--category", "bagle")
    assert "unknown stage" in refused(capsys, "reproduce", "--profile", "smoke", "--stages", "training")


def test_real_data_must_be_there(tmp_path, capsys):
    message = refused(capsys, "reproduce", "--profile", "full", "--data-root", str(tmp_path))
    assert "MVTec 3D-AD" in message
    assert str(tmp_path) in message
    assert "--data-root" in refused(capsys, "data", "mvtec3d")
    assert str(tmp_path / "none") in refused(
        capsys, "data", "mvtec3d", "--data-root", str(tmp_path), "--source", str(tmp_path / "none")
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["reproduce", "--tables", "6"], "unknown table 6"),
        (["run", "--seeds", "0"], "--seeds must be at least 1"),
        (["run", "--category", "bagel", "--shots", "0"], "--shots must be at least 1"),
        (["run", "--shots", "5"], "--shots goes with --category"),
        (["run", "--category", "bagel", "--table", "1"], "not both"),
        (["data", "generate", "--data-root", "somewhere"], "leave out --data-root"),
        (["config", "--set", "mvtec3d_categories="], "at least one category"),
        (["config", "--set", "threads=-1"], "must not be negative"),
    ],
)
def test_options_that_make_no_sense(capsys, command, message):
    assert message in refused(capsys, *command)


def test_pretraining_repeats_what_was_shipped_unless_told_otherwise(monkeypatch, tmp_path, capsys):
    from mafr.features.pretraining.pretrain import PretrainSettings

    seen = []
    module = "mafr.features.pretraining.pretrain"
    monkeypatch.setattr(f"{module}.pretrain", lambda folder, settings: seen.append((folder, settings)) or folder)
    assert main(["pretrain-points", "--out", str(tmp_path)]) == 0
    assert main(["pretrain-points", "--steps", "3", "--seed", "4"]) == 0
    assert seen[0] == (tmp_path, PretrainSettings())
    assert (seen[1][1].steps, seen[1][1].seed) == (3, 4)


def test_results_with_other_settings_keep_to_themselves(at_smoke, tmp_path):
    _, paths = at_smoke
    before = {p: p.read_bytes() for p in paths.tables.iterdir() if p.is_file()}
    command = ["reproduce", "--profile", "smoke", "--tables", "2", "--stages", "runs,tables", "--workers", "1"]
    assert main([*command, "--set", "epochs=1", "--set", "min_steps=0"]) == 0
    assert {p: p.read_bytes() for p in paths.tables.iterdir() if p.is_file()} == before
    (folder,) = paths.tables.glob("settings-*")
    assert "stand-in" in (folder / "table2.md").read_text()


def test_run_prints_the_metrics(at_smoke, capsys):
    assert main(["run", "--profile", "smoke", "--category", "bagel", "--variant", "both", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert text.count("mvtec3d/bagel") == 2
    assert text.count("product") == 2


def test_run_marks_the_map_that_its_settings_choose(monkeypatch, capsys):
    values = dict.fromkeys(METRIC_TITLES, 0.5)
    metrics = {"mafr": dict.fromkeys(("rgb", "product", "calibrated_sum"), values), "depthvm": {"map": values}}
    monkeypatch.setattr("mafr.features.weights.files.provide_files", lambda *_: None)
    monkeypatch.setattr("mafr.experiments.prepare.extract_category", lambda *_: None)
    monkeypatch.setattr(
        "mafr.experiments.execute.run_all", lambda runs, *_: {run: {"metrics": metrics[run.method]} for run in runs}
    )
    command = ["run", "--profile", "parts", "--category", "a", "--methods", "mafr,depthvm", "--variant", "paper"]
    assert main([*command, "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (marked,) = [line for line in lines if "←" in line]
    assert marked.startswith("  calibrated_sum ") and marked.endswith("0.500  ← this profile's map")


def test_fit_predict_and_threshold(at_smoke, tmp_path, capsys):
    config, paths = at_smoke
    folder = tmp_path / "bagel"
    assert main(["fit", "--profile", "smoke", "--category", "bagel", "--out", str(folder)]) == 0
    capsys.readouterr()
    raw = paths.raw("mvtec3d") / "bagel" / "test"
    record = read_record(Run("mvtec3d", "bagel", config), paths)
    scores = dict(zip(record["samples"]["ids"], record["scores"]["product"], strict=True))
    name, expected = next((k, v) for k, v in scores.items() if not k.startswith("test/good"))
    defect, number = name.split("/")[1:]
    pair = ["--rgb", str(raw / defect / "rgb" / f"{number}.png"), "--xyz", str(raw / defect / "xyz" / f"{number}.tiff")]
    picture = tmp_path / "heat.png"
    command = ["predict", "--detector", str(folder), *pair]
    assert main([*command, "--json", "--out", str(picture)]) == 0
    result = json.loads(capsys.readouterr().out)
    # The raw pair, preprocessed in memory, scores as the stored features of the processed copy do.
    assert result["score"] == pytest.approx(expected, rel=0.02)
    assert Image.open(picture).width > 300
    assert main([*command, "--threshold", str(2 * result["score"])]) == 0
    assert capsys.readouterr().out.startswith("OK: score")
    assert main([*command, "--threshold", str(0.5 * result["score"])]) == 0
    assert capsys.readouterr().out.startswith("not OK: score")


def test_bad_pairs(at_smoke, tmp_path, capsys):
    config, paths = at_smoke
    detector = Run("mvtec3d", "bagel", config).folder(paths) / "detector"
    good = paths.raw("mvtec3d") / "bagel" / "test" / "good"
    rgb, xyz = tmp_path / "a.png", tmp_path / "a.tiff"
    number = sorted(p.stem for p in (good / "rgb").glob("*.png"))[0]

    def message() -> str:
        return refused(capsys, "predict", "--detector", str(detector), "--rgb", str(rgb), "--xyz", str(xyz))

    assert str(rgb) in message()
    shutil.copy(good / "rgb" / f"{number}.png", rgb)
    assert str(xyz) in message()
    whole = (good / "xyz" / f"{number}.tiff").read_bytes()
    xyz.write_bytes(whole[: len(whole) // 2])
    assert str(xyz) in message()
    points = tifffile.imread(good / "xyz" / f"{number}.tiff")
    tifffile.imwrite(xyz, points[:-1], photometric="rgb")
    assert str(points.shape[0] - 1) in message()
    tifffile.imwrite(xyz, np.zeros_like(points), photometric="rgb")
    assert str(xyz) in message()
    few = np.zeros_like(points)
    few[40:44, 40:44] = points[40:44, 40:44]
    tifffile.imwrite(xyz, few, photometric="rgb")
    assert f"{xyz}: " in refused(
        capsys, "predict", "--detector", str(detector), "--rgb", str(rgb), "--xyz", str(xyz), "--processed"
    )
    points[3, 4, 0] = np.nan
    tifffile.imwrite(xyz, points, photometric="rgb")
    assert str(xyz) in message()
    assert "detector.json is missing" in refused(
        capsys, "predict", "--detector", str(tmp_path), "--rgb", str(rgb), "--xyz", str(xyz)
    )


def test_methods_that_no_table_asked_for_has_are_refused(capsys):
    assert "nothing to run" in refused(capsys, "run", "--profile", "smoke", "--table", "4", "--methods", "cfm")
    assert "unknown method magic" in refused(capsys, "run", "--profile", "smoke", "--methods", "magic")
    text = refused(capsys, "run", "--profile", "smoke", "--table", "1", "--set", "extractor_mode=train")
    assert "--methods mafr" in text


def test_a_compared_method_is_fitted_and_predicts_as_its_run(at_smoke, tmp_path, capsys):
    config, paths = at_smoke
    folder = tmp_path / "detector"
    assert main(["fit", "--profile", "smoke", "--category", "bagel", "--method", "depthvm", "--out", str(folder)]) == 0
    record = read_record(Run("mvtec3d", "bagel", config, method="depthvm"), paths)
    scores = dict(zip(record["samples"]["ids"], record["scores"]["map"], strict=True))
    name, expected = next((k, v) for k, v in scores.items() if not k.startswith("test/good"))
    defect, number = name.split("/")[1:]
    raw = paths.raw("mvtec3d") / "bagel" / "test" / defect
    pair = ["--rgb", str(raw / "rgb" / f"{number}.png"), "--xyz", str(raw / "xyz" / f"{number}.tiff")]
    capsys.readouterr()
    assert main(["predict", "--detector", str(folder), *pair, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["score"] == pytest.approx(expected, rel=0.02)
    assert result["threshold"] == pytest.approx(record["threshold"])


def test_validate_says_what_is_missing_before_it_works(capsys, tmp_path):
    assert "holds no published category" in refused(capsys, "validate", "--data-root", str(tmp_path))
    (tmp_path / "processed" / "mvtec3d" / "tire").mkdir(parents=True)
    options = ("validate", "--data-root", str(tmp_path))
    assert "unknown part fpfh" in refused(capsys, *options, "--parts", "fpfh")
    assert "--workers must be at least 1" in refused(capsys, *options, "--workers", "0")
    assert "no trial is finished" in refused(capsys, *options, "--tables-only")


def test_a_seed_that_no_generator_takes_is_one_line(tmp_path, capsys):
    for seed in ("-1", str(2**63)):
        text = refused(capsys, "pretrain-points", "--seed", seed, "--out", str(tmp_path / "out"))
        assert f"--seed must be in 0 to 2^63 - 1, not {seed}" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "module", "runs"),
    [
        (["run", "--profile", "smoke"], "runs.make_runs", True),
        (["survey", "--data-root", "PLACE"], "survey.survey_scans", False),
        (["predict", "--detector", "D", "--rgb", "R", "--xyz", "X"], "predict.predict", False),
    ],
)
def test_only_commands_that_make_runs_say_that_runs_are_kept(monkeypatch, capsys, command, module, runs):
    for error in (OSError("no more files"), KeyboardInterrupt()):

        def stop(arguments, error=error):
            raise error

        stop.__name__ = module.rpartition(".")[2]
        monkeypatch.setattr(f"mafr.cli.{module}", stop)
        assert main(command) != 0
        assert ("finished runs are kept" in capsys.readouterr().err) == runs


def test_the_preset_for_own_parts_reproduces_no_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAFR_HOME", str(tmp_path))
    assert "mafr fit" in refused(capsys, "reproduce", "--profile", "parts")
    assert not list(tmp_path.iterdir())
