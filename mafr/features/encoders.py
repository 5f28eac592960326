"""The Point-MAE encoder that a configuration names, and its weights."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from mafr.config import Config
from mafr.data.acquire.checksum import file_sha256
from mafr.errors import ConfigError, WeightsError
from mafr.features.pointmae import PUBLISHED, SMALL, PointMAE, PointMAEShape, batch_statistics, load_checkpoint, pruned
from mafr.features.rgb import LITE0_SHA256, RANDOM
from mafr.features.weights.files import POINTMAE, check_file, provide_files
from mafr.paths import PACKAGE

SMALL_WEIGHTS = PACKAGE / "weights" / "pointmae_small.safetensors"
DROP_PATH = 0.1  # of the released code, in effect only in `extractor_mode` "train"


def point_encoder(
    config: Config, weights_dir: Path | None = None, random_weights: bool = False
) -> tuple[PointMAE, str]:
    """The frozen encoder that `config.point_backbone` names, in the configured mode, and its weights' SHA-256.

    The published weights are downloaded if `weights_dir` (default: the profile's) does not hold them. random_weights,
    or the setting of that name: initialised from a fixed seed instead, with "random" for the hash.
    Raises WeightsError for missing or unfit weights, ConfigError where `xyz_dim` does not fit.
    """
    if random_weights or config.random_weights:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, digest = PointMAE(point_shape(replace(config, point_blocks=0))), RANDOM
    elif config.point_backbone == "pointmae_small":
        digest = small_weights_sha256()
        model = load_checkpoint(SMALL_WEIGHTS)
    else:
        path = provide_files(config, weights_dir, (POINTMAE,))[POINTMAE]
        digest = check_file(POINTMAE, path)
        model = load_checkpoint(path)
    model.prune(config.point_blocks)
    if config.xyz_dim != model.shape.dim:
        raise ConfigError(f"xyz_dim must be {model.shape.dim} for {config.point_backbone}, not {config.xyz_dim}")
    if config.extractor_mode != "eval":
        batch_statistics(model)
    return model.requires_grad_(False), digest


def point_shape(config: Config) -> PointMAEShape:
    """The encoder that `config.point_backbone` names, pruned to `config.point_blocks`; errors as in `pruned`."""
    return pruned(SMALL if config.point_backbone == "pointmae_small" else PUBLISHED, config.point_blocks)


def small_weights_sha256() -> str:
    """The SHA-256 of the weights in the package. Raises WeightsError where they are missing or not those on record."""
    record = SMALL_WEIGHTS.with_suffix(".json")
    for path in (SMALL_WEIGHTS, record):
        if not path.is_file():
            raise WeightsError(f"{path} is missing; install mafr again, or run `mafr pretrain-points`")
    wanted, found = json.loads(record.read_text(encoding="utf-8"))["sha256"], file_sha256(SMALL_WEIGHTS)
    if wanted != found:
        raise WeightsError(f"{SMALL_WEIGHTS} has SHA-256 {found}, its record says {wanted}; install mafr again")
    return found


def known_weights(config: Config) -> dict[str, str | None]:
    """The SHA-256 of each backbone's weights; None where no single file is pinned, "random" without training."""
    if config.random_weights:
        return {"rgb": RANDOM, "points": RANDOM}
    small = config.point_backbone == "pointmae_small"
    return {
        "rgb": LITE0_SHA256 if config.rgb_backbone == "efficientnet_lite0" else None,
        "points": small_weights_sha256() if small else POINTMAE.sha256,
    }
