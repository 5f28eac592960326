"""The losses on rows, with their closed-form gradients, against the maps' losses and automatic gradients."""

import dataclasses

import pytest
import torch

from mafr.config import LOSS_TERMS, Config
from mafr.fast import layers as pixelwise
from mafr.fast import objective
from mafr.fast.objective import Objective, Original
from mafr.fast.pixels import Canvas, window_sum
from mafr.features.interpolation import Rows
from mafr.losses import CompositeLoss

SIDE, WIDTH = 17, 11


def case(seed: int, chosen: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    e = torch.randn(1, WIDTH, SIDE, SIDE, generator=g)
    e_hat = e + 0.7 * torch.randn(1, WIDTH, SIDE, SIDE, generator=g)
    valid = torch.rand(1, 1, SIDE, SIDE, generator=g) < 0.7
    if chosen == "corner":  # a rectangle that ends at the border of the image on one side only
        valid[..., 9:, :] = False
        valid[..., :, :6] = False
    elif chosen == "all":
        valid[:] = True
    return e, e_hat, valid


def one_by_one(count: int) -> Rows:
    """Every pixel's features are a token of its own."""
    return Rows(torch.arange(count).int(), torch.ones(count), torch.arange(count + 1).int(), count)


@pytest.mark.parametrize("chosen", ["scattered", "corner", "all"])
@pytest.mark.parametrize("terms", [(name,) for name in LOSS_TERMS] + [LOSS_TERMS])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_values_and_gradients_equal_the_plain_losses(variant, terms, chosen):
    config = Config.preset("smoke", variant, {"loss_terms": terms, "weight_census": 0.5, "weight_smooth": 2.0})
    e, e_hat, valid = case(1, chosen)
    e_hat.requires_grad_()
    zero = torch.zeros(1, 1, SIDE, SIDE)  # the second modality adds nothing
    total, plain = CompositeLoss(config)(e, e_hat, zero, zero, valid)
    total.backward()

    canvas = Canvas(valid[0, 0] if config.valid_only else torch.ones_like(valid[0, 0]))
    rows = [t.detach()[0].flatten(1).T[canvas.rows].contiguous() for t in (e, e_hat)]
    values, gradient = Objective(config)(Original(rows[0], one_by_one(len(canvas)), canvas), rows[1])
    wanted = e_hat.grad[0].flatten(1).T[canvas.rows]
    for name in terms:
        torch.testing.assert_close(values[name], plain[name], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7 * float(wanted.abs().max()) + 1e-9)


def test_a_constant_channel_has_a_finite_gradient():
    config = dataclasses.replace(Config.preset("smoke"), loss_terms=("sim",))
    e, _, valid = case(2, "scattered")
    canvas = Canvas(valid[0, 0])
    rows = e[0].flatten(1).T[canvas.rows].contiguous()
    values, gradient = Objective(config)(Original(rows, one_by_one(len(canvas)), canvas), torch.full_like(rows, 2.0))
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(values["sim"])


@pytest.mark.parametrize("parts", [None, 17 * 17 * 4])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_what_is_remembered_of_the_original_changes_nothing(variant, parts, monkeypatch):
    if parts is not None:  # a few channels, a few pixels at a time
        monkeypatch.setattr(objective, "_PART", parts)
        monkeypatch.setattr(pixelwise, "_PART", parts)
    config = Config.preset("smoke", variant)
    e, _, valid = case(4, "scattered")
    canvas = Canvas(valid[0, 0] if config.valid_only else torch.ones_like(valid[0, 0]))
    rows = e[0].flatten(1).T[canvas.rows].contiguous()
    kept = Original(rows, one_by_one(len(canvas)), canvas, remember=True)
    for seed in range(3):
        e_hat = rows + torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
        values, gradient = Objective(config)(kept, e_hat)
        wanted, fresh = Objective(config)(Original(rows, one_by_one(len(canvas)), canvas), e_hat)
        assert values == wanted
        assert torch.equal(gradient, fresh)
    tensors = [t for value in kept._known.values() for t in (value if isinstance(value, tuple) else (value,))]
    few = 4 * 4 * (len(canvas) + canvas.height * canvas.width)  # what has one or two channels
    assert 0 < sum(t.nbytes for t in tensors) <= Original.bytes_remembered(config, WIDTH, canvas) + few


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 15])
def test_window_sums(kernel):
    image = torch.randn(9, 13, 2, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), kernel, 1, kernel // 2, divisor_override=1)
    torch.testing.assert_close(window_sum(image, kernel), wanted.permute(1, 2, 0), rtol=1e-5, atol=1e-5)


def test_spread_and_gather_are_inverse_and_counts_are_right():
    valid = case(3, "corner")[2][0, 0]
    canvas = Canvas(valid)
    rows = torch.randn(len(canvas), 4)
    assert torch.equal(canvas.gather(canvas.spread(rows)), rows)
    assert (canvas.height, canvas.width) == (9, 11)
    counts = torch.nn.functional.conv2d(valid[None, None].float(), torch.ones(1, 1, 5, 5), padding=2)[0, 0]
    assert torch.equal(canvas.window_counts(5)[:, 0], counts[valid])
