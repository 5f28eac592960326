"""Training steps of AST and of M3DM's fusion on few rows against their networks with automatic gradients."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from mafr.baselines import m3dm
from mafr.baselines.ast import AST
from mafr.baselines.parts.feature_fusion import FeatureFusion
from mafr.baselines.parts.flow import Flow, likelihood_loss, positional_encoding
from mafr.baselines.parts.flow_step import FlowStep
from mafr.baselines.parts.fusion_step import FusionStep
from mafr.baselines.parts.student import distance, student_network
from mafr.baselines.parts.student_step import StudentStep
from mafr.config import Config
from mafr.device import Place
from mafr.fast.convolution import rows_of

HEIGHT, WIDTH, CHANNELS, KNOWN = 6, 5, 9, 8
POSITIONS = positional_encoding(KNOWN, HEIGHT, WIDTH)


def batch(number: int, samples: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, targets and weights."""
    g = torch.Generator().manual_seed(number)
    x, target = (2 * torch.randn(samples, CHANNELS, HEIGHT, WIDTH, generator=g) for _ in range(2))
    return x, target, torch.rand(samples, 1, HEIGHT, WIDTH, generator=g)


def assert_equal_gradients(found: nn.Module, wanted: nn.Module) -> None:
    for (name, p), q in zip(wanted.named_parameters(), found.parameters(), strict=True):
        # A bias before batch norm has no gradient; what is there is rounding.
        small = p.grad.norm() < 1e-6 and q.grad.norm() < 1e-6
        assert small or (p.grad - q.grad).norm() < 1e-4 * p.grad.norm(), name


@pytest.mark.parametrize("gamma", [0.0, 0.8])
def test_the_flows_step_leaves_the_plain_gradients(gamma):
    torch.manual_seed(3)
    plain = Flow(CHANNELS, KNOWN, hidden=6, kernels=(3, 3, 5), clamp=1.9)
    for name, parameter in plain.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, gamma)
    flow = copy.deepcopy(plain)
    step = FlowStep(flow, POSITIONS)
    for number, samples in ((0, 2), (1, 2), (2, 3)):
        x, _, weight = batch(number, samples)
        plain.zero_grad()
        z, logdet = plain(x, POSITIONS)
        wanted = likelihood_loss(z, logdet, weight)
        wanted.backward()
        assert step(rows_of(x), weight.flatten()).item() == pytest.approx(wanted.item(), rel=1e-5)
        assert_equal_gradients(flow, plain)
        found = step.outputs(rows_of(x))
        torch.testing.assert_close(found[0], rows_of(z.detach()), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], logdet.detach().flatten(), rtol=1e-4, atol=1e-5)
    step.weights.release()
    for (name, p), q in zip(plain.state_dict().items(), flow.state_dict().values(), strict=True):
        assert torch.equal(p, q) and q.is_contiguous(), name


def test_the_students_step_leaves_the_plain_gradients():
    torch.manual_seed(4)
    plain = student_network(KNOWN + CHANNELS, CHANNELS, hidden=12, blocks=2)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.5)
            nn.init.normal_(module.bias)
    network = copy.deepcopy(plain)
    step = StudentStep(network, HEIGHT, WIDTH)
    for number, samples in ((0, 2), (1, 2), (2, 1)):
        x, target, weight = batch(number, samples)
        inputs = torch.cat([POSITIONS.expand(samples, -1, -1, -1), x], dim=1)
        plain.zero_grad()
        wanted = distance(target, plain(inputs), weight).mean()
        wanted.backward()
        found = step(rows_of(inputs), rows_of(target), weight.flatten())
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
        assert_equal_gradients(network, plain)
    step.weights.release()
    for (name, p), q in zip(plain.state_dict().items(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-5, atol=1e-6, msg=name)  # running means and variances as well
        assert q.is_contiguous(), name


# ------------------------------------------------------------------ a whole training


@pytest.fixture(scope="module")
def config() -> Config:
    changes = {"ast_epochs": 3, "min_steps": 12, "ast_batch": 2, "ast_teacher_hidden": 8, "ast_student_hidden": 24}
    return Config.preset("smoke", overrides=changes)


def trained(config: Config, small: bool) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """The losses of a training on made-up maps, and the weights."""
    torch.manual_seed(0)
    method = AST(config)
    method.build()
    g = torch.Generator().manual_seed(1)
    maps = torch.randn(5, method.channels, method.side, method.side, generator=g)
    losses = (method._train_small if small else method._train_general)(
        maps, torch.rand(5, 1, *maps.shape[2:], generator=g), show=False
    )
    return losses, method._networks().state_dict()


def test_a_training_ends_as_the_plain_one_and_repeats_to_the_byte(config):
    losses, weights = trained(config, True)
    plain, plain_weights = trained(config, False)
    for found, wanted in zip(losses, plain, strict=True):
        assert len(found) == len(wanted) >= 3 and wanted[-1] < wanted[0]
        assert found == pytest.approx(wanted, rel=2e-3)
    assert list(weights) == list(plain_weights)
    assert all(value.shape == plain_weights[name].shape for name, value in weights.items())
    again, same = trained(config, True)
    assert again == losses and all(torch.equal(value, same[name]) for name, value in weights.items())


def test_large_maps_are_trained_by_the_general_step(config):
    assert AST(config)._is_small(5)
    assert not AST(replace(config, ast_student_hidden=4096))._is_small(5)
    assert not AST(replace(config, compiled=True))._is_small(5)


# ------------------------------------------------------------------ M3DM's feature fusion


@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_the_fusions_step_leaves_the_plain_gradients(temperature):
    torch.manual_seed(5)
    plain = FeatureFusion(9, 14)
    for norm in (plain.rgb[0], plain.xyz[0]):
        nn.init.normal_(norm.weight, 1, 0.5)
        nn.init.normal_(norm.bias)
    fusion = copy.deepcopy(plain)
    step = FusionStep(fusion, temperature)
    for number, patches in ((0, 40), (1, 40), (2, 7)):
        g = torch.Generator().manual_seed(number)
        batch = [3 * torch.randn(patches, width, generator=g) + 1 for width in (9, 14)]
        batch[0][3] = 0  # a patch without a feature
        plain.zero_grad()
        wanted = plain.loss(*batch, temperature)
        wanted.backward()
        assert step(*batch).item() == pytest.approx(wanted.item(), rel=1e-5)
        assert_equal_gradients(fusion, plain)
    step.weights.release()
    for (name, p), q in zip(plain.state_dict().items(), fusion.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


def test_a_training_of_the_fusion_ends_as_the_plain_one(monkeypatch):
    config = Config.preset("smoke", overrides={"m3dm_steps": 30})
    g = torch.Generator().manual_seed(6)
    latent = [torch.randn(60, 5, generator=g) for _ in range(6)]
    rgb, xyz = ([z @ mix for z in latent] for mix in torch.randn(2, 5, 16, generator=g))
    model, history = m3dm.train_fusion(rgb, xyz, config, Place.of(config))
    monkeypatch.setattr(m3dm, "SMALL", 0)
    plain, wanted = m3dm.train_fusion(rgb, xyz, config, Place.of(config))
    assert wanted[-1]["contrast"] < wanted[0]["contrast"]
    assert [entry["contrast"] for entry in history] == pytest.approx([entry["contrast"] for entry in wanted], rel=1e-4)
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True))
