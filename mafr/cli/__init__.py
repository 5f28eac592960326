"""The command line, `mafr COMMAND`: `parser` says which commands and options there are, `commands` what they do.

`main` is what the installed script and `python -m mafr.cli` run.
"""

from __future__ import annotations

import sys

from mafr.errors import MafrError


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
        print("mafr: interrupted; finished runs are kept, the same command goes on from here", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"mafr: {error}; finished runs are kept, the same command goes on from here", file=sys.stderr)
        return 1
    return 0
