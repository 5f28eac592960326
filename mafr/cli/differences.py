"""The command that measures each difference between the paper's text and the released code: `differences`."""

import argparse

from mafr.cli.options import Commands, add_command, chosen_workers, read_settings
from mafr.errors import printable


def add_differences(commands: Commands) -> None:
    text = (
        "Tables S8 and S9: each difference between the paper's text and the released code alone, and the loss terms "
        "with corrected scores; not part of `mafr reproduce`, whose data it uses; finished runs are kept"
    )
    add_command(commands, "differences", measure_differences, text, cluster=True)


def measure_differences(arguments: argparse.Namespace) -> None:
    """The runs with one setting changed, the loss ablation of both variants, and their tables."""
    from mafr.cli.stages import run_stages
    from mafr.experiments.corrected import corrected_scores
    from mafr.experiments.differences import DATASET, loss_ablations, measure
    from mafr.experiments.prepare import prepare_data
    from mafr.tables.differences import corrected_table, differences_table
    from mafr.tables.layout import write

    config, paths = read_settings(arguments)
    losses = [run for rows in loss_ablations(config).values() for row in rows.values() for run in row]
    records, corrected = {}, {}
    with chosen_workers(arguments, config, paths) as crew:
        run_stages({
            "data": lambda: prepare_data(config, paths, crew, (DATASET,)),
            "runs": lambda: records.update(measure(config, paths, crew)),
            "corrected": lambda: corrected.update(zip(losses, corrected_scores(losses, paths, crew), strict=True)),
        })  # fmt: skip
    for table in (differences_table(records, config), corrected_table(records, corrected, config)):
        for path in write(table, paths.tables):
            print(printable(str(path)))
