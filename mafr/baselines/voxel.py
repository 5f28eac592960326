"""VoxelGAN, VoxelAE and VoxelVM: the first MVTec 3D-AD benchmark's methods on voxel grids with colour.

Source, sizes and most departures: `mafr.baselines.parts.mvtec_benchmark`. A grid of 64 x 64 x 64 voxels is centred on
the bounding box of all training samples; a voxel holds the mean colour, in [0, 1], of its points, and (-1, -1, -1)
where it has none. Occupied and empty voxels weigh alike in the autoencoder's loss, by the share of empty voxels in the
training set. Full profile: the published 64³; f-AnoGAN's and the autoencoder's layers in three dimensions. The
variation model's grid has 64³ voxels in every profile.

Departures, beside those:
- widths (32, half of f-AnoGAN's in two dimensions) are our reading;
- clouds are turned around the line through the cube's centre along the viewing axis (`mafr.data.camera.View`); points
  that leave the cube are dropped;
- a pixel gets the score of the voxel that its point is in (of the nearest one outside the cube), where the paper
  projects the voxels' scores with the camera's calibration; most voxels are empty in all samples, which is why the
  variation model needs `voxel_floor`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mafr.baselines.parts.descent import Source
from mafr.baselines.parts.inputs import Frame, turn_points
from mafr.baselines.parts.mvtec_benchmark import AutoencoderModel, GanModel, Sizes, VariationModel, random_angles
from mafr.baselines.parts.raw import RawMethod
from mafr.data.samples import Sample
from mafr.features.sources.splits import Split
from mafr.method import Prediction

CHANNELS = 3
PUBLISHED_SIDE = 64
Clouds = Sequence[tuple[np.ndarray, np.ndarray]]  # points (n, 3) and colours (n, 3) of each sample


def turned(clouds: Clouds, frame: Frame, axis: int, chosen: list[int], generator: torch.Generator) -> Tensor:
    """Grids (B, 3, side, side, side) of some clouds, each turned around an axis by a random angle."""
    grids = []
    for k, angle in zip(chosen, random_angles(len(chosen), generator).tolist(), strict=True):
        points, colours = clouds[k]
        grids.append(frame.grid(turn_points(points, angle, axis, frame.middle), colours))
    return torch.from_numpy(np.stack(grids))


def empty_share(clouds: Clouds, frame: Frame) -> float:
    """The share of voxels without a point."""
    filled = sum(np.count_nonzero(np.bincount(frame.cells(points)[0])) for points, _ in clouds)
    return 1 - filled / (len(clouds) * frame.side**3)


class VoxelMethod(RawMethod):
    """Voxel grids with colour, (3, side, side, side)."""

    geometry = "frame"
    model_type: ClassVar[type[VariationModel] | type[AutoencoderModel] | type[GanModel]]

    def new_model(self) -> nn.Module:
        side = PUBLISHED_SIDE if self.model_type is VariationModel else None
        return self.model_type(Sizes.of(self.config, "voxel", 3, CHANNELS, self.model_type is GanModel, side))

    def look(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Valid points (n, 3), row by row of the image, and their colours (n, 3); contiguous by column."""
        valid = sample.valid[0]
        return sample.xyz[:, valid].T, sample.rgb[:, valid].T

    def learn(self, samples: Iterator[Sample]) -> list[dict[str, float]]:
        clouds, view = self.looks_and_view(samples)
        self.frame = Frame.around((points for points, _ in clouds), self.model.sizes.side)
        draw, empty = partial(turned, clouds, self.frame, view.axis), empty_share(clouds, self.frame)
        return self.model.learn(Source(len(clouds), draw, self.place.device, empty))

    def score(self, split: Split, k: int) -> Prediction:
        sample = split.sample(k)
        points, colours = self.look(sample)
        grid = torch.from_numpy(self.frame.grid(points, colours))[None].to(self.place.device)
        voxels = self.model.total(self.model.residuals(grid)).flatten().cpu()
        cells, _ = self.frame.cells(points)
        psi = torch.zeros(1, 1, *sample.valid.shape[1:])
        psi[torch.from_numpy(sample.valid)[None]] = voxels[torch.from_numpy(cells)]
        return self.prediction(None, None, psi)

    def numbers(self) -> list[float]:
        return [*self.frame.low, self.frame.edge]

    def set_geometry(self, *numbers: float) -> None:
        *low, edge = numbers
        self.frame = Frame(tuple(low), edge, self.model.sizes.side)


class VoxelGAN(VoxelMethod):
    """f-AnoGAN on voxel grids with colour."""

    name = "voxelgan"
    model_type = GanModel


class VoxelAE(VoxelMethod):
    """A convolutional autoencoder on voxel grids with colour."""

    name = "voxelae"
    model_type = AutoencoderModel


class VoxelVM(VoxelMethod):
    """A variation model on voxel grids with colour: mean and standard deviation of every voxel."""

    name = "voxelvm"
    model_type = VariationModel
