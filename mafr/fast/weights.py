"""A model's weights as one vector: the optimiser's step is then one operation, not one for every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ALIGNED = 16  # values; a weight's first begins a cache line


class FlatWeights:
    """The weights of `model` become views of `vector`, and their gradients views of its gradient.

    A weight whose dimensions lie in another order in memory, without gaps, keeps that order until `release`.
    Whoever computes gradients adds to them in place; `zero` comes before a step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())
        starts, size = [], 0
        for p in self.parameters:
            starts.append(size)
            size += -(-p.numel() // _ALIGNED) * _ALIGNED
        first = self.parameters[0]
        self.vector = nn.Parameter(torch.zeros(size, dtype=first.dtype, device=first.device))
        self.vector.grad = torch.zeros_like(self.vector)
        for p, start in zip(self.parameters, starts, strict=True):
            view = self._view(self.vector.data, p, start)
            view.copy_(p.data)
            p.data, p.grad = view, self._view(self.vector.grad, p, start)

    def zero(self) -> None:
        """Set all gradients to zero."""
        self.vector.grad.zero_()

    def release(self) -> None:
        """Give the model weights of its own again, without gradients."""
        for p in self.parameters:
            p.data, p.grad = p.data.clone(memory_format=torch.contiguous_format), None

    @staticmethod
    def _view(vector: Tensor, p: Tensor, start: int) -> Tensor:
        return vector[start : start + p.numel()].as_strided(p.shape, p.stride())
