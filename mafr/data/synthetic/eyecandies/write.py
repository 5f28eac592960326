"""The generated stand-in for Eyecandies, written as that data set is published, one class at a time.

Every sample has the seventeen published items, `<class>/{train,val,test_public}/data/<index>_<item>`. Depth is 16-bit
with its range in `info_depth.yaml`, the pose and the focal length (711.11 px at 512, to scale) are such that the
published unprojection and cropping keep the candy and drop the belt. Same counts and image side, same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from mafr.config import Config
from mafr.data.eyecandies import DEFECTS as KINDS
from mafr.data.formats.images import encode_png
from mafr.data.synthetic.core import render as r
from mafr.data.synthetic.core.noise import seed_of
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.eyecandies import discs, lumps, ropes, scene
from mafr.data.synthetic.eyecandies.candy import Candy, place
from mafr.data.synthetic.eyecandies.defects import Anomalous, add_anomalies
from mafr.errors import DataError
from mafr.parallel.progress import bar

VERSION = 1  # of the generator; a new one makes existing folders out of date
_SEED = 2022
_BUILDERS: dict[str, Callable[[Rng], Candy]] = {
    "CandyCane": ropes.candy_cane,
    "ChocolateCookie": discs.chocolate_cookie,
    "ChocolatePraline": lumps.chocolate_praline,
    "Confetto": lumps.confetto,
    "GummyBear": lumps.gummy_bear,
    "HazelnutTruffle": lumps.hazelnut_truffle,
    "LicoriceSandwich": ropes.licorice_sandwich,
    "Lollipop": discs.lollipop,
    "Marshmallow": ropes.marshmallow,
    "PeppermintCandy": discs.peppermint_candy,
}
_ATTEMPTS = 40


@dataclass(frozen=True)
class Shot:
    """One photographed candy before it is written."""

    images: list[Array]  # six (H, W, 3) uint8
    depth: Array  # (H, W) float64, belt units ("metres" in the published format)
    normals: Array  # (H, W, 3) float32, camera frame with y up and z towards the camera
    part: Array  # (H, W) bool, true where the candy is seen
    masks: dict[str, Array]  # (H, W) bool for each of `KINDS`
    params: dict[str, object]  # drawn values

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
    total, test = good + bad, []
    for k in range(total):
        before, due = k * bad // total, (k + 1) * bad // total  # bad samples up to this one, and with it
        test.append(kinds[before % len(kinds)] if due > before else ())
    return {"train": [()] * config.eyecandies_train, "val": [()] * config.validation_count, "test_public": test}


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
    rng = np.random.default_rng(seed_of("eyecandies", _SEED, category, split, index))
    stage = scene.Scene.draw(rng)
    candy = place(_BUILDERS[category](rng), rng)
    clean = r.trace(scene.camera_of(side), candy.part, scene.EPS)
    if kinds:
        # Later tries are less subtle, so that every anomaly can be seen in the end.
        levels = (min(severity + 0.02 * attempt, 1.0) for attempt in range(_ATTEMPTS))
        tries = (add_anomalies(candy, clean, kinds, level, rng, stage.belt) for level in levels)
        made = next((one for one in tries if one is not None), None)
        if made is None:
            wanted = "+".join(kinds)
            raise DataError(f"no visible place for {wanted} on {category} at {side} pixels; use a larger raw_side")
    else:
        hits = scene.grained(clean, candy)
        view = r.Rendering(candy.part, hits, r.look_of(hits, candy.part.surface, stage.belt))
        made = Anomalous(view, {kind: np.zeros(hits.part.shape, bool) for kind in KINDS}, [])
    images, hits = stage.images(made.view, rng), made.view.hits
    normals = (hits.normals @ hits.camera.rotation) * np.array([1, -1, -1], np.float32)
    params = {
        "category": category, "severity": severity if kinds else 0.0, "object": candy.params, "anomalies": made.params,
    }  # fmt: skip
    return Shot(images, hits.xyz()[..., 2].astype(np.float64), normals, hits.part, made.masks, params)


def stamp(category: str, config: Config) -> dict:
    """The generator and settings that a class's bytes follow from."""
    return {
        "generator": "eyecandies", "version": VERSION, "seed": _SEED,
        "data_digest": config.data_digest("eyecandies"), "category": category,
        "counts": {split: len(samples) for split, samples in plan(config).items()},
    }  # fmt: skip


def write(folder: Path, config: Config, category: str) -> None:
    """Fill a class's raw folder."""
    splits = plan(config)
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
    files = {f"image_{k}.png": encode_png(image, level=1) for k, image in enumerate(shot.images)}
    files["depth.png"] = encode_png(code, level=1)
    files["info_depth.yaml"] = _yaml({"normalization": {"min": low, "max": high}})
    files["normals.png"] = encode_png(np.clip(np.round((shot.normals + 1) * 127.5), 0, 255).astype(np.uint8), level=1)
    files["pose.txt"] = "".join(" ".join(f"{x:.6f}" for x in row) + "\n" for row in scene.POSE).encode()
    files["obj_params.yaml"] = _yaml(shot.params)
    files["metadata.yaml"] = _yaml({"anomalous": int(shot.mask.any()), **flags})
    for item, mask in (("mask", shot.mask), *((f"{kind}_mask", shot.masks[kind]) for kind in KINDS)):
        files[f"{item}.png"] = encode_png(mask.astype(np.uint8) * 255, level=1)
    for item, content in files.items():
        (folder / f"{name}_{item}").write_bytes(content)


def _yaml(value: dict[str, object]) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode()
