"""Features for own parts: points of cells with gaps, windows around the part, histograms as tokens."""

import dataclasses

import numpy as np
import pytest
from support.samples import make_sample

from mafr.config import Config
from mafr.data.samples import Sample
from mafr.data.scan import Scan
from mafr.errors import ConfigError
from mafr.features.extract import FeatureExtractor, cell_points
from mafr.features.fpfh import TOKEN_DIM, fpfh_tokens

CONFIG = Config.preset("smoke", overrides={"point_backbone": "fpfh", "xyz_dim": TOKEN_DIM, "view": "part"})


def test_a_cell_takes_its_nearest_point_where_the_central_pixel_has_none():
    side, grid = 12, 3
    xyz = np.stack(np.broadcast_arrays(*np.mgrid[1.0 : side + 1, 1.0 : side + 1], 1.0)).astype(np.float32)
    plain = cell_points(xyz, grid)
    assert np.array_equal(plain, cell_points(xyz, grid, "nearest")) and tuple(plain[0]) == (3, 3, 1)
    holed = xyz.copy()
    holed[:, 2, 2] = 0  # the first cell's central pixel
    holed[:, 0:4, 4:8] = 0  # all of the second cell
    assert not cell_points(holed, grid)[:2].any()
    nearest = cell_points(holed, grid, "nearest")
    assert np.abs(nearest[0] - (3, 3, 1)).sum() == 1 and not nearest[1].any(), "a point of another cell is not taken"


def _small_in_a_large_scan(side=400, at=(150, 60), size=112) -> Sample:
    """A sample whose part fills a small square of its scan; beside it the same part alone."""
    part = make_sample(size=size)
    rgb, xyz = np.zeros((side, side, 3), np.uint8), np.zeros((side, side, 3), np.float32)
    where = slice(at[0], at[0] + size), slice(at[1], at[1] + size)
    rgb[where], xyz[where] = (255 * part.rgb.transpose(1, 2, 0)).astype(np.uint8), part.xyz.transpose(1, 2, 0)
    step = np.arange(size) * side // size + side // size // 2
    shown = xyz[step[:, None], step].transpose(2, 0, 1)
    return dataclasses.replace(part, xyz=shown, scan=lambda: Scan(rgb, xyz, side))


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor.from_config(CONFIG)


def test_a_window_fills_the_grid_with_the_part(extractor):
    sample = _small_in_a_large_scan()
    seen, whole = (FeatureExtractor.prepare(extractor, sample), None)
    whole = FeatureExtractor.from_config(dataclasses.replace(CONFIG, view="whole")).prepare(make_sample())
    covered = (seen.weight != 0).any(axis=1).mean()
    assert covered > 0.5 > 4 * sample.valid.mean()
    assert abs(covered - (whole.weight != 0).any(axis=1).mean()) < 0.1, "nearly what the part alone gives"
    assert extractor.encode([seen]).rgb.shape[-2:] == (14, 14)


def test_a_sample_without_a_scan_is_cut_from_its_own_pixels(extractor):
    tokens = extractor.extract(make_sample())
    assert tokens.xyz.shape == (1, CONFIG.groups, TOKEN_DIM) and (tokens.weight != 0).any()


def test_histograms_do_not_depend_on_place_or_heading_and_tell_edges_from_planes():
    side = 112
    v, u = np.mgrid[:side, :side].astype(np.float32) * 0.0004 - 0.02
    roof = np.stack([u, v, 0.5 + np.abs(u)]).astype(np.float32)
    flat, ridge = np.float32([[-0.012, 0, 0.512]]), np.float32([[0, 0, 0.5]])
    on_plane, on_ridge = (fpfh_tokens(roof, place)[0] for place in (flat, ridge))
    assert on_plane.shape == (TOKEN_DIM,) and np.abs(on_plane - on_ridge).sum() > 1
    other_plane = fpfh_tokens(roof, np.float32([[0.012, 0.003, 0.512]]))[0]
    assert np.abs(on_plane - other_plane).sum() < 0.2 * np.abs(on_plane - on_ridge).sum()
    turn = np.float32([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    moved = np.tensordot(turn, roof, 1) + np.float32([0.1, 0.2, 0.05])[:, None, None]
    again = fpfh_tokens(moved.astype(np.float32), ridge @ turn.T + np.float32([0.1, 0.2, 0.05]))[0]
    assert np.allclose(again, on_ridge, atol=0.1)


def test_histograms_have_their_own_width():
    with pytest.raises(ConfigError, match=f"{TOKEN_DIM} channels"):
        FeatureExtractor.from_config(dataclasses.replace(CONFIG, xyz_dim=192))
