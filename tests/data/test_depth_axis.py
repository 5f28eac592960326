"""The viewing axis against cameras that are known: along a coordinate axis, turned, mirrored; few and flat clouds."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support import domes

from mafr.baselines.registry import load_detector, method_class
from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.errors import DataError

SHIFT = np.array([0.03, -0.02, 0.7])
AXES = [((0, 1, 2), (1, 1, 1)), ((0, 2, 1), (0.1, -0.1, 0.1)), ((2, 0, 1), (-1, 1, 1))]


def as_sample(xyz: np.ndarray) -> Sample:
    return Sample(np.zeros_like(xyz, np.float32), xyz.astype(np.float32), xyz[:1] > 9, 0, "good", "x", "train/good/000")


def moved(seed: int, turn: np.ndarray, shift: np.ndarray = SHIFT) -> tuple[Sample, np.ndarray]:
    """A dome in coordinates turn @ (its own + shift), and its depth."""
    xyz = domes.dome(seed).xyz.astype(np.float64)
    points = np.tensordot(turn, xyz + shift[:, None, None], 1) * (xyz != 0).any(axis=0)
    return as_sample(points), xyz[2]


@pytest.mark.parametrize("axes", AXES)
def test_a_camera_along_a_coordinate_axis(axes) -> None:
    order, scale = axes
    turn = np.eye(3)[list(order)] * np.array(scale)[:, None]
    clouds = [moved(seed, turn) for seed in range(3)]
    view = DepthAxis.fit(sample for sample, _ in clouds)
    assert view.direction == tuple(np.eye(3)[order.index(2)] * np.sign(scale[order.index(2)]))
    for sample, depth in clouds:
        expected = depth * abs(scale[0])
        assert np.allclose(view.depth(sample.xyz), expected, atol=0.02 * abs(scale[0]))  # of 0.4 m
        assert np.ptp((view.depth(sample.xyz) - expected)[expected > 0]) < 1e-6
        right, down, away = view.image_axes(sample)
        assert np.array_equal(right, np.sign(turn[:, 0])) and np.array_equal(down, np.sign(turn[:, 1]))
        assert tuple(away) == view.direction


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_camera_that_looks_in_any_direction(count, mirrored) -> None:
    for seed, turn in enumerate(Rotation.random(8, random_state=0).as_matrix()):
        turn = turn * np.array([-1 if mirrored else 1, 1, 1])
        clouds = [moved(10 * seed + k, turn) for k in range(count)]
        view = DepthAxis.fit(sample for sample, _ in clouds)
        error = np.degrees(np.arccos(min(1.0, np.dot(view.direction, turn[:, 2]))))
        assert error < 0.5  # the domes' camera looks half a pixel past the middle, which is 0.34
        for sample, depth in clouds:
            assert np.allclose(view.depth(sample.xyz), depth, atol=1e-3)  # of 0.4 m, from domes of 2 cm
            assert np.allclose(view.image_axes(sample), turn.T, atol=0.09)  # within five degrees of the coordinates


@pytest.mark.parametrize("sign", [1, -1])
def test_parallel_rays(sign) -> None:
    """As of a profile scanner above a belt: the direction is found; the camera counts as at the origin."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:64, :64].astype(np.float64)
    clouds = []
    for _ in range(2):
        depth = sign * (0.4 + rng.uniform(-0.01, 0.01) + 0.01 * np.sin(u / 9) + rng.normal(0, 1e-4, u.shape))
        clouds.append(np.stack([1e-3 * (u - 31.5), 1e-3 * (v - 31.5), depth]))
    assert DepthAxis.fit(map(as_sample, clouds)) == DepthAxis((0, 0, sign), 0)
    turn = Rotation.from_euler("x", 40, degrees=True).as_matrix()
    view = DepthAxis.fit(as_sample(np.tensordot(turn, cloud, 1)) for cloud in clouds)
    assert np.allclose(view.direction, sign * turn[:, 2], atol=1e-3) and view.offset == 0


def test_directions_across() -> None:
    for direction in [(0.0, -0.6, 0.8), tuple(Rotation.random(random_state=1).as_matrix()[2])]:
        basis = np.stack([*DepthAxis(direction, 0.0).across(), direction])
        assert np.allclose(basis @ basis.T, np.eye(3), atol=1e-12)
    assert DepthAxis((0.0, -1.0, 0.0), 0.0).across().tolist() == [[1, 0, 0], [0, 0, 1]]


def test_flat_or_empty_clouds() -> None:
    v, u = np.mgrid[:20, :20] * 0.001
    for sign in (1, -1):
        flat = DepthAxis.fit([as_sample(np.stack([u - 0.0095, v - 0.0095, np.full_like(u, 0.5 * sign)]))])
        assert flat == DepthAxis((0, 0, sign), 0)
    with pytest.raises(DataError, match="no 3D points"):
        DepthAxis.fit([as_sample(np.zeros((3, 8, 8)))])
    with pytest.raises(DataError, match="no 3D points"):
        DepthAxis.fit([])
    lonely = np.zeros((3, 8, 8))
    lonely[2, 3, 3] = 1
    assert DepthAxis((0.0, 0.0, 1.0), 0.0).image_axes(as_sample(lonely)).tolist() == np.eye(3).tolist()


def test_saved_numbers_also_of_older_detectors() -> None:
    view = DepthAxis((0.0, -0.6, 0.8), 0.25)
    assert DepthAxis.of_numbers(view.numbers) == view
    assert DepthAxis.of_numbers([1.0, -1.0, 0.2]) == DepthAxis((0, -1, 0), 0.2)


@pytest.mark.parametrize("name", ["rgbd", "raw_depth"])
def test_a_detector_saved_with_an_axis_number_loads(name, tmp_path) -> None:
    settings = domes.config(rgbd_side=64, rgbd_width=8, rgbd_latent=32, min_steps=2, depth_along="fitted")
    detector = method_class(name)(settings).fit(domes.domes(4), show=False)
    before, state = detector.predict(domes.dome(9)), detector.state
    view = detector.view.numbers

    def older() -> dict:
        values = state()
        key = getattr(detector, "geometry", "view")
        rest = values[key][len(view) :]
        values[key] = values[key].new_tensor([2.0, 1.0, view[-1], *rest])
        return values

    assert view[:3] == [0, 0, 1]
    detector.state = older
    again = load_detector(detector.save(tmp_path / "detector"))
    assert again.view == detector.view
    assert again.predict(domes.dome(9)).score == before.score
