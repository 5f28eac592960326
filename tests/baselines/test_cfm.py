"""CFM and CFM-M: the path on tokens against the published formulas on dense maps, pruned backbones, a case to solve."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from support.cfm import method_of
from support.samples import tokens_of
from torch import nn

from mafr import training
from mafr.baselines import cfm
from mafr.baselines.cfm import CFM, CFMMedium, epochs_for
from mafr.baselines.registry import method_class, method_settings
from mafr.config import ADDED, FEATURE_SETTINGS, Config
from mafr.data.samples import Sample
from mafr.errors import ConfigError, MafrError, WeightsError
from mafr.experiments.plan import category_runs
from mafr.fast import crossmodal
from mafr.features.encoders import point_encoder, point_shape
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.features.interpolation import densify
from mafr.features.pointmae import PUBLISHED, SMALL, PointMAE, pruned
from mafr.features.rgb import DinoViTB8, lite_network, rgb_backbone, rgb_dim
from mafr.features.sources.splits import split_of

SMOKE = Config.preset("smoke")
TOKENS = {"grid": 28, "groups": 40, "group_size": 8}  # what `tokens_of` is made for


@dataclasses.dataclass
class GivenTokens:
    """A split of which only the tokens are there."""

    all: list[Tokens]
    live = False

    @property
    def labels(self) -> list[int]:
        return [0] * len(self)

    def name(self, k: int) -> str:
        return str(k)

    def __len__(self) -> int:
        return len(self.all)

    def sample(self, k: int) -> Sample:
        raise AssertionError("training looks at tokens alone")

    def tokens(self, indices) -> Tokens:
        return Tokens.cat([self.all[k] for k in indices])






def plain_rows(tokens: Tokens, config: Config) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dense features of all pixels, (g², C) and (g², D), and which of them are valid, (g²,)."""
    e_rgb, e_xyz, _ = densify(tokens, config)
    e_rgb, e_xyz = (e[0].flatten(1).T.contiguous() for e in (e_rgb, e_xyz))
    return e_rgb, e_xyz, (e_xyz != 0).any(dim=1)


# ------------------------------------------------------------------ against the published formulas


@pytest.mark.parametrize(("grid", "side", "pool"), [(28, 14, 1), (28, 14, 3), (28, 28, 1), (14, 14, 1)])
@pytest.mark.parametrize(("rows", "layers"), [(2**13, 3), (50, 3), (50, 7)])
@pytest.mark.parametrize("kind", ["step", "general_step"])
def test_a_step_leaves_the_plain_gradients(
    monkeypatch: pytest.MonkeyPatch, kind: str, grid: int, side: int, pool: int, rows: int, layers: int
):
    """With fewer tokens than pixels and with more, in one part and in several, over a batch of unequal samples."""
    monkeypatch.setattr(cfm, "ROWS", {"cpu": rows})
    monkeypatch.setattr(crossmodal, "_ROWS", rows)
    config = dataclasses.replace(SMOKE, **TOKENS | {"grid": grid}, xyz_pool=pool, cfm_layers=layers)
    batch = [tokens_of(config, seed, side) for seed in (0, 1)]
    batch[1].weight[0, : grid * grid // 2] = 0  # half of its points are missing
    method = method_of(config)
    split = GivenTokens(batch)
    losses = getattr(method, kind)([method.open(split, k) for k in range(2)])

    e_rgb, e_xyz, valid = (torch.cat(parts) for parts in zip(*(plain_rows(t, config) for t in batch), strict=True))
    similarity = nn.CosineSimilarity(dim=-1, eps=1e-6)
    loss_rgb = 1 - similarity(method.plain["to_rgb"](e_xyz)[valid], e_rgb[valid]).mean()
    loss_xyz = 1 - similarity(method.plain["to_xyz"](e_rgb)[valid], e_xyz[valid]).mean()
    (loss_rgb + loss_xyz).backward()
    torch.testing.assert_close(losses, torch.stack([loss_rgb, loss_xyz]).detach(), rtol=1e-5, atol=1e-6)
    wanted, found = list(method.plain.parameters()), list(method.maps.parameters())
    assert len(wanted) == len(found) == 4 * layers
    for plain, ours in zip(wanted, found, strict=True):
        assert plain.grad.abs().max() > 0
        torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-7)


def test_many_pixels_take_the_general_step(monkeypatch: pytest.MonkeyPatch):
    config = dataclasses.replace(SMOKE, **TOKENS)
    method = method_of(config)
    batch = [method.open(GivenTokens([tokens_of(config, seed) for seed in (0, 1)]), k) for k in (0, 1)]
    values = sum(len(scene.canvas) for scene in batch) * (config.rgb_dim + config.xyz_dim)
    taken = []
    monkeypatch.setattr(method, "general_step", lambda batch: taken.append(len(batch)))
    for most, wanted in ((values, []), (values - 1, [2])):
        monkeypatch.setattr(cfm, "SMALL", most)
        method.step(batch)
        assert taken == wanted


def test_a_training_by_small_steps_is_the_general_one(monkeypatch: pytest.MonkeyPatch):
    config = dataclasses.replace(SMOKE, **TOKENS, min_steps=20, cfm_epochs=20)
    split, found = GivenTokens([tokens_of(config, seed) for seed in range(3)]), []
    for most in (cfm.SMALL, 0):
        monkeypatch.setattr(cfm, "SMALL", most)
        found.append(CFM(config).fit_split(split))
    small, general = found
    assert small.history[-1]["total"] < 0.8 * small.history[0]["total"]
    for ours, plain in zip(small.history, general.history, strict=True):
        assert ours == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize(
    ("grid", "pool", "rows", "layers"), [(112, 3, 2**13, 3), (112, 1, 500, 3), (28, 1, 2**13, 3), (28, 1, 500, 7)]
)
def test_maps_and_score_are_the_published_ones(
    monkeypatch: pytest.MonkeyPatch, grid: int, pool: int, rows: int, layers: int
):
    monkeypatch.setattr(cfm, "ROWS", {"cpu": rows})
    config = dataclasses.replace(SMOKE, **TOKENS | {"grid": grid}, xyz_pool=pool, cfm_layers=layers)
    tokens, method = tokens_of(config), method_of(config)
    e_rgb, e_xyz, valid = plain_rows(tokens, config)
    wanted = []
    with torch.inference_mode():
        for way, source, target in (("to_rgb", e_xyz, e_rgb), ("to_xyz", e_rgb, e_xyz)):
            mapped = F.normalize(method.plain[way](source), dim=1)
            distance = (mapped - F.normalize(target, dim=1)).pow(2).sum(1).sqrt()
            wanted.append(torch.where(valid, distance, 0.0).view(1, 1, grid, grid))
        found = method.distances(method.open(GivenTokens([tokens]), 0))
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    if grid < config.image_size:
        return
    # At full size nothing is between these maps and the blurred product.
    psi = wanted[0] * wanted[1]
    for width in (5,) * 5 + (7,) * 3:
        psi = F.conv2d(psi, torch.full((1, 1, width, width), 1 / width**2), padding=width // 2)
    xyz = np.ones((3, 112, 112), dtype=np.float32)
    blank = Sample(np.zeros_like(xyz), xyz, np.zeros((1, 112, 112), dtype=bool), 0, "good", "bagel", "test/good/000")
    split = GivenTokens([tokens])
    split.mask = lambda k: blank.valid[0]
    method.trained = True
    (result,) = method.score_split(split, [0])
    np.testing.assert_allclose(result.psi_rgb, wanted[0][0, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.psi_xyz, wanted[1][0, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.psi, psi[0, 0], rtol=1e-3, atol=1e-5)
    assert result.score == pytest.approx((psi.max() / psi[psi != 0].mean().sqrt()).item(), rel=1e-4)


def test_the_published_sizes():
    config = Config.preset("full", overrides={"device": "cpu", "precision": "float32"})
    method = CFM(config)
    shapes = {name: tuple(p.shape) for name, p in method.new_maps().named_parameters()}
    assert shapes["to_xyz.first.weight"] == (960, 768) and shapes["to_xyz.last.weight"] == (1152, 960)
    assert shapes["to_rgb.first.weight"] == (960, 1152) and shapes["to_rgb.last.weight"] == (768, 960)
    assert sum(int(np.prod(s)) for s in shapes.values()) == 5_535_360
    assert (config.cfm_epochs, config.cfm_batch, config.cfm_learning_rate) == (250, 4, 1e-3)
    assert epochs_for(config, 5) == 250
    demo = Config.preset("demo")
    assert epochs_for(demo, 80) == demo.cfm_epochs == 2.5 * demo.epochs
    assert epochs_for(dataclasses.replace(demo, min_steps=100), 5) == 50  # two steps an epoch


@pytest.mark.parametrize("method", ["cfm", "cfm_m"])
@pytest.mark.parametrize(("dataset", "layers"), [("mvtec3d", 3), ("eyecandies", 7)])
def test_the_network_follows_the_data_set(method: str, dataset: str, layers: int):
    runs = category_runs(dataset, SMOKE.categories(dataset)[0], SMOKE, methods=(method,), variants=())
    (run,) = runs
    assert run.method == method
    maps = method_class(method)(run.config).new_maps()
    assert all(sum(isinstance(part, nn.Linear) for part in way.modules()) == layers for way in maps.values())


def test_three_layers_are_drawn_and_named_as_in_older_detectors():
    torch.manual_seed(3)
    found = cfm.Mapping(6, 10).state_dict()
    torch.manual_seed(3)
    layers = {"first": nn.Linear(6, 8), "second": nn.Linear(8, 8), "last": nn.Linear(8, 10)}
    wanted = {f"{name}.{kind}": value for name, one in layers.items() for kind, value in one.state_dict().items()}
    assert list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_published_settings_of_eyecandies():
    config = Config.preset("full", overrides={"device": "cpu", "precision": "float32"})
    chosen = method_settings("cfm", config, dataset="eyecandies")
    assert (chosen.cfm_epochs, chosen.cfm_batch, chosen.cfm_layers) == (50, 2, 7)
    shapes = {name: tuple(p.shape) for name, p in CFM(chosen).new_maps().named_parameters()}
    hidden = [f"to_xyz.{name}.weight" for name in ("second", *(f"between.{k}" for k in range(4)))]
    assert all(shapes.pop(name) == (960, 960) for name in hidden)
    assert shapes["to_xyz.first.weight"] == (960, 768) and shapes["to_xyz.last.weight"] == (1152, 960)
    assert method_settings("cfm", config, dataset="mvtec3d").cfm_layers == 3


# ------------------------------------------------------------------ pruned backbones of CFM-M


def test_cfm_m_keeps_two_thirds_of_both_backbones():
    full = CFMMedium.feature_config(Config.preset("full"))
    assert (full.rgb_blocks, full.point_blocks, full.rgb_dim, full.xyz_dim) == (8, 8, 768, 1152)
    assert point_shape(full).taps == (2, 5, 8)  # the authors' code
    demo = CFMMedium.feature_config(Config.preset("demo"))
    assert (demo.rgb_blocks, demo.point_blocks, demo.rgb_dim, demo.xyz_dim) == (7, 4, 40 + 80, 192)
    assert point_shape(demo).taps == (1, 3, 4)
    assert CFMMedium.feature_config(demo) == demo
    assert CFM.feature_config(Config.preset("demo")) == Config.preset("demo")
    assert demo.feature_digest() != Config.preset("demo").feature_digest()


def test_unpruned_features_keep_their_digest():
    """Stores made before backbones could be pruned stay valid."""
    younger = {"rgb_blocks", "point_blocks", *ADDED}
    before = [name for name in FEATURE_SETTINGS if name not in younger]
    for profile in ("smoke", "demo", "full"):
        config = Config.preset(profile)
        values = {name: getattr(config, name) for name in before}
        assert config.feature_digest() == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        for change in ({"rgb_blocks": 7}, {"point_blocks": 4}):
            changed = dataclasses.replace(config, **change)
            assert changed.feature_digest() != config.feature_digest() and changed.digest() != config.digest()


def test_pruned_point_tokens_are_those_of_the_first_blocks():
    config = CFMMedium.feature_config(SMOKE)
    whole, digest = point_encoder(SMOKE)
    part, same = point_encoder(config)
    assert digest == same and len(part.blocks.blocks) == 4
    g = torch.Generator().manual_seed(1)
    patches, centres = torch.randn(1, 20, 16, 3, generator=g) * 0.1, torch.randn(1, 20, 3, generator=g)
    with torch.no_grad():
        x, outputs = whole.embed(patches), []
        for block in whole.blocks.blocks:
            x = block(x + whole.pos_embed(centres))
            outputs.append(whole.norm(x))
        torch.testing.assert_close(part(patches, centres), torch.cat([outputs[k - 1] for k in (1, 3, 4)], dim=-1))
        torch.testing.assert_close(whole(patches, centres), torch.cat([outputs[k - 1] for k in (2, 4, 6)], dim=-1))


def test_the_published_taps():
    taps = {blocks: pruned(PUBLISHED, blocks).taps for blocks in (0, 12, 8, 4)}
    assert taps == {0: (4, 8, 12), 12: (4, 8, 12), 8: (2, 5, 8), 4: (2, 3, 4)}
    assert {pruned(PUBLISHED, blocks).dim for blocks in (0, 8, 4)} == {1152}
    with pytest.raises(ConfigError, match="point_blocks 5 of 12"):
        pruned(PUBLISHED, 5)
    model = PointMAE(dataclasses.replace(SMALL, depth=6))
    with pytest.raises(ConfigError, match="point_blocks 2 of 6"):
        model.prune(2)  # the taps would fall on one block


def test_pruned_lite0_tokens_are_those_of_the_first_blocks():
    photo = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(2))
    backbone, _ = rgb_backbone(CFMMedium.feature_config(SMOKE))
    network = lite_network()
    with torch.inference_mode():
        tokens = backbone(photo)
        x, blocks = network.bn1(network.conv_stem((photo - 0.5) / 0.5)), [b for stage in network.blocks for b in stage]
        for block in blocks[:5]:
            x = block(x)
        fine = x
        for block in blocks[5:7]:
            x = block(x)
    assert tokens.shape == (1, 120, 14, 14) and fine.shape[1:] == (40, 14, 14) and x.shape[1:] == (80, 7, 7)
    coarse = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    plain = [F.layer_norm(e.movedim(1, -1), e.shape[1:2], eps=1e-6).movedim(-1, 1) for e in (fine, coarse)]
    torch.testing.assert_close(tokens, torch.cat(plain, 1), atol=1e-3, rtol=1e-3)


def test_pruned_dino_tokens_are_those_of_the_first_blocks(monkeypatch: pytest.MonkeyPatch):
    # Three of the twelve blocks, pruned to two: the rest costs time and memory only.
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, depth=3))
    config = dataclasses.replace(Config.preset("full"), random_weights=True, rgb_blocks=2)
    backbone, _ = rgb_backbone(config)
    assert isinstance(backbone, DinoViTB8)
    whole, _ = rgb_backbone(dataclasses.replace(config, rgb_blocks=0))
    assert (len(backbone.network.blocks), len(whole.network.blocks)) == (2, 3)
    photo = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    network = whole.network
    with torch.inference_mode():
        x = network.norm_pre(network._pos_embed(network.patch_embed((photo - whole.mean) / whole.std)))
        plain = network.norm(network.blocks[1](network.blocks[0](x)))[0, 1:]
        torch.testing.assert_close(backbone(photo)[0].flatten(1).T, plain)


def test_blocks_that_are_not_there_are_refused():
    for blocks, profile in ((5, "demo"), (12, "demo"), (13, "full")):
        with pytest.raises(ConfigError, match="rgb_blocks must be"):
            rgb_dim(dataclasses.replace(Config.preset(profile), rgb_blocks=blocks))
    with pytest.raises(ConfigError, match="rgb_blocks must not be negative"):
        Config.preset("demo", overrides={"rgb_blocks": -1})


# ------------------------------------------------------------------ a case that both must solve


def part_of(seed: int, defect: bool = False) -> Sample:
    """A ribbed dome whose ribs are dark; a defect is a deep pit with bright ground."""
    rng, size = np.random.default_rng(seed), 112
    v, u = np.mgrid[:size, :size] / size - 0.5
    u0, v0, phase = rng.uniform(-0.04, 0.04, 3) * (1, 1, 60)
    r2 = (u - u0) ** 2 + (v - v0) ** 2
    inside = r2 < 0.16
    rib = np.cos(45 * (u - u0) + phase)
    height = 0.12 * np.sqrt(np.clip(0.2 - r2, 0, None)) + 0.002 * rib
    grey = 0.55 - 0.2 * rib + 0.2 * (u - u0)
    gt = np.zeros((size, size), dtype=bool)
    if defect:
        a = rng.uniform(0, 2 * np.pi)
        gt = (u - u0 - 0.2 * np.cos(a)) ** 2 + (v - v0 - 0.2 * np.sin(a)) ** 2 < 0.07**2
        height = np.where(gt, height - 0.02, height)
        grey = np.where(gt, 1.0, grey)
    xyz = np.where(inside, np.stack([u * 0.1, v * 0.1, 0.5 - height]), 0).astype(np.float32)
    colour = np.stack([grey, grey * 0.8, grey * 0.5]) + rng.normal(0, 0.01, (3, size, size))
    image = np.where(inside, colour, 0.1).clip(0, 1).astype(np.float32)
    kind = "hole" if defect else "good"
    return Sample(image, xyz, gt[None], int(defect), kind, "bagel", f"test/{kind}/{seed:03d}")


@pytest.fixture(scope="module", params=["cfm", "cfm_m"])
def trained(request: pytest.FixtureRequest) -> tuple[CFM, list[Sample], Config]:
    """The method of that name trained on eight good parts; the good and the defective ones to be told apart."""
    config = dataclasses.replace(SMOKE, min_steps=100)
    kind = method_class(request.param)
    extractor = FeatureExtractor.from_config(kind.feature_config(config))
    method = kind(config, extractor).fit([part_of(seed) for seed in range(8)], show=False)
    return method, [part_of(100 + k) for k in range(5)], [part_of(200 + k, defect=True) for k in range(5)]


def test_it_tells_holes_from_good_parts_and_finds_them(trained):
    method, good, bad = trained
    assert method.name == ("cfm_m" if isinstance(method, CFMMedium) else "cfm")
    assert max(method.predict(s).score for s in good) < min(method.predict(s).score for s in bad)
    for sample in bad:
        psi = method.predict(sample).psi
        row, column = np.unravel_index(psi.argmax(), psi.shape)
        assert sample.gt[0, row, column]
        # Before the blur, nothing is scored where there is no point.
        assert not method.predict(sample).psi_rgb[~sample.valid[0]].any()
    assert method.history[-1]["total"] < 0.5 * method.history[0]["total"]


def test_a_saved_one_predicts_the_same(trained, tmp_path):
    method, good, bad = trained
    method.calibrate(good)
    method.save(tmp_path)
    loaded = type(method).load(tmp_path)
    assert loaded.threshold == method.threshold and loaded.history == method.history
    assert loaded.nbytes() == method.nbytes() > 0
    for sample in (good[0], bad[0]):
        ours, theirs = method.predict(sample), loaded.predict(sample)
        assert ours.score == theirs.score
        for name in ("psi_rgb", "psi_xyz", "psi"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    other = CFM if isinstance(method, CFMMedium) else CFMMedium
    with pytest.raises(WeightsError, match=f"holds a {method.name} detector"):
        other.load(tmp_path)


def test_equal_seeds_give_equal_bits(trained, monkeypatch: pytest.MonkeyPatch):
    """Also where samples are opened again for every step instead of kept."""
    method, *_ = trained
    split = split_of([part_of(seed) for seed in range(3)], method.extractor)
    config = dataclasses.replace(method.config, min_steps=4, cfm_epochs=2)

    def weights(config: Config) -> dict[str, torch.Tensor]:
        return type(method)(config, method.extractor).fit_split(split).state()

    first, second = weights(config), weights(config)
    monkeypatch.setattr(training, "CACHE_BYTES", 0)
    third, other = weights(config), weights(dataclasses.replace(config, seed=1))
    for name, value in first.items():
        assert torch.equal(value, second[name]) and torch.equal(value, third[name])
        assert not torch.equal(value, other[name])


def test_features_of_another_backbone_are_refused(trained):
    method, *_ = trained
    other = CFM if isinstance(method, CFMMedium) else CFMMedium
    with pytest.raises(ConfigError, match="feature_config"):
        other(method.config, method.extractor)
    with pytest.raises(ConfigError, match="channels"):
        other(method.config).fit_split(split_of([part_of(0)], method.extractor))


def test_a_diverging_training_is_an_error():
    config = dataclasses.replace(SMOKE, **TOKENS)
    tokens = tokens_of(config)
    tokens.rgb[:] = float("nan")
    with pytest.raises(MafrError, match="the loss became nan in epoch 1"):
        CFM(config).fit_split(GivenTokens([tokens]))
