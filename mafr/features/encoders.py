"""The Point-MAE encoder that a configuration names, and its weights."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from mafr.config import Config
from mafr.data.acquire.checksum import file_sha256
from mafr.errors import ConfigError, WeightsError
from mafr.features.fpfh import TOKEN_DIM
from mafr.features.pointmae import PUBLISHED, SMALL, PointMAE, PointMAEShape, batch_statistics, load_checkpoint, pruned
from mafr.features.rgb import RANDOM, lite_number, lite_sha256
from mafr.features.weights.files import POINTMAE, check_file, provide_files
from mafr.paths import PACKAGE

# The small networks that come with the package, by the setting's name.
SMALL_WEIGHTS = {n: PACKAGE / "weights" / f"{n}.safetensors" for n in ("pointmae_small", "pointmae_worn")}
FPFH = "fpfh"  # stands in for the SHA-256 of weights where histograms take the encoder's place
DROP_PATH = 0.1  # of the released code, in effect only in `extractor_mode` "train"


def point_encoder(
    config: Config, weights_dir: Path | None = None, random_weights: bool = False
) -> tuple[PointMAE | None, str]:
    """The frozen encoder that `config.point_backbone` names, in the configured mode, and its weights' SHA-256.

    None for "fpfh", which `FeatureExtractor.prepare` computes without a network.
    The published weights are downloaded if `weights_dir` (default: the profile's) does not hold them. random_weights,
    or the setting of that name: initialised from a fixed seed instead, with "random" for the hash.
    Raises WeightsError for missing or unfit weights, ConfigError where `xyz_dim` does not fit.
    """
    if (random_weights or config.random_weights) and config.point_backbone != FPFH:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, digest = PointMAE(point_shape(replace(config, point_blocks=0))), RANDOM
    elif config.point_backbone in SMALL_WEIGHTS:
        digest = small_weights_sha256(config.point_backbone)
        model = load_checkpoint(SMALL_WEIGHTS[config.point_backbone])
    elif config.point_backbone == FPFH:
        if (config.xyz_dim, config.point_blocks) != (TOKEN_DIM, 0):
            raise ConfigError(f"fpfh has {TOKEN_DIM} channels (xyz_dim) and no blocks that could be left out")
        return None, FPFH
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
    return pruned(SMALL if config.point_backbone in SMALL_WEIGHTS else PUBLISHED, config.point_blocks)


def small_weights_sha256(name: str = "pointmae_small") -> str:
    """The SHA-256 of weights in the package. Raises WeightsError where they are missing or not those on record."""
    weights = SMALL_WEIGHTS[name]
    record = weights.with_suffix(".json")
    for path in (weights, record):
        if not path.is_file():
            raise WeightsError(f"{path} is missing; install mafr again, or run `mafr pretrain-points`")
    wanted, found = json.loads(record.read_text(encoding="utf-8"))["sha256"], file_sha256(weights)
    if wanted != found:
        raise WeightsError(f"{weights} has SHA-256 {found}, its record says {wanted}; install mafr again")
    return found


def known_weights(config: Config) -> dict[str, str | None]:
    """The SHA-256 of each backbone's weights; None where no single file is pinned, "random" without training."""
    if config.random_weights:
        return {"rgb": RANDOM, "points": RANDOM}
    number, name = lite_number(config), config.point_backbone
    points = FPFH if name == "fpfh" else small_weights_sha256(name) if name in SMALL_WEIGHTS else POINTMAE.sha256
    return {"rgb": None if number is None else lite_sha256(number), "points": points}
