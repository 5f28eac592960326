"""The training step of M3DM's feature fusion on few patches of a CPU: products by torch, the rest by compiled loops.

It equals `FeatureFusion.loss` with automatic gradients, which serves every size and place, up to the rounding of
float32 (tests/baselines/test_small_steps.py).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mafr.baselines.parts.feature_fusion import FeatureFusion
from mafr.fast.loops import contrast, cosine, sparse
from mafr.fast.weights import FlatWeights

_LEAST = np.float32(1e-12)  # the smallest length that is divided by, as in `torch.nn.functional.normalize`


class FusionStep:
    """A feature fusion's training step.

    Until `weights.release` its parameters are parts of `weights.vector`, whose gradient a step writes.
    """

    def __init__(self, model: FeatureFusion, temperature: float) -> None:
        self.weights, self.temperature = FlatWeights(model), temperature
        self.ways = [_Way(model.rgb, model.rgb_head), _Way(model.xyz, model.xyz_head)]

    @torch.no_grad()
    def __call__(self, rgb: Tensor, xyz: Tensor) -> Tensor:
        """The loss of P patches, (P, C) and (P, D) float32; gradients take the place of earlier ones."""
        queries, keys = (way.forward(x) for way, x in zip(self.ways, (rgb, xyz), strict=True))
        similar = torch.mm(queries, keys.T)
        total = contrast.cross_entropy(
            similar.numpy(), np.float32(1 / self.temperature), np.float32(2 / len(queries))
        )
        for way, g in zip(self.ways, (torch.mm(similar, keys), torch.mm(similar.T, queries)), strict=True):
            way.backward(g)
        return torch.tensor(total * 2 * self.temperature / len(queries), dtype=torch.float32)


class _Way:
    """One modality: LayerNorm, two linear layers with GELU between, the head, unit rows."""

    def __init__(self, projection: nn.Sequential, head: nn.Linear) -> None:
        norm, enter, _, leave = projection
        self.eps = np.float32(norm.eps)
        self.gamma, self.beta = (p.detach().numpy() for p in (norm.weight, norm.bias))
        self.d_gamma, self.d_beta = norm.weight.grad.numpy(), norm.bias.grad.numpy()
        self.enter, self.leave, self.head = (_Linear(layer) for layer in (enter, leave, head))

    def forward(self, x: Tensor) -> Tensor:
        """(P, C) -> (P, W), rows of length 1."""
        self.normed, self.scaled = torch.empty_like(x), torch.empty_like(x)
        contrast.normalise(x.numpy(), self.gamma, self.beta, self.eps, self.normed.numpy(), self.scaled.numpy())
        self.hidden = self.enter.forward(self.scaled)
        self.slope, self.length = np.empty(self.hidden.shape, np.float32), np.empty(len(x), np.float32)
        cosine.gelu(self.hidden.numpy(), self.slope)
        self.projected = self.leave.forward(self.hidden)
        self.out = self.head.forward(self.projected)
        contrast.unit(self.out.numpy(), _LEAST, self.length)
        return self.out

    def backward(self, g: Tensor) -> None:
        """g (P, W): the gradient of `forward`'s result; overwritten."""
        contrast.unit_back(g.numpy(), self.out.numpy(), _LEAST, self.length)
        g = self.leave.backward(self.hidden, self.head.backward(self.projected, g))
        enter = self.enter
        enter.d_bias.fill(0)
        cosine.gelu_back(g.numpy(), self.slope, enter.d_bias)
        torch.mm(g.T, self.normed, out=enter.d_weight)
        contrast.normalise_back(
            enter.weight.numpy(), enter.d_bias, self.gamma, self.beta, enter.d_weight.numpy(), self.d_gamma, self.d_beta
        )


class _Linear:
    """A linear layer's weight and bias, and their gradients."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.d_weight, self.d_bias = layer.weight.grad, layer.bias.grad.numpy()

    def forward(self, x: Tensor) -> Tensor:
        """(P, K) -> (P, N)."""
        return torch.addmm(self.bias, x, self.weight.T)

    def backward(self, x: Tensor, g: Tensor) -> Tensor:
        """Take the gradient of the output (P, N); return that of the input x (P, K)."""
        torch.mm(g.T, x, out=self.d_weight)
        self.d_bias.fill(0)
        sparse.add_columns(g.numpy(), self.d_bias)
        return torch.mm(g, self.weight)
