"""DepthGAN, DepthAE and DepthVM: the first MVTec 3D-AD benchmark's methods on depth images with colour.

Source, sizes and most departures: `mafr.baselines.parts.mvtec_benchmark`. A depth image holds each pixel's Euclidean
distance to the camera's centre, 0 where there is no point; the three colour channels are appended. f-AnoGAN and the
autoencoder see 256 x 256 pixels in the full profile (f-AnoGAN with two more blocks than published, for 256 pixels
instead of 64), the variation model all pixels in every profile. Maps go back to the image's size bilinearly.

Departures, beside those:
- the camera's centre is the clouds' origin, as in MVTec 3D-AD; preprocessed clouds of Eyecandies have another origin;
- depths are scaled to [-1, 1] by the training samples' range, invalid pixels to its near end; colours to [-1, 1];
- images are turned around their middle, to the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mafr.baselines.parts.descent import Source
from mafr.baselines.parts.inputs import DepthRange, distance, shrink, turn_images
from mafr.baselines.parts.mvtec_benchmark import AutoencoderModel, GanModel, Sizes, VariationModel, random_angles
from mafr.baselines.parts.raw import ImageMethod
from mafr.data.samples import Sample

CHANNELS = 4  # depth and colour


def turned(images: Tensor, chosen: list[int], generator: torch.Generator) -> Tensor:
    """Some of the images (N, C, S, S), each turned by a random angle."""
    return turn_images(images[chosen], random_angles(len(chosen), generator))


class DepthMethod(ImageMethod):
    """Depth images with colour, (4, side, side) in [-1, 1]."""

    geometry = "range"
    colour, shape = slice(1, None), slice(0, 1)
    model_type: ClassVar[type[VariationModel] | type[AutoencoderModel] | type[GanModel]]

    def new_model(self) -> nn.Module:
        whole = self.config.image_size if self.model_type is VariationModel else None
        return self.model_type(Sizes.of(self.config, "depth", 2, CHANNELS, self.model_type is GanModel, whole))

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
        return self.model.learn(Source(len(images), partial(turned, images), self.place.device))

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
