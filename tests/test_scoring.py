"""Residuals, fusion, blur and image scores against hand-solved cases and independent filters."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mafr.config import FUSIONS
from mafr.scoring import fuse, image_score, metric_maps, residual_map, score_mask, smooth, upsample


def maps(seed: int, size: int = 24) -> torch.Tensor:
    return torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_residual_by_hand():
    e = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    assert residual_map(e, torch.zeros_like(e)).item() == 5.0  # 3-4-5 triangle


@pytest.mark.parametrize(("how", "expected"), [("product", 6), ("sum", 5), ("max", 3), ("rgb", 2), ("xyz", 3)])
def test_fuse_by_hand(how, expected):
    assert fuse(torch.tensor(2.0), torch.tensor(3.0), how).item() == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["product", "sum", "max"]))
def test_symmetric_operators(seed, how):
    a, b = maps(seed), maps(seed + 1)
    assert torch.equal(fuse(a, b, how), fuse(b, a, how))


def test_fuse_knows_all_operators_and_no_other():
    assert {how for how in FUSIONS if fuse(maps(0), maps(1), how) is not None} == set(FUSIONS)
    with pytest.raises(ValueError, match="how"):
        fuse(maps(0), maps(1), "mean")


@pytest.mark.parametrize("sigma", [1.0, math.sqrt(22.0)])
def test_gaussian_equals_scipy(sigma):
    psi = maps(2)
    radius = max(1, math.ceil(4 * sigma))
    for k in range(2):
        expected = ndimage.gaussian_filter(psi[k, 0].numpy(), sigma, mode="constant", radius=radius)
        np.testing.assert_allclose(smooth(psi, "gaussian", sigma)[k, 0].numpy(), expected, rtol=1e-9)


def test_box_equals_a_chain_of_mean_filters():
    psi = maps(3)
    expected = psi
    for size in (5,) * 5 + (7,) * 3:
        expected = F.avg_pool2d(expected, size, 1, size // 2)
    torch.testing.assert_close(smooth(psi, "box"), expected)
    single = psi.float()
    torch.testing.assert_close(smooth(single, "box"), expected.float())


def test_box_and_gaussian_have_the_same_variance():
    impulse = torch.zeros(1, 1, 101, 101, dtype=torch.float64)
    impulse[..., 50, 50] = 1
    offsets = torch.arange(-50, 51, dtype=torch.float64)
    for how in ("box", "gaussian"):
        profile = smooth(impulse, how)[0, 0].sum(dim=0)
        assert profile.sum().item() == pytest.approx(1)
        assert (profile * offsets.square()).sum().item() == pytest.approx(22, rel=2e-3)


def test_upsampling_keeps_constants_over_valid_cells_and_full_size_maps():
    psi, valid = torch.full((1, 1, 4, 4), 3.0), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    valid[..., 1:3, 1:3] = True
    large = upsample(psi * valid, valid, 16)
    assert large[..., 4:12, 4:12].tolist() == torch.full((1, 1, 8, 8), 3.0).tolist()  # not darkened at the edge
    assert large[0, 0, 0, 0] == 0
    assert torch.equal(upsample(psi, valid, 4), psi)


def test_image_scores_by_hand():
    psi = torch.tensor([[[[0.0, 4.0], [16.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    assert image_score(psi).tolist() == [16, 0]
    # The mean of the non-zero pixels is 10; a map of zeros scores 0 rather than NaN.
    assert image_score(psi, "max-over-root-mean").tolist() == pytest.approx([16 / math.sqrt(10), 0])


def test_metric_maps_by_hand():
    psi = torch.tensor([[[[0.0, 4.0], [16.0, 0.0]]]])
    assert torch.equal(metric_maps(psi, "none", "p_auroc"), psi)
    assert metric_maps(psi, "per-metric", "p_auroc").max().item() == pytest.approx(16 / math.sqrt(5))
    assert metric_maps(psi, "per-metric", "au_pro").max().item() == pytest.approx(1.6)


def test_the_features_decide_what_is_scored_at_full_size_only():
    fine, coarse = torch.zeros(1, 1, 8, 8, dtype=torch.bool), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    assert score_mask(fine, mask) is fine
    assert score_mask(coarse, mask) is mask
