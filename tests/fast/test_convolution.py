"""Convolutions on rows of cells (`mafr.fast.convolution`) against `nn.Conv2d` and automatic gradients."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from mafr.errors import ConfigError
from mafr.fast.convolution import Buffer, Convolution, Scratch, arrange, neighbours, rows_of
from mafr.fast.loops import coupling
from mafr.fast.weights import FlatWeights

HEIGHT, WIDTH = 5, 4
SIZES = [(7, 3, 3), (3, 7, 3), (4, 4, 3), (5, 2, 5), (2, 5, 5), (3, 2, 1)]  # inputs, outputs, kernel


def layer_of(inputs: int, outputs: int, kernel: int, mode: str) -> nn.Conv2d:
    torch.manual_seed(inputs)
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode=mode)


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
@pytest.mark.parametrize(("inputs", "outputs", "kernel"), SIZES)
def test_it_equals_torchs_convolution_with_its_gradients(inputs, outputs, kernel, mode):
    plain, g = layer_of(inputs, outputs, kernel, mode), torch.Generator().manual_seed(1)
    layer = copy.deepcopy(plain)
    arrange(layer)
    assert torch.equal(layer.weight, plain.weight)
    weights = FlatWeights(layer)
    assert torch.equal(layer.weight, plain.weight)
    ours = Convolution(layer, HEIGHT, WIDTH, Scratch())
    for _ in range(2):  # a second step writes over the first one's gradients
        x = torch.randn(3, inputs, HEIGHT, WIDTH, generator=g, requires_grad=True)
        up = torch.randn(3, outputs, HEIGHT, WIDTH, generator=g)
        plain.zero_grad()
        expected = plain(x)
        expected.backward(up)
        with torch.no_grad():
            found = ours.forward(Buffer.of(rows_of(x.detach())))
            torch.testing.assert_close(found.tensor, rows_of(expected), rtol=1e-5, atol=1e-6)
            d_x = ours.backward(Buffer.of(rows_of(up)))
        torch.testing.assert_close(d_x.tensor, rows_of(x.grad), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights.vector.grad.abs().sum(), sum(p.grad.abs().sum() for p in plain.parameters()))
    weights.release()
    assert layer.weight.is_contiguous() and torch.equal(layer.weight, plain.weight) and layer.weight.grad is None


@pytest.mark.parametrize(("inputs", "outputs"), [(7, 3), (3, 7)])
def test_the_gradient_of_some_inputs_is_that_part_of_all(inputs, outputs):
    layer = layer_of(inputs, outputs, 3, "replicate")
    arrange(layer)
    FlatWeights(layer)
    ours, g = Convolution(layer, HEIGHT, WIDTH, Scratch()), torch.Generator().manual_seed(2)
    x, up = (Buffer.of(torch.randn(2 * HEIGHT * WIDTH, width, generator=g)) for width in (inputs, outputs))
    with torch.no_grad():
        ours.forward(x)
        whole = ours.backward(up).tensor.clone()
        torch.testing.assert_close(ours.backward(up, wanted=2).tensor, whole[:, :2], rtol=1e-5, atol=1e-6)
        assert ours.backward(up, wanted=0) is None


def test_neighbours_by_hand():
    inside, replicated = (neighbours(2, 3, 3, replicate) for replicate in (False, True))
    assert inside[0].tolist() == [-1, -1, -1, -1, 0, 1, -1, 3, 4]
    assert replicated[0].tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]
    assert inside[4].tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1]
    assert replicated.dtype == np.int32 and replicated[5].tolist() == [1, 2, 2, 4, 5, 5, 4, 5, 5]


def test_other_convolutions_are_refused():
    for layer in (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.Conv2d(4, 4, 3, padding=1, groups=2)):
        with pytest.raises(ConfigError, match="keeps the size"):
            Convolution(layer, HEIGHT, WIDTH, Scratch())
    with pytest.raises(ConfigError, match="circular"):
        Convolution(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), HEIGHT, WIDTH, Scratch())


def test_the_arctangent_is_as_exact_as_float32():
    for x in np.concatenate([np.linspace(-4, 4, 1601), [-1e6, -30, 30, 1e6]]).astype(np.float32):
        assert coupling.atan(x) == pytest.approx(math.atan(float(x)), rel=3e-7, abs=1e-12)
