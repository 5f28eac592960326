"""The three models of the first MVTec 3D-AD benchmark: variation model, autoencoder, f-AnoGAN; on images or voxels.

Their sources, sizes and departures stand in `mafr.baselines.mvtec_benchmark`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.baselines.parts.gan import CONV, START, WIDEST, Contractor, Generator, halvings, train_encoder, train_gan
from mafr.baselines.parts.raw import Source, descend, laid_out, recorded, steps_for
from mafr.config import Config

WEIGHT_DECAY = 1e-5  # of the autoencoder (Bergmann et al., VISAPP 2019)


@dataclass(frozen=True)
class Sizes:
    """The size of the models and the length of their training; from the settings with one prefix."""

    dims: int
    channels: int
    side: int
    width: int
    latent: int
    batch: int
    epochs: int
    copies: int
    learning_rate: float
    gan_rate: float
    encoder_rate: float
    floor: float
    min_steps: int
    seed: int

    @classmethod
    def of(
        cls, config: Config, prefix: str, dims: int, channels: int, gan: bool = False, side: int | None = None
    ) -> Sizes:
        """The settings depth_... or voxel_...; gan: the GAN's sizes; side: another than the setting says."""
        own = {field.name for field in fields(cls)} - {"dims", "channels", "min_steps", "seed"}
        values = {name: getattr(config, f"{prefix}_{name}") for name in own}
        if gan:
            values |= {name: getattr(config, f"{prefix}_gan_{name}") for name in ("side", "width", "latent")}
        if side is not None:
            values["side"] = side
        return cls(dims=dims, channels=channels, min_steps=config.min_steps, seed=config.seed, **values)

    def steps(self, samples: int) -> int:
        """Batches that a training sees: the epochs of `copies` turned copies of every sample, or `min_steps`."""
        return steps_for(samples * self.copies, self.epochs, self.batch, self.min_steps)


class VariationModel(nn.Module):
    """Mean and standard deviation of every pixel or voxel over the training samples."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        shape = (sizes.channels, *(sizes.side,) * sizes.dims)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def learn(self, source: Source) -> list[dict[str, float]]:
        """Over `copies` turned copies of every sample; there is no loss to record."""
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        squares, count = torch.zeros_like(total), 0
        wanted = source.count * self.sizes.copies
        walk = source.batches(self.sizes.batch, self.sizes.seed)
        while count < wanted:
            x = next(walk)[: wanted - count].double()
            total += x.sum(dim=0)
            squares += x.square().sum(dim=0)
            count += len(x)
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp_min(0).sqrt())
        return []

    def residuals(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> squared deviation in standard deviations, which are at least `floor`: (B, C, ...)."""
        return ((x - self.mean) / self.std.clamp_min(self.sizes.floor)).square()

    def total(self, residuals: Tensor) -> Tensor:
        """The Mahalanobis distance of independent channels: (B, C, ...) -> (B, 1, ...)."""
        return residuals.sum(dim=1, keepdim=True).sqrt()


class Reconstruction(nn.Module):
    """A model that restores its input, `restored(x)`: its squared residual is the anomaly score."""

    def residuals(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> squared residual, (B, C, ...)."""
        return (x - self.restored(x)).square()

    def total(self, residuals: Tensor) -> Tensor:
        """Mean over the channels: (B, C, ...) -> (B, 1, ...)."""
        return residuals.mean(dim=1, keepdim=True)


class ConvAutoencoder(nn.Module):
    """A strided convolutional autoencoder of images (dims 2) or voxel grids (3): (B, channels, side, ...) -> the same.

    Loosely after Bergmann et al., "Improving unsupervised defect segmentation" (VISAPP 2019): 4 x 4 convolutions
    with stride 2 and leaky ReLU (0.2) down to 4 cells per side, a linear code of `latent` values, and the mirror image.
    """

    def __init__(self, dims: int, channels: int, side: int, width: int, latent: int) -> None:
        super().__init__()
        widths = [width * min(WIDEST, 2**k) for k in range(halvings(side))]
        conv, back = CONV[dims], nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        encoder: list[nn.Module] = []
        for a, b in zip([channels, *widths], widths, strict=False):
            encoder += [conv(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        decoder: list[nn.Module] = [back(latent, widths[-1], START), nn.LeakyReLU(0.2)]
        for a, b in zip(widths[::-1], [*widths[-2::-1], channels], strict=True):
            decoder += [back(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*encoder, conv(widths[-1], latent, START))
        self.decoder = nn.Sequential(*decoder[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def weighted_mse(x_hat: Tensor, x: Tensor, empty: float | None) -> Tensor:
    """Mean squared error; with `empty`, the share of empty voxels, those with points weigh as much as all others.

    Occupied voxels (any channel above -1/2) weigh `empty`, empty ones 1 - empty (Bergmann et al. 2022, Sec. 4).
    """
    if empty is None:
        return F.mse_loss(x_hat, x)
    occupied = x.amax(dim=1, keepdim=True) > -0.5
    weight = torch.where(occupied, empty, 1.0 - empty)
    return (weight * (x_hat - x).square()).mean()


class AutoencoderModel(Reconstruction):
    """A convolutional autoencoder with squared error."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.network = ConvAutoencoder(sizes.dims, sizes.channels, sizes.side, sizes.width, sizes.latent)

    def learn(self, source: Source) -> list[dict[str, float]]:
        """Train on good samples; means of the losses."""
        sizes = self.sizes
        adam = partial(torch.optim.Adam, lr=sizes.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
        walk, steps = source.batches(sizes.batch, sizes.seed), sizes.steps(source.count)
        return recorded(
            descend(self.network, lambda x: weighted_mse(self.network(x), x, source.empty), walk, steps, adam)
        )

    def restored(self, x: Tensor) -> Tensor:
        return self.network(x)


class GanModel(Reconstruction):
    """f-AnoGAN, see `mafr.baselines.parts.gan`; the critic is not kept, since no pixel's score depends on it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.shape = (sizes.dims, sizes.channels, sizes.side, sizes.width)
        self.generator = Generator(*self.shape, sizes.latent)
        self.encoder = Contractor(*self.shape, sizes.latent, by_batch=True)

    def learn(self, source: Source) -> list[dict[str, float]]:
        """Train the GAN, then the encoder, on equally many batches; means of both losses."""
        sizes = self.sizes
        critic = laid_out(Contractor(*self.shape, 1, by_batch=False).to(source.device))
        walk, steps = source.batches(sizes.batch, sizes.seed), sizes.steps(source.count)
        first = train_gan(self.generator, critic, walk, steps, sizes.latent, sizes.gan_rate)
        second = train_encoder(self.encoder, self.generator, critic, walk, steps, sizes.encoder_rate)
        return [a | b for a, b in zip(recorded(first, "critic"), recorded(second), strict=True)]

    def restored(self, x: Tensor) -> Tensor:
        return self.generator(self.encoder(x))
