"""Commands that provide what runs read: `data`, `features`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mafr.cli.options import BESIDE, Commands, add_command, chosen_methods, chosen_workers, read_settings
from mafr.config import DATASETS
from mafr.errors import ConfigError


def add_data(commands: Commands) -> None:
    sub = add_command(commands, "data", provide_data, "generate a data set; or download, unpack, check and preprocess "
                      "a real one", cluster=True)  # fmt: skip
    sub.add_argument("what", choices=("generate", *DATASETS), help="generate: the embedded stand-ins; else a real one")
    sub.add_argument("--root", metavar="DIR", dest="data_root", help="the same as --data-root")
    given = sub.add_mutually_exclusive_group()
    given.add_argument("--source", metavar="DIR", help="raw category folders, if not under DATA_ROOT/raw")
    given.add_argument("--archive", nargs="+", metavar="FILE", help="local archives, or a folder of them, instead of "
                       "downloading")  # fmt: skip
    given.add_argument("--url", help="another address of the archive; for Eyecandies with {category} in it")
    sub.add_argument("--categories", metavar="A,B", type=lambda text: text.split(","), help="only these")
    sub.add_argument("--allow-incomplete", action="store_true", help="other numbers of samples than published: a part "
                     "of a data set")  # fmt: skip
    sub.add_argument("--plane", choices=("remove", "none"), help="none: scans without a table; then give later "
                     "commands --set plane=none")  # fmt: skip


def provide_data(arguments: argparse.Namespace) -> None:
    """Generated data, or a real data set from nothing to processed."""
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
        preprocess(dataset, raw, target, config, categories, workers, arguments.plane)
    print(f"processed copy in {target}")


def add_features(commands: Commands) -> None:
    add_command(commands, "features", store_features, "extract and store the features of the prepared data",
                cluster=True, methods=BESIDE)  # fmt: skip


def store_features(arguments: argparse.Namespace) -> None:
    """The features of the prepared data, extracted and stored."""
    from mafr.experiments.prepare import extract_all

    config, paths = read_settings(arguments)
    with chosen_workers(arguments, config, paths) as workers:
        extract_all(config, paths, workers, methods=chosen_methods(arguments))
