"""From a sample to compact tokens through two frozen backbones, in float32 or with bfloat16 products (Sec. III-A)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from mafr.config import Config
from mafr.data.samples import Sample
from mafr.data.scan import Scan
from mafr.data.transforms import InputRules
from mafr.data.window import Window
from mafr.device import Place, gpu_products, send
from mafr.errors import ConfigError, DataError
from mafr.features.encoders import DROP_PATH, point_encoder
from mafr.features.fpfh import fpfh_tokens
from mafr.features.geometry import group_points, interpolation_weights
from mafr.features.pointmae import PointMAE
from mafr.features.rgb import DinoViTB8, rgb_backbone

FEATURE_VERSION = 1  # raised whenever a change of the code changes features; stores are then built again
NEIGHBOURS = 3  # group centres that a point's features are interpolated from


@dataclass(frozen=True)
class Tokens:
    """The stored features of B samples; dense maps are a sparse linear function of them, see `interpolation`."""

    rgb: Tensor  # (B, C, h, w) float16, the image's tokens
    xyz: Tensor  # (B, G, D) float16, one token per group of points
    index: Tensor  # (B, P, 3) int16 with P = grid², the three groups nearest to each cell's point
    weight: Tensor  # (B, P, 3) float16, their weights; all zero where the cell has no point

    def __len__(self) -> int:
        return len(self.rgb)

    @classmethod
    def cat(cls, parts: Sequence[Tokens]) -> Tokens:
        """The samples of several tokens, one after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in TOKEN_NAMES))

    def part(self, k: int) -> Tokens:
        """Sample k alone, as views."""
        return Tokens(*(getattr(self, name)[k : k + 1] for name in TOKEN_NAMES))


TOKEN_NAMES = ("rgb", "xyz", "index", "weight")
PARTS = ("rgb", "xyz")  # the two backbones' shares: the image, and the cloud with its geometry


@dataclass(frozen=True)
class Prepared:
    """A sample's input to the networks and its geometry, on the CPU; metres."""

    name: str  # the sample's id, which seeds the draws of `extractor_mode` "train"
    rgb: np.ndarray  # (3, S, S) float32 in [0, 1]
    patches: np.ndarray  # (G, M, 3) float32, neighbourhoods relative to their centres
    centres: np.ndarray  # (G, 3) float32
    middle: np.ndarray  # (3,) float32, the mean of the cloud's points
    index: np.ndarray  # (P, 3), as in `Tokens`
    weight: np.ndarray
    described: np.ndarray | None = None  # (G, D) float32, the tokens where no network makes them


class FeatureExtractor:
    """The two frozen backbones at `place`. `weights` holds the SHA-256 of each one's weights, or "random".

    `extractor_mode` is about Point-MAE. With "batch-statistics" its BatchNorm takes the statistics of the sample's own
    groups. "train" drops branches as well, as in the released code, which never calls `eval`; the draws are seeded by
    (seed, sample id, draw). Train mode would change nothing in DINO, and EfficientNet, which the released code does not
    use, stays in eval mode.
    """

    def __init__(self, config: Config, rgb: nn.Module, points: PointMAE | None, weights: dict[str, str]) -> None:
        most = np.iinfo(np.int16).max  # see `Tokens.index`
        if not NEIGHBOURS <= config.groups <= most:
            raise ConfigError(f"groups must be {NEIGHBOURS} to {most}, not {config.groups}")
        self.config, self.weights, self.place = config, weights, Place.of(config)
        if self.place.half:
            rgb, points = in_bfloat16(rgb), in_bfloat16(points)
        self.rgb = rgb.to(self.place.device)
        self.points = None if points is None else points.to(self.place.device)

    @classmethod
    def from_config(
        cls, config: Config, weights_dir: Path | None = None, random_weights: bool = False
    ) -> FeatureExtractor:
        """Build and load the backbones that `config` names.

        weights_dir: the folder of downloaded weights. random_weights: untrained backbones, for tests and timing.
        Raises WeightsError for missing weights, ConfigError for sizes that do not fit them and for a device or
        precision that this machine does not have.
        """
        rgb, rgb_digest = rgb_backbone(config, weights_dir, random_weights)
        points, point_digest = point_encoder(config, weights_dir, random_weights)
        return cls(config, rgb, points, {"rgb": rgb_digest, "points": point_digest})

    def extract(self, sample: Sample, draw: int = 0) -> Tokens:
        """The tokens of one sample (B = 1), on the CPU.

        draw: number of the random draw in `extractor_mode` "train". Raises DataError where the sample has fewer
        valid points than the configuration has groups or neighbours.
        """
        return self.encode([self.prepare(sample)], draw)

    def prepare(self, sample: Sample) -> Prepared:
        """A sample's groups of points and interpolation weights, for `encode`; errors as in `extract`. Thread-safe."""
        config = self.config
        valid = sample.valid[0]
        if valid.shape != (config.image_size, config.image_size):
            raise DataError(
                f"sample {sample.id} of {sample.category} has {valid.shape[0]} x {valid.shape[1]} pixels; "
                f"image_size is {config.image_size}"
            )
        rgb, xyz = sample.rgb, sample.xyz
        if config.view == "part":
            rgb, xyz = Window.of(valid).arrays(_scan_of(sample), InputRules.of(config))
        points = xyz[:, (xyz != 0).any(axis=0)].T  # (N, 3), row by row
        needed = max(config.groups, config.group_size)
        if len(points) < needed:
            raise DataError(
                f"{sample.category} {sample.id}: the cloud has {len(points)} valid points, at "
                f"least {needed} are needed; scan closer, leave the sample out, or lower the settings groups and "
                "group_size"
            )
        # With a GPU the threads are busy with other samples.
        workers = torch.get_num_threads() if self.place.device.type == "cpu" else 1
        try:
            groups = group_points(points, config.groups, config.group_size, workers, config.skip_origin)
        except DataError as error:
            raise DataError(f"{sample.category} {sample.id}: {error}") from error
        patches, centres = groups
        index, weight = cell_weights(xyz, centres, config.grid, workers, config.cell_point)
        described = fpfh_tokens(xyz, centres, workers) if self.points is None else None
        return Prepared(sample.id, rgb, patches, centres, points.mean(axis=0), index, weight, described)

    def encode(self, batch: Sequence[Prepared], draw: int = 0) -> Tokens:
        """The tokens of some prepared samples, on the CPU."""
        xyz, rgb = self.cloud_tokens(batch, draw), self.image_tokens(batch)
        return Tokens(
            rgb=rgb.half().cpu(),
            xyz=xyz.half().cpu(),
            index=torch.from_numpy(np.stack([one.index for one in batch])),
            weight=torch.from_numpy(np.stack([one.weight for one in batch])),
        )

    @torch.no_grad()
    def image_tokens(self, batch: Sequence[Prepared | Sample]) -> Tensor:
        """(B, C, S/8, S/8) float32, where the backbones compute; of samples the image alone is read."""
        with gpu_products("float32"):
            return self.rgb(self._stack(batch, "rgb"))

    def cloud_tokens(self, batch: Sequence[Prepared], draw: int = 0) -> Tensor:
        """(B, G, D) float32, where the backbones compute."""
        if self.points is None:
            return send(torch.from_numpy(np.stack([one.described for one in batch])), self.place.device)
        if self.config.extractor_mode != "train":
            return self._cloud_tokens(batch)
        parts = []  # one by one: draws belong to a sample
        for one in batch:
            digest = hashlib.sha256(f"{self.config.seed} {one.name} {draw}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            parts.append(self._cloud_tokens([one], DROP_PATH, generator))
        return torch.cat(parts)

    @torch.no_grad()
    def _cloud_tokens(
        self, batch: Sequence[Prepared], drop_path: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        clouds = (self._stack(batch, name) for name in ("patches", "centres", "middle"))
        with gpu_products("float32"):  # 10 bits of a coordinate are half a millimetre
            return self.points(*self.points.scale(*clouds), drop_path, generator)

    def _stack(self, batch: Sequence[Prepared | Sample], name: str) -> Tensor:
        array = np.stack([getattr(one, name) for one in batch]).astype(np.float32, copy=False)
        return send(torch.from_numpy(array), self.place.device)


class HalfLinear(nn.Module):
    """A linear layer with bfloat16 weights, input and output; sums are float32 inside the product."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().bfloat16(), persistent=False)
        bias = None if layer.bias is None else layer.bias.detach().bfloat16()
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in), of any type -> (..., out) bfloat16."""
        return F.linear(x.bfloat16(), self.weight, self.bias)


def in_bfloat16(model: nn.Module) -> nn.Module:
    """The same frozen backbone with bfloat16 products in its transformer and its mini-PointNet, for inference.

    The residual sum through the blocks, LayerNorms, and the first layers stay float32: their inputs are coordinates
    and pixels, and half a metre in bfloat16 has steps of 2 mm. `model` is left as it is and shares the float32 weights,
    so that moving one moves both. EfficientNet, small and mostly depthwise, is returned as it is.
    """
    if not isinstance(model, DinoViTB8 | PointMAE):
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, shared)
    if isinstance(model, PointMAE):
        model.encoder.products = torch.bfloat16
    for block in model.network.blocks if isinstance(model, DinoViTB8) else model.blocks.blocks:
        for parent in list(block.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(parent, name, HalfLinear(layer))
    return model


def _scan_of(sample: Sample) -> Scan:
    """The sample in its image's own pixels; as it is, where it has no others."""
    if sample.scan is not None:
        return sample.scan()
    rgb, xyz = (part.transpose(1, 2, 0) for part in (sample.rgb, sample.xyz))
    return Scan(np.uint8(np.rint(255 * np.clip(rgb, 0, 1))), xyz, len(rgb))


def cell_weights(
    xyz: np.ndarray, centres: np.ndarray, grid: int, workers: int = 1, cell_point: str = "centre"
) -> tuple[np.ndarray, np.ndarray]:
    """Index and weight as in `Tokens`, where each cell of the grid takes the point at its central pixel.

    xyz: (3, S, S), centres: (G, 3), metres; workers: threads; cell_point: "nearest" takes the cell's point nearest to
    the centre where the central pixel has none.
    """
    cells = cell_points(xyz, grid, cell_point)
    valid = (cells != 0).any(axis=1)
    index = np.zeros((len(cells), NEIGHBOURS), dtype=np.int16)
    weight = np.zeros((len(cells), NEIGHBOURS), dtype=np.float16)
    if valid.any():
        index[valid], weight[valid] = interpolation_weights(cells[valid], centres, NEIGHBOURS, workers)
    return index, weight


def cell_points(xyz: np.ndarray, grid: int, cell_point: str = "centre") -> np.ndarray:
    """The point of each cell of a cloud (3, S, S): (grid², 3), zeros where there is none; see `cell_weights`."""
    side = xyz.shape[-1]
    middle = (2 * np.arange(grid) + 1) * side // (2 * grid)
    cells = xyz[:, middle[:, None], middle].reshape(3, -1).T  # (P, 3)
    if cell_point == "centre":
        return cells
    valid = (xyz != 0).any(axis=0)
    down, right = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    row, column = down[middle[:, None], middle], right[middle[:, None], middle]
    same = (row * grid // side == np.arange(grid)[:, None]) & (column * grid // side == np.arange(grid))
    found = xyz[:, row, column] * same
    return found.reshape(3, -1).T
