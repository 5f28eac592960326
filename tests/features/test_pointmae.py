"""The Point-MAE encoder: published key layout, plain-code equality, loading, the released code's train mode."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mafr.config import Config
from mafr.data.acquire.checksum import file_sha256
from mafr.errors import ConfigError, WeightsError
from mafr.features import encoders
from mafr.features.encoders import SMALL_WEIGHTS, known_weights, point_encoder, small_weights_sha256
from mafr.features.pointmae import (
    PUBLISHED,
    SMALL,
    Block,
    PointMAE,
    PointMAEShape,
    batch_statistics,
    load_checkpoint,
    shape_as_json,
)
from mafr.features.weights import files as weight_files
from mafr.features.weights.files import POINTMAE

TINY = PointMAEShape(width=24, depth=4, heads=2, taps=(2, 4), first=(8, 12), second=20, position=16)


def published_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the encoder's tensors in the published file, written out by hand."""
    layout: dict[str, tuple[int, ...]] = {
        "encoder.first_conv.0.weight": (128, 3, 1),
        "encoder.first_conv.0.bias": (128,),
        "encoder.first_conv.3.weight": (256, 128, 1),
        "encoder.first_conv.3.bias": (256,),
        "encoder.second_conv.0.weight": (512, 512, 1),
        "encoder.second_conv.0.bias": (512,),
        "encoder.second_conv.3.weight": (384, 512, 1),
        "encoder.second_conv.3.bias": (384,),
        "pos_embed.0.weight": (128, 3),
        "pos_embed.0.bias": (128,),
        "pos_embed.2.weight": (384, 128),
        "pos_embed.2.bias": (384,),
        "norm.weight": (384,),
        "norm.bias": (384,),
    }
    for conv, width in (("first_conv", 128), ("second_conv", 512)):
        for name in ("weight", "bias", "running_mean", "running_var"):
            layout[f"encoder.{conv}.1.{name}"] = (width,)
        layout[f"encoder.{conv}.1.num_batches_tracked"] = ()
    for k in range(12):
        block = f"blocks.blocks.{k}"
        for norm in ("norm1", "norm2"):
            layout[f"{block}.{norm}.weight"] = layout[f"{block}.{norm}.bias"] = (384,)
        layout[f"{block}.attn.qkv.weight"] = (1152, 384)
        layout[f"{block}.attn.proj.weight"] = (384, 384)
        layout[f"{block}.attn.proj.bias"] = (384,)
        layout[f"{block}.mlp.fc1.weight"] = (1536, 384)
        layout[f"{block}.mlp.fc1.bias"] = (1536,)
        layout[f"{block}.mlp.fc2.weight"] = (384, 1536)
        layout[f"{block}.mlp.fc2.bias"] = (384,)
    return layout


def published_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in published_layout().items():
        values = torch.randn(shape, generator=generator) * 0.05
        weights[name] = values.abs() + 0.5 if "running_var" in name else values
    return {k: v.round().long() if k.endswith("tracked") else v for k, v in weights.items()}


def write_published(path: Path, weights: dict[str, torch.Tensor], prefix: str = "module.MAE_encoder.") -> Path:
    content = {f"{prefix}{k}": v for k, v in weights.items()}
    outer = prefix.removesuffix("MAE_encoder.")
    content[f"{outer}mask_token"] = torch.zeros(1, 1, 384)
    content[f"{outer}MAE_decoder.blocks.0.norm1.weight"] = torch.zeros(384)
    content[f"{outer}decoder_pos_embed.0.weight"] = torch.zeros(128, 3)
    content[f"{outer}increase_dim.0.weight"] = torch.zeros(96, 384, 1)
    torch.save({"base_model": content, "epoch": 300, "best_metrics": {}}, path)
    return path


def plain_features(w: dict[str, torch.Tensor], patches: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The published encoder written down without any of the shortcuts: patches (G, M, 3), centres (G, 3)."""

    def batch_norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = w[f"{name}.running_mean"][:, None], w[f"{name}.running_var"][:, None]
        return (x - mean) / (var + 1e-5).sqrt() * w[f"{name}.weight"][:, None] + w[f"{name}.bias"][:, None]

    def convolve(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def layer_norm(x: torch.Tensor, name: str) -> torch.Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = patches.transpose(1, 2)  # (G, 3, M)
    x = batch_norm(convolve(x, "encoder.first_conv.0"), "encoder.first_conv.1")
    x = convolve(F.relu(x), "encoder.first_conv.3")
    x = torch.cat([x.max(2, keepdim=True).values.expand_as(x), x], dim=1)
    x = batch_norm(convolve(x, "encoder.second_conv.0"), "encoder.second_conv.1")
    x = convolve(F.relu(x), "encoder.second_conv.3").max(2).values  # (G, 384)
    pos = F.gelu(centres @ w["pos_embed.0.weight"].T + w["pos_embed.0.bias"])
    pos = pos @ w["pos_embed.2.weight"].T + w["pos_embed.2.bias"]
    taps = []
    for k in range(12):
        b = f"blocks.blocks.{k}"
        x = x + pos
        q, key, v = (layer_norm(x, f"{b}.norm1") @ w[f"{b}.attn.qkv.weight"].T).split(384, dim=1)
        heads = []
        for h in range(6):
            part = slice(64 * h, 64 * (h + 1))
            heads.append(torch.softmax(q[:, part] @ key[:, part].T * 64**-0.5, dim=1) @ v[:, part])
        x = x + torch.cat(heads, dim=1) @ w[f"{b}.attn.proj.weight"].T + w[f"{b}.attn.proj.bias"]
        hidden = F.gelu(layer_norm(x, f"{b}.norm2") @ w[f"{b}.mlp.fc1.weight"].T + w[f"{b}.mlp.fc1.bias"])
        x = x + hidden @ w[f"{b}.mlp.fc2.weight"].T + w[f"{b}.mlp.fc2.bias"]
        if k + 1 in (4, 8, 12):
            taps.append(layer_norm(x, "norm"))
    return torch.cat(taps, dim=1)


def _input(groups: int, size: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(1, groups, size, 3, generator=generator), torch.randn(1, groups, 3, generator=generator))


def test_the_encoder_has_exactly_the_published_keys() -> None:
    own = {k: tuple(v.shape) for k, v in PointMAE(PUBLISHED).state_dict().items()}
    assert own == published_layout()
    assert PUBLISHED.dim == 1152 and SMALL.dim == Config().xyz_dim


@pytest.mark.parametrize("prefix", ["module.MAE_encoder.", "MAE_encoder."])
def test_a_published_file_gives_the_plain_encoders_features(tmp_path: Path, prefix: str) -> None:
    weights = published_weights()
    model = load_checkpoint(write_published(tmp_path / "pretrain.pth", weights, prefix))
    assert not model.training
    patches, centres = _input(20, 16)
    with torch.no_grad():
        features = model(patches, centres)
    expected = plain_features(weights, patches[0], centres[0])
    assert features.shape == (1, 20, 1152)
    torch.testing.assert_close(features[0], expected, atol=2e-4, rtol=1e-4)
    # metres as they come: the published encoder's input is not scaled
    same = model.scale(patches, centres, torch.ones(1, 3))
    assert same[0] is patches and same[1] is centres


def test_chunks_do_not_change_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PointMAE(TINY)
    patches, _ = _input(50, 8)
    whole = model.embed(patches)
    monkeypatch.setattr("mafr.features.pointmae._POINTS_A_CHUNK", 24)
    torch.testing.assert_close(model.embed(patches), whole)


def test_missing_and_misshapen_tensors_are_listed(tmp_path: Path) -> None:
    weights = published_weights()
    del weights["blocks.blocks.7.attn.proj.bias"], weights["norm.weight"]
    weights["pos_embed.0.weight"] = torch.zeros(128, 4)
    path = write_published(tmp_path / "pretrain.pth", weights)
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(path)
    for text in ("blocks.blocks.7.attn.proj.bias is missing", "norm.weight is missing", "(128, 4)", str(path)):
        assert text in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.pth"
    page.write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=r"page\.pth: not readable as Point-MAE weights \(.*\); download it again"):
        load_checkpoint(page)
    plain = tmp_path / "plain.pth"
    torch.save({"state_dict": {}}, plain)
    with pytest.raises(WeightsError, match="base_model"):
        load_checkpoint(plain)
    with pytest.raises(WeightsError, match="no such file"):
        load_checkpoint(tmp_path / "absent.pth")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x10\x00")
    with pytest.raises(WeightsError, match="safetensors"):
        load_checkpoint(damaged)
    nameless = tmp_path / "nameless.safetensors"
    save_file({"a": torch.zeros(1)}, nameless)
    with pytest.raises(WeightsError, match="architecture"):
        load_checkpoint(nameless)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "pretrain.pth"
    torch.save({"base_model": Touch()}, path)
    with pytest.raises(WeightsError, match="could run code"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_safetensors_round_trip(tmp_path: Path) -> None:
    model = PointMAE(TINY)
    path = tmp_path / "tiny.safetensors"
    save_file(model.state_dict(), path, metadata={"architecture": shape_as_json(TINY)})
    loaded = load_checkpoint(path)
    assert loaded.shape == TINY
    patches, centres = _input(6, 5)
    torch.testing.assert_close(loaded(patches, centres), model(patches, centres), rtol=0, atol=0)


def test_train_mode_uses_batch_statistics_and_drops_branches() -> None:
    model = PointMAE(TINY)
    patches, centres = _input(30, 8)
    plain = model(patches, centres)
    batch_statistics(model)
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    calm = model(patches, centres)
    assert not torch.allclose(plain, calm, atol=1e-3)

    # Batch statistics leave nothing of the input's own scale and shift in a channel: the first layer is linear,
    # so scaling the patches scales its output, which BatchNorm undoes.
    doubled = model(patches * 2, centres)
    torch.testing.assert_close(doubled, calm, atol=1e-3, rtol=1e-3)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if k in before)

    def draw(seed: int) -> torch.Tensor:
        return model(patches, centres, 0.5, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert len({tuple(draw(seed).flatten()[-5:].tolist()) for seed in range(8)}) > 3


def test_a_branch_is_dropped_as_often_as_said_and_scaled_otherwise() -> None:
    block = Block(24, 2).requires_grad_(False)
    block.mlp.fc2.weight.zero_()
    block.mlp.fc2.bias.zero_()  # leaves the attention branch alone
    x = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(0))
    branch = block(x) - x
    generator = torch.Generator().manual_seed(0)
    kept = 0
    for _ in range(600):
        part = block(x, 0.3, generator) - x
        dropped = bool((part == 0).all())
        kept += not dropped
        torch.testing.assert_close(part, torch.zeros_like(part) if dropped else branch / 0.7)
    assert 0.65 < kept / 600 < 0.75


def test_drop_rates_rise_from_zero_to_the_last_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    plain = Block.forward

    def forward(self: Block, x: torch.Tensor, drop: float = 0.0, generator: object = None) -> torch.Tensor:
        rates.append(drop)
        return plain(self, x, drop, generator)

    monkeypatch.setattr(Block, "forward", forward)
    PointMAE(dataclasses.replace(TINY, depth=12, taps=(12,)))(*_input(3, 4), encoders.DROP_PATH)
    assert rates == pytest.approx([0.1 * k / 11 for k in range(12)])
    # Two branches a block: some branch is missing in 71 % of the released code's calls.
    assert 1 - math.prod((1 - rate) ** 2 for rate in rates) == pytest.approx(0.71, abs=0.01)


def test_the_small_encoder_does_not_see_density_or_place() -> None:
    model = PointMAE(SMALL)
    patches, centres = _input(16, 8)
    patches, centres = patches * 1e-3, centres * 0.03
    middle = centres.mean(1)
    scaled, placed = model.scale(patches, centres, middle)
    radii = scaled.norm(dim=-1).amax(-1)
    assert radii.median().item() == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(placed, (centres - middle[:, None]) * 40)
    moved = model.scale(patches * 3, centres + 0.5, middle + 0.5)
    torch.testing.assert_close(moved[0], scaled)
    torch.testing.assert_close(moved[1], placed, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SMALL_WEIGHTS)
def test_the_packages_weights_are_what_their_record_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config = SMALL_WEIGHTS[name], Config.preset(overrides={"point_backbone": name})
    assert path.stat().st_size < 10_000_000
    record = json.loads(path.with_suffix(".json").read_text())
    assert small_weights_sha256(name) == file_sha256(path) == record["sha256"] and record["file"] == path.name
    model, digest = point_encoder(config)
    assert digest == record["sha256"] == known_weights(config)["points"]
    assert model.shape == SMALL and not any(p.requires_grad for p in model.parameters())

    copy = tmp_path / path.name
    shutil.copy(path, copy)
    monkeypatch.setitem(encoders.SMALL_WEIGHTS, name, copy)
    with pytest.raises(WeightsError, match="is missing"):
        point_encoder(config)
    shutil.copy(path.with_suffix(".json"), copy.with_suffix(".json"))
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        point_encoder(config)


def test_published_weights_are_known_by_their_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.preset("full")
    path = write_published(tmp_path / "pretrain.pth", published_weights())
    with pytest.raises(WeightsError, match="SHA-256"):
        point_encoder(config, tmp_path)
    known = dataclasses.replace(POINTMAE, sha256=file_sha256(path))
    for module in (weight_files, encoders):
        monkeypatch.setattr(module, "POINTMAE", known)
    model, digest = point_encoder(config, tmp_path)
    assert model.shape == PUBLISHED and digest == file_sha256(path)


def test_widths_must_fit() -> None:
    with pytest.raises(ConfigError, match="xyz_dim must be 192"):
        point_encoder(Config.preset("demo", overrides={"xyz_dim": 100}), random_weights=True)
