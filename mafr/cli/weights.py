"""Commands about the backbones' weights: `weights`, `pretrain-points`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mafr.cli.options import Commands, add_command, read_settings


def add_weights(commands: Commands) -> None:
    sub = add_command(commands, "weights", show_weights, "show the backbones' weight files, and fetch them",
                      parallel=False, profile="full")  # fmt: skip
    sub.add_argument("--fetch", action="store_true", help="download what is missing")


def show_weights(arguments: argparse.Namespace) -> None:
    """What weight files there are; those that are missing on request."""
    from mafr.baselines.registry import weight_files
    from mafr.features.weights.files import needed_files, provide_files
    from mafr.features.weights.report import weights_report

    config, paths = read_settings(arguments)
    others = weight_files(config)
    if arguments.fetch:
        provide_files(config, paths.weights, (*needed_files(config), *others))
    print(weights_report(config, paths.weights, others))


def add_pretrain_points(commands: Commands) -> None:
    sub = commands.add_parser("pretrain-points", help="pretrain the small Point-MAE again, as it was shipped")
    sub.set_defaults(run=pretrain_points)
    sub.add_argument("--out", default="pretrained", metavar="DIR")
    sub.add_argument("--steps", type=int, help="default: as shipped")
    sub.add_argument("--seed", type=int, help="default: as shipped")


def pretrain_points(arguments: argparse.Namespace) -> None:
    """The small Point-MAE, pretrained again."""
    from mafr.features.pretraining.pretrain import PretrainSettings, pretrain

    given = {name: getattr(arguments, name) for name in ("steps", "seed")}
    settings = PretrainSettings(**{name: value for name, value in given.items() if value is not None})
    print(f"weights in {pretrain(Path(arguments.out), settings)}")
