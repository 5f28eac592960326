"""The command that measures raw scans: `survey`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mafr.cli.options import HELP_AS_WRITTEN, Commands, check_counts, names
from mafr.errors import ConfigError, DataError, printable

if TYPE_CHECKING:
    from mafr.paths import Paths

DESCRIPTION = """\
measure raw scans: gaps, noise, silhouettes, sizes of defects

Works on the raw categories in DIR/raw/mvtec3d. Published categories get as many generated scans beside them;
the table goes to tables/real/scans.*, a picture to figures/real_scans.png. Categories of your own are measured
alone; their table goes to tables/own_data/scans.*, their picture to figures/own_data/scans.png.

With --scores instead: whether generated scans put methods and settings in the order in which the real scans of
DIR/processed/mvtec3d put them; the table goes to tables/real/order_CATEGORY.*.
"""


def add_survey(commands: Commands) -> None:
    text = DESCRIPTION.partition("\n")[0]
    sub = commands.add_parser("survey", help=text, description=DESCRIPTION, formatter_class=HELP_AS_WRITTEN)
    sub.set_defaults(run=survey_scans)
    sub.add_argument("--data-root", metavar="DIR", required=True, help="folder with raw/mvtec3d/<category>")
    sub.add_argument("--categories", metavar="A,B", type=names, help="only these (default: all)")
    text = "none: scans without a table under the part"
    sub.add_argument("--plane", choices=("remove", "none"), default="remove", help=text)
    text = "run methods on DIR's processed published categories and on generated scans of them; half an hour each"
    sub.add_argument("--scores", action="store_true", help=text)
    sub.add_argument("--workers", type=int, metavar="N", help="local processes (default: one per processor)")


def survey_scans(arguments: argparse.Namespace) -> None:
    """The statistics of raw scans, or scores on them, beside generated ones'."""
    from mafr.paths import Paths

    check_counts(arguments)
    if arguments.categories == ():
        raise ConfigError("--categories names no category; give names like a,b, or leave it out for all")
    paths = Paths.resolve("demo", data_root=arguments.data_root)
    (_scores if arguments.scores else _statistics)(paths, arguments)


def _statistics(paths: Paths, arguments: argparse.Namespace) -> None:
    """The statistics of raw scans as a table, and a picture of some."""
    from mafr.config import CATEGORIES
    from mafr.experiments.survey import DATASET, raw_categories, shown_scans, survey
    from mafr.figures.scans import plot_raw_scans
    from mafr.figures.style import save_png
    from mafr.tables.layout import write
    from mafr.tables.scans import scans_table

    found = raw_categories(paths, arguments.categories)
    surveyed = survey(paths, found, arguments.plane, arguments.workers)
    places = {  # published or not -> where its table and its picture go
        True: (paths.root / "tables" / "real", paths.root / "figures" / "real_scans.png"),
        False: (paths.tables, paths.figures / "scans.png"),
    }
    for published, (folder, picture) in places.items():
        chosen = [one for one in surveyed if (one.category in CATEGORIES[DATASET]) == published]
        if not chosen:
            continue
        table = scans_table(chosen)
        print(table.to_markdown())
        shown = {one.category: shown_scans(paths, one.category, found[one.category]) for one in chosen}
        for path in (*write(table, folder), save_png(plot_raw_scans(shown, published), picture)):
            print(printable(str(path)))


def _scores(paths: Paths, arguments: argparse.Namespace) -> None:
    """The order of methods and settings on real scans and on generated ones."""
    from mafr.experiments.order import DATASET, measure
    from mafr.experiments.validation import real_categories
    from mafr.settings.field import check_choice
    from mafr.tables.layout import write
    from mafr.tables.order import order_table

    there = real_categories(paths)[DATASET]
    if not there:
        raise DataError(
            f"{paths.processed(DATASET)} holds no published category, and only those can be generated; "
            f"`mafr data {DATASET} --data-root {paths.data}` makes processed copies"
        )
    for category in arguments.categories or ():
        check_choice("published category with processed scans", category, there)
    for category in arguments.categories or there:
        table = order_table(category, measure(paths, category, arguments.workers))
        print(table.to_markdown())
        for path in write(table, paths.root / "tables" / "real"):
            print(printable(str(path)))
