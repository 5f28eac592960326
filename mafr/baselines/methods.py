"""The compared methods: their names, the tables that they stand in, and which settings concern them."""

from __future__ import annotations

from collections.abc import Iterable

from mafr.config import SETTINGS, Config
from mafr.errors import ConfigError
from mafr.settings.field import ALL

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


def concerns(method: str, setting: str) -> bool:
    """Whether a setting may change a method's results; of one that only a foreign record has, nobody knows."""
    owners = SETTINGS[setting].metadata["of"] if setting in SETTINGS else ALL
    return owners == ALL or method in owners


def baseline_settings(config: Config) -> Config:
    """The settings of the compared methods' runs: they have no variants, so the same for both."""
    return config.with_variant("paper")
