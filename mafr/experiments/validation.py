"""Trials on real scans: published numbers that need no pretrained weights, and all methods with the demo's backbones.

A trial is a run with a name; all lie in the run store of the demo profile. Nothing here chooses a setting by a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mafr.baselines.registry import MAFR, method_settings
from mafr.config import CATEGORIES, DATASETS, SETTINGS, VARIANTS, Config
from mafr.errors import ConfigError, DataError
from mafr.experiments.plan import TABLE_METHODS, Run, table_of
from mafr.parallel.progress import Workers
from mafr.paths import Paths

PARTS = {  # name on the command line -> contents
    "features": "single features in a memory bank (Horwitz & Hoshen), as published",
    "ast": "AST on depth alone, at its published size",
    "benchmark": "the six depth and voxel methods of the first benchmark",
    "mafr": "MAFR at growing numbers of epochs, and the released variant",
    "compared": "the compared methods, trained as in the demo and as long as published",
    "differences": "MAFR with one difference between text and code at a time",
    "preset": "the preset for own parts, with all training scans and with fewer",
}
EPOCHS = (1, 6, 20, 100)  # of the paper variant; the first demo trained 6, the paper 100
BASE_EPOCHS = 20  # of the trials that show one difference at a time
BASE_SEEDS = 3  # of these trials' common start, so that a difference can be held against the spread of seeds
FEWER = {"mvtec3d": (100, 50, 20), "eyecandies": (20,)}  # training scans of the preset's trials, beside all
SINGLE_FEATURES = ("raw_depth", "hog", "sift", "fpfh")
BENCHMARK = ("depthgan", "depthae", "depthvm", "voxelgan", "voxelae", "voxelvm")

# What two cores cannot train at its published length in about an hour: sides, widths and codes divided by two (GANs:
# by four), and as many epochs of the 20 turned copies as fit; batches and rates stay. AST's student is an eighth as
# wide. The variation models are as published.
SHORTENED: dict[str, dict[str, object]] = {
    "ast": {"ast_student_hidden": 128, "ast_epochs": 72},
    "depthae": {"depth_side": 128, "depth_width": 32, "depth_latent": 256, "depth_epochs": 10},
    "depthgan": {"depth_gan_side": 64, "depth_gan_width": 16, "depth_gan_latent": 128, "depth_epochs": 2},
    "voxelae": {"voxel_side": 32, "voxel_width": 16, "voxel_latent": 256, "voxel_epochs": 10},
    "voxelgan": {"voxel_gan_side": 16, "voxel_gan_width": 8, "voxel_gan_latent": 128, "voxel_epochs": 5},
}
# The settings of a training's length and steps, which "as long as published" takes from the full profile.
_LENGTHS = {
    "ast": ("ast_epochs", "ast_batch", "ast_learning_rate"),
    "m3dm": ("m3dm_steps", "m3dm_patches"),
    "cfm": ("cfm_epochs",),
    "cfm_m": ("cfm_epochs",),
    "rgbd": ("rgbd_epochs", "rgbd_repeat", "rgbd_batch"),
    "rgbcdn": ("rgbd_epochs", "rgbd_repeat", "rgbd_batch"),
}
# Differences of the variants that these scans cannot show: both categories' images are square, nothing is padded.
NOT_HERE = ("mask_padding",)


@dataclass(frozen=True)
class Trial:
    """A run on a real category. how: its settings in words; shortened: whether sizes are not the published ones."""

    part: str
    run: Run
    how: str
    shortened: bool = False


def real_categories(paths: Paths) -> dict[str, tuple[str, ...]]:
    """{data set: its published categories that have a processed copy}. Raises DataError where there is none."""
    found = {
        dataset: tuple(c for c in CATEGORIES[dataset] if (paths.processed(dataset) / c).is_dir())
        for dataset in DATASETS
    }
    if not any(found.values()):
        raise DataError(
            f"{paths.data} holds no published category: there is no {paths.processed(DATASETS[0])}/<category> and no "
            f"{paths.processed(DATASETS[1])}/<class>; `mafr data mvtec3d --data-root {paths.data}` makes them"
        )
    return found


def trials(
    categories: Mapping[str, Iterable[str]], parts: Iterable[str] = tuple(PARTS), whole: bool = False
) -> list[Trial]:
    """The trials of some parts on real categories, in the order of `PARTS`.

    whole: at the published sizes and lengths where two cores need days (a GPU does not). Raises ConfigError for a part
    that does not exist.
    """
    if unknown := set(parts) - set(PARTS):
        raise ConfigError(f"unknown part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    made = []
    for part in (name for name in PARTS if name in set(parts)):
        for dataset, names in categories.items():
            for category in names:
                made += _MAKERS[part](dataset, category, whole)
    return made


def demo_settings() -> Config:
    """The demo profile on real scans: small backbones, the demo's training."""
    return Config.preset("demo", overrides={"generated": False})


def text_and_code() -> dict[str, object]:
    """{setting: the released code's value} of every difference to the paper's text, and of the extractors' mode."""
    paper, released = (Config.preset("full", variant).as_dict() for variant in VARIANTS)
    changed = {name: value for name, value in released.items() if value != paper[name] and name != "variant"}
    demo = demo_settings().with_variant("released")
    return {"fused_dim": demo.width} | changed | {"extractor_mode": "batch-statistics"}


def run_trials(made: Iterable[Trial], paths: Paths, workers: Workers = 1) -> dict[Trial, dict]:
    """Each trial with its record: features are extracted, runs made where they are missing."""
    from mafr.experiments.execute import run_all
    from mafr.experiments.prepare import extract_for

    made = list(made)
    runs = [trial.run for trial in made]
    extract_for(runs, paths, workers)
    records = run_all(runs, paths, workers)
    return {trial: records[trial.run] for trial in made}


def stored_trials(made: Iterable[Trial], paths: Paths) -> dict[Trial, dict]:
    """The finished ones with their records."""
    from mafr.experiments.run_store import read_record

    found = ((trial, read_record(trial.run, paths)) for trial in made)
    return {trial: record for trial, record in found if record is not None}


def _single_features(dataset: str, category: str, whole: bool) -> Iterator[Trial]:
    if dataset != "mvtec3d":
        return  # the study is on MVTec 3D-AD
    published = {"cloud_sampling": "floor", "bank_choice": "float16"}
    signs = {"fpfh": {"fpfh_normals": "open3d"}}
    for method in SINGLE_FEATURES:
        run = _run(dataset, category, method, **published, **signs.get(method, {}))
        yield Trial("features", run, "as published")
    blocks = _run(dataset, category, "raw_depth", **published, raw_patches="blocks")
    yield Trial("features", blocks, "blocks of 8 × 8 pixels, as meant")
    yield Trial("features", _run(dataset, category, "fpfh", **published), "normals towards the camera")
    float32 = _run(dataset, category, "fpfh", cloud_sampling="floor", **signs["fpfh"])
    yield Trial("features", float32, "bank chosen in float32")
    for method in SINGLE_FEATURES:
        yield Trial("features", _run(dataset, category, method), "clouds sampled at pixels' centres")


def _ast(dataset: str, category: str, whole: bool) -> Iterator[Trial]:
    if dataset != "mvtec3d":
        return
    settings = _full("ast_") | {"ast_mode": "depth"} | ({} if whole else SHORTENED["ast"])
    yield Trial("ast", _run(dataset, category, "ast", **settings), _sizes(settings, "ast"), shortened=not whole)


def _benchmark(dataset: str, category: str, whole: bool) -> Iterator[Trial]:
    if dataset != "mvtec3d":
        return
    for method in BENCHMARK:
        less = {} if whole else SHORTENED.get(method, {})
        settings = _full("depth_" if method.startswith("depth") else "voxel_") | less
        how = _sizes(less, method) if less else "as published"
        yield Trial("benchmark", _run(dataset, category, method, **settings), how, shortened=bool(less))


def _mafr(dataset: str, category: str, whole: bool) -> Iterator[Trial]:
    for variant, lengths in zip(VARIANTS, (EPOCHS, EPOCHS[-1:]), strict=True):
        for epochs in lengths:
            yield Trial("mafr", _run(dataset, category, MAFR, variant, epochs=epochs), _epochs(epochs))


def _compared(dataset: str, category: str, whole: bool) -> Iterator[Trial]:
    for method in TABLE_METHODS[table_of(dataset)]:
        yield Trial("compared", _run(dataset, category, method), "as in the demo")
        if method in _LENGTHS:
            settings = _taken(_LENGTHS[method])
            yield Trial("compared", _run(dataset, category, method, **settings), "as long as published")


def _differences(dataset: str, category: str, whole: bool) -> Iterator[Trial]:
    seed = demo_settings().seed
    for number in range(BASE_SEEDS):
        run = _run(dataset, category, MAFR, epochs=BASE_EPOCHS, seed=seed + number)
        yield Trial("differences", run, f"paper, seed {seed + number}")
    for name, value in text_and_code().items():
        if name not in NOT_HERE:
            run = _run(dataset, category, MAFR, epochs=BASE_EPOCHS, **{name: value})
            yield Trial("differences", run, f"{name} = {value}")


def _preset(dataset: str, category: str, whole: bool) -> Iterator[Trial]:
    config = Config.preset("parts", overrides={f"{dataset}_categories": (category,)})
    for shots in (None, *FEWER[dataset]):
        yield Trial("preset", Run(dataset, category, config, shots), f"{shots} scans" if shots else "all scans")


_MAKERS = {
    "features": _single_features, "ast": _ast, "benchmark": _benchmark, "mafr": _mafr, "compared": _compared,
    "differences": _differences, "preset": _preset,
}  # fmt: skip


def _run(dataset: str, category: str, method: str, variant: str | None = None, **settings: object) -> Run:
    config = method_settings(method, demo_settings(), variant, dataset)
    return Run(dataset, category, replace(config, **settings), method=method)


def _full(prefix: str) -> dict[str, object]:
    """The full profile's settings whose names begin with `prefix`."""
    return _taken(name for name in SETTINGS if name.startswith(prefix))


def _taken(names: Iterable[str]) -> dict[str, object]:
    full = Config.preset("full")
    return {name: getattr(full, name) for name in names}


def _sizes(settings: Mapping[str, object], method: str) -> str:
    """Shortened settings in words, without the method's name before each."""
    less = SHORTENED[method]
    return ", ".join(f"{name.split('_', 1)[1].replace('_', ' ')} {settings[name]}" for name in less)


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
