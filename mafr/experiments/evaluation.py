"""All metrics of a test set's final maps, as a run's record keeps them.

Maps and masks are compared at `image_size`, 224 x 224 pixels at full size, as BTF, M3DM, CFM and MAFR do; the protocol
of MVTec 3D-AD's authors takes the scans' own 400 to 900 pixels. So the pixel metrics of their own methods are not
measured here as they published them.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mafr.config import Config
from mafr.errors import DataError, MafrError
from mafr.metrics import evaluate, image_auroc
from mafr.scoring import Answer, metric_maps


def all_metrics(
    answer: Answer, gt: np.ndarray, labels: np.ndarray, defects: Sequence[str]
) -> tuple[dict[str, dict], dict[str, list[float]]]:
    """({operator: metrics}, {operator: image scores}) of one category's test set.

    gt: (N, S, S) bool; labels: (N,) 0 or 1; defects: the N folder names. Metrics by defect type compare its samples
    with all good ones, pixel metrics for the answer's main operator only. Raises MafrError for a test set of one class.
    """
    metrics, scores = {}, {}
    for how in answer.operators:
        maps, score = answer.final(how)
        metrics[how] = map_metrics(maps, score, gt, labels, defects, answer.config, by_defect=how == answer.main)
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

    by_defect: whether the defect types get pixel metrics beside the I-AUROC.
    """
    if labels.min() == labels.max():
        raise MafrError("the test set needs good and anomalous samples; an AUROC of one class is not defined")
    result = _metrics(maps, score, gt, labels, config) | {"by_defect": {}}
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
