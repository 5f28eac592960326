"""From a sample to compact tokens, and from tokens to the dense maps that the head sees (Sec. III-A)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mafr.config import Config
from mafr.data.samples import Sample
from mafr.device import Place, gpu_products, send
from mafr.errors import ConfigError, DataError
from mafr.features.encoders import DROP_PATH, point_encoder
from mafr.features.geometry import group_points, interpolation_weights
from mafr.features.pointmae import PointMAE
from mafr.features.precision import in_bfloat16
from mafr.features.rgb import rgb_backbone

FEATURE_VERSION = 1  # raised whenever a change of the code changes features; stores are then built anew
NEIGHBOURS = 3  # group centres that a point's features are interpolated from


@dataclass(frozen=True)
class Tokens:
    """What is stored of B samples. Dense maps are a fixed sparse linear function of it, see `interpolation.densify`.

    Attributes:
        rgb: (B, C, h, w) float16, the image's tokens.
        xyz: (B, G, D) float16, one token a group of points.
        index: (B, P, 3) int16 with P = grid², the three groups nearest to each cell's point.
        weight: (B, P, 3) float16, their weights; all zero where the cell has no point.
    """

    rgb: torch.Tensor
    xyz: torch.Tensor
    index: torch.Tensor
    weight: torch.Tensor

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
    """A sample's input to the networks and its geometry, on the CPU; metres.

    Attributes:
        name: the sample's id, which seeds the draws of `extractor_mode` "train".
        rgb: (3, S, S) float32 in [0, 1].
        patches: (G, M, 3) float32, neighbourhoods relative to their centres.
        centres: (G, 3) float32.
        middle: (3,) float32, the mean of the cloud's points.
        index, weight: (P, 3), see `Tokens`.
    """

    name: str
    rgb: np.ndarray
    patches: np.ndarray
    centres: np.ndarray
    middle: np.ndarray
    index: np.ndarray
    weight: np.ndarray


class FeatureExtractor:
    """The two frozen backbones. `weights` holds the SHA-256 of each one's weights, or "random".

    They compute where `mafr.device.Place.of(config)` says; `place` is that. Sampling and neighbours are found
    on the CPU in any case, while a GPU works on the samples before.

    With `extractor_mode` "train" Point-MAE uses batch statistics and drops branches, as in the released code
    that never switches to eval; the draws are seeded by (seed, sample id, draw). DINO has nothing that train
    mode changes, and EfficientNet, which the released code does not know, stays in eval mode.
    """

    def __init__(self, config: Config, rgb: nn.Module, points: PointMAE, weights: dict[str, str]) -> None:
        if config.groups > np.iinfo(np.int16).max:
            raise ConfigError(f"groups must be at most {np.iinfo(np.int16).max}, not {config.groups}")
        if config.groups < NEIGHBOURS:
            raise ConfigError(f"groups must be at least {NEIGHBOURS}, not {config.groups}")
        self.config, self.weights, self.place = config, weights, Place.of(config)
        if self.place.half:
            rgb, points = in_bfloat16(rgb), in_bfloat16(points)
        self.rgb, self.points = rgb.to(self.place.device), points.to(self.place.device)

    @classmethod
    def from_config(
        cls, config: Config, weights_dir: Path | None = None, random_weights: bool = False
    ) -> FeatureExtractor:
        """Build and load the backbones that `config` names.

        weights_dir: where downloaded weights lie (full profile: `Paths.weights`). random_weights: untrained
        backbones, for tests and timing. Raises WeightsError for missing weights, ConfigError for sizes that
        do not fit them, and for a device or precision that this machine does not have.
        """
        rgb, rgb_digest = rgb_backbone(config, weights_dir, random_weights)
        points, point_digest = point_encoder(config, weights_dir, random_weights)
        return cls(config, rgb, points, {"rgb": rgb_digest, "points": point_digest})

    def extract(self, sample: Sample, draw: int = 0) -> Tokens:
        """The tokens of one sample (B = 1), on the CPU.

        draw: number of the random draw; it matters only in `extractor_mode` "train". Raises DataError where
        the sample has fewer valid points than the configuration has groups or neighbours.
        """
        return self.encode([self.prepare(sample)], draw)

    def prepare(self, sample: Sample) -> Prepared:
        """What `encode` needs of a sample: sampling, neighbours, interpolation weights; safe in a thread.

        Raises DataError, see `extract`.
        """
        config = self.config
        valid = sample.valid[0]
        if valid.shape != (config.image_size, config.image_size):
            raise DataError(
                f"sample {sample.id} of {sample.category} has {valid.shape[0]} x {valid.shape[1]} pixels; "
                f"image_size is {config.image_size}"
            )
        points = sample.xyz[:, valid].T  # (N, 3), row by row
        needed = max(config.groups, config.group_size)
        if len(points) < needed:
            raise DataError(
                f"{sample.category} {sample.id}: the cloud has {len(points)} valid points, at "
                f"least {needed} are needed; scan closer, leave the sample out, or lower the settings groups and "
                "group_size"
            )
        # On a GPU's machine the threads are busy with other samples.
        workers = torch.get_num_threads() if self.place.device.type == "cpu" else 1
        patches, centres = group_points(points, config.groups, config.group_size, workers)
        index, weight = cell_weights(sample.xyz, centres, config.grid, workers)
        return Prepared(sample.id, sample.rgb, patches, centres, points.mean(axis=0), index, weight)

    def encode(self, batch: Sequence[Prepared], draw: int = 0) -> Tokens:
        """The tokens of some prepared samples, on the CPU; at once, but one by one in `extractor_mode` "train"."""
        if self.config.extractor_mode == "train":  # statistics are a cloud's own, draws a sample's own
            clouds = [self.cloud_tokens(one.patches, one.centres, one.middle, f"{one.name} {draw}") for one in batch]
            xyz = torch.cat(clouds)
        else:
            xyz = self._cloud_tokens(*(self._stack(batch, name) for name in ("patches", "centres", "middle")))
        with torch.no_grad(), gpu_products("float32"):
            rgb = self.rgb(self._stack(batch, "rgb"))
        return Tokens(
            rgb=rgb.half().cpu(),
            xyz=xyz.half().cpu(),
            index=torch.from_numpy(np.stack([one.index for one in batch])),
            weight=torch.from_numpy(np.stack([one.weight for one in batch])),
        )

    @torch.no_grad()
    def image_tokens(self, rgb: np.ndarray) -> torch.Tensor:
        """rgb (3, S, S) in [0, 1] -> (1, C, S/8, S/8) float32."""
        with gpu_products("float32"):
            return self.rgb(self._to_place(rgb[None]))

    def cloud_tokens(self, patches: np.ndarray, centres: np.ndarray, middle: np.ndarray, key: str = "") -> torch.Tensor:
        """patches (G, M, 3), centres (G, 3), mean point (3,), metres -> (1, G, D) float32.

        key: seeds the draws of `extractor_mode` "train", together with `Config.seed`.
        """
        arrays = (self._to_place(np.asarray(array, dtype=np.float32)[None]) for array in (patches, centres, middle))
        if self.config.extractor_mode == "eval":
            return self._cloud_tokens(*arrays)
        digest = hashlib.sha256(f"{self.config.seed} {key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        return self._cloud_tokens(*arrays, DROP_PATH, generator)

    @torch.no_grad()
    def _cloud_tokens(
        self,
        patches: torch.Tensor,
        centres: torch.Tensor,
        middle: torch.Tensor,
        drop_path: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        with gpu_products("float32"):  # 10 bits of a coordinate are half a millimetre
            return self.points(*self.points.scale(patches, centres, middle), drop_path, generator)

    def _stack(self, batch: Sequence[Prepared], name: str) -> torch.Tensor:
        return self._to_place(np.stack([getattr(one, name) for one in batch]).astype(np.float32, copy=False))

    def _to_place(self, array: np.ndarray) -> torch.Tensor:
        return send(torch.from_numpy(array), self.place.device)


def cell_weights(xyz: np.ndarray, centres: np.ndarray, grid: int, workers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Interpolation to the grid: each cell takes the point at its central pixel.

    xyz: (3, S, S) with S a multiple of grid, centres: (G, 3), metres; workers: threads. Returns index
    (grid², 3) int16 and weight (grid², 3) float16, zero where the central pixel has no point.
    """
    step = xyz.shape[-1] // grid
    cells = xyz[:, step // 2 :: step, step // 2 :: step].reshape(3, -1).T  # (P, 3)
    valid = (cells != 0).any(axis=1)
    index = np.zeros((len(cells), NEIGHBOURS), dtype=np.int16)
    weight = np.zeros((len(cells), NEIGHBOURS), dtype=np.float16)
    if valid.any():
        index[valid], weight[valid] = interpolation_weights(cells[valid], centres, NEIGHBOURS, workers)
    return index, weight
