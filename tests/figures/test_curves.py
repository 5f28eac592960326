"""Curves: they carry the recorded numbers."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from support.fake_results import words

from mafr.experiments.plan import TableMethod
from mafr.experiments.results import stored_records
from mafr.figures.curves import pro_curves, roc_curves, training_curves


def test_curves_carry_the_recorded_numbers(stored, result):
    config, paths = stored
    metrics = result.record["metrics"]["product"]
    assert f"{metrics['aupro_30']:.3f}" in words(pro_curves(config, paths))
    assert f"{metrics['i_auroc']:.3f}" in words(roc_curves(config, paths))


def test_area_under_a_drawn_pro_curve_is_the_recorded_aupro(stored, result):
    config, paths = stored
    figure = pro_curves(config, paths, ["mvtec3d"], ["paper"])
    axes = next(a for a in figure.findobj(plt.Axes) if a.get_title() == "bagel")
    x, y = axes.get_lines()[0].get_data()
    area = np.interp(np.linspace(0, 0.3, 20_001), x, y).mean()
    assert area == pytest.approx(result.record["metrics"]["product"]["aupro_30"], abs=2e-3)


@pytest.mark.parametrize(("draw", "metric", "limit"), [(roc_curves, "i_auroc", 1), (pro_curves, "aupro_30", 0.3)])
def test_mean_curve_has_the_mean_area(stored, draw, metric, limit):
    config, paths = stored
    figure = draw(config, paths, ["eyecandies"], ["released"])
    axes = next(a for a in figure.findobj(plt.Axes) if a.get_title() == "mean")
    x, y = axes.get_lines()[0].get_data()
    records = stored_records(TableMethod("mafr", "released"), "eyecandies", config, paths).values()
    expected = np.mean([r["metrics"]["product"][metric] for r in records])
    area = ((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / limit
    assert area == pytest.approx(expected, abs=5e-3)


def test_training_curves_show_the_mean_over_categories(stored):
    config, paths = stored
    axes = training_curves(config, paths, ["mvtec3d"], ["paper"]).axes[0]
    assert np.allclose(axes.get_lines()[0].get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4])
