"""The head against a plain implementation on maps, in both variants, and its key names and sizes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mafr.config import Config
from mafr.model import CBAM, MAFR

B, H, W = 2, 5, 6


def plain_cbam(cbam: CBAM, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Woo et al.'s formulation, a sample at a time, on full maps."""
    fc, conv = cbam.channel_attention.fc, cbam.spatial_attention.conv
    out = []
    for sample, mask in zip(x, valid, strict=True):
        rows = sample[:, mask[0]]  # (C, P)
        if cbam.scope == "map":
            gate = torch.sigmoid(fc(rows.mean(dim=1)) + fc(rows.max(dim=1).values))[:, None, None]
        else:
            gate = torch.sigmoid(2 * fc(sample.permute(1, 2, 0))).permute(2, 0, 1)
        sample = sample * gate * mask
        summary = torch.stack([sample.mean(dim=0), sample.max(dim=0).values])[None]
        if cbam.scope == "pixel":  # every pixel is a 1 x 1 map with zero padding around it
            summary = summary[0].permute(1, 2, 0).reshape(-1, 2, 1, 1)
            gate = torch.sigmoid(conv(summary)).reshape(1, H, W)
        else:
            gate = torch.sigmoid(conv(summary))[0]
        out.append(sample * gate)
    return torch.stack(out)


def case(seed: int, channels: int, share: float = 0.6):
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(B, 1, H, W, generator=g) < share
    valid[:, :, 0, 0] = True
    return torch.randn(B, channels, H, W, generator=g), valid


def test_a_head_without_attention_has_none_of_its_weights():
    config = Config.preset("smoke", overrides={"cbam_scope": "none"})
    model, x = MAFR.from_config(config), case(1, 20, 0.6)[0]
    assert not any("cbam" in name for name in model.state_dict())
    assert torch.equal(CBAM(20, scope="none")(x), x)
    with pytest.raises(ValueError, match="'map', 'pixel' or 'none', not 'all'"):
        CBAM(20, scope="all")


@pytest.mark.parametrize("scope", ["map", "pixel"])
@pytest.mark.parametrize("share", [0.6, 2.0])
def test_cbam_equals_the_plain_formulation(scope, share):
    torch.manual_seed(0)
    cbam = CBAM(20, reduction=4, scope=scope)
    x, valid = case(1, 20, share)
    expected = plain_cbam(cbam, x, valid)
    torch.testing.assert_close(cbam(x, valid), expected)
    if share > 1:
        torch.testing.assert_close(cbam(x), expected)


def test_only_the_centre_taps_act_in_pixel_scope():
    cbam = CBAM(20, reduction=4, scope="pixel")
    x, _ = case(2, 20)
    before = cbam(x)
    with torch.no_grad():
        centre = cbam.spatial_attention.conv.weight[:, :, 3, 3].clone()
        cbam.spatial_attention.conv.weight.normal_()
        cbam.spatial_attention.conv.weight[:, :, 3, 3] = centre
    torch.testing.assert_close(cbam(x), before)


def plain_mlp(x, layers, norms, order):
    for k, layer in enumerate(layers):
        norm = norms[k] if isinstance(norms, nn.ModuleList) else norms
        x = norm(F.gelu(layer(x))) if order == "gelu-norm" else F.gelu(norm(layer(x)))
    return x


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_forward_equals_the_plain_formulation(variant):
    config = Config.preset("smoke", variant, {"rgb_dim": 20, "xyz_dim": 32})
    torch.manual_seed(0)
    model = MAFR.from_config(config).eval()
    (e_rgb, valid), (e_xyz, _) = case(3, 20), case(4, 32)
    valid = valid if config.valid_only else torch.ones_like(valid)
    x = torch.cat([e_rgb, e_xyz], dim=1).permute(0, 2, 3, 1)
    enc = model.encoder
    fused = enc.output_fc(plain_mlp(x, [enc.input_fc, *enc.layers], enc.layer_norm, "gelu-norm"))
    results = model(e_rgb, e_xyz, valid if config.valid_only else None)
    for decoder, result in zip((model.decoder_rgb, model.decoder_xyz), results, strict=True):
        h = plain_mlp(fused, [decoder.input_fc, *decoder.layers], decoder.norm, config.decoder_order)
        h = plain_cbam(decoder.cbam, h.permute(0, 3, 1, 2) * valid, valid).permute(0, 2, 3, 1)
        expected = (decoder.output_fc(h) + decoder.skip(fused)).permute(0, 3, 1, 2) * valid
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_invalid_pixels_change_nothing_in_the_paper_variant():
    config = Config.preset("smoke", "paper", {"rgb_dim": 20, "xyz_dim": 32})
    model = MAFR.from_config(config).eval()
    (e_rgb, valid), (e_xyz, _) = case(5, 20), case(6, 32)
    noise = torch.randn_like(e_rgb)
    a = model(e_rgb, e_xyz, valid)
    b = model(torch.where(valid, e_rgb, noise), e_xyz, valid)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)
        assert (x[~valid.expand_as(x)] == 0).all()


def test_a_sample_does_not_depend_on_its_batch():
    model = MAFR.from_config(Config.preset("smoke", "paper", {"rgb_dim": 20, "xyz_dim": 32})).eval()
    (e_rgb, valid), (e_xyz, _) = case(7, 20), case(8, 32)
    both = model(e_rgb, e_xyz, valid)
    for k in range(B):
        one = model(e_rgb[k : k + 1], e_xyz[k : k + 1], valid[k : k + 1])
        for x, y in zip(one, both, strict=True):
            torch.testing.assert_close(x[0], y[k], rtol=1e-4, atol=1e-5)


def test_published_sizes():
    """13.38 M parameters in the released code; 968 and 960 as fused widths at full size."""
    paper, released = (Config.preset("full", v) for v in ("paper", "released"))
    assert (paper.width, released.width) == (968, 960)
    assert sum(p.numel() for p in MAFR.from_config(released).parameters()) / 1e6 == pytest.approx(13.38, abs=0.005)


def test_released_key_names():
    model = MAFR.from_config(Config.preset("smoke", "released"))
    assert set(model.encoder.state_dict()) == {
        f"{name}.{kind}" for name in ("input_fc", "layers.0", "output_fc", "layer_norm") for kind in ("weight", "bias")
    }
    linear = ("input_fc", "layers.0", "layers.1", "output_fc", "norm", "skip")
    linear += ("cbam.channel_attention.fc.0", "cbam.channel_attention.fc.2")
    expected = {f"{name}.{kind}" for name in linear for kind in ("weight", "bias")}
    assert set(model.decoder_xyz.state_dict()) == expected | {"cbam.spatial_attention.conv.weight"}
