"""RGB-D and RGB-cD-n: depth, normals, the autoencoder and its score against independent formulas; a case to solve."""

import numpy as np
import pytest
import torch
from support import domes
from torch import nn

from mafr.baselines.parts.inputs import DepthRange, normals, shrink, turn_images
from mafr.baselines.parts.raw import Source, recorded, steps_for
from mafr.baselines.registry import method_class
from mafr.baselines.rgbd import RGBD, CandyAutoencoder, CandyMethod, RGBcDn, augment, jitter
from mafr.data.samples import Sample
from mafr.errors import ConfigError, DataError, MafrError
from mafr.features.sources.splits import split_of

TINY = {"rgbd_side": 64, "rgbd_width": 8, "rgbd_latent": 32}
METHODS = (RGBD, RGBcDn)


def sphere(side: int = 240, focal: float = 300.0) -> tuple[np.ndarray, np.ndarray]:
    """A sphere before a pinhole camera at the origin: points and the analytic normals towards the camera."""
    v, u = np.mgrid[:side, :side].astype(np.float64)
    ray = np.stack([(u - side / 2) / focal, (v - side / 2) / focal, np.ones_like(u)])
    centre, radius = np.array([0.01, -0.02, 0.5]), 0.12
    a, b, c = (ray**2).sum(0), -2 * np.tensordot(centre, ray, 1), centre @ centre - radius**2
    root = b**2 - 4 * a * c
    hit = root > 0
    points = ray * np.where(hit, (-b - np.sqrt(np.where(hit, root, 0))) / (2 * a), 0)
    return points * hit, (points - centre[:, None, None]) / radius * hit


def as_sample(xyz: np.ndarray) -> Sample:
    return Sample(np.zeros_like(xyz, np.float32), xyz.astype(np.float32), xyz[:1] > 9, 0, "good", "x", "train/good/000")


def test_normals_of_a_sphere() -> None:
    xyz, expected = sphere()
    found = normals(xyz.astype(np.float32))
    valid = (xyz != 0).any(axis=0)
    steep = expected[2] > -0.5  # near the rim a pixel's neighbours are far away
    inner = valid & ~steep
    cosine = (found * expected).sum(axis=0)[inner]
    assert inner.sum() > 5000
    assert cosine.min() > np.cos(np.deg2rad(2))
    assert np.median(cosine) > np.cos(np.deg2rad(0.2))
    assert not found[:, ~valid].any()
    assert np.allclose(np.linalg.norm(found[:, inner], axis=0), 1, atol=1e-6)


def test_normals_of_a_plane_next_to_holes() -> None:
    v, u = np.mgrid[:20, :20] * 0.001
    xyz = np.stack([u - 0.0095, v - 0.0095, 0.5 + 0.5 * u]).astype(np.float32)
    xyz[:, 5:9, 7:8] = 0
    found = normals(xyz)
    valid = (xyz != 0).any(axis=0)
    expected = np.array([0.5, 0, -1]) / np.hypot(0.5, 1)
    assert np.allclose(found[:, valid].T, expected, atol=1e-3)
    lonely = np.zeros((3, 6, 6), np.float32)
    lonely[:, 3, 3] = 1
    assert not normals(lonely).any()  # no neighbour, no normal


def test_depth_ranges() -> None:
    scale = DepthRange.of([np.array([[0.0, 2.0]]), np.array([[4.0, 3.0]])])
    assert (scale.near, scale.far) == (2, 4)
    depth = np.array([[0.0, 1.0, 2.0, 3.0, 4.0, 6.0]])
    assert scale.stretch(depth).tolist() == [[0, -0.5, 0, 0.5, 1, 2]]
    assert scale.stretch(depth, clamp=True).tolist() == [[0, 0, 0, 0.5, 1, 1]]
    assert scale.whole(depth).tolist() == [[0, 0.25, 0.5, 0.75, 1, 1.5]]
    with pytest.raises(DataError, match="no 3D points"):
        DepthRange.of([np.zeros((8, 8))])


def test_shrinking_means_over_valid_pixels_only() -> None:
    rng = np.random.default_rng(0)
    values, valid = rng.random((2, 12, 12)).astype(np.float32), rng.random((12, 12)) < 0.3
    valid[:4, :4] = False
    found, cells = shrink(values, valid, 3)
    for i in range(3):
        for j in range(3):
            part = np.s_[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            inside = valid[part]
            assert cells[i, j] == inside.any()
            expected = values[:, *part][:, inside].mean(axis=1) if inside.any() else np.zeros(2)
            assert np.allclose(found[:, i, j], expected, atol=1e-6)
    assert not cells[0, 0]


def test_turning_images() -> None:
    images = torch.rand(2, 3, 9, 9)
    turned = turn_images(images, torch.tensor([0.0, torch.pi / 2]))
    assert torch.equal(turned[0], images[0])
    assert torch.equal(turned[1], torch.rot90(images[1], 1, (1, 2)))
    moved = turn_images(images, torch.zeros(2), shift=torch.tensor([[1 / 9, 0.0], [0.0, 2 / 9]]))
    assert torch.equal(moved[0, :, :, :-1], images[0, :, :, 1:])
    assert torch.equal(moved[1, :, :-2], images[1, :, 2:])
    larger = turn_images(images, torch.zeros(2), scale=torch.tensor([3.0, 1.0]))
    assert torch.equal(larger[0], images[0, :, 3:6, 3:6].repeat_interleave(3, 1).repeat_interleave(3, 2))


def test_jitter_against_the_plain_formulas() -> None:
    rgb = 0.3 + 0.3 * torch.rand(1, 3, 5, 5)
    one, none = torch.ones(1), torch.zeros(1)
    assert torch.allclose(jitter(rgb, one, one, one, none), rgb, atol=1e-5)
    assert torch.allclose(jitter(rgb, 1.2 * one, one, one, none), rgb * 1.2, atol=1e-5)
    luma = 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]
    assert torch.allclose(jitter(rgb, one, 0.8 * one, one, none), luma.mean() + 0.8 * (rgb - luma.mean()), atol=1e-5)
    assert torch.allclose(jitter(rgb, one, one, 0 * one, none), luma[:, None].expand(-1, 3, -1, -1), atol=1e-3)
    turned = jitter(rgb, one, one, one, 0.1 * one)
    assert not torch.allclose(turned, rgb, atol=1e-2)
    again = 0.299 * turned[:, 0] + 0.587 * turned[:, 1] + 0.114 * turned[:, 2]
    assert torch.allclose(again, luma, atol=1e-3)  # a turn of the hue keeps the luma
    assert torch.allclose(jitter(turned, one, one, one, -0.1 * one), rgb, atol=1e-3)


def test_augmentation_moves_all_channels_together() -> None:
    images = torch.rand(6, 1, 32, 32).expand(-1, 7, -1, -1)
    found = augment(images, torch.Generator().manual_seed(3))
    assert torch.equal(found[:, 3], found[:, 6])
    assert not torch.equal(found[:, 3], images[:, 3])
    assert torch.equal(found, augment(images, torch.Generator().manual_seed(3)))


def test_the_autoencoder_layer_by_layer() -> None:
    torch.manual_seed(0)
    model = CandyAutoencoder(7, 32, 4, 10)

    def conv(a: int, b: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.GELU()]

    layers: list[nn.Module] = []
    for a, b in ((7, 4), (4, 8), (8, 16), (16, 32)):
        layers += [*conv(a, b), *conv(b, b, 2)]
    layers += [nn.Flatten(), nn.Linear(32 * 4, 10), nn.Linear(10, 32 * 4), nn.Unflatten(1, (32, 2, 2))]
    for a, b in ((32, 16), (16, 8), (8, 4), (4, 7)):
        layers += [nn.Upsample(scale_factor=2), *conv(a, a), *conv(a, b)]
    plain = nn.Sequential(*layers)
    plain.load_state_dict(dict(zip(plain.state_dict(), model.state_dict().values(), strict=True)))
    x = torch.rand(3, 7, 32, 32)
    assert torch.equal(model(x), plain(x))
    with pytest.raises(ConfigError, match="multiple of 16"):
        CandyAutoencoder(7, 40, 4, 10)


def test_published_size() -> None:
    """With the published sizes: 33.8 million weights in the bottleneck, most of the model."""
    with torch.device("meta"):
        model = CandyAutoencoder(4, 256, 32, 256)
    flat = 256 * 16 * 16
    assert sum(p.numel() for p in model.bottleneck.parameters()) == flat * 256 * 2 + flat + 256
    assert model(torch.empty(2, 4, 256, 256, device="meta")).shape == (2, 4, 256, 256)


def test_walking_through_samples() -> None:
    seen = Source(5, lambda chosen, _: torch.tensor(chosen)).batches(2, 7)
    first = torch.cat([next(seen) for _ in range(5)]).tolist()
    assert sorted(first[:5]) == sorted(first[5:]) == list(range(5))
    assert first[:5] != first[5:]
    few = Source(2, lambda chosen, _: torch.tensor(chosen)).batches(8, 7)
    assert sorted(next(few).tolist()) == [0, 1]
    assert steps_for(80, 8, 8, 0) == 80
    assert steps_for(81, 8, 8, 0) == 88
    assert steps_for(80, 8, 8, 200) == 200
    assert recorded([1.0] * 10 + [3.0] * 10)[0] == {"total": 1.0}
    with pytest.raises(MafrError, match="not finite"):
        recorded([1.0, float("nan")])


@pytest.mark.parametrize("kind", METHODS)
def test_the_heatmap_is_the_largest_residual(kind: type[CandyMethod]) -> None:
    settings = domes.config(min_steps=1, rgbd_epochs=1, blur="gaussian", sigma=0.2, **TINY)
    detector = kind(settings).fit(domes.domes(3), show=False)
    sample = domes.dome(9)
    found = detector.predict(sample)
    valid = sample.valid[0]
    depth = sample.xyz[2].astype(np.float64)
    if kind is RGBD:
        far = max(s.xyz[2].max() for s in domes.domes(3))
        channels = [*sample.rgb, depth / far]
    else:
        depths = np.concatenate([s.xyz[2][s.valid[0]] for s in domes.domes(3)])
        stretched = np.clip((depth - depths.min()) / np.ptp(depths), 0, 1) * valid
        channels = [*sample.rgb, stretched, *((normals(sample.xyz) + 1) / 2 * valid)]
    x = torch.tensor(np.array(channels), dtype=torch.float32)[None]
    with torch.inference_mode():
        residual = (x - detector.model(x)).abs()[0].numpy()
    # The camera's place is estimated, so that the depth itself is only known to some millimetres.
    assert np.allclose(found.psi_rgb, residual[:3].max(axis=0) * valid, atol=5e-3)
    assert np.allclose(found.psi_xyz, residual[3:].max(axis=0) * valid, atol=2e-2)
    assert np.allclose(found.psi, residual.max(axis=0) * valid, atol=2e-2)
    assert found.score == pytest.approx(found.psi.max())


@pytest.mark.parametrize(("kind", "defects"), [(RGBD, ["colour"]), (RGBcDn, ["colour", "dent"])])
def test_an_obvious_defect_is_found(kind: type[CandyMethod], defects: list[str]) -> None:
    settings = domes.config(min_steps=150, **TINY)
    domes.check_solves(kind(settings).fit(domes.domes(16), show=False), defects)


@pytest.mark.parametrize("kind", METHODS)
def test_repeats_and_loads(kind: type[CandyMethod], tmp_path) -> None:
    domes.check_repeats(kind, domes.config(min_steps=3, rgbd_epochs=1), tmp_path)


def test_names_and_a_single_sample() -> None:
    assert method_class("rgbd") is RGBD
    assert method_class("rgbcdn") is RGBcDn
    detector = RGBcDn(domes.config(min_steps=2, rgbd_epochs=1)).fit_split(split_of(domes.domes(3), None), [1])
    assert np.isfinite(detector.predict(domes.dome(4)).psi).all()
    assert detector.extractor is None
