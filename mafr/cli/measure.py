"""Commands that measure speed and precision: `bench`, `precision`."""

import argparse
from dataclasses import replace
from pathlib import Path

from mafr.cli.options import Commands, add_command, chosen_stages, chosen_variants, numbers, read_settings
from mafr.errors import ConfigError


def add_bench(commands: Commands) -> None:
    sub = add_command(commands, "bench", time_paths, "time the plain path against the product path, with untrained "
                      "weights", parallel=False, variant="both", profile="full")  # fmt: skip
    sub.add_argument("--valid", type=numbers, default=(25, 60, 100), metavar="25,60,…",
                     help="valid pixels, per cent (default: 25,60,100)")  # fmt: skip
    sub.add_argument("--stages", default="", metavar="A,B", help="only these of extraction,training step,inference "
                     "from tokens,sample to map,metrics")  # fmt: skip
    sub.add_argument("--repeats", type=int, default=2, metavar="N", help="repetitions; the best counts (default: 2)")
    sub.add_argument("--steps", action="store_true", help="only one training step on one thread, with the floor of its "
                     "matrix products (measured too with --profile smoke or demo)")  # fmt: skip
    sub.add_argument("--growth", type=numbers, default=(), metavar="20,40,…", help="only a training on so many samples "
                     "each: seconds per epoch and memory")  # fmt: skip
    sub.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    sub.add_argument("--out", metavar="FILE", help="the same as json, such as tables/bench/NAME.json for notebook 12")


def time_paths(arguments: argparse.Namespace) -> None:
    """The plain path against the product path, timed."""
    from mafr.bench import growth, steps
    from mafr.bench.bench import STAGES, as_json, bench, report
    from mafr.paths import write_json

    config, _ = read_settings(arguments)
    if arguments.device:
        config = replace(config, device=arguments.device)
    stages = chosen_stages(arguments, tuple(STAGES))
    if arguments.repeats < 1 or not all(0 < share <= 100 for share in arguments.valid):
        raise ConfigError("--repeats must be at least 1, and the shares of --valid in 1 to 100")
    if any(count < 1 for count in arguments.growth):
        raise ConfigError("--growth takes numbers of samples from 1 on, such as 20,40,80,160")
    shares = [share / 100 for share in arguments.valid]
    measured = {}
    if arguments.growth:
        rows = growth.growth(config, arguments.growth)
        print(growth.report(rows))
        measured = growth.as_json(config, rows)
    elif not arguments.steps:
        machine, rows = bench(config, chosen_variants(arguments), shares, stages, arguments.repeats)
        print(report(machine, rows))
        measured = as_json(config, machine, rows)
    if arguments.steps or (not arguments.growth and config.profile != "full" and not arguments.stages):
        machine, rows = steps.step_times(config, shares[0])
        print("\n" * bool(measured) + steps.report(machine, rows))
        measured = {**steps.as_json(config, machine, rows), **measured}
    if arguments.out:
        write_json(Path(arguments.out), measured)


def add_precision(commands: Commands) -> None:
    sub = add_command(commands, "precision", compare_precision, "measure what bfloat16 changes in the results of "
                      "Table I", variant="both")  # fmt: skip
    sub.add_argument("--train", action="store_true", help="also train in bfloat16, once per run")
    sub.add_argument("--out", metavar="FILE", help="the same as json, such as tables/bench/NAME.json for notebook 12")


def compare_precision(arguments: argparse.Namespace) -> None:
    """The effect of bfloat16 on Table I's metrics."""
    from mafr.bench.precision import as_json, precision_effect, report
    from mafr.paths import write_json

    config, paths = read_settings(arguments)
    effects = precision_effect(config, paths, chosen_variants(arguments), arguments.train, arguments.workers)
    print(report(config, effects))
    if arguments.out:
        write_json(Path(arguments.out), as_json(config, effects))
