"""The head of `mafr.model` on one sample's tokens, as training and scoring run it.

Equal to `MAFR.forward` on dense maps, but much cheaper: the encoder's first layer, which commutes with interpolation,
is applied to the tokens; only the pixels that count are computed; pointwise layers are computed in parts that stay in
the cache; and matrix products are in bfloat16 where the hardware has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mafr.config import Config
from mafr.device import Place, send
from mafr.errors import DataError
from mafr.fast.attention import map_attention, pixel_attention
from mafr.fast.layers import OUTPUT_ROWS, Dropout, Layer, activate, linear
from mafr.fast.objective import Objective, Original
from mafr.fast.pixels import Canvas
from mafr.features.extract import Tokens
from mafr.features.interpolation import Rows, rgb_rows, xyz_rows
from mafr.memory import keep_freed_memory
from mafr.model import CBAM, MAFR, RestorationDecoder, norm_of

if TYPE_CHECKING:
    from mafr.fast.cpu.step import Step

ROWS_KEPT = 2**16  # pixels up to which activations are kept for the backward pass; of more, they are computed twice
SMALL = 2**20  # pixels times channels up to which a CPU scores without the loops of `mafr.fast.cpu`


@dataclass(frozen=True)
class Scene:
    """One sample as the head sees it: tokens, the pixels that count, and the matrices from one to the other."""

    rgb: Tensor  # (n, C) float32, the tokens that some pixel takes
    xyz: Tensor  # (G, D) float32
    rgb_rows: Rows  # (P, n), from tokens to the canvas's pixels
    xyz_rows: Rows  # (P, G)
    both_rows: Rows | None  # side by side, from concatenated tokens to the sum of both; None if the head needs none
    canvas: Canvas  # the pixels that are computed
    valid: Tensor  # (g, g) bool, where the point features are not zero
    remember: bool = False  # whether to keep what the losses derive from the original features between steps

    @cached_property
    def originals(self) -> tuple[Original, Original]:
        """The features that the two decoders restore: image and point features."""
        return (
            Original(self.rgb, self.rgb_rows, self.canvas, self.remember),
            Original(self.xyz, self.xyz_rows, self.canvas, self.remember),
        )

    def bytes_remembered(self, config: Config) -> int:
        """Bytes kept beside `nbytes` with `remember`."""
        widths = self.rgb.shape[1], self.xyz.shape[1]
        return sum(Original.bytes_remembered(config, width, self.canvas) for width in widths)

    @property
    def nbytes(self) -> int:
        """Memory of the tokens and the operators, in bytes."""
        rows = (self.rgb_rows, self.xyz_rows, self.both_rows, self.both_rows)  # the last with its transpose
        tensors = [self.rgb, self.xyz, *(t for r in rows if r is not None for t in (r.index, r.weight, r.offsets))]
        return sum(t.numel() * t.element_size() for t in tensors)


def open_scene(tokens: Tokens, config: Config, place: Place, every_pixel: bool = False, both: bool = True) -> Scene:
    """One sample's tokens (B = 1), prepared. every_pixel: also those without a 3D point; both: with `both_rows`.

    Raises DataError if no cell has a point.
    """
    grid, (_, channels, height, width) = config.grid, tokens.rgb.shape
    xyz_all, valid = xyz_rows(
        tokens.index[0], tokens.weight[0], grid, config.xyz_pool, groups=tokens.xyz.shape[1], only_valid=not every_pixel
    )
    if not valid.any():
        raise DataError(
            f"none of the {grid} x {grid} cells of a sample has a 3D point; its part is too small or thin: leave the "
            "sample out, or raise the setting grid"
        )
    chosen = torch.ones(grid, grid, dtype=torch.bool) if every_pixel else torch.from_numpy(valid)
    rgb_all = rgb_rows(height, width, grid, None if every_pixel else valid)
    rgb, rgb_all = _used(tokens.rgb[0].reshape(channels, -1).T, rgb_all)
    xyz, xyz_all = _used(tokens.xyz[0], xyz_all)
    both_all = Rows.beside(rgb_all, xyz_all) if both else None
    if both_all is not None and place.device.type != "cpu":
        _ = both_all.transposed  # computed while it lies on the CPU, so that a step never waits for the GPU
    return Scene(
        send(rgb.float().contiguous(), place.device),
        send(xyz.float(), place.device),
        rgb_all.to(place.device),
        xyz_all.to(place.device),
        None if both_all is None else both_all.to(place.device),
        Canvas(chosen, place.device),
        send(torch.from_numpy(valid), place.device),
    )


def _used(tokens: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
    """The tokens (n, C) that some pixel takes, and the matrix (P, n) for them, both on the CPU."""
    used, index = torch.unique(rows.index, return_inverse=True)
    if len(used) == rows.columns:
        return tokens, rows
    return tokens[used.long()], Rows(index.to(torch.int32), rows.weight, rows.offsets, len(used))


def scores_every_pixel(config: Config) -> bool:
    """Whether a valid pixel's residual depends on invalid ones, which it does through attention over the whole map."""
    return not config.valid_only and config.cbam_scope == "map"


class Restorer:
    """A head's forward pass, training step and residuals on scenes, at a place."""

    def __init__(self, model: MAFR, config: Config, place: Place) -> None:
        self.model, self.config, self.place = model, config, place
        self.decoders = model.decoder_rgb, model.decoder_xyz
        self.objective = Objective(config)
        self._on_cpu: Step | None = None
        keep_freed_memory()

    def step(self, scene: Scene, dropout: Dropout) -> dict[str, Tensor]:
        """One training step's losses by term (unweighted, both modalities); gradients are added to the weights'."""
        return self._loops(True)(scene, dropout) if self._has_loops() else self.general_step(scene, dropout)

    def general_step(self, scene: Scene, dropout: Dropout) -> dict[str, Tensor]:
        """`step` for every place and number type."""
        fused = self._encode(scene, dropout)
        leaf = fused.detach().requires_grad_()
        values: dict[str, Tensor] = {}
        # One after the other, so that only one decoder's activations exist at a time; the widest first, as its freed
        # memory fits the other's smaller blocks, not the other way round.
        numbered = zip((1, 2), self.decoders, scene.originals, strict=True)
        for number, decoder, original in sorted(numbered, key=lambda item: -item[2].tokens.shape[1]):
            attended = self._attend(decoder, leaf, scene.canvas, dropout, number)
            restored = self._output(decoder, attended, leaf)
            terms, gradient = self.objective(original, restored.detach())
            restored.backward(gradient)
            for name, value in terms.items():
                values[name] = values[name] + value if name in values else value
        fused.backward(leaf.grad)
        return values

    def _has_loops(self) -> bool:
        return self.place.device.type == "cpu" and self.place.dtype == torch.float32 and not self.config.compiled

    def _loops(self, learns: bool) -> Step:
        known = self._on_cpu
        if known is None or not known.fits() or (learns and not known.learns):
            from mafr.fast.cpu.step import Step  # Numba takes half a second, and scoring of few pixels does without it

            known = self._on_cpu = Step(self.model, self.config, learns)
        return known

    @torch.inference_mode()
    def residuals(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Eq. 7: two maps (1, 1, g, g) float32, zero at invalid pixels. Restored maps are never held whole."""
        many = len(scene.canvas) * (self.config.rgb_dim + self.config.xyz_dim) > SMALL
        found = self._loops(False).residuals(scene) if many and self._has_loops() else self._general_residuals(scene)
        return self.as_maps(scene, found)

    @torch.no_grad()
    def restored(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Eqs. 2 and 7 at the canvas's pixels: both restored features side by side, (P, C + D), and residuals (P, 2).

        On the CPU, for scenes of few pixels: restored maps are held whole.
        """
        fused, restored, found = self._encode(scene, None), [], []
        for decoder, original in zip(self.decoders, scene.originals, strict=True):
            one = self._output(decoder, self._attend(decoder, fused, scene.canvas, None), fused).float()
            restored.append(one)
            found.append((original.pixels(slice(0, len(one))) - one).norm(dim=1))
        return torch.cat(restored, dim=1).cpu(), torch.stack(found, dim=1).cpu()

    @staticmethod
    def as_maps(scene: Scene, found: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Two values (P,) at the canvas's pixels as maps (1, 1, g, g), zero at invalid pixels."""
        maps = []
        for psi in found:
            full = psi.new_zeros(scene.valid.numel(), device=scene.valid.device)
            full[scene.canvas.rows] = psi.to(scene.valid.device)
            maps.append((full.view_as(scene.valid) * scene.valid)[None, None])
        return maps[0], maps[1]

    def _general_residuals(self, scene: Scene) -> list[Tensor]:
        """Eq. 7 at the canvas's pixels: two (P,) float32."""
        fused, found = self._encode(scene, None), []
        for decoder, original in zip(self.decoders, scene.originals, strict=True):
            attended = self._attend(decoder, fused, scene.canvas, None)
            psi = original.tokens.new_empty(len(attended))
            step = OUTPUT_ROWS if psi.device.type == "cpu" else len(attended)
            for first in range(0, len(attended), step):
                part = slice(first, min(first + step, len(attended)))
                restored = self._output(decoder, attended[part], fused[part])
                psi[part] = (original.pixels(part) - restored).norm(dim=1)
            found.append(psi)
        return found

    def _encode(self, scene: Scene, dropout: Dropout | None) -> Tensor:
        """Eq. 1: (P, F)."""
        encoder, dtype = self.model.encoder, self.place.dtype
        split, weight = scene.rgb.shape[1], encoder.input_fc.weight
        tokens = [
            F.linear(scene.rgb.to(dtype), weight[:, :split].to(dtype)),
            F.linear(scene.xyz.to(dtype), weight[:, split:].to(dtype)),
        ]
        h = scene.both_rows.apply(torch.cat(tokens).float()) + encoder.input_fc.bias

        def rest(h: Tensor, first: int) -> Tensor:
            layers = [*encoder.layers, encoder.output_fc]
            for k, layer in enumerate(layers):
                x = self._activate(h, norm_of(encoder.layer_norm, k), "gelu-norm", dropout, (0, k), first)
                h = linear(x, layer.weight, layer.bias, spend=True)
            return h

        return _in_parts(rest, h.to(dtype))

    def _attend(
        self, decoder: RestorationDecoder, fused: Tensor, canvas: Canvas, dropout: Dropout | None, number: int = 0
    ) -> Tensor:
        """A decoder up to its attention: (P, F) -> (P, C); number: the decoder's, for its dropout."""

        def hidden(x: Tensor, first: int) -> Tensor:
            for k, layer in enumerate([decoder.input_fc, *decoder.layers]):
                h = linear(x, layer.weight, layer.bias, spend=k > 0)  # the embedding serves both decoders
                x = self._activate(h, norm_of(decoder.norm, k), decoder.order, dropout, (number, k), first)
            return x

        return attend(decoder.cbam, _in_parts(hidden, fused), canvas)

    def _output(self, decoder: RestorationDecoder, attended: Tensor, fused: Tensor) -> Tensor:
        """The output layer and the linear skip as one product: (P, C), (P, F) -> (P, C)."""
        weight = torch.cat([decoder.output_fc.weight, decoder.skip.weight], dim=1)
        bias = decoder.output_fc.bias + decoder.skip.bias
        return linear(torch.cat([attended, fused], dim=1), weight, bias, spend=True)

    def _activate(
        self, h: Tensor, norm: nn.LayerNorm, order: str, dropout: Dropout | None, layer: Layer, first: int
    ) -> Tensor:
        if dropout is None or not dropout.dropped:
            return activate(h, norm, order)
        return activate(h, norm, order, dropout.mask(layer, first, *h.shape, h.device), dropout.scale)


def attend(cbam: CBAM, rows: Tensor, canvas: Canvas) -> Tensor:
    """CBAM on the rows of a canvas: (P, C) -> (P, C)."""
    if cbam.scope == "none":
        return rows
    kernel = cbam.spatial_attention.conv.weight  # (1, 2, k, k)
    narrow, _, wide = cbam.channel_attention.fc
    if cbam.scope == "pixel":
        middle = kernel.shape[-1] // 2
        return pixel_attention(rows, narrow, wide, kernel[:, :, middle, middle])
    return map_attention(rows, narrow, wide, kernel, canvas)


def _in_parts(function: Callable[[Tensor, int], Tensor], rows: Tensor) -> Tensor:
    """function(rows, number of the first row); many rows are computed in parts whose inner values are not kept."""
    if len(rows) <= ROWS_KEPT:
        return function(rows, 0)

    def on_copy(part: Tensor, first: int) -> Tensor:
        return function(part.clone(), first)  # its backward pass may overwrite its own rows, not those of all parts

    done = []
    for first in range(0, len(rows), ROWS_KEPT):
        part = rows[first : first + ROWS_KEPT]
        done.append(checkpoint(on_copy, part, first, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(done)
