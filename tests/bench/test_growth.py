"""The growth of a training with its samples is measured in processes of their own."""

import json

from mafr.bench.growth import Growth, as_json, report
from mafr.cli import main
from mafr.config import Config


def test_the_command_measures_growth(capsys, tmp_path):
    out = tmp_path / "growth.json"
    main(["bench", "--profile", "smoke", "--growth", "2,40", "--out", str(out)])
    few, many = json.loads(out.read_text())["growth"]
    assert (few["samples"], many["samples"]) == (2, 40)
    assert many["seconds"] > 4 * few["seconds"] > 0  # twenty times the samples; a busy machine is no excuse
    assert many["megabytes"] > few["megabytes"]
    assert "ms per sample" in capsys.readouterr().out


def test_the_report_has_a_row_per_number_of_samples():
    rows = [Growth(20, 0.4, 50.0), Growth(40, 0.8, 90.0)]
    assert report(rows).splitlines()[-1].split() == ["40", "0.800", "20.00", "90"]
    kept = as_json(Config.preset("smoke"), rows)
    assert kept["growth"][0] == {"samples": 20, "seconds": 0.4, "megabytes": 50.0}
    assert (kept["kind"], kept["profile"]) == ("growth", "smoke")


def test_no_samples_are_refused(capsys):
    assert main(["bench", "--profile", "smoke", "--growth", "20,0"]) != 0
    assert "numbers of samples from 1 on" in capsys.readouterr().err
