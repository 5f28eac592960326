"""Methods whose model sees the samples' own images and points: batches, gradient descent, maps, saved geometry."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.device import send
from mafr.errors import MafrError
from mafr.fast.weights import FlatWeights
from mafr.features.sources.splits import Split
from mafr.memory import keep_freed_memory
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.scoring import image_score, smooth, upsample

RECORDED = 10  # means of losses kept of a training


@dataclass(frozen=True)
class Source:
    """The training samples of a model."""

    count: int
    draw: Callable[[list[int], torch.Generator], Tensor]  # makes a batch of the samples with these numbers
    device: torch.device | None = None  # where batches are needed
    empty: float | None = None  # the share of empty voxels, None for images

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
            yield laid_out(send(self.draw(chosen, generator), self.device))


T = TypeVar("T", Tensor, nn.Module)


def laid_out(x: T) -> T:
    """A batch, or a network, as a training takes it: on the CPU images with the channels last.

    There the small convolutions take a tenth to a third less time so; those of voxel grids do not.
    """
    tensors = [x] if isinstance(x, Tensor) else list(x.parameters())
    images = max((tensor.dim() for tensor in tensors), default=0) == 4
    if not images or tensors[0].device.type != "cpu":
        return x
    return x.to(memory_format=torch.channels_last)


def steps_for(samples: int, epochs: int, batch: int, min_steps: int) -> int:
    """Steps of a training: that many passes over the samples, or `min_steps` if that is more (MAFR's own rule)."""
    return max(epochs * math.ceil(samples / batch), min_steps)


def descend(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    batches: Iterator[Tensor],
    steps: int,
    optimiser_of: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> list[float]:
    """Minimise `loss_of` on `steps` batches; the losses.

    optimiser_of: from a list of parameters to their optimiser, which must treat each value alone.
    """
    model.train()
    losses, weights = [], FlatWeights(model)
    optimiser = optimiser_of([weights.vector])
    for x in islice(batches, steps):
        loss = loss_of(x)
        weights.zero()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    weights.release()
    laid_out(model)
    return torch.stack(losses).tolist()


def recorded(losses: list[float], name: str = "total") -> list[dict[str, float]]:
    """A training's losses as some means, in order. Raises MafrError if one is not finite."""
    if not all(math.isfinite(loss) for loss in losses):
        raise MafrError("the loss of a training is not finite; lower its learning rate")
    size = math.ceil(len(losses) / RECORDED)
    return [{name: sum(part) / len(part)} for part in (losses[k : k + size] for k in range(0, len(losses), size))]


class RawMethod(Method):
    """A model and the geometry of its inputs, found on the training samples.

    Subclasses have `new_model()`; `look(sample)`, the part of a sample that inputs are made of; `learn(samples)`, which
    sets the geometry, trains the model and returns the history, reading every sample once; and the geometry as
    `numbers()`, with the inverse `set_geometry(*numbers)`.
    """

    reads = ()
    geometry: ClassVar[str]  # the name of its numbers in saved detectors

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        keep_freed_memory()
        self.model = laid_out(self.new_model().to(self.place.device))
        self.history = self.learn(split.sample(k) for k in bar(indices, what="reading samples", show=show))
        # As a loaded one lies in memory, so that both give the same bits.
        self.model.eval().to(memory_format=torch.contiguous_format)

    def looks_and_view(self, samples: Iterator[Sample]) -> tuple[list, DepthAxis]:
        """`look` of every sample, and the camera that they were seen by."""
        looks = []

        def read() -> Iterator[Sample]:
            for sample in samples:
                looks.append(self.look(sample))
                yield sample

        view = DepthAxis.fit(read())
        return looks, view

    def prediction(self, psi_rgb: Tensor | None, psi_xyz: Tensor | None, psi: Tensor) -> Prediction:
        """Of maps (1, 1, S, S): psi is blurred, its maximum is the image score."""
        psi = smooth(psi, self.config.blur, self.config.sigma)
        return Prediction.of(psi_rgb, psi_xyz, psi, image_score(psi, "max").item())

    def state(self) -> dict[str, Tensor]:
        numbers = torch.tensor(self.numbers(), dtype=torch.float64)
        return {self.geometry: numbers} | nn.ModuleDict({"model": self.model}).state_dict()

    def restore(self, state: dict[str, Tensor]) -> None:
        self.model = self.new_model().to(self.place.device)
        weights = {name: value for name, value in state.items() if name != self.geometry}
        nn.ModuleDict({"model": self.model}).load_state_dict(weights)
        self.model.eval()
        self.set_geometry(*state[self.geometry].tolist())


class ImageMethod(RawMethod):
    """A method whose model scores images (B, C, side, side), whose channels show `colour` and `shape`.

    Subclasses have `image(*look)`, one of them; the last item of a look is (side, side) bool, which cells have a point.
    """

    colour: ClassVar[slice]
    shape: ClassVar[slice]

    def score(self, split: Split, k: int) -> Prediction:
        sample = split.sample(k)
        look = self.look(sample)
        residuals = self.model.residuals(self.image(*look)[None].to(self.place.device)).cpu()
        cells, mask = look[-1][None, None], torch.from_numpy(sample.valid)[None]
        maps = []
        for channels in (self.colour, self.shape, slice(None)):
            total = self.model.total(residuals[:, channels])
            maps.append(upsample(total, cells, self.config.image_size) * mask)
        return self.prediction(*maps)
