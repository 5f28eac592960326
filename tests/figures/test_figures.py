"""Figures: what they are drawn from, the written rules, the same bytes each time."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from support import fake_results

import mafr.experiments.results
from mafr.config import VARIANTS, Config
from mafr.detector import Prediction
from mafr.errors import DataError, ResultError
from mafr.experiments.experiments import Run, load_maps, read_record
from mafr.experiments.results import colour_range, full_runs, load_result, stamp, stored_records, stored_results
from mafr.figures.costs import cost_accuracy, method_points
from mafr.figures.curves import pro_curves, roc_curves, score_histograms, training_curves
from mafr.figures.fig1 import architecture, variant_differences
from mafr.figures.fig2 import figure2
from mafr.figures.samples import plot_contact_sheet, plot_heatmap, plot_maps, plot_sample, relief, save_heatmap
from mafr.figures.style import Picture, outline, png_bytes
from mafr.figures.write import write_figures
from mafr.paths import Paths

DEMO = Config.preset("demo")


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mafr.experiments.results, "load_features", fake_results.fake_features)
        opened = lambda name, root, category, split, config: fake_results.fake_samples(name, category)  # noqa: E731
        patch.setattr(mafr.experiments.results, "open_dataset", opened)
        yield patch


@pytest.fixture(scope="module")
def stored(patched, tmp_path_factory):
    return fake_results.write_runs(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def result(stored):
    config, paths = stored
    return load_result(full_runs(config, "mvtec3d", "paper")[0], paths)


def words(figure) -> str:
    """All text of a figure, its subfigures' too."""
    from matplotlib.text import Text

    return " ".join(" ".join(t.get_text() for t in figure.findobj(Text)).split())


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


# ------------------------------------------------------------------ results


def test_maps_are_those_that_were_scored(result):
    assert np.allclose(result.maps.max(axis=(1, 2)), result.scores, rtol=1e-5)


def test_rescoring_with_the_runs_own_settings_changes_nothing(result):
    maps, scores = result.rescored(result.config.fusion, result.config.blur, result.config.sigma)
    assert np.allclose(maps, result.maps, rtol=1e-5, atol=1e-6)
    assert np.allclose(scores, result.scores, rtol=1e-5)


def test_rescoring_without_blur_is_the_masked_product(result):
    maps, _ = result.rescored("product", None, 1.0)
    psi_rgb, psi_xyz = result.residuals(range(len(result.ids)))
    assert np.array_equal(maps, psi_rgb * psi_xyz)
    assert not maps[~result.mask].any()


def test_sample_of_figure_2_is_the_lower_median_of_the_defective(result):
    k = result.median_defective()
    assert result.labels[k] == 1
    defective = np.sort(result.scores[result.labels == 1])
    assert result.scores[k] == defective[(len(defective) - 1) // 2]


def test_equal_scores_are_taken_by_id(result):
    record = {**result.record, "scores": {result.config.fusion: [1.0] * len(result.ids)}}
    tied = replace(result, record=record)
    bad = sorted(i for i, label in zip(result.ids, result.labels, strict=True) if label)
    assert tied.ids[tied.median_defective()] == bad[(len(bad) - 1) // 2]


def test_colour_range_by_hand():
    maps = np.arange(8.0).reshape(2, 2, 2)
    mask = np.ones((2, 2, 2), dtype=bool)
    mask[0, 0, 0] = False
    low, high = colour_range(maps, mask, np.array([0, 1]))
    assert low == 2.0  # the median of 1, 2, 3
    assert high == pytest.approx(np.quantile(np.arange(1.0, 8.0), 0.999))


def test_missing_run_names_file_and_command(stored):
    config, paths = stored
    run = full_runs(replace(config, seed=7), "mvtec3d", "paper")[0]
    with pytest.raises(ResultError, match=r"metrics\.json.*mafr run --profile smoke --dataset mvtec3d"):
        load_result(run, paths)


def test_run_on_other_data_is_refused(stored, patched):
    config, paths = stored
    with patched.context() as patch:
        other = lambda *a: fake_results.FakeStore(fake_results.fake_samples("mvtec3d", "bagel"), "other")  # noqa: E731
        patch.setattr(mafr.experiments.results, "load_features", other)
        with pytest.raises(DataError, match="other data"):
            load_result(full_runs(config, "mvtec3d", "paper")[0], paths)


def test_stamp_cannot_be_taken_for_real_data():
    assert "GENERATED" in stamp(DEMO, ["mvtec3d"], ["paper"])
    real = stamp(Config.preset("full"), ["mvtec3d"], VARIANTS)
    assert "GENERATED" not in real
    assert all(word in real for word in ("MVTec 3D-AD", "full", "paper", "released"))


# ----------------------------------------------------------------- figures


def test_all_figures_are_written_twice_to_the_same_bytes(stored):
    config, paths = stored
    first = {path: path.read_bytes() for path in write_figures(config, paths)}
    assert [p.name for p in first] == [
        "fig1_architecture.png", "fig2_qualitative.png", "fig2_eyecandies.png", "training_curves.png",
        "roc_curves.png", "pro_curves.png", "score_histograms.png", "cost_accuracy.png",
    ]  # fmt: skip
    assert {p: p.read_bytes() for p in write_figures(config, paths)} == first
    for path, content in first.items():
        image = Image.open(io.BytesIO(content))
        assert "Software" not in image.info and "Creation Time" not in image.info
        assert path.parent == paths.figures
        assert len(np.unique(pixels(content).reshape(-1, 3), axis=0)) > 20, path


def test_every_figure_of_results_says_that_data_is_generated(stored):
    config, paths = stored
    for draw in (figure2, training_curves, roc_curves, pro_curves, score_histograms, cost_accuracy):
        text = words(draw(config, paths))
        assert "GENERATED DATA" in text and "smoke profile" in text, draw


def test_no_pyplot_figure_is_left_behind(stored):
    config, paths = stored
    before = plt.get_fignums()
    write_figures(config, paths, ["paper"])
    assert plt.get_fignums() == before


def test_figure_2_has_a_row_a_category_and_states_its_rules(stored, result):
    config, paths = stored
    figure = figure2(config, paths)
    assert [axes.get_title() for axes in figure.axes[3:8]] == ["Ψ2D", "Ψ3D", "MAFR", "CFM", "BTF"]  # as far as run
    assert len(figure.axes) == 8 * len(config.categories("mvtec3d")) + 2  # and two bars
    ends = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes[-2:]]
    assert ends == [["far", "near"], ["median of the good images' pixels", "99.9 % of all pixels"]]
    text = words(figure)
    assert "median image score" in text and "99.9 %" in text
    name = result.defects[result.median_defective()]
    assert f"bagel {name}" in text


def test_figure_2_shows_the_maps_on_the_common_scale(stored):
    config, paths = stored
    figure = figure2(config, paths)
    for row, result in enumerate(stored_results(config, paths, "mvtec3d", "paper")):
        btf = Run("mvtec3d", result.run.category, config, method="btf")
        for column, maps in ((5, result.maps), (7, load_maps(btf, paths).astype(np.float32))):
            image = figure.axes[8 * row + column].get_images()[0]
            assert image.get_clim() == pytest.approx(colour_range(maps, result.mask, result.labels))
            shown = np.ma.filled(image.get_array(), np.nan)
            expected = np.where(result.mask, maps, np.nan)[result.median_defective()]
            assert np.array_equal(shown, expected, equal_nan=True)


def test_a_method_that_was_not_run_in_a_category_is_named(stored, tmp_path):
    config, paths = stored
    other = Paths.resolve("smoke", root=tmp_path)
    shutil.copytree(paths.root / "runs", tmp_path / "runs")
    shutil.rmtree(Run("mvtec3d", "tire", config, method="btf").folder(other))
    figure = figure2(config, other)
    assert [text.get_text() for text in figure.axes[15].texts] == ["not run"]
    assert not figure.axes[15].get_images() and figure.axes[7].get_images()


def test_maps_of_a_method_on_other_data_are_not_shown(stored, tmp_path):
    config, paths = stored
    other = Paths.resolve("smoke", root=tmp_path)
    shutil.copytree(paths.root / "runs", tmp_path / "runs")
    path = Run("mvtec3d", "tire", config, method="btf").folder(other) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_fingerprint": "other"}))
    assert [text.get_text() for text in figure2(config, other).axes[15].texts] == ["not run"]


def test_without_timed_runs_the_cost_figure_is_left_out(patched, tmp_path, capsys):
    config, paths = fake_results.write_runs(tmp_path, ["mvtec3d"], skip=["tire"])
    assert "cost_accuracy.png" not in [path.name for path in write_figures(config, paths)]
    assert "not drawn: costs" in capsys.readouterr().err


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


def test_missing_categories_are_named(patched, tmp_path):
    config, paths = fake_results.write_runs(tmp_path, ["mvtec3d"], skip=["tire"])
    assert "Not run yet: tire" in words(figure2(config, paths))


def test_data_set_without_runs_is_left_out_with_a_note(patched, tmp_path, capsys):
    config, paths = fake_results.write_runs(tmp_path, ["eyecandies"])
    names = [path.name for path in write_figures(config, paths)]
    assert "fig2_eyecandies.png" in names and "fig2_qualitative.png" not in names
    assert "not drawn: MVTec 3D-AD" in capsys.readouterr().err
    with pytest.raises(ResultError, match="--table 1"):
        figure2(config, paths)


def test_nothing_run_is_an_error_that_names_the_command(tmp_path):
    with pytest.raises(ResultError, match="mafr reproduce --profile smoke"):
        write_figures(Config.preset("smoke"), Paths.resolve("smoke", root=tmp_path))


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
    records = stored_records(config, paths, "eyecandies", "released").values()
    expected = np.mean([r["metrics"]["product"][metric] for r in records])
    area = ((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / limit
    assert area == pytest.approx(expected, abs=5e-3)


def test_training_curves_show_the_mean_over_categories(stored):
    config, paths = stored
    axes = training_curves(config, paths, ["mvtec3d"], ["paper"]).axes[0]
    assert np.allclose(axes.get_lines()[0].get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4])


@pytest.mark.parametrize(("profile", "numbers"), [("full", ("768", "1152", "1920", "968")), ("demo", ("152", "192"))])
def test_architecture_shows_the_configurations_dimensions(profile, numbers):
    text = words(architecture(Config.preset(profile)))
    assert all(number in text for number in numbers)
    assert str(Config.preset(profile).width) in text


def test_architecture_follows_the_settings():
    config = replace(DEMO, fusion="sum", loss_terms=("sim",), groups=99)
    text = words(architecture(config))
    assert "Ψ2D + Ψ3D" in text and "99 groups" in text and "· census" not in text
    assert ("blur", "Gaussian, σ = 4.7 px", "box: five 5×5, three 7×7") in variant_differences(DEMO)


# ------------------------------------------------------------ single samples


def test_relief_removes_a_tilt_and_keeps_a_bump(result):
    sample = result.samples[0]
    rows, columns = np.mgrid[: fake_results.SIDE, : fake_results.SIDE]
    bump = 0.002 * ((rows - 28) ** 2 + (columns - 28) ** 2 < 20)
    xyz = np.stack([columns * 0.001, rows * 0.001, 0.4 + 0.0005 * rows - 0.0003 * columns - bump])
    height = relief(replace(sample, xyz=(xyz * sample.valid[0]).astype(np.float32)))
    assert np.array_equal(np.isnan(height), ~sample.valid[0])
    assert height[28, 28] - height[10, 28] == pytest.approx(2.0, abs=0.05)  # mm, towards the camera


def test_relief_is_along_the_viewing_axis_whatever_the_clouds_axes():
    rows, columns = np.mgrid[:56, :56]
    depth = 0.5 - 0.004 * np.exp(-((rows - 20) ** 2 + (columns - 30) ** 2) / 60)
    xyz = np.stack([(columns - 28) / 100 * depth, (rows - 28) / 100 * depth, depth])
    sample = fake_results.make_samples("bagel", 0)[0]
    plain = relief(replace(sample, xyz=xyz.astype(np.float32)))
    swapped = relief(replace(sample, xyz=(xyz[[0, 2, 1]] * np.array([1, -1, 1])[:, None, None]).astype(np.float32)))
    assert np.nanmax(plain) > 3
    np.testing.assert_allclose(swapped, plain, atol=1e-3)


def test_relief_of_an_empty_cloud_is_empty(result):
    empty = replace(result.samples[0], xyz=np.zeros_like(result.samples[0].xyz))
    assert np.isnan(relief(empty)).all()
    assert png_bytes(plot_sample(empty))


def test_heatmap_outlines_what_is_above_the_threshold(result, tmp_path):
    k = result.median_defective()
    sample, psi = result.samples[k], result.maps[k]
    prediction = Prediction(psi, psi, psi, float(psi.max()))
    path = save_heatmap(sample, prediction, psi.max() * 0.9, tmp_path / "out" / "heat.png")
    assert path.read_bytes() == png_bytes(plot_heatmap(sample, prediction, psi.max() * 0.9))
    above, below = (plot_heatmap(sample, prediction, psi.max() * f) for f in (0.9, 1.1))
    assert "not OK" in words(above) and "not OK" not in words(below)
    drawn = [sum(len(c.get_paths()) for c in f.axes[2].collections) for f in (above, below)]
    assert drawn[0] > 0 and drawn[1] == 0


def test_heatmap_threshold_follows_a_scaled_image_score(result):
    k = result.median_defective()
    psi = result.maps[k]
    plain = plot_heatmap(result.samples[k], Prediction(psi, psi, psi, float(psi.max())), psi.max() / 2)
    scaled = plot_heatmap(result.samples[k], Prediction(psi, psi, psi, 10.0), 5.0)
    limits = [f.axes[2].get_images()[1].get_clim() for f in (plain, scaled)]
    assert limits[0] == pytest.approx(limits[1])


def test_heatmap_of_a_map_of_zeros(result):
    zeros = np.zeros((fake_results.SIDE,) * 2, dtype=np.float32)
    assert "OK: image score 0" in words(plot_heatmap(result.samples[0], Prediction(zeros, zeros, zeros, 0.0), 1.0))


def test_pictures_of_samples(result):
    samples = [result.samples[k] for k in range(4)]
    sheet = plot_contact_sheet(samples, columns=3)
    assert sum(bool(a.get_images()) for a in sheet.axes) == 2 * len(samples)
    k = result.median_defective()
    psi_rgb, psi_xyz = result.residuals([k])
    figure = plot_maps(result.samples[k], psi_rgb[0], psi_xyz[0], result.maps[k])
    assert len(figure.axes) == 6
    assert isinstance(figure, Picture) and figure._repr_png_().startswith(b"\x89PNG")


def test_outline_of_nothing_draws_nothing():
    axes = Picture().subplots()
    outline(axes, np.zeros((4, 4), dtype=bool))
    outline(axes, np.ones((4, 4), dtype=bool))
    assert not axes.collections
