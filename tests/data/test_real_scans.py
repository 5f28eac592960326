"""Real scans from raw files to detectors; skipped where they are absent (`support.places.REAL`).

Cable gland: MVTec 3D-AD, (c) MVTec Software GmbH, CC BY-NC-SA 4.0. CandyCane: Eyecandies (Bonfiglioli et al. 2022).
"""

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from support.places import needs_real
from support.real_scans import CANDY_RAW, MVTEC_PROCESSED, MVTEC_RAW, unpack

from mafr import Detector
from mafr.baselines.registry import load_detector
from mafr.config import Config
from mafr.data import load_pair, open_dataset, preprocess
from mafr.data.depth_axis import DepthAxis
from mafr.data.eyecandies import decode_depth
from mafr.data.formats.images import decode_mask
from mafr.data.samples import Sample
from mafr.data.transforms import mask_tensor
from mafr.metrics import image_auroc

pytestmark = needs_real
CONFIG = Config.preset("demo", overrides={"generated": False})


@pytest.fixture(scope="module")
def glands(tmp_path_factory) -> Path:
    """The raw part of cable gland, preprocessed here."""
    root = tmp_path_factory.mktemp("glands")
    unpack(MVTEC_RAW, root)
    preprocess("mvtec3d", root / "raw/mvtec3d", root / "processed/mvtec3d", CONFIG)
    return root


def test_cleaned_scans_are_the_processed_copies(glands, tmp_path):
    raw = sorted((glands / "processed/mvtec3d/cable_gland").rglob("*.tiff"))
    names = {path.relative_to(glands / "processed/mvtec3d").as_posix() for path in raw}
    assert len(names) == 32
    theirs = unpack(MVTEC_PROCESSED, tmp_path, lambda member: member.removesuffix(".xz3") in names)
    for name in sorted(names):
        ours, given = tifffile.imread(glands / "processed/mvtec3d" / name), tifffile.imread(theirs / name)
        points = (given != 0).any(axis=2).sum()
        changed = (ours != given).any(axis=2).sum()
        assert points > 0.05 * given.shape[0] * given.shape[1], name
        assert changed <= 0.001 * points, f"{name}: {changed} of {points} points differ"


@pytest.fixture(scope="module")
def candy(tmp_path_factory) -> Path:
    """Ten training, four validation and ten test samples of CandyCane, preprocessed here."""
    root = tmp_path_factory.mktemp("candy")
    numbers = {"train": range(10), "val": range(4), "test_public": range(20, 30)}

    def wanted(member: str) -> bool:
        _, split, _, name = member.split("/")
        return int(name.split("_")[0]) in numbers[split]

    unpack(CANDY_RAW, root, wanted)
    preprocess("eyecandies", root / "raw/eyecandies", root / "processed/eyecandies", CONFIG, ["CandyCane"])
    return root


def test_eyecandies_from_raw_files_to_a_score(candy):
    folder = candy / "processed/eyecandies"
    train, test = (open_dataset("eyecandies", folder, "CandyCane", split, CONFIG) for split in ("train", "test"))
    assert len(train) == 10 and set(test.labels) == {0, 1}
    for sample in (train[0], test[0]):
        x, _, z = sample.xyz[:, sample.valid[0]]
        assert 0.05 < sample.valid.mean() < 0.6
        assert np.ptp(x) < 0.2 and np.ptp(z) < 0.2, "a tenth of the scene's size, as CFM and MAFR scale it"
    assert all(sample.gt.any() == bool(sample.label) for sample in test)
    small = Config.preset("smoke", overrides={"generated": False, "epochs": 1})
    train, test = (open_dataset("eyecandies", folder, "CandyCane", split, small) for split in ("train", "test"))
    assert np.isfinite(Detector(small).fit(train).predict(test[0]).score)


def test_the_viewing_axis_of_eyecandies_gives_their_raw_depth(candy):
    """The cameras look along no coordinate axis; one, two or ten samples find the direction, and which end is near."""
    own = replace(CONFIG, image_size=512, grid=32)
    train = open_dataset("eyecandies", candy / "processed/eyecandies", "CandyCane", "train", own)
    for count in (1, 2, 10):
        view = DepthAxis.fit(train[k] for k in range(count))
        for sample in (train[0], train[9]):
            number = sample.id.rsplit("/", 1)[1]
            stem = candy / "raw/eyecandies/CandyCane/train/data"
            depth, info = stem / f"{number}_depth.png", stem / f"{number}_info_depth.yaml"
            raw = 0.1 * decode_depth(depth.read_bytes(), info.read_bytes(), depth, info)
            at = sample.valid[0]
            error = (view.depth(sample.xyz) - raw)[at]
            assert abs(error.mean()) < 0.01 * raw[at].mean(), (count, error.mean())
            assert error.std() < 0.01 * raw[at].std(), (count, error.std(), raw[at].std())


def test_a_short_fit_finds_bent_glands_in_both_halves(tmp_path):
    """40 training scans and six epochs, a training of seconds: each half must rank the bent pixels.

    Only pixels of the part count, or the mask alone would score. A half that sees nothing scores 0.5 there.
    """
    chosen = [f"train/good/{part}/{k:03d}" for part in ("rgb", "xyz") for k in range(0, 200, 5)]
    chosen += [f"test/bent/{part}/{k:03d}" for part in ("rgb", "xyz", "gt") for k in range(0, 21, 2)]

    def wanted(member: str) -> bool:
        return any(name in member for name in chosen) or member.endswith("manifest.json")

    root = unpack(MVTEC_PROCESSED, tmp_path, wanted)
    train = [_scan(root, f"train/good/{k:03d}") for k in range(0, 200, 5)]
    test = [_scan(root, f"test/bent/{k:03d}") for k in range(0, 21, 2)]
    detector = Detector(dataclasses.replace(CONFIG, epochs=6)).fit(train, show=False)
    found = [detector.predict(sample) for sample in test]
    on_part = [sample.valid[0] for sample in test]
    bent = np.concatenate([sample.gt[0][at] for sample, at in zip(test, on_part, strict=True)])
    halves = {}
    for half in ("psi_rgb", "psi_xyz"):
        values = np.concatenate([getattr(one, half)[at] for one, at in zip(found, on_part, strict=True)])
        halves[half] = image_auroc(bent.astype(int), values)
    print(halves)
    assert halves["psi_rgb"] > 0.8 and halves["psi_xyz"] > 0.6, halves
    again = load_detector(detector.save(tmp_path / "detector"))
    assert again.predict(test[0]).score == found[0].score


def _scan(root: Path, name: str) -> Sample:
    """A processed scan with its mask; the category's manifest does not fit a part of it."""
    split, defect, number = name.split("/")
    folder = root / "cable_gland" / split / defect
    sample = load_pair(folder / "rgb" / f"{number}.png", folder / "xyz" / f"{number}.tiff", CONFIG)
    gt = np.zeros_like(sample.gt)
    if (mask := folder / "gt" / f"{number}.png").is_file():
        pixels = decode_mask(mask.read_bytes(), mask)
        gt = mask_tensor(pixels, max(pixels.shape), CONFIG.image_size)
    return replace(sample, gt=gt, label=int(gt.any()), defect=defect, category="cable_gland", id=name)
