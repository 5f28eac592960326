"""Every method by name: its title, its class, and what is asked of it by name. Classes are loaded when first needed.

To add a method, write its class, a `mafr.method.Method`, and a line here; to have it in a table, name it in
`mafr.experiments.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mafr.config import Config
from mafr.errors import ConfigError

if TYPE_CHECKING:
    from mafr.features.weights.files import WeightFile
    from mafr.method import Method

MAFR = "mafr"


@dataclass(frozen=True)
class Listed:
    """A method: its name in the paper's tables, and where its class is.

    variants: whether it is the paper's own, which has variants, loss terms and fusion operators.
    """

    title: str
    address: str
    variants: bool = False


# name in the run store and on the command line -> method
_LISTED = {
    "depthgan": Listed("DepthGAN", "mafr.baselines.depth:DepthGAN"),
    "depthae": Listed("DepthAE", "mafr.baselines.depth:DepthAE"),
    "depthvm": Listed("DepthVM", "mafr.baselines.depth:DepthVM"),
    "voxelgan": Listed("VoxelGAN", "mafr.baselines.voxel:VoxelGAN"),
    "voxelae": Listed("VoxelAE", "mafr.baselines.voxel:VoxelAE"),
    "voxelvm": Listed("VoxelVM", "mafr.baselines.voxel:VoxelVM"),
    "rgbd": Listed("RGB-D", "mafr.baselines.rgbd:RGBD"),
    "rgbcdn": Listed("RGB-cD-n", "mafr.baselines.rgbd:RGBcDn"),
    "btf": Listed("BTF", "mafr.baselines.btf:BTF"),
    "ast": Listed("AST", "mafr.baselines.ast:AST"),
    "m3dm": Listed("M3DM", "mafr.baselines.m3dm:M3DM"),
    "cfm": Listed("CFM", "mafr.baselines.cfm:CFM"),
    "cfm_m": Listed("CFM-M", "mafr.baselines.cfm:CFMMedium"),
    MAFR: Listed("MAFR", "mafr.detector:Detector", variants=True),
}
METHODS = tuple(_LISTED)
BASELINES = tuple(name for name, listed in _LISTED.items() if not listed.variants)


def title(method: str) -> str:
    """A method's name as the paper prints it."""
    return _LISTED[method].title


def has_variants(method: str) -> bool:
    """Whether a method has variants, loss terms and fusion operators: the paper's own."""
    return _LISTED[method].variants


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the usual order. Raises ConfigError for an unknown one."""
    given = tuple(names)
    if unknown := set(given) - set(METHODS):
        raise ConfigError(f"unknown method {', '.join(sorted(unknown))}; the methods are {', '.join(METHODS)}")
    return tuple(name for name in METHODS if name in given)


def method_settings(method: str, config: Config, variant: str | None = None) -> Config:
    """The settings of a method's runs. variant: of the paper's own (default: the config's); others have none."""
    if has_variants(method):
        return config.with_variant(variant or config.variant)
    return config.with_variant("paper")


def method_class(method: str) -> type[Method]:
    """The class of a method."""
    module, _, name = _LISTED[method].address.partition(":")
    return getattr(import_module(module), name)


def feature_config(method: str, config: Config) -> Config:
    """The settings whose stored features a method reads."""
    return method_class(method).feature_config(config)


def weight_files(config: Config, methods: Iterable[str] = METHODS) -> tuple[WeightFile, ...]:
    """The downloaded files of backbones of their own that some methods need."""
    if config.random_weights:
        return ()
    return tuple(file for method in check_methods(methods) for file in method_class(method).weight_files(config))


def load_detector(folder: str | Path) -> Method:
    """A saved detector of any method. Raises WeightsError if a file is missing, damaged or of another version."""
    from mafr.method import read_record

    name = read_record(Path(folder)).get("method", MAFR)
    return method_class(name if name in METHODS else MAFR).load(folder)
