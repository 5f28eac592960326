"""The loops of CFM's small step (`mafr.fast.crossmodal`) against torch; whole steps are tested in test_cfm.py."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from support.samples import CPU, config_of, tokens_of

from mafr.fast import crossmodal
from mafr.fast.loops import cosine
from mafr.fast.restorer import open_scene


def test_gelu_and_its_gradient():
    x = (3 * torch.randn(37, 43, generator=torch.Generator().manual_seed(1))).requires_grad_()
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    wanted = F.gelu(x)
    wanted.backward(upstream)
    found, slope, bias = x.detach().clone(), np.empty(x.shape, dtype=np.float32), np.ones(43, dtype=np.float32)
    cosine.gelu(found.numpy(), slope)
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-5, atol=1e-6)
    cosine.gelu_back(upstream.numpy(), slope, bias)
    torch.testing.assert_close(upstream, x.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(bias), 1 + x.grad.sum(dim=0), rtol=1e-5, atol=1e-5)


def test_the_cosine_and_its_gradient_also_of_short_rows():
    generator = torch.Generator().manual_seed(3)
    mapped, wanted = torch.randn(2, 19, 45, generator=generator)
    mapped[4], mapped[7], wanted[9] = 0, mapped[7] * 1e-9, 0
    leaf = mapped.clone().requires_grad_()
    lengths = leaf.norm(dim=1).clamp_min(1e-6) * wanted.norm(dim=1).clamp_min(1e-6)
    loss = (1 - (leaf * wanted).sum(dim=1) / lengths).sum()
    (0.25 * loss).backward()
    length, bias, least = np.empty(19, dtype=np.float32), np.zeros(45, dtype=np.float32), np.float32(1e-6)
    cosine.lengths(wanted.numpy(), least, length)
    np.testing.assert_allclose(length, wanted.norm(dim=1).clamp_min(1e-6), rtol=1e-6)
    value = cosine.cosine(mapped.numpy(), wanted.numpy(), length, least, np.float32(0.25), bias)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-6)
    for row, expected in zip(mapped, leaf.grad, strict=True):
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()) + 1e-9)
    torch.testing.assert_close(torch.from_numpy(bias), leaf.grad.sum(dim=0), rtol=1e-4, atol=0.1)


def test_features_are_those_of_the_pixels_and_are_remembered():
    config = config_of("paper", xyz_pool=3)
    scenes = [open_scene(tokens_of(config, seed), config, CPU, both=False) for seed in (0, 1)]
    for which, rows, tokens in ((0, "rgb_rows", "rgb"), (1, "xyz_rows", "xyz")):
        found, lengths = crossmodal.features(scenes, which, 1e-6)
        wanted = torch.cat([getattr(scene, rows).apply(getattr(scene, tokens)) for scene in scenes])
        torch.testing.assert_close(found, wanted)
        np.testing.assert_allclose(lengths, wanted.norm(dim=1), rtol=1e-6)
    kept = [replace(scenes[0], remember=True)]
    first, second = (crossmodal.features(kept, 1, 1e-6) for _ in range(2))
    assert all(a is b for a, b in zip(first, second, strict=True))
