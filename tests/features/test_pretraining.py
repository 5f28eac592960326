"""Pretraining of the small Point-MAE: the scans, the loss, a short run, and the record in the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mafr.errors import ConfigError
from mafr.features.encoders import SMALL_WEIGHTS
from mafr.features.geometry import farthest_point_sample
from mafr.features.pointmae import SMALL, PointMAE, load_checkpoint
from mafr.features.pretraining.pretrain import Clouds, MaskedAutoencoder, PretrainSettings, chamfer, pretrain
from mafr.features.pretraining.shapes import random_body, random_scan, rotation
from mafr.features.rgb import file_sha256

SHORT = PretrainSettings(
    steps=24, batch=4, shapes=6, held_out=4, groups=32, group_size=16, warm_up=4, learning_rate=3e-3, seed=3
)


def test_scans_are_partial_views_of_bodies_of_the_stated_size() -> None:
    for number in range(6):
        points = random_scan(np.random.default_rng([5, number]))
        assert points.dtype == np.float32 and 2000 <= len(points) <= 20_000
        assert np.isfinite(points).all()
        first = points[0]
        far = points[np.argmax(((points - first) ** 2).sum(1))]
        assert 0.01 < np.linalg.norm(far - first) < 0.13  # metres
        assert np.array_equal(points, random_scan(np.random.default_rng([5, number])))
    assert not np.array_equal(points, random_scan(np.random.default_rng([5, 99])))


def test_bodies_lie_inside_the_unit_ball_and_differ() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    inside = []
    for number in range(12):
        body = random_body(np.random.default_rng(number))
        assert (body((directions * 1.6).astype(np.float32)) > 0).all()
        cells = rng.uniform(-1, 1, (2000, 3)).astype(np.float32)
        inside.append((body(cells) < 0).mean())
    assert min(inside) > 0.005 and np.std(inside) > 0.02


def test_rotation_is_a_rotation() -> None:
    turn = rotation(np.array([0.0, 0.0, 1.0]), np.pi / 2)
    np.testing.assert_allclose(turn @ [1, 0, 0], [0, 1, 0], atol=1e-6)
    axis = np.array([1.0, 2.0, -2.0]) / 3
    turn = rotation(axis, 0.7)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(turn @ axis, axis, atol=1e-6)
    assert np.trace(turn) == pytest.approx(1 + 2 * np.cos(0.7), abs=1e-6)


def test_chamfer_equals_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 5, 3, generator=generator), torch.randn(3, 7, 3, generator=generator)
    total = 0.0
    for one, two in zip(a, b, strict=True):
        to = [min(((p - q) ** 2).sum().item() for q in two) for p in one]
        back = [min(((p - q) ** 2).sum().item() for p in one) for q in two]
        total += np.mean(to) + np.mean(back)
    assert chamfer(a, b).item() == pytest.approx(total / 3, rel=1e-5)
    assert chamfer(a, a).item() == pytest.approx(0, abs=1e-5)


def test_hidden_points_cannot_leak_into_the_prediction() -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(SMALL, 8, 1).eval()
    patches, centres = torch.randn(2, 10, 8, 3), torch.randn(2, 10, 3)
    order = torch.stack([torch.randperm(10), torch.randperm(10)])
    hidden, shown = order[:, :6], order[:, 6:]
    guess = model(patches, centres, hidden, shown)
    assert guess.shape == (2, 6, 8, 3)
    other = patches.clone()
    for row in range(2):
        other[row, hidden[row]] = 9.0
    assert torch.equal(model(other, centres, hidden, shown), guess)
    for row in range(2):
        other[row, shown[row]] += 1.0
    assert not torch.allclose(model(other, centres, hidden, shown), guess, atol=1e-3)


def test_groups_are_made_as_at_extraction() -> None:
    clouds = Clouds.generate(2, SHORT, stream=0)
    points = random_scan(np.random.default_rng([SHORT.seed, 0, 1]))
    centres = points[farthest_point_sample(points, SHORT.groups)]
    np.testing.assert_array_equal(clouds.centres[1].numpy(), centres)
    np.testing.assert_allclose(clouds.middles[1].numpy(), points.mean(0), atol=1e-6)
    turned = clouds.take(np.array([1]), rotation(np.array([0.0, 0.0, 1.0]), 0.3)[None])
    matrix = rotation(np.array([0.0, 0.0, 1.0]), 0.3)
    np.testing.assert_allclose(turned.centres[0].numpy(), centres @ matrix.T, atol=1e-6)
    np.testing.assert_allclose(turned.patches[0, 3, 5].numpy(), matrix @ clouds.patches[1, 3, 5].numpy(), atol=1e-6)


def test_a_short_run_learns_and_repeats(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    paths = [pretrain(tmp_path / name, SHORT) for name in ("a", "b")]
    assert torch.get_num_threads() == threads and torch.equal(torch.random.get_rng_state(), state)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    record = json.loads(paths[0].with_suffix(".json").read_text())
    assert record["sha256"] == file_sha256(paths[0])
    losses = [point["held_out_loss"] for point in record["curve"]]
    assert losses[-1] < 0.8 * losses[0]
    model = load_checkpoint(paths[0])
    assert model.shape == SMALL and sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "pointmae_small.json", "pointmae_small.safetensors",
    ]  # fmt: skip
    other = pretrain(tmp_path / "c", PretrainSettings(**{**record["settings"], "seed": 4, "steps": 2}))
    assert other.read_bytes() != paths[0].read_bytes()


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="steps must be positive"):
        PretrainSettings(steps=0)
    with pytest.raises(ConfigError, match="masked"):
        PretrainSettings(masked=1.0)


def test_the_shipped_run_learned_something() -> None:
    record = json.loads(SMALL_WEIGHTS["pointmae_small"].with_suffix(".json").read_text())
    assert {"scans": "even"} | record["settings"] == json.loads(json.dumps(vars(PretrainSettings())))
    curve = [point["held_out_loss"] for point in record["curve"]]
    assert curve[-1] < 0.8 * record["held_out_loss_of_the_best_constant_patch"] < 0.8 * curve[0]
    assert record["file"] == SMALL_WEIGHTS["pointmae_small"].name and record["torch"]


def test_pretrained_features_know_the_surface_better_than_untrained_ones() -> None:
    """How a group's surface is inclined, read linearly from its token on bodies that the reader has not seen."""
    clouds = Clouds.generate(24, PretrainSettings(seed=77), stream=9)
    centred = clouds.patches - clouds.patches.mean(2, keepdim=True)
    normal = torch.linalg.eigh(centred.mT @ centred).eigenvectors[..., 0]  # (24, G, 3), sign unknown
    target = torch.stack([normal[..., i] * normal[..., j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2))], -1)

    def explained(model: PointMAE) -> float:
        with torch.inference_mode():
            features = model(*model.scale(clouds.patches, clouds.centres, clouds.middles)).double()
        (known, x), (truth, y) = ((v[:16].flatten(0, 1), v[16:].flatten(0, 1)) for v in (features, target.double()))
        mean, spread = known.mean(0), known.std(0) + 1e-6
        known, x = (known - mean) / spread, (x - mean) / spread
        middle = truth.mean(0)
        ridge = known.T @ known + 10 * torch.eye(known.shape[1], dtype=known.dtype)
        guess = x @ torch.linalg.solve(ridge, known.T @ (truth - middle)) + middle
        return float(1 - ((guess - y) ** 2).sum() / ((y - middle) ** 2).sum())

    torch.manual_seed(0)
    shipped, untrained = explained(load_checkpoint(SMALL_WEIGHTS["pointmae_small"])), explained(PointMAE(SMALL))
    assert shipped > 0.8
    assert shipped > untrained + 0.1
