"""The command `config`: the settings, printed."""

from __future__ import annotations

import argparse

from mafr.cli.options import Commands, add_command, read_settings


def add_config(commands: Commands) -> None:
    text = "print every setting of a profile and a variant"
    add_command(commands, "config", show_config, text, parallel=False)


def show_config(arguments: argparse.Namespace) -> None:
    """Every setting of a profile and a variant."""
    config, _ = read_settings(arguments)
    for name, value in config.as_dict().items():
        print(f"{name:22} {value}")
