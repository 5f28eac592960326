"""The compared methods: their names, the tables that they stand in, and which settings concern them."""

from __future__ import annotations

from collections.abc import Iterable

from mafr.baseline_settings import PREFIXES
from mafr.config import Config
from mafr.errors import ConfigError

MAFR = "mafr"
# name in the run store and on the command line -> title in the paper's tables
_TITLES = {
    "depthgan": "DepthGAN",
    "depthae": "DepthAE",
    "depthvm": "DepthVM",
    "voxelgan": "VoxelGAN",
    "voxelae": "VoxelAE",
    "voxelvm": "VoxelVM",
    "rgbd": "RGB-D",
    "rgbcdn": "RGB-cD-n",
    "btf": "BTF",
    "ast": "AST",
    "m3dm": "M3DM",
    "cfm": "CFM",
    "cfm_m": "CFM-M",
}
BASELINES = tuple(_TITLES)
METHODS = (*BASELINES, MAFR)
# The compared methods of each table, in the paper's order.
TABLE_METHODS = {
    1: ("depthgan", "depthae", "depthvm", "voxelgan", "voxelae", "voxelvm", "btf", "ast", "m3dm", "cfm"),
    2: ("rgbd", "rgbcdn", "ast", "m3dm", "cfm", "cfm_m"),
    3: ("btf", "ast", "m3dm", "cfm"),
}


def title(method: str) -> str:
    """A method's name as the paper prints it."""
    return "MAFR" if method == MAFR else _TITLES[method]


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
    "smooth_channels", "census_kernel", "valid_only", "epochs", "learning_rate", "samples_a_step", "fusion",
    "image_score", "map_scaling",
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
