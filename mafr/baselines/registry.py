"""Every method by name: its title and its class, which is imported when first needed.

To add a method, write its class, a `mafr.method.Method`, and a line here; to have it in a table, name it in
`mafr.experiments.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mafr.config import Config
from mafr.errors import ConfigError

if TYPE_CHECKING:
    from mafr.features.weights.files import WeightFile
    from mafr.method import Method

MAFR = "mafr"
# Name in the run store and on the command line -> name in the paper's tables, module, class.
_LISTED = {
    "depthgan": ("DepthGAN", "mafr.baselines.mvtec_benchmark", "DepthGAN"),
    "depthae": ("DepthAE", "mafr.baselines.mvtec_benchmark", "DepthAE"),
    "depthvm": ("DepthVM", "mafr.baselines.mvtec_benchmark", "DepthVM"),
    "voxelgan": ("VoxelGAN", "mafr.baselines.mvtec_benchmark", "VoxelGAN"),
    "voxelae": ("VoxelAE", "mafr.baselines.mvtec_benchmark", "VoxelAE"),
    "voxelvm": ("VoxelVM", "mafr.baselines.mvtec_benchmark", "VoxelVM"),
    "rgbd": ("RGB-D", "mafr.baselines.rgbd", "RGBD"),
    "rgbcdn": ("RGB-cD-n", "mafr.baselines.rgbd", "RGBcDn"),
    "btf": ("BTF", "mafr.baselines.btf", "BTF"),
    "ast": ("AST", "mafr.baselines.ast", "AST"),
    "m3dm": ("M3DM", "mafr.baselines.m3dm", "M3DM"),
    "cfm": ("CFM", "mafr.baselines.cfm", "CFM"),
    "cfm_m": ("CFM-M", "mafr.baselines.cfm", "CFMMedium"),
    # Single features of BTF's study, in no table of the paper.
    "fpfh": ("FPFH", "mafr.baselines.single_features", "FPFH"),
    "raw_depth": ("Raw depth", "mafr.baselines.single_features", "RawDepth"),
    "hog": ("HoG", "mafr.baselines.single_features", "HoG"),
    "sift": ("SIFT", "mafr.baselines.single_features", "SIFT"),
    MAFR: ("MAFR", "mafr.detector", "Detector"),
}
# Settings that follow the data set, as published: CFM's network on Eyecandies is deeper, by its author's word, and
# trained for 50 epochs at batch 2; M3DM's images of MVTec 3D-AD are black off the part. Eyecandies' clouds are not in
# the camera's frame.
_BY_DATASET: dict[tuple[str, str], dict[str, object]] = {
    **{(method, "eyecandies"): {"cfm_layers": 7} for method in ("cfm", "cfm_m")},
    **{(method, "eyecandies"): {"depth_along": "fitted"} for method in ("raw_depth", "hog", "sift")},
}
_BY_DATASET_AT_FULL_SIZE: dict[tuple[str, str], dict[str, object]] = {
    ("m3dm", "mvtec3d"): {"image_background": "black"},
    ("cfm", "eyecandies"): {"cfm_epochs": 50, "cfm_batch": 2},
    ("cfm_m", "eyecandies"): {"cfm_epochs": 50, "cfm_batch": 2},
}
METHODS = tuple(_LISTED)
BASELINES = tuple(name for name in METHODS if name != MAFR)


def title(method: str) -> str:
    """A method's name as the paper prints it."""
    return _LISTED[method][0]


def has_variants(method: str) -> bool:
    """Whether a method has variants, loss terms and fusion operators, as the paper's own alone has."""
    return method == MAFR


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the usual order. Raises ConfigError for an unknown one."""
    given = tuple(names)
    if unknown := set(given) - set(METHODS):
        raise ConfigError(f"unknown method {', '.join(sorted(unknown))}; the methods are {', '.join(METHODS)}")
    return tuple(name for name in METHODS if name in given)


def method_settings(method: str, config: Config, variant: str | None = None, dataset: str = "mvtec3d") -> Config:
    """The settings of a method's runs on a data set.

    variant: of the paper's own (default: the config's); others have none, and take the inputs of `paper`.
    """
    if has_variants(method):
        return config.with_variant(variant or config.variant)
    own = _BY_DATASET.get((method, dataset), {}) | (
        _BY_DATASET_AT_FULL_SIZE.get((method, dataset), {}) if config.profile == "full" else {}
    )
    return replace(config.with_variant("paper"), **own)


def method_class(method: str) -> type[Method]:
    """The class of a method."""
    _, module, name = _LISTED[method]
    return getattr(import_module(module), name)


def feature_config(method: str, config: Config) -> Config:
    """The settings whose stored features a method reads."""
    return method_class(method).feature_config(config)


def weight_files(config: Config, methods: Iterable[str] = METHODS) -> tuple[WeightFile, ...]:
    """The downloaded files of the methods' own backbones."""
    if config.random_weights:
        return ()
    return tuple(file for method in check_methods(methods) for file in method_class(method).weight_files(config))


def load_detector(folder: str | Path) -> Method:
    """A saved detector of any method. Raises WeightsError if a file is missing, damaged or of another version."""
    from mafr.method import read_record

    name = read_record(Path(folder)).get("method", MAFR)
    return method_class(name if name in METHODS else MAFR).load(folder)
