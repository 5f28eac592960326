"""The training step of AST's student on small maps on a CPU: products by torch, the rest by compiled loops.

Equal to `student_network` and the mean `distance` with automatic gradients, which serve every size and place, up to the
rounding of float32 (tests/baselines/test_small_steps.py). Maps are rows of cells, (B · H · W, C).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mafr.baselines.parts.student import ResidualBlock
from mafr.fast.convolution import Convolution, arrange
from mafr.fast.loops import batch_norm
from mafr.fast.weights import FlatWeights


class StudentStep:
    """A student's training steps on maps of height x width cells.

    Until `weights.release` its parameters are parts of `weights.vector`, whose gradient a step writes.
    """

    def __init__(self, network: nn.Sequential, height: int, width: int) -> None:
        arrange(network)
        self.weights = FlatWeights(network)
        first, self.bend, *blocks, last = network
        self.first, self.last = Convolution(first, height, width), Convolution(last, height, width)
        self.blocks = [_Block(block, height, width) for block in blocks]

    @torch.no_grad()
    def __call__(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """The mean distance for inputs (P, K), targets (P, C), weight (P,); gradients take the place of earlier ones.

        Running means and variances of the network's batch norms move on, as in its own training mode.
        """
        x = entered = self.bend(self.first.forward(x))
        for block in self.blocks:
            x = block.forward(x)
        g = self.last.forward(x).sub_(target)
        loss = (weight * g.square().mean(dim=1)).mean()
        g = self.last.backward(g.mul_((weight * (2 / g.numel()))[:, None]))
        for block in reversed(self.blocks):
            g = block.backward(g)
        self.first.backward(torch.where(entered > 0, g, g * self.bend.negative_slope), wanted=None)
        return loss


class _Block:
    def __init__(self, block: ResidualBlock, height: int, width: int) -> None:
        first, norm, bend, second, other_norm, other_bend = block.layers
        self.convolutions = [Convolution(layer, height, width) for layer in (first, second)]
        self.norms = [_Norm(norm, bend), _Norm(other_norm, other_bend)]

    def forward(self, x: Tensor) -> Tensor:
        """(P, W) -> (P, W)."""
        h = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = norm.forward(convolution.forward(h))
        return x + h

    def backward(self, g: Tensor) -> Tensor:
        """The gradient of the output -> that of the input."""
        h = g.clone()
        for convolution, norm in zip(reversed(self.convolutions), reversed(self.norms), strict=True):
            h = convolution.backward(norm.backward(h))
        return h.add_(g)


class _Norm:
    """Batch norm in training and leaky ReLU."""

    def __init__(self, norm: nn.BatchNorm2d, bend: nn.LeakyReLU) -> None:
        self.norm, self.eps, self.slope = norm, np.float32(norm.eps), np.float32(bend.negative_slope)
        self.gamma, self.beta = (p.detach().numpy() for p in (norm.weight, norm.bias))
        self.d_gamma, self.d_beta = norm.weight.grad.numpy(), norm.bias.grad.numpy()
        self.inverse = np.empty_like(self.gamma)

    def forward(self, h: Tensor) -> Tensor:
        """(P, W) -> (P, W); overwrites h."""
        mean, variance, norm, rows = torch.empty(h.shape[1]), torch.empty(h.shape[1]), self.norm, len(h)
        self.h, self.out = h.numpy(), torch.empty_like(h)
        batch_norm.normalise(
            self.h, self.gamma, self.beta, self.eps, self.slope, self.inverse, mean.numpy(), variance.numpy(),
            self.out.numpy(),
        )  # fmt: skip
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance.mul_(rows / (rows - 1)), norm.momentum)
        norm.num_batches_tracked += 1
        return self.out

    def backward(self, g: Tensor) -> Tensor:
        """In place."""
        batch_norm.normalise_back(
            g.numpy(), self.h, self.out.numpy(), self.gamma, self.slope, self.inverse, self.d_gamma, self.d_beta
        )
        return g
