"""The command that measures on real scans: `validate`."""

import argparse

from mafr.cli.options import HELP_AS_WRITTEN, Commands, add_same_bytes, check_counts, names
from mafr.errors import ResultError, printable


def add_validate(commands: Commands) -> None:
    from mafr.experiments.validation import PARTS

    text = "check published numbers on real scans, and try all methods there"
    parts = "\n".join(f"  {name:12} {what}" for name, what in PARTS.items())
    described = (
        f"{text}\n\nWorks on every published category that DIR holds (processed/<data set>/<category>, made by\n"
        f"`mafr data`). "
        f"Finished runs are kept; the tables go to tables/real/ and show what is finished.\n\nparts:\n{parts}"
    )
    sub = commands.add_parser("validate", help=text, description=described, formatter_class=HELP_AS_WRITTEN)
    sub.set_defaults(run=validate)
    sub.add_argument("--data-root", metavar="DIR", required=True, help="folder with processed/ real data")
    sub.add_argument("--parts", type=names, metavar="A,B", help="only these (default: all)")
    text = "published sizes and lengths everywhere: days on two cores, meant for a GPU"
    sub.add_argument("--whole", action="store_true", help=text)
    sub.add_argument("--tables-only", action="store_true", help="write the tables of what is finished")
    sub.add_argument("--workers", type=int, metavar="N", help="local processes (default: one per processor)")
    add_same_bytes(sub)


def validate(arguments: argparse.Namespace) -> None:
    """Runs on real scans and their tables."""
    from mafr.experiments.validation import PARTS, real_categories, run_trials, stored_trials, trials
    from mafr.paths import Paths
    from mafr.tables.real import validation_table, write_real_tables

    check_counts(arguments)
    paths = Paths.resolve("demo", data_root=arguments.data_root)
    categories = real_categories(paths)
    if not arguments.tables_only:
        run_trials(trials(categories, arguments.parts or tuple(PARTS), arguments.whole), paths, arguments.workers)
    done = stored_trials(trials(categories, whole=arguments.whole), paths)
    if not done:
        raise ResultError(f"no trial is finished on {paths.data}; leave out --tables-only to make them")
    if (table := validation_table(done)).entries:
        print(table.to_markdown())
    for path in write_real_tables(done, paths.root / "tables" / "real"):
        print(printable(str(path)))
