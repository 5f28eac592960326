"""Memory banks: the coreset against the plain greedy choice, distances and the reweighted score against brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.random_projection import SparseRandomProjection

from mafr.baselines.parts import half_coreset, memory_bank
from mafr.baselines.parts.memory_bank import (
    MemoryBank,
    greedy_coreset,
    projected,
    search_products,
)
from mafr.config import Config
from mafr.errors import MafrError

SMOKE = Config.preset("smoke")


def features(count: int, dim: int, seed: int = 0, clusters: int = 12) -> torch.Tensor:
    """(count, dim) float64 in clusters of very different sizes, as features of parts and background are."""
    rng = np.random.default_rng(seed)
    centres, spread = rng.normal(size=(clusters, dim)), rng.lognormal(-1, 1, size=clusters)
    of = rng.choice(clusters, size=count, p=rng.dirichlet(np.ones(clusters)))
    return torch.from_numpy(5 + centres[of] + spread[of, None] * rng.normal(size=(count, dim)))


def slow_coreset(rows: np.ndarray, count: int, start: int = 0) -> list[int]:
    """Each time the row with the largest distance to its nearest chosen one, from all distances."""
    distances = cdist(rows, rows)
    chosen = [start]
    while len(chosen) < count:
        chosen.append(int(distances[:, chosen].min(axis=1).argmax()))
    return chosen


# ------------------------------------------------------------------ the coreset


@pytest.mark.parametrize("pool", [1, 7, 100, 5000])
@pytest.mark.parametrize(("total", "dim", "count", "start"), [(900, 6, 300, 0), (700, 40, 120, 13), (50, 3, 50, 49)])
def test_coreset_equals_the_plain_greedy_choice(
    monkeypatch: pytest.MonkeyPatch, pool: int, total: int, dim: int, count: int, start: int
):
    monkeypatch.setattr(memory_bank, "POOL", pool)
    monkeypatch.setattr(memory_bank, "BLOCK", {"cpu": 1000})
    rows = features(total, dim, seed=dim)
    assert greedy_coreset(rows, count, start).tolist() == slow_coreset(rows.numpy(), count, start)


def test_coreset_of_floats_covers_as_well_as_the_plain_one():
    rows = features(3000, 24).float()
    found = greedy_coreset(rows, 200)
    wanted = slow_coreset(rows.double().numpy(), 200)
    reach = [cdist(rows, rows[chosen]).min(axis=1).max() for chosen in (found.numpy(), wanted)]
    assert reach[0] == pytest.approx(reach[1], rel=1e-3)
    assert len(set(found.tolist())) == 200


def test_equal_features_are_chosen_once_each():
    rows = torch.zeros(40, 5)
    rows[7] = 1
    chosen = greedy_coreset(rows, 40).tolist()
    assert chosen[:2] == [0, 7] and sorted(chosen) == list(range(40))


def test_a_coreset_has_at_least_one_and_at_most_all():
    rows = features(5, 3)
    for count, start in ((0, 0), (6, 0), (2, 5)):
        with pytest.raises(MafrError, match="cannot choose"):
            greedy_coreset(rows, count, start)
    assert torch.equal(MemoryBank.build(rows, SMOKE).vectors, rows[:1])  # a tenth of five, rounded up to one
    with pytest.raises(MafrError, match="memory bank needs"):
        MemoryBank.build(rows[:0], SMOKE)


def test_size_of_a_bank():
    rows = features(500, 6).float()
    bank = MemoryBank.build(rows, SMOKE)
    assert len(bank) == 50 and bank.megabytes == 50 * 6 * 4 / 1e6
    # The farthest first: a smaller bank is the beginning of a larger one.
    smaller = MemoryBank.build(rows, dataclasses.replace(SMOKE, bank_ratio=0.02))
    assert torch.equal(smaller.vectors, bank.vectors[:10])


@pytest.mark.parametrize("profile", ["demo", "full"])
def test_published_ratio_and_projection_in_every_profile(profile: str):
    config = Config.preset(profile, overrides={"device": "cpu", "precision": "float32"})
    assert (config.bank_ratio, config.bank_eps) == (0.1, 0.9)
    rows = features(1000, 400).float()
    published = SparseRandomProjection(eps=0.9, random_state=config.seed).fit_transform(rows.numpy())
    assert published.shape[1] == 170  # Johnson-Lindenstrauss for 1,000 vectors
    np.testing.assert_allclose(projected(rows, config), published, rtol=1e-4, atol=1e-4)
    narrow = rows[:, :170]
    assert projected(narrow, config) is narrow  # where the published code fails to project and goes on


def test_projection_keeps_distances_and_follows_the_seed():
    rows = features(300, 400, clusters=1).float()
    small = projected(rows, SMOKE)
    assert small.shape == (300, 140)
    before, after = (torch.pdist(r) for r in (rows, small))
    assert 0.9 < (after / before).mean() < 1.1 and (after / before).std() < 0.1
    assert torch.equal(small, projected(rows, SMOKE))
    assert not torch.equal(small, projected(rows, dataclasses.replace(SMOKE, seed=1)))


def test_the_same_seed_gives_the_same_bank():
    rows = features(2000, 300).float()
    first, second = (MemoryBank.build(rows, SMOKE).vectors for _ in range(2))
    other = MemoryBank.build(rows, dataclasses.replace(SMOKE, seed=1)).vectors
    assert torch.equal(first, second) and not torch.equal(first, other)


# ------------------------------------------------------------------ the coreset in half precision


def slow_half_coreset(rows: torch.Tensor, count: int) -> list[int]:
    """The published code, line by line."""
    least = torch.linalg.norm(rows - rows[:1], dim=1).half()
    halves, last, chosen = rows.half(), rows[:1].half(), [0]
    for _ in range(count - 1):
        apart = (halves - last).float()  # the difference is rounded; the norm of halves sums in float32
        least = torch.minimum(torch.linalg.norm(apart, dim=1).half(), least)
        best = int(least.argmax())
        last, least[best] = halves[best : best + 1], 0
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("pool", [1, 7, 100, 5000])
@pytest.mark.parametrize(("scale", "dim", "count"), [(40, 33, 200), (0.01, 8, 300), (1, 60, 90), (0, 3, 40)])
def test_half_coreset_equals_the_published_choice(
    monkeypatch: pytest.MonkeyPatch, pool: int, scale: float, dim: int, count: int
):
    monkeypatch.setattr(half_coreset, "POOL", pool)
    monkeypatch.setattr(half_coreset, "BLOCK", {"cpu": 1000})
    monkeypatch.setattr(half_coreset, "PAIRS", 50)
    rows = (scale * features(900, dim, seed=dim)).float()
    rows[::3] = rows[0]  # background: equal features
    rows[1::9] = rows[4]
    found = half_coreset.half_coreset(rows, count).tolist()
    assert found == slow_half_coreset(rows, count)
    if scale > 1:  # steps of 1/8 and more: many are equally far, and the first of them is not float32's
        assert found != greedy_coreset(rows, count).tolist()


def test_half_coreset_of_fewer_places_than_it_keeps():
    """Where every feature lies on a chosen one, the published code takes the first again and again."""
    rows = torch.tensor([[0.0, 0], [3, 4], [0, 0], [1, 0]]).repeat(10, 1)
    assert half_coreset.half_coreset(rows, 6).tolist() == [0, 1, 3, 0, 0, 0] == slow_half_coreset(rows, 6)
    for count in (0, 41):
        with pytest.raises(MafrError, match=f"cannot choose {count} of 40"):
            half_coreset.half_coreset(rows, count)


def test_a_bank_is_chosen_as_the_settings_say():
    rows = 40 * features(600, 33, seed=3).float()
    for choice, chosen in (("float32", greedy_coreset(rows, 60)), ("float16", half_coreset.half_coreset(rows, 60))):
        bank = MemoryBank.build(rows, dataclasses.replace(SMOKE, bank_choice=choice))
        assert torch.equal(bank.vectors, rows[chosen])  # of full precision in either case


# ------------------------------------------------------------------ distances


@pytest.mark.parametrize("count", [1, 3, 40])
def test_nearest_are_the_true_ones(monkeypatch: pytest.MonkeyPatch, count: int):
    monkeypatch.setattr(memory_bank, "BLOCK", {"cpu": 1000})
    monkeypatch.setattr(memory_bank, "SEARCHED", 1000)
    bank, queries = features(40, 30, 1).float(), features(333, 30, 2).float()
    one = MemoryBank(bank)
    distance, index = one.nearest(queries, count)
    every = cdist(queries.double(), bank.double())
    where = np.argsort(every, axis=1)[:, :count]
    assert distance.shape == index.shape == (333, count)
    np.testing.assert_array_equal(index, where)
    np.testing.assert_allclose(distance, np.take_along_axis(every, where, axis=1), rtol=1e-5)
    assert len(one.searches) == 1 and one.searches[0] > 0
    np.testing.assert_array_equal(search_products(bank, queries, count), index)


def test_equally_near_features_give_the_first_and_near_ties_the_true_one():
    bank, queries = features(300, 30, 1).float(), features(50, 30, 2).float()
    first = MemoryBank(bank).nearest(queries)[1]
    assert torch.equal(MemoryBank(torch.cat([bank, bank])).nearest(queries)[1], first)
    # Two candidates whose difference the products lose: 1e-3 and 1.1e-3 away, 10³ from the mean.
    far = torch.zeros(2, 8)
    far[:, 0] = 1e3
    far[0, 1], far[1, 2] = 1.1e-3, 1e-3
    distance, index = MemoryBank(torch.cat([far, -far])).nearest(torch.tensor([[1e3, *[0.0] * 7]]))
    assert index.item() == 1 and distance.item() == pytest.approx(1e-3)


def test_small_distances_between_large_features_are_not_lost():
    # Squares of 10⁴ in float32 drown a distance of 0.01; the differences themselves do not.
    bank = 100 + torch.arange(20.0)[:, None] * torch.ones(1, 16)
    queries = bank.flip(0) + torch.eye(20, 16) * 0.01
    distance, index = MemoryBank(bank).nearest(queries)
    assert index[:, 0].tolist() == list(range(19, -1, -1))
    np.testing.assert_allclose(distance[:16, 0], 0.01, rtol=1e-2)
    assert MemoryBank(bank).nearest(bank)[0].max() == 0


def test_a_bank_of_other_features_is_an_error():
    bank = MemoryBank(torch.zeros(3, 4))
    with pytest.raises(MafrError, match="5 values do not fit a bank of 4"):
        bank.nearest(torch.zeros(2, 5))
    with pytest.raises(MafrError, match="4 neighbours"):
        bank.nearest(torch.zeros(2, 4), 4)


def test_image_score_is_equation_7():
    """As PatchCore's public re-implementations compute it, with three neighbours."""
    bank, queries = features(60, 8, 3), features(25, 8, 4)
    one = MemoryBank(bank.float())
    found = one.image_score(queries.float(), *one.nearest(queries.float()))
    distances = cdist(queries, bank)
    worst = distances.min(axis=1).argmax()
    star, nearest = distances[worst].min(), distances[worst].argmin()
    around = np.argsort(cdist(bank[nearest : nearest + 1], bank)[0])[:3]
    assert around[0] == nearest
    others = distances[worst, around[1:]]
    weight = 1 - np.exp(star / np.sqrt(8)) / np.exp(others / np.sqrt(8)).sum()
    assert found == pytest.approx(weight * star, rel=1e-5)
    assert 0.5 <= weight < 1


def test_image_score_of_far_features_and_of_tiny_banks():
    far = torch.full((1, 4), 1e6)  # exp(10⁶) is beyond any float
    for bank, weight in ((torch.zeros(1, 4), 1), (torch.zeros(2, 4), 1), (torch.zeros(3, 4), 0.5)):
        one = MemoryBank(bank)
        assert one.image_score(far, *one.nearest(far)) == pytest.approx(weight * 2e6)


def test_state_round_trip():
    bank = MemoryBank(features(6, 3).float())
    state = {"bank.rgb": bank.vectors}
    again = MemoryBank.restore(state, "bank.rgb")
    assert torch.equal(again.vectors, bank.vectors)
    with pytest.raises(KeyError):
        MemoryBank.restore(state)
    with pytest.raises(RuntimeError, match="no memory bank"):
        MemoryBank.restore({"bank": torch.zeros(3)})
