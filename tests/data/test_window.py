"""The window around a part: where it lies, what it takes of a scan, and how maps come back to the whole image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mafr.config import Config
from mafr.data.scan import Scan
from mafr.data.transforms import InputRules
from mafr.data.window import MARGIN, Window
from mafr.scoring import ResidualMaps, at_pixels, filled, whole_image


def _mask(size=60, top=10, left=30, high=12, wide=20):
    mask = np.zeros((size, size), bool)
    mask[top : top + high, left : left + wide] = True
    return mask


def test_a_window_is_a_square_a_tenth_larger_than_the_part_within_the_image():
    window = Window.of(_mask())
    assert window.side == pytest.approx(MARGIN * 20 / 60)
    assert window.top + window.side / 2 == pytest.approx(16 / 60)
    assert window.left + window.side / 2 == pytest.approx(40 / 60)
    cornered = Window.of(_mask(top=0, left=0))
    assert (cornered.top, cornered.left) == (0, 0)
    at_the_end = Window.of(_mask(top=48, left=40))
    assert at_the_end.top + at_the_end.side == pytest.approx(1)
    assert Window.of(np.ones((60, 60), bool)) == Window.of(np.zeros((60, 60), bool)) == Window(0, 0, 1)


def test_a_scan_is_seen_from_its_own_pixels_and_no_point_twice():
    """A cloud whose coordinates are its pixels' places; the image is padded to the square beside it."""
    rows, columns = np.mgrid[:300, :200].astype(np.float32)
    xyz = np.stack([columns + 1, rows + 1, np.ones_like(rows)], axis=2)
    rgb = np.zeros((300, 200, 3), np.uint8)
    rgb[100:200, 50:150] = 255
    # The bright square: the image is padded by 50 pixels on both sides.
    scan, window = Scan(rgb, xyz, 300), Window(100 / 300, 100 / 300, 100 / 300)
    image, cloud = window.arrays(scan, InputRules(224))
    assert image.shape == (3, 224, 224) and image[:, 3:-3, 3:-3].min() > 0.99  # bicubic: the border is mixed
    assert cloud.shape == (3, 100, 100)
    for axis, places in zip(cloud, (columns, rows), strict=False):
        assert np.array_equal(axis, places[100:200, 50:150] + 1)
    _, small = window.arrays(scan, InputRules(20))
    assert small.shape == (3, 20, 20) and np.array_equal(np.unique(small[1]), np.arange(102.0, 202, 5) + 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([24, 112]), st.floats(0.0005, 0.3))
def test_filling_a_mask_moves_no_window(seed, size, share):
    """So that maps go back where they came from, whichever of the two masks is scored."""
    rng = np.random.default_rng(seed)
    mask = rng.random((size, size)) < share
    mask[: rng.integers(size)] = mask[:, rng.integers(1, size) :] = False  # a part somewhere, or none
    whole = filled(torch.from_numpy(mask)[None, None])[0, 0].numpy()
    assert (whole | ~mask).all() and Window.of(whole) == Window.of(mask)


def test_maps_come_back_to_their_places():
    """A window's map that grows from left to right and from top to bottom, over the part's own pixels."""
    size, grid, mask = 96, 24, _mask(96, 20, 40, 30, 30)
    window = Window.of(mask)
    places = (np.arange(grid) + 0.5) / grid * window.side
    across = torch.from_numpy(np.broadcast_to(window.left + places, (grid, grid)).copy()).float()[None, None]
    down = torch.from_numpy(np.broadcast_to((window.top + places)[:, None], (grid, grid)).copy()).float()[None, None]
    valid = torch.ones(1, 1, grid, grid, dtype=torch.bool)
    tensor = torch.from_numpy(mask)[None, None]
    expected = (np.arange(size) + 0.5) / size
    axes = (np.broadcast_to(line, (size, size)) for line in (expected, expected[:, None]))
    for psi, axis in zip((across, down), axes, strict=True):
        found = whole_image(psi, valid, tensor)[0, 0].numpy()
        assert np.allclose(found[mask], axis[mask], atol=1e-4)
    assert not at_pixels(across, down, valid, tensor, size, "part")[0][~tensor].any()


def test_cells_without_a_point_do_not_lower_their_neighbours():
    mask = torch.from_numpy(_mask(96, 20, 40, 30, 30))[None, None]
    valid = torch.ones(1, 1, 24, 24, dtype=torch.bool)
    valid[..., ::2] = False
    found = whole_image(torch.full((1, 1, 24, 24), 3.0) * valid, valid, mask)
    assert torch.allclose(found[mask], torch.tensor(3.0))


def test_filled_masks_close_gaps_and_keep_the_outline():
    mask = _mask(112, 20, 20, 60, 60)
    holed = mask.copy()
    holed[40:43, 20:80] = False  # a gap right across
    holed[60:70, 60:70] = False  # a hole that no closing reaches across
    tensor = torch.from_numpy(np.stack([holed, mask]))[:, None]
    first, second = filled(tensor)[:, 0].numpy()
    assert np.array_equal(second, mask)
    assert first[20:80, 22:78].all() and not first[~mask].any()  # but for the gap's two mouths


def test_what_is_scored_follows_the_setting():
    mask = _mask(112, 20, 20, 60, 60)
    mask[50, 50] = False
    tensor, cells = torch.from_numpy(mask)[None, None], torch.ones(1, 1, 14, 14, dtype=torch.bool)
    psi = torch.rand(1, 1, 14, 14)
    for scored, there in (("point", False), ("filled", True)):
        config = Config.preset("smoke", overrides={"scored": scored, "view": "part"})
        answer = ResidualMaps(psi, psi, cells, tensor, config)
        assert answer.scored[0, 0, 50, 50] == there and (answer.pixels[0][0, 0, 50, 50] > 0) == there
