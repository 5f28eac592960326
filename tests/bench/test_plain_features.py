"""The plain extraction and the product's: the same features."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from support.samples import Split, make_sample

from mafr.bench.plain_features import plain_distances, plain_farthest_points, plain_features, plain_point_net
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.errors import ConfigError, DataError
from mafr.features.extract import FeatureExtractor, HalfLinear, in_bfloat16
from mafr.features.geometry import farthest_point_sample, interpolation_weights, nearest_neighbours
from mafr.features.interpolation import densify, densify_rgb, densify_xyz
from mafr.features.pointmae import PointMAE
from mafr.features.sources.store import build_store

FULL = {"grid": 56, "groups": 48, "group_size": 24, "precision": "float32", "device": "cpu", "random_weights": True}


def _with_statistics(points: PointMAE) -> PointMAE:
    """Untrained BatchNorms do nothing; give them something to do."""
    generator = torch.Generator().manual_seed(11)
    for module in points.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return points


@pytest.fixture(scope="module")
def full() -> FeatureExtractor:
    """The full profile's widths with few groups, a coarser grid and two of DINO's twelve blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", functools.partial(timm.create_model, depth=2))
        extractor = FeatureExtractor.from_config(Config.preset("full", overrides=FULL))
    _with_statistics(extractor.points)
    return extractor


def _unrounded(extractor: FeatureExtractor, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """The product's dense maps without the store's half precision."""
    config, prepared = extractor.config, extractor.prepare(sample)
    step = config.image_size // config.grid
    cells = sample.xyz[:, step // 2 :: step, step // 2 :: step].reshape(3, -1).T
    occupied = cells.any(axis=1)
    weight = np.zeros((len(cells), 3))
    _, weight[occupied] = interpolation_weights(cells[occupied], prepared.centres)
    tokens = extractor.cloud_tokens([prepared])
    index, weight = torch.from_numpy(prepared.index)[None], torch.from_numpy(weight)[None]
    e_xyz = densify_xyz(tokens, index, weight, config.grid, config.xyz_pool)
    return densify_rgb(extractor.image_tokens([prepared]), config.grid), e_xyz


OTHERS = {
    "smoke": {},
    "dense": {"grid": 112, "xyz_pool": 3},
    "smoke by batch statistics": {"extractor_mode": "batch-statistics"},
    "without the origin": {"skip_origin": True},
}


@pytest.mark.parametrize("case", ["full", *OTHERS])
def test_plain_and_product_extraction_agree(full: FeatureExtractor, case: str) -> None:
    extractor = full if case == "full" else FeatureExtractor.from_config(Config.preset("smoke", overrides=OTHERS[case]))
    config = extractor.config
    sample = make_sample(1, size=config.image_size)
    if config.skip_origin:  # a candy's size and place, as in Eyecandies
        sample = dataclasses.replace(sample, xyz=sample.xyz * np.float32([1, 1, 0.05])[:, None, None])
        points = sample.xyz[:, sample.valid[0]]
        assert 0.1 < ((points**2).sum(axis=0) < 1e-3).mean() < 0.9
    e_rgb, e_xyz, valid = plain_features(extractor, sample)
    assert e_rgb.shape == (1, config.rgb_dim, config.grid, config.grid) and e_rgb.dtype == torch.float32
    assert e_xyz.shape == (1, config.xyz_dim, config.grid, config.grid) and e_xyz.dtype == torch.float32
    for got, wanted in zip(_unrounded(extractor, sample), (e_rgb, e_xyz), strict=True):
        assert (got - wanted).abs().max() < 1e-4 * wanted.abs().max()
    stored = densify(extractor.extract(sample), config)
    assert torch.equal(stored[2], valid) and 0 < valid.float().mean() < 1
    for got, wanted in zip(stored[:2], (e_rgb, e_xyz), strict=True):
        assert (got - wanted).abs().max() < 2**-9 * wanted.abs().max()


def test_the_folded_point_net_equals_the_layers_one_by_one() -> None:
    net = _with_statistics(PointMAE()).encoder.requires_grad_(False)
    patches = torch.randn(70, 128, 3, generator=torch.Generator().manual_seed(0))  # more than one chunk
    torch.testing.assert_close(net(patches), plain_point_net(net, patches), rtol=1e-4, atol=1e-4)


def test_plain_geometry_equals_the_trees() -> None:
    points = make_sample(3, size=40).xyz.reshape(3, -1).T
    points = points[points.any(axis=1)]
    chosen = farthest_point_sample(points, 60)
    given = torch.from_numpy(points)
    assert plain_farthest_points(given, 60).tolist() == chosen.tolist()
    table = plain_distances(given[chosen], given)
    _, indices = nearest_neighbours(points, points[chosen], 20)
    for row, wanted in enumerate(indices):
        assert set(table[row].topk(20, largest=False).indices.tolist()) == set(wanted.tolist())


def test_the_plain_path_refuses_what_it_would_not_compute_plainly(full: FeatureExtractor) -> None:
    assert full.config.extractor_mode == "batch-statistics"
    config = dataclasses.replace(full.config, extractor_mode="train")
    train = FeatureExtractor(config, full.rgb, full.points, full.weights)
    with pytest.raises(ConfigError, match="float32"):
        plain_features(train, make_sample(size=224))


def test_threads_do_not_change_neighbours() -> None:
    points = make_sample(4, size=60).xyz.reshape(3, -1).T
    points = points[points.any(axis=1)]
    for one, two in zip(*(nearest_neighbours(points, points[::7], 9, workers) for workers in (1, 2)), strict=True):
        np.testing.assert_array_equal(one, two)


# ------------------------------------------------------------------ bfloat16


def test_bfloat16_products_change_tokens_by_less_than_a_hundredth(full: FeatureExtractor) -> None:
    half = FeatureExtractor(full.config, in_bfloat16(full.rgb), in_bfloat16(full.points), full.weights)
    sample = make_sample(2, size=224)
    exact, close = full.extract(sample), half.extract(sample)
    for name in ("rgb", "xyz"):
        a, b = getattr(exact, name).float(), getattr(close, name).float()
        error = (a - b).norm() / a.norm()
        assert 0 < error < 0.01, name
    assert torch.equal(exact.index, close.index) and torch.equal(exact.weight, close.weight)


def test_bfloat16_leaves_the_given_model_and_coordinates_alone(full: FeatureExtractor) -> None:
    half = in_bfloat16(full.points)
    assert isinstance(half.blocks.blocks[0].attn.qkv, HalfLinear)
    assert isinstance(full.points.blocks.blocks[0].attn.qkv, torch.nn.Linear)
    assert full.points.encoder.products == torch.float32
    assert half.pos_embed[0].weight is full.points.pos_embed[0].weight  # float32, shared
    # Depths half a metre away that differ by a tenth of a millimetre: one value to bfloat16.
    centres = torch.tensor([[[0.0, 0.0, 0.5], [0.0, 0.0, 0.5001]]])
    with torch.no_grad():
        a, b = half.pos_embed(centres)[0]
    assert not torch.equal(a, b)
    lite = torch.nn.Conv2d(3, 4, 1)
    assert in_bfloat16(lite) is lite


# ------------------------------------------------------------------ batches


def test_a_store_built_in_batches_holds_the_same(tmp_path: Path) -> None:
    config = Config.preset("smoke")
    extractor = FeatureExtractor.from_config(config)
    data = Split([make_sample(k) for k in range(5)])
    single = build_store(data, tmp_path / "single", config, extractor)
    batched = build_store(data, tmp_path / "batched", config, extractor, batch=2)
    assert batched.ids == single.ids and batched.labels.tolist() == single.labels.tolist()
    a, b = (store.tokens(range(5)) for store in (single, batched))
    assert torch.equal(a.index, b.index) and torch.equal(a.weight, b.weight)
    for name in ("rgb", "xyz"):  # products of other shapes may round otherwise
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(single.gt(range(5)), batched.gt(range(5)))


def test_a_bad_sample_in_a_batch_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    config = Config.preset("smoke")
    extractor = FeatureExtractor.from_config(config)
    samples = [make_sample(k) for k in range(4)]
    samples[3] = dataclasses.replace(samples[3], xyz=np.zeros((3, 112, 112), np.float32))
    with pytest.raises(DataError, match="test/crack/003"):
        build_store(Split(samples), tmp_path / "store", config, extractor, batch=2)
    assert not list(tmp_path.iterdir())
