"""The whole method step by step, as one would write it first: the reference of `mafr bench` and of tests.

Features are extracted in every step, as dense float32 maps; the head and the losses run on all pixels of the image,
valid or not; metrics go through lists of pixels and a loop over thresholds. Nothing else uses it.
"""

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mafr.bench.plain_features import plain_features
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.features.extract import FeatureExtractor
from mafr.losses import CompositeLoss
from mafr.metrics import LIMITS, RELEASED_THRESHOLDS
from mafr.model import MAFR
from mafr.scoring import anomaly_map, residual_map, score_mask, upsample


class PlainPipeline:
    """Training step and inference of one head, from a sample each time."""

    def __init__(self, model: MAFR, extractor: FeatureExtractor, config: Config) -> None:
        """extractor: computes in float32, and not in `extractor_mode` "train"."""
        self.model, self.extractor, self.config = model, extractor, config
        self.loss = CompositeLoss(config)

    def step(self, sample: Sample, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Extract, restore, compare, go back and update the weights; returns the losses by term."""
        e_rgb, e_xyz, valid = plain_features(self.extractor, sample)
        e_rgb_hat, e_xyz_hat = self.model(e_rgb, e_xyz, valid if self.config.valid_only else None)
        total, terms = self.loss(e_rgb, e_rgb_hat, e_xyz, e_xyz_hat, valid)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        return terms

    @torch.no_grad()
    def predict(self, sample: Sample) -> Tensor:
        """The anomaly map of one sample: (1, 1, S, S)."""
        e_rgb, e_xyz, valid = plain_features(self.extractor, sample)
        e_rgb_hat, e_xyz_hat = self.model(e_rgb, e_xyz, valid if self.config.valid_only else None)
        psi = [residual_map(e, e_hat) * valid for e, e_hat in ((e_rgb, e_rgb_hat), (e_xyz, e_xyz_hat))]
        mask = score_mask(valid, torch.from_numpy(sample.valid)[None].to(valid.device))
        psi_rgb, psi_xyz = (upsample(p, valid, self.config.image_size) * mask for p in psi)
        return anomaly_map(psi_rgb, psi_xyz, mask, self.config, self.config.fusion)


def plain_metrics(gt: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    """Pixel AUROC from lists of pixels, and AUPRO by a loop over 99 thresholds, as the released code does it.

    gt: (N, H, W) bool, maps: (N, H, W) float. Returns {"p_auroc", "aupro99_30", …}.
    """
    labels, scores = [], []
    for mask, psi in zip(gt, maps, strict=True):
        labels.extend(mask.flatten().tolist())
        scores.extend(psi.flatten().tolist())
    result = {"p_auroc": float(roc_auc_score(labels, scores))}
    free = sorted(score for score, label in zip(scores, labels, strict=True) if not label)
    regions = []
    for mask, psi in zip(gt, maps, strict=True):
        numbered, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [psi[numbered == k] for k in range(1, count + 1)]
    curve = []
    for position in np.floor(np.linspace(0, len(free) - 1, RELEASED_THRESHOLDS)).astype(int):
        overlap = np.mean([np.mean(region > free[position]) for region in regions])
        curve.append((1 - (position + 1) / len(free), overlap))
    rates, overlaps = (np.array(column) for column in zip(*[(1.0, 1.0), *curve], strict=True))
    rates, overlaps = rates[::-1], overlaps[::-1]
    for limit in LIMITS:
        inside = rates < limit
        x = np.append(rates[inside], limit)
        y = np.append(overlaps[inside], np.interp(limit, rates, overlaps))
        result[f"aupro{RELEASED_THRESHOLDS}_{round(100 * limit):02d}"] = float(np.trapezoid(y, x) / limit)
    return result
