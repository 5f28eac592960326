"""The composite loss of `mafr.losses` on rows of pixels, with its gradient in closed form.

Equal to the losses on maps with automatic gradients, but computed in parts of a few channels or pixels: no temporary
is as large as a feature map, and nothing is kept for a backward pass.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.config import Config
from mafr.device import kernel
from mafr.fast.layers import parts
from mafr.fast.pixels import Canvas, window_sum
from mafr.features.interpolation import Rows

T = TypeVar("T")
ZNSSD_EPS = 1e-8  # of the similarity loss, as in `mafr.losses.znssd`
_PART = 2**21  # values of a part: 8 MB in float32; narrower parts read incomplete cache lines
_BEYOND = ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1)))  # a pixel's neighbours in x and in y


class Original:
    """The original features of one modality, and what the losses derive from them alone.

    They are the product of rows (P, n) and tokens (n, C) float32; canvas: where their pixels lie. remember: keep what
    was derived for the next step on the same sample, see `bytes_remembered`.
    """

    def __init__(self, tokens: Tensor, rows: Rows, canvas: Canvas, remember: bool = False) -> None:
        self.tokens, self.rows, self.canvas = tokens, rows, canvas
        self._known: dict[tuple[str, int], object] | None = {} if remember else None

    @staticmethod
    def bytes_remembered(config: Config, width: int, canvas: Canvas) -> int:
        """The memory kept for a modality of `width` channels, but for what has one or two channels."""
        rows = 1 + ("sim" in config.loss_terms)  # the features, and those of eq. 3
        edges = 2 * ("smooth" in config.loss_terms and config.smooth_channels == "all")
        return 4 * width * (rows * len(canvas) + edges * canvas.height * canvas.width)

    def once(self, name: str, first: int, make: Callable[[], T]) -> T:
        """The result of `make` for the part that begins at row or channel `first`, from memory if it is there."""
        if self._known is None:
            return make()
        if (name, first) not in self._known:
            self._known[name, first] = make()
        return self._known[name, first]

    def pixels(self, part: slice) -> Tensor:
        """Some pixels with all channels, (p, C)."""
        return self.rows.part(part.start, part.stop).apply(self.tokens)

    def channels(self, part: slice) -> Tensor:
        """Some channels at all pixels, (P, c)."""
        return self.once("channels", part.start, lambda: self.rows.apply(self.tokens[:, part].contiguous()))

    def minus_standardised(self, part: slice, e: Tensor) -> Tensor:
        """The channels `e` (P, c) of a part, each with mean 0 and deviation 1 over the pixels, times -1."""
        return self.once("minus standardised", part.start, lambda: _standardised(e).neg_())

    def edges(self, part: slice, e: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Weights of the differences in x and y in eq. 4, from the channels `e` (P, c) of a part, see `_edges`."""
        return self.once("edges", part.start, lambda: _edges(self.canvas.spread(e), self.canvas.corners, width))

    def normed(self, part: slice) -> Tensor:
        """Some pixels (p, C), each with mean 0 and variance 1 over its channels: a LayerNorm without weights."""
        width = self.tokens.shape[1:]
        return self.once("normed", part.start, lambda: F.layer_norm(self.pixels(part), width, eps=ZNSSD_EPS))

    def guide_edges(self) -> tuple[Tensor, Tensor]:
        """Weights as of `edges`, from the mean over the channels; interpolation is linear."""
        return self.once("guide", 0, lambda: _edges(self.canvas.spread(self._guide()), self.canvas.corners, 1))

    def _guide(self) -> Tensor:
        return self.rows.apply(self.tokens.mean(dim=1, keepdim=True))


class Objective:
    """Eqs. 3-6 of one modality: the weighted sum's gradient in the restored features, and each term's value."""

    def __init__(self, config: Config) -> None:
        self.config, self.weights = config, config.loss_weights

    def __call__(self, original: Original, e_hat: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Restored features (P, C) -> ({term: unweighted scalar}, their gradient (P, C), of their type)."""
        config, (count, width), canvas = self.config, e_hat.shape, original.canvas
        values = {name: original.tokens.new_zeros(()) for name in config.loss_terms}
        gradient = torch.empty_like(e_hat)
        for part in _channel_parts(canvas, width, e_hat.device):
            by_channel = self._by_channel(original, part, e_hat[:, part].float(), width, values)
            if isinstance(by_channel, Tensor) and (by_channel.shape, by_channel.dtype) == (e_hat.shape, e_hat.dtype):
                gradient = by_channel  # all channels at once
            else:
                gradient[:, part] = by_channel
        if "smooth" in values and config.smooth_channels == "first_two":
            values["smooth"] += self._smooth_first_two(original, e_hat, gradient)
        if "sim" in values and config.znssd_over == "channels":
            for part in parts(count, width, e_hat.device):
                values["sim"] += self._sim_channels(original.normed(part), e_hat[part].float(), gradient[part], count)
        return values, gradient

    def _by_channel(
        self, original: Original, part: slice, e_hat: Tensor, width: int, values: dict[str, Tensor]
    ) -> Tensor | float:
        """The terms that treat channels separately, on some channels: (P, c) -> their gradient (P, c), or 0."""
        config, canvas, total = self.config, original.canvas, 0.0
        e = original.channels(part)
        if "sim" in values and config.znssd_over == "pixels":
            value, total = _sim_pixels(original.minus_standardised(part, e), e_hat, width)
            values["sim"] += value
            total.mul_(self.weights["sim"])
        smooth = "smooth" in values and config.smooth_channels == "all"
        if not smooth and "census" not in values:
            return total
        delta = canvas.spread(e_hat - e)
        if smooth:
            value, change = _smooth(delta, *original.edges(part, e, width))
            values["smooth"] += value
            total = canvas.gather(change).mul_(self.weights["smooth"]).add_(total)
        if "census" in values:
            value, change = _census(delta, canvas, config.census_kernel, config.valid_only, width)
            values["census"] += value
            total = change.mul_(self.weights["census"]).add_(total)
        return total

    def _sim_channels(self, z: Tensor, e_hat: Tensor, gradient: Tensor, rows: int) -> Tensor:
        """Eq. 3 over each pixel's channels (released code): adds to `gradient`, returns the value's share."""
        shape = e_hat.shape[1:]
        y, mean, scale = torch.native_layer_norm(e_hat, shape, None, None, ZNSSD_EPS)
        g = y.sub_(z)
        value = g.square().sum() / (rows * e_hat.shape[1])
        g.mul_(2 / (rows * e_hat.shape[1]))
        g = torch.ops.aten.native_layer_norm_backward(g, e_hat, shape, mean, scale, None, None, [True, False, False])[0]
        gradient.add_(g, alpha=self.weights["sim"])
        return value

    def _smooth_first_two(self, original: Original, e_hat: Tensor, gradient: Tensor) -> Tensor:
        """Eq. 4 as released: channels 0 and 1, guided by the mean of all channels; their penalties are summed."""
        canvas, two = original.canvas, slice(0, 2)
        e = original.once("first two", 0, lambda: original.rows.apply(original.tokens[:, two].contiguous()))
        value, change = _smooth(canvas.spread(e_hat[:, two].float() - e), *original.guide_edges())
        gradient[:, two] += canvas.gather(change) * self.weights["smooth"]
        return value


def _channel_parts(canvas: Canvas, width: int, device: torch.device) -> list[slice]:
    area = canvas.height * canvas.width
    step = width if device.type != "cpu" else max(8, _PART // area)
    return [slice(first, min(first + step, width)) for first in range(0, width, step)]


@kernel
def _standardised(e: Tensor) -> Tensor:
    centred = e - e.mean(dim=0)
    return centred / (_deviation(centred) + ZNSSD_EPS)


@kernel
def _sim_pixels(minus_z: Tensor, e_hat: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Eq. 3 over the pixels of each channel, (P, c): the value's share and its gradient; minus_z: see `Original`.

    With z = (e - mean) / (deviation + eps), the loss is the mean of (z_hat - z)²; the derivative of the deviation
    subtracts a multiple of the centred channel.
    """
    rows = len(e_hat)
    y = e_hat - e_hat.mean(dim=0)
    deviation = _deviation(y)
    factor = 1 / (deviation + ZNSSD_EPS)
    g = torch.addcmul(minus_z, y, factor.expand_as(y))  # z_hat - z
    value = g.square().sum() / (rows * width)
    g *= 2 / (rows * width)
    shrink = (g * y).mean(dim=0) * factor / deviation.clamp_min(1e-12)
    # Below the clamp of `_deviation` a channel is constant and its deviation has no derivative.
    shrink = torch.where(deviation > 1e-12, shrink, torch.zeros_like(shrink))
    g -= g.mean(dim=0)
    return value, (g - y * shrink).mul_(factor)


def _deviation(centred: Tensor) -> Tensor:
    return centred.square().mean(dim=0).clamp_min(1e-24).sqrt()


@kernel
def _edges(guide: Tensor, corners: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Eq. 4's weights of the differences in x and in y of a (h, w, c) map, (h - 1, w - 1, c) each; means included.

    corners: (h - 1, w - 1, 1), where both forward differences count.
    """
    count, base = corners.sum().clamp_min(1) * width, guide[:-1, :-1]
    along_x, along_y = [(guide[ahead] - base).abs_().neg_().exp_().mul_(corners).div_(count) for ahead in _BEYOND]
    return along_x, along_y


@kernel
def _smooth(delta: Tensor, along_x: Tensor, along_y: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 4 of an error map (h, w, c) with `_edges`: the value's share and its gradient."""
    change, value, base = torch.zeros_like(delta), delta.new_zeros(()), delta[:-1, :-1]
    for ahead, weight in zip(_BEYOND, (along_x, along_y), strict=True):
        step = delta[ahead] - base
        value += (step.abs() * weight).sum()
        push = step.sign_().mul_(weight)
        change[ahead].add_(push)
        change[:-1, :-1].sub_(push)
    return value, change


def _census(delta: Tensor, canvas: Canvas, side: int, valid_only: bool, width: int) -> tuple[Tensor, Tensor]:
    """Eq. 5 on a (h, w, c) error map, zero where no pixel counts: the value's share and its gradient (P, c)."""
    count = canvas.window_counts(side) if valid_only else float(side**2)
    mean = canvas.gather(window_sum(delta, side)) / count
    value = mean.abs().sum() / (len(canvas) * width)
    push = mean.sign_().div_(count).div_(len(canvas) * width)
    return value, canvas.gather(window_sum(canvas.spread(push), side))
