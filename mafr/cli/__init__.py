"""The command line, `mafr COMMAND`: one file per group of commands, put together in `parser`.

In a group's file the function that adds a command's options stands above the one that runs it. `options` holds the
options that commands share. Heavy imports wait until a command needs them: `mafr --help` is quick and loads no torch.
"""

from mafr.cli.terminal import prepare_output
from mafr.disk import explained
from mafr.errors import MafrError, notice
from mafr.processor import limit


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from mafr.cli.parser import build_parser

    prepare_output()
    arguments = build_parser().parse_args(argv)
    # Of the commands that keep what is finished; these two make no runs.
    makes_runs = arguments.run.__name__ not in ("predict", "survey_scans")
    kept = "; finished runs are kept, the same command continues from here" if makes_runs else ""
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
        notice(f"{explained(error)}{kept}")
        return 1
