"""The growth of a training with its samples is measured in processes of their own."""

import json
from types import SimpleNamespace

import pytest

from mafr.bench import growth
from mafr.bench.growth import Growth, as_json, report
from mafr.cli import main
from mafr.config import Config


def test_the_command_measures_growth(capsys, tmp_path):
    out = tmp_path / "growth.json"
    main(["bench", "--profile", "smoke", "--growth", "2,40", "--out", str(out)])
    rows = json.loads(out.read_text())["growth"]
    assert [row["samples"] for row in rows] == [2, 40]
    assert all(set(row) == {"samples", "seconds", "megabytes"} for row in rows)
    assert all(row["megabytes"] >= 0 for row in rows)  # how much, and how long, is the machine's matter
    assert "ms per sample" in capsys.readouterr().out


@pytest.mark.parametrize("count", [2, 40])
def test_what_is_the_same_for_any_number_of_epochs_is_not_counted(count, monkeypatch):
    """By a clock and a memory of the test's own: 3 s to begin, then 10 ms a sample and epoch; 1 MB a sample."""
    config, now, peak, sent = Config.preset("smoke"), [100.0], [500.0], []

    def fit(config, _, indices):
        now[0] += 3.0 + 0.01 * config.epochs * len(indices)
        peak[0] = max(peak[0], 500.0 + len(indices))

    monkeypatch.setattr(growth, "_Drawn", lambda config, count: None)
    monkeypatch.setattr(growth, "fit", fit)
    monkeypatch.setattr(growth, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(growth, "resident_megabytes", lambda: 500.0)
    monkeypatch.setattr(growth, "reset_peak", lambda: peak.__setitem__(0, 500.0))
    monkeypatch.setattr(growth, "peak_megabytes", lambda: peak[0])
    growth._serve(config, count, SimpleNamespace(send=sent.append))
    assert sent == [Growth(count, pytest.approx(0.01 * count), count)]


def test_the_report_has_a_row_per_number_of_samples():
    rows = [Growth(20, 0.4, 50.0), Growth(40, 0.8, 90.0)]
    assert report(rows).splitlines()[-1].split() == ["40", "0.800", "20.00", "90"]
    kept = as_json(Config.preset("smoke"), rows)
    assert kept["growth"][0] == {"samples": 20, "seconds": 0.4, "megabytes": 50.0}
    assert (kept["kind"], kept["profile"]) == ("growth", "smoke")


def test_no_samples_are_refused(capsys):
    assert main(["bench", "--profile", "smoke", "--growth", "20,0"]) != 0
    assert "numbers of samples from 1 on" in capsys.readouterr().err
