"""The head's training step and residuals."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mafr.config import Config
from mafr.fast.cpu.attention import ATTENTION
from mafr.fast.cpu.layers import Activation, Linear, add_columns, spread
from mafr.fast.cpu.objective import applied, losses, matrix_of
from mafr.fast.cpu.threads import each, row_parts
from mafr.fast.layers import OUTPUT_ROWS, Dropout
from mafr.fast.loops import objective
from mafr.fast.pixels import Canvas
from mafr.model import MAFR, FusionEncoder, RestorationDecoder, norm_of


class Step:
    """A head's training step, and its residuals, on scenes of any size."""

    def __init__(self, model: MAFR, config: Config, learns: bool = True) -> None:
        """learns: whether it will train, for which the weights need gradients."""
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if learns and p.grad is None else p.grad
        self.config, self.learns = config, learns
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
        # One after the other, so that only one decoder's activations exist at a time; the widest first, as its freed
        # memory fits the other's smaller blocks, not the other way round.
        pairs = sorted(zip(self.decoders, scene.originals, strict=True), key=lambda pair: -pair[1].tokens.shape[1])
        for block, original in pairs:
            restored = block.output(*block.attend(fused, scene.canvas, dropout))
            found, gradient = losses(self.config, original, restored.numpy())
            del restored
            for name, value in found.items():
                values[name] += value
            block.backward(torch.from_numpy(gradient), d_fused)
        self.encoder.backward(d_fused)
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}

    @torch.no_grad()
    def residuals(self, scene) -> list[Tensor]:
        """Eq. 7 at the canvas's pixels: two (P,) float32."""
        fused, found = self.encoder.forward(scene, None), []
        self.encoder.forget()
        for block, original in zip(self.decoders, scene.originals, strict=True):
            attended, _ = block.attend(fused, scene.canvas, None)
            block.forget()
            found.append(psi := torch.empty(len(fused)))
            for first in range(0, len(fused), OUTPUT_ROWS):
                rows = slice(first, first + OUTPUT_ROWS)
                _distances(original, first, block.output(attended[rows], fused[rows]).numpy(), psi.numpy()[rows])
        return found


def _distances(original, first: int, restored: np.ndarray, out: np.ndarray) -> None:
    """Of some restored pixels (p, C), from `first` on, to the original ones: out (p,)."""
    matrix, tokens = matrix_of(original.rows), original.tokens.numpy()

    def one(part: slice) -> None:
        e = applied(matrix, tokens, slice(first + part.start, first + part.stop))
        objective.distances(restored[part], e, out[part])

    each(one, row_parts(*restored.shape))


class _Encoder:
    """Eq. 1, its first layer on the tokens."""

    def __init__(self, block: FusionEncoder) -> None:
        self.first = Linear(block.input_fc)
        self.layers = [Linear(layer) for layer in (*block.layers, block.output_fc)]
        norms = [norm_of(block.layer_norm, k) for k in range(len(self.layers))]
        self.activations = [Activation(norm, False, (0, k)) for k, norm in enumerate(norms)]

    def forward(self, scene, dropout: Dropout | None) -> Tensor:
        """-> (P, F)."""
        self.scene, count, split = scene, len(scene.rgb), scene.rgb.shape[1]
        weight = self.first.transposed
        tokens = torch.empty(count + len(scene.xyz), weight.shape[1])
        torch.mm(scene.rgb, weight[:split], out=tokens[:count])
        torch.mm(scene.xyz, weight[split:], out=tokens[count:])
        h = spread(scene.both_rows, tokens, self.first.bias)
        for layer, one in zip(self.layers, self.activations, strict=True):
            h = layer.forward(one.forward(h, dropout))
        return h

    def backward(self, g: Tensor) -> None:
        """g: the gradient of the output (P, F)."""
        add_columns(g, self.layers[-1].d_bias)
        before = (self.first, *self.layers[:-1])
        for layer, one, linear in zip(*map(reversed, (self.layers, self.activations, before)), strict=True):
            g = one.back_through(layer, g, linear.d_bias)
        scene, count, split = self.scene, len(self.scene.rgb), self.scene.rgb.shape[1]
        d_tokens = spread(scene.both_rows.transposed, g)
        self.first.d_weight[:, :split].addmm_(d_tokens[:count].T, scene.rgb)
        self.first.d_weight[:, split:].addmm_(d_tokens[count:].T, scene.xyz)
        self.forget()

    def forget(self) -> None:
        """Free what only `backward` needs."""
        self.scene = None
        for one in self.activations:
            one.forget()


class _Decoder:
    """Eq. 2."""

    def __init__(self, block: RestorationDecoder, number: int) -> None:
        self.layers = [Linear(layer) for layer in (block.input_fc, *block.layers)]
        norms, norm_first = [norm_of(block.norm, k) for k in range(len(self.layers))], block.order == "norm-gelu"
        self.activations = [Activation(norm, norm_first, (number, k)) for k, norm in enumerate(norms)]
        self.attention = ATTENTION[block.cbam.scope](block.cbam)
        self.last, self.skip = Linear(block.output_fc), Linear(block.skip)

    def attend(self, fused: Tensor, canvas: Canvas, dropout: Dropout | None) -> tuple[Tensor, Tensor]:
        """(P, F) -> what `output` takes: (P, C), (P, F)."""
        x = fused
        for layer, one in zip(self.layers, self.activations, strict=True):
            x = one.forward(layer.forward(x), dropout)
        self.fused, self.attended = fused, self.attention.forward(x, canvas)
        return self.attended, fused

    def output(self, attended: Tensor, fused: Tensor) -> Tensor:
        """The output layer and the linear skip: (P, C), (P, F) -> (P, C)."""
        restored = torch.addmm(self.last.bias + self.skip.bias, attended, self.last.transposed)
        return restored.addmm_(fused, self.skip.transposed)

    def backward(self, g: Tensor, d_fused: Tensor) -> None:
        """g: the gradient of the output (P, C); that of the embedding is added to d_fused (P, F)."""
        d_bias = torch.zeros(g.shape[1])
        add_columns(g, d_bias)
        self.last.d_bias += d_bias
        self.skip.d_bias += d_bias
        self.skip.backward(self.fused, g, d_fused)
        g = self.attention.backward(self.last.backward(self.attended, g))
        g = self.activations[-1].backward(g, self.layers[-1].d_bias)
        for k in reversed(range(len(self.layers) - 1)):
            g = self.activations[k].back_through(self.layers[k + 1], g, self.layers[k].d_bias)
        self.layers[0].backward(self.fused, g, d_fused)
        self.forget()

    def forget(self) -> None:
        """Free what only `backward` needs."""
        self.fused = self.attended = self.attention.kept = None
        for one in self.activations:
            one.forget()
