"""Unsupervised feature fusion of M3DM (Wang et al., CVPR 2023, Sec. 3.2): two projections and a contrastive loss."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

HIDDEN_RATIO = 4  # hidden width of a projection, in widths of its feature
HEAD_WIDTH, PUBLISHED_WIDTH = 256, 768 + 1152  # of the space of the loss; of both published features together
ROWS = 4096  # rows of the similarity matrix that exist at a time; beyond, they are computed twice


class FeatureFusion(nn.Module):
    """Unsupervised feature fusion (UFF): two projections, trained to agree by patch-wise contrastive learning.

    A modality's projection is a LayerNorm and a two-layer GELU network with four times the feature's width; for the
    loss alone, a fully connected layer brings both to one width. The features of one patch in the two modalities are a
    positive pair, all other patches of the batch the negatives.
    """

    def __init__(self, rgb_dim: int, xyz_dim: int) -> None:
        super().__init__()
        self.rgb, self.xyz = _projection(rgb_dim), _projection(xyz_dim)
        width = round(HEAD_WIDTH * (rgb_dim + xyz_dim) / PUBLISHED_WIDTH)
        self.rgb_head, self.xyz_head = nn.Linear(rgb_dim, width), nn.Linear(xyz_dim, width)

    def forward(self, rgb: Tensor, xyz: Tensor) -> Tensor:
        """The fused features of P patches: (P, C) and (P, D) -> (P, C + D)."""
        return torch.cat([self.rgb(rgb), self.xyz(xyz)], dim=1)

    def loss(self, rgb: Tensor, xyz: Tensor, temperature: float) -> Tensor:
        """The contrastive loss of P patches, each a negative to all others."""
        return info_nce(self.rgb_head(self.rgb(rgb)), self.xyz_head(self.xyz(xyz)), temperature)


def _projection(width: int) -> nn.Sequential:
    hidden = HIDDEN_RATIO * width
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def info_nce(queries: Tensor, keys: Tensor, temperature: float = 1.0) -> Tensor:
    """InfoNCE from queries to keys, (P, W) twice -> scalar; row p of the one belongs to row p of the other.

    Cosine similarities over `temperature`, cross-entropy against the diagonal, mean over patches, times twice the
    temperature as in the authors' code (after MoCo v3). The (P, P) matrix never exists whole if it is large.
    """
    queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    if len(queries) <= ROWS:
        total = _cross_entropy(queries, keys, 0, temperature)
    else:
        recomputed = partial(checkpoint, _cross_entropy, use_reentrant=False, preserve_rng_state=False)
        firsts = range(0, len(queries), ROWS)
        total = sum(recomputed(queries[first : first + ROWS], keys, first, temperature) for first in firsts)
    return total * (2 * temperature / len(queries))


def _cross_entropy(part: Tensor, keys: Tensor, first: int, temperature: float) -> Tensor:
    target = torch.arange(first, first + len(part), device=part.device)
    return F.cross_entropy((part @ keys.T).float() / temperature, target, reduction="sum")
