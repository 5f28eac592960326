"""The composite loss of `mafr.losses` on rows of pixels, with its gradient in closed form.

Equal to the maps' losses and their automatic gradients, but in parts of a few channels or a few pixels: no
temporary is as large as a feature map, and nothing is kept for a backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.canvas import Canvas, window_sum
from mafr.config import Config
from mafr.features.operators import Rows
from mafr.kernels import kernel
from mafr.pixelwise import parts

_EPS = 1e-8  # of the similarity loss, as in `mafr.losses.znssd`
_PART = 2**21  # values of a part: 8 MB in float32; narrower parts read scraps of cache lines


class Objective:
    """Eqs. 3-6 of one modality: the weighted sum's gradient in the restored features, and each term's value."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.weights = {"sim": config.weight_sim, "smooth": config.weight_smooth, "census": config.weight_census}

    def __call__(
        self, tokens: Tensor, rows: Rows, e_hat: Tensor, canvas: Canvas
    ) -> tuple[dict[str, Tensor], Tensor]:
        """({term: unweighted scalar}, gradient (P, C) of `e_hat`'s type).

        tokens (n, C) float32 and rows (P, n): their product is the original features; e_hat: (P, C).
        """
        config, (count, width), device = self.config, e_hat.shape, e_hat.device
        values = {name: tokens.new_zeros(()) for name in config.loss_terms}
        gradient = torch.empty_like(e_hat)
        for part in _channel_parts(canvas, width, device):
            original, restored = rows.apply(tokens[:, part].contiguous()), e_hat[:, part].float()
            gradient[:, part] = self._by_channel(original, restored, width, canvas, values)
        if "smooth" in values and config.smooth_channels == "first_two":
            guide = rows.apply(tokens.mean(dim=1, keepdim=True))  # the mean of the features, as both are linear
            values["smooth"] += self._smooth_first_two(rows.apply(tokens[:, :2].contiguous()), guide, e_hat, gradient,
                                                       canvas)  # fmt: skip
        if "sim" in values and config.znssd_over == "channels":
            for part in parts(count, width, device):
                original = rows.part(part.start, part.stop).apply(tokens)
                values["sim"] += self._sim_channels(original, e_hat[part].float(), gradient[part], count)
        return values, gradient

    def _by_channel(
        self, e: Tensor, e_hat: Tensor, width: int, canvas: Canvas, values: dict[str, Tensor]
    ) -> Tensor | float:
        """The terms that treat each channel for itself, on some channels: (P, c) -> their gradient (P, c), or 0."""
        config, total = self.config, 0.0
        if "sim" in values and config.znssd_over == "pixels":
            value, total = _sim_pixels(e, e_hat, width)
            values["sim"] += value
            total.mul_(self.weights["sim"])
        smooth = "smooth" in values and config.smooth_channels == "all"
        if not smooth and "census" not in values:
            return total
        delta = canvas.spread(e_hat - e)
        if smooth:
            value, change = _smooth(delta, canvas.spread(e), canvas.corners, width)
            values["smooth"] += value
            total = canvas.gather(change).mul_(self.weights["smooth"]).add_(total)
        if "census" in values:
            value, change = _census(delta, canvas, config.census_kernel, config.valid_only, width)
            values["census"] += value
            total = change.mul_(self.weights["census"]).add_(total)
        return total

    def _sim_channels(self, e: Tensor, e_hat: Tensor, gradient: Tensor, rows: int) -> Tensor:
        """Eq. 3 over each pixel's channels (released code): adds to `gradient`, returns the value's share."""
        # Zero mean and unit variance over a pixel's channels is a LayerNorm without weights.
        shape = e.shape[1:]
        y, mean, scale = torch.native_layer_norm(e_hat, shape, None, None, _EPS)
        g = y.sub_(F.layer_norm(e, shape, eps=_EPS))
        value = g.square().sum() / (rows * e.shape[1])
        g.mul_(2 / (rows * e.shape[1]))
        g = torch.ops.aten.native_layer_norm_backward(
            g, e_hat, shape, mean, scale, None, None, [True, False, False]
        )[0]
        gradient.add_(g, alpha=self.weights["sim"])
        return value

    def _smooth_first_two(
        self, e: Tensor, guide: Tensor, e_hat: Tensor, gradient: Tensor, canvas: Canvas
    ) -> Tensor:
        """Eq. 4 as released: channels 0 and 1, guided by the channel mean (P, 1); their penalties are summed."""
        delta = canvas.spread(e_hat[:, :2].float() - e)
        value, change = _smooth(delta, canvas.spread(guide), canvas.corners, 1)
        gradient[:, :2] += canvas.gather(change) * self.weights["smooth"]
        return value


def _channel_parts(canvas: Canvas, width: int, device: torch.device) -> list[slice]:
    area = canvas.height * canvas.width
    step = width if device.type != "cpu" else max(8, _PART // area)
    return [slice(first, min(first + step, width)) for first in range(0, width, step)]


@kernel
def _sim_pixels(e: Tensor, e_hat: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Eq. 3 over the pixels of each channel, (P, c): the value's share and its gradient.

    With z = (e - mean) / (deviation + eps), the loss is the mean of (z_hat - z)²; the deviation's own derivative
    leaves a multiple of the centred channel to take away.
    """
    rows = len(e)
    centred, y = e - e.mean(dim=0), e_hat - e_hat.mean(dim=0)
    z = centred / (_deviation(centred) + _EPS)
    deviation = _deviation(y)
    factor = 1 / (deviation + _EPS)
    g = torch.addcmul(-z, y, factor.expand_as(y))  # z_hat - z
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
def _smooth(delta: Tensor, guide: Tensor, corners: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Eq. 4 on (h, w, c) maps: the value's share and its gradient in `delta`.

    guide: (h, w, c or 1); corners: (h - 1, w - 1, 1), where both forward differences count.
    """
    change = torch.zeros_like(delta)
    count = corners.sum().clamp_min(1) * width
    value = delta.new_zeros(())
    base, corner = delta[:-1, :-1], guide[:-1, :-1]
    for ahead in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):  # along x, along y
        weight = (guide[ahead] - corner).abs_().neg_().exp_().mul_(corners).div_(count)
        step = delta[ahead] - base
        value += (step.abs() * weight).sum()
        push = step.sign_().mul_(weight)
        change[ahead] += push
        change[:-1, :-1] -= push
    return value, change


def _census(delta: Tensor, canvas: Canvas, kernel: int, valid_only: bool, width: int) -> tuple[Tensor, Tensor]:
    """Eq. 5 on a (h, w, c) error map, zero where no pixel counts: the value's share and its gradient (P, c)."""
    count = canvas.window_counts(kernel) if valid_only else float(kernel**2)
    mean = canvas.gather(window_sum(delta, kernel)) / count
    value = mean.abs().sum() / (len(canvas) * width)
    push = mean.sign_().div_(count).div_(len(canvas) * width)
    return value, canvas.gather(window_sum(canvas.spread(push), kernel))
