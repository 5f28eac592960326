"""Convolutional autoencoders of the compared methods, and how their training walks through the samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.baselines.parts.gan import START, WIDEST, halvings
from mafr.errors import ConfigError, MafrError

CANDY_BLOCKS = 4
RECORDED = 10  # means of losses kept of a training


def steps_for(samples: int, epochs: int, batch: int, min_steps: int) -> int:
    """Steps of a training: so many passes over the samples, or `min_steps` if that is more (MAFR's own rule)."""
    return max(epochs * math.ceil(samples / batch), min_steps)


def batches(
    samples: int, batch: int, seed: int, draw: Callable[[list[int], torch.Generator], Tensor]
) -> Iterator[Tensor]:
    """Batches without end: every pass in a new order, drawn from `seed`; draw(indices, generator) makes a batch.

    The last samples of a pass that fill no batch go into the next one, so that all batches are equally large;
    only fewer samples than `batch` give smaller ones.
    """
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(batch, samples):
            waiting += torch.randperm(samples, generator=generator).tolist()
        size = min(batch, samples)
        chosen, waiting = waiting[:size], waiting[size:]
        yield draw(chosen, generator)


def descend(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    source: Iterator[Tensor],
    steps: int,
    rate: float,
    weight_decay: float = 0.0,
) -> list[float]:
    """Adam on `loss_of` a batch, `steps` batches; the losses."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=weight_decay)
    model.train()
    losses = []
    for _ in range(steps):
        loss = loss_of(next(source))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def recorded(losses: list[float], name: str = "total") -> list[dict[str, float]]:
    """A training's losses as some means, one after the other. Raises MafrError if one is not finite."""
    if not all(math.isfinite(loss) for loss in losses):
        raise MafrError("the loss of a training is not finite; lower its learning rate")
    size = math.ceil(len(losses) / RECORDED)
    return [{name: sum(part) / len(part)} for part in (losses[k : k + size] for k in range(0, len(losses), size))]


class CandyAutoencoder(nn.Module):
    """The autoencoder of the Eyecandies authors' code: (B, channels, side, side) -> the same.

    Four blocks of two 3 x 3 convolutions with batch normalisation and GELU, the second with stride 2, a linear
    bottleneck of `latent` values, and four blocks of doubling and two convolutions. As there, the last block ends in
    batch normalisation and GELU too.
    """

    def __init__(self, channels: int, side: int, width: int, latent: int) -> None:
        super().__init__()
        if side % 2**CANDY_BLOCKS:
            raise ConfigError(f"rgbd_side must be a multiple of {2**CANDY_BLOCKS}, not {side}")
        widths = [width * 2**k for k in range(CANDY_BLOCKS)]
        inner = side // 2**CANDY_BLOCKS
        shape = (widths[-1], inner, inner)
        values = math.prod(shape)
        encoder = [_candy_block(a, b, b, 2) for a, b in zip([channels, *widths], widths, strict=False)]
        self.encoder = nn.Sequential(*encoder)
        self.bottleneck = nn.Sequential(
            nn.Flatten(), nn.Linear(values, latent), nn.Linear(latent, values), nn.Unflatten(1, shape)
        )
        back = [*widths[::-1], channels]
        decoder = []
        for a, b in itertools.pairwise(back):
            decoder += [nn.Upsample(scale_factor=2), _candy_block(a, a, b, 1)]
        self.decoder = nn.Sequential(*decoder)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.bottleneck(self.encoder(x)))


def _candy_block(inputs: int, inner: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, inner, 3, padding=1), nn.BatchNorm2d(inner), nn.GELU(),
        nn.Conv2d(inner, outputs, 3, padding=1, stride=stride), nn.BatchNorm2d(outputs), nn.GELU(),
    )  # fmt: skip


class ConvAutoencoder(nn.Module):
    """A strided convolutional autoencoder of images (dims 2) or voxel grids (3): (B, channels, side, ...) -> the same.

    Loosely after Bergmann et al., "Improving unsupervised defect segmentation" (VISAPP 2019): 4 x 4 convolutions
    with stride 2 and leaky ReLU (0.2) down to 4 cells a side, a linear code of `latent` values, and the mirror image.
    """

    def __init__(self, dims: int, channels: int, side: int, width: int, latent: int) -> None:
        super().__init__()
        count = halvings(side)
        widths = [width * min(WIDEST, 2**k) for k in range(count)]
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        back = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
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
