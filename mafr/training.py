"""Training of the head on the features of good samples (Sec. IV-A), which are prepared ahead.

The head is `mafr.model.MAFR` and its loss that of `mafr.losses`, both computed by `mafr.fast`.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from mafr.config import Config
from mafr.device import Place, computing, own_randomness
from mafr.errors import MafrError
from mafr.fast.layers import Dropout
from mafr.fast.restorer import Restorer, Scene, open_scene
from mafr.fast.weights import FlatWeights
from mafr.features.sources.splits import Split
from mafr.features.sources.store import FeatureStore
from mafr.model import MAFR
from mafr.parallel.progress import bar
from mafr.paths import write_atomically

CHECKPOINT_SECONDS = 30.0
CACHE_BYTES = 512 * 2**20  # prepared samples are kept between epochs if all of them fit in this,
GPU_SHARE = 0.25  # or, by the size of the first, in this share of a GPU's free memory
AHEAD = {"cpu": 1, "cuda": 3}  # samples prepared while the head is trained on another, each by a thread


def epochs_for(config: Config, samples: int) -> int:
    """Epochs of a training on `samples` samples: `config.epochs`, or more to reach `config.min_steps`."""
    return max(config.epochs, math.ceil(config.min_steps / math.ceil(samples / config.samples_a_step)))


def fit(
    config: Config,
    features: Split | FeatureStore,
    indices: Sequence[int],
    checkpoint: Path | None = None,
    show: bool = False,
    held_out: tuple[Split | FeatureStore, Sequence[int]] | None = None,
) -> tuple[MAFR, list[dict[str, float]]]:
    """Train a new head on `indices` of `features`: (model in eval mode, mean losses of each epoch).

    held_out: good samples that are not trained on. With the setting `patience` they decide when to stop and which
    epoch's weights are returned; their loss is "held_out" in the history.

    Adam, with `samples_a_step` samples per step in a new order each epoch. Weights, order and dropout follow from
    `config.seed` alone. The state is saved to `checkpoint` about every half minute; a training that finds one resumes
    from it with exactly the same result. Raises MafrError if a loss is not finite.
    """
    if not len(indices):
        raise MafrError("training needs at least one sample")
    place = Place.of(config)
    with computing(config), own_randomness(place):
        torch.manual_seed(config.seed)
        model = MAFR.from_config(config).to(place.device)
        weights = FlatWeights(model)
        optimiser = torch.optim.Adam([weights.vector], lr=config.learning_rate, fused=True)
        restorer = Restorer(model, config, place)
        history, best = [], None
        if checkpoint is not None and checkpoint.exists():
            history, best = _resume(checkpoint, model, optimiser)
        epochs, saved = epochs_for(config, len(indices)), time.monotonic()
        model.train()

        def opened(source: Split | FeatureStore, chosen: Sequence[int]) -> Scenes:
            def make(k: int) -> Scene:
                return open_scene(source.tokens([chosen[k]]), config, place, every_pixel=not config.valid_only)

            return Scenes(make, len(chosen), place, source, losses=config)

        with ExitStack() as open_now:
            scenes = open_now.enter_context(opened(features, indices))
            judge = None
            if config.patience and held_out is not None and len(held_out[1]):
                judge = HeldOut(config, restorer, weights, open_now.enter_context(opened(*held_out)), best)
            remaining = range(len(history), epochs)
            for epoch in bar(remaining, what="training") if show else remaining:
                if judge is not None and judge.has_stopped(history):
                    break
                last = epoch + 1 == epochs
                history.append(_epoch(config, restorer, weights, optimiser, scenes, epoch, epochs, last))
                if not math.isfinite(history[-1]["total"]):
                    raise MafrError(f"the loss became {history[-1]['total']} in epoch {epoch + 1}; lower learning_rate")
                if judge is not None:
                    history[-1]["held_out"] = held = judge.loss(history)
                    if not math.isfinite(held):
                        raise MafrError(
                            f"the loss on held-out samples became {held} in epoch {epoch + 1}; lower learning_rate"
                        )
                if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    _save(checkpoint, model, optimiser, history, judge.best if judge is not None else None)
                    saved = time.monotonic()
            if judge is not None:
                judge.take_best()
        weights.release()
    return model.eval(), history


def _epoch(
    config: Config, restorer: Restorer, weights: FlatWeights, optimiser: torch.optim.Optimizer, scenes: Scenes,
    epoch: int, epochs: int, last: bool,
) -> dict[str, float]:  # fmt: skip
    order = shuffled(config, epoch, len(scenes))
    opened = enumerate(scenes.walk(order, epoch, () if last else shuffled(config, epoch + 1, len(scenes))))
    sums: dict[str, Tensor] = {}
    for first in range(0, len(order), config.samples_a_step):
        together = min(config.samples_a_step, len(order) - first)
        weights.zero()
        if config.schedule == "cosine":
            done = (epoch + first / len(order)) / epochs
            optimiser.param_groups[0]["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        # One after the other: at full size one sample fills a GPU.
        for number, scene in islice(opened, together):
            terms = restorer.step(scene, Dropout(config.dropout, (config.seed, epoch, number)))
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        if together > 1:
            weights.vector.grad.mul_(1 / together)
        optimiser.step()
    # One transfer per epoch: the loop itself waits for no result of the device.
    means = {name: value.item() / len(scenes) for name, value in sums.items()}
    return {"total": sum(config.loss_weights[name] * value for name, value in means.items()), **means}


class HeldOut:
    """The loss on good samples that are not trained on, and the weights of the epoch where it was lowest."""

    def __init__(
        self, config: Config, restorer: Restorer, weights: FlatWeights, scenes: Scenes, best: Tensor | None = None
    ) -> None:
        """best: the weights found so far, of a training that resumes."""
        self.config, self.restorer, self.weights, self.scenes, self.best = config, restorer, weights, scenes, best

    def loss(self, history: Sequence[Mapping[str, float]]) -> float:
        """Eq. 6 now, without dropout: the mean over the samples; history: with the earlier epochs' "held_out"."""
        total, weight = 0.0, self.config.loss_weights
        for scene in self.scenes.walk(range(len(self.scenes)), 0):
            terms = self.restorer.step(scene, Dropout(0.0, (self.config.seed,)))  # whose gradients no step takes
            total += sum(weight[name] * value.item() for name, value in terms.items())
        found = total / len(self.scenes)
        if all(found < one["held_out"] for one in history[:-1]):
            self.best = self.weights.vector.detach().clone()
        return found

    def has_stopped(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether the lowest loss is `patience` epochs old."""
        losses = [one["held_out"] for one in history]
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= self.config.patience

    def take_best(self) -> None:
        """Give the model the weights of the lowest loss."""
        if self.best is not None:
            self.weights.vector.data.copy_(self.best)


def shuffled(config: Config, epoch: int, samples: int) -> list[int]:
    """The order in which an epoch sees the samples."""
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    return torch.randperm(samples, generator=generator).tolist()


class Scenes:
    """Samples prepared for training: kept when they are small enough, else a few ahead of the training."""

    def __init__(
        self, make: Callable[[int], Scene], count: int, place: Place, features: Split | FeatureStore, batch: int = 1,
        losses: Config | None = None,
    ) -> None:  # fmt: skip
        """make: prepares one of `count` samples of `features`, in one of several threads; batch: samples per step.

        losses: settings of the losses whose share of the original features alone is kept too, if there is room.
        """
        self.make, self.count, self.features = make, count, features
        self.live = features.live
        self.kept: dict[int, Scene] = {}
        self.keep = self.remember = False
        if not self.live:  # features that change at every access must not be kept
            first, room = make(0), cache_bytes(place) / count
            self.keep = first.nbytes <= room
            self.remember = losses is not None and first.nbytes + first.bytes_remembered(losses) <= room
        threads = 1 if self.live else AHEAD[place.device.type]
        self.depth = threads * batch
        self.coming: dict[int, Future[Scene]] = {}
        self.ahead = ThreadPoolExecutor(threads)

    def __enter__(self) -> Scenes:
        return self

    def __exit__(self, *_: object) -> None:
        self.ahead.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return self.count

    def walk(self, order: Sequence[int], epoch: int, following: Sequence[int] = ()) -> Iterator[Scene]:
        """The samples in this order, prepared while the caller works on others; following: the next epoch's order."""
        if self.live:  # draws follow from the epoch, so that a resumed training sees the same ones
            self.features.seek(epoch)
            following = ()
        queue = [*order, *following]
        for position, k in enumerate(order):
            for wanted in queue[position : position + 1 + self.depth]:
                if wanted not in self.coming and wanted not in self.kept:  # a thread's turn costs more than it saves
                    self.coming[wanted] = self.ahead.submit(self._get, wanted)
            yield self.coming.pop(k).result() if k in self.coming else self.kept[k]

    def _get(self, k: int) -> Scene:
        scene = replace(self.make(k), remember=self.remember)
        if self.keep:
            self.kept[k] = scene
        return scene


def cache_bytes(place: Place) -> float:
    """Bytes of prepared samples that a training keeps at a place."""
    if place.device.type != "cuda":
        return CACHE_BYTES
    unused = torch.cuda.memory_reserved(place.device) - torch.cuda.memory_allocated(place.device)  # torch's own
    return max(CACHE_BYTES, GPU_SHARE * (torch.cuda.mem_get_info(place.device)[0] + unused))


def _save(
    path: Path, model: MAFR, optimiser: torch.optim.Optimizer, history: list, best: Tensor | None = None
) -> None:
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "history": history, "best": best}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _resume(path: Path, model: MAFR, optimiser: torch.optim.Optimizer) -> tuple[list, Tensor | None]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except FileNotFoundError:  # another worker has just finished the same run
        return [], None
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise MafrError(f"{path}: this checkpoint cannot be read ({reason}); delete it to start again") from error
    return list(state["history"]), state.get("best")
