"""Standard output that is closed, or whose reader goes: results are written on, and no command ends in a traceback."""

from __future__ import annotations

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
