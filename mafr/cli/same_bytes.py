"""A command that starts others so that their results repeat on every processor: `same-bytes`."""

import argparse
import os

from mafr.cli.options import HELP_AS_WRITTEN, Commands
from mafr.errors import ConfigError
from mafr.processor import limit


def add_same_bytes_command(commands: Commands) -> None:
    text = "start another command so that it computes the same bytes on every x86-64 processor with AVX2"
    described = (
        f"{text}:\n\n"
        "  mafr same-bytes jupyter lab notebooks/02_method.ipynb\n"
        "  mafr same-bytes dask worker tcp://host:8786 --nthreads 1\n\n"
        "Commands of mafr that compute have the option --same-bytes instead. With AVX-512 they then take longer.\n"
        "Everything is in environment variables, which the command and its children inherit."
    )
    sub = commands.add_parser("same-bytes", help=text, description=described, formatter_class=HELP_AS_WRITTEN)
    sub.set_defaults(run=start_limited)
    sub.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="with its own options")


def start_limited(arguments: argparse.Namespace) -> None:
    if not arguments.command:
        raise ConfigError("give the command to start, such as `mafr same-bytes jupyter lab`")
    limit()
    try:
        os.execvp(arguments.command[0], arguments.command)
    except OSError as error:
        raise ConfigError(f"{arguments.command[0]} cannot be started: {error.strerror}") from error
