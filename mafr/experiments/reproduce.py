"""The whole reproduction, stage by stage: data, features, runs, tables, figures, notebooks."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mafr.baselines.methods import MAFR, METHODS, TABLE_METHODS, baseline_settings, check_methods
from mafr.config import DATASET_TITLES, DATASETS, VARIANTS, Config
from mafr.errors import ConfigError, MafrError
from mafr.experiments.executed import tidied
from mafr.parallel.dask import Cluster
from mafr.parallel.processes import environment
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import PACKAGE, Paths, write_atomically, write_json

# What kernels inherit: one thread each, for several run at once; neither bars nor hidden warnings in outputs.
_KERNEL = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "default"}
TABLE_NOTEBOOKS = {1: "03", 2: "04", 3: "05", 4: "06", 5: "07"}
STAGES = ("data", "features", "runs", "tables", "figures", "notebooks")


def prepare_data(config: Config, paths: Paths, workers: Workers = 1, datasets: Sequence[str] = DATASETS) -> None:
    """Generated profiles: write the raw data sets; all profiles: preprocess what is not yet."""
    from mafr.data import preprocess

    for dataset in datasets:
        if config.generated:
            from mafr.data.synthetic import generate

            generate(dataset, paths.raw(dataset), config, config.categories(dataset), workers)
        elif not paths.raw(dataset).is_dir() and not paths.processed(dataset).is_dir():
            raise MafrError(
                f"{paths.raw(dataset)} is missing: `mafr data {dataset} --data-root DIR` downloads "
                f"{DATASET_TITLES[dataset]}, or takes it from --archive FILE or --source FOLDER; then name the same "
                "--data-root here"
            )
        if paths.raw(dataset).is_dir():
            categories = config.categories(dataset)
            preprocess(dataset, paths.raw(dataset), paths.processed(dataset), config, categories, workers)


def extract_all(
    config: Config,
    paths: Paths,
    workers: Workers = 1,
    datasets: Sequence[str] = DATASETS,
    methods: Iterable[str] = METHODS,
) -> None:
    """Extract and store the features of every category, for MAFR and for the compared `methods`."""
    from mafr.baselines.registry import feature_config
    from mafr.features.sources.splits import extract_features
    from mafr.features.weights.files import method_files, needed_files, provide_files

    # All that is missing is said now, not when the runs come to it.
    provide_files(config, paths.weights, (*needed_files(config), *method_files(config, methods)))
    for dataset in datasets:
        compared = set(methods) & set(TABLE_METHODS[DATASETS.index(dataset) + 1])
        wanted = [config, *(feature_config(m, baseline_settings(config)) for m in sorted(compared))]
        for settings in {c.feature_digest(): c for c in wanted}.values():
            extract_features(paths, settings, dataset, config.categories(dataset), workers)


def make_tables(
    config: Config,
    paths: Paths,
    variants: Sequence[str],
    seeds: int,
    tables: Sequence[int],
    methods: Iterable[str] = METHODS,
) -> list[Path]:
    """Write the tables that the stored runs allow, each as csv, md and tex."""
    from mafr.experiments.experiments import all_runs, read_records
    from mafr.tables.paper import write_tables
    from mafr.tables.readme import update_readme

    methods = tuple(methods)
    runs = all_runs(config, tables, variants, seeds, methods)
    written = write_tables(read_records(runs, paths), config, paths.tables, tables, variants, methods)
    readme = paths.root / "README.md"
    # The README shows the embedded default and nothing else.
    whole = set(tables) == {1, 2, 3, 4, 5} and tuple(variants) == VARIANTS and seeds == 1
    whole = whole and set(methods) == set(METHODS)
    if whole and config == Config.preset() and not paths.variation and readme.exists():
        update_readme(readme, paths.tables)
    return written


def make_figures(config: Config, paths: Paths, variants: Sequence[str], workers: int | None = 1) -> list[Path]:
    """Draw the figures from the stored runs."""
    from mafr.figures.write import write_figures

    return write_figures(config, paths, variants, workers)


def run_notebooks(
    config: Config, paths: Paths, workers: int | None = 1, names: Sequence[str] | None = None, force: bool = False
) -> list[Path]:
    """Execute the notebooks by papermill into `paths.executed`; those that are up to date are kept.

    A notebook is up to date while its source, the package and the stored runs are the same. Notebooks show a
    profile as it is: raises ConfigError for changed settings.
    """
    if not _is_preset(config, paths):
        raise ConfigError(
            "the notebooks show a profile as it is, without --set and --random-weights; to change a setting there, "
            "edit the `parameters` cell and the line below it in Jupyter"
        )
    sources = sorted(paths.notebooks.glob("[0-9]*.ipynb"))
    if names:
        sources = [s for s in sources if any(s.stem.startswith(name) for name in names)]
    if not sources:
        raise MafrError(f"no notebook matches in {paths.notebooks}; run from the checkout, or set MAFR_HOME to it")
    state = _state(config, paths)
    jobs = []
    for source in sources:
        stamp = hashlib.sha256(source.read_bytes() + state.encode()).hexdigest()
        if force or not _is_current(paths, source, stamp):
            jobs.append((source, paths, config.profile, stamp))
    jobs.sort(key=lambda job: -job[0].stat().st_size)  # the longest first, so that it is not alone at the end
    map_parallel(_run_notebook, jobs, workers, what="notebooks")
    return [paths.executed / source.name for source in sources]


def _is_preset(config: Config, paths: Paths) -> bool:
    """Whether the settings are the profile's own; a data set of one's own is not generated, in any profile."""
    overrides = {"generated": False} if paths.data_root else None
    return config == Config.preset(config.profile, config.variant, overrides)


def _state(config: Config, paths: Paths) -> str:
    """A digest of what all notebooks read: settings, package sources, finished runs."""
    from mafr.experiments.experiments import all_runs

    digest = hashlib.sha256(config.digest().encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    # Only runs of the tables: those that a notebook adds itself must not make it out of date.
    for run in all_runs(config):
        path = run.folder(paths) / "metrics.json"
        if path.exists():
            digest.update(f"{path.parent.name} {path.stat().st_size}".encode())
    return digest.hexdigest()


def _stamp_file(paths: Paths, source: Path) -> Path:
    return paths.root / "runs" / paths.profile / "notebooks" / f"{source.stem}.json"


def _is_current(paths: Paths, source: Path, stamp: str) -> bool:
    try:
        written = json.loads(_stamp_file(paths, source).read_text())["stamp"]
    except (OSError, ValueError, KeyError):
        return False
    return written == stamp and (paths.executed / source.name).exists()


def _run_notebook(job: tuple[Path, Paths, str, str]) -> None:
    import papermill

    source, paths, profile, stamp = job
    target = paths.executed / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    parameters = {"profile": profile}
    if paths.data_root:
        parameters["data_root"] = str(paths.data_root)
    try:
        with environment(_KERNEL | {"MAFR_HOME": str(paths.root)}):
            papermill.execute_notebook(
                str(source), str(temporary), parameters, kernel_name="python3", cwd=str(paths.notebooks),
                progress_bar=False, log_output=False, extra_arguments=["--IPKernelApp.log_level=50"],
            )  # fmt: skip
        write_atomically(target, tidied(temporary.read_text(), paths.root))
    except papermill.PapermillExecutionError as error:
        raise MafrError(f"{source.name}, cell {error.exec_count}: {error.ename}: {error.evalue}") from error
    finally:
        temporary.unlink(missing_ok=True)
    write_json(_stamp_file(paths, source), {"stamp": stamp})


def reproduce(
    config: Config,
    paths: Paths,
    workers: int | None = 1,
    variants: Sequence[str] = ("paper", "released"),
    seeds: int = 1,
    tables: Sequence[int] = (1, 2, 3, 4, 5),
    stages: Sequence[str] = STAGES,
    cluster: Cluster | None = None,
    methods: Sequence[str] = METHODS,
) -> dict[str, float]:
    """Run the stages in order; returns the seconds that each took. Finished work is not repeated.

    methods: the compared ones beside MAFR. With fewer than all, the notebooks, which show all, are left out.
    workers: local processes, None for as many as suit the machine. Data, features and runs go to the `cluster`
    where there is one; the notebooks are executed here.
    """
    from mafr.experiments.experiments import all_runs, run_all

    # Table II alone needs no MVTec 3D-AD, and the other way round.
    datasets = [d for d, needed in zip(DATASETS, (set(tables) - {2}, set(tables) & {2}), strict=True) if needed]
    notebooks = None if set(tables) == set(TABLE_NOTEBOOKS) else [TABLE_NOTEBOOKS[k] for k in tables]
    crew: Workers = cluster or workers
    work: dict[str, Callable[[], object]] = {
        "data": lambda: prepare_data(config, paths, crew, datasets),
        "features": lambda: extract_all(config, paths, crew, datasets, compared),
        "runs": lambda: run_all(all_runs(config, tables, variants, seeds, methods), paths, crew),
        "tables": lambda: make_tables(config, paths, variants, seeds, tables, methods),
        "figures": lambda: make_figures(config, paths, variants, workers),
        "notebooks": lambda: run_notebooks(config, paths, workers, notebooks),
    }
    methods = check_methods((MAFR, *methods))
    compared = [m for m in methods if any(m in TABLE_METHODS.get(table, ()) for table in tables)]
    if "notebooks" in stages and (not _is_preset(config, paths) or methods != METHODS):
        left_out = "with --set, --methods or --random-weights they are left out"
        print(f"mafr: the notebooks show a profile as it is; {left_out}", file=sys.stderr)
        stages = [stage for stage in stages if stage != "notebooks"]
    seconds = {}
    for stage in STAGES:
        if stage not in stages:
            continue
        print(f"== {stage}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        work[stage]()
        seconds[stage] = time.perf_counter() - start
        print(f"   {stage}: {seconds[stage]:.0f} s", file=sys.stderr, flush=True)
    _keep_timings(paths, seconds)
    return seconds


def _keep_timings(paths: Paths, seconds: dict[str, float]) -> None:
    """Keep the longest time seen of each stage: later calls find their work done already."""
    path = paths.root / "runs" / paths.profile / "stages.json"
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    write_json(path, {k: max(v, known.get(k, 0.0)) for k, v in {**known, **seconds}.items()})
