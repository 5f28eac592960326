"""Residual maps of a test set -> all metrics of all fusion operators, as a run's record keeps them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mafr.config import FUSIONS, Config
from mafr.errors import DataError, MafrError
from mafr.metrics import bootstrap_auroc, evaluate, image_auroc
from mafr.scoring import anomaly_map, image_score, metric_maps, score_mask, upsample

MAP = "map"  # where a record keeps the metrics of a method that has one map
CHUNK = 16  # maps handled at once; bounds memory at full size


def fused_maps(
    psi_rgb: Tensor, psi_xyz: Tensor, valid: Tensor, mask: Tensor, config: Config, how: str
) -> Tensor:
    """Residual maps (N, 1, g, g), cells with points (N, 1, g, g), mask (N, 1, S, S) -> maps (N, 1, S, S)."""
    maps = []
    for k in range(0, len(psi_rgb), CHUNK):
        part = slice(k, k + CHUNK)
        rgb = upsample(psi_rgb[part], valid[part], config.image_size)
        xyz = upsample(psi_xyz[part], valid[part], config.image_size)
        maps.append(anomaly_map(rgb, xyz, score_mask(valid[part], mask[part]), config, how))
    return torch.cat(maps)


def all_metrics(
    psi_rgb: Tensor,
    psi_xyz: Tensor,
    valid: Tensor,
    mask: Tensor,
    gt: np.ndarray,
    labels: np.ndarray,
    defects: Sequence[str],
    config: Config,
) -> tuple[dict[str, dict], dict[str, list[float]]]:
    """({fusion: metrics}, {fusion: image scores}) of one category's test set.

    gt is (N, S, S) bool, labels (N,) 0 or 1, defects the N folder names. Metrics by defect type compare
    its samples with all good ones; the pixel metrics among them are given for `config.fusion` only.
    """
    if labels.min() == labels.max():
        raise MafrError("the test set needs good and anomalous samples; an AUROC of one class is not defined")
    # Once for all operators: a map of full size passes `fused_maps` as it is.
    psi_rgb, psi_xyz = (upsample(psi, valid, config.image_size) for psi in (psi_rgb, psi_xyz))
    metrics, scores = {}, {}
    for how in FUSIONS:
        maps = fused_maps(psi_rgb, psi_xyz, valid, mask, config, how)
        score = image_score(maps, config.image_score).double().numpy()
        metrics[how] = map_metrics(maps, score, gt, labels, defects, config, by_defect=how == config.fusion)
        scores[how] = score.tolist()
    return metrics, scores


def map_metrics(
    maps: Tensor,
    score: np.ndarray,
    gt: np.ndarray,
    labels: np.ndarray,
    defects: Sequence[str],
    config: Config,
    by_defect: bool = True,
) -> dict:
    """The metrics of one kind of map (N, 1, S, S) with image scores (N,); the rest as `all_metrics`.

    by_defect: whether the defect types get the pixel metrics too, not the I-AUROC alone.
    """
    if labels.min() == labels.max():
        raise MafrError("the test set needs good and anomalous samples; an AUROC of one class is not defined")
    result = _metrics(maps, score, gt, labels, config)
    low, high = bootstrap_auroc(labels, score, config.bootstrap, config.seed)
    result |= {"i_auroc_low": low, "i_auroc_high": high, "by_defect": {}}
    for defect in sorted({d for d, label in zip(defects, labels, strict=True) if label}):
        chosen = np.array([d == defect for d in defects]) | (labels == 0)
        if not gt[chosen].any():
            raise DataError(
                f"the masks of all {defect!r} samples are empty at {config.image_size} pixels; mark their defects, "
                "or move samples without one to the good folder"
            )
        entry = {"count": int((chosen & (labels == 1)).sum())}
        if by_defect:
            entry |= _metrics(maps[chosen], score[chosen], gt[chosen], labels[chosen], config)
        else:
            entry["i_auroc"] = image_auroc(labels[chosen], score[chosen])
        result["by_defect"][defect] = entry
    return result


def _metrics(maps: Tensor, score: np.ndarray, gt: np.ndarray, labels: np.ndarray, config: Config) -> dict:
    result = {"i_auroc": image_auroc(labels, score)}
    # The released code scales the maps in another way for each metric; otherwise both are the maps themselves.
    roc, pro = (metric_maps(maps, config.map_scaling, metric)[:, 0].numpy() for metric in ("p_auroc", "au_pro"))
    return result | evaluate(gt, pro, auroc_maps=roc)
