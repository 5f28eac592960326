"""The command line, `mafr COMMAND`: one file per group of commands, put together in `parser`.

In a group's file the function that adds a command's options stands above the one that runs it. `options` holds the
options that commands share. Heavy imports wait until a command needs them: `mafr --help` is quick and loads no torch.
"""

import sys

from mafr.cli.terminal import GONE, has_reader, prepare_output, silence
from mafr.disk import explained
from mafr.errors import MafrError, notice
from mafr.processor import limit

# The commands that keep no runs; what some keep else they say themselves.
_KEEP_NO_RUNS = ("predict", "survey_scans", "print_settings", "fit_detector", "import_released", "show_weights")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    prepare_output()
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on, as in `mafr config | head -1`
        silence()
        return GONE
    except OSError as error:  # a full disk, where the output goes to a file
        silence()
        notice(f"standard output: {explained(error)}")
        return 1


def _run(argv: list[str] | None) -> int:
    from mafr.cli.parser import build_parser

    arguments = build_parser().parse_args(argv)
    keeps = arguments.run.__name__ not in _KEEP_NO_RUNS
    kept = "; finished runs are kept, the same command continues from here" if keeps else ""
    try:
        if reach := getattr(arguments, "same_bytes", None):
            limit(reach)  # before a command loads torch
        return arguments.run(arguments) or 0
    except MafrError as error:
        notice(str(error))
        return 1
    except KeyboardInterrupt:
        notice(f"interrupted{kept}")
        return 130
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not has_reader():
            raise
        notice(f"{explained(error)}{kept}")
        return 1
