"""DepthGAN, DepthAE, DepthVM, VoxelGAN, VoxelAE, VoxelVM: the methods of the first MVTec 3D-AD benchmark, with colour.

Bergmann et al., "The MVTec 3D-AD Dataset" (VISAPP 2022), Sec. 4; the rows "3D + RGB", which are those that Table I
cites. The models are those of `parts.benchmark_models`: f-AnoGAN, an autoencoder, a variation model. Each training
sample is seen in 20 copies, turned by up to 5 degrees; the image score is the largest value of the map.
- A depth image holds each pixel's Euclidean distance to the camera's centre, 0 where there is no point; the three
  colour channels are appended. f-AnoGAN and the autoencoder see 256 x 256 pixels, the variation model all of them.
  Maps go back to the image's size bilinearly.
- A grid of 64 x 64 x 64 voxels is centred on the bounding box of all training samples; a voxel holds the mean colour,
  in [0, 1], of its points, and (-1, -1, -1) where it has none. Occupied and empty voxels weigh alike in the
  autoencoder's loss, by the share of empty voxels in the training set.

Full profile: the published sides and 20 copies; f-AnoGAN's layers, optimisers, rates and weights as in its authors'
code (for images its widths and two more blocks, for 256 pixels instead of 64); the autoencoder after Bergmann et al.
(VISAPP 2019) with its rate of 2e-4 and weight decay of 1e-5; both in three dimensions for voxels.
Smaller profiles: side, width and latent size are the full ones divided by one power of two, chosen by a run's seconds
alone: 4 for the autoencoder, 8 for the GAN. With 2 copies of a sample as many passes as MAFR's (of the critic, and of
the encoder), and its learning rate of 1e-3; batches of 4. The variation model is
not made smaller, except for the copies: its grid has 64³ voxels in every profile.

Departures, or what the paper leaves to an appendix that we did not have:
- the latent size 512, 50 epochs, batches of 8, the autoencoder's layers and the widths for voxels (32, half of
  f-AnoGAN's in two dimensions) are our reading, not the published table;
- clouds are preprocessed as for MAFR: no table around the part, and 224 x 224 pixels instead of the raw size. The
  benchmark's own protocol also scores at the raw size, as its evaluation script asks for maps of the masks' size;
  BTF, M3DM and CFM score at 224 x 224 pixels, and so is everything here;
- the camera's centre is the clouds' origin, as in MVTec 3D-AD; preprocessed clouds of Eyecandies have another origin;
- depths are scaled to [-1, 1] by the training samples' range, invalid pixels to its near end; colours to [-1, 1];
- images turn around their middle (nearest pixel), clouds around the line through the cube's centre along the viewing
  axis (`mafr.data.depth_axis`), by a new angle each time, since preprocessing removes the background plane whose
  normal the paper turns around; points that leave the cube are dropped;
- a pixel gets the score of the voxel that its point is in (of the nearest one outside the cube), where the paper
  projects the voxels' scores with the camera's calibration;
- the variation model divides by a standard deviation of at least `depth_floor`, some 5 of 255 grey values, or
  `voxel_floor`: most voxels are empty in all samples;
- pixels without a 3D point score zero and maps are blurred, as MAFR's are;
- everything is computed in float32, whatever the setting `precision`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mafr.baselines.parts.benchmark_models import AutoencoderModel, GanModel, Sizes, VariationModel
from mafr.baselines.parts.inputs import DepthRange, Frame, distance, shrink, turn_images
from mafr.baselines.parts.raw import ImageMethod, RawMethod, Source
from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.features.sources.splits import Split
from mafr.method import Prediction

TURN = 5.0  # degrees: training samples are turned by at most this around the viewing axis (Sec. 4)
GRID_SIDE = 64  # voxels, published
Clouds = Sequence[tuple[np.ndarray, np.ndarray]]  # points (n, 3) and colours (n, 3) of each sample


def random_angles(count: int, generator: torch.Generator) -> Tensor:
    """(count,) radians, uniform within `TURN` degrees to either side."""
    return torch.deg2rad((2 * torch.rand(count, generator=generator) - 1) * TURN)


def turned_images(images: Tensor, chosen: list[int], generator: torch.Generator) -> Tensor:
    """Some of the images (N, C, S, S), each turned by a random angle."""
    return turn_images(images[chosen], random_angles(len(chosen), generator))


def turned_grids(
    clouds: Clouds, frame: Frame, view: DepthAxis, chosen: list[int], generator: torch.Generator
) -> Tensor:
    """Grids (B, 3, side, side, side) of some clouds, each turned around the viewing axis by a random angle."""
    grids = []
    for k, angle in zip(chosen, random_angles(len(chosen), generator).tolist(), strict=True):
        points, colours = clouds[k]
        grids.append(frame.turned_grid(points, colours, angle, view))
    return torch.from_numpy(np.stack(grids))


def empty_share(clouds: Clouds, frame: Frame) -> float:
    """The share of voxels without a point."""
    filled = sum(np.count_nonzero(np.bincount(frame.cells(points)[0])) for points, _ in clouds)
    return 1 - filled / (len(clouds) * frame.side**3)


class DepthMethod(ImageMethod):
    """Depth images with colour, (4, side, side) in [-1, 1]."""

    geometry = "range"
    colour, shape = slice(1, None), slice(0, 1)
    model_type: ClassVar[type[nn.Module]]

    def new_model(self) -> nn.Module:
        whole = self.config.image_size if self.model_type is VariationModel else None
        return self.model_type(Sizes.of(self.config, "depth", 2, 4, self.model_type is GanModel, whole))

    def look(self, sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
        """Depth (side, side) in metres, colour (3, side, side) in [0, 1], and which cells have a point."""
        side = self.model.sizes.side
        depth, cells = shrink(distance(sample.xyz)[None], sample.valid[0], side)
        colour, _ = shrink(sample.rgb, np.ones_like(sample.valid[0]), side)
        return depth[0], colour, cells

    def image(self, depth: Tensor, colour: Tensor, cells: Tensor) -> Tensor:
        scaled = torch.from_numpy(self.range.stretch(depth.numpy())) * cells
        return torch.cat([scaled[None], colour]) * 2 - 1

    def learn(self, samples: Iterator[Sample]) -> list[dict[str, float]]:
        looks = [self.look(sample) for sample in samples]
        self.range = DepthRange.of(depth.numpy() for depth, *_ in looks)
        images = torch.stack([self.image(*look) for look in looks])
        return self.model.learn(Source(len(images), partial(turned_images, images), self.place.device))

    def numbers(self) -> list[float]:
        return [self.range.near, self.range.far]

    def set_geometry(self, near: float, far: float) -> None:
        self.range = DepthRange(near, far)


class DepthGAN(DepthMethod):
    """f-AnoGAN on depth images with colour."""

    name = "depthgan"
    model_type = GanModel


class DepthAE(DepthMethod):
    """A convolutional autoencoder on depth images with colour."""

    name = "depthae"
    model_type = AutoencoderModel


class DepthVM(DepthMethod):
    """A variation model on depth images with colour: mean and standard deviation of every pixel."""

    name = "depthvm"
    model_type = VariationModel


class VoxelMethod(RawMethod):
    """Voxel grids with colour, (3, side, side, side)."""

    geometry = "frame"
    model_type: ClassVar[type[nn.Module]]

    def new_model(self) -> nn.Module:
        side = GRID_SIDE if self.model_type is VariationModel else None
        return self.model_type(Sizes.of(self.config, "voxel", 3, 3, self.model_type is GanModel, side))

    def look(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Valid points (n, 3), row by row of the image, and their colours (n, 3); contiguous by column."""
        valid = sample.valid[0]
        return sample.xyz[:, valid].T, sample.rgb[:, valid].T

    def learn(self, samples: Iterator[Sample]) -> list[dict[str, float]]:
        clouds, view = self.looks_and_view(samples)
        self.frame = Frame.around((points for points, _ in clouds), self.model.sizes.side)
        draw, empty = partial(turned_grids, clouds, self.frame, view), empty_share(clouds, self.frame)
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
