"""BTF: a case it must solve, its parts against the published definition, its own backbone, the kept histograms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from mafr.baselines.btf import BTF
from mafr.baselines.parts import patches
from mafr.baselines.parts.patches import pool
from mafr.baselines.registry import method_class, title
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.errors import DataError, MafrError, WeightsError
from mafr.features import fpfh, timm_maps
from mafr.features.extract import FeatureExtractor
from mafr.features.sources.splits import split_of
from mafr.features.timm_maps import WIDE_RESNET, WideResNet

SMOKE = Config.preset("smoke")
SIDE = SMOKE.image_size
OWN = dataclasses.replace(SMOKE, btf_backbone="wide_resnet50_2", random_weights=True)


def part(seed: int, defect: str = "good") -> Sample:
    """A plain orange dome on a grey table without points; a defect is a dent or a striped spot."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2 - rng.uniform(-1, 1, size=(2, 1, 1))
    radius = np.hypot(row, column)
    on = radius < 40
    spot = (row - 8) ** 2 + (column + 10) ** 2 < 49
    height = 0.03 * np.sqrt(np.maximum(0, 1 - (radius / 45) ** 2))
    height -= 0.003 * (spot & (defect == "dent"))
    xyz = np.stack([column * 0.001, row * 0.001, 0.4 - height]) + rng.normal(scale=2e-5, size=(3, SIDE, SIDE))
    stripes = np.where((row - column) % 12 < 6, 0.05, 0.95)
    colour = np.where(spot & (defect == "striped"), stripes, np.array([0.8, 0.5, 0.2])[:, None, None])
    rgb = np.where(on, colour, 0.4) + rng.normal(scale=0.01, size=(3, SIDE, SIDE))
    gt = (spot & (defect != "good"))[None]
    xyz, rgb = np.where(on, xyz, 0).astype(np.float32), np.clip(rgb, 0, 1).astype(np.float32)
    return Sample(rgb, xyz, gt, int(gt.any()), defect, "bagel", f"test/{defect}/{seed:03d}")


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor.from_config(SMOKE)


@pytest.fixture(scope="module")
def trained(extractor: FeatureExtractor) -> BTF:
    return BTF(SMOKE, extractor).fit([part(k) for k in range(24)], show=False)


# ------------------------------------------------------------------ a case it must solve


def test_it_is_a_method_of_its_name():
    assert method_class("btf") is BTF and title("btf") == "BTF"


@pytest.mark.parametrize("defect", ["dent", "striped"])
def test_an_obvious_defect_scores_above_all_good_parts(trained: BTF, defect: str):
    good = [trained.predict(part(seed)).score for seed in range(100, 108)]
    for seed in (200, 201):
        sample = part(seed, defect)
        found = trained.predict(sample)
        assert found.score > max(good)
        row, column = np.unravel_index(found.psi.argmax(), found.psi.shape)
        assert sample.gt[0, max(0, row - 8) : row + 9, max(0, column - 8) : column + 9].any()
        assert found.psi.shape == (SIDE, SIDE) and found.psi.dtype == np.float32


def test_save_and_load_give_the_same_predictions(trained: BTF, tmp_path: Path):
    trained.threshold = 1.25
    again = BTF.load(trained.save(tmp_path))
    assert again.threshold == 1.25 and again.nbytes() == trained.nbytes() == trained.bank.vectors.numel() * 4
    sample = part(7, "dent")
    a, b = trained.predict(sample), again.predict(sample)
    assert a.score == b.score and np.array_equal(a.psi, b.psi)


def test_the_same_seed_gives_the_same_bits(trained: BTF, extractor: FeatureExtractor):
    again = BTF(SMOKE, extractor).fit([part(k) for k in range(24)], show=False)
    assert torch.equal(again.bank.vectors, trained.bank.vectors)


def test_nothing_untrained_predicts_and_nothing_anomalous_trains(extractor: FeatureExtractor):
    with pytest.raises(MafrError, match="not trained"):
        BTF(SMOKE, extractor).predict(part(0))
    with pytest.raises(MafrError, match="anomalous"):
        BTF(SMOKE, extractor).fit([part(0, "dent")])


# ------------------------------------------------------------------ against the published definition


def test_score_is_the_published_one(trained: BTF, extractor: FeatureExtractor):
    """Patches, distances, enlarged and blurred map and eq. 7, written out again."""
    sample = part(3, "striped")
    valid = torch.from_numpy(sample.valid)[None].float()
    seen = F.max_pool2d(valid, SIDE // 14)
    colour = F.adaptive_avg_pool2d(F.avg_pool2d(extractor.extract(sample).rgb.float() * seen, 3, 1), 14)
    shape = torch.from_numpy(fpfh.organised_fpfh(sample.xyz, SMOKE.btf_step))[None]
    shape = F.adaptive_avg_pool2d(F.avg_pool2d(shape, 3, 1), 14).half().float()
    rows = torch.cat([colour, shape], dim=1)[0].reshape(-1, 196).T.double().numpy()
    bank = trained.bank.vectors.double().numpy()
    assert rows.shape[1] == bank.shape[1] == 152 + 33 and len(bank) == 24 * 196 // 10
    distance = cdist(rows, bank)
    nearest = distance.min(axis=1)
    worst = nearest.argmax()
    around = np.argsort(cdist(bank[distance[worst].argmin()][None], bank)[0], kind="stable")[:3]
    scale = np.sqrt(rows.shape[1])
    weight = 1 - np.exp(nearest[worst] / scale) / np.exp(distance[worst, around[1:]] / scale).sum()
    found = trained.predict(sample)
    assert found.score == pytest.approx(weight * nearest[worst], rel=1e-4)
    grid = torch.from_numpy(nearest).view(1, 1, 14, 14)
    large = F.interpolate(grid, (SIDE, SIDE), mode="bilinear")[0, 0].numpy()
    wanted = gaussian_filter(large, 4.0, mode="nearest", truncate=4.0)
    np.testing.assert_allclose(found.psi, wanted, rtol=1e-3, atol=1e-3 * wanted.max())


def test_the_full_profile_is_the_published_method():
    config = Config.preset("full", overrides={"device": "cpu", "precision": "float32", "random_weights": True})
    assert (config.btf_backbone, config.btf_step, config.bank_ratio) == ("wide_resnet50_2", 1, 0.1)
    method = BTF(config)
    assert method.extractor is None  # MAFR's backbones are not even loaded
    flat = np.zeros((3, 224, 224), dtype=np.float32)
    flat[:, 100:130, 90:130] = np.mgrid[100:130, 90:130, 0:1][..., 0] * 1e-3 + 0.4
    sample = Sample(np.full_like(flat, 0.5), flat, np.zeros((1, 224, 224), bool), 0, "good", "bagel", "train/good/000")
    rows = method.patches(split_of([sample], None), 0)
    assert rows.shape == (28 * 28, 512 + 1024 + 33)


def test_pooling_of_maps_coarser_and_finer_than_the_patches():
    ramp = torch.arange(56.0).view(1, 1, 1, 56).expand(1, 2, 56, 56).contiguous()
    assert pool(ramp, 28).shape == pool(ramp[..., ::4, ::4], 28).shape == (1, 2, 28, 28)
    # 3 x 3 means without padding leave 1 to 54; 28 cells of overlapping 2 to 3 of them.
    assert pool(ramp, 28)[0, 0, 0, [0, 27]].tolist() == [1.5, 53.5]


def test_the_background_counts_for_nothing(trained: BTF, extractor: FeatureExtractor):
    sample = part(4)
    noise = np.random.default_rng(0).uniform(size=sample.rgb.shape).astype(np.float32)
    other = dataclasses.replace(sample, rgb=np.where(sample.valid, sample.rgb, noise))
    method = BTF(OWN)
    same = [method.patches(split_of([s], None), 0) for s in (sample, other)]
    assert torch.equal(*same)
    rows = trained.patches(split_of([other], extractor), 0)
    assert (rows[0] == 0).all() and (rows[7 * 14 + 7] != 0).any()  # a corner and the middle


def test_a_sample_of_another_size_is_an_error(trained: BTF, extractor: FeatureExtractor):
    sample = part(0)
    small = dataclasses.replace(sample, xyz=sample.xyz[:, :64, :64], rgb=sample.rgb[:, :64, :64])
    split = split_of([small], extractor)
    split.store.tokens = lambda indices: extractor.extract(sample)
    with pytest.raises(DataError, match="64 pixels per side; image_size is 112"):
        trained.score_split(split, [0])


# ------------------------------------------------------------------ its own backbone


def test_own_backbone_gives_layers_2_and_3():
    """Against timm's own features of these layers."""
    ours = WideResNet.from_config(OWN)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = timm.create_model("wide_resnet50_2", pretrained=False)
    theirs = timm.create_model("wide_resnet50_2", pretrained=False, features_only=True, out_indices=(2, 3))
    theirs.load_state_dict(whole.state_dict(), strict=False)
    rgb = torch.from_numpy(part(0).rgb)[None]
    normal = (rgb - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    with torch.no_grad():
        wanted = theirs.eval()(normal)
    assert [tuple(m.shape) for m in wanted] == [(1, 512, 14, 14), (1, 1024, 7, 7)]
    for found, right in zip(ours(rgb), wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAFR_HOME", str(tmp_path))
    monkeypatch.setattr("mafr.features.weights.files.reach", refuse)
    method = BTF(dataclasses.replace(OWN, random_weights=False))
    with pytest.raises(WeightsError, match=r"WideResNet-50-2 \(image features of BTF\)[\s\S]*wide_resnet50_2\.safeten"):
        method.fit([part(0)], show=False)


def test_weights_come_from_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = dataclasses.replace(OWN, random_weights=False)
    network = timm_maps.timm_network("wide_resnet50_2", WIDE_RESNET, OWN)[0]
    with torch.no_grad():
        network.conv1.weight.mul_(2)
    save_file(network.state_dict(), tmp_path / WIDE_RESNET.names[0])
    loaded = WideResNet.from_config(config, tmp_path)
    assert torch.equal(loaded.to_8[0].weight, network.conv1.weight)
    (tmp_path / WIDE_RESNET.names[0]).write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="not readable as WideResNet-50-2"):
        WideResNet.from_config(config, tmp_path)


def refuse(url: str) -> None:
    raise OSError("no network in tests")


# ------------------------------------------------------------------ kept histograms


def test_histograms_are_computed_once_a_sample(extractor: FeatureExtractor, tmp_path: Path, monkeypatch):
    calls = []

    def counting(*arguments):
        calls.append(arguments)
        return fpfh.organised_fpfh(*arguments)

    monkeypatch.setattr(patches, "organised_fpfh", counting)
    split = split_of([part(k) for k in range(3)], extractor)
    without = BTF(SMOKE, extractor).fit_split(split)
    assert len(calls) == 3
    split = dataclasses.replace(split, cache=tmp_path / "cache")
    first = BTF(SMOKE, extractor).fit_split(split)
    assert len(calls) == 6
    second = BTF(SMOKE, extractor).fit_split(split)
    fewer = BTF(SMOKE, extractor).fit_split(split, [0, 2])
    assert len(calls) == 6
    assert torch.equal(first.bank.vectors, without.bank.vectors) and torch.equal(
        first.bank.vectors, second.bank.vectors
    )
    assert fewer.score_split(split, [1])[0].score > 0
    (damaged,) = split.cache.glob("fpfh-*/1.npy")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert torch.equal(BTF(SMOKE, extractor).fit_split(split).bank.vectors, first.bank.vectors)
    assert len(calls) == 7
    # Other settings do not find them.
    BTF(dataclasses.replace(SMOKE, btf_step=1), extractor).fit_split(split, [0])
    assert len(calls) == 8 and len(list(split.cache.iterdir())) == 2
