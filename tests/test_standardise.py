"""Residual maps on a common scale: rings of cells, their means and deviations, and the operators on them."""

import numpy as np
import pytest
import torch
from support.samples import FakeFeatures, small

from mafr.config import CALIBRATED, FUSIONS, Config
from mafr.detector import Detector
from mafr.errors import MafrError
from mafr.scoring import ResidualMaps
from mafr.standardise import RINGS, Scales, rings


def _valid(grid=16):
    valid = torch.zeros(1, 1, grid, grid, dtype=torch.bool)
    valid[0, 0, 3:13, 2:12] = True
    return valid


def test_rings_count_cells_from_the_silhouette_or_the_images_edge():
    number = rings(_valid())[0, 0]
    assert number[3, 2] == number[12, 7] == 0 and number[4, 3] == 1 and number[5, 4] == number[8, 7] == RINGS - 1
    assert not number[~_valid()[0, 0]].any()
    edge = rings(torch.ones(1, 1, 6, 6, dtype=torch.bool))[0, 0]
    assert edge[0].eq(0).all() and edge[1, 1] == 1 and edge[2, 3] == 2


def test_good_cells_have_mean_zero_and_deviation_one_in_every_ring():
    generator = torch.Generator().manual_seed(4)
    valid = _valid().expand(30, -1, -1, -1)
    number = rings(valid)
    rgb = (5 - number) + (1 + number) * torch.randn(valid.shape, generator=generator)
    xyz = 0.01 * torch.rand(valid.shape, generator=generator)
    scales = Scales.of(rgb, xyz, valid)
    assert torch.allclose(scales.mean[0], torch.tensor([5.0, 4.0, 3.0]), atol=0.2)
    assert torch.allclose(scales.deviation[0], torch.tensor([1.0, 2.0, 3.0]), atol=0.2)
    for psi, found in zip((rgb, xyz), scales.apply(rgb, xyz, valid), strict=True):
        assert (found >= 0).all() and not found[~valid].any()
        for ring in range(RINGS):
            chosen = valid & (number == ring)
            wanted = (psi[chosen] - psi[chosen].mean()) / psi[chosen].std()
            assert torch.allclose(found[chosen], wanted.clamp_min(0), atol=1e-4)


def test_a_ring_without_enough_cells_takes_the_scale_of_all():
    valid = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    valid[0, 0, 2:4, 2:6] = True  # all of it silhouette
    psi = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    scales = Scales.of(psi, psi, valid)
    assert torch.allclose(scales.mean, psi[valid].mean().expand(2, RINGS))


def test_scales_survive_writing_and_refuse_other_shapes():
    psi = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    scales = Scales.of(psi, 2 * psi, _valid().expand(2, -1, -1, -1))
    again = Scales.from_dict(scales.as_dict())
    assert all(torch.equal(getattr(again, n), getattr(scales, n)) for n in ("mean", "deviation"))
    with pytest.raises(ValueError, match="shape"):
        Scales.from_dict(scales.as_dict() | {"mean": [1.0]})
    with pytest.raises(KeyError):
        Scales.from_dict({})


def test_calibrated_operators_do_not_follow_a_noisy_map():
    """A defect in the image's residuals; those of the points are a hundred times as large, and noise alone."""
    generator = torch.Generator().manual_seed(0)
    valid = _valid().expand(12, -1, -1, -1)
    rgb, xyz = (torch.rand(valid.shape, generator=generator) * valid for _ in range(2))
    xyz = 100 * xyz
    scales = Scales.of(rgb, xyz, valid)
    rgb[6:, 0, 7:9, 7:9] = 2.0
    config = Config.preset("smoke", overrides={"grid": 16, "image_size": 64, "sigma": 2.0})
    mask = valid.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    plain, scaled = (ResidualMaps(rgb, xyz, valid, mask, config, s) for s in (None, scales))
    assert plain.operators == FUSIONS and scaled.operators == FUSIONS + CALIBRATED

    def told_apart(how):
        score = scaled.final(how)[1]
        return np.mean(score[6:, None] > score[:6])

    assert told_apart("calibrated_sum") == told_apart("calibrated_max") == 1.0
    assert told_apart("sum") < 0.9


def test_without_good_validation_parts_a_calibrated_operator_says_what_is_missing():
    config = small(epochs=1, fusion="calibrated_max")
    features = FakeFeatures(config, 5)
    detector = Detector(config).fit_split(features)
    with pytest.raises(MafrError, match="call calibrate first"):
        detector.score_split(features, [0])
    detector.learn_scales(features, range(5))
    assert detector.answer(features, [0]).main == "calibrated_max" and detector.score_split(features, [0])[0].score > 0


def test_saved_detectors_keep_their_scales(tmp_path):
    config = small(epochs=1, fusion="calibrated_sum")
    features = FakeFeatures(config, 4)
    detector = Detector(config).fit_split(features)
    detector.learn_scales(features, range(4))
    loaded = Detector.load(detector.save(tmp_path / "detector"))
    assert loaded.score_split(features, [1])[0].score == detector.score_split(features, [1])[0].score
