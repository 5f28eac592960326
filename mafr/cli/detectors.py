"""Commands that make a detector: `fit`, `import-released`."""

import argparse
from dataclasses import replace

from mafr.baselines.registry import BASELINES, MAFR, METHODS
from mafr.cli.options import Commands, add_command, read_settings
from mafr.config import DATASETS, UNTRAINED


def add_fit(commands: Commands) -> None:
    text = "train and save a detector for a category of your own"
    sub = add_command(commands, "fit", fit_detector, text, parallel=False)
    sub.add_argument("--dataset", choices=DATASETS, default="mvtec3d")
    sub.add_argument("--category", required=True)
    text = f"mafr (default) or a compared method: {', '.join(BASELINES)}"
    sub.add_argument("--method", choices=METHODS, default=MAFR, metavar="M", help=text)
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for the detector")


def fit_detector(arguments: argparse.Namespace) -> None:
    from mafr.baselines.registry import method_class, method_settings
    from mafr.data import open_dataset

    config, paths = read_settings(arguments)
    config = method_settings(arguments.method, config, dataset=arguments.dataset)
    untrained = method_class(arguments.method)(config)
    # Both are opened first, so that a missing validation folder costs no training.
    data = arguments.dataset, paths.processed(arguments.dataset), arguments.category
    train, validation = (open_dataset(*data, split, config) for split in ("train", "validation"))
    detector = untrained.fit(train)
    threshold = detector.calibrate(validation)
    detector.save(arguments.out)
    origin = f"the {config.quantile:.0%} quantile of the good validation scores"
    print(f"detector in {arguments.out}; threshold {threshold:.4f}, {origin}")
    if config.random_weights:
        print(UNTRAINED)


def add_import_released(commands: Commands) -> None:
    text = "make a detector from the released code's checkpoints; its features are by batch statistics, as that code's"
    run = import_released
    sub = add_command(commands, "import-released", run, text, parallel=False, variant="released", profile="full")
    place = sub.add_mutually_exclusive_group(required=True)
    place.add_argument("--folder", metavar="DIR", help="with fusion_encoder_*.pth, decoder_2D_*.pth, decoder_3D_*.pth")
    place.add_argument("--files", nargs=3, metavar="FILE", help="the three files, where a folder holds more")
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for the detector")


def import_released(arguments: argparse.Namespace) -> None:
    from mafr.detector import Detector

    config, _ = read_settings(arguments)
    if not any(item.startswith("extractor_mode=") for item in arguments.settings):
        config = replace(config, extractor_mode="batch-statistics")  # in every profile: their heads saw no others
    detector = Detector.from_released(arguments.folder or arguments.files, config)
    detector.save(arguments.out)
    print(f"detector in {arguments.out}; it has no threshold of its own: give `mafr predict` one with --threshold")
