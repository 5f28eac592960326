"""The second generator of scans: real scans' gaps and noise, the first one untouched, the development categories."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from support.masks import check_points_move_inside_the_mask

from mafr.config import CATEGORIES, DEVELOPMENT, PROFILES, Config, generated_categories
from mafr.data import open_dataset, preprocess
from mafr.data.survey import survey_scan
from mafr.data.synthetic import generate
from mafr.data.synthetic.mvtec import sensor
from mafr.data.synthetic.mvtec.scene import Scanner, see
from mafr.data.synthetic.mvtec.write import RECIPES, defect_types, image_size, make_scan, stamp
from mafr.errors import ConfigError
from mafr.experiments.plan import all_runs

SIDE = 80
KINDS = [(category, defect) for category in DEVELOPMENT for defect in defect_types(category)]
SMALL = {"raw_side": 100, "mvtec3d_train": 2, "validation_count": 1, "test_good": 1, "test_defective": 4}
# Of the first generator's data, as they were before there was a second one.
DIGESTS = {
    "smoke": "dbc6f5b11cfa24445ab2f9a346b9a4bfb36f5c1c8e08efc4b400aaabeb972f56",
    "demo": "105c8c64ab279767a79cb611fe803aa7b81e7c772090473ac55577ea6bf260d8",
}
SIDES = {"smoke": 100, "demo": 200}  # of the images then


def second(category, split="train", defect="good", index=0, side=SIDE, severity=0.5, **how):
    return make_scan(category, split, defect, index, side, severity, generator="second", **how)


def measured(scan):
    return survey_scan(scan.xyz, Path("scan.tiff"))


@pytest.fixture(scope="module")
def development(tmp_path_factory):
    """The development categories, generated and preprocessed: (settings, raw folders, processed folder)."""
    config = Config.preset("smoke", overrides={**SMALL, "generator": "second", "mvtec3d_categories": DEVELOPMENT})
    root = tmp_path_factory.mktemp("development")
    folders = generate("mvtec3d", root / "raw", config)
    preprocess("mvtec3d", root / "raw", root / "processed", config)
    return config, folders, root / "processed"


def test_the_first_generators_data_is_what_it_was():
    for profile, digest in DIGESTS.items():
        config = Config.preset(profile, overrides={"generator": "first", "raw_side": SIDES[profile]})
        made = stamp("rope", config)
        assert (made["version"], made["data_digest"]) == (1, digest)
        other = stamp("rope", dataclasses.replace(config, generator="second"))
        assert other["version"] == 2 and other["data_digest"] != digest


def test_bytes_repeat_and_each_generator_has_its_own():
    once, again, first, named = (
        second("rope"), make_scan("rope", "train", "good", 0, SIDE),
        *(make_scan("rope", "train", "good", 0, SIDE, generator="first") for _ in range(2)),
    )  # fmt: skip
    for name in ("rgb", "xyz", "gt"):
        assert getattr(once, name).tobytes() == getattr(again, name).tobytes()
        assert getattr(first, name).tobytes() == getattr(named, name).tobytes()
    assert once.xyz.tobytes() != first.xyz.tobytes() and once.rgb.tobytes() != first.rgb.tobytes()
    assert second("rope", data_seed=1).xyz.tobytes() != once.xyz.tobytes()


def test_the_written_files_are_the_scans(development):
    config, (folder, *_), _ = development
    record = json.loads((folder / "generated.json").read_text())
    assert record["version"] == 2 and record["category"] == folder.name
    camera = json.loads((folder / "calibration/camera_parameters.json").read_text())
    scanned = RECIPES[folder.name].of("second")
    assert camera["focal_length_px"] == pytest.approx(config.raw_side * scanned.distance / scanned.view)


@pytest.mark.parametrize("category", ["peach", "cookie", "bracket"])
def test_the_table_is_half_empty_and_the_part_is_not(category):
    values = measured(second(category, side=160))
    assert 50 < values["table"] < 70
    assert values["gaps"] < 20
    assert measured(make_scan(category, "train", "good", 0, 160, generator="first"))["table"] > 95


@pytest.mark.parametrize(("category", "name"), [("peach", "noise_0"), ("peach", "noise_30"), ("bracket", "noise_30")])
def test_the_part_is_far_less_noisy_than_the_table(category, name):
    values = measured(second(category, side=200))
    assert values[name] < 0.35 * values["noise_table"]
    assert 50 < values["noise_table"] < 120
    assert values[name] < 0.5 * measured(make_scan(category, "train", "good", 0, 200, generator="first"))[name]


def rendered(category, side):
    """A good part as the camera sees it, and the points that the second scanner reports of it."""
    recipe, rng = RECIPES[category].of("second"), np.random.default_rng(4)
    scanner = Scanner.draw(recipe, rng, side, side)
    view = see(recipe.make(rng), scanner)
    return view, sensor.second(view, scanner, rng)


def test_more_points_are_missing_where_the_surface_is_steep():
    view, xyz = rendered("potato", 160)
    valid, facing, part = (xyz != 0).any(axis=2), view.hits.facing, view.hits.part
    shares = [1 - valid[part & (facing > low) & (facing <= high)].mean() for low, high in ((0.8, 1), (0, 0.3))]
    assert shares[0] < 0.05 and shares[1] > 5 * shares[0] and shares[1] > 0.2


def test_more_points_are_missing_at_silhouettes():
    view, xyz = rendered("biscuit", 200)
    flat = view.hits.part & (view.hits.facing > 0.6)
    inner = ndimage.binary_erosion(view.hits.part, iterations=4)
    missing = ~xyz.any(axis=2)
    rim = flat & ~ndimage.binary_erosion(view.hits.part)
    assert missing[rim].mean() > 0.3 and missing[rim].mean() > 5 * missing[flat & inner].mean()


def test_valid_points_lie_near_the_surface_but_for_some_at_silhouettes():
    view, xyz = rendered("peach", 120)
    off = 1e3 * np.abs(np.linalg.norm(xyz, axis=2) - np.linalg.norm(1e-3 * view.hits.xyz(), axis=2))[xyz.any(axis=2)]
    assert 0 < (off > 1.5).mean() < 0.01
    assert np.quantile(off, 0.99) < 0.5


def test_development_categories_are_in_no_table():
    assert not set(DEVELOPMENT) & {name for names in CATEGORIES.values() for name in names}
    assert set(DEVELOPMENT) <= set(generated_categories("mvtec3d"))
    assert not set(DEVELOPMENT) & set(generated_categories("eyecandies"))
    for profile in PROFILES:
        config = Config.preset(profile)
        assert not set(DEVELOPMENT) & {run.category for run in all_runs(config)}
    chosen = Config.preset("smoke", overrides={"mvtec3d_categories": DEVELOPMENT[:1]})
    assert "development" in chosen.dataset_title("mvtec3d")
    with pytest.raises(ConfigError, match="eyecandies"):
        Config.preset("smoke", overrides={"eyecandies_categories": DEVELOPMENT[:1]})


def test_development_categories_go_through_the_whole_pipeline(development):
    config, folders, processed = development
    assert [folder.name for folder in folders] == list(DEVELOPMENT)
    for category in DEVELOPMENT:
        train, test = (open_dataset("mvtec3d", processed, category, split, config) for split in ("train", "test"))
        assert (len(train), len(test)) == (2, 5)
        assert set(test.defects) == {"good", *defect_types(category)}
        for sample in (*train, *test):
            assert 0.02 < sample.valid.mean() < 0.5, sample.id
            assert sample.gt.any() == bool(sample.label), sample.id


@pytest.mark.parametrize(("category", "defect"), KINDS)
def test_every_development_defect_shows(category, defect):
    scan = second(category, "test", defect, severity=0.7)
    mask = scan.gt > 0
    assert scan.rgb.shape[1::-1] == image_size(category, SIDE)
    assert not second(category, "test").gt.any()
    assert 4 <= mask.sum() < 0.3 * mask.size
    assert mask.sum() == scan.info["pixels"]


@pytest.mark.parametrize(
    ("category", "defect"),
    [("dowel", "bent"), ("peach", "squeeze"), ("cable_gland", "thread"), ("bolt", "dent"), ("biscuit", "broken")],
)
def test_shape_defects_move_points_inside_the_mask_only(category, defect):
    clean, spoilt = (second(category, "test", defect, 1, severity=0.8, clean=clean) for clean in (True, False))
    check_points_move_inside_the_mask(clean, spoilt)


@pytest.mark.parametrize(("category", "defect"), [("foam", "color"), ("biscuit", "stain"), ("bracket", "stain")])
def test_colour_defects_leave_the_surface_where_it_is(category, defect):
    clean, spoilt = (second(category, "test", defect, 0, severity=0.8, clean=clean) for clean in (True, False))
    mask = spoilt.gt > 0
    assert spoilt.info["changes"] == "colour"
    both = (clean.xyz != 0).any(-1) & (spoilt.xyz != 0).any(-1)
    # Another colour returns another light, so the noise there is another one, and points may be missing.
    moved = np.linalg.norm(clean.xyz - spoilt.xyz, axis=-1)
    assert np.quantile(moved[both & ~mask], 0.99) == 0
    assert np.median(moved[both & mask]) < 0.0002
    difference = np.abs(clean.rgb.astype(int) - spoilt.rgb).max(-1)
    assert np.median(difference[mask]) > 10
    assert np.median(difference[~mask]) <= 1


def test_severity_makes_defects_larger():
    weak, strong = (
        [second("biscuit", "test", "crack", n, severity=severity).info["pixels"] for n in range(4)]
        for severity in (0.05, 0.95)
    )
    assert np.mean(strong) > 2 * np.mean(weak)
