"""The whole reproduction, stage by stage: data, features, runs, tables, figures, notebooks."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mafr.baselines.registry import MAFR, METHODS, check_methods
from mafr.cli.stages import USUAL, Guide, run_stages
from mafr.config import VARIANTS, Config
from mafr.errors import notice
from mafr.experiments.notebooks import TABLE_NOTEBOOKS, is_preset, run_notebooks
from mafr.experiments.plan import TABLES, all_runs, compared_methods, table_datasets
from mafr.experiments.prepare import extract_all, prepare_data
from mafr.parallel.dask import Cluster
from mafr.parallel.progress import Workers
from mafr.paths import Paths, write_json

STAGES = ("data", "features", "runs", "tables", "figures", "notebooks")


def make_tables(
    config: Config,
    paths: Paths,
    variants: Sequence[str],
    seeds: int,
    tables: Sequence[int],
    methods: Iterable[str] = METHODS,
) -> list[Path]:
    """Write the tables that the stored runs allow, each as csv, md and tex."""
    from mafr.experiments.run_store import read_records
    from mafr.tables.comparison import write_tables

    methods = tuple(methods)
    runs = all_runs(config, tables, variants, seeds, methods)
    return write_tables(read_records(runs, paths), config, paths.tables, tables, variants, methods)


def make_figures(config: Config, paths: Paths, variants: Sequence[str], workers: int | None = 1) -> list[Path]:
    """Draw the figures from the stored runs."""
    from mafr.figures.write import write_figures

    return write_figures(config, paths, variants, workers)


def reproduce(
    config: Config,
    paths: Paths,
    workers: int | None = 1,
    variants: Sequence[str] = VARIANTS,
    seeds: int = 1,
    tables: Sequence[int] = TABLES,
    stages: Sequence[str] = STAGES,
    cluster: Cluster | None = None,
    methods: Sequence[str] = METHODS,
) -> dict[str, float]:
    """Run the stages in order; returns the seconds that each took. Finished work is not repeated.

    methods: the compared ones beside MAFR. With fewer than all, the notebooks, which show all, are left out.
    workers: local processes, None for as many as suit the machine. Data, features and runs go to the `cluster`
    where there is one; the notebooks are executed here. Says on stderr what is done, what is left and what can be
    opened, and how far the tables are from committed ones.
    """
    from mafr.experiments.execute import run_all
    from mafr.tables.committed import committed_difference

    datasets = table_datasets(tables)
    notebooks = None if set(tables) == set(TABLE_NOTEBOOKS) else [TABLE_NOTEBOOKS[k] for k in tables]
    crew: Workers = cluster or workers
    work: dict[str, Callable[[], object]] = {
        "data": lambda: prepare_data(config, paths, crew, datasets),
        "features": lambda: extract_all(config, paths, crew, datasets, compared, variants),
        "runs": lambda: run_all(all_runs(config, tables, variants, seeds, methods), paths, crew),
        "tables": lambda: make_tables(config, paths, variants, seeds, tables, methods),
        "figures": lambda: make_figures(config, paths, variants, workers),
        "notebooks": lambda: run_notebooks(config, paths, workers, notebooks),
    }
    methods = check_methods((MAFR, *methods))
    compared = compared_methods(tables, methods)
    all_compared = compared_methods(TABLES, methods) == compared_methods(TABLES)
    if "notebooks" in stages and not (is_preset(config, paths) and all_compared):
        left_out = "with --set, --methods or --random-weights they are left out"
        notice(f"the notebooks show a profile as it is; {left_out}")
        stages = [stage for stage in stages if stage != "notebooks"]
    usual = seeds == 1 and config.generated and is_preset(config, paths)
    seconds = run_stages({stage: work[stage] for stage in STAGES if stage in stages}, _guide(paths, usual))
    _keep_timings(paths, seconds)
    if "tables" in stages and (line := committed_difference(paths.tables, paths.root)):
        print(line, file=sys.stderr)
    return seconds


def _guide(paths: Paths, usual: bool) -> Guide:
    """What the reader is told: the committed notebooks can be read at any time, these are the reader's own.

    usual: whether the stages do what their usual times were taken of.
    """
    tables, figures, executed = (_from_root(path, paths.root) for path in (paths.tables, paths.figures, paths.executed))
    opens = {
        "data": "notebooks/01_data_exploration.ipynb",
        # The verdicts of the others read tables.
        "tables": f"notebooks/02 to 11; {tables}/table1.md to table5.md, and tableS5.md: which differences count",
        "figures": f"{figures}/overview.png, fig2_qualitative.png",
        "notebooks": f"{executed}/02_method.ipynb first; `jupyter lab notebooks/09_heatmap_explorer.ipynb` to explore",
    }
    return Guide(USUAL.get(paths.profile, {}) if usual else {}, opens)


def _from_root(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _keep_timings(paths: Paths, seconds: dict[str, float]) -> None:
    """Keep the longest time seen of each stage: later calls find their work done already."""
    path = paths.root / "runs" / paths.profile / "stages.json"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        known = {k: v for k, v in written.items() if isinstance(v, int | float) and math.isfinite(v)}
    except (OSError, ValueError, AttributeError, RecursionError):  # not there yet, or damaged: times begin again
        known = {}
    write_json(path, {k: max(v, known.get(k, 0.0)) for k, v in {**known, **seconds}.items()})
