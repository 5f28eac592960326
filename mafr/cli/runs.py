"""Commands that make runs and their outputs: `reproduce`, `run`, `tables`, `figures`, `notebooks`."""

import argparse

from mafr.baselines.registry import MAFR, METHODS
from mafr.cli.options import (
    BESIDE,
    OWN_PARTS,
    Commands,
    add_command,
    chosen_methods,
    chosen_stages,
    chosen_variants,
    chosen_workers,
    numbers,
    read_settings,
)
from mafr.config import ALL_DATASETS, UNTRAINED, VARIANTS, Config
from mafr.errors import ConfigError, printable

OWN_MAP = "  ← this profile's map"  # of several, the one whose scores `fit` and `predict` use


def add_reproduce(commands: Commands) -> None:
    text = "regenerate every table, figure and notebook"
    sub = add_command(commands, "reproduce", reproduce_all, text, cluster=True, variant="both", methods=BESIDE)
    sub.add_argument("--seeds", type=int, default=1, metavar="N", help="number of seeds; several give mean ± deviation")
    sub.add_argument("--tables", type=numbers, default=(1, 2, 3, 4, 5), metavar="1,2,…", help="only these")
    text = "only these of data,features,runs,tables,figures,notebooks"
    sub.add_argument("--stages", default="", metavar="A,B", help=text)


def reproduce_all(arguments: argparse.Namespace) -> None:
    from mafr.cli.reproduce import STAGES, reproduce

    if arguments.profile == OWN_PARTS:
        raise ConfigError(
            f"the profile {OWN_PARTS} is for parts of your own and reproduces no table; use `mafr fit`, or "
            f"`mafr run --profile {OWN_PARTS}`"
        )
    config, paths = read_settings(arguments)
    stages, variants, methods = chosen_stages(arguments, STAGES), chosen_variants(arguments), chosen_methods(arguments)
    seeds, tables = arguments.seeds, arguments.tables
    with chosen_workers(arguments, config, paths) as crew:
        cluster = crew if arguments.scheduler else None
        reproduce(config, paths, arguments.workers, variants, seeds, tables, stages, cluster, methods)
    print(printable(f"tables in {paths.tables}, figures in {paths.figures}, notebooks in {paths.executed}"))


def add_run(commands: Commands) -> None:
    text = "train and score: the runs of tables, or of one category"
    methods = f"only these of {','.join(METHODS)} (default: all of a table; of a category mafr)"
    sub = add_command(commands, "run", make_runs, text, cluster=True, variant="both", methods=methods)
    sub.add_argument("--table", type=numbers, default=(), metavar="1,2,…", help="the runs of these tables")
    sub.add_argument("--dataset", choices=ALL_DATASETS, default="mvtec3d")
    sub.add_argument("--category", type=str.strip, help="one category instead of tables")
    sub.add_argument("--shots", type=int, help="training samples; default all")
    sub.add_argument("--seeds", type=int, default=1, metavar="N")


def make_runs(arguments: argparse.Namespace) -> None:
    from mafr.baselines.registry import weight_files
    from mafr.experiments.execute import run_all
    from mafr.experiments.plan import TABLES, all_runs, category_runs
    from mafr.experiments.prepare import extract_category
    from mafr.features.weights.files import provide_files
    from mafr.tables.published import METRIC_TITLES

    config, paths = read_settings(arguments)
    variants, methods = chosen_variants(arguments), chosen_methods(arguments)
    if arguments.category:
        if arguments.table:
            raise ConfigError("give --category or --table, not both")
        if arguments.methods is None:
            methods = (MAFR,)
        place = arguments.dataset, arguments.category
        runs = category_runs(*place, config, variants, arguments.shots, arguments.seeds, methods)
    else:
        if arguments.shots is not None:
            raise ConfigError("--shots goes with --category; for Table III change the setting: --set shots=5,10")
        runs = all_runs(config, arguments.table or TABLES, variants, arguments.seeds, methods)
    if not runs:
        raise ConfigError("these tables have none of these methods: nothing to run")
    provide_files(config, paths.weights, weight_files(config, {run.method for run in runs}))
    with chosen_workers(arguments, config, paths) as workers:
        if arguments.category:
            extract_category(config, paths, arguments.dataset, arguments.category, workers, methods, variants)
        records = run_all(runs, paths, workers)
    for run, record in records.items():
        print(run)
        if config.random_weights:
            print(f"  {UNTRAINED}")
        print(f"  {'map':8} {'  '.join(METRIC_TITLES.values())}")
        for how, metrics in record["metrics"].items():
            cells = [f"{metrics[name]:{len(head)}.3f}" for name, head in METRIC_TITLES.items()]
            own = OWN_MAP if how == run.config.fusion and len(record["metrics"]) > 1 else ""
            print(f"  {how:8} {'  '.join(cells)}{own}")


def add_tables(commands: Commands) -> None:
    sub = add_command(commands, "tables", write_tables, "write the tables from the stored runs", parallel=False,
                      computes=False, variant="both", methods=BESIDE)  # fmt: skip
    sub.add_argument("--seeds", type=int, default=1, metavar="N")
    sub.add_argument("--tables", type=numbers, default=(1, 2, 3, 4, 5), metavar="1,2,…", help="only these")
    text = "note in tests/digests.json on which processor the tables were met"
    sub.add_argument("--digest", action="store_true", help=text)
    sub.add_argument("--readme", action="store_true", help="also put the results into README.md (all tables of the "
                     "demo profile)")  # fmt: skip


def write_tables(arguments: argparse.Namespace) -> None:
    """The tables, from the stored runs."""
    from mafr.cli.reproduce import make_tables
    from mafr.experiments.plan import TABLES, all_runs, compared_methods
    from mafr.experiments.run_store import read_records
    from mafr.tables.digests import MAIN, note_digest
    from mafr.tables.readme import update_readme

    config, paths = read_settings(arguments)
    variants, methods = chosen_variants(arguments), chosen_methods(arguments)
    all_compared = compared_methods(TABLES, methods) == compared_methods(TABLES)
    whole = all_compared and (set(arguments.tables), variants, arguments.seeds) == (set(TABLES), VARIANTS, 1)
    if arguments.readme and not (whole and config == Config.preset() and not paths.data_root):
        raise ConfigError("README.md shows the demo profile as it is: --readme goes with no other option")
    readme = paths.root / "README.md"
    if arguments.readme and not readme.is_file():
        raise ConfigError(f"{readme} is not there; run from the checkout, or set MAFR_HOME to it")
    if arguments.digest and not whole:
        raise ConfigError("--digest is of all tables: leave out --tables, --variant, --methods and --seeds")
    for path in make_tables(config, paths, variants, arguments.seeds, arguments.tables, methods):
        print(printable(str(path)))
    if arguments.digest:
        records = read_records(all_runs(config), paths)
        print(printable(note_digest(MAIN, records, config, paths)))
    if arguments.readme:
        update_readme(readme, paths.tables)
        print(printable(str(readme)))


def add_figures(commands: Commands) -> None:
    add_command(commands, "figures", draw_figures, "draw the figures from the stored runs", variant="both")


def draw_figures(arguments: argparse.Namespace) -> None:
    from mafr.cli.reproduce import make_figures

    config, paths = read_settings(arguments)
    for path in make_figures(config, paths, chosen_variants(arguments), arguments.workers):
        print(printable(str(path)))


def add_notebooks(commands: Commands) -> None:
    sub = add_command(commands, "notebooks", execute_notebooks, "execute the notebooks by papermill")
    sub.add_argument("names", nargs="*", metavar="NAME", help="only those whose names begin with this, e.g. 02")
    sub.add_argument("--force", action="store_true", help="also those that are up to date")


def execute_notebooks(arguments: argparse.Namespace) -> None:
    from mafr.cli.reproduce import reproduce
    from mafr.experiments.notebooks import own_notebooks, run_notebooks
    from mafr.experiments.prepare import prepare_data, what_is_there

    config, paths = read_settings(arguments)
    there, datasets = what_is_there(config, paths)
    names = arguments.names
    # Their inputs first: kernels that run at the same time must not write the same files.
    if there == config:
        reproduce(config, paths, arguments.workers, stages=("data", "features", "runs", "tables"))
    else:
        names = own_notebooks(names)
        prepare_data(there, paths, arguments.workers, datasets)
    for path in run_notebooks(there, paths, arguments.workers, names, arguments.force):
        print(printable(str(path)))
