"""The training step of a small head on a CPU: products by torch, what lies between them by `mafr.fast.loops`.

It equals `Restorer.step`, which serves every size and place, up to the rounding of float32
(tests/fast/test_small.py). There is no automatic gradient in it: each block of the head keeps what its backward pass
needs, and adds to the gradients of its weights in place.
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

_EPS = np.float32(NORM_EPS)


class SmallStep:
    """A head's training step on scenes of few pixels. Losses come back, gradients are added to the weights'."""

    def __init__(self, model: MAFR, config: Config) -> None:
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        self.config = config
        self.taken = [(p, p.data_ptr(), p.grad) for p in model.parameters()]
        self.encoder = _Encoder(model.encoder)
        decoders = (model.decoder_rgb, model.decoder_xyz)
        self.decoders = [_Decoder(decoder, number) for number, decoder in enumerate(decoders, start=1)]

    def fits(self) -> bool:
        """Whether the model's weights and gradients still lie where they were: a step reads and writes there."""
        return all(p.grad is gradient and p.data_ptr() == place for p, place, gradient in self.taken)

    @torch.no_grad()
    def __call__(self, scene, dropout: Dropout) -> dict[str, Tensor]:
        """As `Restorer.step`."""
        fused = self.encoder.forward(scene, dropout)
        d_fused, values = torch.zeros_like(fused), dict.fromkeys(self.config.loss_terms, 0.0)
        for block, original in zip(self.decoders, scene.originals, strict=True):
            restored = block.forward(fused, scene.canvas, dropout)
            gradient = torch.zeros_like(restored)
            for name, value in losses(self.config, original, restored.numpy(), gradient.numpy()):
                values[name] += value
            block.backward(gradient, d_fused)
        self.encoder.backward(d_fused)
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


def losses(
    config: Config, original: Original, restored: np.ndarray, gradient: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Eqs. 3-6 of one modality: (term, value) each; adds their weighted gradient to `gradient` (P, C), zeros before.

    restored: (P, C) float32.
    """
    canvas, channels, weights = original.canvas, restored.shape[1], config.loss_weights
    whole, terms = slice(0, channels), config.loss_terms
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
        delta = _difference(canvas, restored, e.numpy())
    if everywhere:
        yield "smooth", _smooth(config, canvas, delta, original.edges(whole, e, channels), gradient)
    if "census" in terms:
        side, rows = config.census_kernel, len(restored)
        counts = canvas.window_counts(side).numpy()[:, 0] if config.valid_only else np.full(rows, side**2, np.float32)
        yield "census", objective.census(delta, counts, side, *canvas.places, np.float32(weights["census"]), gradient)
    if "smooth" in terms and not everywhere:  # as released, see `mafr.fast.objective`
        two = np.zeros((len(restored), 2), dtype=np.float32)
        delta = _difference(canvas, *(np.ascontiguousarray(rows[:, :2]) for rows in (restored, e.numpy())))
        edges = [edge.expand(*edge.shape[:2], 2).contiguous() for edge in original.guide_edges()]
        yield "smooth", _smooth(config, canvas, delta, edges, two)
        gradient[:, :2] += two


def _difference(canvas: Canvas, restored: np.ndarray, e: np.ndarray) -> np.ndarray:
    delta = np.empty((canvas.height, canvas.width, e.shape[1]), dtype=np.float32)
    objective.spread_difference(restored, e, *canvas.places, delta)
    return delta


def _smooth(config: Config, canvas: Canvas, delta: np.ndarray, edges, gradient: np.ndarray) -> float:
    weight, corners = np.float32(config.loss_weights["smooth"]), canvas.corners.numpy()[:, :, 0]
    return objective.smooth(delta, *(edge.numpy() for edge in edges), corners, *canvas.places, weight, gradient)


class _Linear:
    """A linear layer's weight and bias, and their gradients."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.transposed, self.d_weight, self.d_bias = self.weight.T, layer.weight.grad, layer.bias.grad.numpy()

    def forward(self, x: Tensor) -> Tensor:
        """(P, K) -> (P, N)."""
        return torch.addmm(self.bias, x, self.transposed)

    def backward(self, x: Tensor, g: Tensor, add_to: Tensor | None = None) -> Tensor:
        """Take the gradient of the output (P, N); return that of the input x (P, K)."""
        self.learn(x, g)
        return torch.mm(g, self.weight) if add_to is None else add_to.addmm_(g, self.weight)

    def learn(self, x: Tensor, g: Tensor) -> None:
        """As `backward`, for an input that learns nothing."""
        self.d_weight.addmm_(g.T, x)
        sparse.add_columns(g.numpy(), self.d_bias)


class _Encoder:
    """Eq. 1, its first layer on the tokens."""

    def __init__(self, block: FusionEncoder) -> None:
        self.first = _Linear(block.input_fc)
        self.layers = [_Linear(layer) for layer in (*block.layers, block.output_fc)]
        norms = [norm_of(block.layer_norm, k) for k in range(len(self.layers))]
        self.activations = [_Activation(norm, False, (0, k)) for k, norm in enumerate(norms)]

    def forward(self, scene, dropout: Dropout) -> Tensor:
        """-> (P, F)."""
        self.scene, count, split = scene, len(scene.rgb), scene.rgb.shape[1]
        weight, rows = self.first.transposed, scene.both_rows
        tokens = torch.empty(count + len(scene.xyz), weight.shape[1])
        torch.mm(scene.rgb, weight[:split], out=tokens[:count])
        torch.mm(scene.xyz, weight[split:], out=tokens[count:])
        h = torch.empty(len(rows), weight.shape[1])
        sparse.apply(*_arrays(rows), tokens.numpy(), self.first.bias.numpy(), h.numpy())
        for layer, one in zip(self.layers, self.activations, strict=True):
            h = layer.forward(one.forward(h, dropout))
        return h

    def backward(self, g: Tensor) -> None:
        """g: the gradient of the output (P, F)."""
        for layer, one in zip(reversed(self.layers), reversed(self.activations), strict=True):
            g = one.backward(layer.backward(one.out, g))
        rows, count, split = self.scene.both_rows, len(self.scene.rgb), self.scene.rgb.shape[1]
        sparse.add_columns(g.numpy(), self.first.d_bias)
        d_tokens, nothing = torch.empty(rows.columns, g.shape[1]), np.zeros(g.shape[1], dtype=np.float32)
        sparse.apply(*_arrays(rows.transposed), g.numpy(), nothing, d_tokens.numpy())
        self.first.d_weight[:, :split].addmm_(d_tokens[:count].T, self.scene.rgb)
        self.first.d_weight[:, split:].addmm_(d_tokens[count:].T, self.scene.xyz)


class _Decoder:
    """Eq. 2."""

    def __init__(self, block: RestorationDecoder, number: int) -> None:
        self.layers = [_Linear(layer) for layer in (block.input_fc, *block.layers)]
        norms, norm_first = [norm_of(block.norm, k) for k in range(len(self.layers))], block.order == "norm-gelu"
        self.activations = [_Activation(norm, norm_first, (number, k)) for k, norm in enumerate(norms)]
        self.attention = (_PixelAttention if block.cbam.scope == "pixel" else _MapAttention)(block.cbam)
        self.output, self.skip = _Linear(block.output_fc), _Linear(block.skip)

    def forward(self, fused: Tensor, canvas: Canvas, dropout: Dropout) -> Tensor:
        """(P, F) -> (P, C)."""
        x = fused
        for layer, one in zip(self.layers, self.activations, strict=True):
            x = one.forward(layer.forward(x), dropout)
        self.fused, self.attended = fused, self.attention.forward(x, canvas)
        restored = torch.addmm(self.output.bias + self.skip.bias, self.attended, self.output.transposed)
        return restored.addmm_(fused, self.skip.transposed)

    def backward(self, g: Tensor, d_fused: Tensor) -> None:
        """g: the gradient of the output (P, C); that of the embedding is added to d_fused (P, F)."""
        self.skip.backward(self.fused, g, d_fused)
        g = self.attention.backward(self.output.backward(self.attended, g))
        inputs = [self.fused, *(one.out for one in self.activations)]
        for k in reversed(range(1, len(self.layers))):
            g = self.layers[k].backward(inputs[k], self.activations[k].backward(g))
        self.layers[0].backward(self.fused, self.activations[0].backward(g), d_fused)


class _Activation:
    """GELU, norm and dropout of one layer."""

    def __init__(self, norm: nn.LayerNorm, norm_first: bool, layer: Layer) -> None:
        self.norm_first, self.layer = norm_first, layer
        self.gamma, self.beta = _array(norm.weight), _array(norm.bias)
        self.d_gamma, self.d_beta = norm.weight.grad.numpy(), norm.bias.grad.numpy()

    def forward(self, h: Tensor, dropout: Dropout) -> Tensor:
        """(P, W) -> (P, W); overwrites h."""
        self.h, self.out, self.slope = h.numpy(), torch.empty_like(h), np.empty(h.shape, dtype=np.float32)
        self.inverse = np.empty(len(h), dtype=np.float32)
        draws = dropout.draws(self.layer, *h.shape) if dropout.dropped else np.empty(h.shape, dtype=np.uint16)
        self.dropped = draws, np.uint16(dropout.dropped), np.float32(dropout.scale), self.norm_first
        activation.activate(
            self.h, self.gamma, self.beta, *self.dropped, _EPS, self.out.numpy(), self.slope, self.inverse
        )
        return self.out

    def backward(self, g: Tensor) -> Tensor:
        """In place."""
        activation.activate_back(
            g.numpy(), self.h, self.gamma, *self.dropped, self.slope, self.inverse, self.d_gamma, self.d_beta
        )
        return g


class _MapAttention:
    def __init__(self, cbam: CBAM) -> None:
        narrow, _, wide = cbam.channel_attention.fc
        learnt = (narrow.weight, narrow.bias, wide.weight, wide.bias)
        self.weights, self.gradients = [_array(p) for p in learnt], [p.grad.numpy() for p in learnt]
        filters = cbam.spatial_attention.conv.weight
        self.filters, self.d_filters, self.hidden = _array(filters)[0], filters.grad.numpy()[0], narrow.out_features

    def forward(self, x: Tensor, canvas: Canvas) -> Tensor:
        """(P, C) -> (P, C)."""
        (rows, channels), height, width = x.shape, canvas.height, canvas.width
        beyond = self.filters.shape[-1] - 1
        shapes = (channels,), (2, channels), (2, self.hidden), (rows, 2), (2, height + beyond, width + beyond), (rows,)
        self.kept = [np.empty(shape, dtype=np.float32) for shape in shapes]
        self.x, self.places, out = x, canvas.places, torch.empty_like(x)
        attention.map_gates(
            x.numpy(), *self.weights, self.filters, *self.places, height, width, out.numpy(), *self.kept
        )
        return out

    def backward(self, g: Tensor) -> Tensor:
        """In place."""
        attention.map_gates_back(
            g.numpy(), self.x.numpy(), self.weights[0], self.weights[2], self.filters, *self.places, *self.kept,
            *self.gradients, self.d_filters,
        )  # fmt: skip
        return g


class _PixelAttention:
    def __init__(self, cbam: CBAM) -> None:
        narrow, _, wide = cbam.channel_attention.fc
        self.narrow, self.wide = _Linear(narrow), _Linear(wide)
        filters = cbam.spatial_attention.conv.weight
        middle = filters.shape[-1] // 2
        # A pixel is a map of its own: of the filters only the centre meets a value.
        self.taps, self.d_taps = _array(filters)[0, :, middle, middle], filters.grad.numpy()[0, :, middle, middle]

    def forward(self, x: Tensor, canvas: Canvas) -> Tensor:
        """(P, C) -> (P, C)."""
        self.x, out = x, torch.empty_like(x)
        self.inner = self.narrow.forward(x).relu_()
        logits = self.wide.forward(self.inner).mul_(2)  # both poolings agree
        self.kept = [np.empty(shape, dtype=np.float32) for shape in (x.shape, (len(x), 2), (len(x),))]
        attention.pixel_gates(x.numpy(), logits.numpy(), self.taps.copy(), out.numpy(), *self.kept)
        return out

    def backward(self, g: Tensor) -> Tensor:
        """In place."""
        d_logits, d_taps = torch.empty_like(g), np.zeros(2, dtype=np.float32)
        attention.pixel_gates_back(
            g.numpy(), self.x.numpy(), self.taps.copy(), *self.kept, d_logits.numpy(), d_taps
        )
        self.d_taps += d_taps
        d_inner = self.wide.backward(self.inner, d_logits.mul_(2)).masked_fill_(self.inner == 0, 0.0)
        return self.narrow.backward(self.x, d_inner, g)


def _array(parameter: Tensor) -> np.ndarray:
    return parameter.detach().numpy()


def _arrays(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows.index.numpy(), rows.weight.numpy(), rows.offsets.numpy()
