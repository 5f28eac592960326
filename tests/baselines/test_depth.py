"""DepthGAN, DepthAE, DepthVM and the three models behind them: formulas written out plainly; a case to solve."""

import copy
import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import domes
from torch import nn

from mafr.baselines.mvtec_benchmark import DepthAE, DepthGAN, DepthMethod, DepthVM, random_angles, turned_images
from mafr.baselines.parts.benchmark_models import ConvAutoencoder, Sizes, VariationModel
from mafr.baselines.parts.gan import (
    Contractor,
    Generator,
    ResidualBlock,
    critic_loss,
    encoder_loss,
    train_encoder,
    train_gan,
)
from mafr.baselines.parts.inputs import distance, turn_images
from mafr.baselines.parts.raw import Source, descend, laid_out
from mafr.baselines.registry import method_class
from mafr.config import Config
from mafr.errors import ConfigError, WeightsError
from mafr.features.sources.splits import split_of
from mafr.scoring import smooth

METHODS = (DepthGAN, DepthAE, DepthVM)
TINY = {"depth_side": 16, "depth_width": 4, "depth_latent": 8, "depth_gan_side": 16, "depth_gan_width": 4,
        "depth_gan_latent": 8}  # fmt: skip


def still(images: torch.Tensor) -> Source:
    """Training images that are not turned."""
    return Source(len(images), lambda chosen, _: images[chosen])


def test_variation_model_against_numpy() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(0.2, 0.3, (7, 4, 6, 6)).astype(np.float32)
    images[:, 0, 2, 2] = 0.5  # a pixel that never changes
    sizes = Sizes.of(domes.config(depth_copies=3, depth_floor=0.1), "depth", 2, 4, side=6)
    model = VariationModel(sizes)
    assert model.learn(still(torch.from_numpy(images))) == []
    mean, std = images.astype(np.float64).mean(axis=0), images.astype(np.float64).std(axis=0)
    assert np.allclose(model.mean, mean, atol=1e-6)
    assert np.allclose(model.std, std, atol=1e-4)
    x = rng.normal(0, 1, (2, 4, 6, 6)).astype(np.float32)
    squares = model.residuals(torch.from_numpy(x))
    expected = np.sqrt((((x - mean) / np.maximum(std, 0.1)) ** 2).sum(axis=1, keepdims=True))
    assert np.allclose(model.total(squares), expected, rtol=1e-3)
    assert np.isclose(squares[0, 0, 2, 2], ((x[0, 0, 2, 2] - 0.5) / 0.1) ** 2, rtol=1e-3)


def test_depth_vm_map_against_numpy() -> None:
    """The whole method on turned copies: the same draws, stacked and averaged by numpy."""
    settings = domes.config(depth_copies=1, depth_batch=3, sigma=0.2)
    samples, probe = domes.domes(3), domes.dome(50, "dent")
    detector = DepthVM(settings).fit(samples, show=False)
    depths = np.stack([distance(s.xyz) for s in samples])
    near, far = depths[depths > 0].min(), depths.max()

    def image(sample) -> np.ndarray:
        raw = np.sqrt((sample.xyz.astype(np.float64) ** 2).sum(axis=0))
        return np.concatenate([np.where(raw > 0, (raw - near) / (far - near), 0)[None], sample.rgb]) * 2 - 1

    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(3, generator=generator)
    stack = torch.from_numpy(np.stack([image(s) for s in samples])).float()[order]
    turned = turn_images(stack, random_angles(3, generator)).double().numpy()
    z = (image(probe) - turned.mean(axis=0)) / np.maximum(turned.std(axis=0), settings.depth_floor)
    expected = np.sqrt((z**2).sum(axis=0)) * probe.valid[0]
    blurred = smooth(torch.from_numpy(expected)[None, None], settings.blur, settings.sigma)[0, 0].numpy()
    found = detector.predict(probe)
    assert np.allclose(found.psi, blurred, rtol=1e-2, atol=1e-2)
    assert np.allclose(found.psi_xyz, np.abs(z[0]) * probe.valid[0], rtol=1e-2, atol=1e-2)
    assert found.score == pytest.approx(found.psi.max())


def test_critic_loss_of_a_linear_critic() -> None:
    """D(x) = w·x: the gradient is w everywhere, so the penalty is 10·(|w| - 1)²."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 1, bias=False))
    real, fake = torch.rand(5, 3, 2, 2), torch.rand(5, 3, 2, 2)
    w = critic[1].weight.detach()[0]
    expected = (fake.flatten(1) @ w).mean() - (real.flatten(1) @ w).mean() + 10 * (w.norm() - 1) ** 2
    assert critic_loss(critic, real, fake, torch.rand(5)).item() == pytest.approx(expected.item(), abs=1e-5)


def test_critic_loss_sample_by_sample() -> None:
    torch.manual_seed(1)
    critic = Contractor(2, 2, 8, 4, 1, by_batch=False).double()
    real, fake, mix = torch.rand(3, 2, 8, 8).double(), torch.rand(3, 2, 8, 8).double(), torch.rand(3).double()
    penalty, gap = 0.0, 0.0
    for a, b, t in zip(real, fake, mix, strict=True):
        between = ((1 - t) * a + t * b)[None]
        gradient = torch.zeros_like(between)
        step = 1e-5
        for k in range(between.numel()):  # by finite differences
            for sign in (1, -1):
                moved = between.clone().flatten()
                moved[k] += sign * step
                gradient.view(-1)[k] += sign * critic(moved.view_as(between)).item() / (2 * step)
        penalty += (gradient.norm().item() - 1) ** 2 / 3
        gap += (critic(b[None]) - critic(a[None])).item() / 3
    assert critic_loss(critic, real, fake, mix).item() == pytest.approx(gap + 10 * penalty, rel=1e-4)


def test_encoder_loss() -> None:
    critic = Contractor(2, 2, 8, 4, 1, by_batch=False)
    x, y = torch.rand(3, 2, 8, 8), torch.rand(3, 2, 8, 8)
    f, g = (critic.blocks(critic.input(z)).flatten(1).detach().numpy() for z in (x, y))
    expected = np.mean((x - y).numpy() ** 2) + 1.0 * np.mean((f - g) ** 2)
    assert encoder_loss(critic, x, y).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_residual_blocks_as_published(dims: int) -> None:
    """In the order of f-AnoGAN's code: its shortcut pools first and doubles first."""
    torch.manual_seed(0)
    conv, pool = (F.conv2d, F.avg_pool2d) if dims == 2 else (F.conv3d, F.avg_pool3d)
    x = torch.randn(2, 3, *(8,) * dims)
    down = ResidualBlock(dims, 3, 5, "down", by_batch=False)
    nn.init.normal_(down.norm1.weight)

    def layer_norm(z: torch.Tensor, norm: nn.GroupNorm) -> torch.Tensor:
        axes = tuple(range(1, z.dim()))
        shape = (1, -1, *(1,) * dims)
        centred = z - z.mean(axes, keepdim=True)
        scaled = centred / (centred.square().mean(axes, keepdim=True) + norm.eps).sqrt()
        return scaled * norm.weight.view(shape) + norm.bias.view(shape)

    h = conv(F.relu(layer_norm(x, down.norm1)), down.conv1.weight, padding=1)
    h = conv(F.relu(layer_norm(h, down.norm2)), down.conv2.weight, down.conv2.bias, padding=1)
    expected = conv(pool(x, 2), down.shortcut.weight, down.shortcut.bias) + pool(h, 2)
    assert torch.allclose(down(x), expected, atol=1e-5)
    up = ResidualBlock(dims, 3, 5, "up", by_batch=True).eval()

    def double(z: torch.Tensor) -> torch.Tensor:
        for axis in range(2, z.dim()):
            z = z.repeat_interleave(2, axis)
        return z

    h = conv(double(F.relu(up.norm1(x))), up.conv1.weight, padding=1)
    h = conv(F.relu(up.norm2(h)), up.conv2.weight, up.conv2.bias, padding=1)
    expected = conv(double(x), up.shortcut.weight, up.shortcut.bias) + h
    assert torch.allclose(up(x), expected, atol=1e-5)


def test_full_size_layers() -> None:
    """f-AnoGAN's widths at its 64 pixels; the full profile's 256 pixels."""
    with torch.device("meta"):
        generator, critic = Generator(2, 1, 64, 64, 128), Contractor(2, 1, 64, 64, 1, by_batch=False)
        assert [block.conv2.out_channels for block in generator.blocks] == [512, 256, 128, 64]
        assert generator.input.out_features == 4 * 4 * 8 * 64
        assert [block.conv2.out_channels for block in critic.blocks] == [128, 256, 512, 512]
        assert critic.output.in_features == 4 * 4 * 8 * 64
        sizes = Sizes.of(Config.preset("full"), "depth", 2, 4, gan=True)
        assert (sizes.side, sizes.latent, sizes.copies) == (256, 512, 20)
        generator = Generator(2, 4, sizes.side, sizes.width, sizes.latent)
        assert generator(torch.empty(2, 512, device="meta")).shape == (2, 4, 256, 256)
        autoencoder = ConvAutoencoder(2, 4, 256, 64, 512)
        assert autoencoder.encoder(torch.empty(2, 4, 256, 256, device="meta")).shape == (2, 512, 1, 1)
        assert autoencoder(torch.empty(2, 4, 256, 256, device="meta")).shape == (2, 4, 256, 256)
    for side in (4, 24):
        with pytest.raises(ConfigError, match="power of two"):
            Generator(2, 1, side, 4, 8)


def test_gan_training_moves_what_it_should() -> None:
    torch.manual_seed(0)
    generator, critic = Generator(2, 2, 8, 4, 6), Contractor(2, 2, 8, 4, 1, by_batch=False)
    encoder = Contractor(2, 2, 8, 4, 6, by_batch=True)

    def copies(module: nn.Module) -> list[torch.Tensor]:
        return [p.detach().clone() for p in module.parameters()]

    images = torch.rand(4, 2, 8, 8)
    before = copies(generator), copies(critic)
    assert len(train_gan(generator, critic, iter([images] * 4), 4, 6, 1e-3)) == 4
    assert all(map(torch.equal, before[0], copies(generator)))  # one generator step every five critic steps
    assert not all(map(torch.equal, before[1], copies(critic)))
    train_gan(generator, critic, iter([images] * 5), 5, 6, 1e-3)
    after = copies(generator), copies(critic), copies(encoder)
    assert not all(map(torch.equal, before[0], after[0]))
    losses = train_encoder(encoder, generator, critic, iter([images] * 60), 60, 1e-2)
    assert all(map(torch.equal, after[0], copies(generator)))
    assert all(map(torch.equal, after[1], copies(critic)))
    assert not all(map(torch.equal, after[2], copies(encoder)))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", [DepthAE, DepthGAN])
def test_the_map_of_a_restoration_against_numpy(kind: type[DepthMethod]) -> None:
    """Squared residual, mean over the channels, at every pixel: what the network restores is taken as it is."""
    whole = {"depth_side": 32, "depth_gan_side": 32, "depth_width": 4, "depth_gan_width": 4}
    settings = domes.config(min_steps=6, depth_epochs=1, sigma=0.2, image_size=32, grid=4, **whole)
    samples, probe = ([shrunk(sample) for sample in few] for few in (domes.domes(3), [domes.dome(50, "dent")]))
    detector, probe = kind(settings).fit(samples, show=False), probe[0]
    depths = np.stack([distance(s.xyz) for s in samples])
    near, far = depths[depths > 0].min(), depths.max()
    raw = distance(probe.xyz)
    x = np.concatenate([np.where(raw > 0, (raw - near) / (far - near), 0)[None], probe.rgb]) * 2 - 1
    with torch.inference_mode():
        restored = detector.model.restored(torch.from_numpy(x[None]).float())[0].numpy()
    squares = (x - restored) ** 2
    blurred = smooth(torch.from_numpy(squares.mean(axis=0) * probe.valid)[None], settings.blur, settings.sigma)[0, 0]
    found = detector.predict(probe)
    assert np.allclose(found.psi, blurred, rtol=1e-3, atol=1e-4)
    assert np.allclose(found.psi_xyz, squares[0] * probe.valid[0], rtol=1e-3, atol=1e-4)
    assert np.allclose(found.psi_rgb, squares[1:].mean(axis=0) * probe.valid[0], rtol=1e-3, atol=1e-4)
    assert found.score == pytest.approx(found.psi.max())


def shrunk(sample):
    """Every n-th pixel, 32 x 32 of them."""
    step = sample.rgb.shape[-1] // 32
    parts = {name: getattr(sample, name)[:, ::step, ::step][:, :32, :32] for name in ("rgb", "xyz", "gt")}
    return dataclasses.replace(sample, **parts)


def test_training_images_are_turned_by_five_degrees_at_most() -> None:
    generator = torch.Generator().manual_seed(0)
    angles = torch.rad2deg(random_angles(500, generator))
    assert angles.abs().max() <= 5
    assert angles.min() < -4
    assert angles.max() > 4
    images = torch.rand(3, 4, 16, 16)
    drawn = turned_images(images, [0, 2], torch.Generator().manual_seed(1))
    expected = turn_images(images[[0, 2]], random_angles(2, torch.Generator().manual_seed(1)))
    assert torch.equal(drawn, expected)


@pytest.mark.parametrize("kind", METHODS)
def test_an_obvious_defect_is_found(kind: type[DepthMethod]) -> None:
    settings = domes.config(min_steps=200, depth_side=32, depth_width=8, depth_gan_side=16, depth_gan_latent=16)
    detector = kind(settings).fit(domes.domes(16), show=False)
    # A GAN of a few steps restores a part roughly: its defects must be larger.
    domes.check_solves(detector, ["colour", "lump"] if kind is DepthGAN else ["colour", "dent"])


@pytest.mark.parametrize("kind", METHODS)
def test_repeats_and_loads(kind: type[DepthMethod], tmp_path) -> None:
    domes.check_repeats(kind, domes.config(min_steps=6, depth_epochs=1, **TINY), tmp_path)


def test_names_and_wrong_files(tmp_path) -> None:
    assert [method_class(name) for name in ("depthgan", "depthae", "depthvm")] == list(METHODS)
    detector = DepthVM(domes.config()).fit_split(split_of(domes.domes(3), None), [2])  # a single sample
    assert np.isfinite(detector.predict(domes.dome(7)).psi).all()
    detector.save(tmp_path)
    with pytest.raises(WeightsError, match="depthvm detector"):
        DepthAE.load(tmp_path)


def test_channels_last_leave_the_critic_its_gradients() -> None:
    generator = torch.Generator().manual_seed(3)
    real, fake = 2 * torch.rand(2, 3, 4, 16, 16, generator=generator) - 1
    mix, found = torch.rand(3, generator=generator), []
    torch.manual_seed(4)
    plain = Contractor(2, 4, 16, 4, 1, by_batch=False)
    for change in (lambda x: x, laid_out):
        critic = change(copy.deepcopy(plain))
        loss = critic_loss(critic, change(real), change(fake), mix)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in critic.parameters())])
    assert laid_out(real).is_contiguous(memory_format=torch.channels_last) and not laid_out(real).is_contiguous()
    for ours, wanted in zip(*found[::-1], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-6)


def test_descent_by_one_vector_of_weights_is_that_by_single_weights() -> None:
    torch.manual_seed(5)
    model = laid_out(nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 3)))
    batches = laid_out(torch.rand(6, 3, 2, 9, 9, generator=torch.Generator().manual_seed(6)).flatten(0, 1)).split(3)
    for make in (
        partial(torch.optim.Adam, lr=1e-2, weight_decay=1e-2, fused=True),
        partial(torch.optim.RMSprop, lr=1e-2, foreach=True),
    ):
        found, plain, losses = copy.deepcopy(model), copy.deepcopy(model).train(), []
        optimiser = make(plain.parameters())
        for x in batches:
            optimiser.zero_grad()
            loss = plain(x).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert descend(found, lambda x, m=found: m(x).square().mean(), iter(batches), 6, make) == pytest.approx(losses)
        assert losses[-1] < losses[0]
        for (name, a), b in zip(plain.state_dict().items(), found.state_dict().values(), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6, msg=name)
            assert a.stride() == b.stride(), name
