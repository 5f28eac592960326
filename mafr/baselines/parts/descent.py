"""Training on batches without end: their order, the number of steps, gradient descent, the recorded losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from mafr.device import send
from mafr.errors import MafrError

RECORDED = 10  # means of losses kept of a training


@dataclass(frozen=True)
class Source:
    """The training samples of a model.

    draw(indices, generator) makes a batch of some of the `count` samples; device: where batches are needed; empty: the
    share of empty voxels, None for images.
    """

    count: int
    draw: Callable[[list[int], torch.Generator], Tensor]
    device: torch.device | None = None
    empty: float | None = None

    def batches(self, batch: int, seed: int) -> Iterator[Tensor]:
        """Batches without end: every pass in a new order, drawn from `seed`.

        The last samples of a pass that fill no batch go into the next one, so that all batches are equally large;
        only fewer samples than `batch` give smaller ones.
        """
        generator = torch.Generator().manual_seed(seed)
        size, waiting = min(batch, self.count), []
        while True:
            while len(waiting) < size:
                waiting += torch.randperm(self.count, generator=generator).tolist()
            chosen, waiting = waiting[:size], waiting[size:]
            yield send(self.draw(chosen, generator), self.device)


def steps_for(samples: int, epochs: int, batch: int, min_steps: int) -> int:
    """Steps of a training: that many passes over the samples, or `min_steps` if that is more (MAFR's own rule)."""
    return max(epochs * math.ceil(samples / batch), min_steps)


def descend(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    batches: Iterator[Tensor],
    steps: int,
    optimiser: torch.optim.Optimizer,
) -> list[float]:
    """Minimise `loss_of` on `steps` batches; the losses."""
    model.train()
    losses = []
    for x in islice(batches, steps):
        loss = loss_of(x)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def recorded(losses: list[float], name: str = "total") -> list[dict[str, float]]:
    """A training's losses as some means, in order. Raises MafrError if one is not finite."""
    if not all(math.isfinite(loss) for loss in losses):
        raise MafrError("the loss of a training is not finite; lower its learning rate")
    size = math.ceil(len(losses) / RECORDED)
    return [{name: sum(part) / len(part)} for part in (losses[k : k + size] for k in range(0, len(losses), size))]
