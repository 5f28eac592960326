"""From a method's name to its class: what the runs, the command line and saved detectors go by."""

from __future__ import annotations

import json
from pathlib import Path

from mafr.baselines.ast import AST
from mafr.baselines.base import Baseline
from mafr.baselines.btf import BTF
from mafr.baselines.cfm import CFM, CFMMedium
from mafr.baselines.depth import DepthAE, DepthGAN, DepthVM
from mafr.baselines.m3dm import M3DM
from mafr.baselines.methods import BASELINES, MAFR
from mafr.baselines.rgbd import RGBD, RGBcDn
from mafr.baselines.voxel import VoxelAE, VoxelGAN, VoxelVM
from mafr.config import Config
from mafr.detector import Detector

_CLASSES: dict[str, type[Baseline]] = {
    kind.name: kind
    for kind in (
        DepthGAN, DepthAE, DepthVM, VoxelGAN, VoxelAE, VoxelVM, RGBD, RGBcDn, BTF, AST, M3DM, CFM, CFMMedium,
    )
}  # fmt: skip


def baseline_class(method: str) -> type[Baseline]:
    """The class of a compared method."""
    return _CLASSES[method]


def feature_config(method: str, config: Config) -> Config:
    """The settings whose stored features a method reads."""
    return config if method == MAFR else baseline_class(method).feature_config(config)


def load_detector(folder: str | Path) -> Detector | Baseline:
    """A saved detector of any method. Raises WeightsError if a file is missing, damaged or of another version."""
    try:
        method = json.loads((Path(folder) / "detector.json").read_text(encoding="utf-8"))["method"]
    except (OSError, ValueError, KeyError, TypeError):
        method = MAFR  # whose loader says what is wrong
    return baseline_class(method).load(folder) if method in BASELINES else Detector.load(folder)
