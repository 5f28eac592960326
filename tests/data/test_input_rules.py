"""The settings of the input: sampling of clouds, points with a zero, padding of masks, black backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import rawdata

from mafr.config import Config
from mafr.data import load_pair, open_dataset, preprocess
from mafr.data.transforms import (
    InputRules,
    black_background,
    crop_square,
    mask_tensor,
    pad_square,
    resize_nearest,
    square_side,
    whole_points,
)
from mafr.features.extract import FeatureExtractor

RELEASED = {"cloud_sampling": "floor", "point_rule": "all", "mask_padding": "edge", "skip_origin": True}
NOT_SQUARE = {"rope": (400, 900), "tire": (800, 600)}  # height, width as published


SIDES = [(800, 224), (900, 224), (448, 224), (224, 224), (200, 224), (112, 224), (401, 27)]
INEXACT = [(62, 28), (533, 221)]  # products in float32 fall short of whole numbers here


@pytest.mark.parametrize(("side", "size"), SIDES + INEXACT)
def test_floor_is_torchs_nearest(side: int, size: int) -> None:
    values = np.random.default_rng(0).random((side, side, 3), dtype=np.float32)
    planes = torch.from_numpy(values).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(planes, size=(size, size), mode="nearest")[0].permute(1, 2, 0)
    np.testing.assert_array_equal(resize_nearest(values, size, "floor"), expected.numpy())
    exact = values[np.arange(size) * side // size][:, np.arange(size) * side // size]
    assert np.array_equal(exact, expected) == ((side, size) not in INEXACT)


@pytest.mark.parametrize("category", NOT_SQUARE)
def test_the_cloud_is_cut_to_the_image_that_it_was_padded_from(category: str) -> None:
    height, width = NOT_SQUARE[category]
    values = np.random.default_rng(1).random((height, width, 3), dtype=np.float32)
    padded = pad_square(values, square_side(height, width))
    np.testing.assert_array_equal(crop_square(padded, height, width), values)
    np.testing.assert_array_equal(crop_square(values, height, width), values)


@pytest.mark.parametrize("category", NOT_SQUARE)
@pytest.mark.parametrize("padded", [True, False])
def test_pixels_without_a_point_become_black(category: str, padded: bool) -> None:
    height, width = NOT_SQUARE[category]
    rng = np.random.default_rng(2)
    rgb = rng.integers(1, 256, (height, width, 3), dtype=np.uint8)
    part = rng.random((height, width)) < 0.5
    part[:, : width // 8] = False  # not in the middle
    xyz = np.where(part[..., None], np.float32([0.0, 0.1, 0.5]), 0)
    side = square_side(height, width)
    black = black_background(rgb, pad_square(xyz, side) if padded else xyz)
    np.testing.assert_array_equal(black.any(axis=2), part)
    np.testing.assert_array_equal(black[part], rgb[part])
    # Before it is padded and resized: its edges are repeated, and light does not leak in from around the part.
    image, *_ = InputRules(side, image_background="black").arrays(rgb, xyz, None, side)
    np.testing.assert_array_equal(crop_square(image.transpose(1, 2, 0), height, width) * 255, black)
    kept, *_ = InputRules(side).arrays(rgb, xyz, None, side)
    np.testing.assert_array_equal(crop_square(kept.transpose(1, 2, 0), height, width) * 255, rgb)


def test_a_point_with_a_zero_is_no_point_under_the_rule_all() -> None:
    xyz = np.float32([[[0, 0, 0], [0, 0.1, 0.5], [0.2, 0.1, 0.5], [-0.2, 0, 0.5]]])
    np.testing.assert_array_equal(whole_points(xyz)[0], [[0, 0, 0], [0, 0, 0], xyz[0, 2], [0, 0, 0]])
    assert whole_points(xyz).dtype == np.float32
    # The background of an image follows the same rule.
    square = np.broadcast_to(xyz, (4, 4, 3)).copy()
    white = np.full((4, 4, 3), 255, np.uint8)
    image, cloud, _ = InputRules(4, point_rule="all", image_background="black").arrays(white, square, None, 4)
    np.testing.assert_array_equal(image[0], np.broadcast_to([0, 0, 1, 0], (4, 4)))
    np.testing.assert_array_equal(cloud.any(axis=0), image[0] > 0)


def test_masks_are_padded_by_zeros_or_by_their_edge() -> None:
    mask = np.zeros((400, 900), dtype=bool)
    mask[:40, 300:600] = True  # a defect that reaches the upper edge
    zeros, edge = (mask_tensor(mask, 900, 90, edge)[0] for edge in (False, True))
    assert zeros[25:29, 30:60].all() and zeros.sum() == 4 * 30
    assert edge[:29, 30:60].all() and edge.sum() == 29 * 30


@pytest.fixture(scope="module", params=[(40, 60), (90, 40)], ids=["wide", "high"])
def processed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category of images that are not square, on whose clouds some points lie in a plane of the axes."""
    root, size = tmp_path_factory.mktemp("inputs"), request.param
    base = root / "raw/bracket"
    for split, defect in (("train", "good"), ("validation", "good"), ("test", "good"), ("test", "crack")):
        folder, scene = base / split / defect, rawdata.scene(3, *size)
        scene[:, size[1] // 2 - 2 : size[1] // 2 + 3, 0] = 0  # columns at x = 0, measured as all others
        rawdata.write_png(folder / "rgb/000.png", rawdata.rgb(3, *size))
        rawdata.write_tiff(folder / "xyz/000.tiff", scene)
        if split == "test":
            marks = np.zeros(size, np.uint8)
            marks[:8, -12:] = 255 * (defect != "good")
            rawdata.write_png(folder / "gt/000.png", marks)
    preprocess("mvtec3d", root / "raw", root / "out", rawdata.config())
    return root / "out"


def opened(processed: Path, **settings: object):
    return open_dataset("mvtec3d", processed, "bracket", "test", rawdata.config(**settings))


def test_samples_follow_the_settings(processed: Path) -> None:
    usual, other = opened(processed), opened(processed, **RELEASED)
    assert usual.fingerprint == other.fingerprint  # the files are the same: digests of features tell the settings
    a, b = usual[0], other[0]
    np.testing.assert_array_equal(a.rgb, b.rgb)
    assert not np.array_equal(a.xyz, b.xyz) and b.gt.sum() > a.gt.sum() > 0
    assert (a.xyz == 0).any(axis=0)[a.valid[0]].any(), "points at x = 0 are there"
    np.testing.assert_array_equal((b.xyz != 0).all(axis=0), b.valid[0])
    floor = opened(processed, cloud_sampling="floor")[0]
    assert not np.array_equal(floor.xyz, a.xyz) and np.array_equal(floor.gt, a.gt)
    rule = opened(processed, point_rule="all")[0]
    lost = a.valid & ~rule.valid
    assert lost.any() and (a.xyz[:, lost[0]] == 0).any(axis=0).all()
    np.testing.assert_array_equal(rule.xyz[:, rule.valid[0]], a.xyz[:, rule.valid[0]])


def test_a_pair_is_read_by_the_same_rules(processed: Path) -> None:
    base, settings = processed / "bracket/test/crack", RELEASED | {"image_background": "black"}
    expected = opened(processed, **settings)[0]
    sample = load_pair(base / "rgb/000.png", base / "xyz/000.tiff", rawdata.config(**settings))
    np.testing.assert_array_equal(sample.rgb, expected.rgb)
    np.testing.assert_array_equal(sample.xyz, expected.xyz)
    assert not np.array_equal(sample.rgb, opened(processed, **RELEASED)[0].rgb)


def test_groups_cells_and_mask_agree(processed: Path) -> None:
    """No group has a point that the rule left out, and cells have weights where they have a point."""
    settings = {"image_size": 64, "groups": 32, "group_size": 8, "grid": 32}
    for rules in ({}, RELEASED):
        config = rawdata.config(**settings | rules)
        data = open_dataset("mvtec3d", processed, "bracket", "test", config)
        sample = data[0]
        prepared = FeatureExtractor.from_config(config).prepare(sample)
        points = {tuple(point) for point in sample.xyz[:, sample.valid[0]].T.tolist()}
        assert {tuple(point) for point in prepared.centres.tolist()} <= points
        assert ((prepared.centres != 0).all(axis=1).all()) or not rules
        at = np.s_[1::2, 1::2]
        np.testing.assert_array_equal((prepared.weight != 0).any(axis=1).reshape(32, 32), sample.valid[0][at])


def test_the_variants_differ_at_full_size_only() -> None:
    names = (*RELEASED, "image_background")
    for profile in ("smoke", "demo", "full"):
        paper, released = (Config.preset(profile, variant) for variant in ("paper", "released"))
        usual = ["centre", "any", "zeros", False, "kept"]
        assert [getattr(paper, name) for name in names] == usual
        expected = [*RELEASED.values(), "kept"] if profile == "full" else usual
        assert [getattr(released, name) for name in names] == expected
        assert InputRules.of(released).cloud_sampling == expected[0]
