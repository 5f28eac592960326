"""The training step of a small head on a CPU: products by torch, what lies between them by `mafr.fast.loops`.

It equals `Restorer.step`, which serves every size and place, up to the rounding of float32
(tests/fast/test_small.py). There is no automatic gradient in it: each block of the head keeps what its backward pass
needs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mafr.config import Config
from mafr.fast.layers import NORM_EPS, Dropout, Layer
from mafr.fast.loops import activation, attention, objective, sparse
from mafr.fast.objective import Original
from mafr.fast.pixels import Canvas
from mafr.model import CBAM, MAFR, FusionEncoder, RestorationDecoder, norm_of

SMALL = 2**20  # values of the widest block of rows: 4 MB
_EPS = np.float32(NORM_EPS)


class SmallStep:
    """A head's training step on scenes of few pixels. Losses come back, gradients are added to the weights'."""

    def __init__(self, model: MAFR, config: Config) -> None:
        self.model, self.config = model, config

    @torch.no_grad()
    def __call__(self, scene, dropout: Dropout) -> dict[str, Tensor]:
        """As `Restorer.step`."""
        encoder = _Encoder(self.model.encoder, scene)
        fused = encoder.forward(dropout)
        d_fused, values = torch.zeros_like(fused), dict.fromkeys(self.config.loss_terms, 0.0)
        decoders = (self.model.decoder_rgb, self.model.decoder_xyz)
        for number, (decoder, original) in enumerate(zip(decoders, scene.originals, strict=True), start=1):
            block = _Decoder(decoder, scene.canvas, number)
            restored = block.forward(fused, dropout)
            gradient = torch.zeros_like(restored)
            for name, value in losses(self.config, original, restored.numpy(), gradient.numpy()):
                values[name] += value
            block.backward(gradient, d_fused)
        encoder.backward(d_fused)
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


def losses(
    config: Config, original: Original, restored: np.ndarray, gradient: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Eqs. 3-6 of one modality: (term, value) each; adds their weighted gradient to `gradient` (P, C), zeros before.

    restored: (P, C) float32.
    """
    canvas, channels, weights = original.canvas, restored.shape[1], config.loss_weights
    whole, terms = slice(0, channels), config.loss_terms
    y, column = canvas.places
    e = original.channels(whole)
    if "sim" in terms:
        weight = np.float32(weights["sim"])
        if config.znssd_over == "pixels":
            yield "sim", objective.sim_pixels(restored, original.minus_standardised(whole, e).numpy(), weight, gradient)
        else:
            z = original.normed(slice(0, len(restored))).numpy()
            yield "sim", objective.sim_channels(restored, z, weight, gradient)
    everywhere = "smooth" in terms and config.smooth_channels == "all"
    if everywhere or "census" in terms:
        delta = np.empty((canvas.height, canvas.width, channels), dtype=np.float32)
        objective.spread_difference(restored, e.numpy(), y, column, delta)
    if everywhere:
        edges = (edge.numpy() for edge in original.edges(whole, e, channels))
        weight, corners = np.float32(weights["smooth"]), canvas.corners.numpy()[:, :, 0]
        yield "smooth", objective.smooth(delta, *edges, corners, y, column, weight, gradient)
    if "census" in terms:
        side, rows = config.census_kernel, len(restored)
        counts = canvas.window_counts(side).numpy()[:, 0] if config.valid_only else np.full(rows, side**2, np.float32)
        weight = np.float32(weights["census"])
        yield "census", objective.census(delta, counts, side, y, column, weight, gradient)
    if "smooth" in terms and not everywhere:
        yield "smooth", _smooth_first_two(config, original, e, restored, gradient)


def _smooth_first_two(
    config: Config, original: Original, e: Tensor, restored: np.ndarray, gradient: np.ndarray
) -> float:
    """Eq. 4 as released, see `mafr.fast.objective`."""
    canvas, two = original.canvas, np.zeros((len(restored), 2), dtype=np.float32)
    delta = np.empty((canvas.height, canvas.width, 2), dtype=np.float32)
    first, known = (np.ascontiguousarray(rows[:, :2]) for rows in (restored, e.numpy()))
    objective.spread_difference(first, known, *canvas.places, delta)
    edges = (edge.numpy() for edge in original.guide_edges())
    weight, corners = np.float32(config.loss_weights["smooth"]), canvas.corners.numpy()[:, :, 0]
    value = objective.smooth(delta, *edges, corners, *canvas.places, weight, two)
    gradient[:, :2] += two
    return value


class _Encoder:
    """Eq. 1, its first layer on the tokens."""

    def __init__(self, block: FusionEncoder, scene) -> None:
        self.block, self.scene = block, scene
        self.split, self.count = scene.rgb.shape[1], len(scene.rgb)

    def forward(self, dropout: Dropout) -> Tensor:
        """-> (P, F)."""
        block, scene, rows = self.block, self.scene, self.scene.both_rows
        weight = block.input_fc.weight
        tokens = torch.empty(self.count + len(scene.xyz), len(weight))
        torch.mm(scene.rgb, weight[:, : self.split].T, out=tokens[: self.count])
        torch.mm(scene.xyz, weight[:, self.split :].T, out=tokens[self.count :])
        h = torch.empty(len(rows), len(weight))
        sparse.apply(*_arrays(rows), tokens.numpy(), _array(block.input_fc.bias), h.numpy())
        self.layers = [*block.layers, block.output_fc]
        self.activations = []
        for k, layer in enumerate(self.layers):
            self.activations.append(_Activation(norm_of(block.layer_norm, k), False, dropout, (0, k)))
            h = torch.addmm(layer.bias, self.activations[-1].forward(h), layer.weight.T)
        return h

    def backward(self, g: Tensor) -> None:
        """g: the gradient of the output (P, F)."""
        for layer, one in zip(reversed(self.layers), reversed(self.activations), strict=True):
            g = one.backward(_linear_back(layer, one.out, g))
        scene, weight = self.scene, self.block.input_fc.weight
        _add(self.block.input_fc.bias, _sums(g))
        d_tokens, nothing = torch.empty(scene.both_rows.columns, g.shape[1]), np.zeros(g.shape[1], dtype=np.float32)
        sparse.apply(*_arrays(scene.both_rows.transposed), g.numpy(), nothing, d_tokens.numpy())
        d_weight = torch.empty_like(weight)
        torch.mm(d_tokens[: self.count].T, scene.rgb, out=d_weight[:, : self.split])
        torch.mm(d_tokens[self.count :].T, scene.xyz, out=d_weight[:, self.split :])
        _add(weight, d_weight)


class _Decoder:
    """Eq. 2."""

    def __init__(self, block: RestorationDecoder, canvas: Canvas, number: int) -> None:
        self.block, self.number = block, number
        self.attention = (_PixelAttention if block.cbam.scope == "pixel" else _MapAttention)(block.cbam, canvas)

    def forward(self, fused: Tensor, dropout: Dropout) -> Tensor:
        """(P, F) -> (P, C)."""
        block, x, self.inputs, self.activations = self.block, fused, [], []
        self.layers = [block.input_fc, *block.layers]
        for k, layer in enumerate(self.layers):
            one = _Activation(norm_of(block.norm, k), block.order == "norm-gelu", dropout, (self.number, k))
            self.inputs.append(x)
            self.activations.append(one)
            x = one.forward(torch.addmm(layer.bias, x, layer.weight.T))
        self.fused, self.attended = fused, self.attention.forward(x)
        restored = torch.addmm(block.output_fc.bias + block.skip.bias, self.attended, block.output_fc.weight.T)
        return restored.addmm_(fused, block.skip.weight.T)

    def backward(self, g: Tensor, d_fused: Tensor) -> None:
        """g: the gradient of the output (P, C); that of the embedding is added to d_fused (P, F)."""
        _linear_back(self.block.skip, self.fused, g, d_fused)
        g = self.attention.backward(_linear_back(self.block.output_fc, self.attended, g))
        for k in reversed(range(len(self.layers))):
            g = self.activations[k].backward(g)
            back = _linear_back(self.layers[k], self.inputs[k], g, None if k else d_fused)
            g = back if k else g


class _Activation:
    """GELU, norm and dropout of one layer."""

    def __init__(self, norm: nn.LayerNorm, norm_first: bool, dropout: Dropout, layer: Layer) -> None:
        self.norm, self.norm_first, self.dropout, self.layer = norm, norm_first, dropout, layer

    def forward(self, h: Tensor) -> Tensor:
        """(P, W) -> (P, W)."""
        self.h, self.kept = h, _kept(self.dropout, self.layer, h)
        self.out, self.inverse = torch.empty_like(h), np.empty(len(h), dtype=np.float32)
        activation.activate(
            h.numpy(), *self._learnt(), self.kept, self._scale(), self.norm_first, _EPS, self.out.numpy(), self.inverse
        )
        return self.out

    def backward(self, g: Tensor) -> Tensor:
        """In place."""
        d_gamma, d_beta = (torch.zeros_like(self.norm.weight) for _ in range(2))
        activation.activate_back(
            g.numpy(), self.h.numpy(), *self._learnt(), self.kept, self._scale(), self.norm_first, self.inverse,
            d_gamma.numpy(), d_beta.numpy(),
        )  # fmt: skip
        _add(self.norm.weight, d_gamma)
        _add(self.norm.bias, d_beta)
        return g

    def _learnt(self) -> tuple[np.ndarray, np.ndarray]:
        return _array(self.norm.weight), _array(self.norm.bias)

    def _scale(self) -> np.float32:
        return np.float32(self.dropout.scale)


class _MapAttention:
    def __init__(self, cbam: CBAM, canvas: Canvas) -> None:
        self.cbam, self.canvas = cbam, canvas
        self.narrow, _, self.wide = cbam.channel_attention.fc

    def forward(self, x: Tensor) -> Tensor:
        (rows, channels), canvas = x.shape, self.canvas
        filters = _array(self.cbam.spatial_attention.conv.weight)[0]
        beyond = filters.shape[-1] - 1
        shapes = (
            (channels,), (2, channels), (2, self.narrow.out_features), (rows, 2),
            (2, canvas.height + beyond, canvas.width + beyond), (rows,),
        )  # fmt: skip
        self.kept = [np.empty(shape, dtype=np.float32) for shape in shapes]
        self.x, out = x, torch.empty_like(x)
        weights = (_array(p) for layer in (self.narrow, self.wide) for p in (layer.weight, layer.bias))
        attention.map_gates(
            x.numpy(), *weights, filters, *canvas.places, canvas.height, canvas.width, out.numpy(), *self.kept
        )
        return out

    def backward(self, g: Tensor) -> Tensor:
        conv = self.cbam.spatial_attention.conv.weight
        learnt = (self.narrow.weight, self.narrow.bias, self.wide.weight, self.wide.bias, conv)
        grads = [torch.zeros_like(p) for p in learnt]
        arrays = [grad.numpy() for grad in grads]
        attention.map_gates_back(
            g.numpy(), self.x.numpy(), _array(self.narrow.weight), _array(self.wide.weight), _array(conv)[0],
            *self.canvas.places, *self.kept, *arrays[:-1], arrays[-1][0],
        )  # fmt: skip
        for p, grad in zip(learnt, grads, strict=True):
            _add(p, grad)
        return g


class _PixelAttention:
    def __init__(self, cbam: CBAM, canvas: Canvas) -> None:
        self.cbam = cbam
        self.narrow, _, self.wide = cbam.channel_attention.fc

    def forward(self, x: Tensor) -> Tensor:
        self.x, out = x, torch.empty_like(x)
        self.inner = torch.addmm(self.narrow.bias, x, self.narrow.weight.T).relu_()
        logits = torch.addmm(self.wide.bias, self.inner, self.wide.weight.T).mul_(2)  # both poolings agree
        rows = len(x)
        self.kept = [np.empty(shape, dtype=np.float32) for shape in (x.shape, (rows, 2), (rows,))]
        attention.pixel_gates(x.numpy(), logits.numpy(), self._taps(), out.numpy(), *self.kept)
        return out

    def backward(self, g: Tensor) -> Tensor:
        d_logits, d_taps = torch.empty_like(g), np.zeros(2, dtype=np.float32)
        attention.pixel_gates_back(g.numpy(), self.x.numpy(), self._taps(), *self.kept, d_logits.numpy(), d_taps)
        d_inner = _linear_back(self.wide, self.inner, d_logits.mul_(2)).masked_fill_(self.inner == 0, 0.0)
        _linear_back(self.narrow, self.x, d_inner, g)
        kernel = self.cbam.spatial_attention.conv.weight
        d_kernel, middle = torch.zeros_like(kernel), kernel.shape[-1] // 2
        d_kernel[0, :, middle, middle] = torch.from_numpy(d_taps)
        _add(kernel, d_kernel)
        return g

    def _taps(self) -> np.ndarray:
        kernel = _array(self.cbam.spatial_attention.conv.weight)
        middle = kernel.shape[-1] // 2
        return np.ascontiguousarray(kernel[0, :, middle, middle])


def _linear_back(layer: nn.Linear, x: Tensor, g: Tensor, add_to: Tensor | None = None) -> Tensor:
    """Gradients of a linear layer from that of its output, g (P, N); returns that of its input x (P, K)."""
    _add(layer.weight, g.T @ x)
    _add(layer.bias, _sums(g))
    return g @ layer.weight if add_to is None else add_to.addmm_(g, layer.weight)


def _add(parameter: nn.Parameter, gradient: Tensor) -> None:
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _sums(rows: Tensor) -> Tensor:
    """(P, C) -> (C,)."""
    out = torch.empty(rows.shape[1])
    sparse.column_sums(rows.numpy(), out.numpy())
    return out


def _kept(dropout: Dropout, layer: Layer, h: Tensor) -> np.ndarray:
    """Which of the rows (P, C) dropout keeps, bool."""
    if not dropout.dropped:
        return np.ones(h.shape, dtype=bool)
    return ~dropout.mask(layer, 0, *h.shape, h.device).numpy()


def _array(parameter: Tensor) -> np.ndarray:
    return parameter.detach().numpy()


def _arrays(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows.index.numpy(), rows.weight.numpy(), rows.offsets.numpy()
