"""The command that measures what the seed alone changes: `seeds`."""

import argparse

from mafr.cli.options import Commands, add_command, chosen_workers, read_settings
from mafr.errors import printable


def add_seeds(commands: Commands) -> None:
    from mafr.experiments.plan import SEED_METHODS, SEEDS

    text = (
        f"Tables S4 and S6: {SEEDS} seeds of {', '.join(SEED_METHODS)} in Tables I and II, their spread and MAFR's "
        "paired differences; not part of `mafr reproduce`, whose data, features and runs it uses; finished runs are "
        "kept"
    )
    sub = add_command(commands, "seeds", measure_seeds, text, cluster=True)
    text = "note in tests/digests.json on which processor the table was met"
    sub.add_argument("--digest", action="store_true", help=text)


def measure_seeds(arguments: argparse.Namespace) -> None:
    """The runs of all seeds, and the table of their spread."""
    from mafr.cli.stages import run_stages
    from mafr.config import DATASETS
    from mafr.experiments.execute import run_all
    from mafr.experiments.plan import SEED_METHODS, seed_runs
    from mafr.experiments.prepare import extract_all, prepare_data
    from mafr.tables.digests import SEEDS, note_digest
    from mafr.tables.layout import write
    from mafr.tables.paired import paired_seeds_table
    from mafr.tables.seeds import seeds_table

    config, paths = read_settings(arguments)
    runs, records = seed_runs(config), {}
    with chosen_workers(arguments, config, paths) as crew:
        run_stages({
            "data": lambda: prepare_data(config, paths, crew),
            "features": lambda: extract_all(config, paths, crew, DATASETS, SEED_METHODS, (config.variant,)),
            "runs": lambda: records.update(run_all(runs, paths, crew)),
        })  # fmt: skip
    for table in (seeds_table(records, config), paired_seeds_table(records, config)):
        for path in write(table, paths.tables):
            print(printable(str(path)))
    if arguments.digest:
        print(printable(note_digest(SEEDS, records, config, paths)))
