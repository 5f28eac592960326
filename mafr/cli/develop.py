"""The command that measures the preset for own parts on development categories: `develop`."""

import argparse

from mafr.cli.options import Commands, add_same_bytes, check_counts
from mafr.errors import ResultError, printable


def add_develop(commands: Commands) -> None:
    text = "what each part of the preset for own parts is worth, on generated development categories"
    sub = commands.add_parser("develop", help=text, description=f"{text}; finished runs are kept")
    sub.set_defaults(run=develop)
    sub.add_argument("--tables-only", action="store_true", help="write the tables of what is finished")
    sub.add_argument("--workers", type=int, metavar="N", help="local processes (default: one per processor)")
    add_same_bytes(sub)


def develop(arguments: argparse.Namespace) -> None:
    """The runs of the ladder and of the alternatives, and their tables in tables/development/."""
    from mafr.experiments.development import PROFILE, alternatives, ladder, measure, stored
    from mafr.paths import Paths
    from mafr.tables.development import development_table
    from mafr.tables.layout import write

    check_counts(arguments)
    paths, lists = Paths.resolve(PROFILE), (ladder(), alternatives())
    every = [step for steps in lists for step in steps]
    records = stored(every, paths) if arguments.tables_only else measure(every, paths, arguments.workers)
    if not records:
        raise ResultError("no run of the development categories is finished; leave out --tables-only to make them")
    named = (("ladder", "From the demo's settings to the preset"), ("alternatives", "The preset, changed by one thing"))
    for (number, heading), steps in zip(named, lists, strict=True):
        if (table := development_table(number, heading, steps, records)).entries:
            print(table.to_markdown())
            for path in write(table, paths.root / "tables" / "development"):
                print(printable(str(path)))
