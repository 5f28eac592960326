"""Commands about the inputs of runs: `config`, `data`, `features`, `weights`, `pretrain-points`."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mafr.baselines.registry import MAFR
from mafr.cli.options import (
    BESIDE,
    Commands,
    add_command,
    add_same_bytes,
    chosen_methods,
    chosen_variants,
    chosen_workers,
    names,
    read_settings,
)
from mafr.config import ALL_DATASETS
from mafr.errors import ConfigError, notice, printable

WHAT = """the generated stand-ins, or one real data set (mvtec3d: MVTec 3D-AD, CC BY-NC-SA 4.0; eyecandies; adam3d:
3D-ADAM, CC BY-NC-SA 4.0), whose layout data of your own may have"""


def add_config(commands: Commands) -> None:
    text = "print every setting of a profile and a variant"
    add_command(commands, "config", print_settings, text, parallel=False, computes=False)


def print_settings(arguments: argparse.Namespace) -> None:
    config, _ = read_settings(arguments)
    for name, value in config.as_dict().items():
        print(f"{name:22} {value}")


def add_data(commands: Commands) -> None:
    text = "generate a data set; or download, unpack, check and preprocess a real one"
    sub = add_command(commands, "data", provide_data, text, cluster=True)
    sub.add_argument("what", choices=("generate", *ALL_DATASETS), help=WHAT)
    sub.add_argument("--root", metavar="DIR", dest="data_root", help="the same as --data-root")
    given = sub.add_mutually_exclusive_group()
    given.add_argument("--source", metavar="DIR", help="raw category folders, if not under DATA_ROOT/raw")
    text = "local archives, or a folder of them, instead of a download"
    given.add_argument("--archive", nargs="+", metavar="FILE", help=text)
    given.add_argument("--url", help="another address of the archive; for Eyecandies with {category} in it")
    sub.add_argument("--categories", metavar="A,B", type=names, help="only these")
    text = "accept other numbers of samples than published: a part of a data set"
    sub.add_argument("--allow-incomplete", action="store_true", help=text)
    text = "compare contents, too; without it a raw file counts as changed when its size or time is another one"
    sub.add_argument("--verify", action="store_true", help=text)
    text = "none: scans without a table; then give later commands --set plane=none"
    sub.add_argument("--plane", choices=("remove", "none"), help=text)


def provide_data(arguments: argparse.Namespace) -> None:
    from mafr.data import check_counts, preprocess
    from mafr.data.acquire.folders import download_raw, unpack_archives
    from mafr.experiments.prepare import prepare_data

    config, paths = read_settings(arguments)
    if arguments.what == "generate":
        if arguments.data_root:
            raise ConfigError("generated data has its own place; leave out --data-root")
        with chosen_workers(arguments, None, paths) as workers:
            prepare_data(config, paths, workers)
        return
    if not arguments.data_root:
        raise ConfigError("real data needs --data-root DIR, the folder for its raw/ and processed/ copies")
    dataset, categories = arguments.what, arguments.categories
    if categories == ():
        raise ConfigError("--categories names no category; give names like a,b, or leave it out for all")
    raw = Path(arguments.source).expanduser().resolve() if arguments.source else paths.raw(dataset)
    target = paths.processed(dataset)
    with chosen_workers(arguments, None, paths, [raw]) as workers:
        if arguments.archive:
            archives = [Path(path).expanduser() for path in arguments.archive]
            unpack_archives(dataset, archives, raw, categories, workers)
        elif not arguments.source:
            downloads = paths.data / "downloads" / dataset
            download_raw(dataset, raw, downloads, arguments.url, categories, whole=not arguments.allow_incomplete)
        check_counts(dataset, raw, categories, arguments.allow_incomplete)
        preprocess(dataset, raw, target, config, categories, workers, arguments.plane, arguments.verify)
    say_what_metrics_miss(target, categories)
    print(f"processed copy in {printable(str(target))}")


def say_what_metrics_miss(processed: Path, categories: Sequence[str] | None) -> None:
    """Name, on stderr, the categories whose test folders hold good or defective samples alone."""
    from mafr.data.layout import spelled, subfolders

    there = subfolders(processed)
    for category in there if categories is None else [spelled(name, there) for name in categories]:
        found = subfolders(processed / category / "test")
        if found and ("good" not in found or found == ["good"]):
            missing = "defective" if "good" in found else "good"
            notice(f"{category}: no {missing} test samples: `mafr fit` and `mafr predict` need none, `mafr run` does")


def add_features(commands: Commands) -> None:
    text = "extract and store the features of the prepared data"
    sub = add_command(commands, "features", store_features, text, cluster=True, variant="both", methods=BESIDE)
    sub.add_argument("--dataset", choices=ALL_DATASETS, default="mvtec3d", help="of --category")
    sub.add_argument("--category", type=str.strip, help="this one alone, instead of all of both data sets")


def store_features(arguments: argparse.Namespace) -> None:
    from mafr.experiments.prepare import extract_all, extract_category

    config, paths = read_settings(arguments)
    methods, variants = chosen_methods(arguments), chosen_variants(arguments)
    with chosen_workers(arguments, config, paths) as workers:
        if arguments.category:
            methods = methods if arguments.methods else (MAFR,)  # as `mafr run --category`
            extract_category(config, paths, arguments.dataset, arguments.category, workers, methods, variants)
            return
        extract_all(config, paths, workers, methods=methods, variants=variants)


def add_weights(commands: Commands) -> None:
    text = "show the backbones' weight files, and download them"
    sub = add_command(commands, "weights", show_weights, text, parallel=False, computes=False, profile="full")
    sub.add_argument("--fetch", action="store_true", help="download what is missing")


def show_weights(arguments: argparse.Namespace) -> None:
    from mafr.baselines.registry import weight_files
    from mafr.features.weights.files import needed_files, provide_files
    from mafr.features.weights.report import weights_report

    config, paths = read_settings(arguments)
    others = weight_files(config)
    if arguments.fetch:
        provide_files(config, paths.weights, (*needed_files(config), *others))
    print(weights_report(config, paths.weights, others))


def add_pretrain_points(commands: Commands) -> None:
    sub = commands.add_parser("pretrain-points", help="pretrain the small Point-MAE again, as it was shipped")
    sub.set_defaults(run=pretrain_points)
    sub.add_argument("--out", default="pretrained", metavar="DIR")
    text = "even noise without gaps (the demo's), or scans worn as a structured-light scanner wears them"
    sub.add_argument("--scans", choices=("even", "worn"), default="even", help=text)
    sub.add_argument("--steps", type=int, help="default: as shipped")
    sub.add_argument("--seed", type=int, help="default: as shipped")
    add_same_bytes(sub)


def pretrain_points(arguments: argparse.Namespace) -> None:
    from mafr.features.pretraining.pretrain import WORN, PretrainSettings, pretrain

    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:  # what numpy and torch both take
        raise ConfigError(f"--seed must be in 0 to 2^63 - 1, not {arguments.seed}")
    given = {name: getattr(arguments, name) for name in ("steps", "seed")}
    shipped = WORN if arguments.scans == "worn" else PretrainSettings()
    settings = replace(shipped, **{name: value for name, value in given.items() if value is not None})
    print(f"weights in {pretrain(Path(arguments.out), settings)}")
