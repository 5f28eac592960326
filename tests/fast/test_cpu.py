"""Steps and residuals on a CPU (`mafr.fast.cpu`) against the head on dense maps and against the general functions."""

import math
import platform

import numpy as np
import pytest
import torch
from numba import njit
from support.samples import CPU, config_of, model_of, plain_step, relative, tokens_of

from mafr.fast.attention import map_attention, pixel_attention
from mafr.fast.cpu import attention, layers, objective, threads
from mafr.fast.cpu.attention import MapAttention, PixelAttention
from mafr.fast.cpu.step import Step
from mafr.fast.layers import Dropout
from mafr.fast.loops import elementary
from mafr.fast.pixels import Canvas
from mafr.fast.restorer import Restorer, open_scene, scores_every_pixel
from mafr.model import CBAM

SCOPES = [("paper", {}), ("released", {}), ("paper", {"valid_only": False}), ("released", {"valid_only": True}),
          ("released", {"cbam_scope": "map"}), ("paper", {"cbam_scope": "pixel"}), ("paper", {"shared_norm": True}),
          ("paper", {"cbam_scope": "none"}), ("released", {"cbam_scope": "none"}),
          *((variant, {"loss_terms": (term,)}) for variant in ("paper", "released")
            for term in ("sim", "smooth", "census"))]  # fmt: skip


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients so far, which become zero."""
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=False)
    return found


@pytest.mark.parametrize(("variant", "changes"), SCOPES)
def test_a_step_leaves_the_plain_gradients(variant, changes):
    config = config_of(variant, xyz_pool=3, **changes)
    tokens, model = tokens_of(config), model_of(config).train()
    plain, wanted = plain_step(config, tokens, model)
    scene = open_scene(tokens, config, CPU, every_pixel=not config.valid_only)
    values = Step(model, config)(scene, Dropout(0.0, (0,)))
    assert list(values) == list(config.loss_terms)
    for name, value in plain.items():
        assert values[name].item() == pytest.approx(value.item(), rel=1e-4)
    for name, gradient in gradients(model).items():
        if "cbam.spatial_attention" in name:
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-8)
        else:
            # Below 1e-6: eq. 3 over pixels does not see what all pixels share; what is left is rounding.
            assert relative(gradient, wanted[name]) < 1e-4 or (gradient - wanted[name]).norm() < 1e-6, name


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_step_drops_what_the_general_one_drops(variant):
    config = config_of(variant)
    tokens, model = tokens_of(config), model_of(config).train()
    scene = open_scene(tokens, config, CPU, every_pixel=not config.valid_only)
    dropout = Dropout(0.25, (1, 2, 3))
    general = Restorer(model, config, CPU).general_step(scene, dropout)
    wanted = gradients(model)
    step = Step(model, config)
    small = step(scene, dropout)
    for name, value in general.items():
        assert small[name].item() == pytest.approx(value.item(), rel=1e-5)
    once = gradients(model)
    for name, gradient in once.items():
        assert relative(gradient, wanted[name]) < 1e-4, name
    for _ in range(2):  # two samples of one step
        step(scene, dropout)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, 2 * once[name], rtol=1e-5, atol=1e-8, msg=name)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_parts_and_threads_change_nothing(variant, monkeypatch):
    config = config_of(variant, xyz_pool=3)
    tokens, model = tokens_of(config), model_of(config).train()
    scene = open_scene(tokens, config, CPU, every_pixel=not config.valid_only)
    step, dropout, before = Step(model, config), Dropout(0.1, (1, 2)), torch.get_num_threads()
    results = [(step(scene, dropout), gradients(model), step.residuals(scene))]
    monkeypatch.setattr(threads, "_PART", 1000)
    monkeypatch.setattr(objective, "_CHANNELS", 40)
    for module in (layers, attention):
        monkeypatch.setattr(module, "ROWS", 50)
    monkeypatch.setattr("mafr.fast.cpu.step.OUTPUT_ROWS", 60)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append((step(scene, dropout), gradients(model), step.residuals(scene)))
    finally:
        torch.set_num_threads(before)
    whole, *others = results
    for other in others:
        for a, b in zip(whole[2], other[2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        for name, value in whole[0].items():
            assert other[0][name].item() == pytest.approx(value.item(), rel=1e-5)
        for name, gradient in whole[1].items():
            assert relative(other[1][name], gradient) < 1e-4 or (other[1][name] - gradient).norm() < 1e-6, name


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_loops_do_not_depend_on_the_number_of_threads(variant, monkeypatch):
    config = config_of(variant)
    original = open_scene(tokens_of(config), config, CPU, every_pixel=not config.valid_only).originals[1]
    restored = np.random.default_rng(0).standard_normal((len(original.canvas), 192)).astype(np.float32)
    monkeypatch.setattr(threads, "_PART", 1000)
    monkeypatch.setattr(objective, "_CHANNELS", 40)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(objective.losses(config, original, restored))
    finally:
        torch.set_num_threads(before)
    for values, gradient in found[1:]:
        assert values == found[0][0]
        np.testing.assert_array_equal(gradient, found[0][1])


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_residuals_are_the_general_ones_and_leave_no_gradients(variant, monkeypatch):
    config = config_of(variant)
    tokens, model = tokens_of(config), model_of(config).eval()
    scene = open_scene(tokens, config, CPU, every_pixel=scores_every_pixel(config))
    restorer = Restorer(model, config, CPU)
    wanted = restorer.residuals(scene)
    monkeypatch.setattr("mafr.fast.restorer.SMALL", 0)
    for a, b in zip(restorer.residuals(scene), wanted, strict=True):
        assert a.abs().sum() > 0 and not torch.equal(a, b)  # another way, the same values
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert all(p.grad is None for p in model.parameters())
    restorer.step(open_scene(tokens, config, CPU, every_pixel=not config.valid_only), Dropout(0.0, (0,)))
    assert all(p.grad.abs().sum() > 0 for p in model.decoder_xyz.output_fc.parameters())


@pytest.mark.parametrize("scope", ["map", "pixel"])
def test_ties_share_the_gradient_of_a_maximum(scope):
    generator = torch.Generator().manual_seed(5)
    canvas, cbam = Canvas(torch.rand(13, 11, generator=generator) < 0.6), CBAM(48, scope=scope)
    x = torch.randn(len(canvas), 48, generator=generator).round(decimals=1)  # many ties, in rows and in columns
    x[3] = x[5] = x.amax(dim=0)
    x[7] = 0.5
    narrow, _, wide = cbam.channel_attention.fc
    kernel, leaf, upstream = cbam.spatial_attention.conv.weight, x.clone().requires_grad_(), torch.randn(x.shape)
    if scope == "map":
        wanted = map_attention(leaf * 1.0, narrow, wide, kernel, canvas)
    else:
        wanted = pixel_attention(leaf * 1.0, narrow, wide, kernel[:, :, 3, 3])
    wanted.backward(upstream)
    expected = gradients(cbam)
    block = (MapAttention if scope == "map" else PixelAttention)(cbam)
    with torch.no_grad():
        torch.testing.assert_close(block.forward(x, canvas), wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(block.backward(upstream.clone()), leaf.grad, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients(cbam).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_elementary_functions_are_as_exact_as_float32():
    for x in np.linspace(-87, 88, 3001, dtype=np.float32):
        assert elementary.exp(x) == pytest.approx(math.exp(float(x)), rel=3e-7)
    for x in np.linspace(-12, 12, 2001, dtype=np.float32):
        cumulative, density = elementary.gauss(x)
        assert cumulative == pytest.approx(0.5 * math.erfc(-float(x) / 2**0.5), abs=4e-7)
        assert density == pytest.approx(math.exp(-0.5 * float(x) ** 2) / (2 * math.pi) ** 0.5, rel=4e-6)
        assert elementary.sigmoid(x) == pytest.approx(1 / (1 + math.exp(-float(x))), rel=5e-7)
    for count in (1, 5, 16, 37, 192):
        values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
        assert elementary.total(values) == pytest.approx(float(values.astype(float).sum()), abs=1e-5)
        assert elementary.dot(values, values) == pytest.approx(float((values.astype(float) ** 2).sum()), rel=1e-5)
        assert elementary.highest(values) == values.max()
        assert elementary.highest(-np.abs(values)) == -np.abs(values).min()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="not an x86 processor")
def test_loops_take_vectors_of_one_width_on_every_processor():
    @njit(fastmath={"contract", "reassoc", "nsz"})
    def squares(x):
        value = np.float32(0)
        for j in range(len(x)):
            value += x[j] * x[j]
        return value

    assert squares(np.ones(100, dtype=np.float32)) == 100
    assembly = "".join(squares.inspect_asm().values())
    assert "ymm" in assembly and "zmm" not in assembly
