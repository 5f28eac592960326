"""The MVTec-like half: raw folders in the format of MVTec 3D-AD, one category at a time.

A category holds `{train,validation,test}/<good|defect>/` with `rgb/NNN.png`, `xyz/NNN.tiff` and `gt/NNN.png`,
`calibration/camera_parameters.json` and `defects.json` (the changes by each defect).

Severities run evenly from 0 (hardly visible) to 1 (obvious) within each defect type; their sizes in millimetres stand
beside the recipes and in `shared_defects`. The mask holds the pixels that the defect changed (`truth.changed`): depth
by 0.3 mm or more, the normal by 20° or the albedo by 0.04 of full scale (gamma-corrected), compared between two
renderings without noise. A defect of fewer than 12 pixels (at 200 pixels per side) is made again elsewhere, a little
stronger after every third try.

Everything follows from the seed of (category, split, defect, index): the same call gives the same bytes with the same
versions of numpy and scipy on the same kind of processor.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from mafr.config import Config
from mafr.data.formats.images import encode_png
from mafr.data.synthetic.core.noise import seed_of
from mafr.data.synthetic.core.render import Rendering
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.core.truth import changed
from mafr.data.synthetic.mvtec import development, food, gland_dowel_foam, rope_tire
from mafr.data.synthetic.mvtec.recipe import DefectMaker, Recipe
from mafr.data.synthetic.mvtec.scene import Scanner, focal, photograph, see
from mafr.data.synthetic.mvtec.sensor import SENSORS
from mafr.errors import ConfigError, DataError
from mafr.paths import write_json

RECIPES: dict[str, Recipe] = food.RECIPES | gland_dowel_foam.RECIPES | rope_tire.RECIPES | development.RECIPES
VERSIONS = {"first": 1, "second": 2}  # raise one whenever the bytes of its generator change
_TRIES = 15


@dataclass(frozen=True)
class Scan:
    """One generated sample as it is stored."""

    rgb: Array  # (H, W, 3) uint8
    xyz: Array  # (H, W, 3) float32 metres, zeros where invalid
    gt: Array  # (H, W) uint8
    info: dict  # the defect's changes, empty for good samples


def image_size(category: str, raw_side: int) -> tuple[int, int]:
    """(width, height) of a category's images: the real data's proportions, the longer side `raw_side`."""
    width, height = RECIPES[category].size
    longest = max(width, height)
    return round(width * raw_side / longest), round(height * raw_side / longest)


def defect_types(category: str) -> tuple[str, ...]:
    """The names of a category's defect folders, sorted."""
    return tuple(sorted(RECIPES[category].defects))


def make_scan(
    category: str, split: str, defect: str, index: int, raw_side: int, severity: float = 0.5, clean: bool = False,
    generator: str = "second", data_seed: int = 2024,
) -> Scan:  # fmt: skip
    """One sample of a category, if `clean` as it was before its defect, under the same sensor noise.

    defect: "good" or one of `defect_types`; severity in [0, 1] only matters then. generator, data_seed: the settings of
    these names. Raises ConfigError for an unknown category or defect, DataError if a defect cannot be made visible.
    """
    if category not in RECIPES or defect not in ("good", *RECIPES[category].defects):
        raise ConfigError(f"there is no generated {category!r} with defect {defect!r}")
    recipe, (width, height) = RECIPES[category].of(generator), image_size(category, raw_side)
    seed = (data_seed, "mvtec3d", category, split, defect, index)
    rng = np.random.default_rng(seed_of(*seed))
    part = recipe.make(rng)
    scanner = Scanner.draw(recipe, rng, width, height)
    view, gt, info = see(part, scanner), np.zeros((height, width), np.uint8), {}
    if defect != "good" and not clean:
        view, mask, info = _add_defect(recipe.defects[defect], view, scanner, rng, severity, raw_side)
        gt[mask] = recipe.defect_codes.get(defect, 255)
    sensor = np.random.default_rng(seed_of(*seed, "sensor"))
    return Scan(photograph(view, scanner, sensor), SENSORS[generator](view, scanner, sensor), gt, info)


def _add_defect(
    maker: DefectMaker, clean: Rendering, scanner: Scanner, rng: Rng, severity: float, raw_side: int
) -> tuple[Rendering, Array, dict]:
    """Try places until the defect shows (see the module's text): the part with it, its mask, its changes."""
    enough = max(4, round(12 * (raw_side / 200) ** 2))
    for attempt in range(_TRIES):
        tried = min(severity + 0.08 * (attempt // 3), 1.0)
        defective = see(maker(clean.part, clean.hits, rng, tried), scanner)
        change = changed(clean, defective, depth=0.3, smallest=max(3, enough // 4))
        pixels = int(change.mask.sum())
        if pixels < enough:
            continue
        shape, tint = int((change.geometry & change.mask).sum()), int((change.colour & change.mask).sum())
        few = max(3, 0.04 * pixels)  # that many pixels may differ by chance, at rims
        info = {
            "severity": round(float(tried), 3),
            "changes": "both" if min(shape, tint) > few else ("geometry" if shape >= tint else "colour"),
            "pixels": pixels,
            "geometry_pixels": shape,
            "colour_pixels": tint,
        }
        return defective, change.mask, info
    raise DataError(f"a generated defect stayed invisible after {_TRIES} tries; please report this with your settings")


def plan(category: str, config: Config) -> Iterator[tuple[str, str, int, float]]:
    """Every sample of a category: (split, defect, index, severity)."""
    counts = {"train": config.mvtec3d_train, "validation": config.validation_count, "test": config.test_good}
    for split, count in counts.items():
        for index in range(count):
            yield split, "good", index, 0.0
    types = defect_types(category)
    for k, defect in enumerate(types):
        for index in range(config.test_defective // len(types) + (k < config.test_defective % len(types))):
            # Multiples of the golden ratio: evenly spread for any count, and not in order of severity.
            yield "test", defect, index, (0.5 + index * 0.6180339887 + 0.17 * k) % 1.0


def stamp(category: str, config: Config) -> dict:
    """The generator and settings that a category's bytes follow from."""
    return {
        "generator": "mafr.data.synthetic.mvtec",  # a name on the disk, not an address: stays whatever moves
        "version": VERSIONS[config.generator],
        "data_digest": config.data_digest("mvtec3d"),
        "category": category,
        "counts": {
            "train": config.mvtec3d_train, "validation": config.validation_count,
            "test_good": config.test_good, "test_defective": config.test_defective,
        },
    }  # fmt: skip


def write(folder: Path, config: Config, category: str) -> None:
    """Fill a category's raw folder."""
    record = {}
    for split, defect, index, severity in plan(category, config):
        scan = make_scan(
            category, split, defect, index, config.raw_side, severity, generator=config.generator,
            data_seed=config.data_seed,
        )  # fmt: skip
        place = folder / split / defect
        if index == 0:
            for name in ("rgb", "xyz", "gt"):
                (place / name).mkdir(parents=True)
        (place / "rgb" / f"{index:03}.png").write_bytes(encode_png(scan.rgb, level=3))
        (place / "gt" / f"{index:03}.png").write_bytes(encode_png(scan.gt, level=3))
        tifffile.imwrite(place / "xyz" / f"{index:03}.tiff", scan.xyz, photometric="minisblack", metadata=None)
        if scan.info:
            record[f"{split}/{defect}/{index:03}"] = {"type": defect, **scan.info}
    write_json(folder / "defects.json", record)
    width, height = image_size(category, config.raw_side)
    calibration = {
        "model": "pinhole, no distortion; a pixel's ray goes through its integer coordinates",
        "focal_length_px": focal(RECIPES[category].of(config.generator), width, height),
        "cx": width / 2, "cy": height / 2, "width": width, "height": height, "unit": "m",
    }  # fmt: skip
    write_json(folder / "calibration" / "camera_parameters.json", calibration)
