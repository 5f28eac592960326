"""The training step of CFM's mappings on few pixels of a CPU: products by torch, the rest by `mafr.fast.loops`.

It equals `mafr.baselines.cfm.backward`, which serves every size and place, up to the rounding of float32
(tests/fast/test_crossmodal.py). There is no automatic gradient in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mafr.fast.loops import cosine
from mafr.fast.objective import Original
from mafr.fast.restorer import Scene

_ROWS = 512  # pixels whose hidden values exist at a time: they stay in a core's cache


class SmallMapping:
    """One direction's training step: GELU between the `layers`, one minus the cosine at the end.

    Gradients are added to those of the weights, which must be there.
    """

    def __init__(self, layers: Sequence[nn.Linear], least: float) -> None:
        """least: the smallest length that is divided by."""
        self.least = np.float32(least)
        self.weights = [layer.weight.detach() for layer in layers]
        self.biases = [layer.bias.detach() for layer in layers]
        self.d_weights = [layer.weight.grad for layer in layers]
        self.d_biases = [layer.bias.grad.numpy() for layer in layers]

    @torch.no_grad()
    def __call__(self, source: Tensor, target: Tensor, lengths: np.ndarray, pixels: int) -> float:
        """These pixels' share of the loss; `pixels`: of the whole batch.

        source: (P, C) float32, target: (P, D) float32, lengths: (P,), those of the target's rows.
        """
        total, last = 0.0, len(self.weights) - 1
        for first in range(0, len(source), _ROWS):
            part = slice(first, first + _ROWS)
            inputs, slopes = [source[part]], []
            for k in range(last):
                x = torch.addmm(self.biases[k], inputs[k], self.weights[k].T)
                slopes.append(np.empty(x.shape, dtype=np.float32))
                cosine.gelu(x.numpy(), slopes[k])
                inputs.append(x)
            g = torch.addmm(self.biases[last], inputs[last], self.weights[last].T)
            total += cosine.cosine(
                g.numpy(), target[part].numpy(), lengths[part], self.least, np.float32(1 / pixels), self.d_biases[last]
            )
            for k in reversed(range(last + 1)):
                self.d_weights[k].addmm_(g.T, inputs[k])
                if k:
                    g = torch.mm(g, self.weights[k])
                    cosine.gelu_back(g.numpy(), slopes[k - 1], self.d_biases[k - 1])
        return total / pixels


def features(scenes: Sequence[Scene], which: int, least: float) -> tuple[Tensor, np.ndarray]:
    """Features (P, C) of some scenes' pixels, one scene after the other, and their lengths (P,), `least` at least.

    which: 0 for image features, 1 for point features. Scenes that remember keep both.
    """
    found = [_features(scene.originals[which], least) for scene in scenes]
    if len(found) == 1:
        return found[0]
    return torch.cat([rows for rows, _ in found]), np.concatenate([length for _, length in found])


def _features(original: Original, least: float) -> tuple[Tensor, np.ndarray]:
    rows = original.channels(slice(0, None))

    def measure() -> np.ndarray:
        length = np.empty(len(rows), dtype=np.float32)
        cosine.lengths(rows.numpy(), np.float32(least), length)
        return length

    return rows, original.once("lengths", 0, measure)
