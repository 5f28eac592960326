"""The command that measures the preset for own parts on development categories: `develop`."""

import argparse

from mafr.cli.options import Commands, add_same_bytes, check_counts
from mafr.errors import ResultError, printable
from mafr.settings.field import check_choice

STUDIES = ("ladder", "alternatives", "points", "few", "finer", "grids", "mvtec3d", "eyecandies")


def add_develop(commands: Commands) -> None:
    text = "what each part of the preset for own parts is worth, on generated categories"
    sub = commands.add_parser("develop", help=text, description=f"{text}; finished runs are kept")
    sub.set_defaults(run=develop)
    sub.add_argument("studies", nargs="*", metavar="TABLE", help=f"{', '.join(STUDIES)} (default: all)")
    sub.add_argument("--tables-only", action="store_true", help="write the tables of what is finished")
    sub.add_argument("--workers", type=int, metavar="N", help="local processes (default: one per processor)")
    add_same_bytes(sub)


def develop(arguments: argparse.Namespace) -> None:
    """The runs on development categories, and their tables in tables/development/."""
    from mafr.experiments.development import PROFILE, measure, stored, studies
    from mafr.paths import Paths
    from mafr.tables.development import development_table
    from mafr.tables.layout import write

    check_counts(arguments)
    for name in arguments.studies:
        check_choice("table", name, STUDIES)
    paths = Paths.resolve(PROFILE)
    wanted = [study for study in studies() if not arguments.studies or study.name in arguments.studies]
    every = [step for study in wanted for step in study.steps]
    records = stored(every, paths) if arguments.tables_only else measure(every, paths, arguments.workers)
    if not records:
        raise ResultError("none of these runs is finished; leave out --tables-only to make them")
    for study in wanted:
        if (table := development_table(study, records)).entries:
            print(table.to_markdown())
            for path in write(table, paths.root / "tables" / "development"):
                print(printable(str(path)))
