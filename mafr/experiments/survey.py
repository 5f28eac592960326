"""Raw scans measured, and as many generated ones of the same category beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mafr.config import CATEGORIES, Config
from mafr.data import mvtec3d
from mafr.data.formats.images import read_bytes
from mafr.data.found import chosen_categories
from mafr.data.layout import RawSample
from mafr.data.manifest import GENERATED
from mafr.data.survey import DEFECT_STATISTICS, STATISTICS, medians, survey_defect, survey_scan
from mafr.data.synthetic.mvtec.write import make_scan, plan
from mafr.errors import DataError
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import Paths

DATASET = "mvtec3d"
REAL = "real"
DEMO = "generated_second_demo"
GENERATORS = {"generated_second": "second", DEMO: "second", "generated_first": "first"}  # column -> generator
SHOWN_DEFECTS = 3  # types of defects in the picture


@dataclass(frozen=True)
class RawScan:
    """An image (H, W, 3) uint8, its raw cloud (H, W, 3) in metres and its mask (H, W) bool."""

    name: str  # of its defect, or "good"
    rgb: np.ndarray
    xyz: np.ndarray
    gt: np.ndarray


@dataclass(frozen=True)
class Surveyed:
    """A category's statistics: {column: {statistic: median over the scans that have it}}.

    The columns: `REAL` and, for a published category, those of `GENERATORS`.
    """

    category: str
    size: tuple[int, int]  # width and height of the real scans, pixels
    train: int  # number of training scans, by which all but the sizes of defects are measured
    defective: int  # number of anomalous test scans
    columns: dict[str, dict[str, float]]


@dataclass(frozen=True)
class _Job:
    """One scan to measure: of a raw sample, or of what `make_scan` takes."""

    category: str
    column: str
    folder: Path
    source: RawSample | tuple
    defective: bool
    plane: str


def raw_categories(paths: Paths, asked: Sequence[str] | None = None) -> dict[str, list[RawSample]]:
    """The raw samples of each asked category, by default of all, in `paths.raw("mvtec3d")`.

    Raises DataError where a folder or scans are missing, do not fit together, or were generated.
    """
    raw = paths.raw(DATASET)
    if not raw.is_dir():
        raise DataError(
            f"{raw}: no such folder; raw scans in MVTec 3D-AD's layout are expected there, {raw}/<category>/"
            f"{mvtec3d.LAYOUT}; `mafr data {DATASET} --data-root {paths.data}` brings the published ones"
        )
    found = {}
    for name in chosen_categories(DATASET, raw, Config.preset("demo", overrides={"generated": False}), asked):
        folder = raw / name
        if (folder / GENERATED).is_file():
            raise DataError(
                f"{folder}: these scans were generated ({GENERATED} says so) and cannot stand for real ones; name a "
                "folder of real scans, or choose others with --categories"
            )
        found[name] = mvtec3d.scan(folder)
        if not _of(found[name], "train"):
            raise DataError(f"{folder}: no training scans; good scans in {folder}/train/good/{{rgb,xyz}} are expected")
    return found


def survey(
    paths: Paths, categories: dict[str, list[RawSample]], plane: str = "remove", workers: Workers = 1
) -> list[Surveyed]:
    """Measure each category's training scans, and its anomalous test scans for the sizes of defects alone.

    Published categories get as many generated scans beside them: of both generators with the real scans' longer side,
    of the second with the demo's too. categories: see `raw_categories`. plane: see `clean_cloud`, of the real scans.
    """
    jobs, sizes = [], {}
    for name, samples in categories.items():
        folder = paths.raw(DATASET) / name
        train, defective = _of(samples, "train"), _anomalous(samples)
        sizes[name] = _read(folder, train[0])[0].shape[1::-1]
        jobs += [_Job(name, REAL, folder, s, False, plane) for s in train]
        jobs += [_Job(name, REAL, folder, s, True, plane) for s in defective]
        if name in CATEGORIES[DATASET]:
            for column in GENERATORS:
                jobs += _generated(name, column, max(sizes[name]), len(train), len(defective))
    measured = map_parallel(_measure, jobs, workers, "scans, real and generated")
    found: dict[tuple[str, str, bool], list] = {}
    for job, values in zip(jobs, measured, strict=True):
        found.setdefault((job.category, job.column, job.defective), []).append(values)
    made = []
    for name, samples in categories.items():
        columns = {
            column: medians(found[name, column, False], STATISTICS)
            | medians(found.get((name, column, True), []), DEFECT_STATISTICS)
            for column in (REAL, *GENERATORS)
            if (name, column, False) in found
        }
        made.append(Surveyed(name, sizes[name], len(_of(samples, "train")), len(_anomalous(samples)), columns))
    return made


def shown_scans(paths: Paths, category: str, samples: Sequence[RawSample]) -> dict[str, list[RawScan]]:
    """{`REAL` or generator: scans for a picture}: the first training scan, and the first scan of three defect types.

    The types are the first by name. A published category's generated scans have the real ones' longer side.
    """
    folder = paths.raw(DATASET) / category
    types = {s.key.split("/")[1]: s for s in reversed(_anomalous(samples))}
    chosen = [_of(samples, "train")[0], *(types[name] for name in sorted(types)[:SHOWN_DEFECTS])]
    real = [RawScan(s.key.split("/")[1], *_read(folder, s)) for s in chosen]
    shown = {REAL: real}
    if category not in CATEGORIES[DATASET]:
        return shown
    side = max(real[0].xyz.shape[:2])
    for column, generator in GENERATORS.items():
        if column != DEMO:
            firsts = [job.source for job in _generated(category, column, side, 1, 50) if job.source[3] == 0]
            shown[generator] = [RawScan(source[2], *_made(source)) for source in firsts[: 1 + SHOWN_DEFECTS]]
    return shown


def _of(samples: Sequence[RawSample], split: str) -> list[RawSample]:
    return [sample for sample in samples if sample.key.startswith(f"{split}/")]


def _anomalous(samples: Sequence[RawSample]) -> list[RawSample]:
    return [sample for sample in _of(samples, "test") if sample.key.split("/")[1] != "good"]


def _generated(category: str, column: str, side: int, train: int, defective: int) -> Iterator[_Job]:
    """The generated scans of a column. side: of the real scans, pixels."""
    demo = Config.preset("demo")
    generator, side = GENERATORS[column], demo.raw_side if column == DEMO else side
    counts = {"mvtec3d_train": train, "test_defective": max(defective, 1), "test_good": 1, "validation_count": 1}
    for split, defect, index, severity in plan(category, replace(demo, generator=generator, **counts)):
        anomalous = defect != "good"
        if split == "train" or (anomalous and defective):
            source = (category, split, defect, index, side, severity, False, generator, demo.data_seed)
            yield _Job(category, column, Path(f"generated {category}"), source, anomalous, "remove")


def _measure(job: _Job) -> dict[str, float]:
    if isinstance(job.source, RawSample):
        _, xyz, gt = _read(job.folder, job.source)
        path = mvtec3d.cloud_file(job.folder, job.source)
    else:
        _, xyz, gt = _made(job.source)
        path = job.folder
    return survey_defect(gt, xyz, path, job.plane) if job.defective else survey_scan(xyz, path, job.plane)


def _read(folder: Path, raw: RawSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, cloud and mask of a raw sample; without a mask nothing is anomalous."""
    rgb, xyz, gt = mvtec3d.decode(folder, raw, {role: read_bytes(folder / name) for role, name in raw.files})
    return rgb, xyz, np.zeros(rgb.shape[:2], bool) if gt is None else gt


def _made(source: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of a generated scan."""
    scan = make_scan(*source)
    return scan.rgb, scan.xyz, scan.gt > 0
