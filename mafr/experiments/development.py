"""What each part of the preset for own parts is worth, on development categories that no table shows.

The ladder begins with the demo's settings on scans by the second generator and takes the preset's settings group by
group; the alternatives change the whole preset by one thing. Choices are made here, never on a test set of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mafr.config import DEVELOPMENT, SETTINGS, Config
from mafr.experiments.plan import Run
from mafr.parallel.progress import Workers
from mafr.paths import Paths

DATASET = "mvtec3d"
PROFILE = "parts"
# The data: scans as large as real ones, of which enough are tested that a difference can be told from chance.
DATA: Mapping[str, object] = {
    "generated": True, "generator": "second", "raw_side": 400, "mvtec3d_train": 100, "validation_count": 16,
    "test_good": 24, "test_defective": 40, "mvtec3d_categories": DEVELOPMENT, "threads": 1,
}  # fmt: skip
# One step of the ladder each: its name, and the settings that take the preset's values.
LADDER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("longer training, its rate along a cosine", ("epochs", "min_steps", "schedule", "patience")),
    ("sum of calibrated maps, the 3D one halved, instead of the product", ("fusion", "xyz_weight")),
    ("a cell takes its nearest point", ("cell_point",)),
    ("the networks see a window around the part", ("view",)),
    ("FPFH instead of the small Point-MAE", ("point_backbone", "xyz_dim", "groups")),
    ("the filled outline is scored, with a narrower blur", ("scored", "sigma")),
    ("half of the expected residual is divided away", ("expected_share",)),
    ("EfficientNet-Lite2 instead of Lite0", ("rgb_backbone", "rgb_dim")),
)
# The whole preset, changed by one thing.
WORN = {"point_backbone": "pointmae_worn", "xyz_dim": 192, "group_size": 64}
ALTERNATIVES: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("maximum instead of sum", {"fusion": "calibrated_max"}),
    ("both maps weigh alike", {"xyz_weight": 1.0}),
    ("the residual as it is", {"expected_share": 0.0}),
    ("the paper's product", {"fusion": "product"}),
    ("the 2D half alone", {"fusion": "rgb"}),
    ("the 3D half alone", {"fusion": "xyz"}),
    ("Point-MAE pretrained with gaps and noise", WORN),
    ("Point-MAE of the demo", WORN | {"point_backbone": "pointmae_small"}),
    ("images of 448 pixels", {"image_size": 448, "sigma": 7.0}),
    ("images of 448 pixels, 56 × 56 cells", {"image_size": 448, "sigma": 7.0, "grid": 56, "groups": 784}),
)


@dataclass(frozen=True)
class Step:
    """A row: its name, its settings, and the number of the row that it is held against (None: the first)."""

    name: str
    config: Config
    before: int | None

    def runs(self) -> list[Run]:
        """One per development category."""
        return [Run(DATASET, category, self.config) for category in self.config.categories(DATASET)]


def preset() -> Config:
    """The preset on the development categories."""
    return Config.preset(PROFILE, overrides=DATA)


def start() -> Config:
    """The demo's settings on the same data."""
    demo, whole = Config.preset("demo"), preset()
    changed = {name: getattr(demo, name) for _, names in LADDER for name in names}
    return replace(whole, **changed)


def ladder() -> list[Step]:
    """From the demo's settings to the preset, one group of settings after the other."""
    whole, steps = preset(), [Step("the demo's settings", start(), None)]
    for number, (name, settings) in enumerate(LADDER):
        config = replace(steps[-1].config, **{setting: getattr(whole, setting) for setting in settings})
        steps.append(Step(name, config, number))
    return steps


def alternatives() -> list[Step]:
    """The preset, and what it could be instead."""
    whole = preset()
    return [Step("the preset", whole, None)] + [Step(n, replace(whole, **changes), 0) for n, changes in ALTERNATIVES]


def left_out() -> set[str]:
    """The preset's settings that no step names, data and computing aside: there should be none."""
    named = {setting for _, settings in LADDER for setting in settings} | set(DATA)
    return {name for name, field in SETTINGS.items() if "parts" in field.metadata} - named


def measure(steps: Iterable[Step], paths: Paths, workers: Workers = 1) -> dict[Run, dict]:
    """The records of all steps' runs: data and features are made, and runs that are missing."""
    from mafr.experiments.execute import run_all
    from mafr.experiments.prepare import prepare_data
    from mafr.features.sources.splits import extract_features

    steps = list(steps)
    prepare_data(preset(), paths, workers, (DATASET,))
    for config in {step.config.feature_digest(): step.config for step in steps}.values():
        extract_features(paths, config, DATASET, config.categories(DATASET), workers)
    return run_all([run for step in steps for run in step.runs()], paths, workers)


def stored(steps: Iterable[Step], paths: Paths) -> dict[Run, dict]:
    """The records of the finished ones among the steps' runs."""
    from mafr.experiments.run_store import read_records

    return read_records([run for step in steps for run in step.runs()], paths)


def finished(steps: Sequence[Step], records: Mapping[Run, dict]) -> list[bool]:
    """Whether all runs of each step have a record."""
    return [all(run in records for run in step.runs()) for step in steps]
