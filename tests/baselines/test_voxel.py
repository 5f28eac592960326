"""VoxelGAN, VoxelAE, VoxelVM: voxel grids against a plain loop, weighted loss, scores at pixels; a case to solve."""

import numpy as np
import pytest
import torch
from support import domes

from mafr.baselines.mvtec_benchmark import (
    VoxelAE,
    VoxelGAN,
    VoxelMethod,
    VoxelVM,
    empty_share,
    random_angles,
    turned_grids,
)
from mafr.baselines.parts.benchmark_models import ConvAutoencoder, Sizes, weighted_mse
from mafr.baselines.parts.gan import Contractor, Generator
from mafr.baselines.parts.inputs import Frame
from mafr.baselines.registry import method_class
from mafr.config import Config
from mafr.data.depth_axis import DepthAxis
from mafr.errors import DataError
from mafr.features.sources.splits import split_of
from mafr.scoring import smooth

AHEAD = DepthAxis((0.0, 0.0, 1.0), 0.0)
METHODS = (VoxelGAN, VoxelAE, VoxelVM)
TINY = {"voxel_side": 8, "voxel_width": 4, "voxel_latent": 8, "voxel_gan_side": 8, "voxel_gan_width": 4,
        "voxel_gan_latent": 8}  # fmt: skip


def plain_grid(frame: Frame, points: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Point by point."""
    sums = np.zeros((frame.side,) * 3 + (3,))
    counts = np.zeros((frame.side,) * 3, int)
    for p, c in zip(points, colours, strict=True):
        place = [int((p[k] - frame.low[k]) // (frame.edge / frame.side)) for k in range(3)]
        if all(0 <= i < frame.side for i in place):
            sums[tuple(place)] += c
            counts[tuple(place)] += 1
    grid = np.full((3, *(frame.side,) * 3), -1.0)
    for place in np.argwhere(counts):
        grid[:, *place] = sums[tuple(place)] / counts[tuple(place)]
    return grid


def test_grids_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal((0.1, -0.2, 0.5), 0.03, (400, 3))
    colours = rng.random((400, 3))
    frame = Frame((0.06, -0.25, 0.45), 0.09, 6)
    found = frame.grid(points, colours)
    assert found.shape == (3, 6, 6, 6)
    assert np.allclose(found, plain_grid(frame, points, colours), atol=1e-6)
    assert (found == -1).any()
    assert (found.max(axis=0) >= 0).any()


def turn_points(points: np.ndarray, angle: float, view: DepthAxis, middle: np.ndarray) -> np.ndarray:
    """Turn points (N, 3) by `angle` (radians) around the line through `middle` along the viewing axis."""
    across = view.across()
    x, y = across @ points.T - (across @ middle)[:, None]
    left, right = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    turned = across.T @ (np.stack([left, right]) + (across @ middle)[:, None])
    turned += np.outer(view.direction, view.along(points.T))
    return turned.T.astype(points.dtype)


def test_grids_have_the_bits_of_the_plain_formula_in_any_memory_order() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal((0.1, -0.2, 0.5), 0.03, (3000, 3)).astype(np.float32)
    colours = rng.random((3000, 3), dtype=np.float32)
    frame = Frame((0.06, -0.25, 0.45), 0.09, 6)
    place = np.floor((points.astype(np.float64) - np.asarray(frame.low)) * (frame.side / frame.edge)).astype(np.int64)
    inside = ((place >= 0) & (place < frame.side)).all(axis=1)
    cell = np.ravel_multi_index(np.clip(place, 0, frame.side - 1).T, (frame.side,) * 3)
    count = np.bincount(cell[inside], minlength=frame.side**3)
    sums = [np.bincount(cell[inside], colours[inside, k], frame.side**3) for k in range(3)]
    grid = np.where(count > 0, sums / np.maximum(count, 1), -1).astype(np.float32).reshape(3, *(frame.side,) * 3)
    for order in "CF":
        ordered = points.copy(order), colours.copy(order)
        assert all(map(np.array_equal, frame.cells(ordered[0]), (cell, inside)))
        assert np.array_equal(frame.grid(*ordered), grid)
        turned = turn_points(ordered[0], 0.1, AHEAD, frame.middle)
        assert np.array_equal(turned, turn_points(points, 0.1, AHEAD, frame.middle))


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (0.0, -0.6, 0.8)])
@pytest.mark.parametrize("order", "CF")
def test_turned_grids_are_those_of_the_turned_points(direction: tuple[float, float, float], order: str) -> None:
    rng, view = np.random.default_rng(3), DepthAxis(direction, 0.0)
    points = rng.normal((0.1, -0.2, 0.5), 0.03, (3000, 3)).astype(np.float32, order)
    colours = rng.random((3000, 3), dtype=np.float32).astype(np.float32, order)
    frame = Frame((0.06, -0.25, 0.45), 0.09, 6)
    wanted = frame.grid(turn_points(points, 0.3, view, frame.middle), colours)
    found = frame.turned_grid(points, colours, 0.3, view)
    assert (wanted == -1).any() and not np.allclose(wanted, frame.grid(points, colours), atol=0.01)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    nothing = frame.turned_grid(points[:0], colours[:0], 0.3, view)
    assert (nothing == -1).all()


def test_the_frame_holds_all_training_points() -> None:
    clouds = [np.array([[0.0, 0, 1], [0.2, 0.1, 1]]), np.array([[0.1, -0.3, 1.05]]), np.empty((0, 3))]
    frame = Frame.around(clouds, 4)
    assert frame.edge == pytest.approx(0.4, rel=1e-5)  # the longest side, y
    assert np.allclose(frame.middle, [0.1, -0.1, 1.025])
    for cloud in clouds:
        assert frame.cells(cloud)[1].all()
    cells, inside = frame.cells(np.array([[0.1, -9.0, 1.025], [0.1, 9.0, 1.025], [0.1, -0.0999, 1.0251]]))
    assert inside.tolist() == [False, False, True]
    assert np.unravel_index(cells, (4, 4, 4))[1].tolist() == [0, 3, 2]  # the nearest voxel of one outside
    with pytest.raises(DataError, match="no 3D points"):
        Frame.around([np.empty((0, 3))], 4)


def test_turning_points() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3))
    middle = np.array([0.3, -1.0, 2.0])
    for axis in range(3):
        turned = turn_points(points, 0.4, DepthAxis(tuple(np.eye(3)[axis].tolist()), 1.0), middle)
        assert np.array_equal(turned[:, axis], points[:, axis])
        assert np.allclose(np.linalg.norm(turned - middle, axis=1), np.linalg.norm(points - middle, axis=1))
        flat = [k for k in range(3) if k != axis]
        a, b = points[:, flat] - middle[flat], turned[:, flat] - middle[flat]
        angle = np.angle((b[:, 0] + 1j * b[:, 1]) / (a[:, 0] + 1j * a[:, 1]))
        assert np.allclose(angle, 0.4)
    quarter = turn_points(np.array([[1.0, 0, 0]]), np.pi / 2, AHEAD, np.zeros(3))
    assert np.allclose(quarter, [[0, 1, 0]])
    oblique = DepthAxis((0.0, -0.6, 0.8), 0.0)
    third = turn_points(points.astype(np.float32), 2 * np.pi / 3, oblique, middle)
    assert third.dtype == np.float32
    assert np.allclose(oblique.along(third.T), oblique.along(points.T), atol=1e-6)
    back = turn_points(turn_points(third, 2 * np.pi / 3, oblique, middle), 2 * np.pi / 3, oblique, middle)
    assert np.allclose(back, points, atol=1e-5) and not np.allclose(third, points, atol=0.1)


def test_training_grids_and_their_empty_share() -> None:
    rng = np.random.default_rng(0)
    clouds = [rng.random((2, 50, 3), dtype=np.float32) for _ in range(3)]
    frame = Frame.around((points for points, _ in clouds), 8)
    plain = np.stack([plain_grid(frame, *cloud) for cloud in clouds])
    assert empty_share(clouds, frame) == pytest.approx((plain[:, 0] == -1).mean())
    drawn = turned_grids(clouds, frame, AHEAD, [2, 0], torch.Generator().manual_seed(1))
    angles = random_angles(2, torch.Generator().manual_seed(1)).tolist()
    for grid, k, angle in zip(drawn, (2, 0), angles, strict=True):
        points = turn_points(clouds[k][0], angle, AHEAD, frame.middle)
        assert np.allclose(grid, plain_grid(frame, points, clouds[k][1]), atol=1e-6)


def test_weighted_error_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    x = np.where(rng.random((2, 1, 3, 3, 3)) < 0.2, rng.random((2, 3, 3, 3, 3)), -1).astype(np.float32)
    y = rng.normal(size=x.shape).astype(np.float32)
    total = 0.0
    for index in np.ndindex(x.shape):
        occupied = x[index[0], :, index[2], index[3], index[4]].max() >= 0
        total += (0.9 if occupied else 0.1) * (float(x[index]) - float(y[index])) ** 2
    found = weighted_mse(torch.from_numpy(y), torch.from_numpy(x), 0.9)
    assert found.item() == pytest.approx(total / x.size, rel=1e-5)
    plain = weighted_mse(torch.from_numpy(y), torch.from_numpy(x), None)
    assert plain.item() == pytest.approx(((x - y) ** 2).mean(), rel=1e-5)


def test_occupied_and_empty_voxels_weigh_alike() -> None:
    """With `empty` the true share, being wrong by one everywhere costs as much in either kind."""
    x = torch.full((1, 3, 4, 4, 4), -1.0)
    x[:, :, 0, 0, :2] = 0.5
    empty = 62 / 64
    occupied = x.amax(1, keepdim=True) > 0
    in_occupied = weighted_mse(x + occupied, x, empty).item()
    in_empty = weighted_mse(x + ~occupied, x, empty).item()
    assert in_occupied == pytest.approx(in_empty)


def test_voxel_vm_against_numpy() -> None:
    """The whole method: grids of turned copies, mean, deviation, distance, and back to the pixels."""
    settings = domes.config(voxel_copies=1, voxel_batch=3, sigma=0.2)
    samples, probe = domes.domes(3), domes.dome(50, "dent")
    detector = VoxelVM(settings).fit(samples, show=False)

    def cloud(sample) -> tuple[np.ndarray, np.ndarray]:
        v, u = np.nonzero(sample.valid[0])
        return sample.xyz[:, v, u].T, sample.rgb[:, v, u].T

    clouds = [cloud(s) for s in samples]
    low = np.min([p.min(axis=0) for p, _ in clouds], axis=0)
    high = np.max([p.max(axis=0) for p, _ in clouds], axis=0)
    frame = detector.frame
    assert np.allclose(frame.middle, (low.astype(float) + high) / 2, atol=1e-7)
    assert frame.edge == pytest.approx((high - low).max(), rel=1e-5)
    assert frame.side == 64
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(3, generator=generator).tolist()
    angles = random_angles(3, generator).tolist()
    grids = np.stack(
        [plain_grid(frame, turn_points(clouds[k][0], a, AHEAD, frame.middle), clouds[k][1])
         for k, a in zip(order, angles, strict=True)]
    )  # fmt: skip
    z = (plain_grid(frame, *cloud(probe)) - grids.mean(axis=0)) / np.maximum(grids.std(axis=0), settings.voxel_floor)
    voxels = np.sqrt((z**2).sum(axis=0))
    expected = np.zeros(probe.valid.shape[1:])
    for v, u in np.argwhere(probe.valid[0]):
        place = np.floor((probe.xyz[:, v, u].astype(float) - frame.low) / (frame.edge / 64)).astype(int)
        expected[v, u] = voxels[tuple(np.clip(place, 0, 63))]
    blurred = smooth(torch.from_numpy(expected)[None, None], settings.blur, settings.sigma)[0, 0].numpy()
    found = detector.predict(probe)
    assert np.allclose(found.psi, blurred, rtol=1e-3, atol=1e-3)
    assert found.score == pytest.approx(found.psi.max())


def test_full_size_layers() -> None:
    sizes = Sizes.of(Config.preset("full"), "voxel", 3, 3, gan=True)
    assert (sizes.side, sizes.latent, sizes.copies) == (64, 512, 20)
    with torch.device("meta"):
        generator = Generator(3, 3, 64, sizes.width, 512)
        assert generator(torch.empty(2, 512, device="meta")).shape == (2, 3, 64, 64, 64)
        encoder = Contractor(3, 3, 64, sizes.width, 512, by_batch=True)
        assert encoder(torch.empty(2, 3, 64, 64, 64, device="meta")).shape == (2, 512)
        autoencoder = ConvAutoencoder(3, 3, 64, 32, 512)
        assert autoencoder(torch.empty(2, 3, 64, 64, 64, device="meta")).shape == (2, 3, 64, 64, 64)


@pytest.mark.parametrize("kind", METHODS)
def test_an_obvious_defect_is_found(kind: type[VoxelMethod]) -> None:
    settings = domes.config(min_steps=250, voxel_gan_latent=16)
    detector = kind(settings).fit(domes.domes(16), show=False)
    # A GAN of a few steps restores a part roughly: its defects must be larger.
    domes.check_solves(detector, {VoxelGAN: ["lump"], VoxelAE: ["lump", "colour"], VoxelVM: ["lump", "dent"]}[kind])


@pytest.mark.parametrize("kind", METHODS)
def test_repeats_and_loads(kind: type[VoxelMethod], tmp_path) -> None:
    domes.check_repeats(kind, domes.config(min_steps=6, voxel_epochs=1, **TINY), tmp_path)


def test_names_and_a_single_sample() -> None:
    assert [method_class(name) for name in ("voxelgan", "voxelae", "voxelvm")] == list(METHODS)
    detector = VoxelVM(domes.config()).fit_split(split_of(domes.domes(3), None), [2])
    assert np.isfinite(detector.predict(domes.dome(7)).psi).all()
