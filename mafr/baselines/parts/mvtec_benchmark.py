"""The three models of the first MVTec 3D-AD benchmark: variation model, autoencoder, f-AnoGAN; on images or voxels.

Bergmann et al., "The MVTec 3D-AD Dataset" (VISAPP 2022), Sec. 4. `mafr.baselines.depth` and
`mafr.baselines.voxel` say what goes in and how the scores come back to the pixels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor, nn

from mafr.baselines.parts.autoencoder import ConvAutoencoder, batches, descend, recorded, steps_for, weighted_mse
from mafr.baselines.parts.gan import Contractor, Generator, train_encoder, train_gan
from mafr.config import Config

TURN = 5.0  # degrees: training samples are turned by up to so much around the viewing axis (Sec. 4)
WEIGHT_DECAY = 1e-5  # of the autoencoder (Bergmann et al., VISAPP 2019)


class Source(Protocol):
    """The training samples of a model. empty: the share of empty voxels, None for images."""

    empty: float | None

    def __len__(self) -> int: ...

    def draw(self, chosen: list[int], generator: torch.Generator) -> Tensor:
        """Some samples, each turned by a random angle: (B, channels, side, ...) in [-1, 1]."""
        ...


@dataclass(frozen=True)
class Sizes:
    """How large the models are and how long they are trained; from the settings with one prefix."""

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
        sizes = self.sizes
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        squares, count = torch.zeros_like(total), 0
        wanted = len(source) * sizes.copies
        for x in batches(len(source), sizes.batch, sizes.seed, source.draw):
            x = x[: wanted - count].double()
            total += x.sum(dim=0)
            squares += x.square().sum(dim=0)
            count += len(x)
            if count == wanted:
                break
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp_min(0).sqrt())
        return []

    def squares(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> squared deviation in standard deviations, which are at least `floor`: (B, C, ...)."""
        return ((x - self.mean) / self.std.clamp_min(self.sizes.floor)).square()

    def total(self, squares: Tensor) -> Tensor:
        """The Mahalanobis distance of independent channels: (B, C, ...) -> (B, 1, ...)."""
        return squares.sum(dim=1, keepdim=True).sqrt()


class Reconstruction(nn.Module):
    """A model that restores its input: its squared residual is the anomaly score."""

    def restored(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def squares(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> squared residual, (B, C, ...)."""
        return (x - self.restored(x)).square()

    def total(self, squares: Tensor) -> Tensor:
        """Mean over the channels: (B, C, ...) -> (B, 1, ...)."""
        return squares.mean(dim=1, keepdim=True)


class AutoencoderModel(Reconstruction):
    """A convolutional autoencoder with squared error, see `mafr.baselines.parts.autoencoder`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.network = ConvAutoencoder(sizes.dims, sizes.channels, sizes.side, sizes.width, sizes.latent)

    def learn(self, source: Source) -> list[dict[str, float]]:
        """Train on good samples; means of the losses."""
        sizes = self.sizes
        losses = descend(
            self.network,
            lambda x: weighted_mse(self.network(x), x, source.empty),
            batches(len(source), sizes.batch, sizes.seed, source.draw),
            sizes.steps(len(source)),
            sizes.learning_rate,
            WEIGHT_DECAY,
        )
        return recorded(losses)

    def restored(self, x: Tensor) -> Tensor:
        return self.network(x)


class GanModel(Reconstruction):
    """f-AnoGAN, see `mafr.baselines.parts.gan`; the critic is not kept, since no pixel's score depends on it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        shape = (sizes.dims, sizes.channels, sizes.side, sizes.width)
        self.generator = Generator(*shape, sizes.latent)
        self.encoder = Contractor(*shape, sizes.latent, by_batch=True)

    def learn(self, source: Source) -> list[dict[str, float]]:
        """Train the GAN, then the encoder, on equally many batches; means of both losses."""
        sizes = self.sizes
        critic = Contractor(sizes.dims, sizes.channels, sizes.side, sizes.width, 1, by_batch=False)
        critic.to(next(self.parameters()).device)
        walk, steps = batches(len(source), sizes.batch, sizes.seed, source.draw), sizes.steps(len(source))
        first = train_gan(self.generator, critic, walk, steps, sizes.latent, sizes.gan_rate)
        second = train_encoder(self.encoder, self.generator, critic, walk, steps, sizes.encoder_rate)
        pairs = itertools.zip_longest(recorded(first, "critic"), recorded(second, "total"), fillvalue={})
        return [a | b for a, b in pairs]

    def restored(self, x: Tensor) -> Tensor:
        return self.generator(self.encoder(x))


def random_angles(count: int, generator: torch.Generator) -> Tensor:
    """(count,) radians, uniform within `TURN` degrees to either side."""
    return torch.deg2rad((2 * torch.rand(count, generator=generator) - 1) * TURN)
