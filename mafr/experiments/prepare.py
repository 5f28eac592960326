"""Preparation of the inputs of runs: data sets and features of every category."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from mafr.baselines.registry import MAFR, METHODS, feature_config, method_settings, weight_files
from mafr.config import ALL_DATASETS, CATEGORIES, DATASET_TITLES, DATASETS, VARIANTS, Config
from mafr.data.layout import subfolders
from mafr.data.manifest import MANIFEST
from mafr.errors import MafrError
from mafr.experiments.plan import Run, compared_methods, table_of
from mafr.parallel.progress import Workers
from mafr.paths import Paths


def what_is_there(config: Config, paths: Paths) -> tuple[Config, tuple[str, ...]]:
    """For data of the user's own: the settings with the categories that are there, and the data sets that have any.

    Published categories come first, in the paper's order. Generated data is made as needed: nothing changes. Raises
    MafrError where there is no category at all.
    """
    if config.generated:
        return config, DATASETS
    found = {dataset: _categories_of(paths, dataset) for dataset in ALL_DATASETS}
    datasets = tuple(dataset for dataset in ALL_DATASETS if found[dataset])
    if not datasets:
        raise MafrError(
            f"{paths.data} holds no category: there is no {paths.processed(DATASETS[0])}/<category>; "
            f"`mafr data mvtec3d --source FOLDER --data-root {paths.data}` makes processed copies"
        )
    return replace(config, **{f"{dataset}_categories": found[dataset] for dataset in datasets}), datasets


def _categories_of(paths: Paths, dataset: str) -> tuple[str, ...]:
    processed, raw = paths.processed(dataset), paths.raw(dataset)
    names = {name for name in subfolders(processed) if (processed / name / MANIFEST).is_file()}
    names |= {name for name in subfolders(raw) if (raw / name / "train").is_dir()}
    published = [name for name in CATEGORIES[dataset] if name in names]
    return (*published, *sorted(names - set(published)))


def prepare_data(config: Config, paths: Paths, workers: Workers = 1, datasets: Sequence[str] = DATASETS) -> None:
    """Write the raw data sets of a generated profile; preprocess raw data that is not yet preprocessed."""
    from mafr.data import preprocess
    from mafr.data.synthetic import generate

    for dataset in datasets:
        if config.generated:
            generate(dataset, paths.raw(dataset), config, config.categories(dataset), workers)
        elif not paths.raw(dataset).is_dir() and not paths.processed(dataset).is_dir():
            raise MafrError(
                f"{paths.raw(dataset)} is missing: `mafr data {dataset} --data-root DIR` downloads "
                f"{DATASET_TITLES[dataset]}, or takes it from --archive FILE or --source FOLDER; then name the same "
                "folder here: --data-root, or data_root in a notebook"
            )
        if paths.raw(dataset).is_dir():
            categories = config.categories(dataset)
            preprocess(dataset, paths.raw(dataset), paths.processed(dataset), config, categories, workers)


def extract_for(runs: Iterable[Run], paths: Paths, workers: Workers = 1) -> None:
    """Extract and store the features that runs read, each set once."""
    from mafr.features.sources.splits import extract_features

    needed: dict[tuple[str, str], tuple[Config, list[str]]] = {}
    for run in runs:
        settings = feature_config(run.method, run.config)
        _, categories = needed.setdefault((run.dataset, settings.feature_digest()), (settings, []))
        if run.category not in categories:
            categories.append(run.category)
    for (dataset, _), (settings, categories) in needed.items():
        extract_features(paths, settings, dataset, categories, workers)


def extract_all(
    config: Config,
    paths: Paths,
    workers: Workers = 1,
    datasets: Sequence[str] = DATASETS,
    methods: Collection[str] = METHODS,
    variants: Sequence[str] = VARIANTS,
) -> None:
    """Extract and store the features of every category, for MAFR in `variants` and for the compared `methods`.

    Those of the small profiles serve both variants and most methods.
    """
    from mafr.features.sources.splits import extract_features
    from mafr.features.weights.files import needed_files, provide_files

    # Everything that is missing is reported now, not when the runs need it.
    provide_files(config, paths.weights, (*needed_files(config), *weight_files(config, methods)))
    for dataset in datasets:
        used = (MAFR, *compared_methods([table_of(dataset)], methods))
        for settings in _feature_settings(config, dataset, used, variants):
            extract_features(paths, settings, dataset, config.categories(dataset), workers)


def extract_category(
    config: Config,
    paths: Paths,
    dataset: str,
    category: str,
    workers: Workers = 1,
    methods: Collection[str] = (MAFR,),
    variants: Sequence[str] = VARIANTS,
) -> None:
    """Extract and store the features of one category of any data set, for `methods`, MAFR in `variants`."""
    from mafr.features.sources.splits import extract_features
    from mafr.features.weights.files import needed_files, provide_files

    provide_files(config, paths.weights, (*needed_files(config), *weight_files(config, methods)))
    for settings in _feature_settings(config, dataset, methods, variants):
        extract_features(paths, settings, dataset, [category], workers)


def _feature_settings(config: Config, dataset: str, methods: Collection[str], variants: Sequence[str]) -> list[Config]:
    """The settings of each store of features that the methods use; several share most of them."""
    wanted = [method_settings(MAFR, config, variant, dataset) for variant in variants if MAFR in methods]
    wanted += [feature_config(m, method_settings(m, config, dataset=dataset)) for m in methods if m != MAFR]
    return list({one.feature_digest(): one for one in wanted}.values())
