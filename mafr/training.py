"""Training the head on the stored features of good samples (Sec. IV-A)."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mafr.config import Config
from mafr.errors import MafrError
from mafr.losses import CompositeLoss
from mafr.model import MAFR
from mafr.paths import write_atomically
from mafr.progress import bar

CHECKPOINT_SECONDS = 30.0
CACHE_BYTES = 512 * 2**20  # dense features up to this size are kept in memory between epochs


class Features(Protocol):
    """What training and scoring need of a feature store."""

    def __len__(self) -> int: ...

    def dense(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(e_rgb (B, C2, g, g), e_xyz (B, C3, g, g), valid (B, 1, g, g) bool)."""
        ...


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Limit torch to `count` threads inside the block (0: leave it alone)."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def epochs_for(config: Config, samples: int) -> int:
    """Epochs of a training on `samples` samples: the configured ones, or more to reach `min_steps`."""
    return max(config.epochs, math.ceil(config.min_steps / samples))


def fit(
    config: Config,
    features: Features,
    indices: Sequence[int],
    checkpoint: Path | None = None,
    show: bool = False,
) -> tuple[MAFR, list[dict[str, float]]]:
    """Train a new head on `indices` of `features`: (model in eval mode, mean losses of each epoch).

    Adam, batch 1, shuffled anew each epoch. Weights, order and dropout follow from `config.seed` alone.
    With `checkpoint`, the state is written there about every half minute, and a training that finds one
    goes on from it to exactly the same result. Raises MafrError if a loss is not finite.
    """
    if not len(indices):
        raise MafrError("training needs at least one sample")
    with torch_threads(config.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = MAFR.from_config(config)
        optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
        loss = CompositeLoss(config)
        history: list[dict[str, float]] = []
        if checkpoint is not None and checkpoint.exists():
            history = _resume(checkpoint, model, optimiser)
        samples = _Cache(features, indices)
        epochs, saved = epochs_for(config, len(indices)), time.monotonic()
        model.train()
        remaining = range(len(history), epochs)
        for epoch in bar(remaining, what="training") if show else remaining:
            history.append(_epoch(config, model, optimiser, loss, samples, epoch))
            if not math.isfinite(history[-1]["total"]):
                raise MafrError(f"the loss became {history[-1]['total']} in epoch {epoch + 1}; lower learning_rate")
            if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(checkpoint, model, optimiser, history)
                saved = time.monotonic()
    return model.eval(), history


def _epoch(config, model, optimiser, loss, samples: _Cache, epoch: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    samples.begin(epoch)
    sums: dict[str, Tensor] = {}
    for k in torch.randperm(len(samples), generator=generator).tolist():
        e_rgb, e_xyz, valid = samples[k]
        e_rgb_hat, e_xyz_hat = model(e_rgb, e_xyz, valid if config.valid_only else None)
        total, terms = loss(e_rgb, e_rgb_hat, e_xyz, e_xyz_hat, valid)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        for name, value in {"total": total.detach(), **terms}.items():
            sums[name] = sums[name] + value if name in sums else value.clone()
    return {name: value.item() / len(samples) for name, value in sums.items()}


class _Cache:
    """Dense features of the chosen samples, kept when they are small enough."""

    def __init__(self, features: Features, indices: Sequence[int]) -> None:
        self.features, self.indices = features, list(indices)
        self.kept: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.keep = False
        self.live = getattr(features, "live", False)
        if not self.live:  # features that change at every access must not be kept
            size = sum(tensor.numel() * tensor.element_size() for tensor in self[0])
            self.keep = len(self.indices) * size <= CACHE_BYTES

    def begin(self, epoch: int) -> None:
        """Features that are drawn anew follow from the epoch, so that a resumed training sees the same."""
        if self.live:
            self.features.seek(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        if k in self.kept:
            return self.kept[k]
        sample = self.features.dense([self.indices[k]])
        if self.keep:
            self.kept[k] = sample
        return sample


def _save(path: Path, model: MAFR, optimiser: torch.optim.Optimizer, history: list) -> None:
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "history": history,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _resume(path: Path, model: MAFR, optimiser: torch.optim.Optimizer) -> list[dict[str, float]]:
    try:
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise MafrError(f"{path}: this checkpoint cannot be read ({reason}); delete it to begin anew") from error
    return list(state["history"])
