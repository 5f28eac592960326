"""The training step of the flow on small maps on a CPU: products by torch, what lies between them by compiled loops.

Equal to `Flow` and `likelihood_loss` with automatic gradients, which serve every size and place, up to the rounding of
float32 (tests/baselines/test_small_steps.py). Maps are rows of cells, (B · H · W, C).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mafr.baselines.parts.flow import Coupling, Flow, Subnet
from mafr.fast.convolution import Convolution, arrange, rows_of
from mafr.fast.loops import coupling as loops
from mafr.fast.weights import FlatWeights


class FlowStep:
    """A flow's outputs and training steps on maps of one size, under one condition (1, K, H, W) for all samples.

    Until `weights.release` the flow's parameters are parts of `weights.vector`, whose gradient a step writes.
    """

    def __init__(self, flow: Flow, condition: Tensor) -> None:
        arrange(flow)
        self.weights, self.channels = FlatWeights(flow), flow.orders.shape[1]
        positions = rows_of(condition).numpy()
        numbered = zip(flow.orders.numpy(), flow.blocks, strict=True)
        self.blocks = [_Coupling(block, order, positions, *condition.shape[2:]) for order, block in numbered]

    @torch.no_grad()
    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (P, C) -> z (P, C) and the log-determinant of each cell (P,)."""
        total = x.new_zeros(len(x))
        for block in self.blocks:
            x = block.forward(x, total)
        return x, total

    @torch.no_grad()
    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """The likelihood loss of x (P, C) with weight (P,); gradients take the place of earlier ones."""
        z, total = self.outputs(x)
        loss = (weight * (0.5 * z.square().sum(dim=1) - total)).mean()
        push = weight / len(x)
        g: Tensor | None = z.mul_(push[:, None])
        for block in reversed(self.blocks):
            g = block.backward(g, push.numpy(), whole=block is not self.blocks[0])
        return loss


class _Subnet:
    def __init__(self, subnet: Subnet, height: int, width: int) -> None:
        self.enter, self.leave = (Convolution(layer, height, width) for layer in (subnet.enter, subnet.leave))
        self.gamma, self.d_gamma = subnet.gamma.detach().numpy(), subnet.gamma.grad.numpy()

    def forward(self, x: Tensor) -> Tensor:
        """(P, inputs) -> the outputs before the factor gamma."""
        self.hidden = self.enter.forward(x).relu_()
        return self.leave.forward(self.hidden)

    def backward(self, g: Tensor, wanted: slice | None) -> Tensor | None:
        """The gradient of the inputs `wanted`."""
        inner = self.leave.backward(g).masked_fill_(self.hidden == 0, 0.0)
        return self.enter.backward(inner, wanted)


class _Coupling:
    """A block, the permutation before it included."""

    def __init__(self, block: Coupling, order: np.ndarray, positions: np.ndarray, height: int, width: int) -> None:
        self.left, self.right = block.halves
        self.order, self.positions = order, positions
        self.straight, self.nothing = np.arange(self.left), np.empty((1, 0), dtype=np.float32)
        self.from_right, self.from_left = (
            _Subnet(net, height, width) for net in (block.from_right, block.from_left)
        )  # fmt: skip
        self.clamp = np.float32(block.clamp)

    def forward(self, x: Tensor, logdet: Tensor) -> Tensor:
        """x (P, C) -> y (P, C); the log-determinant is added to logdet (P,)."""
        rows, known = len(x), self.positions.shape[1]
        self.half = x.new_empty(rows, self.left)  # the left half before, alone
        self.inputs = [x.new_empty(rows, width + known) for width in (self.right, self.left)]  # of the two subnets
        self.scales = [x.new_empty(rows, width) for width in (self.left, self.right)]
        y = torch.empty_like(x)
        loops.take(x.numpy(), self.order[: self.left], self.nothing, self.half.numpy())
        loops.take(x.numpy(), self.order[self.left :], self.positions, self.inputs[0].numpy())
        self.raw = [self._transform(self.from_right, 0, self.half, y, 0, logdet)]
        loops.take(y.numpy(), self.straight, self.positions, self.inputs[1].numpy())
        self.raw.append(self._transform(self.from_left, 1, self.inputs[0], y, self.left, logdet))
        return y

    def _transform(self, net: _Subnet, k: int, half: Tensor, y: Tensor, first: int, logdet: Tensor) -> Tensor:
        raw = net.forward(self.inputs[k])
        loops.couple(
            raw.numpy(), net.gamma[0], self.clamp, half.numpy(), self.scales[k].numpy(), y.numpy(), first,
            logdet.numpy(),
        )  # fmt: skip
        return raw

    def backward(self, g: Tensor, push: np.ndarray, whole: bool) -> Tensor | None:
        """The gradient of x (P, C), from that of y, which is overwritten; nothing unless `whole`.

        push (P,): minus the gradient of the log-determinant.
        """
        right, d_left = self._back(self.from_left, 1, self.inputs[0], g, self.left, push, slice(self.left))
        g[:, : self.left] += d_left
        left, d_right = self._back(
            self.from_right, 0, self.half, g, 0, push, slice(self.right) if whole else None
        )  # fmt: skip
        del self.half, self.inputs, self.scales, self.raw
        if not whole:
            return None
        out = torch.empty_like(g)
        loops.put(left.numpy(), right.add_(d_right).numpy(), self.order, out.numpy())
        return out

    def _back(
        self, net: _Subnet, k: int, half: Tensor, g: Tensor, first: int, push: np.ndarray, wanted: slice | None
    ) -> tuple[Tensor, Tensor | None]:
        raw, scale = self.raw[k], self.scales[k]
        d_raw, d_half = torch.empty_like(raw), torch.empty_like(scale)
        net.d_gamma[0] = loops.couple_back(
            g.numpy(), first, push, raw.numpy(), net.gamma[0], self.clamp, half.numpy(), scale.numpy(),
            d_raw.numpy(), d_half.numpy(),
        )  # fmt: skip
        return d_half, net.backward(d_raw, wanted)
