"""What the commands of `mafr` do with their options. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from mafr.baselines.methods import MAFR, baseline_settings, title
from mafr.cli.options import chosen_methods, chosen_stages, chosen_variants, chosen_workers, read_settings
from mafr.config import UNTRAINED
from mafr.errors import ConfigError, DataError


def reproduce_all(arguments: argparse.Namespace) -> None:
    """Every table, figure and notebook."""
    from mafr.experiments.reproduce import STAGES, reproduce

    config, paths = read_settings(arguments)
    stages = chosen_stages(arguments, STAGES)
    variants = chosen_variants(arguments)
    seeds, tables, methods = arguments.seeds, arguments.tables, chosen_methods(arguments)
    with chosen_workers(arguments, config, paths) as crew:
        cluster = crew if arguments.scheduler else None
        reproduce(config, paths, arguments.workers, variants, seeds, tables, stages, cluster, methods)
    print(f"tables in {paths.tables}, figures in {paths.figures}, notebooks in {paths.executed}")


def provide_data(arguments: argparse.Namespace) -> None:
    """Generated data, or a real data set from nothing to processed."""
    from mafr.data import check_counts, preprocess
    from mafr.data.acquire.folders import acquire
    from mafr.experiments.reproduce import prepare_data

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
        if not arguments.source:
            acquire(
                dataset, raw, paths.data / "downloads" / dataset, archives=arguments.archive, url=arguments.url,
                categories=categories, allow_incomplete=arguments.allow_incomplete, workers=workers,
            )  # fmt: skip
        check_counts(dataset, raw, categories, arguments.allow_incomplete)
        preprocess(dataset, raw, target, config, categories, workers, arguments.plane)
    print(f"processed copy in {target}")


def store_features(arguments: argparse.Namespace) -> None:
    """The features of the prepared data, extracted and stored."""
    from mafr.experiments.reproduce import extract_all

    config, paths = read_settings(arguments)
    with chosen_workers(arguments, config, paths) as workers:
        extract_all(config, paths, workers, methods=chosen_methods(arguments))


def make_runs(arguments: argparse.Namespace) -> None:
    """Runs of tables or of one category, with their metrics printed."""
    from mafr.baselines.registry import feature_config
    from mafr.experiments.experiments import Run, all_runs, run_all
    from mafr.features.sources.splits import extract_features
    from mafr.features.weights.files import method_files, provide_files

    config, paths = read_settings(arguments)
    variants, methods = chosen_variants(arguments), chosen_methods(arguments)
    if arguments.category:
        if arguments.table:
            raise ConfigError("give --category or --table, not both")
        if arguments.methods is None:
            methods = (MAFR,)
        entries = [(m, baseline_settings(config)) for m in methods if m != MAFR]
        entries += [(MAFR, config.with_variant(v)) for v in variants if MAFR in methods]
        runs = [
            Run(arguments.dataset, arguments.category, replace(c, seed=c.seed + k), arguments.shots, method)
            for method, c in entries
            for k in range(arguments.seeds)
        ]
    else:
        if arguments.shots is not None:
            raise ConfigError("--shots goes with --category; for Table III change the setting: --set shots=5,10")
        runs = all_runs(config, arguments.table or (1, 2, 3, 4, 5), variants, arguments.seeds, methods)
    if not runs:
        raise ConfigError("these tables have none of these methods: nothing to run")
    provide_files(config, paths.weights, method_files(config, {run.method for run in runs}))
    with chosen_workers(arguments, config, paths) as workers:
        if arguments.category:
            wanted = [feature_config(run.method, run.config) for run in runs]
            for settings in {c.feature_digest(): c for c in wanted}.values():
                extract_features(paths, settings, arguments.dataset, [arguments.category], workers)
        records = run_all(runs, paths, workers)
    for record in records:
        _print_record(record)


def _print_record(record: dict) -> None:
    shots = "all" if record["shots"] is None else record["shots"]
    what = title(record["method"])
    if record["method"] == MAFR:
        what += f"  {record['variant']}  loss {'+'.join(record['loss_terms'])}"
    print(f"{record['dataset']}/{record['category']}  {what}  shots {shots}")
    if record["config"]["random_weights"]:
        print(f"  {UNTRAINED}")
    print(f"  {'map':8} I-AUROC  P-AUROC  AUPRO@30%  AUPRO@1%")
    for how, m in record["metrics"].items():
        print(f"  {how:8} {m['i_auroc']:7.3f}  {m['p_auroc']:7.3f}  {m['aupro_30']:9.3f}  {m['aupro_01']:8.3f}")


def write_tables(arguments: argparse.Namespace) -> None:
    """The tables, from the stored runs."""
    from mafr.experiments.reproduce import make_tables

    config, paths = read_settings(arguments)
    variants, methods = chosen_variants(arguments), chosen_methods(arguments)
    for path in make_tables(config, paths, variants, arguments.seeds, arguments.tables, methods):
        print(path)


def draw_figures(arguments: argparse.Namespace) -> None:
    """The figures, from the stored runs."""
    from mafr.experiments.reproduce import make_figures

    config, paths = read_settings(arguments)
    for path in make_figures(config, paths, chosen_variants(arguments), arguments.workers):
        print(path)


def execute_notebooks(arguments: argparse.Namespace) -> None:
    """The notebooks, with all that they need."""
    from mafr.experiments.reproduce import reproduce, run_notebooks

    config, paths = read_settings(arguments)
    # All that they need first: kernels that run at the same time must not make the same files.
    reproduce(config, paths, arguments.workers, stages=("data", "features", "runs"))
    for path in run_notebooks(config, paths, arguments.workers, arguments.names, arguments.force):
        print(path)


def fit_detector(arguments: argparse.Namespace) -> None:
    """A detector of a category of one's own, saved."""
    from mafr.baselines.registry import baseline_class
    from mafr.data import open_dataset
    from mafr.detector import Detector

    config, paths = read_settings(arguments)
    method = arguments.method
    untrained = Detector(config) if method == MAFR else baseline_class(method)(baseline_settings(config))
    root = paths.processed(arguments.dataset)
    # Both are opened first, so that a missing validation folder costs no training.
    data = arguments.dataset, root, arguments.category
    train, validation = (open_dataset(*data, split, config) for split in ("train", "validation"))
    detector = untrained.fit(train)
    threshold = detector.calibrate(validation)
    detector.save(arguments.out)
    origin = f"the {config.quantile:.0%} quantile of the good validation scores"
    print(f"detector in {arguments.out}; threshold {threshold:.4f}, {origin}")
    if config.random_weights:
        print(UNTRAINED)


def predict_pair(arguments: argparse.Namespace) -> None:
    """One pair scored by a saved detector."""
    from mafr.baselines.registry import load_detector
    from mafr.data import load_pair

    detector = load_detector(arguments.detector)
    threshold = detector.threshold if arguments.threshold is None else arguments.threshold
    if threshold is None:
        raise ConfigError(f"{arguments.detector} has no threshold of its own; give one with --threshold")
    plane = None if arguments.processed else detector.config.plane
    sample = load_pair(arguments.rgb, arguments.xyz, detector.config, plane, arguments.intrinsics)
    try:
        prediction = detector.predict(sample)
    except DataError as error:
        raise DataError(f"{arguments.xyz}: {str(error).strip()}") from error
    verdict = "OK" if prediction.score <= threshold else "not OK"
    picture, warning = None, UNTRAINED if detector.config.random_weights else ""
    if arguments.out:
        from mafr.figures.figure2 import save_heatmap

        picture = str(save_heatmap(sample, prediction, threshold, Path(arguments.out), warning))
    if arguments.json:
        result = {"score": prediction.score, "threshold": threshold, "verdict": verdict, "picture": picture}
        print(json.dumps(result | ({"warning": warning} if warning else {})))
        return
    source = f"the {detector.config.quantile:.0%} quantile of good validation scores"
    print(f"{verdict}: score {prediction.score:.4f}, threshold {threshold:.4f}", end=" ")
    print(f"({source if arguments.threshold is None else 'as given'})")
    if warning:
        print(warning)
    if picture:
        print(f"heatmap in {picture}")


def show_weights(arguments: argparse.Namespace) -> None:
    """What weight files there are; those that are missing on request."""
    from mafr.features.weights.files import method_files, needed_files, provide_files
    from mafr.features.weights.report import weights_report

    config, paths = read_settings(arguments)
    if arguments.fetch:
        provide_files(config, paths.weights, (*needed_files(config), *method_files(config)))
    print(weights_report(config, paths.weights))


def import_released(arguments: argparse.Namespace) -> None:
    """A detector from the released code's checkpoints."""
    from mafr.detector import Detector

    config, _ = read_settings(arguments)
    detector = Detector.from_released(arguments.folder or arguments.files, config)
    detector.save(arguments.out)
    print(f"detector in {arguments.out}; it has no threshold of its own: give `mafr predict` one with --threshold")


def time_paths(arguments: argparse.Namespace) -> None:
    """The plain path against the product path, timed."""
    from mafr.bench.bench import STAGES, as_json, bench, report
    from mafr.paths import write_json

    config, _ = read_settings(arguments)
    if arguments.device:
        config = replace(config, device=arguments.device)
    stages = chosen_stages(arguments, tuple(STAGES))
    if arguments.repeats < 1 or not all(0 < share <= 100 for share in arguments.valid):
        raise ConfigError("--repeats must be at least 1, and the shares of --valid in 1 to 100")
    shares = [share / 100 for share in arguments.valid]
    machine, rows = bench(config, chosen_variants(arguments), shares, stages, arguments.repeats)
    print(report(machine, rows))
    if arguments.out:
        write_json(Path(arguments.out), as_json(machine, rows))


def compare_precision(arguments: argparse.Namespace) -> None:
    """What bfloat16 changes in Table I's metrics."""
    from mafr.bench.precision import precision_effect, report

    config, paths = read_settings(arguments)
    print(report(precision_effect(config, paths, chosen_variants(arguments), arguments.train, arguments.workers)))


def pretrain_points(arguments: argparse.Namespace) -> None:
    """The small Point-MAE, pretrained again."""
    from mafr.features.pretraining.pretrain import PretrainSettings, pretrain

    given = {name: getattr(arguments, name) for name in ("steps", "seed")}
    settings = PretrainSettings(**{name: value for name, value in given.items() if value is not None})
    print(f"weights in {pretrain(Path(arguments.out), settings)}")


def show_config(arguments: argparse.Namespace) -> None:
    """Every setting of a profile and a variant."""
    config, _ = read_settings(arguments)
    for name, value in config.as_dict().items():
        print(f"{name:22} {value}")
