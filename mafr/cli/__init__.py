"""The command line, `mafr COMMAND`: one file per group of commands, put together in `parser`.

In a group's file the function that adds a command's options stands above the one that runs it. `options` holds the
options that commands share. Heavy imports wait until a command needs them: `mafr --help` is quick and loads no torch.
"""

import sys

from mafr.errors import MafrError, notice


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from mafr.cli.parser import build_parser

    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except MafrError as error:
        print(f"mafr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mafr: interrupted; finished runs are kept, the same command continues from here", file=sys.stderr)
        return 130
    except OSError as error:
        notice(f"{error}; finished runs are kept, the same command continues from here")
        return 1
    return 0
