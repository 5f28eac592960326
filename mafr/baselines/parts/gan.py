"""f-AnoGAN on images and on voxel grids: a Wasserstein GAN of good samples and an encoder into its latent space.

Schlegl et al., "f-AnoGAN", Medical Image Analysis 54 (2019), Sec. 2, and the authors' code: residual generator and
critic, WGAN-GP with weight 10 and five critic steps a generator step, then the izi_f training of the encoder on the
image residual plus the residual of the critic's features. The same layers in three dimensions for voxels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.device import send
from mafr.errors import ConfigError

PENALTY = 10.0  # weight of the gradient penalty
CRITIC_STEPS = 5  # a generator step
KAPPA = 1.0  # weight of the critic's features in the encoder's loss
START = 4  # side of the smallest maps
WIDEST = 8  # the widest maps have so many times the width


def halvings(side: int) -> int:
    """How often a side is halved down to the smallest maps. Raises ConfigError for no power of two of at least 8."""
    if side < 2 * START or side & (side - 1):
        raise ConfigError(f"the side must be a power of two of at least {2 * START}, not {side}")
    return round(math.log2(side // START))


def _conv(dims: int, inputs: int, outputs: int, kernel: int, bias: bool = True) -> nn.Module:
    return (nn.Conv2d if dims == 2 else nn.Conv3d)(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


class ResidualBlock(nn.Module):
    """Pre-activation residual block that halves ("down") or doubles ("up") the side.

    Critics normalise each sample alone (layer normalisation with one scale a channel), the others by batch.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, way: str, by_batch: bool) -> None:
        super().__init__()
        batch_norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
        inner = inputs if way == "down" else outputs

        def norm(channels: int) -> nn.Module:
            return batch_norm(channels) if by_batch else nn.GroupNorm(1, channels)

        self.down = way == "down"
        self.pool = nn.AvgPool2d(2) if dims == 2 else nn.AvgPool3d(2)
        self.norm1, self.norm2 = norm(inputs), norm(inner)
        self.conv1 = _conv(dims, inputs, inner, 3, bias=False)
        self.conv2 = _conv(dims, inner, outputs, 3)
        self.shortcut = _conv(dims, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            h = self.conv1(F.relu(self.norm1(x)))
            h = self.pool(self.conv2(F.relu(self.norm2(h))))
            return self.shortcut(self.pool(x)) + h
        h = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h)))
        # A 1 x 1 convolution commutes with doubling by repetition; in this order it is the cheaper one.
        return F.interpolate(self.shortcut(x), scale_factor=2) + h


class Generator(nn.Module):
    """Latent vectors (B, latent) -> (B, channels, side, ...) in [-1, 1]."""

    def __init__(self, dims: int, channels: int, side: int, width: int, latent: int) -> None:
        super().__init__()
        count = halvings(side)
        widths = [width * min(WIDEST, 2 ** (count - 1 - k)) for k in range(count)]
        self.shape = (widths[0], *(START,) * dims)
        self.input = nn.Linear(latent, math.prod(self.shape))
        self.blocks = nn.Sequential(
            *(ResidualBlock(dims, a, b, "up", True) for a, b in zip([widths[0], *widths], widths, strict=False))
        )
        self.norm = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(widths[-1])
        self.output = _conv(dims, widths[-1], channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        h = self.blocks(self.input(z).unflatten(1, self.shape))
        return torch.tanh(self.output(F.relu(self.norm(h))))


class Contractor(nn.Module):
    """(B, channels, side, ...) -> features and outputs (B, outputs): the critic (1 output) and the encoder (latent)."""

    def __init__(self, dims: int, channels: int, side: int, width: int, outputs: int, by_batch: bool) -> None:
        super().__init__()
        widths = [width * min(WIDEST, 2 ** (k + 1)) for k in range(halvings(side))]
        self.input = _conv(dims, channels, width, 3)
        self.blocks = nn.Sequential(
            *(ResidualBlock(dims, a, b, "down", by_batch) for a, b in zip([width, *widths], widths, strict=False))
        )
        self.output = nn.Linear(widths[-1] * START**dims, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(B, F), what the last layer sees."""
        return self.blocks(self.input(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.features(x))


def critic_loss(critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E[D(fake)] - E[D(real)] + 10 · E[(|∇D(x̂)| - 1)²] at x̂ = real + mix · (fake - real); mix: (B,) in [0, 1)."""
    between = (real + mix.view(-1, *(1,) * (real.dim() - 1)) * (fake - real)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    slope = (gradient.flatten(1).square().sum(dim=1) + 1e-12).sqrt()  # the root of zero has no derivative
    # In one pass, since critics treat each sample alone.
    of_fake, of_real = critic(torch.cat([fake, real])).split(len(real))
    return of_fake.mean() - of_real.mean() + PENALTY * (slope - 1).square().mean()


def encoder_loss(critic: Contractor, x: Tensor, x_hat: Tensor) -> Tensor:
    """izi_f: mean squared residual of the input plus that of the critic's features."""
    return F.mse_loss(x_hat, x) + KAPPA * F.mse_loss(critic.features(x_hat), critic.features(x))


def train_gan(
    generator: Generator, critic: Contractor, batches: Iterator[Tensor], steps: int, latent: int, rate: float
) -> list[float]:
    """Adversarial training on `steps` batches of good samples, one critic step each; the critic's losses."""
    settings = {"lr": rate, "betas": (0.0, 0.9)}
    critic_optimiser = torch.optim.Adam(critic.parameters(), **settings)
    generator_optimiser = torch.optim.Adam(generator.parameters(), **settings)
    generator.train()
    losses = []
    for step in range(steps):
        real = next(batches)
        with torch.no_grad():
            fake = generator(_noise(len(real), latent, real))
        loss = critic_loss(critic, real, fake, send(torch.rand(len(real)), real.device))
        critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        critic_optimiser.step()
        losses.append(loss.detach())
        if step % CRITIC_STEPS == CRITIC_STEPS - 1:
            critic.requires_grad_(False)
            generator_optimiser.zero_grad(set_to_none=True)
            (-critic(generator(_noise(len(real), latent, real))).mean()).backward()
            generator_optimiser.step()
            critic.requires_grad_(True)
    return torch.stack(losses).tolist()


def train_encoder(
    encoder: Contractor, generator: Generator, critic: Contractor, batches: Iterator[Tensor], steps: int, rate: float
) -> list[float]:
    """Train the encoder on `steps` batches, the generator and the critic fixed; its losses."""
    generator.eval().requires_grad_(False)
    critic.eval().requires_grad_(False)
    optimiser = torch.optim.RMSprop(encoder.parameters(), lr=rate)
    encoder.train()
    losses = []
    for _ in range(steps):
        x = next(batches)
        loss = encoder_loss(critic, x, generator(encoder(x)))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def _noise(count: int, latent: int, like: Tensor) -> Tensor:
    return send(torch.randn(count, latent), like.device)  # drawn on the CPU, so that every device sees the same
