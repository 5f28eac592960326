"""The options that commands share, and their values: settings, places, methods, variants, workers."""

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mafr.baselines.registry import METHODS, check_methods
from mafr.config import PROFILES, UNTRAINED, VARIANTS, Config
from mafr.errors import ConfigError, notice
from mafr.experiments.plan import TABLES, compared_methods
from mafr.parallel.progress import Workers
from mafr.paths import Paths
from mafr.processor import REACHES

Commands = argparse._SubParsersAction  # what `add_subparsers` returns; argparse has no public name for it
HELP_AS_WRITTEN = argparse.RawDescriptionHelpFormatter
OWN_PARTS, COMPARED = "parts", "demo"  # the profiles of `mafr fit`, for MAFR and for a compared method
BESIDE = f"the methods of Tables I-III, of {','.join(compared_methods(TABLES))} (default: all; mafr is always there)"


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    *,
    parallel: bool = True,
    computes: bool = True,
    cluster: bool = False,
    methods: str = "",
    variant: str = "paper",
    profile: str = "demo",
) -> argparse.ArgumentParser:
    """Add a command that takes settings; returns its parser, for its own options.

    parallel, cluster, computes: whether it has --workers, --scheduler, --same-bytes. methods: the help of --methods, if
    it has that option.
    variant, profile: the defaults; only a command with the default "both" accepts both. With profile "" the command
    finds its own, see `OWN_PARTS`.
    """
    sub = commands.add_parser(name, help=text, description=text, formatter_class=HELP_AS_WRITTEN)
    sub.set_defaults(run=run)
    said = profile or f"{OWN_PARTS}, for a compared method {COMPARED}"
    sub.add_argument("--profile", choices=PROFILES, default=profile or None, help=f"which sizes (default: {said})")
    both = (*VARIANTS, "both") if variant == "both" else VARIANTS
    text = "the paper's text, the authors' released code" + (", or both" if variant == "both" else "")
    sub.add_argument("--variant", choices=both, default=variant, help=f"{text} (default: {variant})")
    text = "change a setting, e.g. --set epochs=3; `mafr config` lists them"
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings", help=text)
    text = "untrained backbones, to test or time the code: numbers mean nothing, and every output says so"
    sub.add_argument("--random-weights", action="store_true", help=text)
    sub.add_argument("--data-root", metavar="DIR", help="folder with raw/ and processed/ data of your own")
    if parallel:
        text = "local processes (default: one per processor; for features and runs on GPUs, one per GPU)"
        sub.add_argument("--workers", type=int, metavar="N", help=text)
    if computes:
        add_same_bytes(sub)
    if methods:
        sub.add_argument("--methods", type=names, metavar="A,B", help=methods)
    if cluster:
        text = "send the work to this Dask scheduler, like tcp://host:8786; its workers must see the same files"
        sub.add_argument("--scheduler", metavar="ADDRESS", help=text)
    return sub


def add_same_bytes(sub: argparse.ArgumentParser) -> None:
    """Add --same-bytes, which `mafr.cli.main` sees to before anything heavy is loaded."""
    text = "results that repeat to the byte on all of Intel's processors with AVX2, or on AMD's too; takes longer"
    sub.add_argument("--same-bytes", choices=REACHES, help=text)


def numbers(text: str) -> tuple[int, ...]:
    """An option like 1,2,3. Raises ArgumentTypeError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 1,2") from None


def read_settings(arguments: argparse.Namespace) -> tuple[Config, Paths]:
    """The settings and places that the options ask for. Raises ConfigError for invalid ones."""
    types = {f.name: f for f in dataclasses.fields(Config)}
    overrides: dict[str, object] = {}
    for item in arguments.settings:
        name, equals, text = item.partition("=")
        if not equals or name not in types:
            raise ConfigError(f"--set {item}: expected NAME=VALUE with a NAME that `mafr config` lists")
        overrides[name] = _value(text, types[name].default)
    if arguments.data_root and arguments.profile != "full":
        overrides.setdefault("generated", False)  # the user's own folder holds no generated data
    if arguments.random_weights:
        overrides["random_weights"] = True
    variant = "paper" if arguments.variant == "both" else arguments.variant
    config = Config.preset(arguments.profile, variant, overrides)
    check_counts(arguments)
    for table in getattr(arguments, "tables", ()) or getattr(arguments, "table", ()):
        if table not in (1, 2, 3, 4, 5):
            raise ConfigError(f"unknown table {table}; the tables are 1 to 5")
    variation = f"settings-{config.digest()[:8]}" if arguments.settings else ""
    if config.random_weights:
        variation = f"random-weights-{config.digest()[:8]}"
        notice(f"warning: {UNTRAINED}")
    return config, Paths.resolve(arguments.profile, data_root=arguments.data_root, variation=variation)


def check_counts(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for an option that counts something and is below one."""
    for name in ("seeds", "workers", "shots"):
        if getattr(arguments, name, None) is not None and getattr(arguments, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, not {getattr(arguments, name)}")


def names(text: str) -> tuple[str, ...]:
    """An option like a,b,c."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def chosen_methods(arguments: argparse.Namespace) -> tuple[str, ...]:
    """--methods, default all. Raises ConfigError for one that does not exist."""
    return METHODS if arguments.methods is None else check_methods(arguments.methods)


@contextmanager
def chosen_workers(
    arguments: argparse.Namespace, config: Config | None, paths: Paths, folders: Sequence[Path] = ()
) -> Iterator[Workers]:
    """The cluster of --scheduler, which must see the files of `paths` and `folders`, else the number of --workers.

    config: the settings, where their device and precision matter.
    """
    if arguments.scheduler is None:
        yield arguments.workers
        return
    from mafr.parallel.dask import Cluster

    with Cluster.of(arguments.scheduler, paths, folders, config) as cluster:
        yield cluster


def chosen_stages(arguments: argparse.Namespace, known: tuple[str, ...]) -> tuple[str, ...]:
    """--stages, default all. Raises ConfigError for others than `known`."""
    stages = names(arguments.stages) if arguments.stages else known
    if unknown := set(stages) - set(known):
        raise ConfigError(f"unknown stage {', '.join(sorted(unknown))}; the stages are {', '.join(known)}")
    return stages


def chosen_variants(arguments: argparse.Namespace) -> tuple[str, ...]:
    """--variant, which may be both."""
    return VARIANTS if arguments.variant == "both" else (arguments.variant,)


def _value(text: str, default: object) -> object:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            kind = type(default[0]) if default else str
            return tuple(kind(part) for part in names(text))
        return type(default)(text)
    except (KeyError, ValueError):
        raise ConfigError(f"--set: {text!r} is no value like {default!r}") from None
