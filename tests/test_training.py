"""Training: learns, repeats exactly, resumes exactly; detectors survive a round trip and refuse bad files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.samples import FakeFeatures, small, state

from mafr import training
from mafr.config import Config
from mafr.detector import Detector
from mafr.errors import MafrError, WeightsError
from mafr.method import score_threshold


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_loss_falls_and_anomalies_stand_out(variant):
    config = small(variant, epochs=40)
    features = FakeFeatures(config, 12)
    detector = Detector(config).fit_split(features)
    totals = [epoch["total"] for epoch in detector.history]
    assert totals[-1] < 0.7 * totals[0]
    tokens = FakeFeatures(config, 1, seed=5).tokens([0])
    good = detector.residuals(tokens)
    off_manifold = torch.randn(tokens.rgb.shape, generator=torch.Generator().manual_seed(1)) * tokens.rgb.std()
    bad = detector.residuals(replace(tokens, rgb=off_manifold))
    valid = good[2]
    assert bad[0][valid].mean() > 1.1 * good[0][valid].mean()
    assert (bad[0][~valid] == 0).all()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_same_seed_same_weights_other_seed_others(variant):
    config = small(variant)
    features = FakeFeatures(config, 5)
    torch.manual_seed(1)
    first = state(training.fit(config, features, range(5))[0])
    torch.manual_seed(2)  # the caller's random state plays no part, nor is it touched
    before = torch.get_rng_state()
    second = state(training.fit(config, features, range(5))[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[k], second[k]) for k in first)
    other = state(training.fit(replace(config, seed=1), features, range(5))[0])
    assert not torch.equal(first["encoder.input_fc.weight"], other["encoder.input_fc.weight"])


def test_several_samples_a_step_share_one_step(monkeypatch):
    """A step's gradient is the mean of its samples', whose own ones the step of a single sample tells."""
    config = small(samples_a_step=2, epochs=1, dropout=0.0)
    features, seen = FakeFeatures(config, 5), []

    class Watched(torch.optim.Adam):
        def step(self, closure=None):
            seen.append([p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None])

    monkeypatch.setattr(torch.optim, "Adam", Watched)  # nothing moves: all gradients are at the same weights
    training.fit(config, features, range(5))
    together = seen.copy()
    seen.clear()
    training.fit(replace(config, samples_a_step=1), features, range(5))
    assert (len(together), len(seen)) == (3, 5)
    for first, gradients in zip((0, 2, 4), together, strict=True):
        alone = seen[first : first + 2]
        for k, gradient in enumerate(gradients):
            torch.testing.assert_close(gradient, sum(one[k] for one in alone) / len(alone), rtol=1e-5, atol=1e-7)
    assert training.epochs_for(replace(config, min_steps=20), 5) == 7  # three steps an epoch


def test_an_interrupted_training_resumes_to_the_same_result(tmp_path, monkeypatch):
    config, checkpoint = small(), tmp_path / "run" / "checkpoint.pt"
    features = FakeFeatures(config, 5)
    whole, history = training.fit(config, features, range(5))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    class Interrupted(FakeFeatures):
        calls = 0

        def tokens(self, indices):
            self.calls += 1
            if self.calls > 14:  # five samples an epoch and two looks ahead: inside the third epoch
                raise KeyboardInterrupt
            return super().tokens(indices)

    monkeypatch.setattr(training, "CACHE_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        training.fit(config, Interrupted(config, 5), range(5), checkpoint)
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == 2
    resumed, resumed_history = training.fit(config, features, range(5), checkpoint)
    assert resumed_history == history
    a, b = state(whole), state(resumed)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_features_that_are_drawn_again_follow_from_the_epoch(tmp_path, monkeypatch):
    """As live features do it: resumed, the second half must see the draws it would have seen."""

    class Drawn(FakeFeatures):
        live = True

        def seek(self, draw):
            self.draw = draw

        def tokens(self, indices):
            tokens, g = super().tokens(indices), torch.Generator().manual_seed(1000 * self.draw + indices[0])
            return replace(tokens, rgb=tokens.rgb + torch.randn(tokens.rgb.shape, generator=g))

    config, checkpoint = small(), tmp_path / "checkpoint.pt"
    _, history = training.fit(config, Drawn(config, 3), range(3))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    training.fit(replace(config, epochs=2), Drawn(config, 3), range(3), checkpoint)
    _, resumed = training.fit(config, Drawn(config, 3), range(3), checkpoint)
    assert resumed == history


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(MafrError, match=r"checkpoint\.pt.*delete it"):
        training.fit(small(), FakeFeatures(small(), 3), range(3), path)


def test_min_steps_lengthens_short_trainings():
    config = small(epochs=2, min_steps=30)
    assert training.epochs_for(config, 5) == 6
    assert training.epochs_for(config, 100) == 2


def test_no_samples_and_infinite_loss_are_errors():
    config = small()
    with pytest.raises(MafrError, match="at least one sample"):
        training.fit(config, FakeFeatures(config, 3), [])
    features = FakeFeatures(config, 3)
    features.rgb = features.rgb * float("nan")
    with pytest.raises(MafrError, match="loss became nan"):
        training.fit(config, features, range(3))


def trained(config: Config) -> Detector:
    return Detector(config).fit_split(FakeFeatures(config, 3))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_save_and_load(tmp_path, variant):
    config = small(variant, epochs=1)
    detector = trained(config)
    detector.threshold = 1.25
    loaded = Detector.load(detector.save(tmp_path / "detector"), config)
    assert (loaded.config, loaded.threshold, loaded.history) == (config, 1.25, detector.history)
    sample = FakeFeatures(config, 1, seed=3).tokens([0])
    for a, b in zip(detector.residuals(sample), loaded.residuals(sample), strict=True):
        assert torch.equal(a, b)


def test_bad_detector_folders_are_refused(tmp_path):
    folder = trained(small(epochs=1)).save(tmp_path / "detector")
    with pytest.raises(WeightsError, match=r"detector\.json is missing"):
        Detector.load(tmp_path)
    with pytest.raises(WeightsError, match="another configuration: fused_dim is 0 there and 9 here"):
        Detector.load(folder, small(epochs=1, fused_dim=9))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(WeightsError, match="not readable as detector weights"):
        Detector.load(folder)
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(WeightsError, match=r"model\.safetensors: not readable as detector weights"):
        Detector.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: there is no such file.*save the detector again"):
        Detector.load(folder)
    other = trained(small("released", epochs=1)).save(tmp_path / "other")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"does not fit its own detector\.json"):
        Detector.load(folder)
    record = json.loads((folder / "detector.json").read_text())
    (folder / "detector.json").write_text(json.dumps(record | {"format": 0}))
    with pytest.raises(WeightsError, match="another version"):
        Detector.load(folder)
    (folder / "detector.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(WeightsError, match=r"detector\.json lacks"):
        Detector.load(folder)
    (folder / "detector.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        Detector.load(folder)


def test_an_untrained_detector_says_so(tmp_path):
    detector = Detector(small())
    with pytest.raises(MafrError, match="not trained yet"):
        detector.residuals(FakeFeatures(small(), 1).tokens([0]))
    with pytest.raises(MafrError, match="not trained yet"):
        detector.save(tmp_path)


def test_threshold_is_the_quantile():
    assert score_threshold(np.arange(11.0).tolist(), 0.95) == pytest.approx(9.5)


def test_a_cosine_ends_near_zero_and_changes_nothing_where_it_is_not_asked_for(monkeypatch):
    seen = []
    plain = torch.optim.Adam.step

    def step(self, closure=None):
        seen.append(self.param_groups[0]["lr"])
        return plain(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    config = small(epochs=4, learning_rate=2e-3)
    features = FakeFeatures(config, 5)
    training.fit(config, features, range(5))
    assert set(seen) == {2e-3}
    seen.clear()
    training.fit(replace(config, schedule="cosine"), features, range(5))
    assert len(seen) == 20 and seen[0] == 2e-3 and seen == sorted(seen, reverse=True)
    assert seen[10] == pytest.approx(1e-3) and seen[-1] < 2e-5


def test_a_training_stops_by_the_loss_on_held_out_samples_and_keeps_the_best_weights():
    config = small(epochs=60, patience=3, learning_rate=2e-2)  # so high that it wanders
    features, others = FakeFeatures(config, 4), FakeFeatures(config, 3, seed=9)
    model, history = training.fit(config, features, range(4), held_out=(others, range(3)))
    losses = [epoch["held_out"] for epoch in history]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 3 < 60
    shorter = replace(config, epochs=best + 1)
    again = training.fit(shorter, features, range(4), held_out=(others, range(3)))[0]
    assert all(torch.equal(a, b) for a, b in zip(state(model).values(), state(again).values(), strict=True))
    # Judging changes no step, and without held-out samples nothing stops it.
    plain = training.fit(replace(config, epochs=len(history)), features, range(4))[1]
    assert [epoch["total"] for epoch in plain] == [epoch["total"] for epoch in history]


def test_held_out_samples_are_prepared_only_where_they_decide():
    class Watched(FakeFeatures):
        asked = 0

        def extract(self, indices):
            self.asked += len(indices)

    for patience, asked in ((0, 0), (1, 2)):
        config = small(epochs=1, patience=patience)
        others = Watched(config, 2, seed=9)
        Detector(config).fit_split(FakeFeatures(config, 3), validation=others)
        assert others.asked == asked


def test_a_held_out_loss_that_is_not_finite_is_an_error(monkeypatch):
    """Not a loss below which none falls: the training would stop while it still improves."""
    losses = iter([float("nan"), 1.0, 0.9, 0.8])
    monkeypatch.setattr(training.HeldOut, "loss", lambda self, history: next(losses))
    config = small(epochs=4, patience=2)
    features = FakeFeatures(config, 3)
    with pytest.raises(MafrError, match="the loss on held-out samples became nan in epoch 1"):
        training.fit(config, features, range(3), held_out=(features, range(1)))


def test_an_interrupted_training_keeps_its_best_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    config = small(epochs=12, patience=4, learning_rate=2e-2)
    features, others = FakeFeatures(config, 4), FakeFeatures(config, 3, seed=9)
    whole = training.fit(config, features, range(4), held_out=(others, range(3)))
    real, calls = training._epoch, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.fit(config, features, range(4), tmp_path / "c.pt", held_out=(others, range(3)))
    resumed = training.fit(config, features, range(4), tmp_path / "c.pt", held_out=(others, range(3)))
    assert resumed[1] == whole[1]
    assert all(torch.equal(a, b) for a, b in zip(state(whole[0]).values(), state(resumed[0]).values(), strict=True))
