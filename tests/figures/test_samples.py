"""Pictures of single samples: the relief, and the heatmap with its threshold."""

from dataclasses import replace

import numpy as np
import pytest
from support import fake_results
from support.fake_results import words

from mafr.figures.maps import defect_window, plot_result
from mafr.figures.samples import plot_contact_sheet, plot_heatmap, plot_sample, relief
from mafr.figures.style import Picture, png_bytes, save_png
from mafr.method import Prediction


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
    path = save_png(plot_heatmap(sample, prediction, psi.max() * 0.9), tmp_path / "out" / "heat.png")
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
    figure = plot_result(result, k, "GENERATED")
    assert len(figure.axes) == 12 and "image, outlined" in words(figure)
    down, right, half = defect_window(result.samples[k].gt[0])
    inside = result.samples[k].gt[0][int(down - half) : int(down + half) + 1, int(right - half) : int(right + half) + 1]
    assert inside.any()
    # A good sample has no close-up.
    assert len(plot_result(result, int(result.labels.argmin()), "GENERATED").axes) == 6
    assert isinstance(figure, Picture) and figure._repr_png_()[0].startswith(b"\x89PNG")
    assert figure._repr_png_()[1] == {"alt": figure.alt} and result.samples[k].defect in figure.alt
