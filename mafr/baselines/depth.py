"""DepthGAN, DepthAE and DepthVM: the first MVTec 3D-AD benchmark's methods on depth images with colour.

Bergmann et al., "The MVTec 3D-AD Dataset" (VISAPP 2022), Sec. 4; the rows "3D + RGB", which are those that Table I
cites. A depth image holds each pixel's Euclidean distance to the camera's centre, 0 where there is no point; the three
colour channels are appended. f-AnoGAN and the autoencoder see 256 x 256 pixels, the variation model all of them; each
training sample is seen in 20 copies, turned by up to 5 degrees. Maps go back to the image's size bilinearly; the image
score is the largest value of the map.

Full profile: the published 256 pixels and 20 copies; f-AnoGAN's layers, widths, optimisers, rates and weights as in its
authors' code (two more blocks, for 256 pixels instead of 64); the autoencoder after Bergmann et al. (VISAPP 2019) with
its rate of 2e-4 and weight decay of 1e-5.
Smaller profiles: side, width and latent size are the full ones divided by one power of two, chosen by a run's
seconds alone, some three to sixteen on one processor: 4 for the autoencoder, 8 for the GAN. At least `min_steps`
steps (of the critic, and of the encoder), as for MAFR, and its learning rate of 1e-3; batches of 4, 2 copies.
The variation model is not made smaller, except for the copies.

Departures, or what the paper leaves to an appendix that we did not have:
- the latent size 512, 50 epochs, batches of 8 and the autoencoder's layers are our reading, not the published table;
- clouds are preprocessed as for MAFR: no table around the part, and 224 x 224 pixels instead of the raw size;
- the camera's centre is the clouds' origin, as in MVTec 3D-AD; preprocessed clouds of Eyecandies have another origin;
- depths are scaled to [-1, 1] by the training samples' range, invalid pixels to its near end; colours to [-1, 1];
- turned around the image's middle (nearest pixel), drawn anew each time, since preprocessing removes the background
  plane whose normal the paper turns around;
- the variation model divides by a standard deviation of at least `depth_floor`, some 5 of 255 grey values;
- pixels without a 3D point score zero and maps are blurred, as MAFR's are;
- everything is computed in float32, whatever the setting `precision`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mafr.baselines.parts.inputs import DepthRange, distance, shrink, turn_images
from mafr.baselines.parts.mvtec_benchmark import AutoencoderModel, GanModel, Sizes, VariationModel, random_angles
from mafr.data.samples import Sample
from mafr.device import send
from mafr.features.sources.splits import Split
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.scoring import image_score, smooth, upsample

CHANNELS = 4  # depth and colour


class DepthImages:
    """Training images (N, 4, side, side) in [-1, 1] as the models draw them."""

    empty = None

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images, self.device = images, device

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, chosen: list[int], generator: torch.Generator) -> Tensor:
        """Some images, each turned by a random angle."""
        return send(turn_images(self.images[chosen], random_angles(len(chosen), generator)), self.device)


class DepthMethod(Method):
    """What the three have in common: input images, and maps back at the pixels."""

    reads = ()
    model_type: ClassVar[type[VariationModel] | type[AutoencoderModel] | type[GanModel]]

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        self._build()
        looks = [self._look(split.sample(k)) for k in (bar(indices, what="reading samples") if show else indices)]
        self.range = DepthRange.of(depth.numpy() for depth, *_ in looks)
        source = DepthImages(torch.stack([self._image(*look) for look in looks]), self.place.device)
        self.history = self.model.learn(source)
        self.model.eval()

    def score(self, split: Split, k: int) -> Prediction:
        sample = split.sample(k)
        depth, colour, cells = self._look(sample)
        squares = self.model.squares(self._image(depth, colour, cells)[None].to(self.place.device)).cpu()
        mask = torch.from_numpy(sample.valid)[None]
        parts = []
        for channels in (slice(1, None), slice(0, 1), slice(None)):  # colour, depth, both
            total = self.model.total(squares[:, channels])
            parts.append(upsample(total, cells[None, None], self.config.image_size) * mask)
        psi = smooth(parts[2], self.config.blur, self.config.sigma)
        return Prediction.of(parts[0], parts[1], psi, image_score(psi, "max").item())

    def state(self) -> dict[str, Tensor]:
        ends = torch.tensor([self.range.near, self.range.far], dtype=torch.float64)
        return {"range": ends} | {f"model.{name}": value for name, value in self.model.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._build()
        self.range = DepthRange(*state["range"].tolist())
        self.model.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("model.")})
        self.model.eval()

    def _build(self) -> None:
        whole = self.config.image_size if self.model_type is VariationModel else None
        sizes = Sizes.of(self.config, "depth", 2, CHANNELS, self.model_type is GanModel, whole)
        self.model = self.model_type(sizes).to(self.place.device)

    def _look(self, sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
        """Depth (side, side) in metres, colour (3, side, side) in [0, 1], and which cells have a point."""
        side = self.model.sizes.side
        depth, cells = shrink(distance(sample.xyz)[None], sample.valid[0], side)
        colour, _ = shrink(sample.rgb, np.ones_like(sample.valid[0]), side)
        return depth[0], colour, cells

    def _image(self, depth: Tensor, colour: Tensor, cells: Tensor) -> Tensor:
        """(4, side, side) in [-1, 1]."""
        scaled = torch.from_numpy(self.range.stretch(depth.numpy())) * cells
        return torch.cat([scaled[None], colour]) * 2 - 1


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
