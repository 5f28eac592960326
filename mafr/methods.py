"""The compared methods: their names, the tables that they stand in, and where their code is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mafr.baseline_settings import PREFIXES
from mafr.config import Config
from mafr.errors import ConfigError

if TYPE_CHECKING:
    from mafr.baselines.base import Baseline
    from mafr.detector import Detector

MAFR = "mafr"
# name in the run store and on the command line -> (title in the paper's tables, module in mafr.baselines)
_METHODS = {
    "depthgan": ("DepthGAN", "depth_methods"),
    "depthae": ("DepthAE", "depth_methods"),
    "depthvm": ("DepthVM", "depth_methods"),
    "voxelgan": ("VoxelGAN", "voxel_methods"),
    "voxelae": ("VoxelAE", "voxel_methods"),
    "voxelvm": ("VoxelVM", "voxel_methods"),
    "rgbd": ("RGB-D", "rgbd"),
    "rgbcdn": ("RGB-cD-n", "rgbd"),
    "btf": ("BTF", "btf"),
    "ast": ("AST", "student_teacher"),
    "m3dm": ("M3DM", "m3dm"),
    "cfm": ("CFM", "cfm"),
    "cfm_m": ("CFM-M", "cfm"),
}
BASELINES = tuple(_METHODS)
METHODS = (*BASELINES, MAFR)
# The compared methods of each table, in the paper's order.
TABLE_METHODS = {
    1: ("depthgan", "depthae", "depthvm", "voxelgan", "voxelae", "voxelvm", "btf", "ast", "m3dm", "cfm"),
    2: ("rgbd", "rgbcdn", "ast", "m3dm", "cfm", "cfm_m"),
    3: ("btf", "ast", "m3dm", "cfm"),
}


def title(method: str) -> str:
    """A method's name as the paper prints it."""
    return "MAFR" if method == MAFR else _METHODS[method][0]


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the usual order. Raises ConfigError for an unknown one."""
    given = tuple(names)
    if unknown := set(given) - set(METHODS):
        raise ConfigError(f"unknown method {', '.join(sorted(unknown))}; the methods are {', '.join(METHODS)}")
    return tuple(name for name in METHODS if name in given)


# Settings of MAFR's head, losses and scoring: no compared method looks at them.
_MAFR_SETTINGS = {
    "variant", "fused_dim", "dropout", "decoder_layers", "decoder_order", "shared_norm", "cbam_scope",
    "cbam_reduction", "cbam_kernel", "loss_terms", "weight_sim", "weight_smooth", "weight_census", "znssd_over",
    "smooth_channels", "census_kernel", "valid_only", "epochs", "learning_rate", "fusion", "image_score", "map_scaling",
}  # fmt: skip


def concerns(method: str, setting: str) -> bool:
    """Whether a setting may change a method's results."""
    for prefix, owners in PREFIXES.items():
        if setting.startswith(prefix):
            return method in owners
    return method == MAFR or setting not in _MAFR_SETTINGS


def baseline_settings(config: Config) -> Config:
    """The settings of the compared methods' runs: they have no variants, so the same for both."""
    return config.with_variant("paper")


def feature_config(method: str, config: Config) -> Config:
    """The settings whose stored features a method reads."""
    return config if method == MAFR else baseline_class(method).feature_config(config)


def baseline_class(method: str) -> type[Baseline]:
    """The class of a compared method; its module is imported now."""
    from mafr.baselines.base import Baseline

    module = import_module(f"mafr.baselines.{_METHODS[method][1]}")
    classes = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Baseline))
    return next(found for found in classes if getattr(found, "name", None) == method)


def load_detector(folder: str | Path) -> Detector | Baseline:
    """A saved detector of any method. Raises WeightsError if a file is missing, damaged or of another version."""
    from mafr.detector import Detector

    try:
        method = json.loads((Path(folder) / "detector.json").read_text(encoding="utf-8"))["method"]
    except (OSError, ValueError, KeyError, TypeError):
        method = MAFR  # whose loader says what is wrong
    return baseline_class(method).load(folder) if method in BASELINES else Detector.load(folder)
