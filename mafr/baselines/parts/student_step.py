"""The training step of AST's student on small maps on a CPU: products by torch, the rest by compiled loops.

Equal to `student_network` and the mean `distance` with automatic gradients, which serve every size and place, up to the
rounding of float32 (tests/baselines/test_small_steps.py). Maps are rows of cells, (B · H · W, C).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mafr.baselines.parts.student import ResidualBlock
from mafr.fast.convolution import Buffer, Convolution, Scratch, arrange
from mafr.fast.loops import batch_norm, shifts
from mafr.fast.weights import FlatWeights


class StudentStep:
    """A student's training steps on maps of height x width cells.

    Until `weights.release` its parameters are parts of `weights.vector`, whose gradient a step writes.
    """

    def __init__(self, network: nn.Sequential, height: int, width: int) -> None:
        arrange(network)
        self.weights, self.scratch = FlatWeights(network), Scratch()
        first, bend, *blocks, last = network
        self.first, self.last = (Convolution(layer, height, width, self.scratch) for layer in (first, last))
        self.slope, self.blocks = np.float32(bend.negative_slope), [
            _Block(block, height, width, self.scratch) for block in blocks
        ]  # fmt: skip

    @torch.no_grad()
    def __call__(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """The mean distance for inputs (P, K), targets (P, C), weight (P,); gradients take the place of earlier ones.

        Running means and variances of the network's batch norms move on, as in its own training mode.
        """
        entered = h = self.first.forward(Buffer.of(x))
        shifts.bend(h.array, self.slope, h.array)
        for block in self.blocks:
            h = block.forward(h)
        g = self.last.forward(h)
        g.tensor.sub_(target)
        loss = (weight * g.tensor.square().mean(dim=1)).mean()
        g.tensor.mul_((weight * (2 / g.tensor.numel()))[:, None])
        up = self.scratch("up", *h.array.shape)
        up.tensor.copy_(self.last.backward(g).tensor)
        for block in reversed(self.blocks):
            block.backward(up)
        shifts.bend_back(up.array, entered.array, self.slope)
        self.first.backward(up, wanted=0)
        return loss


class _Block:
    def __init__(self, block: ResidualBlock, height: int, width: int, scratch: Scratch) -> None:
        first, norm, bend, second, other_norm, other_bend = block.layers
        self.convolutions = [Convolution(layer, height, width, scratch) for layer in (first, second)]
        self.norms = [_Norm(norm, bend, scratch), _Norm(other_norm, other_bend, scratch)]
        self.scratch = scratch

    def forward(self, x: Buffer) -> Buffer:
        """(P, W) -> (P, W)."""
        h = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = norm.forward(convolution.forward(h))
        out = self.scratch((self, "out"), *x.array.shape)
        torch.add(x.tensor, h.tensor, out=out.tensor)
        return out

    def backward(self, g: Buffer) -> None:
        """The gradient of the output, in place, becomes that of the input."""
        h = self.scratch("branch", *g.array.shape)
        h.tensor.copy_(g.tensor)
        for convolution, norm in zip(reversed(self.convolutions), reversed(self.norms), strict=True):
            norm.backward(h)
            h = convolution.backward(h)
        g.tensor.add_(h.tensor)


class _Norm:
    """Batch norm in training and leaky ReLU."""

    def __init__(self, norm: nn.BatchNorm2d, bend: nn.LeakyReLU, scratch: Scratch) -> None:
        self.norm, self.eps, self.slope = norm, np.float32(norm.eps), np.float32(bend.negative_slope)
        self.gamma, self.beta = (p.detach().numpy() for p in (norm.weight, norm.bias))
        self.d_gamma, self.d_beta = norm.weight.grad.numpy(), norm.bias.grad.numpy()
        self.running = norm.running_mean.numpy(), norm.running_var.numpy(), np.float32(norm.momentum)
        self.inverse, self.scratch = np.empty_like(self.gamma), scratch

    def forward(self, h: Buffer) -> Buffer:
        """(P, W) -> (P, W); overwrites h."""
        self.h, self.out = h, self.scratch((self, "out"), *h.array.shape)
        batch_norm.normalise(
            h.array, self.gamma, self.beta, self.eps, self.slope, self.inverse, *self.running, self.out.array
        )
        self.norm.num_batches_tracked += 1
        return self.out

    def backward(self, g: Buffer) -> None:
        """In place."""
        batch_norm.normalise_back(
            g.array, self.h.array, self.out.array, self.gamma, self.slope, self.inverse, self.d_gamma, self.d_beta
        )
