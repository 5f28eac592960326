"""The generated data sets: raw folders in the formats of MVTec 3D-AD and Eyecandies, deterministic from a seed.

`core` holds the solid models, defects and renderer, `mvtec` and `eyecandies` the two halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mafr.config import CATEGORIES, DATASETS, Config
from mafr.data.synthetic.core.files import is_complete, write_category
from mafr.errors import ConfigError
from mafr.parallel.progress import Workers, map_parallel


def generate(
    dataset: str, root: Path, config: Config, categories: Sequence[str] | None = None, workers: Workers = 1
) -> list[Path]:
    """Write the generated stand-in for a data set under `root`, one folder per category; returns these folders.

    Categories (by default all of the profile's) that are there, whole and from the same settings are left alone; the
    generator's own folders of other settings are replaced. Raises ConfigError for an unknown data set or category,
    DataError for a folder that was not generated.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"unknown data set {dataset!r}; choose one of {', '.join(DATASETS)}")
    names = list(config.categories(dataset) if categories is None else categories)
    for name in names:
        if name not in CATEGORIES[dataset]:
            known = ", ".join(CATEGORIES[dataset])
            raise ConfigError(f"unknown category {name!r}; the generated ones are {known}")
    # Checking needs no processes of its own.
    missing = [name for name in names if not is_complete(Path(root) / name, _half(dataset).stamp(name, config))]
    map_parallel(partial(_generate, dataset, Path(root), config), missing, workers, f"generating {dataset}")
    return [Path(root) / name for name in names]


def _half(dataset: str) -> ModuleType:
    folder = {"mvtec3d": "mvtec", "eyecandies": "eyecandies"}[dataset]
    return import_module(f"mafr.data.synthetic.{folder}.write")


def _generate(dataset: str, root: Path, config: Config, category: str) -> None:
    half = _half(dataset)
    write = partial(half.write, config=config, category=category)
    write_category(root / category, half.stamp(category, config), write)
