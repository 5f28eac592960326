"""How much of Point-MAE's tokens comes from the patches: the spread between them over the tokens' length."""

from __future__ import annotations

import torch
from torch import Tensor

from mafr.data.samples import Sample
from mafr.features.extract import FeatureExtractor


@torch.no_grad()
def patch_tokens(extractor: FeatureExtractor, sample: Sample, rescaled: bool = True) -> Tensor:
    """The mini-PointNet's tokens of one sample, (G, width) float32, in the extractor's `extractor_mode`.

    They are what the transformer learns of the groups' shapes; of their places it is told apart. rescaled: False gives
    the network patches in metres where it would divide them by their median radius, as the small one does.
    Errors as in `FeatureExtractor.prepare`.
    """
    device, points = extractor.place.device, extractor.points
    prepared = extractor.prepare(sample)
    parts = (torch.from_numpy(part)[None].to(device) for part in (prepared.patches, prepared.centres, prepared.middle))
    patches, centres, middle = parts
    if rescaled:
        patches, _ = points.scale(patches, centres, middle)
    return points.embed(patches)[0]


def patch_share(tokens: Tensor) -> float:
    """The standard deviation between patches over the tokens' norm, in [0, 1].

    tokens: (G, width). The root of the channels' summed biased variances over the G groups, divided by the root mean
    square of the tokens' norms. The square is the share of the tokens' mean square that differs from patch to patch:
    the rest is the mean token, the same for every patch. 0: the tokens do not tell the patches apart; 1: their mean is
    zero. Computed in float64. NaN where all tokens are zero.
    """
    tokens = tokens.double()
    spread = (tokens - tokens.mean(dim=0)).square().sum(dim=1).mean()
    return float((spread / tokens.square().sum(dim=1).mean()).sqrt())
