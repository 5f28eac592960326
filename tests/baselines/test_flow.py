"""The normalising flow: its inverse and its log-determinant against autograd, its clamp, the positional encoding."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from mafr.baselines.parts.flow import Coupling, Flow, Subnet, likelihood_loss, positional_encoding
from mafr.errors import ConfigError


def trained_flow(channels: int = 5, condition: int = 4) -> Flow:
    """A small flow in double precision that is far from a permutation, an odd number of channels."""
    torch.manual_seed(3)
    flow = Flow(channels, condition, hidden=6, kernels=(3, 3, 5), clamp=1.9).double()
    for name, parameter in flow.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.constant_(parameter, 1.5)
    return flow


def test_the_inverse_undoes_the_flow():
    flow, g = trained_flow(), torch.Generator().manual_seed(0)
    x = 3 * torch.randn(2, 5, 4, 3, generator=g, dtype=torch.float64)
    condition = torch.randn(2, 4, 4, 3, generator=g, dtype=torch.float64)
    z, _ = flow(x, condition)
    assert (z - x).abs().max() > 0.5
    torch.testing.assert_close(flow.inverse(z, condition), x, rtol=0, atol=1e-10)
    torch.testing.assert_close(flow(flow.inverse(x, condition), condition)[0], x, rtol=0, atol=1e-10)


def test_the_log_determinant_is_that_of_autograds_jacobian():
    flow, g = trained_flow(), torch.Generator().manual_seed(1)
    x = torch.randn(1, 5, 3, 4, generator=g, dtype=torch.float64)
    condition = torch.randn(1, 4, 3, 4, generator=g, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v, condition)[0], x).reshape(60, 60)
    sign, expected = torch.linalg.slogdet(jacobian)
    logdet = flow(x, condition)[1]
    assert logdet.shape == (1, 3, 4) and abs(expected) > 1
    torch.testing.assert_close(logdet.sum(), expected, rtol=1e-10, atol=1e-10)
    assert abs(sign) == 1


def test_the_flow_sees_its_condition_and_begins_as_a_permutation():
    flow = trained_flow()
    x, condition = torch.ones(1, 5, 3, 3).double(), torch.zeros(1, 4, 3, 3).double()
    assert not torch.equal(flow(x, condition)[0], flow(x, condition + 1)[0])
    x = torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 2, 2)
    z, logdet = Flow(5, 4, 6, (3, 3), 1.9)(x, torch.zeros(1, 4, 2, 2))
    assert sorted(z[0, :, 0, 0].tolist()) == [0, 1, 2, 3, 4] and not logdet.any()


def test_scales_stay_within_the_clamp():
    coupling = Coupling(4, 4, hidden=3, kernel=3, clamp=1.9)
    for subnet in (coupling.from_left, coupling.from_right):
        torch.nn.init.constant_(subnet.gamma, 1e4)
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    _, logdet = coupling(x, torch.zeros(1, 4, 5, 5))
    assert logdet.abs().max() <= 4 * 1.9 and logdet.abs().max() > 1.9


def test_the_loss_is_the_negative_log_likelihood_on_the_foreground():
    flow, g = trained_flow(), torch.Generator().manual_seed(4)
    x = torch.randn(2, 5, 3, 3, generator=g, dtype=torch.float64)
    condition = torch.randn(2, 4, 3, 3, generator=g, dtype=torch.float64)
    weight = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 2] = weight[1, 0, 0, 0] = 1
    z, logdet = flow(x, condition)
    normal = MultivariateNormal(torch.zeros(5).double(), torch.eye(5).double())
    total = 2 * 2.5 * math.log(2 * math.pi)
    for k, i, j in ((0, 1, 2), (1, 0, 0)):
        total = total + normal.log_prob(z[k, :, i, j]) + logdet[k, i, j]
    assert likelihood_loss(z, logdet, weight).item() == pytest.approx(-total.item() / 18, rel=1e-12)


def test_training_by_the_loss_whitens_the_data():
    torch.manual_seed(5)
    flow = Flow(4, 4, hidden=16, kernels=(3, 3), clamp=1.9)
    condition = positional_encoding(4, 4, 4)
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.01)

    def draw() -> torch.Tensor:
        x = torch.randn(16, 4, 4, 4)
        x[:, 1] = 0.8 * x[:, 0] + 0.3 * x[:, 1]
        x[:, 2] = 2.5 * x[:, 2] + 1.5
        return x

    def excess(maps: torch.Tensor) -> float:
        rows = maps.transpose(0, 1).flatten(1)
        return float(torch.cat([torch.cov(rows) - torch.eye(4), rows.mean(dim=1)[None]]).abs().max())

    for _ in range(200):
        optimiser.zero_grad()
        likelihood_loss(*flow(draw(), condition), torch.ones(16, 1, 4, 4)).backward()
        optimiser.step()
    x = torch.cat([draw() for _ in range(20)])
    z = flow(x, condition)[0].detach()
    assert excess(z) < 0.25 < 3 < excess(x)


def test_a_subnet_replicates_edges_and_begins_at_zero():
    subnet, x = Subnet(2, 3, 4, 5), torch.full((1, 2, 6, 7), 0.3)
    assert not subnet(x).any()
    torch.nn.init.constant_(subnet.gamma, 0.7)
    assert (subnet(x).std(dim=(2, 3)) < 1e-6).all() and subnet(x).any()  # zeros beyond the edges would show
    with pytest.raises(ConfigError, match="odd"):
        Subnet(5, 8, 6, 4)


def test_the_positional_encoding_is_the_formula():
    encoding = positional_encoding(8, 3, 5)
    assert encoding.shape == (1, 8, 3, 5)
    for row in range(3):
        for column in range(5):
            expected = [
                f(place * 1e4 ** (-2 * k / 4)) for place in (column, row) for k in (0, 1) for f in (math.sin, math.cos)
            ]
            assert encoding[0, :, row, column].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ConfigError, match="multiple of 4"):
        positional_encoding(6, 3, 5)
