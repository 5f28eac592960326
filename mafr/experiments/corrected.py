"""Scores after the restored features' scale and offset are corrected, to test what Table IV's losses do not see.

L_sim (eq. 3) standardises both maps, and L_smooth (eq. 4) takes gradients, so that neither sees an offset of a channel,
and the first no scale. The distance of eq. 7 sees both. Corrected, a channel's restored values get the original's mean
and deviation before the distance is taken: those of the test sample itself (`OWN`), or, as a control that uses nothing
of the test set, constants from the training samples (`TRAINING`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from mafr.detector import Detector
from mafr.errors import ResultError, notice
from mafr.experiments.plan import Run
from mafr.experiments.run_store import DETECTOR, read_record
from mafr.features.sources.splits import load_features
from mafr.features.sources.store import FeatureStore
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import Paths, write_json
from mafr.scoring import ResidualMaps, image_score

OWN, TRAINING = "own", "training"
CORRECTIONS = (OWN, TRAINING)
_FILE = "corrected.json"
_SMALL = 1e-8
Pair = tuple[Tensor, Tensor]  # original and restored features of one modality, (C, cells) each


def corrected_scores(runs: Sequence[Run], paths: Paths, workers: Workers = 1) -> list[dict[str, list[float]]]:
    """{correction: image scores of the test set} of each finished run; kept beside its record.

    Raises ResultError for a run that is not finished.
    """
    return map_parallel(_scores_job, [(run, paths) for run in runs], workers, "corrected scores")


def _scores_job(job: tuple[Run, Paths]) -> dict[str, list[float]]:
    run, paths = job
    record, path = read_record(run, paths), run.folder(paths) / _FILE
    if record is None:
        raise ResultError(f"{run} has not been run; `mafr differences` makes it")
    known = {"data_fingerprint": record["data_fingerprint"], "scores": record["scores"][run.config.fusion]}
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["of"] == known:
                return {how: [float(score) for score in found[how]] for how in CORRECTIONS}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            notice(f"{path} is damaged ({type(error).__name__}: {error}); the corrected scores are made again")
    made = _scores(run, paths)
    write_json(path, {"of": known} | made)
    return made


def _scores(run: Run, paths: Paths) -> dict[str, list[float]]:
    detector = Detector.load(run.folder(paths) / DETECTOR)
    train, test = (load_features(paths, run.dataset, run.category, name, run.config) for name in ("train", "test"))
    learned = [_restored(detector, train, k)[0] for k in range(len(train))]
    constants = [_moments(pairs) for pairs in zip(*learned, strict=True)]  # of the image's features and the cloud's
    maps: dict[str, list[list[Tensor]]] = {how: [] for how in CORRECTIONS}
    shapes = []
    for k in range(len(test)):
        pairs, valid = _restored(detector, test, k)
        shapes.append(valid)
        for how in CORRECTIONS:
            moments = constants if how == TRAINING else [_moments([pair]) for pair in pairs]
            maps[how].append([_distance(pair, one, valid) for pair, one in zip(pairs, moments, strict=True)])
    valid, mask = torch.cat(shapes), torch.from_numpy(test.mask(range(len(test))))[:, None]
    return {how: _image_scores(found, valid, mask, detector) for how, found in maps.items()}


def _restored(detector: Detector, store: FeatureStore, k: int) -> tuple[list[Pair], Tensor]:
    """A sample's original and restored features on cells with a 3D point, of the image and of the cloud; the cells."""
    e_rgb, e_xyz, valid = store.dense([k])
    with torch.no_grad():
        hats = detector.model(e_rgb, e_xyz, valid if detector.config.valid_only else None)
    inside = valid[0, 0]
    return [(e[0][:, inside], hat[0][:, inside]) for e, hat in zip((e_rgb, e_xyz), hats, strict=True)], valid


def _moments(pairs: Sequence[Pair]) -> tuple[Pair, Pair]:
    """(mean, deviation) by channel of the original and of the restored features, over the cells of all samples."""
    return tuple(_mean_and_deviation([pair[k] for pair in pairs]) for k in (0, 1))


def _mean_and_deviation(parts: Sequence[Tensor]) -> Pair:
    count = sum(part.shape[1] for part in parts)
    mean = sum(part.double().sum(dim=1, keepdim=True) for part in parts) / count
    square = sum((part.double() - mean).square().sum(dim=1, keepdim=True) for part in parts)
    return mean.float(), (square / max(count - 1, 1)).sqrt().float()


def _distance(pair: Pair, moments: tuple[Pair, Pair], valid: Tensor) -> Tensor:
    (mean, deviation), (restored_mean, restored_deviation) = moments
    corrected = (pair[1] - restored_mean) / (restored_deviation + _SMALL) * deviation + mean
    return torch.zeros(valid.shape).masked_scatter(valid, (pair[0] - corrected).norm(dim=0))


def _image_scores(found: list[list[Tensor]], valid: Tensor, mask: Tensor, detector: Detector) -> list[float]:
    psi_rgb, psi_xyz = (torch.cat(part) for part in zip(*found, strict=True))
    answer = ResidualMaps(psi_rgb, psi_xyz, valid, mask, detector.config)
    return image_score(answer.maps(detector.config.fusion), detector.config.image_score).double().tolist()
