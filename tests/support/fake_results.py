"""A run store with invented runs on disk: residual maps that are high at the defects, no network involved."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text

import mafr.experiments.results
from mafr.baselines.registry import method_settings
from mafr.config import FUSIONS, Config
from mafr.data.layout import SPLITS
from mafr.data.samples import Sample
from mafr.experiments.evaluation import all_metrics, map_metrics
from mafr.experiments.plan import Run, TableMethod
from mafr.experiments.results import Result, load_result
from mafr.experiments.run_store import MAPS, data_fingerprint
from mafr.paths import Paths, write_json
from mafr.scoring import MAP, ResidualMaps

SIDE, GOOD, BAD = 56, 3, 5
COMPARED = {"mvtec3d": ("cfm", "btf"), "eyecandies": ("cfm",)}


def make_samples(category: str, seed: int) -> list[Sample]:
    """Three good and five defective discs on nothing; `seed` moves the defects."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = (rows - SIDE / 2) ** 2 + (columns - SIDE / 2) ** 2 < (0.42 * SIDE) ** 2
    samples = []
    for k in range(GOOD + BAD):
        gt = np.zeros((1, SIDE, SIDE), dtype=bool)
        if k >= GOOD:
            r, c = rng.integers(20, 32, 2)
            gt[0, r : r + 6, c : c + 5] = True
        depth = 0.5 + 0.01 * np.cos(rows / 9) * np.cos(columns / 7) + 0.004 * gt[0]
        xyz = np.stack([columns * 0.001 - 0.0281, rows * 0.001 - 0.0281, depth]) * inside
        rgb = rng.uniform(0.3, 0.6, (3, SIDE, SIDE))
        defect = "good" if k < GOOD else ("crack", "hole")[k % 2]
        samples.append(
            Sample(rgb.astype(np.float32), xyz.astype(np.float32), gt & inside, int(k >= GOOD), defect, category,
                   f"test/{defect}/{k:03d}")
        )  # fmt: skip
    return samples


@dataclass
class FakeStore:
    """The part of a feature store that `Result` uses."""

    samples: list[Sample]
    fingerprint: str

    @property
    def ids(self) -> list[str]:
        return [s.id for s in self.samples]

    def gt(self, indices) -> np.ndarray:
        return np.stack([self.samples[k].gt[0] for k in indices])

    def mask(self, indices) -> np.ndarray:
        return np.stack([self.samples[k].valid[0] for k in indices])


def fingerprint(dataset: str, category: str, split: str) -> str:
    return hashlib.sha256(f"{dataset} {category} {split}".encode()).hexdigest()


def fake_samples(dataset: str, category: str) -> list[Sample]:
    return make_samples(category, seed=len(category) + len(dataset))


def fake_features(paths, dataset, category, split, config) -> FakeStore:
    return FakeStore(fake_samples(dataset, category), fingerprint(dataset, category, split))


@contextmanager
def as_features() -> Iterator[pytest.MonkeyPatch]:
    """Results find the invented samples where they look for features and data sets."""
    opened = lambda name, root, category, split, config: fake_samples(name, category)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mafr.experiments.results, "load_features", fake_features)
        patch.setattr(mafr.experiments.results, "open_dataset", opened)
        yield patch


def words(figure) -> str:
    """All text of a figure, its subfigures' too."""
    return " ".join(" ".join(t.get_text() for t in figure.findobj(Text)).split())


def write_runs(root: Path, datasets=("mvtec3d", "eyecandies"), skip=()) -> tuple[Config, Paths]:
    """Finished full runs of both variants for two categories per data set."""
    config = replace(Config.preset("smoke"), image_size=SIDE, grid=14, bootstrap=20)
    paths = Paths.resolve("smoke", root=root)
    for dataset in datasets:
        for category in config.categories(dataset):
            for variant in ("paper", "released"):
                if category not in skip:
                    _write_run(Run(dataset, category, config.with_variant(variant)), paths)
            for method in COMPARED[dataset]:
                if category not in skip:
                    settings = method_settings(method, config, dataset=dataset)
                    _write_compared(Run(dataset, category, settings, method=method), paths)
    return config, paths


def _write_compared(run: Run, paths: Paths) -> None:
    """A compared method's run: one map, noise that grows with the method's name, and its times."""
    config, samples = run.config, fake_samples(run.dataset, run.category)
    generator = np.random.default_rng(len(run.method))
    gt = np.stack([s.gt[0] for s in samples])
    maps = generator.random(gt.shape).astype(np.float32) * len(run.method) + 2 * gt
    labels, defects = np.array([s.label for s in samples]), [s.defect for s in samples]
    scores = maps.max(axis=(1, 2))
    metrics = map_metrics(torch.from_numpy(maps)[:, None], scores, gt, labels, defects, config)
    folder = run.folder(paths)
    folder.mkdir(parents=True)
    np.savez(folder / MAPS, maps=maps.astype(np.float16))
    record = _record(run, samples, {MAP: metrics}, {MAP: scores.tolist()}, scores)
    write_json(folder / "metrics.json", record)


def _record(run: Run, samples, metrics, scores, own) -> dict:
    stores = {s: FakeStore(samples, fingerprint(run.dataset, run.category, s)) for s in SPLITS}
    return {
        "dataset": run.dataset,
        "category": run.category,
        "method": run.method,
        "variant": run.config.variant,
        "counts": {"train": 4, "validation": 2, "test_good": GOOD, "test_defective": BAD},
        "metrics": metrics,
        "threshold": float(np.quantile(own, 0.5)),
        "samples": {
            "ids": [s.id for s in samples],
            "labels": [s.label for s in samples],
            "defects": [s.defect for s in samples],
        },
        "scores": scores,
        "history": [dict.fromkeys(("total", "sim", "smooth", "census"), 1 / (1 + epoch)) for epoch in range(4)],
        "timings": {"extract_rgb_s": 0.04, "extract_xyz_s": 0.06, "inference_s": len(run.method), "map_s": 0.2}
        | {"train_s": 1.0},
        "data_fingerprint": data_fingerprint(stores),
        "run_digest": run.digest,
        "config": run.config.as_dict(),
    }


def _write_run(run: Run, paths: Paths) -> None:
    config, samples = run.config, fake_samples(run.dataset, run.category)
    generator = torch.Generator().manual_seed(len(run.category))
    gt = np.stack([s.gt[0] for s in samples])
    mask = torch.from_numpy(np.stack([s.valid for s in samples]))
    pool = torch.nn.functional.max_pool2d
    valid = pool(mask.float(), 4) > 0
    signal = pool(torch.from_numpy(gt)[:, None].float(), 4)
    # Two defects cannot be seen, so that no metric is perfect.
    strength = torch.tensor([0, 0, 0, 0, 0, 0.5, 1.0, 1.5]).reshape(-1, 1, 1, 1)
    psi_rgb, psi_xyz = ((1 + 0.1 * torch.rand(signal.shape, generator=generator) + strength * signal) * valid
                        for _ in range(2))  # fmt: skip
    labels = np.array([s.label for s in samples])
    defects = [s.defect for s in samples]
    metrics, scores = all_metrics(ResidualMaps(psi_rgb, psi_xyz, valid, mask, config), gt, labels, defects)
    assert set(scores) == set(FUSIONS)
    folder = run.folder(paths)
    folder.mkdir(parents=True)
    np.savez(folder / "residuals.npz", psi_rgb=psi_rgb.numpy(), psi_xyz=psi_xyz.numpy(), valid=valid.numpy())
    record = _record(run, samples, metrics, scores, scores[config.fusion])
    write_json(folder / "metrics.json", record)


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with as_features() as patch:
        yield patch


@pytest.fixture(scope="module")
def stored(patched, tmp_path_factory) -> tuple[Config, Paths]:
    return write_runs(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def result(stored) -> Result:
    config, paths = stored
    return load_result(TableMethod("mafr", "paper").runs("mvtec3d", config)[0], paths)
