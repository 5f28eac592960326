"""`Detector`: MAFR as a method, with features, head and scoring behind fit, predict, calibrate, save and load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mafr.config import Config
from mafr.device import computing
from mafr.expected import MOST_SAMPLES, Expected
from mafr.fast.restorer import Restorer, Scene, open_scene, scores_every_pixel
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.features.sources.splits import Split
from mafr.method import Method, Prediction
from mafr.model import MAFR
from mafr.released import load_checkpoints
from mafr.scoring import ResidualMaps, image_score
from mafr.standardise import Scales
from mafr.training import fit


class Detector(Method):
    """MAFR from samples to scores."""

    name = "mafr"
    draws_features = True
    takes_windows = True
    kept_with_runs = True

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        super().__init__(config, extractor)
        self.model: MAFR | None = None
        self.expected: Expected | None = None  # of good training parts, see `mafr.expected`
        self.scales: Scales | None = None  # of good validation parts, see `mafr.standardise`

    def prepare(self, split: Split, indices: Sequence[int]) -> None:
        """Extract the tokens of samples that are in no store."""
        split.extract(indices)

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        self.model, self.history = fit(self.config, split, indices, self.checkpoint, show, self.held_out)
        self.expected = self._learn_expected(split, indices) if self.config.expected_share else None

    def take_head(self, other: Detector, split: Split, indices: Sequence[int]) -> None:
        """Take the head that another detector trained on the same samples, and learn what the scoring needs beside.

        The two must differ in settings of the scoring alone.
        """
        self.model, self.history, self.trained = other.model, other.history, True
        self.prepare(split, indices)
        self.expected = self._learn_expected(split, indices) if self.config.expected_share else None

    def residuals(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Eq. 7 on tokens: psi_rgb, psi_xyz, valid, each (B, 1, g, g); the maps are zero at invalid cells."""
        self._check_trained("call fit, or load a saved one")
        restorer, parts = self._restorer(), []
        with computing(self.config):
            for k in range(len(tokens)):
                scene = self._scene(tokens.part(k))
                maps = restorer.residuals(scene) if self.expected is None else self._over_expected(restorer, scene)
                parts.append((*maps, scene.valid[None, None]))
        return tuple(torch.cat(maps).cpu() for maps in zip(*parts, strict=True))

    def _restorer(self) -> Restorer:
        with torch.inference_mode(False):  # so that moved weights can be trained later
            return Restorer(self.model.to(self.place.device), self.config, self.place)

    def _scene(self, tokens: Tokens) -> Scene:
        return open_scene(tokens, self.config, self.place, scores_every_pixel(self.config))

    def _learn_expected(self, split: Split, indices: Sequence[int]) -> Expected:
        """What restored features say of the residuals of training samples."""
        restorer, some = self._restorer(), indices[:: -(-len(indices) // MOST_SAMPLES)]
        with torch.no_grad():
            scenes = (self._scene(split.tokens([k])) for k in some)
            return Expected.fit(restorer.restored(scene) for scene in scenes)

    def _over_expected(self, restorer: Restorer, scene: Scene) -> tuple[Tensor, Tensor]:
        restored, psi = restorer.restored(scene)  # without gradients
        psi = self.expected.divided(psi, restored, self.config.expected_share)
        return restorer.as_maps(scene, list(psi.T))

    def anomaly_map(self, tokens: Tokens, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Eqs. 7-8 on tokens and the mask of pixels with a 3D point: psi_rgb, psi_xyz and psi, each (B, 1, S, S)."""
        found = self._found(tokens, mask)
        return *found.pixels[:2], found.maps(found.main)

    def _found(self, tokens: Tokens, mask: Tensor) -> ResidualMaps:
        return ResidualMaps(*self.residuals(tokens), mask, self.config, self.scales)

    def score(self, split: Split, k: int) -> Prediction:
        found = self._found(split.tokens([k]), torch.from_numpy(split.mask(k))[None, None])
        psi = found.maps(found.main)
        scored = found.scored if self.config.scored == "filled" else None
        score = image_score(psi, self.config.image_score).item()
        return Prediction.of(*found.pixels[:2], psi, score, scored)

    def answer(self, split: Split, indices: Sequence[int]) -> ResidualMaps:
        """The residual maps of some samples, eq. 7."""
        parts = [self.residuals(split.tokens([k])) for k in indices]
        psi_rgb, psi_xyz, valid = (torch.cat(maps) for maps in zip(*parts, strict=True))
        mask = torch.from_numpy(np.stack([split.mask(k) for k in indices]))[:, None]
        return ResidualMaps(psi_rgb, psi_xyz, valid, mask, self.config, self.scales)

    def learn_scales(self, split: Split, indices: Sequence[int]) -> ResidualMaps | None:
        """Take the scales of the residual maps from good validation samples; the maps, unless the next are drawn."""
        found = self.answer(split, indices)
        self.scales = Scales.of(found.psi_rgb, found.psi_xyz, found.valid)
        return None if split.live else replace(found, scales=self.scales)

    def extras(self) -> dict[str, object]:
        """The scales of the residual maps, where they are known."""
        return {"scales": self.scales.as_dict()} if self.scales else {}

    def take_extras(self, record: Mapping[str, object]) -> None:
        """The inverse of `extras`."""
        if "scales" in record:
            self.scales = Scales.from_dict(record["scales"])

    def state(self) -> dict[str, Tensor]:
        """The head's weights, and the expected residual's where there is one."""
        return self.model.state_dict() | (self.expected.state() if self.expected else {})

    def restore(self, state: dict[str, Tensor]) -> None:
        self.model, state = MAFR.from_config(self.config), dict(state)
        self.expected = Expected.from_state(state)
        if self.expected is None and self.config.expected_share:
            raise KeyError("the expected residual")
        self.model.load_state_dict(state)
        self.model.eval()

    @classmethod
    def from_released(cls, source: str | Path | Sequence[str | Path], config: Config) -> Detector:
        """A detector without a threshold from the released code's checkpoints, see `mafr.released`."""
        return cls.of_model(load_checkpoints(source, config), config)

    @classmethod
    def of_model(cls, model: MAFR, config: Config, extractor: FeatureExtractor | None = None) -> Detector:
        """A detector without a threshold from a trained head."""
        detector = cls(config, extractor)
        detector.model, detector.trained = model, True
        return detector
