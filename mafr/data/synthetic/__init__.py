"""The generated data sets: raw folders in the formats of MVTec 3D-AD and Eyecandies, deterministic from a seed.

`generate(dataset, root, config)` writes them; `noise`, `sdf`, `render`, `part` and `defects` are the shared core,
`mvtec` and `eyecandies` the two halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mafr.config import DATASETS, Config
from mafr.errors import ConfigError
from mafr.parallel.progress import Workers, map_parallel


def generate(
    dataset: str, root: Path, config: Config, categories: Sequence[str] | None = None, workers: Workers = 1
) -> list[Path]:
    """Write the generated stand-in for a data set under `root`, a folder a category; returns these folders.

    Categories (by default all of the profile's) that are there and complete are left alone. Raises ConfigError for
    an unknown data set or category.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"unknown data set {dataset!r}; choose one of {', '.join(DATASETS)}")
    if dataset == "mvtec3d":
        from mafr.data.synthetic.mvtec.write import generate_mvtec3d as write
        from mafr.data.synthetic.mvtec.write import is_generated
    else:
        from mafr.data.synthetic.eyecandies.write import generate_eyecandies as write
        from mafr.data.synthetic.eyecandies.write import is_generated
    names = list(config.categories(dataset) if categories is None else categories)
    # To look needs no processes of its own.
    missing = [name for name in names if not is_generated(Path(root), config, name)]
    map_parallel(partial(write, Path(root), config), missing, workers, f"generating {dataset}")
    return [Path(root) / name for name in names]
