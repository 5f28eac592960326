"""The parser of the `mafr` command, with the commands of all groups."""

import argparse

from mafr import __version__
from mafr.cli import (
    detectors,
    develop,
    differences,
    inputs,
    measure,
    predict,
    runs,
    same_bytes,
    seeds,
    site,
    survey,
    validate,
)
from mafr.cli.options import HELP_AS_WRITTEN

DESCRIPTION = """\
MAFR, reproduced: 2D-3D feature fusion for industrial anomaly detection.

first steps:
  mafr reproduce                 everything in the demo profile: data, features, Tables I-V, figures, notebooks
  mafr reproduce --profile smoke the same in two or three minutes, far smaller, to see that it works
  mafr tables                    write the tables again from the stored runs

your own parts (RGB images and organised point clouds, see "Your own parts" in the README):
  mafr data mvtec3d --source MY_PARTS --data-root WORK
  mafr fit --data-root WORK --category bracket --out detectors/bracket
  mafr predict --detector detectors/bracket --rgb scan.png --xyz scan.tiff
  mafr predict --detector detectors/bracket --parts SCANS --out RESULTS
"""

ADD = (  # in the order of `mafr --help`
    runs.add_reproduce, inputs.add_data, inputs.add_features, runs.add_run, runs.add_tables, runs.add_figures,
    runs.add_notebooks, site.add_site, seeds.add_seeds, differences.add_differences, detectors.add_fit,
    predict.add_predict, inputs.add_weights, detectors.add_import_released, validate.add_validate, survey.add_survey,
    develop.add_develop, measure.add_bench, measure.add_precision, inputs.add_pretrain_points, inputs.add_config,
    same_bytes.add_same_bytes_command,
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mafr", description=DESCRIPTION, formatter_class=HELP_AS_WRITTEN)
    parser.add_argument("--version", action="version", version=f"mafr {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in ADD:
        add(commands)
    return parser
