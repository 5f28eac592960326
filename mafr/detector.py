"""`Detector`: features, head and scoring behind fit, predict, save and load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mafr.baselines.methods import MAFR as METHOD
from mafr.baselines.methods import concerns
from mafr.config import Config, deciding
from mafr.data.samples import Sample
from mafr.device import Place, computing, loadable
from mafr.errors import ConfigError, MafrError, WeightsError
from mafr.fast.restorer import Restorer, open_scene, scores_every_pixel
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.features.sources.live import LiveFeatures
from mafr.features.sources.scratch import ScratchTokens
from mafr.model import MAFR
from mafr.parallel.progress import bar
from mafr.paths import Paths, write_atomically, write_json
from mafr.released import load_checkpoints
from mafr.scoring import anomaly_map, image_score, score_mask, upsample
from mafr.training import Features, fit

FORMAT = 1


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one sample.

    psi_rgb, psi_xyz: (S, S) float32 residual maps, eq. 7, zero where there is no 3D point.
    psi: (S, S) float32, fused, masked and blurred, eq. 8. score: the image score; higher is more anomalous.
    """

    psi_rgb: np.ndarray
    psi_xyz: np.ndarray
    psi: np.ndarray
    score: float


class SampleFeatures:
    """Features of samples, extracted once and kept on the disk meanwhile: what `Detector.fit` trains on."""

    def __init__(self, samples: Sequence[Sample], extractor: FeatureExtractor) -> None:
        self.kept = ScratchTokens()
        for k, sample in enumerate(bar(samples, what="extracting features")):
            self.kept.put(k, extractor.extract(sample))

    def __len__(self) -> int:
        return len(self.kept)

    def tokens(self, indices: Sequence[int]) -> Tokens:
        return Tokens.cat([self.kept.get(k) for k in indices])


class Detector:
    """MAFR from samples to scores.

    `threshold` is None until `calibrate`, or the image score above which a sample is not OK.
    """

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        self.config = config
        self.model: MAFR | None = None
        self.history: list[dict[str, float]] = []
        self.threshold: float | None = None
        self._extractor = extractor

    @property
    def extractor(self) -> FeatureExtractor:
        """The frozen backbones, loaded when first needed."""
        if self._extractor is None:
            weights = Paths.resolve(self.config.profile).weights
            self._extractor = FeatureExtractor.from_config(self.config, weights)
        return self._extractor

    def fit(self, samples: Sequence[Sample], show: bool = True) -> Detector:
        """Train on good samples only. Raises MafrError if one is labelled anomalous."""
        for sample in samples:
            if sample.label:
                raise MafrError(f"{sample.category}/{sample.id} is anomalous; train on good samples only")
        if self.config.extractor_mode == "train":
            return self.fit_features(LiveFeatures(samples, self.config, self.extractor), show=show)
        return self.fit_features(SampleFeatures(samples, self.extractor), show=show)

    def fit_features(
        self,
        features: Features,
        indices: Sequence[int] | None = None,
        checkpoint: Path | None = None,
        show: bool = False,
    ) -> Detector:
        """Train on features that are already extracted, or on some `indices` of them."""
        chosen = range(len(features)) if indices is None else indices
        self.model, self.history = fit(self.config, features, chosen, checkpoint, show)
        return self

    def residuals(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Eq. 7 on tokens: psi_rgb, psi_xyz, valid, each (B, 1, g, g); the maps are zero at invalid cells."""
        if self.model is None:
            raise MafrError("this detector is not trained yet; call fit, or load a saved one")
        place = Place.of(self.config)
        restorer = Restorer(self.model.to(place.device), self.config, place)
        parts = []
        with computing(self.config):
            for k in range(len(tokens)):
                scene = open_scene(tokens.part(k), self.config, place, scores_every_pixel(self.config))
                parts.append((*restorer.residuals(scene), scene.valid[None, None]))
        return tuple(torch.cat(maps).cpu() for maps in zip(*parts, strict=True))

    def predict(self, sample: Sample) -> Prediction:
        """Maps and score of one sample."""
        maps = self.anomaly_map(self.extractor.extract(sample), torch.from_numpy(sample.valid)[None])
        score = image_score(maps[2], self.config.image_score).item()
        return Prediction(*(psi[0, 0].numpy() for psi in maps), score)

    def anomaly_map(self, tokens: Tokens, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Eqs. 7-8 on tokens: psi_rgb, psi_xyz and psi, each (B, 1, S, S).

        mask: (B, 1, S, S) bool, true where a pixel has a 3D point.
        """
        psi_rgb, psi_xyz, valid = self.residuals(tokens)
        mask, size = score_mask(valid, mask), self.config.image_size
        psi_rgb, psi_xyz = (upsample(p, valid, size) * mask for p in (psi_rgb, psi_xyz))
        return psi_rgb, psi_xyz, anomaly_map(psi_rgb, psi_xyz, mask, self.config, self.config.fusion)

    def calibrate(self, samples: Sequence[Sample]) -> float:
        """Set and return the threshold: the `config.quantile` of the scores of good validation samples."""
        scores = [self.predict(s).score for s in bar(samples, what="calibrating") if not s.label]
        if not scores:
            raise MafrError("calibration needs at least one good validation sample")
        self.threshold = score_threshold(scores, self.config.quantile)
        return self.threshold

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `detector.json` into `folder`; returns it."""
        if self.model is None:
            raise MafrError("this detector is not trained yet; nothing to save")
        folder = Path(folder)
        state = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        write_atomically(folder / "model.safetensors", safetensors.torch.save(state))
        record = {"format": FORMAT, "method": METHOD, "threshold": self.threshold, "history": self.history}
        write_json(folder / "detector.json", record | {"config": self.config.as_dict()})
        return folder

    @classmethod
    def load(cls, folder: str | Path, config: Config | None = None) -> Detector:
        """Read a saved detector. Raises WeightsError if a file is missing, damaged, or not of `config`.

        `config`, if given, must agree in everything that decides the features and the head.
        """
        folder = Path(folder)
        record = _read_record(folder / "detector.json")
        try:
            saved = Config.from_dict(record["config"])
            threshold, history = record["threshold"], list(record["history"])
        except (KeyError, TypeError, ConfigError) as error:
            path = folder / "detector.json"
            raise WeightsError(f"{path} lacks what this version needs ({error}); save the detector again") from error
        if config is not None:
            _same_model(folder, saved, config)
        detector = cls(loadable(saved))
        detector.threshold, detector.history = threshold, history
        detector.model = _read_model(folder / "model.safetensors", saved)
        return detector

    @classmethod
    def from_released(cls, source: str | Path | Sequence[str | Path], config: Config) -> Detector:
        """A detector, without a threshold, from the released code's checkpoints, see `mafr.released`."""
        detector = cls(config)
        detector.model = load_checkpoints(source, config)
        return detector


def score_threshold(scores: Sequence[float], quantile: float) -> float:
    """The `quantile` of good validation scores, linear between them."""
    return float(np.quantile(np.asarray(scores, dtype=np.float64), quantile))


def _read_record(path: Path) -> dict:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise WeightsError(
            f"{path} is missing; a saved detector is a folder with detector.json and model.safetensors, "
            "written by `mafr fit` or Detector.save"
        ) from None
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as a saved detector ({error}); save it again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise WeightsError(f"{path} is no detector of format {FORMAT}; it was written by another version of mafr")
    return record


def _read_model(path: Path, config: Config) -> MAFR:
    try:
        state = safetensors.torch.load(path.read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; save the detector again") from None
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); save the detector again") from error
    with torch.random.fork_rng(devices=[]):
        model = MAFR.from_config(config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit its own detector.json: {error}") from error
    return model.eval()


def _same_model(folder: Path, saved: Config, wanted: Config) -> None:
    # Reporting and run-time settings may differ; they change no weight.
    neutral = {name: getattr(saved, name) for name in deciding("report", "runs", "place")}
    a, b = saved.as_dict(), replace(wanted, **neutral).as_dict()
    odd = [
        f"{name} is {a[name]} there and {b[name]} here" for name in a if a[name] != b[name] and concerns(METHOD, name)
    ]
    if odd:
        raise WeightsError(f"{folder} holds a detector of another configuration: {'; '.join(odd)}")
