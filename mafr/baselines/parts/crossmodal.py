"""CFM's mapping from one modality's features to the other's, on tokens: equal to the MLP on dense maps.

The first layer commutes with interpolation, so it is applied to whichever are fewer, tokens or pixels; the rest is
computed on parts of the valid pixels, which bounds memory. A loss's gradients are summed part by part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.features.interpolation import Rows

ROWS = {"cpu": 2**13, "cuda": 2**16}  # pixels whose hidden values exist at a time
COSINE_EPS = 1e-6  # smallest length that is divided by (authors' code)


class Mapping(nn.Module):
    """One direction: features (…, C) of one modality to (…, D) of the other."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = (inputs + outputs) // 2
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.rest(self.first(features))

    def rest(self, hidden: Tensor) -> Tensor:
        """What follows the first layer."""
        return self.last(F.gelu(self.second(F.gelu(hidden))))


@dataclass(frozen=True)
class Modality:
    """Tokens (T, C) and their interpolation to P pixels."""

    tokens: Tensor
    rows: Rows

    @classmethod
    def join(cls, parts: Sequence[Modality]) -> Modality:
        """The tokens and pixels of several samples, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([part.tokens for part in parts]), Rows.stack([part.rows for part in parts]))

    def features(self, start: int, end: int) -> Tensor:
        """The features of some pixels, (p, C)."""
        return self.rows.part(start, end).apply(self.tokens)


def similarity(mapped: Tensor, wanted: Tensor) -> Tensor:
    """Cosine similarity of rows, (p, D) twice -> (p,)."""
    # The division by the lengths comes last: torch's own function makes unit vectors of both, which takes longer.
    lengths = mapped.norm(dim=1).clamp_min(COSINE_EPS) * wanted.norm(dim=1).clamp_min(COSINE_EPS)
    return (mapped * wanted).sum(dim=1) / lengths


def backward(mapping: Mapping, source: Modality, target: Modality, pixels: int) -> Tensor:
    """Add some samples' share of a direction's loss to the gradients and return it; `pixels`: of the whole batch."""
    total = torch.zeros((), device=source.tokens.device)
    for hidden, wanted in _parts(mapping, source, target):
        loss = (1 - similarity(mapping.rest(hidden), wanted)).sum() / pixels
        loss.backward()
        total += loss.detach()
    return total


def distances(mapping: Mapping, source: Modality, target: Modality) -> Tensor:
    """Euclidean distances of mapped and observed features, both brought to unit length: (P,)."""
    parts = _parts(mapping, source, target)
    return torch.cat([(F.normalize(mapping.rest(h)) - F.normalize(wanted)).norm(dim=1) for h, wanted in parts])


def _parts(mapping: Mapping, source: Modality, target: Modality) -> Iterator[tuple[Tensor, Tensor]]:
    """Of some pixels at a time: the first layer's output (p, H) and the observed features (p, D).

    Where the first layer is applied to the tokens, its gradient is computed after the last part.
    """
    pixels, step = len(source.rows), ROWS[source.tokens.device.type]
    early = len(source.tokens) < pixels
    if early:
        tokens = F.linear(source.tokens, mapping.first.weight)
        leaf = Modality(tokens.detach().requires_grad_(tokens.requires_grad), source.rows)
    for start in range(0, pixels, step):
        end = min(start + step, pixels)
        pixel = (leaf if early else source).features(start, end)
        hidden = pixel + mapping.first.bias if early else mapping.first(pixel)
        yield hidden, target.features(start, end)
    if early and tokens.requires_grad:
        tokens.backward(leaf.tokens.grad)
