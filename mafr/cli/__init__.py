"""The command line, `mafr COMMAND`: one file per group of commands, put together in `parser`.

In a group's file the function that adds a command's options stands above the one that runs it. `options` holds the
options that commands share. Heavy imports wait until a command needs them: `mafr --help` is quick and loads no torch.
"""

import codecs
import sys

from mafr.disk import explained
from mafr.errors import MafrError, notice
from mafr.processor import limit

_PLAIN = {"…": "...", "±": "+-", "×": "x", "–": "-", "—": "-", "→": "->", "·": "*", "≥": ">=", "≤": "<=", "−": "-"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from mafr.cli.parser import build_parser

    _degrade_output()
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


def _degrade_output() -> None:
    """Let the output show what its encoding has, and plain characters for the rest, instead of failing."""
    codecs.register_error("mafr-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="mafr-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: the nearest plain characters, or a question mark for each."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end
