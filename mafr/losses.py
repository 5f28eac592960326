"""The composite training loss (Sec. III-B3, eqs. 3-6), each term in the paper's and the released code's form.

All functions take original features `e` and restored ones `e_hat`, (B, C, H, W) float, and an optional
`valid`, (B, 1, H, W) bool: pixels outside it do not count. Means are taken per sample, then over the batch,
so that a sample weighs the same whatever else is in its batch.

Training uses `mafr.fast.objective`, the same losses with hand-written gradients; its tests compare the two.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.config import Config


def znssd(e: Tensor, e_hat: Tensor, valid: Tensor | None = None, over: str = "pixels", eps: float = 1e-8) -> Tensor:
    """Zero-normalised sum of squared differences, eq. 3: a scalar.

    over="pixels" (paper): each channel is normalised over the valid pixels, eps added to the standard deviation.
    over="channels" (released code): each pixel is normalised over its channels, eps inside the root.
    Raises ValueError for another `over`.
    """
    if over == "pixels":
        difference = _standardise_pixels(e, valid, eps) - _standardise_pixels(e_hat, valid, eps)
    elif over == "channels":
        difference = _standardise_channels(e, eps) - _standardise_channels(e_hat, eps)
    else:
        raise ValueError(f"over must be 'pixels' or 'channels', not {over!r}")
    return _mean(difference.square(), valid)


def smoothness(e: Tensor, e_hat: Tensor, valid: Tensor | None = None, channels: str = "all") -> Tensor:
    """Edge-aware smoothness of the error map, eq. 4: a scalar.

    Forward differences on the common (H-1) x (W-1) pixels; a pixel counts where it and its right and lower
    neighbours are valid. channels="all" (paper): the mean over all channels, each guided by its own gradient.
    channels="first_two" (released code): the sum over channels 0 and 1 of the error, guided by the gradient of
    the channel mean of `e`. Raises ValueError otherwise.
    """
    delta = e_hat - e
    if channels == "all":
        guide, scale = e, 1.0
    elif channels == "first_two":
        delta, guide, scale = delta[:, :2], e.mean(dim=1, keepdim=True), 2.0
    else:
        raise ValueError(f"channels must be 'all' or 'first_two', not {channels!r}")
    dx, dy = _gradients(delta)
    gx, gy = _gradients(guide)
    penalty = dx.abs() * torch.exp(-gx.abs()) + dy.abs() * torch.exp(-gy.abs())
    inside = None
    if valid is not None:
        inside = valid[..., :-1, :-1] & valid[..., :-1, 1:] & valid[..., 1:, :-1]
    return scale * _mean(penalty, inside)


def census(e: Tensor, e_hat: Tensor, valid: Tensor | None = None, kernel: int = 7) -> Tensor:
    """Census loss, eq. 5: mean absolute difference of local averages, a scalar.

    kernel x kernel windows, stride 1. Without `valid`, zero padding counts in the mean (released code);
    with it, a window's mean is over its valid pixels and the outer mean over the valid centres (paper).
    """
    # Pooling is linear, so one pool of the difference is the difference of two pools.
    delta = e_hat - e
    if valid is None:
        return _mean(_window_sum(delta, kernel).abs(), None) / kernel**2
    weight = valid.to(delta.dtype)
    count = _window_sum(weight, kernel).clamp_min(1)
    return _mean((_window_sum(delta * weight, kernel) / count).abs(), valid)


class CompositeLoss(nn.Module):
    """Eq. 6: the weighted sum of the configured terms, each summed over the two modalities."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, e_rgb: Tensor, e_rgb_hat: Tensor, e_xyz: Tensor, e_xyz_hat: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (B, C, H, W) and valid (B, 1, H, W) -> the total and each term (unweighted, detached)."""
        mask = valid if self.config.valid_only else None
        pairs = ((e_rgb, e_rgb_hat), (e_xyz, e_xyz_hat))
        terms = {name: sum(self._term(name, e, e_hat, mask) for e, e_hat in pairs) for name in self.config.loss_terms}
        total = sum(self.config.loss_weights[name] * value for name, value in terms.items())
        return total, {name: value.detach() for name, value in terms.items()}

    def _term(self, name: str, e: Tensor, e_hat: Tensor, valid: Tensor | None) -> Tensor:
        if name == "sim":
            return znssd(e, e_hat, valid, over=self.config.znssd_over)
        if name == "smooth":
            return smoothness(e, e_hat, valid, channels=self.config.smooth_channels)
        return census(e, e_hat, valid, kernel=self.config.census_kernel)


def _window_sum(x: Tensor, kernel: int) -> Tensor:
    """Sum over the kernel x kernel window around each pixel, zeros beyond the border."""
    return F.avg_pool2d(x, kernel, stride=1, padding=kernel // 2, divisor_override=1)


def _standardise_pixels(x: Tensor, valid: Tensor | None, eps: float) -> Tensor:
    mean = _pixel_mean(x, valid)
    centred = x - mean
    variance = _pixel_mean(centred.square(), valid)
    # The root of an exact zero has no gradient; a constant channel then adds nothing rather than NaN.
    return centred / (variance.clamp_min(1e-24).sqrt() + eps)


def _standardise_channels(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + eps)


def _pixel_mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the valid pixels: (B, C, H, W) -> (B, C, 1, 1)."""
    if valid is None:
        return x.mean(dim=(2, 3), keepdim=True)
    count = valid.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    return (x * valid).sum(dim=(2, 3), keepdim=True) / count


def _mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over channels and valid pixels per sample, then over the batch: a scalar."""
    return _pixel_mean(x, valid).mean()


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences along x and y, both (B, C, H-1, W-1)."""
    corner = x[..., :-1, :-1]
    return x[..., :-1, 1:] - corner, x[..., 1:, :-1] - corner
