"""Methods whose model sees the samples' own images and points, not the features of frozen backbones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mafr.data.camera import View
from mafr.data.samples import Sample
from mafr.features.sources.splits import Split
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.scoring import image_score, smooth, upsample


class RawMethod(Method):
    """A model and the geometry of its inputs, found on the training samples.

    Subclasses have `new_model()`; `look(sample)`, the part of a sample that inputs are made of; `learn(samples)`, which
    sets the geometry, trains the model and returns the history, reading every sample once; and the geometry as
    `numbers()`, with the inverse `set_geometry(*numbers)`.
    """

    reads = ()
    geometry: ClassVar[str]  # the name of its numbers in saved detectors

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        self.model = self.new_model().to(self.place.device)
        self.history = self.learn(split.sample(k) for k in bar(indices, what="reading samples", show=show))
        self.model.eval()

    def looks_and_view(self, samples: Iterator[Sample]) -> tuple[list, View]:
        """`look` of every sample, and the camera that they were seen by."""
        looks = []

        def read() -> Iterator[Sample]:
            for sample in samples:
                looks.append(self.look(sample))
                yield sample

        view = View.fit(read())
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
