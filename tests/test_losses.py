"""Each loss against a hand-solved case and against a plain implementation with loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mafr.config import Config
from mafr.losses import CompositeLoss, census, smoothness, znssd

H, W = 6, 7


def random_case(seed: int, channels: int = 3, batch: int = 2):
    g = torch.Generator().manual_seed(seed)
    e = torch.randn(batch, channels, H, W, generator=g, dtype=torch.float64)
    e_hat = torch.randn(batch, channels, H, W, generator=g, dtype=torch.float64)
    valid = torch.rand(batch, 1, H, W, generator=g) < 0.6
    valid[:, :, 0, 0] = True
    return e, e_hat, valid


# ------------------------------------------------------------------ ZNSSD


def test_znssd_pixels_by_hand():
    # Channel values (0, 2): mean 1, deviation 1, normalised (-1, 1). (3, 3) has deviation 0: normalised (0, 0).
    e = torch.tensor([[[[0.0, 2.0]]]], dtype=torch.float64)
    e_hat = torch.tensor([[[[3.0, 3.0]]]], dtype=torch.float64)
    assert znssd(e, e_hat).item() == pytest.approx(1.0, abs=1e-6)  # ((-1)^2 + 1^2) / 2
    assert znssd(e, -e).item() == pytest.approx(4.0, abs=1e-6)  # (-2)^2 twice, halved


def test_znssd_channels_by_hand():
    # One pixel with channels (0, 2) against (2, 0): normalised (-1, 1) and (1, -1), squares 4 and 4.
    e = torch.tensor([0.0, 2.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    assert znssd(e, e.flip(1), over="channels").item() == pytest.approx(4.0, abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_znssd_pixels_against_loops(masked):
    e, e_hat, valid = random_case(0)
    mask = valid if masked else torch.ones_like(valid)
    values = []
    for b in range(2):
        for c in range(3):
            x, y = (t[b, c][mask[b, 0]].numpy() for t in (e, e_hat))
            zx, zy = ((v - v.mean()) / (v.std() + 1e-8) for v in (x, y))
            values.append(((zx - zy) ** 2).mean())
    assert znssd(e, e_hat, valid if masked else None).item() == pytest.approx(np.mean(values), rel=1e-9)


@pytest.mark.parametrize("masked", [False, True])
def test_znssd_channels_against_loops(masked):
    e, e_hat, valid = random_case(1)
    means = []
    for b in range(2):
        values = []
        for i in range(H):
            for j in range(W):
                if masked and not valid[b, 0, i, j]:
                    continue
                x, y = e[b, :, i, j].numpy(), e_hat[b, :, i, j].numpy()
                zx, zy = ((v - v.mean()) / math.sqrt(v.var() + 1e-8) for v in (x, y))
                values.append(((zx - zy) ** 2).mean())
        means.append(np.mean(values))
    result = znssd(e, e_hat, valid if masked else None, over="channels").item()
    assert result == pytest.approx(np.mean(means), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-5, 5), st.sampled_from(["pixels", "channels"]))
def test_znssd_ignores_scale_and_shift(seed, scale, shift, over):
    e, e_hat, valid = random_case(seed)
    # eps keeps a trace of the scale where a pixel's channels hardly differ.
    maps = (e_hat, scale * e_hat + shift, scale * e + shift)
    plain, moved, same = (znssd(e, other, valid, over=over, eps=1e-20).item() for other in maps)
    assert moved == pytest.approx(plain, rel=1e-7)
    assert same == pytest.approx(0, abs=1e-12)


def test_znssd_of_a_constant_channel_has_a_finite_gradient():
    e_hat = torch.ones(1, 2, 3, 3, requires_grad=True)
    znssd(torch.randn(1, 2, 3, 3), e_hat).backward()
    assert torch.isfinite(e_hat.grad).all()


# -------------------------------------------------------------- smoothness


def test_smoothness_by_hand():
    # 2 x 2: one pixel counts. Error 0, 1 / 3, 0: |dx| = 1, |dy| = 3. Guide 0, ln 2 / ln 4, 0: weights 1/2, 1/4.
    e = torch.tensor([[0.0, math.log(2)], [math.log(4), 0.0]], dtype=torch.float64)[None, None]
    delta = torch.tensor([[0.0, 1.0], [3.0, 0.0]], dtype=torch.float64)[None, None]
    assert smoothness(e, e + delta).item() == pytest.approx(1 / 2 + 3 / 4)


@pytest.mark.parametrize("channels", ["all", "first_two"])
@pytest.mark.parametrize("masked", [False, True])
def test_smoothness_against_loops(channels, masked):
    e, e_hat, valid = random_case(2, channels=4)
    delta, means = (e_hat - e).numpy(), []
    for b in range(2):
        total, count = 0.0, 0
        for i in range(H - 1):
            for j in range(W - 1):
                v = valid[b, 0]
                if masked and not (v[i, j] and v[i, j + 1] and v[i + 1, j]):
                    continue
                count += 1
                guide = e[b].numpy() if channels == "all" else e[b].numpy().mean(axis=0, keepdims=True)
                for c in range(4 if channels == "all" else 2):
                    k = c if channels == "all" else 0
                    d, g = delta[b, c], guide[k]
                    total += abs(d[i, j + 1] - d[i, j]) * math.exp(-abs(g[i, j + 1] - g[i, j]))
                    total += abs(d[i + 1, j] - d[i, j]) * math.exp(-abs(g[i + 1, j] - g[i, j]))
        means.append(total / max(count, 1) / (4 if channels == "all" else 1))
    result = smoothness(e, e_hat, valid if masked else None, channels=channels).item()
    assert result == pytest.approx(np.mean(means), rel=1e-9)


def test_released_smoothness_sees_two_channels_only():
    e, e_hat, _ = random_case(3, channels=5)
    changed = e_hat.clone()
    changed[:, 2:] += torch.randn_like(changed[:, 2:])
    assert torch.equal(smoothness(e, e_hat, channels="first_two"), smoothness(e, changed, channels="first_two"))
    assert not torch.equal(smoothness(e, e_hat), smoothness(e, changed))


# ------------------------------------------------------------------ census


def test_census_by_hand():
    # 1 x 3 error (0, 0, 9), window 3. Padded means over nine cells: 0, 1, 1; valid means: 0, 3, 4.5.
    e = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    e_hat = torch.tensor([0.0, 0.0, 9.0], dtype=torch.float64).reshape(1, 1, 1, 3)
    assert census(e, e_hat, kernel=3).item() == pytest.approx(2 / 3)
    assert census(e, e_hat, torch.ones(1, 1, 1, 3, dtype=torch.bool), kernel=3).item() == pytest.approx(2.5)


@pytest.mark.parametrize("masked", [False, True])
def test_census_against_loops(masked):
    e, e_hat, valid = random_case(4)
    means = []
    for b in range(2):
        values = []
        for i in range(H):
            for j in range(W):
                if masked and not valid[b, 0, i, j]:
                    continue
                window = [(y, x) for y in range(i - 3, i + 4) for x in range(j - 3, j + 4)]
                inside = [(y, x) for y, x in window if 0 <= y < H and 0 <= x < W]
                if masked:
                    inside = [(y, x) for y, x in inside if valid[b, 0, y, x]]
                count = len(inside) if masked else 49
                for c in range(3):
                    pools = [sum(t[b, c, y, x].item() for y, x in inside) / count for t in (e, e_hat)]
                    values.append(abs(pools[0] - pools[1]))
        means.append(np.mean(values))
    assert census(e, e_hat, valid if masked else None).item() == pytest.approx(np.mean(means), rel=1e-9)


# ------------------------------------------------------------------- total


def test_total_is_the_weighted_sum_over_both_modalities():
    config = Config.preset("smoke", overrides={"weight_sim": 2.0, "weight_smooth": 0.5, "weight_census": 3.0})
    a, a_hat, valid = random_case(5)
    b, b_hat, _ = random_case(6, channels=2)
    total, terms = CompositeLoss(config)(a, a_hat, b, b_hat, valid)
    expected = {
        "sim": znssd(a, a_hat, valid) + znssd(b, b_hat, valid),
        "smooth": smoothness(a, a_hat, valid) + smoothness(b, b_hat, valid),
        "census": census(a, a_hat, valid) + census(b, b_hat, valid),
    }
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({k: v.item() for k, v in expected.items()})
    weighted = 2 * expected["sim"] + 0.5 * expected["smooth"] + 3 * expected["census"]
    assert total.item() == pytest.approx(weighted.item())


def test_invalid_pixels_count_in_the_released_variant_only():
    e, e_hat, valid = random_case(7)
    moved = torch.where(valid, e_hat, e_hat + 1)
    for variant, same in (("paper", True), ("released", False)):
        loss = CompositeLoss(Config.preset("smoke", variant))
        pair = [loss(e, hat, e, hat, valid)[0].item() for hat in (e_hat, moved)]
        assert (pair[0] == pytest.approx(pair[1])) is same


def test_unknown_choices_are_refused():
    e, e_hat, _ = random_case(8)
    with pytest.raises(ValueError, match="over"):
        znssd(e, e_hat, over="rows")
    with pytest.raises(ValueError, match="channels"):
        smoothness(e, e_hat, channels="some")
