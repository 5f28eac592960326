"""The cost figure: its points are the records'."""

import numpy as np
import pytest

from mafr.experiments.plan import Run
from mafr.experiments.run_store import read_record
from mafr.figures.costs import cost_accuracy, method_points


def test_cost_figure_has_a_point_a_method_from_the_records(stored):
    config, paths = stored
    points = {label: (seconds, means) for label, _, seconds, means in method_points(config, paths, "mvtec3d")}
    assert list(points) == ["BTF", "CFM", "MAFR, paper", "MAFR, released"]
    assert points["CFM"][0] == pytest.approx(0.1 + (3 + 0.2) / 8)
    runs = [Run("mvtec3d", category, config, method="cfm") for category in config.categories("mvtec3d")]
    for metric in ("i_auroc", "aupro_01"):
        values = [read_record(run, paths)["metrics"]["map"][metric] for run in runs]
        assert points["CFM"][1][metric] == pytest.approx(np.mean(values))
    panel = cost_accuracy(config, paths, ["mvtec3d"]).axes[1]
    assert panel.get_xscale() == "log" and "AUPRO@1%" in panel.get_ylabel()
    drawn = {text.get_text(): line.get_xydata()[0] for text, line in zip(panel.texts, panel.lines, strict=True)}
    assert drawn["BTF"] == pytest.approx([points["BTF"][0], points["BTF"][1]["aupro_01"]])
