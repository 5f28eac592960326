"""The training step of the flow on small maps on a CPU: products by torch, what lies between them by compiled loops.

Equal to `Flow` and `likelihood_loss` with automatic gradients, which serve every size and place, up to the rounding of
float32 (tests/baselines/test_small_steps.py). Maps are rows of cells, (B · H · W, C).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mafr.baselines.parts.flow import Coupling, Flow, Subnet
from mafr.fast.convolution import Buffer, Convolution, Scratch, arrange, rows_of
from mafr.fast.loops import coupling as loops
from mafr.fast.loops import shifts
from mafr.fast.weights import FlatWeights

_NOTHING = np.float32(0)  # what ReLU keeps of a negative value


class FlowStep:
    """A flow's outputs and training steps on maps of one size, under one condition (1, K, H, W) for all samples.

    Until `weights.release` the flow's parameters are parts of `weights.vector`, whose gradient a step writes.
    """

    def __init__(self, flow: Flow, condition: Tensor) -> None:
        arrange(flow)
        self.weights, self.scratch, size = FlatWeights(flow), Scratch(), condition.shape[2:]
        positions, orders = rows_of(condition).numpy(), flow.orders.numpy()
        numbered = zip(orders, flow.blocks, strict=True)
        self.blocks = [_Coupling(block, order, positions, size, self.scratch) for order, block in numbered]

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (P, C) -> z (P, C) and the log-determinant of each cell (P,)."""
        z, logdet = self._outputs(x)
        return z.tensor.clone(), torch.from_numpy(logdet)

    @torch.no_grad()
    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """The likelihood loss of x (P, C) with weight (P,); gradients take the place of earlier ones."""
        z, logdet = self._outputs(x)
        g, push = self.scratch("up", *z.array.shape), weight.numpy() / np.float32(len(weight))
        value = loops.likelihood(z.array, logdet, push, g.array)
        for block in reversed(self.blocks):
            block.backward(g, push, whole=block is not self.blocks[0])
        return torch.tensor(value, dtype=torch.float32)

    @torch.no_grad()
    def _outputs(self, x: Tensor) -> tuple[Buffer, np.ndarray]:
        h, logdet = Buffer.of(x), np.zeros(len(x), dtype=np.float32)
        for block in self.blocks:
            h = block.forward(h, logdet)
        return h, logdet


class _Subnet:
    def __init__(self, subnet: Subnet, size: tuple[int, int], scratch: Scratch) -> None:
        self.enter, self.leave = (Convolution(layer, *size, scratch) for layer in (subnet.enter, subnet.leave))
        self.gamma, self.d_gamma = subnet.gamma.detach().numpy(), subnet.gamma.grad.numpy()

    def forward(self, x: Buffer) -> Buffer:
        """(P, inputs) -> the outputs before the factor gamma."""
        self.hidden = self.enter.forward(x)
        shifts.bend(self.hidden.array, _NOTHING, self.hidden.array)
        return self.leave.forward(self.hidden)

    def backward(self, g: Buffer, wanted: int) -> Buffer | None:
        """The gradient of the first `wanted` inputs."""
        inner = self.leave.backward(g)
        shifts.bend_back(inner.array, self.hidden.array, _NOTHING)
        return self.enter.backward(inner, wanted)


class _Coupling:
    """A block, the permutation before it included."""

    def __init__(
        self, block: Coupling, order: np.ndarray, positions: np.ndarray, size: tuple[int, int], scratch: Scratch
    ) -> None:
        self.left, self.right = block.halves
        self.order, self.positions, self.scratch = order, positions, scratch
        self.straight, self.alone = np.arange(self.left), positions[:, :0].copy()
        self.from_right, self.from_left = (_Subnet(net, size, scratch) for net in (block.from_right, block.from_left))
        self.clamp = np.float32(block.clamp)

    def forward(self, x: Buffer, logdet: np.ndarray) -> Buffer:
        """x (P, C) -> y (P, C); the log-determinant is added to logdet (P,)."""
        rows, known = len(logdet), self.positions.shape[1]
        self.half = self.scratch((self, "half"), rows, self.left)  # the left half, before
        self.inputs = [  # of the two subnets
            self.scratch((self, name), rows, width + known)
            for name, width in (("right", self.right), ("left", self.left))
        ]
        self.scales = [
            self.scratch((self, name), rows, width) for name, width in (("first", self.left), ("second", self.right))
        ]
        y = self.scratch("y", rows, self.left + self.right)  # x, unless this is the first block: first taken, then lost
        loops.take(x.array, self.order[: self.left], self.alone, self.half.array)
        loops.take(x.array, self.order[self.left :], self.positions, self.inputs[0].array)
        self.raw = [self._transform(self.from_right, 0, self.half, y, 0, logdet)]
        loops.take(y.array, self.straight, self.positions, self.inputs[1].array)
        self.raw.append(self._transform(self.from_left, 1, self.inputs[0], y, self.left, logdet))
        return y

    def _transform(self, net: _Subnet, k: int, half: Buffer, y: Buffer, first: int, logdet: np.ndarray) -> Buffer:
        raw = net.forward(self.inputs[k])
        scale = self.scales[k].array
        loops.couple(raw.array, net.gamma[0], self.clamp, half.array, scale, y.array, first, logdet)
        return raw

    def backward(self, g: Buffer, push: np.ndarray, whole: bool) -> None:
        """The gradient of y (P, C), in place, becomes that of x if `whole`. push (P,): minus the log-determinant's."""
        right, d_left = self._back(self.from_left, 1, self.inputs[0], g, self.left, push, self.left)
        loops.add_columns(d_left.array, g.array)
        left, d_right = self._back(self.from_right, 0, self.half, g, 0, push, self.right if whole else 0)
        if whole:
            loops.add_columns(d_right.array, right.array)
            loops.put(left.array, right.array, self.order, g.array)

    def _back(
        self, net: _Subnet, k: int, half: Buffer, g: Buffer, first: int, push: np.ndarray, wanted: int
    ) -> tuple[Buffer, Buffer | None]:
        raw, scale = self.raw[k], self.scales[k]
        d_half = self.scratch((k, "half"), *scale.array.shape)
        net.d_gamma[0] = loops.couple_back(
            g.array, first, push, raw.array, net.gamma[0], self.clamp, half.array, scale.array, d_half.array
        )
        return d_half, net.backward(raw, wanted)
