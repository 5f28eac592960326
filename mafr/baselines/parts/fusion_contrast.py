"""M3DM's unsupervised feature fusion (UFF): two projections, trained to agree by patch-wise contrastive learning.

Wang et al., CVPR 2023 (see `mafr.baselines.m3dm`), Sec. 3.2, and the authors' code (models/feature_fusion.py and
fusion_pretrain.py). A modality's projection is a LayerNorm and a two-layer GELU network with four times the feature's
width; for the loss alone, a fully connected layer brings both to one width. The features of one patch in the two
modalities are a positive pair, all other patches of the batch the negatives. The fused feature is both projections
side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mafr.config import Config
from mafr.device import Place, send
from mafr.errors import MafrError
from mafr.parallel.progress import bar

HIDDEN_RATIO = 4  # hidden width of a projection, in widths of its feature
HEAD_WIDTH, PUBLISHED_WIDTH = 256, 768 + 1152  # of the space of the loss; of both published features together
WARM_UP = 250 / 750  # share of the steps in which the learning rate rises
BETAS = (0.9, 0.95)
ENTRIES = 10  # of the history
ROWS = 4096  # rows of the similarity matrix that exist at a time; beyond, they are computed twice


class FeatureFusion(nn.Module):
    """The projections of both modalities and the layers to the space of the loss."""

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


def train_fusion(
    rgb: Sequence[Tensor], xyz: Sequence[Tensor], config: Config, place: Place, show: bool = False
) -> tuple[FeatureFusion, list[dict[str, float]]]:
    """Train the fusion on the patches of good samples: (module in eval mode, the loss along the way).

    rgb, xyz: for each sample (P_k, C) and (P_k, D), row p of both at the same place. A step takes `m3dm_batch` samples
    and of each `m3dm_patches` patches. Weights and draws follow from `config.seed`. Raises MafrError if the loss is not
    finite.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = FeatureFusion(rgb[0].shape[1], xyz[0].shape[1]).to(place.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.m3dm_rate, betas=BETAS, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, config.m3dm_steps))
    every, recent, history = max(1, config.m3dm_steps // ENTRIES), [], []
    for step in bar(range(1, config.m3dm_steps + 1), what="training the fusion", show=show):
        batch = _draw(rgb, xyz, config, generator)
        with torch.autocast(place.device.type, torch.bfloat16, enabled=place.half):
            loss = model.loss(*(send(part, place.device) for part in batch), config.m3dm_temperature)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        recent.append(loss.detach())
        if step % every == 0 or step == config.m3dm_steps:
            mean = torch.stack(recent).mean().item()
            if not math.isfinite(mean):
                raise MafrError(f"the contrastive loss became {mean} by step {step}; lower m3dm_rate")
            history.append({"step": step, "contrast": mean})
            recent = []
    return model.eval(), history


def rate(step: int, steps: int) -> float:
    """The learning rate of a step as a share of the highest: a linear rise, then half a cosine down to zero."""
    rise = WARM_UP * steps
    if step < rise:
        return (step + 1) / (math.floor(rise) + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def _draw(
    rgb: Sequence[Tensor], xyz: Sequence[Tensor], config: Config, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paired patches of a step, (P, C) and (P, D)."""
    chosen = torch.randperm(len(rgb), generator=generator)[: config.m3dm_batch].tolist()
    rows = {k: torch.randperm(len(rgb[k]), generator=generator)[: config.m3dm_patches] for k in chosen}
    return tuple(torch.cat([features[k][rows[k]] for k in chosen]) for features in (rgb, xyz))
