"""Settings: one frozen dataclass, three profiles (how large) and two variants (whose method)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from mafr.baseline_settings import (
    BASELINE_CHOICES,
    BASELINE_POSITIVE,
    BASELINE_PROFILES,
    BaselineSettings,
)
from mafr.errors import ConfigError

PROFILES = ("smoke", "demo", "full")
VARIANTS = ("paper", "released")
DATASETS = ("mvtec3d", "eyecandies")
DATASET_TITLES = {"mvtec3d": "MVTec 3D-AD", "eyecandies": "Eyecandies"}
CATEGORIES = {
    "mvtec3d": (
        "bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope", "tire",
    ),
    "eyecandies": (
        "CandyCane", "ChocolateCookie", "ChocolatePraline", "Confetto", "GummyBear", "HazelnutTruffle",
        "LicoriceSandwich", "Lollipop", "Marshmallow", "PeppermintCandy",
    ),
}  # fmt: skip
UNTRAINED = "UNTRAINED random backbones: these numbers mean nothing"  # on every output made with `random_weights`
LOSS_TERMS = ("sim", "smooth", "census")
FUSIONS = ("product", "sum", "max", "rgb", "xyz")

# The settings in which the paper's text and the released code differ (notebook 10 shows what each one changes).
_VARIANT_SETTINGS: dict[str, dict[str, object]] = {
    "paper": {
        "decoder_layers": 3,
        "decoder_order": "gelu-norm",
        "shared_norm": False,
        "cbam_scope": "map",
        "znssd_over": "pixels",
        "smooth_channels": "all",
        "valid_only": True,
        "blur": "gaussian",
        "image_score": "max",
        "map_scaling": "none",
    },
    "released": {
        "decoder_layers": 4,
        "decoder_order": "norm-gelu",
        "shared_norm": True,
        "cbam_scope": "pixel",
        "znssd_over": "channels",
        "smooth_channels": "first_two",
        "valid_only": False,
        "blur": "box",
        "image_score": "max-over-root-mean",
        "map_scaling": "per-metric",
    },
}

_PROFILE_SETTINGS: dict[str, dict[str, object]] = {
    "smoke": {
        "generated": True,
        "raw_side": 100,
        "mvtec3d_categories": ("bagel", "tire"),
        "eyecandies_categories": ("CandyCane", "Lollipop"),
        "mvtec3d_train": 6,
        "eyecandies_train": 4,
        "validation_count": 2,
        "test_good": 3,
        "test_defective": 5,
        "image_size": 112,
        "grid": 14,
        "groups": 64,
        "group_size": 16,
        "shots": (2, 3, 4),
        "epochs": 2,
        "min_steps": 8,
        "bootstrap": 100,
    },
    "demo": {"generated": True},
    "full": {
        "generated": False,
        "raw_side": 0,
        "image_size": 224,
        "rgb_backbone": "dino_vitb8",
        "point_backbone": "pointmae",
        "rgb_dim": 768,
        "xyz_dim": 1152,
        "grid": 224,
        "groups": 1024,
        "group_size": 128,
        "xyz_pool": 3,
        "epochs": 100,
        "min_steps": 0,
        "threads": 0,
        "precision": "auto",
        "device": "auto",
    },
}


@dataclass(frozen=True)
class Config(BaselineSettings):
    """All settings of a run. Build one with `Config.preset`, change it with `dataclasses.replace`.

    Lengths are in pixels of the `image_size` map unless said otherwise.
    """

    profile: str = "demo"
    variant: str = "paper"
    seed: int = 115  # the released code's training seed

    # --- data
    generated: bool = True
    raw_side: int = 200  # longer side of a generated image; 0 for real data
    mvtec3d_categories: tuple[str, ...] = CATEGORIES["mvtec3d"]
    eyecandies_categories: tuple[str, ...] = CATEGORIES["eyecandies"]
    mvtec3d_train: int = 80  # counts of generated samples a category
    eyecandies_train: int = 24
    validation_count: int = 8
    test_good: int = 20
    test_defective: int = 20
    plane: str = "remove"  # preprocessing: remove the table and what is not the part, or "none"
    image_size: int = 224  # side of the network's input and of the maps that the metrics see

    # --- frozen features (Sec. III-A)
    rgb_backbone: str = "efficientnet_lite0"
    point_backbone: str = "pointmae_small"
    rgb_dim: int = 152
    xyz_dim: int = 192
    grid: int = 28  # side of the feature maps that the head sees; the paper: 224
    groups: int = 256  # Point-MAE groups a cloud
    group_size: int = 32  # neighbours a group
    xyz_pool: int = 1  # side of the average pool over the scattered point features; released code: 3
    extractor_mode: str = "eval"  # "train" repeats the released code's never switching to eval
    rgb_blocks: int = 0  # only the first blocks of the image backbone; 0: all. CFM-M: two thirds
    point_blocks: int = 0  # only the first blocks of the point backbone; 0: all
    random_weights: bool = False  # untrained backbones, for tests and timing; every output says so

    # --- head (Sec. III-B, IV-A)
    fused_dim: int = 0  # 0: the variant's rule, see `width`
    dropout: float = 0.1
    decoder_layers: int = 3
    decoder_order: str = "gelu-norm"
    shared_norm: bool = False
    cbam_scope: str = "map"
    cbam_reduction: int = 16
    cbam_kernel: int = 7

    # --- loss (eqs. 3-6)
    loss_terms: tuple[str, ...] = LOSS_TERMS
    weight_sim: float = 1.0
    weight_smooth: float = 1.0
    weight_census: float = 1.0
    znssd_over: str = "pixels"
    smooth_channels: str = "all"
    census_kernel: int = 7
    valid_only: bool = True

    # --- training (Sec. IV-A)
    shots: tuple[int, ...] = (5, 10, 50)  # columns of Table III beside the full set
    epochs: int = 6  # few enough for all of run_all.sh in less than 50 minutes on 2 cores; the paper: 100
    min_steps: int = 160  # at least so many steps, so that few-shot runs are trained too; the paper: none
    learning_rate: float = 1e-3
    samples_a_step: int = 1  # gradients are averaged over so many samples; paper and released code: 1
    threads: int = 1  # torch threads of a run; 0: torch's own choice. One, so that results repeat exactly

    # --- scoring (eqs. 7-8)
    fusion: str = "product"
    blur: str = "gaussian"
    sigma: float = math.sqrt(22.0)
    image_score: str = "max"
    map_scaling: str = "none"

    # --- computing
    # Of matrix products. "auto": bfloat16 where the hardware multiplies it natively; "tf32": a GPU's, in training and
    # scoring of MAFR, CFM and AST, with all else in float32.
    precision: str = "float32"
    device: str = "cpu"  # "auto": a GPU where there is one
    compiled: bool = False  # the head's pointwise kernels by torch.compile, which needs a compiler and warms up

    # --- reporting
    bootstrap: int = 1000  # resamples behind a confidence interval
    quantile: float = 0.95  # of the good validation scores: the threshold of `mafr predict`

    def __post_init__(self) -> None:
        _validate(self)

    @classmethod
    def preset(
        cls, profile: str = "demo", variant: str = "paper", overrides: Mapping[str, object] | None = None
    ) -> Config:
        """The settings of a profile and a variant, with `overrides` (field name -> value) on top.

        Raises ConfigError for an unknown profile, variant or field, or for values that do not fit.
        """
        _choice("profile", profile, PROFILES)
        _choice("variant", variant, VARIANTS)
        names = {field.name for field in dataclasses.fields(cls)}
        settings = {"profile": profile, "variant": variant}
        settings |= _PROFILE_SETTINGS[profile] | BASELINE_PROFILES[profile] | _VARIANT_SETTINGS[variant]
        for name, value in (overrides or {}).items():
            if name not in names:
                raise ConfigError(f"unknown setting {name!r}; the settings are {', '.join(sorted(names))}")
            settings[name] = tuple(value) if isinstance(value, list) else value
        return cls(**settings)

    def with_variant(self, variant: str) -> Config:
        """The same settings with another variant's method; settings changed by hand stay in the own variant."""
        _choice("variant", variant, VARIANTS)
        if variant == self.variant:
            return self
        return dataclasses.replace(self, variant=variant, **_VARIANT_SETTINGS[variant])

    @property
    def width(self) -> int:
        """Width of the fused embedding: the paper's 968 of 1,920, the released code's half, to scale."""
        if self.fused_dim:
            return self.fused_dim
        total = self.rgb_dim + self.xyz_dim
        return round(total * 968 / 1920) if self.variant == "paper" else total // 2

    def categories(self, dataset: str) -> tuple[str, ...]:
        """The categories of a data set in this profile, in the paper's order."""
        _choice("data set", dataset, DATASETS)
        return self.mvtec3d_categories if dataset == "mvtec3d" else self.eyecandies_categories

    def dataset_title(self, dataset: str) -> str:
        """The data set's name; a generated stand-in or data of one's own must not pass for the published one."""
        title = DATASET_TITLES[dataset]
        if self.generated:
            return f"{title} stand-in"
        own = set(self.categories(dataset)) - set(CATEGORIES[dataset])
        return f"own data in {title} layout" if own else title

    def as_dict(self) -> dict[str, object]:
        """Every field, tuples as lists: what is written beside a result."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Config:
        """The inverse of `as_dict`. Raises ConfigError for fields that are missing or unknown."""
        values = ADDED | dict(values)
        names = {field.name for field in dataclasses.fields(cls)}
        if set(values) != names:
            odd = ", ".join(sorted(set(values) ^ names))
            raise ConfigError(f"these settings are missing or unknown: {odd}; written by another version?")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def digest(self, names: tuple[str, ...] | None = None) -> str:
        """SHA-256 (hex) of the named settings, or of all that decide results (`PLACE_SETTINGS` aside)."""
        values = self.as_dict()
        kept = {name: values[name] for name in (names or sorted(set(values) - PLACE_SETTINGS))}
        # Unpruned backbones keep the digests that they had before they could be pruned.
        kept = {name: value for name, value in kept.items() if value or name not in _PRUNING}
        kept = {name: value for name, value in kept.items() if name not in ADDED or value != ADDED[name]}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def data_digest(self, dataset: str) -> str:
        """Hash of what decides a generated data set."""
        _choice("data set", dataset, DATASETS)
        return self.digest(("raw_side", f"{dataset}_train", "validation_count", "test_good", "test_defective"))

    def feature_digest(self) -> str:
        """Hash of what decides the stored features, beside the data."""
        return self.digest(FEATURE_SETTINGS)


PLACE_SETTINGS = {"device", "compiled"}  # where and by what a run is computed; its record says where it was
# Younger than records that may lie about: these lack them, and at these values digests leave them out.
ADDED: dict[str, object] = {"samples_a_step": 1, "compiled": False}
FEATURE_SETTINGS = (
    "image_size", "rgb_backbone", "point_backbone", "rgb_dim", "xyz_dim", "grid", "groups", "group_size",
    "xyz_pool", "extractor_mode", "random_weights", "precision", "rgb_blocks", "point_blocks",
)  # fmt: skip
_PRUNING = ("rgb_blocks", "point_blocks")

_CHOICES = {
    "profile": PROFILES,
    "variant": VARIANTS,
    "plane": ("remove", "none"),
    "rgb_backbone": ("efficientnet_lite0", "dino_vitb8"),
    "point_backbone": ("pointmae_small", "pointmae"),
    "extractor_mode": ("eval", "train"),
    "decoder_order": ("gelu-norm", "norm-gelu"),
    "cbam_scope": ("map", "pixel"),
    "znssd_over": ("pixels", "channels"),
    "smooth_channels": ("all", "first_two"),
    "fusion": FUSIONS,
    "blur": ("gaussian", "box"),
    "image_score": ("max", "max-over-root-mean"),
    "map_scaling": ("none", "per-metric"),
    "precision": ("auto", "float32", "tf32", "bfloat16"),
    "device": ("auto", "cpu", "cuda"),
    **BASELINE_CHOICES,
}
_POSITIVE = (
    "image_size", "rgb_dim", "xyz_dim", "grid", "groups", "group_size", "xyz_pool", "cbam_reduction",
    "cbam_kernel", "census_kernel", "epochs", "learning_rate", "sigma", "decoder_layers", "bootstrap",
    "mvtec3d_train", "eyecandies_train", "validation_count", "test_good", "test_defective", "samples_a_step",
    *BASELINE_POSITIVE,
)  # fmt: skip
_ODD = ("cbam_kernel", "census_kernel", "xyz_pool")


def _choice(what: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"unknown {what} {value!r}; choose one of {', '.join(allowed)}")


def _validate(config: Config) -> None:
    for name, allowed in _CHOICES.items():
        _choice(name, getattr(config, name), allowed)
    for name in _POSITIVE:
        if not getattr(config, name) > 0:
            raise ConfigError(f"{name} must be positive, not {getattr(config, name)}")
    for name in _ODD:
        if getattr(config, name) % 2 == 0:
            raise ConfigError(f"{name} must be odd, not {getattr(config, name)}")
    for name in ("seed", "threads", "min_steps", *_PRUNING):
        if getattr(config, name) < 0:
            raise ConfigError(f"{name} must not be negative, not {getattr(config, name)}")
    for dataset in DATASETS:
        if not config.categories(dataset):
            raise ConfigError(f"{dataset}_categories must name at least one category")
        for category in config.categories(dataset):
            if config.generated:  # real data may hold categories of one's own
                _choice(f"{dataset} category", category, CATEGORIES[dataset])
    if not config.loss_terms or len(set(config.loss_terms)) != len(config.loss_terms):
        raise ConfigError(f"loss_terms must name each term once, not {config.loss_terms}")
    for term in config.loss_terms:
        _choice("loss term", term, LOSS_TERMS)
    if config.generated and config.raw_side < 60:
        raise ConfigError(f"raw_side must be at least 60 pixels for generated data, not {config.raw_side}")
    if config.image_size % config.grid:
        raise ConfigError(f"image_size {config.image_size} must be a multiple of grid {config.grid}")
    if not 0 <= config.dropout < 1:
        raise ConfigError(f"dropout must be in [0, 1), not {config.dropout}")
    if not 0 < config.quantile <= 1:
        raise ConfigError(f"quantile must be in (0, 1], not {config.quantile}")
    if config.decoder_layers < 3:
        raise ConfigError(f"decoder_layers must be at least 3, not {config.decoder_layers}")
    if any(shot < 1 for shot in config.shots):
        raise ConfigError(f"shots must be positive, not {config.shots}")
