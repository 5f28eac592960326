"""`extractor_mode` "batch-statistics": BatchNorm by a sample's own groups, against torch's own train mode."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support.samples import Split, make_sample
from torch import Tensor

from mafr.config import Config
from mafr.errors import DataError
from mafr.experiments.plan import category_runs, table_runs
from mafr.features.extract import FeatureExtractor, in_bfloat16
from mafr.features.patch_share import patch_share, patch_tokens
from mafr.features.pointmae import MiniPointNet, PointMAE, PointMAEShape, batch_statistics
from mafr.features.sources.store import build_store, open_store

CONFIG = Config.preset("smoke", overrides={"extractor_mode": "batch-statistics"})


def published(seed: int = 0) -> PointMAE:
    """The published widths without its transformer, and BatchNorms that do something."""
    torch.manual_seed(seed)
    model = PointMAE(PointMAEShape(depth=1, taps=(1,))).requires_grad_(False)
    for layers in (model.encoder.first_conv, model.encoder.second_conv):
        layers[1].weight.uniform_(0.5, 1.5)
        layers[1].bias.normal_(0, 0.3)
        layers[1].running_mean.normal_(0, 0.3)
    return model


def torchs(net: MiniPointNet, patches: Tensor) -> Tensor:
    """Point-MAE's mini-PointNet as published, in torch's train mode; in the patches' precision."""
    net = copy.deepcopy(net).to(patches.dtype).train()
    local = net.first_conv(patches.transpose(1, 2))
    whole = local.max(dim=2, keepdim=True).values.expand(-1, -1, patches.shape[1])
    return net.second_conv(torch.cat([whole, local], dim=1)).max(dim=2).values


@pytest.mark.parametrize("metres", [1.0, 0.004], ids=["unit", "millimetres"])
def test_equal_to_torchs_batch_norm_in_train_mode(metres: float) -> None:
    model = published()
    # More than one chunk of points; a channel's mean far from zero must not cost its variance.
    patches = torch.randn(150, 64, 3, generator=torch.Generator().manual_seed(1)) * metres
    batch_statistics(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exact, found = torchs(model.encoder, patches.double()), model.encoder(patches)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 5e-6 * exact.abs().max()
    # torch's own float32 is further from the exact values for millimetres: it subtracts the mean last.
    assert (torchs(model.encoder, patches) - exact).abs().max() < 5e-5 * exact.abs().max()
    half = in_bfloat16(model).encoder(patches)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).norm() < 0.01 * exact.norm()
    assert torch.equal(model.encoder(patches), found)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_far_means_do_not_cost_the_variance() -> None:
    model = published()
    batch_statistics(model)
    with torch.no_grad():
        model.encoder.first_conv[3].bias += 300.0  # of every channel before the second BatchNorm
    patches = torch.randn(150, 64, 3, generator=torch.Generator().manual_seed(1))
    exact = torchs(model.encoder, patches.double())
    assert (model.encoder(patches) - exact).abs().max() < 2e-3 * exact.abs().max()


def test_statistics_are_of_one_sample_each() -> None:
    extractor = FeatureExtractor.from_config(CONFIG)
    # Rougher from sample to sample, so that their statistics differ.
    samples = [make_sample(k) for k in range(3)]
    samples[1].xyz[2][samples[1].valid[0]] += 0.02 * np.random.default_rng(0).random(samples[1].valid.sum())
    prepared = [extractor.prepare(sample) for sample in samples]
    together = extractor.cloud_tokens(prepared)
    for k, one in enumerate(prepared):
        torch.testing.assert_close(together[k], extractor.cloud_tokens([one])[0], rtol=1e-4, atol=1e-4)
    patches = torch.cat([torch.from_numpy(one.patches) for one in prepared])
    joint, single = extractor.points.encoder(patches), extractor.points.encoder(patches[: CONFIG.groups])
    assert (joint[: CONFIG.groups] - single).norm() > 0.01 * single.norm()


def test_features_by_batch_statistics_are_stored(tmp_path: Path) -> None:
    extractor, data = FeatureExtractor.from_config(CONFIG), Split([make_sample(k) for k in range(4)])
    store = build_store(data, tmp_path / "store", CONFIG, extractor)
    assert open_store(store.folder, CONFIG, data.fingerprint) is not None
    plain = Config.preset("smoke")
    assert CONFIG.feature_digest() != plain.feature_digest()
    assert open_store(store.folder, plain, data.fingerprint) is None
    tokens = extractor.extract(data[2])
    assert torch.equal(store.tokens([2]).xyz, tokens.xyz) and torch.equal(store.tokens([2]).rgb, tokens.rgb)
    usual = FeatureExtractor.from_config(plain).extract(data[2])
    assert torch.equal(usual.rgb, tokens.rgb) and torch.equal(usual.index, tokens.index)
    assert (usual.xyz.float() - tokens.xyz.float()).norm() > 0.01 * tokens.xyz.float().norm()
    batched = build_store(data, tmp_path / "batched", CONFIG, extractor, batch=3)
    torch.testing.assert_close(batched.tokens(range(4)).xyz, store.tokens(range(4)).xyz, rtol=2e-3, atol=2e-3)


def test_compared_methods_take_them() -> None:
    (run,) = category_runs("mvtec3d", "bagel", CONFIG, ["paper"], methods=["cfm"])
    assert run.config.extractor_mode == "batch-statistics"
    assert {run.config.extractor_mode for run in table_runs(1, Config.preset("full"))} == {"batch-statistics"}


def test_train_mode_is_batch_statistics_and_drop_path() -> None:
    train = FeatureExtractor.from_config(dataclasses.replace(CONFIG, extractor_mode="train"))
    calm = FeatureExtractor.from_config(CONFIG)
    prepared = calm.prepare(make_sample(1))
    tokens = [patch_tokens(extractor, make_sample(1)) for extractor in (train, calm)]
    assert torch.equal(*tokens)
    draws = torch.stack([train.cloud_tokens([prepared], draw) for draw in range(3)])
    assert not torch.equal(draws[0], draws[1]) and torch.equal(draws[1], train.cloud_tokens([prepared], 1))


# ------------------------------------------------------------------ what the tokens say of the patches


def test_the_share_of_the_patches_in_hand_made_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    same, noise = torch.ones(500, 16) * 3.0, torch.randn(500, 16, generator=generator)
    assert patch_share(same) == 0
    assert patch_share(noise - noise.mean(dim=0)) == pytest.approx(1)
    assert patch_share(torch.tensor([[3.0, 1.0], [3.0, -1.0]])) == pytest.approx(10**-0.5)
    assert patch_share(same + noise) == pytest.approx(10**-0.5, rel=0.03)
    assert patch_share(5 * (same + noise)) == pytest.approx(patch_share(same + noise))


def test_running_statistics_do_not_see_patches_of_millimetres() -> None:
    """The small network divides patches by their radius; without that, and untrained at the published size, it needs
    the sample's own statistics to tell patches apart."""
    sample = make_sample(1)
    modes = {mode: dataclasses.replace(CONFIG, extractor_mode=mode) for mode in ("eval", "batch-statistics")}
    small = {mode: FeatureExtractor.from_config(config) for mode, config in modes.items()}
    assert all(patch_share(patch_tokens(extractor, sample)) > 0.3 for extractor in small.values())
    metres = {mode: patch_share(patch_tokens(extractor, sample, rescaled=False)) for mode, extractor in small.items()}
    assert metres["eval"] < 0.02 and metres["batch-statistics"] > 0.3
    with pytest.raises(DataError, match="0 valid points"):
        patch_tokens(small["eval"], dataclasses.replace(sample, xyz=np.zeros_like(sample.xyz)))
