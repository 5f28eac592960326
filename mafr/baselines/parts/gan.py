"""f-AnoGAN on images and on voxel grids: a Wasserstein GAN of good samples and an encoder into its latent space.

Schlegl et al., "f-AnoGAN", Medical Image Analysis 54 (2019), Sec. 2, and the authors' code: residual generator and
critic, WGAN-GP with weight 10 and five critic steps per generator step, then the izi_f training of the encoder on the
image residual plus the residual of the critic's features. The same layers in three dimensions for voxels.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.baselines.parts.raw import descend, laid_out
from mafr.device import send
from mafr.errors import ConfigError
from mafr.fast.weights import FlatWeights

PENALTY = 10.0  # weight of the gradient penalty
CRITIC_STEPS = 5  # per generator step
KAPPA = 1.0  # weight of the critic's features in the encoder's loss
START = 4  # side of the smallest maps
WIDEST = 8  # width of the widest maps, in units of the smallest width
# Layers by the number of dimensions, 2 for images and 3 for voxel grids.
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


def halvings(side: int) -> int:
    """The number of times a side is halved down to the smallest maps. Raises ConfigError unless a power of two >= 8."""
    if side < 2 * START or side & (side - 1):
        raise ConfigError(f"the side must be a power of two of at least {2 * START}, not {side}")
    return round(math.log2(side // START))


class ResidualBlock(nn.Module):
    """Pre-activation residual block that halves ("down") or doubles ("up") the side.

    Critics normalise each sample alone (layer normalisation with one scale per channel), the others by batch.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, way: str, by_batch: bool) -> None:
        super().__init__()
        inner = inputs if way == "down" else outputs
        norms = [BATCH_NORM[dims](width) if by_batch else nn.GroupNorm(1, width) for width in (inputs, inner)]
        self.down = way == "down"
        self.pool = POOL[dims](2)
        self.norm1, self.norm2 = norms
        self.conv1 = CONV[dims](inputs, inner, 3, padding=1, bias=False)
        self.conv2 = CONV[dims](inner, outputs, 3, padding=1)
        self.shortcut = CONV[dims](inputs, outputs, 1)

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
        widths = [width * min(WIDEST, 2**k) for k in reversed(range(halvings(side)))]
        self.shape = (widths[0], *(START,) * dims)
        self.input = nn.Linear(latent, math.prod(self.shape))
        self.blocks = nn.Sequential(
            *(ResidualBlock(dims, a, b, "up", True) for a, b in zip([widths[0], *widths], widths, strict=False))
        )
        self.norm = BATCH_NORM[dims](widths[-1])
        self.output = CONV[dims](widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.blocks(self.input(z).unflatten(1, self.shape))
        return torch.tanh(self.output(F.relu(self.norm(h))))


class Contractor(nn.Module):
    """(B, channels, side, ...) -> features and outputs (B, outputs): the critic (1 output) and the encoder (latent)."""

    def __init__(self, dims: int, channels: int, side: int, width: int, outputs: int, by_batch: bool) -> None:
        super().__init__()
        widths = [width * min(WIDEST, 2 ** (k + 1)) for k in range(halvings(side))]
        self.input = CONV[dims](channels, width, 3, padding=1)
        self.blocks = nn.Sequential(
            *(ResidualBlock(dims, a, b, "down", by_batch) for a, b in zip([width, *widths], widths, strict=False))
        )
        self.output = nn.Linear(widths[-1] * START**dims, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(B, F), the last layer's input."""
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
    settings = {"lr": rate, "betas": (0.0, 0.9), "fused": True}
    both = critic_weights, generator_weights = FlatWeights(critic), FlatWeights(generator)
    critic_optimiser, generator_optimiser = (torch.optim.Adam([weights.vector], **settings) for weights in both)

    def fakes(like: Tensor) -> Tensor:
        # Noise is drawn on the CPU, so that every device sees the same.
        return generator(send(torch.randn(len(like), latent), like.device))

    generator.train()
    losses = []
    for step, real in enumerate(islice(batches, steps), start=1):
        with torch.no_grad():
            fake = fakes(real)
        loss = critic_loss(critic, real, fake, send(torch.rand(len(real)), real.device))
        critic_weights.zero()
        loss.backward()
        critic_optimiser.step()
        losses.append(loss.detach())
        if step % CRITIC_STEPS == 0:
            critic.requires_grad_(False)
            generator_weights.zero()
            (-critic(fakes(real)).mean()).backward()
            generator_optimiser.step()
            critic.requires_grad_(True)
    for module, weights in zip((critic, generator), both, strict=True):
        weights.release()
        laid_out(module)
    return torch.stack(losses).tolist()


def train_encoder(
    encoder: Contractor, generator: Generator, critic: Contractor, batches: Iterator[Tensor], steps: int, rate: float
) -> list[float]:
    """Train the encoder on `steps` batches, the generator and the critic fixed; its losses."""
    for fixed in (generator, critic):
        fixed.eval().requires_grad_(False)
    rmsprop = partial(torch.optim.RMSprop, lr=rate, foreach=True)
    return descend(encoder, lambda x: encoder_loss(critic, x, generator(encoder(x))), batches, steps, rmsprop)
