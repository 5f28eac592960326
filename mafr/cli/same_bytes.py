"""A command that starts others so that their results repeat to the byte on other processors: `same-bytes`."""

import argparse
import os

from mafr.cli.options import HELP_AS_WRITTEN, Commands
from mafr.errors import ConfigError
from mafr.processor import REACHES, limit


def add_same_bytes_command(commands: Commands) -> None:
    text = "start another command so that its results repeat to the byte on other processors"
    described = (
        f"{text}:\n\n"
        "  mafr same-bytes x86 jupyter lab notebooks/02_method.ipynb\n"
        "  mafr same-bytes intel dask worker tcp://host:8786 --nthreads 1\n\n"
        "Commands of mafr that compute have the option --same-bytes instead. Both set environment variables, which\n"
        "all children inherit, so that libraries take their code for AVX2. It takes longer, with x86 most."
    )
    sub = commands.add_parser("same-bytes", help=text, description=described, formatter_class=HELP_AS_WRITTEN)
    sub.set_defaults(run=start_limited)
    sub.add_argument("reach", choices=REACHES, help="; ".join(f"{name}: {where}" for name, where in REACHES.items()))
    sub.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="with its own options")


def start_limited(arguments: argparse.Namespace) -> None:
    if not arguments.command:
        raise ConfigError("give the command to start, such as `mafr same-bytes x86 jupyter lab`")
    limit(arguments.reach)
    try:
        os.execvp(arguments.command[0], arguments.command)
    except OSError as error:
        raise ConfigError(f"{arguments.command[0]} cannot be started: {error.strerror}") from error
