"""The generated data sets: raw folders in the formats of MVTec 3D-AD and Eyecandies, deterministic from a seed.

`core` holds the solid models, defects and renderer, `mvtec` and `eyecandies` the two halves.
"""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mafr.config import DATASETS, Config, generated_categories
from mafr.data.manifest import GENERATED, SAME_BYTES, reach_of_this_process
from mafr.disk import writing
from mafr.errors import ConfigError, DataError
from mafr.memory import keep_freed_memory
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import sweep, temporary_beside, write_json

# The categories that take most, by their time.
_LONGEST = {
    "mvtec3d": ("foam", "cookie", "bagel", "tire", "potato", "rope"),
    "eyecandies": ("LicoriceSandwich", "GummyBear", "ChocolateCookie", "Lollipop", "ChocolatePraline"),
}


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
        if name not in generated_categories(dataset):
            known = ", ".join(generated_categories(dataset))
            raise ConfigError(f"unknown category {name!r}; the generated ones are {known}")
    # Checking needs no processes of its own.
    missing = [name for name in names if not _is_complete(dataset, Path(root), config, name)]
    order = {name: k for k, name in enumerate(_LONGEST[dataset])}
    missing.sort(key=lambda name: order.get(name, len(order)))  # so that no process is left alone with a long one
    map_parallel(partial(_generate, dataset, Path(root), config), missing, workers, f"generating {dataset}")
    return [Path(root) / name for name in names]


def _half(dataset: str) -> ModuleType:
    folder = {"mvtec3d": "mvtec", "eyecandies": "eyecandies"}[dataset]
    return import_module(f"mafr.data.synthetic.{folder}.write")


def _is_complete(dataset: str, root: Path, config: Config, category: str) -> bool:
    """Whether a category's folder is whole and from the same settings, by the stamp in it, whatever its reach."""
    try:
        stamp = json.loads((root / category / GENERATED).read_text())
    except (OSError, ValueError, RecursionError):
        return False
    if isinstance(stamp, dict):
        stamp.pop(SAME_BYTES, None)
    return stamp == _half(dataset).stamp(category, config)


def _generate(dataset: str, root: Path, config: Config, category: str) -> None:
    """Write a category beside its folder, the stamp last, and put it in place whole."""
    folder = root / category
    if _is_complete(dataset, root, config, category):
        return
    if folder.exists() and not (folder / GENERATED).is_file():
        raise DataError(
            f"{folder} exists and was not generated: it holds no {GENERATED}. Move it away or choose another data "
            "root; real data is never overwritten."
        )
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    fresh, old = temporary_beside(folder), temporary_beside(folder)
    keep_freed_memory()
    try:
        _half(dataset).write(fresh, config, category)
        write_json(fresh / GENERATED, _half(dataset).stamp(category, config) | reach_of_this_process())
        if _is_complete(dataset, root, config, category):  # another process has just finished it
            return
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
