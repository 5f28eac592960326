"""Pretraining of the small Point-MAE: masked autoencoding of generated scans, as Point-MAE does on ShapeNet.

Pang et al., ECCV 2022: groups of points are hidden, a light decoder predicts their points from the visible ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

import mafr
from mafr.device import torch_threads
from mafr.errors import ConfigError
from mafr.features import geometry, pointmae
from mafr.features.pointmae import SMALL, Block, PointMAE, PointMAEShape
from mafr.features.pretraining.shapes import UP, random_scan, rotation
from mafr.parallel.progress import bar
from mafr.paths import PACKAGE, write_atomically, write_json


@dataclass(frozen=True)
class PretrainSettings:
    """Settings of one pretraining run. The defaults made the package's first weights, `WORN` its second ones."""

    steps: int = 2200
    batch: int = 6
    shapes: int = 900
    held_out: int = 64
    groups: int = 256
    group_size: int = 32
    masked: float = 0.6  # share of the groups that are hidden (Point-MAE: 0.6)
    decoder_depth: int = 2
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: int = 60
    seed: int = 115
    scans: str = "even"  # or "worn", see `mafr.features.pretraining.shapes`

    @property
    def file(self) -> str:
        """The name of the weight file."""
        return "pointmae_small.safetensors" if self.scans == "even" else "pointmae_worn.safetensors"

    def __post_init__(self) -> None:
        if self.scans not in ("even", "worn"):
            raise ConfigError(f"unknown scans {self.scans!r}; choose even or worn")
        for name in ("steps", "batch", "shapes", "held_out", "groups", "group_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 < round(self.groups * self.masked) < self.groups:
            raise ConfigError(f"masked must hide some groups and leave some, not {self.masked}")


WORN = PretrainSettings(scans="worn", shapes=1200, steps=3000)


class MaskedAutoencoder(nn.Module):
    """The encoder with the parts that only pretraining needs: mask token, decoder, head."""

    def __init__(self, shape: PointMAEShape, group_size: int, decoder_depth: int) -> None:
        super().__init__()
        self.encoder = PointMAE(shape)
        width = shape.width
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.decoder_pos = nn.Sequential(nn.Linear(3, shape.position), nn.GELU(), nn.Linear(shape.position, width))
        self.decoder = nn.ModuleList(Block(width, shape.heads) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3 * group_size)

    def forward(self, patches: Tensor, centres: Tensor, hidden: Tensor, shown: Tensor) -> Tensor:
        """Predicted points of the hidden groups, (B, H, M, 3).

        patches (B, G, M, 3) and centres (B, G, 3) are scaled; hidden (B, H) and shown (B, G - H) number groups.
        """
        rows = torch.arange(len(patches))[:, None]
        at_shown, at_hidden = centres[rows, shown], centres[rows, hidden]
        tokens = self.encoder.embed(patches[rows, shown])
        tokens = self.encoder.norm(self.encoder.encode(tokens, at_shown)[-1])
        x = torch.cat([tokens, self.mask_token.expand(*hidden.shape, -1)], dim=1)
        position = self.decoder_pos(torch.cat([at_shown, at_hidden], dim=1))
        for block in self.decoder:
            x = block(x + position)
        guess = self.head(self.norm(x[:, shown.shape[1] :]))
        return guess.view(*hidden.shape, patches.shape[2], 3)


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Chamfer distance with squared lengths, a to b plus b to a: (N, M, 3) and (N, K, 3) -> the mean, a scalar."""
    # Expanded squares are exact enough for a loss; the clamp keeps rounding from making one negative.
    table = torch.baddbmm(a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None], a, b.mT, alpha=-2)
    table = table.clamp_min(0)
    return table.amin(2).mean() + table.amin(1).mean()


@dataclass(frozen=True)
class Clouds:
    """Grouped scans in metres: patches (n, G, M, 3), centres (n, G, 3), middles (n, 3), float32."""

    patches: Tensor
    centres: Tensor
    middles: Tensor

    @classmethod
    def generate(cls, count: int, settings: PretrainSettings, stream: int) -> Clouds:
        """`count` scans, each from its own generator, seeded by (seed, stream, number)."""
        patches = np.empty((count, settings.groups, settings.group_size, 3), np.float32)
        centres = np.empty((count, settings.groups, 3), np.float32)
        middles = np.empty((count, 3), np.float32)
        for number in bar(range(count), what="generating scans"):
            points = random_scan(np.random.default_rng([settings.seed, stream, number]), settings.scans)
            patches[number], centres[number] = geometry.group_points(points, settings.groups, settings.group_size)
            middles[number] = points.mean(axis=0)
        return cls(*(torch.from_numpy(array) for array in (patches, centres, middles)))

    def __len__(self) -> int:
        return len(self.patches)

    def take(self, numbers: np.ndarray, turns: np.ndarray | None = None) -> Clouds:
        """Some of the scans, each rotated by its matrix in `turns` (n, 3, 3)."""
        chosen = torch.from_numpy(numbers)
        patches, centres, middles = self.patches[chosen], self.centres[chosen], self.middles[chosen]
        if turns is not None:
            matrix = torch.from_numpy(turns).mT  # (n, 3, 3), for rows
            patches = (patches.flatten(1, 2) @ matrix).view_as(patches)
            centres, middles = centres @ matrix, (middles[:, None] @ matrix)[:, 0]
        return Clouds(patches, centres, middles)


@torch_threads(1)  # sums in parallel depend on the number of threads, and with them the weights
def pretrain(out_folder: Path, settings: PretrainSettings | None = None, shape: PointMAEShape = SMALL) -> Path:
    """Pretrain the small encoder on one thread; writes its weights and the record of how they were made.

    Returns the weight file (encoder only), named by the settings, beside a json file of the same name. Losses
    are Chamfer distances in units of the scaled patches (median radius 1), held-out ones over scans and
    masks that no step has seen. Equal settings give equal files on one machine and torch version.
    """
    settings, started = settings or PretrainSettings(), time.perf_counter()
    training = Clouds.generate(settings.shapes, settings, stream=0)
    held_out = Clouds.generate(settings.held_out, settings, stream=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = MaskedAutoencoder(shape, settings.group_size, settings.decoder_depth)
    trivial = _constant_patch_loss(model, training, held_out, settings)
    curve = [{"step": 0, "held_out_loss": _evaluate(model, held_out, settings)}]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    rng = np.random.default_rng([settings.seed, 2])
    every = max(1, settings.steps // 8)
    losses: list[float] = []
    for step in bar(range(1, settings.steps + 1), what="pretraining"):
        numbers = rng.integers(len(training), size=settings.batch)
        turns = np.stack([rotation(UP, angle) for angle in rng.uniform(0, 2 * np.pi, settings.batch)])
        model.train()
        loss = _loss(model, training.take(numbers, turns), rng, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % every == 0 or step == settings.steps:
            recent = float(np.mean(losses[-every:]))
            held = _evaluate(model, held_out, settings)
            curve.append({"step": step, "training_loss": recent, "held_out_loss": held})
    return _write(Path(out_folder), model.encoder, settings, curve, trivial, time.perf_counter() - started)


def _loss(model: MaskedAutoencoder, clouds: Clouds, rng: np.random.Generator, settings: PretrainSettings) -> Tensor:
    patches, centres = model.encoder.scale(clouds.patches, clouds.centres, clouds.middles)
    hidden, shown = _masks(rng, len(clouds), settings)
    guess = model(patches, centres, hidden, shown)
    truth = patches[torch.arange(len(patches))[:, None], hidden]
    return chamfer(guess.flatten(0, 1), truth.flatten(0, 1))


def _masks(rng: np.random.Generator, count: int, settings: PretrainSettings) -> tuple[Tensor, Tensor]:
    order = torch.from_numpy(rng.random((count, settings.groups)).argsort(axis=1))
    number = round(settings.groups * settings.masked)
    return order[:, :number], order[:, number:]


@torch.no_grad()
def _evaluate(model: MaskedAutoencoder, clouds: Clouds, settings: PretrainSettings) -> float:
    model.eval()
    rng = np.random.default_rng([settings.seed, 3])  # the same masks at every evaluation
    parts = np.array_split(np.arange(len(clouds)), math.ceil(len(clouds) / 8))
    return float(sum(_loss(model, clouds.take(part), rng, settings).item() * len(part) for part in parts) / len(clouds))


def _constant_patch_loss(
    model: MaskedAutoencoder, training: Clouds, held_out: Clouds, settings: PretrainSettings
) -> float:
    """Held-out loss of the best patch that is the same for every group: a baseline without any information."""

    def scaled(clouds: Clouds) -> Tensor:
        return model.encoder.scale(clouds.patches, clouds.centres, clouds.middles)[0].flatten(0, 1)

    rng = np.random.default_rng([settings.seed, 4])
    patches = scaled(training.take(rng.integers(len(training), size=min(len(training), 64))))
    patch = patches[int(rng.integers(len(patches)))].clone().requires_grad_()
    optimizer = torch.optim.Adam([patch], lr=0.02)
    for _ in range(200):
        target = patches[torch.from_numpy(rng.integers(len(patches), size=256))]
        optimizer.zero_grad()
        chamfer(patch.expand_as(target), target).backward()
        optimizer.step()
    with torch.no_grad():
        target = scaled(held_out)
        return float(chamfer(patch.expand_as(target), target))


def _rate(step: int, settings: PretrainSettings) -> float:
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    share = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share))) + 1e-3


def _write(
    folder: Path, encoder: PointMAE, settings: PretrainSettings, curve: list, trivial: float, seconds: float
) -> Path:
    tensors = {k: v.contiguous() for k, v in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
    # One entry only: the file format does not keep the order of several.
    content = save(tensors, metadata={"architecture": pointmae.shape_as_json(encoder.shape)})
    path = folder / settings.file
    write_atomically(path, content)
    write_json(
        path.with_suffix(".json"),
        {
            "file": path.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "made_by": f"mafr {mafr.__version__}, mafr.features.pretraining.pretrain",
            "code_sha256": code_digest(),
            "torch": torch.__version__,
            "architecture": json.loads(pointmae.shape_as_json(encoder.shape)),
            "settings": dataclasses.asdict(settings),
            "data": "generated scans of random generic solids (mafr.features.pretraining.shapes)",
            "loss": "Chamfer distance, squared lengths, units of the median patch radius",
            "curve": curve,
            "held_out_loss_of_the_best_constant_patch": trivial,
            "seconds": round(seconds, 1),
        },
    )
    return path


def code_digest() -> str:
    """SHA-256 (hex) of the source that decides the pretrained weights."""
    names = ("pretraining/pretrain.py", "pretraining/shapes.py", "pointmae.py", "geometry.py")
    return hashlib.sha256(b"".join((PACKAGE / "features" / name).read_bytes() for name in names)).hexdigest()
