"""RGB-D and RGB-cD-n, the Eyecandies paper's autoencoders: colour and depth; colour, clamped depth and normals.

Bonfiglioli et al., "The Eyecandies Dataset for Unsupervised Multimodal Anomaly Detection and Localization" (ACCV 2022):
a convolutional autoencoder restores a stack of channels. Depth is "D" over the camera's whole range, "cD" clamped to
the range of the part, "n" the surface normals. Layers, loss (mean absolute error), optimiser, augmentation and score
are those of the authors' public code (github.com/eyecan-ai/eyecandies): the heatmap is the largest absolute residual
over the channels, the image score its maximum.

Full profile: 256 pixels, 32 to 256 channels, 256 latent values, Adam at 1e-3, batches of 64, 10 epochs of the training
set repeated 10 times, as in that code.
Smaller profiles: side, width and latent size are a quarter of these, the power of two with which a run stays at
about ten seconds of one processor; batches of 8; at least `min_steps` steps, as for MAFR.

Departures, or what is not known:
- the authors say that their code is an example and not meant to repeat the paper's numbers; it takes colour alone, and
  their leaderboard calls the paper's model of colour alone an SSIM autoencoder: the paper's own loss may differ;
- that "c" means clamped, and to which range, is our reading: to the nearest and farthest point of the training samples;
  "D" is divided by the farthest depth;
- depth is computed from the preprocessed cloud, in which the belt is removed; there both depth and normals are 0;
- normals come from the cloud, not from the data set's rendered normal maps: `Sample` has none. Defects that only
  change the rendered normals are thus invisible to RGB-cD-n;
- channels turn, shift and scale together (the values of the normals are not turned); edges are repeated instead of
  filled with zeros, pixels are not interpolated; colour jitter on the colours alone, its hue turned in YIQ;
- the score is not cut off at 1; pixels without a 3D point score zero and maps are blurred, as MAFR's are;
- everything is computed in float32, whatever the setting `precision`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.baselines.parts.autoencoder import CandyAutoencoder, batches, descend, recorded, steps_for
from mafr.baselines.parts.inputs import DepthRange, normals, shrink, turn_images
from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.device import send
from mafr.features.sources.splits import Split
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.scoring import image_score, smooth, upsample

COLOURS = 3
OFTEN = 0.9  # probability of each of the two augmentations; the other values are theirs too
SHIFT, SCALE, TURN, JITTER, HUE = 0.05, 0.1, 45.0, 0.2, 0.2
# Luma and chroma of the NTSC standard.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class CandyMethod(Method):
    """What the two have in common: channels in [0, 1], training, and the heatmap."""

    reads = ()
    clamped: ClassVar[bool]  # depth is clamped to the part's range, and normals are appended

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        config = self.config
        self._build()
        looks: list[tuple[Tensor, ...]] = []

        def read() -> Iterator[Sample]:  # each sample is read once, for its channels and for the viewing axis
            for k in bar(indices, what="reading samples") if show else indices:
                sample = split.sample(k)
                looks.append(self._look(sample))
                yield sample

        self.view = DepthAxis.fit(read())
        self.range = DepthRange.of(self.view.depth(xyz.numpy()) for _, xyz, *_ in looks)
        images = torch.stack([self._image(*look) for look in looks])

        def draw(chosen: list[int], generator: torch.Generator) -> Tensor:
            return send(augment(images[chosen], generator), self.place.device)

        steps = steps_for(len(images) * config.rgbd_repeat, config.rgbd_epochs, config.rgbd_batch, config.min_steps)
        source = batches(len(images), config.rgbd_batch, config.seed, draw)
        rate = config.rgbd_learning_rate
        self.history = recorded(descend(self.model, lambda x: F.l1_loss(self.model(x), x), source, steps, rate))
        self.model.eval()

    def score(self, split: Split, k: int) -> Prediction:
        sample = split.sample(k)
        look = self._look(sample)
        x = self._image(*look)[None].to(self.place.device)
        residual = (x - self.model(x)).abs().cpu()
        cells, mask = look[-1][None, None], torch.from_numpy(sample.valid)[None]
        parts = []
        for channels in (slice(COLOURS), slice(COLOURS, None), slice(None)):  # colour, geometry, all
            heat = residual[:, channels].amax(dim=1, keepdim=True)
            parts.append(upsample(heat, cells, self.config.image_size) * mask)
        psi = smooth(parts[2], self.config.blur, self.config.sigma)
        return Prediction.of(parts[0], parts[1], psi, image_score(psi, "max").item())

    def state(self) -> dict[str, Tensor]:
        view = [self.view.axis, self.view.direction, self.view.offset, self.range.near, self.range.far]
        scene = {"view": torch.tensor(view, dtype=torch.float64)}
        return scene | {f"model.{name}": value for name, value in self.model.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._build()
        axis, direction, offset, near, far = state["view"].tolist()
        self.view, self.range = DepthAxis(int(axis), direction, offset), DepthRange(near, far)
        self.model.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("model.")})
        self.model.eval()

    def _build(self) -> None:
        config, channels = self.config, COLOURS + (4 if self.clamped else 1)
        model = CandyAutoencoder(channels, config.rgbd_side, config.rgbd_width, config.rgbd_latent)
        self.model = model.to(self.place.device)

    def _look(self, sample: Sample) -> tuple[Tensor, ...]:
        """Colour, mean points, mean normals (3, side, side) each, and which cells have a point."""
        side, valid = self.config.rgbd_side, sample.valid[0]
        colour, _ = shrink(sample.rgb, np.ones_like(valid), side)
        xyz, cells = shrink(sample.xyz, valid, side)
        if not self.clamped:
            return colour, xyz, cells
        return colour, xyz, shrink(normals(sample.xyz), valid, side)[0], cells

    def _image(self, colour: Tensor, xyz: Tensor, *rest: Tensor) -> Tensor:
        """The stack of channels: colour, depth and, for RGB-cD-n, normals; (C, side, side) in [0, 1]."""
        depth = self.view.depth(xyz.numpy())  # linear in the points, so the mean point has the mean depth
        if not self.clamped:
            return torch.cat([colour, torch.from_numpy(self.range.whole(depth))[None]])
        normal, cells = rest
        stretched = torch.from_numpy(self.range.stretch(depth, clamp=True))[None]
        return torch.cat([colour, stretched, (normal + 1) / 2 * cells])


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
