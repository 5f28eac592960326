"""The generated stand-in for Eyecandies, written as that data set is published, one class at a time.

    generate_eyecandies(root, config, "Lollipop")   # <root>/Lollipop/{train,val,test_public}/data/000_image_0.png …

Every sample has the seventeen published items. Depth is 16-bit with its range in `info_depth.yaml`, the pose and the
focal length (711.11 px at 512, to scale) are such that the published unprojection and cropping keep the candy and
drop the belt. Same counts and image side, same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from mafr.config import CATEGORIES, Config
from mafr.data.synthetic.core import render as r
from mafr.data.synthetic.core.category import is_complete, write_category
from mafr.data.synthetic.core.noise import seed_of
from mafr.data.synthetic.eyecandies import scene
from mafr.data.synthetic.eyecandies.candies import build_candy, place
from mafr.data.synthetic.eyecandies.defects import KINDS, Spoilt, spoil
from mafr.errors import ConfigError, DataError
from mafr.parallel.progress import bar

Array = np.ndarray

VERSION = 1  # of the generator; a new one makes existing folders out of date
DATA_SEED = 2022
ITEMS = (
    *(f"image_{k}.png" for k in range(scene.IMAGES)), "depth.png", "info_depth.yaml", "normals.png", "pose.txt",
    "obj_params.yaml", "metadata.yaml", "mask.png", *(f"{kind}_mask.png" for kind in KINDS),
)  # fmt: skip
_ATTEMPTS = 40


@dataclass(frozen=True)
class Shot:
    """One photographed candy before it is written.

    Attributes:
        images: six (H, W, 3) uint8.
        depth: (H, W) float64, belt units ("metres" in the published format).
        normals: (H, W, 3) float32, camera frame with y up and z towards the camera.
        part: (H, W) bool, true where the candy is seen.
        masks: (H, W) bool for each of `KINDS`.
        params: what was drawn.
    """

    images: list[Array]
    depth: Array
    normals: Array
    part: Array
    masks: dict[str, Array]
    params: dict[str, object]

    @property
    def mask(self) -> Array:
        """(H, W) bool, the union of all kinds."""
        return np.logical_or.reduce(list(self.masks.values()))


def plan(config: Config) -> dict[str, list[tuple[str, ...]]]:
    """For each split the anomaly kinds of every sample; () is a good one.

    The test samples alternate good and bad as far as the counts allow; the bad ones go round bumps, dents, colors,
    normals and all four at once.
    """
    good, bad = config.test_good, config.test_defective
    kinds = [*((kind,) for kind in KINDS), KINDS]
    total, test, spoilt = good + bad, [], 0
    for k in range(total):
        due = (k + 1) * bad // total  # bad samples that should have come by now
        test.append(kinds[spoilt % len(kinds)] if due > spoilt else ())
        spoilt = due
    return {
        "train": [()] * config.eyecandies_train,
        "val": [()] * config.validation_count,
        "test_public": test,
    }


def severities(count: int) -> list[float]:
    """Severities in (0, 1) of `count` bad samples of a kind: evenly spaced, in an order that mixes them."""
    # Van der Corput's sequence (the digits of 1, 2, 3 … mirrored) gives the order.
    mirrored = [sum(2.0 ** -(bit + 1) for bit in range(16) if k >> bit & 1) for k in range(1, count + 1)]
    ranks = np.argsort(np.argsort(mirrored))
    return [(float(rank) + 0.5) / count for rank in ranks]


def shoot(category: str, split: str, index: int, side: int, kinds: tuple[str, ...] = (), severity: float = 0.5) -> Shot:
    """Photograph one candy, good (no kinds) or with anomalies.

    Deterministic in its arguments. Raises DataError if an anomaly cannot be placed so that it is seen.
    """
    rng = np.random.default_rng(seed_of("eyecandies", DATA_SEED, category, split, index))
    stage = scene.Scene.draw(rng)
    placed = place(build_candy(category, rng), rng)
    clean = scene.trace_part(scene.camera_of(side), placed.part)
    params = {"category": category, "severity": severity if kinds else 0.0, "object": placed.params}
    if not kinds:
        hits = scene.grained(clean, placed)
        look = r.look_of(hits, placed.part.surface, stage.belt)
        nothing = {kind: np.zeros(hits.part.shape, bool) for kind in KINDS}
        made = Spoilt(placed.part, hits, look, nothing, [])
    else:
        made = None
        for attempt in range(_ATTEMPTS):
            # Later attempts are less subtle, so that every anomaly can be seen in the end.
            made = spoil(placed, clean, kinds, min(severity + 0.02 * attempt, 1.0), rng, stage.belt)
            if made is not None:
                break
        if made is None:
            raise DataError(
                f"no visible place for {'+'.join(kinds)} on {category} at {side} pixels; use a larger raw_side"
            )
    images = stage.images(made.hits, made.look, made.part, rng)
    normals = (made.hits.normals @ made.hits.camera.rotation) * np.array([1, -1, -1], np.float32)
    params["anomalies"] = made.params
    return Shot(images, made.hits.depth.astype(np.float64), normals, made.hits.part, made.masks, params)


def _stamp(category: str, config: Config, splits: Mapping[str, Sequence]) -> dict:
    return {
        "generator": "eyecandies", "version": VERSION, "seed": DATA_SEED,
        "data_digest": config.data_digest("eyecandies"), "category": category,
        "counts": {split: len(samples) for split, samples in splits.items()},
    }  # fmt: skip


def is_generated(root: Path, config: Config, category: str) -> bool:
    """Whether a class folder is there, whole and from the same settings."""
    return is_complete(Path(root) / category, _stamp(category, config, plan(config)))


def generate_eyecandies(root: Path, config: Config, category: str) -> Path:
    """Write one generated class in the published raw format; does nothing where it is already there.

    A class folder is complete once it holds `generated.json`, which is written last; one that was made by the same
    generator from the same settings is kept as it is, any other is made anew beside it and then replaces it.

    Returns the class folder. Raises ConfigError for an unknown class, DataError for a folder that this function did
    not make (real data is never overwritten).
    """
    if category not in CATEGORIES["eyecandies"]:
        known = ", ".join(CATEGORIES["eyecandies"])
        raise ConfigError(f"unknown Eyecandies category {category!r}; choose one of {known}")
    splits = plan(config)
    mark = _stamp(category, config, splits)
    return write_category(Path(root) / category, mark, lambda folder: _write(folder, config, category, splits))


def _write(folder: Path, config: Config, category: str, splits: dict[str, list]) -> None:
    jobs = [(split, index) for split, samples in splits.items() for index in range(len(samples))]
    test = splits["test_public"]
    left = {kinds: iter(severities(test.count(kinds))) for kinds in set(test)}
    for split, index in bar(jobs, what=f"generate {category}"):
        kinds = splits[split][index]
        severity = next(left[kinds]) if kinds else 0.0
        shot = shoot(category, split, index, config.raw_side, kinds, severity)
        digits = 2 if split == "test_public" else 3
        write_shot(folder / split / "data", f"{index:0{digits}d}", shot)


def write_shot(folder: Path, name: str, shot: Shot) -> None:
    """Write the seventeen items of a sample as `<folder>/<name>_<item>`."""
    folder.mkdir(parents=True, exist_ok=True)
    low, high = float(np.floor(shot.depth.min() * 1e4) / 1e4), float(np.ceil(shot.depth.max() * 1e4) / 1e4)
    code = np.round((shot.depth - low) / (high - low) * 65535).astype(np.uint16)
    flags = {kind: int(shot.masks[kind].any()) for kind in KINDS}
    files = {f"image_{k}.png": _png(image) for k, image in enumerate(shot.images)}
    files["depth.png"] = _png(code)
    files["info_depth.yaml"] = _yaml({"normalization": {"min": low, "max": high}})
    files["normals.png"] = _png(np.clip(np.round((shot.normals + 1) * 127.5), 0, 255).astype(np.uint8))
    files["pose.txt"] = "".join(" ".join(f"{x:.6f}" for x in row) + "\n" for row in scene.pose_of()).encode()
    files["obj_params.yaml"] = _yaml(shot.params)
    files["metadata.yaml"] = _yaml({"anomalous": int(shot.mask.any()), **flags})
    files["mask.png"] = _png(shot.mask.astype(np.uint8) * 255)
    for kind in KINDS:
        files[f"{kind}_mask.png"] = _png(shot.masks[kind].astype(np.uint8) * 255)
    for item in ITEMS:
        (folder / f"{name}_{item}").write_bytes(files[item])


def _png(image: Array) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _yaml(value: dict[str, object]) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode()
