"""RGB-D and RGB-cD-n, the Eyecandies paper's autoencoders: colour and depth; colour, clamped depth and normals.

Bonfiglioli et al., "The Eyecandies Dataset for Unsupervised Multimodal Anomaly Detection and Localization" (ACCV 2022):
a convolutional autoencoder restores a stack of channels. Depth is "D" over the camera's whole range, "cD" clamped to
the range of the part, "n" the surface normals. Layers, loss (mean absolute error), optimiser, augmentation and score
are those of the authors' public code (github.com/eyecan-ai/eyecandies): the heatmap is the largest absolute residual
over the channels, the image score its maximum.

Full profile: the settings of that code. Smaller profiles: side, width and latent size are a quarter of these, a power
of two that the seconds of a run decided; batches of 8; as many epochs as MAFR.

Departures, or what is not known:
- by its authors, the code is an example that does not repeat the paper's numbers; it takes colour alone, and their
  leaderboard calls the paper's model of colour alone an SSIM autoencoder: the paper's own loss may differ;
- that "c" means clamped, and to which range, is our reading: to the nearest and farthest point of the training samples;
  "D" is divided by the farthest depth;
- their recipe reads the colours of `image_0`, one of the data set's six lightings; here they are those of `image_4`, as
  for MAFR, CFM and M3DM, so that all methods see the same image;
- depth is computed from the preprocessed cloud, in which the belt is removed; there both depth and normals are 0;
- normals come from the cloud, not from the data set's rendered normal maps: `Sample` has none. Defects that only
  change the rendered normals are thus invisible to RGB-cD-n;
- channels turn, shift and scale together (the values of the normals are not turned); edges are repeated instead of
  filled with zeros, pixels are not interpolated; colour jitter on the colours alone, its hue turned in YIQ;
- the score is not cut off at 1; pixels without a 3D point score zero and maps are blurred, as MAFR's are;
- everything is computed in float32, whatever the setting `precision`.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.baselines.parts.inputs import DepthRange, normals, shrink, turn_images
from mafr.baselines.parts.raw import ImageMethod, Source, descend, recorded, steps_for
from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.errors import ConfigError

COLOURS = 3
BLOCKS = 4  # of the encoder and of the decoder
OFTEN = 0.9  # probability of each of the two augmentations; the other values are theirs too
SHIFT, SCALE, TURN, JITTER, HUE = 0.05, 0.1, 45.0, 0.2, 0.2
# Luma and chroma of the NTSC standard.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class CandyAutoencoder(nn.Module):
    """The autoencoder of the authors' code: (B, channels, side, side) -> the same.

    Four blocks of two 3 x 3 convolutions with batch normalisation and GELU, the second with stride 2, a linear
    bottleneck of `latent` values, and four blocks of doubling and two convolutions. As there, the last block ends in
    batch normalisation and GELU too.
    """

    def __init__(self, channels: int, side: int, width: int, latent: int) -> None:
        super().__init__()
        if side % 2**BLOCKS:
            raise ConfigError(f"rgbd_side must be a multiple of {2**BLOCKS}, not {side}")
        widths = [width * 2**k for k in range(BLOCKS)]
        inner = side // 2**BLOCKS
        shape = (widths[-1], inner, inner)
        values = math.prod(shape)
        self.encoder = nn.Sequential(*(_block(a, b, b, 2) for a, b in pairwise([channels, *widths])))
        self.bottleneck = nn.Sequential(
            nn.Flatten(), nn.Linear(values, latent), nn.Linear(latent, values), nn.Unflatten(1, shape)
        )
        decoder = []
        for a, b in pairwise([*widths[::-1], channels]):
            decoder += [nn.Upsample(scale_factor=2), _block(a, a, b, 1)]
        self.decoder = nn.Sequential(*decoder)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.bottleneck(self.encoder(x)))

    def residuals(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> absolute residual, (B, C, S, S)."""
        return (x - self(x)).abs()

    def total(self, residuals: Tensor) -> Tensor:
        """The largest over the channels: (B, C, S, S) -> (B, 1, S, S)."""
        return residuals.amax(dim=1, keepdim=True)


def _block(inputs: int, inner: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, inner, 3, padding=1), nn.BatchNorm2d(inner), nn.GELU(),
        nn.Conv2d(inner, outputs, 3, padding=1, stride=stride), nn.BatchNorm2d(outputs), nn.GELU(),
    )  # fmt: skip


class CandyMethod(ImageMethod):
    """Stacks of channels in [0, 1]: colour, depth and, for RGB-cD-n, normals."""

    geometry = "view"
    colour, shape = slice(COLOURS), slice(COLOURS, None)
    clamped: ClassVar[bool]  # depth is clamped to the part's range, and normals are appended

    def new_model(self) -> nn.Module:
        config, channels = self.config, COLOURS + (4 if self.clamped else 1)
        return CandyAutoencoder(channels, config.rgbd_side, config.rgbd_width, config.rgbd_latent)

    def look(self, sample: Sample) -> tuple[Tensor, ...]:
        """Colour, mean points, mean normals (3, side, side) each, and which cells have a point."""
        side, valid = self.config.rgbd_side, sample.valid[0]
        colour, _ = shrink(sample.rgb, np.ones_like(valid), side)
        xyz, cells = shrink(sample.xyz, valid, side)
        if not self.clamped:
            return colour, xyz, cells
        return colour, xyz, shrink(normals(sample.xyz), valid, side)[0], cells

    def image(self, colour: Tensor, xyz: Tensor, *rest: Tensor) -> Tensor:
        depth = self.view.depth(xyz.numpy())  # linear in the points, so the mean point has the mean depth
        if not self.clamped:
            return torch.cat([colour, torch.from_numpy(self.range.whole(depth))[None]])
        normal, cells = rest
        stretched = torch.from_numpy(self.range.stretch(depth, clamp=True))[None]
        return torch.cat([colour, stretched, (normal + 1) / 2 * cells])

    def learn(self, samples: Iterator[Sample]) -> list[dict[str, float]]:
        config = self.config
        looks, self.view = self.looks_and_view(samples)
        self.range = DepthRange.of(self.view.depth(xyz.numpy()) for _, xyz, *_ in looks)
        images = torch.stack([self.image(*look) for look in looks])
        source = Source(len(images), lambda chosen, generator: augment(images[chosen], generator), self.place.device)
        walk = source.batches(config.rgbd_batch, config.seed)
        steps = steps_for(len(images) * config.rgbd_repeat, config.rgbd_epochs, config.rgbd_batch, config.min_steps)
        adam = partial(torch.optim.Adam, lr=config.rgbd_learning_rate, fused=True)
        return recorded(descend(self.model, lambda x: F.l1_loss(self.model(x), x), walk, steps, adam))

    def numbers(self) -> list[float]:
        return [*self.view.numbers, self.range.near, self.range.far]

    def set_geometry(self, *numbers: float) -> None:
        *view, near, far = numbers
        self.view, self.range = DepthAxis.of_numbers(view), DepthRange(near, far)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, scale and turn all channels of (B, C, S, S), jitter the first three; each with probability 0.9."""
    count = len(images)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(count, *shape, generator=generator) - 1

    often = (torch.rand(count, 2, generator=generator) < OFTEN).float()
    angles, scale, shift = torch.deg2rad(TURN * uniform()), 1 + SCALE * uniform(), SHIFT * uniform(2)
    moved = turn_images(images, angles * often[:, 0], shift * often[:, :1], 1 + (scale - 1) * often[:, 0])
    factors, hue = 1 + JITTER * uniform(3) * often[:, 1:], HUE * uniform() * often[:, 1]
    return torch.cat([jitter(moved[:, :COLOURS], *factors.T, hue), moved[:, COLOURS:]], dim=1)


def jitter(rgb: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Change colours (B, 3, S, S) in [0, 1] by factors (B,) and a turn of the hue (B,), 1 being the whole circle."""
    rgb = (rgb * brightness.view(-1, 1, 1, 1)).clamp(0, 1)
    grey = (rgb * YIQ[0].view(1, 3, 1, 1)).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    rgb = (grey + (rgb - grey) * contrast.view(-1, 1, 1, 1)).clamp(0, 1)
    cos, sin = (saturation * f(2 * torch.pi * hue) for f in (torch.cos, torch.sin))
    turn = torch.zeros(len(rgb), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, -sin, sin, cos
    matrix = torch.linalg.inv(YIQ) @ turn @ YIQ
    return torch.einsum("bij,bjhw->bihw", matrix, rgb).clamp(0, 1)


class RGBD(CandyMethod):
    """Colour and depth over the camera's whole range."""

    name = "rgbd"
    clamped = False


class RGBcDn(CandyMethod):
    """Colour, depth clamped to the part's range, and surface normals."""

    name = "rgbcdn"
    clamped = True
