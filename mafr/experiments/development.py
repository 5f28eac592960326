"""What each part of the preset for own parts is worth, on development categories that no table shows.

The ladder begins with the demo's settings on scans by the second generator and takes the preset's settings group by
group; the alternatives change the whole preset by one thing. Choices are made here, never on a test set of a table:
on the data of Tables I and II the preset is only measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from mafr.config import DATASETS, DEVELOPMENT, SETTINGS, Config, deciding
from mafr.experiments.plan import Run
from mafr.parallel.progress import Workers
from mafr.paths import Paths

DATASET = "mvtec3d"
PROFILE = "parts"
Changes: TypeAlias = "tuple[tuple[str, Mapping[str, object]], ...]"
# The data: scans as large as real ones, of which enough are tested that a difference can be told from chance.
DATA: Mapping[str, object] = {
    "generated": True, "generator": "second", "raw_side": 400, "mvtec3d_train": 100, "validation_count": 16,
    "test_good": 24, "test_defective": 40, "mvtec3d_categories": DEVELOPMENT, "threads": 1,
}  # fmt: skip
# One step of the ladder each: its name, and the settings that take the preset's values.
LADDER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sum of calibrated maps, the 3D one halved, instead of the product", ("fusion", "xyz_weight")),
    ("a cell takes its nearest point", ("cell_point",)),
    ("the networks see a window around the part", ("view",)),
    ("FPFH instead of the small Point-MAE", ("point_backbone", "xyz_dim", "groups")),
    ("EfficientNet-Lite2 instead of Lite0", ("rgb_backbone", "rgb_dim")),
    ("longer training, its rate along a cosine", ("epochs", "min_steps", "schedule", "patience")),
    ("the filled outline is scored, with a narrower blur", ("scored", "sigma")),
    ("half of the expected residual is divided away", ("expected_share",)),
)
_WORN = {"point_backbone": "pointmae_worn", "xyz_dim": 192, "group_size": 64}
ON_TABLES = {"mvtec3d": "I", "eyecandies": "II"}  # studies on the data of a table, by its data set
_FINER = {"image_size": 448, "sigma": 7.0}
# The whole preset, changed by one thing.
ALTERNATIVES: Changes = (
    ("maximum instead of sum", {"fusion": "calibrated_max"}),
    ("both maps weigh alike", {"xyz_weight": 1.0}),
    ("the residual as it is", {"expected_share": 0.0}),
    ("the paper's product", {"fusion": "product"}),
    ("the 2D half alone", {"fusion": "rgb"}),
    ("the 3D half alone", {"fusion": "xyz"}),
    ("Point-MAE pretrained with gaps and noise", _WORN),
    ("Point-MAE of the demo", _WORN | {"point_backbone": "pointmae_small"}),
)
FINER: Changes = (
    ("images of 448 pixels", _FINER),
    ("images of 448 pixels, 56 × 56 cells", _FINER | {"grid": 56, "groups": 784}),
)
# The demo's settings in one category with finer maps, onto which the same tokens are interpolated.
GRIDS: Changes = (("56 × 56 cells", {"grid": 56}), ("112 × 112 cells", {"grid": 112}))
FEW = 20  # training scans
# The preset with few training scans, changed by one thing.
WITH_FEW: Changes = (
    ("a quarter of the steps", {"min_steps": 2_500}),
    ("until the loss on the validation parts has not fallen for 50 epochs", {"patience": 50}),
    ("the residual as it is", {"expected_share": 0.0}),
    ("the 2D half alone", {"fusion": "rgb"}),
)
# The preset on the data of Tables I and II: its halves, and the demo's settings.
_HALVES: Changes = (("the 2D half alone", {"fusion": "rgb"}), ("the 3D half alone", {"fusion": "xyz"}))
# The demo's settings, changed in the point features.
POINTS: Changes = (
    ("Point-MAE pretrained with gaps and noise", {"point_backbone": "pointmae_worn"}),
    ("FPFH", {"point_backbone": "fpfh", "xyz_dim": 66}),
)


@dataclass(frozen=True)
class Step:
    """A row: its name, its settings, and the number of the row that it is held against (None: the first)."""

    name: str
    config: Config
    before: int | None
    shots: int | None = None  # training scans, None for all
    dataset: str = DATASET

    def runs(self) -> list[Run]:
        """One per category."""
        return [Run(self.dataset, name, self.config, self.shots) for name in self.config.categories(self.dataset)]

    def place(self, paths: Paths) -> Paths:
        """Where its data lies: that of the tables is the demo's own."""
        shown = set(self.config.categories(self.dataset)) - set(DEVELOPMENT)
        return replace(paths, data_root=paths.root / "data" / "demo") if shown else paths


@dataclass(frozen=True)
class Study:
    """The rows of one table: its file's name and heading."""

    name: str
    heading: str
    steps: tuple[Step, ...]


def preset() -> Config:
    """The preset on the development categories."""
    return Config.preset(PROFILE, overrides=DATA)


def start(whole: Config | None = None) -> Config:
    """The demo's settings on the data of `whole` (None: the preset on the development categories)."""
    demo = Config.preset("demo")
    changed = {name: getattr(demo, name) for _, names in LADDER for name in names}
    return replace(whole or preset(), **changed)


def on_demo() -> Config:
    """The preset on the demo's data, which Tables I and II show."""
    demo = Config.preset("demo")
    of_data = ("generated", "threads", *deciding("data"), *(f"{dataset}_categories" for dataset in DATASETS))
    return Config.preset(PROFILE, overrides={name: getattr(demo, name) for name in of_data})


def ladder() -> Study:
    """From the demo's settings to the preset, one group of settings after the other."""
    whole, steps = preset(), [Step("the demo's settings", start(), None)]
    for number, (name, settings) in enumerate(LADDER):
        config = replace(steps[-1].config, **{setting: getattr(whole, setting) for setting in settings})
        steps.append(Step(name, config, number))
    return Study("ladder", "From the demo's settings to the preset for own parts", tuple(steps))


def studies() -> tuple[Study, ...]:
    """Every table of `mafr develop`."""
    return (
        ladder(),
        _changed("alternatives", "The preset, changed by one thing", preset(), ALTERNATIVES),
        _changed("points", "The demo's settings with other point features", start(), POINTS, "the small Point-MAE"),
        _changed("few", f"The preset with {FEW} training scans", preset(), WITH_FEW, shots=FEW),
        _changed("finer", "The preset with finer images and cells", preset(), FINER),
        _changed("grids", "The demo's settings with finer maps, one category", _one(start()), GRIDS, "28 × 28 cells"),
        *(_on_table(dataset) for dataset in ON_TABLES),
    )


def _changed(
    name: str, heading: str, config: Config, changes: Changes, first: str = "the preset", shots: int | None = None
) -> Study:
    rows = [Step(title, replace(config, **values), 0, shots) for title, values in changes]
    return Study(name, heading, (Step(first, config, None, shots), *rows))


def _one(config: Config) -> Config:
    """The same in a single category."""
    return replace(config, mvtec3d_categories=DEVELOPMENT[:1])


def _on_table(dataset: str) -> Study:
    whole = on_demo()
    rows = [(title, replace(whole, **values)) for title, values in _HALVES] + [("the demo's settings", start(whole))]
    steps = [Step(title, config, 0, dataset=dataset) for title, config in rows]
    first = Step("the preset", whole, None, dataset=dataset)
    return Study(dataset, f"The preset on the scans of Table {ON_TABLES[dataset]}", (first, *steps))


def left_out() -> set[str]:
    """The preset's settings that no step names, data and computing aside: there should be none."""
    named = {setting for _, settings in LADDER for setting in settings} | set(DATA)
    return {name for name, field in SETTINGS.items() if "parts" in field.metadata} - named


def measure(steps: Iterable[Step], paths: Paths, workers: Workers = 1) -> dict[Run, dict]:
    """The records of all steps' runs: data and features are made, and runs that are missing.

    Runs that differ in the scoring alone share one training.
    """
    from mafr.experiments.execute import run_sharing
    from mafr.experiments.prepare import extract_for, prepare_data

    found: dict[Run, dict] = {}
    for (place, dataset), group in _grouped(steps, paths).items():
        prepare_data(group[0].config, place, workers, (dataset,))
        runs = [run for step in group for run in step.runs()]
        extract_for(runs, place, workers)
        found |= run_sharing(runs, place, workers)
    return found


def stored(steps: Iterable[Step], paths: Paths) -> dict[Run, dict]:
    """The records of the finished ones among the steps' runs."""
    from mafr.experiments.run_store import read_records

    found: dict[Run, dict] = {}
    for (place, _), group in _grouped(steps, paths).items():
        found |= read_records([run for step in group for run in step.runs()], place)
    return found


def _grouped(steps: Iterable[Step], paths: Paths) -> dict[tuple[Paths, str], list[Step]]:
    """Steps by place of their data and by data set."""
    groups: dict[tuple[Paths, str], list[Step]] = {}
    for step in steps:
        groups.setdefault((step.place(paths), step.dataset), []).append(step)
    return groups


def finished(steps: Sequence[Step], records: Mapping[Run, dict]) -> list[bool]:
    """Whether all runs of each step have a record."""
    return [all(run in records for run in step.runs()) for step in steps]
