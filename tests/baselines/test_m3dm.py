"""M3DM: its loss and its fusions against references, a case that it must solve, round trip, repetition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from sklearn.linear_model import SGDOneClassSVM

from mafr.baselines.m3dm import (
    BANKS,
    M3DM,
    Cells,
    DecisionFusion,
    one_pixel_per_cell,
    rate,
    train_fusion,
)
from mafr.baselines.parts import feature_fusion
from mafr.baselines.parts.feature_fusion import FeatureFusion, info_nce
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.device import Place
from mafr.errors import ConfigError, DataError
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.features.sources.splits import split_of
from mafr.scoring import upsample

SIDE = 112
SPOT = (48, 60)  # row and column of the defect's middle
DEFECTS = ("colour", "bump", "both")


def part(number: int, defect: str = "good") -> Sample:
    """A brown dome; its defect is a green spot, a bump 12 mm high, or both."""
    g = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y, x = (rows - 55.5) * 1e-3, (columns - 55.5) * 1e-3
    height = 0.02 * np.sqrt(np.clip(1 - (x**2 + y**2) / 0.045**2, 0, None)) + g.normal(0, 1e-4, (SIDE, SIDE))
    colour = np.array([0.55, 0.35, 0.2])[:, None, None] + g.normal(0, 0.02, (3, SIDE, SIDE))
    colour += 0.03 * np.sin(columns / 5 + g.uniform(0, 6))
    near = np.hypot(rows - SPOT[0], columns - SPOT[1])
    gt = (near < 10) & (defect != "good")
    if defect in ("colour", "both"):
        colour[:, gt] = np.array([0.1, 0.8, 0.1])[:, None]
    if defect in ("bump", "both"):
        height += 12e-3 * np.clip(1 - (near / 10) ** 2, 0, None)
    xyz = np.stack([x, y, 0.5 - height])
    xyz[:, np.hypot(x, y) > 0.045] = 0
    return Sample(
        colour.clip(0, 1).astype(np.float32), xyz.astype(np.float32), gt[None], int(gt.any()), defect, "dome",
        f"test/{defect}/{number:03d}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.preset("smoke", overrides={"m3dm_steps": 40})


@pytest.fixture(scope="module")
def extractor(config) -> FeatureExtractor:
    return FeatureExtractor.from_config(config)


@pytest.fixture(scope="module")
def trained(config, extractor) -> M3DM:
    return M3DM(config, extractor).fit([part(k) for k in range(20)], show=False)


def literal_loss(queries, keys, temperature):
    q = [v / np.linalg.norm(v) for v in queries.numpy().astype(np.float64)]
    k = [v / np.linalg.norm(v) for v in keys.numpy().astype(np.float64)]
    losses = []
    for i in range(len(q)):
        similar = [np.exp(q[i] @ other / temperature) for other in k]
        losses.append(-np.log(similar[i] / sum(similar)))
    return 2 * temperature * np.mean(losses)


@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_the_contrastive_loss_is_the_literal_one(temperature):
    g = torch.Generator().manual_seed(1)
    queries, keys = torch.randn(23, 6, generator=g), torch.randn(23, 6, generator=g)
    assert info_nce(queries, keys, temperature).item() == pytest.approx(literal_loss(queries, keys, temperature), 1e-5)


def test_a_large_similarity_matrix_in_parts_gives_the_same_loss_and_gradients(monkeypatch):
    g = torch.Generator().manual_seed(2)
    whole = [torch.randn(23, 6, generator=g).requires_grad_() for _ in range(2)]
    parts = [tensor.detach().clone().requires_grad_() for tensor in whole]
    expected = info_nce(*whole, 0.5)
    expected.backward()
    monkeypatch.setattr(feature_fusion, "ROWS", 7)
    loss = info_nce(*parts, 0.5)
    loss.backward()
    assert torch.allclose(loss, expected, rtol=1e-6)
    for a, b in zip(parts, whole, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-7)


def test_the_learning_rate_rises_for_a_third_and_falls_to_zero():
    rates = [rate(step, 750) for step in range(750)]
    assert rates[249] < 1 == rates[250] == max(rates)
    assert np.all(np.diff(rates[:251]) > 0) and np.all(np.diff(rates[250:]) < 0)
    assert rates[500] == pytest.approx(0.5) and 0 < rates[-1] < 1e-4


def test_training_the_fusion_brings_partners_together():
    config = Config.preset("smoke", overrides={"m3dm_steps": 150})
    g = torch.Generator().manual_seed(3)
    to_rgb, to_xyz = torch.randn(5, 16, generator=g), torch.randn(5, 24, generator=g)
    latent = [torch.randn(60, 5, generator=g) for _ in range(8)]
    rgb, xyz = [z @ to_rgb for z in latent], [z @ to_xyz for z in latent]
    place = Place.of(config)
    model, history = train_fusion(rgb[:6], xyz[:6], config, place)
    assert history[-1]["contrast"] < history[0]["contrast"]
    assert history[-1]["step"] == 150

    def partner_is_nearest(model):  # on samples that training did not see
        with torch.no_grad():
            a = torch.nn.functional.normalize(model.rgb_head(model.rgb(torch.cat(rgb[6:]))), dim=1)
            b = torch.nn.functional.normalize(model.xyz_head(model.xyz(torch.cat(xyz[6:]))), dim=1)
        return float(((a @ b.T).argmax(dim=1) == torch.arange(len(a))).float().mean())

    torch.manual_seed(0)
    assert partner_is_nearest(FeatureFusion(16, 24)) < 0.05
    assert partner_is_nearest(model) > 0.3
    again, _ = train_fusion(rgb[:6], xyz[:6], config, place)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_decision_fusion_is_scikit_learn_s_one_class_svm():
    g = np.random.default_rng(4)
    good = np.abs(g.normal([5.0, 3.0, 7.0], 0.5, (200, 3)))
    test = np.abs(g.normal([6.0, 4.0, 8.0], 2.0, (50, 3)))
    config = Config.preset("smoke")
    factors = np.array([0.1, 1.0, 1.0])  # the authors': image, points, fused
    svm = SGDOneClassSVM(nu=0.5, max_iter=1000, random_state=config.seed).fit(good * factors)
    fusion = DecisionFusion.fit(torch.from_numpy(good), config)
    assert np.allclose(fusion(torch.from_numpy(test)).numpy(), svm.score_samples(test * factors), rtol=1e-12)
    assert (fusion.weights > 0).all()  # so that a higher score of any bank is a higher score of all
    assert DecisionFusion(fusion.weights)(torch.from_numpy(test[None])).shape == (1, 50)


def test_defects_of_either_modality_score_higher_than_every_good_part(trained):
    good = [trained.predict(part(k)).score for k in range(100, 106)]
    for number, defect in enumerate(DEFECTS):
        found = trained.predict(part(200 + number, defect))
        assert found.score > max(good), defect
        spot = part(200 + number, defect).gt[0]
        elsewhere = part(200 + number, defect).valid[0] & ~spot
        assert found.psi[spot].mean() > 1.1 * found.psi[elsewhere].mean(), defect
    seen = [trained.predict(part(200 + k, defect)) for k, defect in enumerate(DEFECTS[:2])]
    plain = trained.predict(part(100))
    assert seen[0].psi_rgb.max() > plain.psi_rgb.max()  # the colour is the image bank's
    assert seen[1].psi_xyz.max() > plain.psi_xyz.max()  # the bump that of the points


def test_maps_and_scores_are_those_of_plain_search_and_filters(trained, config):
    sample = part(200, "both")
    found = trained.predict(sample)
    cells = Cells.of(trained.extractor.extract(sample), config)
    with torch.no_grad():
        fused = trained.fusion(cells.beside, cells.xyz)
    maps, scores = [], []
    for name, rows in zip(BANKS, (cells.rgb, cells.xyz, fused), strict=True):
        rows, bank = (rows / trained.scale).double().numpy(), trained.banks[name].vectors.double().numpy()
        distances = cdist(rows, bank)
        worst = distances.min(axis=1).argmax()
        star, nearest = distances[worst].min(), distances[worst].argmin()
        around = cdist(bank[[nearest]], bank)[0].argsort()[1:3]
        root = np.sqrt(rows.shape[1])
        weight = 1 - np.exp(star / root) / np.exp(distances[worst, around] / root).sum()
        scores.append(weight * star)
        grid = torch.zeros(1, 1, *cells.xyz_at.shape, dtype=torch.float64)
        grid[0, 0, cells.xyz_at] = torch.from_numpy(distances.min(axis=1))
        at_pixels = upsample(grid, cells.xyz_at[None, None], SIDE)[0, 0].numpy() * sample.valid[0]
        maps.append(gaussian_filter(at_pixels, 4.0, mode="constant"))
    weights = {name: fusion.weights.numpy() for name, fusion in trained.decide.items()}
    assert found.score == pytest.approx(np.dot(weights["image"], scores), rel=1e-4)
    assert np.allclose(found.psi, np.tensordot(weights["map"], maps, 1), rtol=1e-3, atol=1e-3 * found.psi.max())
    assert (found.psi_rgb[~sample.valid[0]] == 0).all()


def test_banks_keep_a_tenth_and_divide_by_the_image_features_deviation(trained, config):
    samples = [Cells.of(trained.extractor.extract(part(k)), config) for k in range(20)]
    rows = torch.cat([one.rgb for one in samples])
    assert trained.scale == rows.std()
    assert {name: len(bank) for name, bank in trained.banks.items()} == dict.fromkeys(BANKS, len(rows) // 10)
    scaled = (rows / trained.scale).numpy()
    assert cdist(trained.banks["rgb"].vectors.numpy(), scaled).min(axis=1).max() < 1e-4


def test_a_saved_detector_predicts_the_same(trained, tmp_path):
    trained.calibrate([part(k) for k in (100, 101)])
    loaded = M3DM.load(trained.save(tmp_path / "saved"))
    assert loaded.threshold == trained.threshold and loaded.nbytes() == trained.nbytes()
    sample = part(201, "bump")
    before, after = trained.predict(sample), loaded.predict(sample)
    assert before.score == after.score
    for name in ("psi_rgb", "psi_xyz", "psi"):
        assert np.array_equal(getattr(before, name), getattr(after, name))


def test_equal_seeds_give_equal_bits(config, extractor):
    samples = [part(k) for k in range(3)]  # so few that batches and banks are small
    torch.manual_seed(1)
    first = M3DM(config, extractor).fit(samples, show=False).state()
    torch.manual_seed(2)
    second = M3DM(config, extractor).fit(samples, show=False).state()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = M3DM(replace(config, seed=1), extractor).fit(samples, show=False).state()
    assert not torch.equal(first["bank.fused"], other["bank.fused"])


def test_only_the_first_samples_are_used_where_there_are_more_than_the_cap(config, extractor):
    capped = replace(config, m3dm_most=3, m3dm_steps=5)
    split = split_of([part(k) for k in range(5)], extractor)
    few = M3DM(capped, extractor).fit_split(split, [0, 1, 2])
    for indices, same in (([0, 1, 2, 3, 4], True), ([0, 1, 2], True), ([1, 2, 3, 4], False)):
        state = M3DM(capped, extractor).fit_split(split, indices).state()
        assert same == all(torch.equal(value, state[name]) for name, value in few.state().items())
    assert Config.preset("full").m3dm_most == 400


def token_sample(side: int = 16, groups: int = 9, valid: torch.Tensor | None = None) -> Tokens:
    """Tokens of one sample whose grid is as fine as its image of `side` pixels, the image's tokens on side / 8."""
    g = torch.Generator().manual_seed(5)
    weight = torch.rand(1, side * side, 3, generator=g)
    if valid is not None:
        weight = weight * valid.reshape(1, -1, 1)
    index = torch.randint(groups, (1, side * side, 3), generator=g).to(torch.int16)
    return Tokens(
        torch.randn(1, 5, side // 8, side // 8, generator=g), torch.randn(1, groups, 4, generator=g), index, weight
    )


def test_point_features_are_means_over_the_pixels_of_a_coarser_grid():
    valid = torch.zeros(16, 16, dtype=torch.bool)
    valid[3:12, :9] = True
    tokens = token_sample(valid=valid)
    config = Config.preset("smoke", overrides={"image_size": 16, "grid": 16})
    part_only, everywhere = Cells.of(tokens, config), Cells.of(tokens, replace(config, m3dm_cells="all"))
    pixels = torch.einsum("pk,pkd->pd", tokens.weight[0], tokens.xyz[0][tokens.index[0].long()]).reshape(16, 16, 4)
    blocks = [(slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)) for i in range(4) for j in range(4)]
    expected = torch.stack([pixels[block].mean((0, 1)) for block in blocks])
    assert torch.allclose(everywhere.xyz, expected, atol=1e-6)
    held = torch.stack([valid[block].any() for block in blocks])
    assert torch.equal(everywhere.solid, held) and torch.equal(part_only.xyz_at.flatten(), held)
    assert torch.allclose(part_only.xyz, expected[held], atol=1e-6) and part_only.solid.all()
    # Each image token stands for 2 x 2 of these cells.
    tokens_of_cells = tokens.rgb[0].repeat_interleave(2, 1).repeat_interleave(2, 2).reshape(5, 16).T
    assert torch.allclose(everywhere.beside, tokens_of_cells)
    assert torch.equal(everywhere.rgb, tokens.rgb[0].reshape(5, 4).T) and everywhere.rgb_at.all()


def test_a_sample_without_points_is_refused():
    tokens = token_sample(valid=torch.zeros(16, 16, dtype=torch.bool))
    with pytest.raises(DataError, match="3D point"):
        Cells.of(tokens, Config.preset("smoke", overrides={"image_size": 16, "grid": 16}))


def test_the_map_svm_sees_the_middle_pixel_of_each_cell():
    config = Config.preset("smoke", overrides={"image_size": 16, "grid": 4})
    g = torch.Generator().manual_seed(6)
    maps, mask = torch.rand(3, 1, 16, 16, generator=g), torch.rand(1, 1, 16, 16, generator=g) < 0.5
    expected = [maps[:, 0, i, j] for i in range(2, 16, 4) for j in range(2, 16, 4) if mask[0, 0, i, j]]
    assert torch.equal(one_pixel_per_cell(maps, mask, config), torch.stack(expected))


def test_with_all_cells_the_surroundings_are_scored_too(config, extractor):
    detector = M3DM(replace(config, m3dm_cells="all"), extractor).fit([part(k) for k in range(3)], show=False)
    sample = part(100)
    assert (detector.predict(sample).psi_rgb[~sample.valid[0]] > 0).any()
    with pytest.raises(ConfigError, match="m3dm_cells"):
        replace(config, m3dm_cells="some")
