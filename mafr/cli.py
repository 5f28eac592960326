"""The `mafr` command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from mafr import __version__
from mafr.config import DATASETS, PROFILES, VARIANTS, Config
from mafr.errors import ConfigError, DataError, MafrError
from mafr.paths import Paths
from mafr.progress import default_workers

_FIT_SPLITS = ("train", "validation")
DESCRIPTION = """\
MAFR, reproduced: 2D-3D feature fusion for industrial anomaly detection.

first steps:
  mafr reproduce                 everything on the embedded default: data, features, Tables I-V, figures, notebooks
  mafr reproduce --profile smoke the same in about a minute, far smaller, to see that it works
  mafr tables                    write the tables again from the stored runs

your own parts (RGB images and organised point clouds, see "Your own data" in the README):
  mafr data mvtec3d --source MY_PARTS --data-root WORK
  mafr fit --data-root WORK --category bracket --out detectors/bracket
  mafr predict --detector detectors/bracket --rgb scan.png --xyz scan.tiff
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except MafrError as error:
        print(f"mafr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mafr: interrupted; finished runs are kept, the same command goes on from here", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"mafr: {error}; finished runs are kept, the same command goes on from here", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("mafr", description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"mafr {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run, text: str, *, parallel: bool = True, variant: str = "paper") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, formatter_class=raw)
        sub.set_defaults(run=run)
        sub.add_argument("--profile", choices=PROFILES, default="demo", help="how large (default: demo)")
        both = (*VARIANTS, "both") if variant == "both" else VARIANTS
        text = "the paper's text, the authors' released code" + (", or both" if variant == "both" else "")
        sub.add_argument("--variant", choices=both, default=variant, help=f"{text} (default: {variant})")
        sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
                         help="change a setting, e.g. --set epochs=3; `mafr config` lists them")  # fmt: skip
        sub.add_argument("--data-root", metavar="DIR", help="folder with raw/ and processed/ data of your own")
        if parallel:
            sub.add_argument("--workers", type=int, default=default_workers(), metavar="N",
                             help="local processes (default: one a processor)")  # fmt: skip
        return sub

    sub = command("reproduce", _reproduce, "regenerate every table, figure and notebook", variant="both")
    sub.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds; several give mean ± deviation")
    sub.add_argument("--tables", type=_numbers, default=(1, 2, 3, 4, 5), metavar="1,2,…", help="only these")
    sub.add_argument("--stages", default="", metavar="A,B", help="only these of data,features,runs,tables,figures,"
                     "notebooks")  # fmt: skip

    sub = command("data", _data, "generate or preprocess a data set")
    sub.add_argument("what", choices=("generate", *DATASETS), help="generate: the embedded stand-ins; else a real one")
    sub.add_argument("--source", metavar="DIR", help="raw category folders, if not under DATA_ROOT/raw")
    sub.add_argument("--plane", choices=("remove", "none"), help="none: scans without a table; then give later "
                     "commands --set plane=none")  # fmt: skip

    command("features", _features, "extract and store the features of the prepared data")

    sub = command("run", _run, "train and score: the runs of tables, or of one category", variant="both")
    sub.add_argument("--table", type=_numbers, default=(), metavar="1,2,…", help="the runs of these tables")
    sub.add_argument("--dataset", choices=DATASETS, default="mvtec3d")
    sub.add_argument("--category", help="one category instead of tables")
    sub.add_argument("--shots", type=int, help="training samples; default all")
    sub.add_argument("--seeds", type=int, default=1, metavar="N")

    sub = command("tables", _tables, "write the tables from the stored runs", parallel=False, variant="both")
    sub.add_argument("--seeds", type=int, default=1, metavar="N")
    sub.add_argument("--tables", type=_numbers, default=(1, 2, 3, 4, 5), metavar="1,2,…", help="only these")

    command("figures", _figures, "draw the figures from the stored runs", parallel=False, variant="both")

    sub = command("notebooks", _notebooks, "execute the notebooks by papermill")
    sub.add_argument("names", nargs="*", metavar="NAME", help="only those that begin so, e.g. 02")
    sub.add_argument("--force", action="store_true", help="also those that are up to date")

    sub = command("fit", _fit, "train and save a detector on a category of your own", parallel=False)
    sub.add_argument("--dataset", choices=DATASETS, default="mvtec3d")
    sub.add_argument("--category", required=True)
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for the detector")

    sub = commands.add_parser("predict", help="score one RGB + xyz pair with a saved detector", formatter_class=raw)
    sub.set_defaults(run=_predict)
    sub.add_argument("--detector", required=True, metavar="DIR", help="a folder written by `mafr fit`")
    sub.add_argument("--rgb", required=True, metavar="FILE", help="image, png")
    sub.add_argument("--xyz", required=True, metavar="FILE", help="organised point cloud, H x W x 3 tiff in metres")
    sub.add_argument("--processed", action="store_true", help="the scan is from a processed copy already")
    sub.add_argument("--threshold", type=float, help="instead of the detector's own")
    sub.add_argument("--out", metavar="FILE", help="heatmap picture, png")
    sub.add_argument("--json", action="store_true", help="machine-readable result")

    sub = commands.add_parser("pretrain-points", help="pretrain the small Point-MAE again, as it was shipped")
    sub.set_defaults(run=_pretrain)
    sub.add_argument("--out", default="pretrained", metavar="DIR")
    sub.add_argument("--steps", type=int, help="default: as shipped")
    sub.add_argument("--seed", type=int, help="default: as shipped")

    command("config", _config, "print every setting of a profile and a variant", parallel=False)
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 1,2") from None


def _settings(arguments: argparse.Namespace) -> tuple[Config, Paths]:
    types = {f.name: f for f in dataclasses.fields(Config)}
    overrides: dict[str, object] = {}
    for item in arguments.settings:
        name, equals, text = item.partition("=")
        if not equals or name not in types:
            raise ConfigError(f"--set {item}: expected NAME=VALUE with a NAME that `mafr config` lists")
        overrides[name] = _value(text, types[name].default)
    if arguments.data_root and arguments.profile != "full":
        overrides.setdefault("generated", False)  # a folder of one's own holds no generated data
    variant = "paper" if arguments.variant == "both" else arguments.variant
    config = Config.preset(arguments.profile, variant, overrides)
    for name in ("seeds", "workers", "shots"):
        if getattr(arguments, name, None) is not None and getattr(arguments, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    for table in getattr(arguments, "tables", ()) or getattr(arguments, "table", ()):
        if table not in (1, 2, 3, 4, 5):
            raise ConfigError(f"unknown table {table}; the tables are 1 to 5")
    variation = f"settings-{config.digest()[:8]}" if arguments.settings else ""
    return config, Paths.resolve(arguments.profile, data_root=arguments.data_root, variation=variation)


def _value(text: str, default: object) -> object:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            kind = type(default[0])
            return tuple(kind(part) for part in text.split(",") if part)
        return type(default)(text)
    except (KeyError, ValueError):
        raise ConfigError(f"--set: {text!r} is no value like {default!r}") from None


def _variants(arguments: argparse.Namespace) -> tuple[str, ...]:
    return VARIANTS if arguments.variant == "both" else (arguments.variant,)


def _reproduce(arguments: argparse.Namespace) -> None:
    from mafr.reproduce import STAGES, reproduce

    config, paths = _settings(arguments)
    stages = tuple(arguments.stages.split(",")) if arguments.stages else STAGES
    if unknown := set(stages) - set(STAGES):
        raise ConfigError(f"unknown stage {', '.join(sorted(unknown))}; the stages are {', '.join(STAGES)}")
    variants = _variants(arguments)
    reproduce(config, paths, arguments.workers, variants, arguments.seeds, arguments.tables, stages)
    print(f"tables in {paths.tables}, figures in {paths.figures}, notebooks in {paths.executed}")


def _data(arguments: argparse.Namespace) -> None:
    from mafr.data import preprocess
    from mafr.reproduce import prepare_data

    config, paths = _settings(arguments)
    if arguments.what == "generate":
        if arguments.data_root:
            raise ConfigError("generated data has its own place; leave out --data-root")
        prepare_data(config, paths, arguments.workers)
        return
    if not arguments.data_root:
        raise ConfigError("real data needs --data-root DIR, the folder for its raw/ and processed/ copies")
    raw = Path(arguments.source) if arguments.source else paths.raw(arguments.what)
    target = paths.processed(arguments.what)
    preprocess(arguments.what, raw, target, config, None, arguments.workers, arguments.plane)
    print(f"processed copy in {target}")


def _features(arguments: argparse.Namespace) -> None:
    from mafr.reproduce import extract_all

    config, paths = _settings(arguments)
    extract_all(config, paths, arguments.workers)


def _run(arguments: argparse.Namespace) -> None:
    from mafr.experiments import Run, all_runs, extract_features, run_all

    config, paths = _settings(arguments)
    variants = _variants(arguments)
    if arguments.category:
        if arguments.table:
            raise ConfigError("give --category or --table, not both")
        extract_features(paths, config, arguments.dataset, [arguments.category], arguments.workers)
        configs = [
            dataclasses.replace(config.with_variant(v), seed=config.seed + k)
            for v in variants
            for k in range(arguments.seeds)
        ]
        runs = [Run(arguments.dataset, arguments.category, c, arguments.shots) for c in configs]
    else:
        if arguments.shots is not None:
            raise ConfigError("--shots goes with --category; for Table III change the setting: --set shots=5,10")
        runs = all_runs(config, arguments.table or (1, 2, 3, 4, 5), variants, arguments.seeds)
    for record in run_all(runs, paths, arguments.workers):
        _print_record(record)


def _print_record(record: dict) -> None:
    shots = "all" if record["shots"] is None else record["shots"]
    terms = "+".join(record["loss_terms"])
    print(f"{record['dataset']}/{record['category']}  {record['variant']}  loss {terms}  shots {shots}")
    print(f"  {'map':8} I-AUROC  P-AUROC  AUPRO@30%  AUPRO@1%")
    for how, m in record["metrics"].items():
        print(f"  {how:8} {m['i_auroc']:7.3f}  {m['p_auroc']:7.3f}  {m['aupro_30']:9.3f}  {m['aupro_01']:8.3f}")


def _tables(arguments: argparse.Namespace) -> None:
    from mafr.reproduce import make_tables

    config, paths = _settings(arguments)
    for path in make_tables(config, paths, _variants(arguments), arguments.seeds, arguments.tables):
        print(path)


def _figures(arguments: argparse.Namespace) -> None:
    from mafr.reproduce import make_figures

    config, paths = _settings(arguments)
    for path in make_figures(config, paths, _variants(arguments)):
        print(path)


def _notebooks(arguments: argparse.Namespace) -> None:
    from mafr.reproduce import reproduce, run_notebooks

    config, paths = _settings(arguments)
    # All that they need first: kernels that run at the same time must not make the same files.
    reproduce(config, paths, arguments.workers, stages=("data", "features", "runs"))
    for path in run_notebooks(config, paths, arguments.workers, arguments.names, arguments.force):
        print(path)


def _fit(arguments: argparse.Namespace) -> None:
    from mafr.data import open_dataset
    from mafr.detector import Detector

    config, paths = _settings(arguments)
    root = paths.processed(arguments.dataset)
    # Both are opened first, so that a missing validation folder costs no training.
    train, validation = (open_dataset(arguments.dataset, root, arguments.category, s, config) for s in _FIT_SPLITS)
    detector = Detector(config).fit(train)
    threshold = detector.calibrate(validation)
    detector.save(arguments.out)
    origin = f"the {config.quantile:.0%} quantile of the good validation scores"
    print(f"detector in {arguments.out}; threshold {threshold:.4f}, {origin}")


def _predict(arguments: argparse.Namespace) -> None:
    from mafr.data import load_pair
    from mafr.detector import Detector

    detector = Detector.load(arguments.detector)
    threshold = detector.threshold if arguments.threshold is None else arguments.threshold
    if threshold is None:
        raise ConfigError(f"{arguments.detector} has no threshold of its own; give one with --threshold")
    plane = None if arguments.processed else detector.config.plane
    sample = load_pair(arguments.rgb, arguments.xyz, detector.config, plane)
    try:
        prediction = detector.predict(sample)
    except DataError as error:
        raise DataError(f"{arguments.xyz}: {str(error).strip()}") from error
    verdict = "OK" if prediction.score <= threshold else "not OK"
    picture = None
    if arguments.out:
        from mafr.figures import save_heatmap

        picture = str(save_heatmap(sample, prediction, threshold, Path(arguments.out)))
    if arguments.json:
        result = {"score": prediction.score, "threshold": threshold, "verdict": verdict, "picture": picture}
        print(json.dumps(result))
        return
    source = f"the {detector.config.quantile:.0%} quantile of good validation scores"
    print(f"{verdict}: score {prediction.score:.4f}, threshold {threshold:.4f}", end=" ")
    print(f"({source if arguments.threshold is None else 'as given'})")
    if picture:
        print(f"heatmap in {picture}")


def _pretrain(arguments: argparse.Namespace) -> None:
    from mafr.pretrain import PretrainSettings, pretrain

    given = {name: getattr(arguments, name) for name in ("steps", "seed")}
    settings = PretrainSettings(**{name: value for name, value in given.items() if value is not None})
    print(f"weights in {pretrain(Path(arguments.out), settings)}")


def _config(arguments: argparse.Namespace) -> None:
    config, _ = _settings(arguments)
    for name, value in config.as_dict().items():
        print(f"{name:22} {value}")


if __name__ == "__main__":
    sys.exit(main())
