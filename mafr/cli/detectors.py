"""Commands that make a detector: `fit`, `import-released`."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mafr import __version__
from mafr.baselines.registry import BASELINES, MAFR, METHODS
from mafr.cli.options import COMPARED, OWN_PARTS, Commands, add_command, read_settings
from mafr.config import ALL_DATASETS, UNTRAINED
from mafr.errors import DataError, notice, printable
from mafr.paths import Paths, writable_folder
from mafr.processor import limited

if TYPE_CHECKING:
    from mafr.features.sources.splits import Split
    from mafr.method import Method

FEW = 10  # training parts below which a warning is given
STATES = ".training-*.pt"  # of unfinished trainings, in the detector's folder


def add_fit(commands: Commands) -> None:
    text = "train and save a detector for a category of your own; features are stored as for `mafr run`"
    sub = add_command(commands, "fit", fit_detector, text, parallel=False, profile="")
    sub.add_argument("--dataset", choices=ALL_DATASETS, default="mvtec3d")
    sub.add_argument("--category", type=str.strip, required=True)
    text = f"mafr (default) or a compared method: {', '.join(BASELINES)}"
    sub.add_argument("--method", choices=METHODS, default=MAFR, metavar="M", help=text)
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for the detector")


def fit_detector(arguments: argparse.Namespace) -> int:
    """Train, take the threshold and save; an interrupted training goes on where it was, to the same bytes."""
    from mafr.baselines.registry import method_class, method_settings
    from mafr.calibration import score_lines

    if arguments.profile is None:
        arguments.profile = OWN_PARTS if arguments.method == MAFR else COMPARED
    config, paths = read_settings(arguments)
    config = method_settings(arguments.method, config, dataset=arguments.dataset)
    detector, states = method_class(arguments.method)(config), None
    try:
        with writable_folder(Path(arguments.out)) as out:
            train, validation = _training_inputs(detector, paths, arguments.dataset, arguments.category)
            if (count := len(train)) < FEW:
                notice(f"warning: {count} good training parts are few; notebook 05 shows what that costs")
            states = _state_file(out, detector, train, validation)
            detector.fit_split(train, checkpoint=states, show=True, validation=validation)
            threshold = detector.calibrate_split(validation)
            detector.save(out)
    except KeyboardInterrupt:
        kept = states is not None and states.exists()
        way = f"the same command goes on with the state in {states}" if kept else "the same command starts anew"
        notice(f"interrupted; features that are stored are kept, {way}")
        return 130
    for state in out.glob(STATES):  # also of other settings or data
        state.unlink(missing_ok=True)
    scores, promised = detector.validation_scores, detector.false_alarms
    origin = f"the {config.quantile:.0%} quantile of the good validation scores"
    print(f"detector in {printable(arguments.out)}; threshold {threshold:.4g}, {origin}")
    print(f"validation scores, {len(scores)} from the highest down, * above the threshold:")
    print(score_lines(scores, threshold))
    print(f"expected of new good parts to be called not OK: {promised}")
    if promised.warning:
        print(f"warning: {promised.warning}")
    if config.random_weights:
        print(UNTRAINED)
    return 0


def _state_file(out: Path, detector: Method, train: Split, validation: Split) -> Path | None:
    """Where a training keeps its state, named by all that decides its bytes; None for a method that uses no features.

    A state of other settings, data or places is never taken.
    """
    if not detector.reads:
        return None
    decides = [detector.name, detector.config.as_dict(), detector.place.kind, limited(), __version__]
    decides += [split.store.fingerprint for split in (train, validation)]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return out / STATES.replace("*", key[:12])


def _training_inputs(detector: Method, paths: Paths, dataset: str, category: str) -> list[Split]:
    """Training and validation samples with features from the store of `mafr run`, extracted into it where missing.

    Both are opened and checked first, so that nothing missing or mislabelled costs an extraction or a training.
    """
    from mafr.data import open_dataset
    from mafr.features.sources.splits import extract_features, load_split, split_of

    names, folder = ("train", "validation"), paths.processed(dataset)
    train, validation = (open_dataset(dataset, folder, category, name, detector.config) for name in names)
    detector.check_training(train.labels, lambda k: f"{folder / category}: {train.ids[k]}")
    if validation.labels.all():
        raise DataError(f"{folder / category / 'validation'}: no good sample to take the threshold from; add some")
    if not detector.reads:
        return [split_of(samples, None) for samples in (train, validation)]
    settings = detector.feature_config(detector.config)
    extract_features(paths, settings, dataset, [category], splits=names)
    return [load_split(paths, dataset, category, name, settings) for name in names]


def add_import_released(commands: Commands) -> None:
    text = "make a detector from the released code's checkpoints; its features are by batch statistics, as that code's"
    run = import_released
    sub = add_command(commands, "import-released", run, text, parallel=False, computes=False, variant="released",
                      profile="full")  # fmt: skip
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
    place = printable(arguments.out)
    print(f"detector in {place}; it has no threshold of its own: give `mafr predict` one with --threshold")
