"""Eqs. 3-6 on rows of pixels, with their gradient; see `mafr.fast.objective`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mafr.config import Config
from mafr.fast.cpu.threads import each, row_parts
from mafr.fast.loops import activation, sparse
from mafr.fast.loops import objective as loops
from mafr.fast.objective import ZNSSD_EPS, Original
from mafr.features.interpolation import Rows

_CHANNELS = 128  # channels of a part of many pixels: whole cache lines
_EPS = np.float32(ZNSSD_EPS)


def losses(config: Config, original: Original, restored: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Eqs. 3-6 of one modality: {term: value}, and the gradient of their weighted sum in `restored`, (P, C) float32."""
    terms = _Terms(config, original, restored)
    terms.add(terms.some_channels, terms.channel_parts())
    if "sim" in config.loss_terms and config.znssd_over == "channels":
        terms.add(terms.some_pixels, row_parts(*restored.shape))
    if "smooth" in config.loss_terms and config.smooth_channels == "first_two":
        terms.add_first_two()
    return terms.values, terms.gradient


class _Terms:
    """The sums so far: values by term, and the gradient."""

    def __init__(self, config: Config, original: Original, restored: np.ndarray) -> None:
        self.config, self.canvas, self.restored = config, original.canvas, restored
        self.weights = {name: np.float32(weight) for name, weight in config.loss_weights.items()}
        self.values = dict.fromkeys(config.loss_terms, 0.0)
        self.gradient = np.empty_like(restored)
        self.matrix, self.tokens = matrix_of(original.rows), original.tokens.numpy()
        self.over_pixels = "sim" in config.loss_terms and config.znssd_over == "pixels"
        self.smooth = "smooth" in config.loss_terms and config.smooth_channels == "all"
        self.counts = None
        if "census" in config.loss_terms:
            side, count = config.census_kernel, len(restored)
            self.counts = np.full(count, side**2, dtype=np.float32)
            if config.valid_only:
                self.counts = self.canvas.window_counts(side).numpy()[:, 0]
        self.lower = self.canvas.lower  # computed here, not in several threads at once

    def add(self, function: Callable[[slice], dict[str, float]], parts: list[slice]) -> None:
        """Add the values that the function finds for each part."""
        for found in each(function, parts):
            for name, value in found.items():
                self.values[name] += value

    def channel_parts(self) -> list[slice]:
        """Of few pixels one part."""
        rows, channels = self.restored.shape
        step = channels if len(row_parts(rows, channels)) == 1 else _CHANNELS
        return [slice(first, min(first + step, channels)) for first in range(0, channels, step)]

    def some_channels(self, part: slice) -> dict[str, float]:
        """The terms that treat channels apart. Writes their gradient, zero without any."""
        found, (rows, channels) = {}, self.restored.shape
        restored, gradient = self.restored, self.gradient
        if whole := part.stop - part.start == channels:
            e = self._original(self.tokens)
        else:
            restored = np.empty((rows, part.stop - part.start), dtype=np.float32)
            loops.take(self.restored, part.start, restored)
            gradient, e = np.empty_like(restored), self._original(np.ascontiguousarray(self.tokens[:, part]))
        share = np.float32(restored.shape[1] / channels)
        if self.over_pixels:
            found["sim"] = share * _sim(restored, e, self.weights["sim"] * share, gradient)
        else:
            gradient[:] = 0
        if self.smooth:
            found["smooth"] = self._smooth(restored, e, e, channels, gradient)
        if self.counts is not None:
            found["census"] = share * loops.census(
                restored, e, self.counts, self.config.census_kernel, *self.canvas.places, self.canvas.width,
                self.weights["census"] * share, gradient,
            )  # fmt: skip
        if not whole:
            loops.put(gradient, part.start, self.gradient)
        return found

    def some_pixels(self, part: slice) -> dict[str, float]:
        """Eq. 3 over each pixel's channels (released code). Adds its gradient."""
        z, gradient = applied(self.matrix, self.tokens, part), self.gradient[part]
        activation.normalise(z, _EPS)
        count, weight = len(self.restored), self.weights["sim"]
        return {"sim": loops.sim_channels(self.restored[part], z, count, weight, gradient)}

    def add_first_two(self) -> None:
        """Eq. 4 of the first two channels (as released, see `mafr.fast.objective`). Adds its gradient."""
        two = slice(0, 2)
        guide = np.repeat(self.tokens.mean(axis=1, keepdims=True), 2, axis=1)  # interpolation is linear
        restored, gradient = (np.ascontiguousarray(rows[:, two]) for rows in (self.restored, self.gradient))
        e = self._original(np.ascontiguousarray(self.tokens[:, two]))
        self.values["smooth"] += self._smooth(restored, e, self._original(guide), 1, gradient)
        self.gradient[:, two] = gradient

    def _smooth(self, restored, e, guide, width: int, gradient) -> float:
        share = np.float32(1 / (max(np.count_nonzero(self.lower >= 0), 1) * width))
        return loops.smooth(restored, e, guide, self.lower, share, self.weights["smooth"], gradient)

    def _original(self, tokens: np.ndarray) -> np.ndarray:
        return applied(self.matrix, tokens, slice(0, len(self.restored)))


Matrix = tuple[np.ndarray, np.ndarray, np.ndarray]


def matrix_of(rows: Rows) -> Matrix:
    """Index, weight and offsets."""
    return rows.index.numpy(), rows.weight.numpy(), rows.offsets.numpy()


def applied(matrix: Matrix, tokens: np.ndarray, part: slice) -> np.ndarray:
    """Some pixels of tokens (n, C): (p, C)."""
    index, weight, offsets = matrix
    out = np.empty((part.stop - part.start, tokens.shape[1]), dtype=np.float32)
    sparse.apply(index, weight, offsets[part.start : part.stop + 1], tokens, np.zeros_like(tokens[0]), out)
    return out


def _sim(restored: np.ndarray, e: np.ndarray, weight: np.float32, gradient: np.ndarray) -> float:
    """Eq. 3 over the pixels of each channel, (P, c): the value. Writes weight times its gradient.

    With y = restored - mean, u = e - mean, f = 1 / (deviation of y + eps) and h likewise of u, the loss is the mean of
    (f y - h u)², and its gradient a y - b u with factors by channel, in which the mean of y (f y - h u) stands for the
    derivative of the deviation.
    """
    (rows, channels), means = restored.shape, [loops.means(one) for one in (restored, e)]
    of_y, of_u, of_both = loops.moments(restored, e, *means)
    deviation, other = (np.sqrt(np.maximum(variance, 1e-24)) for variance in (of_y, of_u))
    f, h = 1 / (deviation + ZNSSD_EPS), 1 / (other + ZNSSD_EPS)
    shrink = (f * of_y - h * of_both) * f / deviation
    shrink[deviation <= 1e-12] = 0  # a constant channel's deviation has no derivative
    scale = 2 * weight / (rows * channels) * f
    factors = scale * (f - shrink), -scale * h
    loops.combine(restored, e, *means, *(factor.astype(np.float32) for factor in factors), gradient)
    return float(np.mean(f * f * of_y + h * h * of_u - 2 * f * h * of_both))
