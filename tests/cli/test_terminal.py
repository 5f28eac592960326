"""Standard output that is closed, or whose reader goes: results are written on, and no command ends in a traceback."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mafr.cli import main
from mafr.predict import command
from mafr.predict.engine import Scored
from mafr.predict.parts import PartFiles


class Detector:
    """Stands for a loaded one: what is scored comes from `scored`."""

    name, validation_scores, threshold = "mafr", [], 1.0

    class config:  # noqa: N801
        random_weights, plane, quantile = False, "none", 0.95


def scored(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `mafr predict` score so many parts, without a detector."""

    def score_folder(folder, scorer, outputs, show, stop) -> None:
        for k in range(parts):
            show(outputs.add(Scored(PartFiles(str(k)), 0.5, "OK")))

    monkeypatch.setattr("mafr.baselines.registry.load_detector", lambda _: Detector())
    monkeypatch.setattr("mafr.predict.engine.Scorer", lambda *_: None)
    monkeypatch.setattr("mafr.predict.parts.find_parts", lambda *_, **__: [])
    monkeypatch.setattr(command, "score_folder", score_folder)


CALL = ["predict", "--detector", "D", "--parts", "T"]


def test_a_closed_output_stops_no_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(3, monkeypatch)
    monkeypatch.setattr(sys, "stdout", None)
    assert main([*CALL, "--csv", str(tmp_path / "a.csv")]) == 0
    sys.stdout.close()
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 3


class Unread(io.StringIO):
    """An output whose reader has gone after some lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.left = lines

    def flush(self) -> None:
        if self.getvalue().count("\n") > self.left:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_an_output_that_nobody_reads_on_stops_no_scoring_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scored(5, monkeypatch)
    for extra in ([], ["--json"]):
        monkeypatch.setattr(sys, "stdout", Unread(1))
        assert main([*CALL, "--csv", str(tmp_path / "a.csv"), *extra]) == 0
        assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 5
        sys.stdout.close()
    errors = capsys.readouterr().err
    assert "Broken pipe" not in errors and "kept" not in errors
    monkeypatch.setattr(sys, "stdout", Unread(1))
    assert main(CALL) == 141  # with nowhere to write, nothing is left to do
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("command", "status"), [(["config"], 141), (["--help"], 0)])
def test_a_command_that_only_prints_ends_quietly_where_nobody_reads(command: list[str], status: int) -> None:
    code = f"import sys; from mafr.cli import main; sys.exit(main({command!r}))"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (status, "")


def test_a_second_interrupt_of_scoring_names_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scored(0, monkeypatch)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "score_folder", interrupted)
    assert main([*CALL, "--csv", str(tmp_path / "a.csv")]) == 130
    assert capsys.readouterr().err.endswith("parts that were done are kept; --resume goes on from there\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("place", "way"), [("csv", "; --resume goes on from there"), ("json", "")])
def test_a_full_disk_names_the_way_on_that_predict_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, place: str, way: str
) -> None:
    scored(1, monkeypatch)
    assert main([*CALL, f"--{place}", "/dev/full"]) == 1
    assert capsys.readouterr().err.endswith(f"; make room there{way}\n")
