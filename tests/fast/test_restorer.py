"""The head on tokens (`mafr.fast.restorer`) against the head on dense maps (`mafr.model`) and the maps' losses."""

import dataclasses

import numpy as np
import pytest
import torch
from support.samples import CPU, config_of, model_of, plain_step, relative, tokens_of

from mafr.device import Place, native_bfloat16
from mafr.fast import attention
from mafr.fast import layers as pixelwise
from mafr.fast import restorer as restore
from mafr.fast.layers import Dropout
from mafr.fast.pixels import Canvas
from mafr.fast.restorer import Restorer, open_scene
from mafr.features.interpolation import densify
from mafr.losses import CompositeLoss
from mafr.model import CBAM, ChannelAttention
from mafr.scoring import residual_map

POOLS = (1, 3)
SCOPES = [("paper", {}), ("released", {}), ("paper", {"valid_only": False}), ("released", {"valid_only": True}),
          ("released", {"cbam_scope": "map"}), ("paper", {"cbam_scope": "pixel"}),
          ("paper", {"cbam_scope": "none"}), ("released", {"cbam_scope": "none"})]  # fmt: skip


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("variant", "changes"), SCOPES)
def test_residuals_equal_the_plain_ones(variant, changes, pool):
    config = config_of(variant, xyz_pool=pool, **changes)
    tokens, model = tokens_of(config), model_of(config).eval()
    e_rgb, e_xyz, valid = densify(tokens, config)
    with torch.no_grad():
        plain = model(e_rgb, e_xyz, valid if config.valid_only else None)
    wanted = [residual_map(e, e_hat) * valid for e, e_hat in zip((e_rgb, e_xyz), plain, strict=True)]
    scene = open_scene(tokens, config, CPU, every_pixel=restore.scores_every_pixel(config))
    assert torch.equal(scene.valid, valid[0, 0])
    got = Restorer(model, config, CPU).residuals(scene)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("variant", "changes"), SCOPES)
def test_a_step_leaves_the_plain_gradients(variant, changes):
    config = config_of(variant, xyz_pool=3, **changes)
    tokens, model = tokens_of(config), model_of(config).train()
    plain, wanted = plain_step(config, tokens, model)
    scene = open_scene(tokens, config, CPU, every_pixel=not config.valid_only)
    values = Restorer(model, config, CPU).general_step(scene, Dropout(0.0, (0,)))
    for name, value in plain.items():
        assert value.item() == pytest.approx(values[name].item(), rel=1e-4)
    for name, parameter in model.named_parameters():
        if "cbam.spatial_attention" in name and config.cbam_scope == "pixel":
            continue  # below: only the centre taps have a gradient
        assert relative(parameter.grad, wanted[name]) < 1e-4, name
    for decoder in ("decoder_rgb", "decoder_xyz") if config.cbam_scope != "none" else ():
        name = f"{decoder}.cbam.spatial_attention.conv.weight"
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, wanted[name], rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_parts_and_recomputation_change_nothing(variant, monkeypatch):
    config = config_of(variant, dropout=0.0)
    tokens, model = tokens_of(config), model_of(config).train()
    scene = open_scene(tokens, config, CPU, every_pixel=not config.valid_only)
    gradients = []
    for part, kept in ((2**20, 2**16), (5 * 192, 100)):
        monkeypatch.setattr(pixelwise, "_PART", part)
        monkeypatch.setattr(restore, "ROWS_KEPT", kept)
        model.zero_grad()
        Restorer(model, config, CPU).general_step(scene, Dropout(0.0, (0,)))
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=2e-4, atol=2e-6, msg=name)


def test_dropout_has_its_rate_and_its_mask_in_the_backward_pass():
    drop = Dropout(0.1, (1, 2))
    dropped = drop.mask((0, 0), 0, 2000, 500, torch.device("cpu"))
    kept = ~dropped
    assert kept.float().mean().item() == pytest.approx(0.9, abs=0.002)
    assert drop.scale * (1 - drop.dropped / 65536) == pytest.approx(1.0)
    assert not torch.equal(dropped, drop.mask((0, 1), 0, 2000, 500, torch.device("cpu")))
    assert torch.equal(dropped, Dropout(0.1, (1, 2)).mask((0, 0), 0, 2000, 500, torch.device("cpu")))
    norm = torch.nn.LayerNorm(500)
    h = torch.randn(2000, 500, requires_grad=True)
    for order in ("gelu-norm", "norm-gelu"):
        plain = norm(torch.nn.functional.gelu(h)) if order == "gelu-norm" else torch.nn.functional.gelu(norm(h))
        plain = plain * kept * drop.scale
        ours = pixelwise.activate(h, norm, order, dropped, drop.scale)
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
        upstream = torch.randn_like(h)
        wanted = torch.autograd.grad(plain, (h, norm.weight, norm.bias), upstream)
        got = torch.autograd.grad(ours, (h, norm.weight, norm.bias), upstream)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_mask_does_not_depend_on_how_rows_are_split(monkeypatch):
    """As very large maps are, by a number of rows that draws of most widths do not divide."""
    drop, layer, cpu = Dropout(0.1, (3, 4)), (1, 2), torch.device("cpu")
    assert pixelwise._DRAWN // 768 * 768 != pixelwise._DRAWN and restore.ROWS_KEPT % (pixelwise._DRAWN // 768)
    monkeypatch.setattr(pixelwise, "_DRAWN", 1000)
    whole = drop.mask(layer, 0, 300, 37, cpu)
    for step in (27, 100, 299):
        firsts = range(0, 300, step)
        parts = [drop.mask(layer, first, min(step, 300 - first), 37, cpu) for first in firsts]
        assert torch.equal(torch.cat(parts), whole)


def test_draws_drop_what_the_mask_drops(monkeypatch):
    drop, shape = Dropout(0.1, (3, 4)), (300, 37)
    whole = drop.mask((0, 7), 0, *shape, torch.device("cpu")).numpy()
    np.testing.assert_array_equal(drop.draws((0, 7), *shape) < drop.dropped, whole)
    monkeypatch.setattr(pixelwise, "_DRAWN", 1000)
    assert len(drop.parts(*shape)) == 12
    mask, kept = drop.mask((0, 7), 0, *shape, torch.device("cpu")).numpy(), np.empty(shape, dtype=bool)
    for part in drop.parts(*shape):
        drop.keep((0, 7), part.start, kept[part])
    np.testing.assert_array_equal(kept, ~mask)
    np.testing.assert_array_equal(mask[:27], whole[:27])
    assert mask[27:].mean() == pytest.approx(0.1, abs=0.01) and (mask[27:] != whole[27:]).any()


def test_gradients_of_map_attention_are_the_automatic_ones_to_the_bit():
    generator = torch.Generator().manual_seed(5)
    chosen = torch.rand(13, 11, generator=generator) < 0.6
    canvas, module = Canvas(chosen), ChannelAttention(48, 16)
    narrow, _, wide = module.fc
    kernel = torch.randn(1, 2, 7, 7, generator=generator, requires_grad=True)
    x = torch.randn(len(canvas), 48, generator=generator)
    x[3] = x[5] = x.amax(dim=0)  # ties share the gradient of a maximum
    plain = x.clone().requires_grad_()
    average, maximum = plain.sum(dim=0) / len(x), plain.amax(dim=0)
    gated = plain * module(average, maximum)
    summary = torch.zeros(13 * 11, 2).index_copy(0, canvas.rows, attention.mean_and_max(gated))
    logits = torch.nn.functional.conv2d(summary.view(13, 11, 2).permute(2, 0, 1)[None], kernel, padding=3)
    wanted = gated * torch.sigmoid(logits.reshape(-1, 1)[canvas.rows])
    ours = x.clone().requires_grad_()
    got = attention.map_attention(ours * 1.0, narrow, wide, kernel, canvas)
    assert torch.equal(got, wanted)
    upstream = torch.randn(x.shape, generator=generator)
    weights = (narrow.weight, narrow.bias, wide.weight, wide.bias, kernel)
    a, b = (
        torch.autograd.grad(got, (ours, *weights), upstream),
        torch.autograd.grad(wanted, (plain, *weights), upstream),
    )
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_gradients_of_gate_and_convolution_are_the_automatic_ones_to_the_bit():
    generator = torch.Generator().manual_seed(6)
    module, ends = ChannelAttention(48, 16), torch.randn(2, 48, generator=generator).unbind()
    narrow, _, wide = module.fc
    leaves = [end.clone().requires_grad_() for end in ends]
    gate, d_gate = module(*leaves), torch.randn(48, generator=generator)
    wanted = torch.autograd.grad(gate, (*leaves, narrow.weight, narrow.bias, wide.weight, wide.bias), d_gate)
    inner = [narrow(end).relu().detach() for end in ends]
    got = attention._gate_back(d_gate, gate.detach(), ends, inner, narrow.weight, wide.weight)
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)

    canvas = Canvas(torch.rand(13, 11, generator=generator) < 0.6)
    kernel = torch.randn(1, 2, 7, 7, generator=generator, requires_grad=True)
    summary = torch.randn(len(canvas), 2, generator=generator, requires_grad=True)
    image = canvas.spread(summary).permute(2, 0, 1)[None]
    logits = canvas.gather(torch.nn.functional.conv2d(image, kernel, padding=3)[0].permute(1, 2, 0))
    d_logits = torch.randn(logits.shape, generator=generator)
    wanted = torch.autograd.grad(logits, (summary, kernel), d_logits)
    got = attention._convolution_back(d_logits, image.detach(), kernel.detach(), canvas)
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_step_drops_what_the_plain_model_drops_given_the_same_masks(variant, monkeypatch):
    config = config_of(variant, dropout=0.1)
    tokens, model, drop = tokens_of(config), model_of(config).train(), Dropout(0.1, (5,))
    hidden = len(model.decoder_rgb.layers) + 1
    layers = iter([(0, 0), (0, 1), *((block, k) for block in (1, 2) for k in range(hidden))])

    def masked(x, probability, training):
        assert training and probability == config.dropout
        kept = torch.ones_like(x)  # the plain model goes over all pixels, the step over those that count
        kept[counted] = ~drop.mask(next(layers), 0, int(counted.sum()), x.shape[1], x.device) * drop.scale
        return x * kept

    e_rgb, e_xyz, valid = densify(tokens, config)
    counted = valid.reshape(-1) if config.valid_only else torch.ones_like(valid).reshape(-1)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "dropout", masked)
        restored = model(e_rgb, e_xyz, valid if config.valid_only else None)
    assert next(layers, None) is None
    total, plain = CompositeLoss(config)(e_rgb, restored[0], e_xyz, restored[1], valid)
    total.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    scene = open_scene(tokens, config, CPU, every_pixel=not config.valid_only)
    values = Restorer(model, config, CPU).general_step(scene, drop)
    for name, value in plain.items():
        assert value.item() == pytest.approx(values[name].item(), rel=1e-4)
    for name, parameter in model.named_parameters():
        if "cbam.spatial_attention" not in name:  # tiny; compared above
            assert relative(parameter.grad, wanted[name]) < 1e-4, name


@pytest.mark.parametrize("scope", ["map", "pixel"])
def test_attention_gradients_with_ties(scope):
    """Equal maxima share the gradient, as in torch's amax."""
    torch.manual_seed(0)
    cbam = CBAM(32, reduction=4, kernel=3, scope=scope)
    x = torch.randn(1, 32, 5, 5).mul(2).round().div(2).requires_grad_()  # half steps: many equal values
    upstream = torch.randn(1, 32, 5, 5)
    wanted = torch.autograd.grad(cbam(x), x, upstream)[0]
    canvas = restore.Canvas(torch.ones(5, 5, dtype=torch.bool))
    rows = x.detach()[0].flatten(1).T.contiguous().requires_grad_()
    out = restore.attend(cbam, rows, canvas)
    got = torch.autograd.grad(out, rows, upstream[0].flatten(1).T)[0]
    torch.testing.assert_close(got.T.reshape(1, 32, 5, 5), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not native_bfloat16("cpu"), reason="this processor has no bfloat16 products")
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_bfloat16_is_close_and_repeats(variant):
    config = config_of(variant, dropout=0.1)
    half = Place(torch.device("cpu"), torch.bfloat16)
    tokens, model = tokens_of(config), model_of(config).eval()
    scene = open_scene(tokens, config, CPU, every_pixel=not config.valid_only)
    exact, rounded = Restorer(model, config, CPU).residuals(scene), Restorer(model, config, half).residuals(scene)
    for a, b in zip(rounded, exact, strict=True):
        assert a.dtype == torch.float32
        assert 0 < relative(a, b) < 0.01
    gradients = []
    for place in (CPU, half, half):
        model.zero_grad()
        Restorer(model, config, place).step(scene, Dropout(0.1, (0, 1)))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert relative(gradients[1], gradients[0]) < 0.1  # the absolute values in the losses have signs that flip
    assert torch.equal(gradients[1], gradients[2])


def test_dropout_of_a_large_image_does_not_depend_on_being_recomputed(monkeypatch):
    """The mask of a recomputed part is drawn from its key again: gradients fit the values."""
    monkeypatch.setattr(restore, "ROWS_KEPT", 150)
    config = dataclasses.replace(config_of("released"), dropout=0.3)
    tokens, model = tokens_of(config), model_of(config).double().float().train()
    scene = open_scene(tokens, config, CPU, every_pixel=True)
    restorer, drop = Restorer(model, config, CPU), Dropout(0.3, (7,))
    restorer.step(scene, drop)
    weight = model.decoder_rgb.input_fc.weight
    direction = weight.grad / weight.grad.norm()
    slope, eps = (weight.grad * direction).sum().item(), 1e-2
    ends = []
    for sign in (1, -1):
        weight.data.add_(direction, alpha=sign * eps)
        ends.append(sum(v.item() for v in restorer.step(scene, drop).values()))
        weight.data.add_(direction, alpha=-sign * eps)
    assert (ends[0] - ends[1]) / (2 * eps) == pytest.approx(slope, rel=0.02)
