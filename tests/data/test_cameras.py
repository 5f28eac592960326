"""Camera matrices, and depths that are no measurement: saturated, "no data", far strays."""

import numpy as np
import pytest
from PIL import Image
from support.scanfiles import SCENE, camera, ply_of, saved, tiff

from mafr.data.formats import gaps
from mafr.data.formats.clouds import decode_cloud, decode_depth_image
from mafr.errors import DataError

# ------------------------------------------------------------------ cameras


def of_matrix(matrix, name="camera_matrix"):
    return camera(fx=None, fy=None, cx=None, cy=None, **{name: matrix})


MATRIX = np.array([[333.0, 0, 30.2], [0, 331.0, 19.7], [0, 0, 1]])


@pytest.mark.parametrize("name", ["camera_matrix", "K", "intrinsic_matrix", "cam_K"])
def test_camera_matrices_row_by_row(name):
    flat = MATRIX.ravel().tolist()
    for matrix in (MATRIX.tolist(), flat, {"rows": 3, "cols": 3, "data": flat}):
        assert of_matrix(matrix, name) == camera()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (MATRIX.T.tolist(), "camera_matrix is transposed, or column by column: rows fx, .* found .*30.2, 19.7"),
        (MATRIX.T.ravel().tolist(), "camera_matrix is transposed, or column by column"),
        ({"data": MATRIX.T.ravel().tolist()}, "camera_matrix is transposed, or column by column"),
        (np.diag([333.0, 331.0, 2.0]).tolist(), "camera_matrix: rows fx"),
        ([[333.0, 0, 30.2], [2.0, 331.0, 19.7], [0, 0, 1]], "camera_matrix: rows fx"),
        (np.hstack([MATRIX, np.zeros((3, 1))]).tolist(), "camera_matrix has 12 numbers instead of 3 x 3"),
        ("wide", "ValueError"),
    ],
)
def test_camera_matrices_in_another_order_are_refused(matrix, message):
    with pytest.raises(DataError, match=rf"intrinsics.json: no camera parameters \(.*{message}"):
        of_matrix(matrix)


def test_skew_is_used(tmp_path):
    skewed = MATRIX.copy()
    skewed[0, 1] = 25.0
    cameras = of_matrix(skewed.tolist()), camera(skew=25)
    found = [decode_depth_image(tiff(SCENE[..., 2]), tmp_path, which) for which in cameras]
    v, u = np.indices((40, 60))
    rays = np.stack([u, v, np.ones_like(u)], axis=2) @ np.linalg.inv(skewed).T
    for points in found:
        np.testing.assert_allclose(points, rays * SCENE[..., 2:], atol=1e-7)
    assert np.abs(found[0] - decode_depth_image(tiff(SCENE[..., 2]), tmp_path, camera())).max() > 1e-3


# ---------------------------------------------------- no data, and far points

MILLIMETRES = np.round(SCENE[..., 2] * 1000).astype(np.uint16)


def depth_png(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values))


def depth_of(content: bytes, path, **settings) -> np.ndarray:
    return decode_depth_image(content, path, camera(**settings))[..., 2]


@pytest.mark.parametrize("scale", [0.001, 0.0001])
def test_one_saturated_pixel_is_no_point(scale, tmp_path, capsys):
    steps = np.round(SCENE[..., 2] / scale).astype(np.uint16)
    expected = depth_of(depth_png(steps), tmp_path / "a.png", depth_scale=scale)
    assert not capsys.readouterr().err
    steps[20, 30] = 65535
    expected[20, 30] = 0
    found = depth_of(depth_png(steps), tmp_path / "b.png", depth_scale=scale)
    np.testing.assert_array_equal(found, expected)
    (line,) = capsys.readouterr().err.splitlines()
    assert "b.png: 1 pixels hold 65535, alone and far from the others' median" in line
    depth_of(depth_png(steps), tmp_path / "c.png", depth_scale=scale)
    assert not capsys.readouterr().err  # said once for a folder


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7])
@pytest.mark.parametrize(
    ("constant", "kind"),
    [
        (65535, np.uint16), (9999, np.uint16), (1, np.uint16), (1e10, np.float32), (9999.0, np.float64),
        (-1.0, np.float32),
    ],
)  # fmt: skip
def test_one_repeated_value_is_no_data(constant, kind, share, tmp_path, capsys):
    gap = np.random.default_rng(0).random((40, 60)) < share
    values = np.where(gap, constant, SCENE[..., 2] * 1000).astype(kind)
    expected = np.where(gap, 0, SCENE[..., 2] * 1000).astype(kind)
    found, wanted = (depth_of(tiff(v), tmp_path / "a.tiff", unit="mm") for v in (values, expected))
    np.testing.assert_array_equal(found, wanted)
    said = capsys.readouterr().err
    assert (f"{np.count_nonzero(gap):,} pixels hold {constant:.9g}" in said) is (constant > 0), said


def test_two_values_of_no_data_and_a_stray(tmp_path):
    values = MILLIMETRES.copy()
    values[:10], values[10:15], values[20, 20] = 65535, 9000, 30_000
    expected = MILLIMETRES.copy()
    expected[:15] = expected[20, 20] = 0
    found, wanted = (depth_of(depth_png(v), tmp_path) for v in (values, expected))
    np.testing.assert_array_equal(found, wanted)


def test_depths_that_repeat_are_measured_all_the_same(tmp_path, capsys):
    """A flat table, a floor behind a hole whose depths differ by a step, one depth only, and values near the end."""
    part = MILLIMETRES.copy()
    table, floor = part.copy(), part.copy()
    table[:15] = 520
    rng = np.random.default_rng(0)
    floor[10:14, 20:30] = 1000 + rng.integers(-1, 2, (4, 10))
    near_end = np.where(part > 0, part + 65535 - part.max(), 0).astype(np.uint16)
    for values in (part, table, floor, np.full((40, 60), 500, np.uint16)):
        np.testing.assert_allclose(depth_of(depth_png(values), tmp_path), values / 1000, rtol=1e-6)
    np.testing.assert_allclose(depth_of(depth_png(near_end), tmp_path, depth_scale=1e-5), near_end * 1e-5, rtol=1e-6)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("form", ["depth", "xyz", "ply"])
def test_a_far_stray_is_counted_and_left_out_whatever_the_form(form, tmp_path, capsys):
    points = SCENE.copy()
    points[5, 5], points[6, 7] = (1, 2, 4e4), (3, 3, 90)
    expected = SCENE.copy()
    expected[5, 5] = expected[6, 7] = 0
    path = tmp_path / "a"
    if form == "depth":
        contents = tiff(points[..., 2] * 1000), tiff(expected[..., 2] * 1000)
        found, expected = (decode_depth_image(content, path, camera(unit="mm")) for content in contents)
    elif form == "xyz":
        found = decode_cloud(tiff(points), path, (40, 60), path)
    else:
        found = decode_cloud(ply_of(points.reshape(-1, 3) * 1000), path, (40, 60), path, camera(unit="mm"))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert "a: 2 pixels lie farther than 20 m, up to 4e+04 m, the median at 0.49" in capsys.readouterr().err


def test_the_unit_is_judged_by_the_median(tmp_path):
    """With a stray or a repeated value beside it, a cloud in millimetres is one all the same."""
    points = SCENE * np.float32(1000)
    points[5, 5] = 65535
    with pytest.raises(DataError, match=r'coordinates reach 6.55\de\+04, half of them 49\d.*put {"unit": "mm"}'):
        decode_cloud(ply_of(points.reshape(-1, 3)), tmp_path, (40, 60), tmp_path)
    metres = SCENE.copy()
    metres[:25] = -9999  # most of the points
    expected = SCENE.copy()
    expected[:25] = 0
    np.testing.assert_array_equal(decode_cloud(tiff(metres), tmp_path, (40, 60), tmp_path), expected)
    assert gaps.drop_far(SCENE, 20.0, tmp_path) is SCENE


@pytest.mark.parametrize("form", ["xyz", "ply"])
@pytest.mark.parametrize(
    "constant", [(-1, -1, -1), (0, 0, 1), (0, 0, -1), (0.01, 0.02, 0.5), (None, None, 0), (None, None, -1)], ids=str
)
@pytest.mark.parametrize("share", [0.02, 0.4])
def test_a_point_that_many_pixels_share_is_no_data(form, constant, share, tmp_path, capsys):
    gap = np.random.default_rng(0).random((40, 60)) < share
    gap &= SCENE.any(axis=2)
    points, expected = SCENE.copy(), np.where(gap[..., None], np.float32(0), SCENE)
    for axis, value in enumerate(constant):
        if value is not None:  # others are computed all the same
            points[gap, axis] = value
    content = tiff(points) if form == "xyz" else ply_of(points.reshape(-1, 3))
    found = decode_cloud(content, tmp_path / "a", (40, 60), tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert f"a: {np.count_nonzero(gap):,} pixels hold" in capsys.readouterr().err


def test_two_constants_in_one_cloud(tmp_path, capsys):
    points, expected = SCENE.copy(), SCENE.copy()
    points[:10], points[10:15] = (-1, -1, -1), (0, 0, 1)
    expected[:15] = 0
    np.testing.assert_array_equal(decode_cloud(tiff(points), tmp_path / "a", (40, 60), tmp_path), expected)
    said = capsys.readouterr().err
    assert "hold (-1, -1, -1), while" in said
    assert "hold (0, 0, 1), while" in said


def test_points_and_depths_of_a_real_surface_are_kept(tmp_path, capsys):
    """A flat table, coarse steps, each point four times, a height above a flat table, one depth only."""
    flat, steps, height = SCENE.copy(), SCENE.copy(), SCENE.copy()
    flat[:15, :, 2] = 0.52
    steps[..., 2] = np.round(steps[..., 2] / 0.005) * np.float32(0.005)
    there = SCENE.any(axis=2)
    height[there, 2] = np.maximum(np.float32(0.49) - SCENE[there, 2], 0)
    single = SCENE.copy()
    single[there, 2] = 0.5
    doubled = np.repeat(np.repeat(SCENE[:20, :30], 2, axis=0), 2, axis=1)
    for points in (SCENE, flat, steps, height, single, doubled, np.full((40, 60, 3), np.float32(0.5))):
        assert gaps.drop_repeated(points, tmp_path / "a") is points
    assert not capsys.readouterr().err
