"""What every compared method has in common: the interface of `mafr.Detector` over samples and their stored tokens."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mafr.config import Config
from mafr.data.samples import Sample
from mafr.detector import Prediction, score_threshold
from mafr.device import Place, computing, loadable, own_randomness
from mafr.errors import ConfigError, MafrError, WeightsError
from mafr.features.extract import PARTS, FeatureExtractor, Tokens
from mafr.features.sources.scratch import ScratchTokens
from mafr.parallel.progress import bar
from mafr.paths import Paths, write_atomically, write_json

FORMAT = 1


class Split(Protocol):
    """Samples together with their features, as the methods see them; both are read when asked for.

    mask: (S, S) bool, true where a sample has a 3D point; quicker than to read the whole sample.
    """

    def __len__(self) -> int: ...

    def sample(self, k: int) -> Sample: ...

    def mask(self, k: int) -> np.ndarray: ...

    def tokens(self, indices: Sequence[int]) -> Tokens: ...


class SampleSplit:
    """Samples whose features are extracted when first asked for, and kept on the disk meanwhile."""

    def __init__(self, samples: Sequence[Sample], extractor: FeatureExtractor | None) -> None:
        """extractor: None for methods that use no tokens."""
        self.samples, self.extractor = samples, extractor
        self._kept = ScratchTokens()

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, k: int) -> Sample:
        return self.samples[k]

    def mask(self, k: int) -> np.ndarray:
        return self.samples[k].valid[0]

    def tokens(self, indices: Sequence[int]) -> Tokens:
        if self.extractor is None:
            raise MafrError("this method was built without a feature extractor")
        for k in indices:
            if k not in self._kept:
                self._kept.put(k, self.extractor.extract(self.samples[k]))
        return Tokens.cat([self._kept.get(k) for k in indices])


class Baseline(ABC):
    """One compared method from samples to scores. Subclasses fill in `train`, `score`, `state` and `restore`.

    `threshold` is None until `calibrate`, or the image score above which a sample is not OK.
    """

    name: ClassVar[str]  # as in the run store and on the command line, e.g. "cfm"
    title: ClassVar[str]  # as in the paper's tables, e.g. "CFM"
    reads: tuple[str, ...] = PARTS  # which of the stored backbones' tokens the method looks at

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        self.config = config
        self.place = Place.of(config)
        self.threshold: float | None = None
        self.history: list[dict[str, float]] = []
        self.trained = False
        self._extractor = extractor

    @classmethod
    def feature_config(cls, config: Config) -> Config:
        """The settings of the stored features that the method uses; these very settings, unless it prunes backbones."""
        return config

    @property
    def extractor(self) -> FeatureExtractor | None:
        """The frozen backbones, loaded when first needed; None for methods that need none."""
        if self._extractor is None and self.reads:
            self._extractor = FeatureExtractor.from_config(
                self.feature_config(self.config), Paths.resolve(self.config.profile).weights
            )
        return self._extractor

    def searches(self) -> list[float]:
        """Seconds of each search in a memory bank so far; none for a method without one."""
        return []

    # ---- what a method is

    @abstractmethod
    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        """Learn from the good samples `indices` of `split`; all randomness from `config.seed`."""

    @abstractmethod
    def score(self, split: Split, k: int) -> Prediction:
        """Maps and image score of sample k; psi_rgb and psi_xyz are the parts that the method has, else `psi`."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs: what is written to disk, and whose size the cost table gives."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`. Raises KeyError or RuntimeError for a state that does not fit."""

    # ---- what all share

    @property
    def _exact(self) -> Config:
        # Methods that may use TF32 say so themselves, in blocks of their own inside.
        return replace(self.config, precision="float32") if self.config.precision == "tf32" else self.config

    def fit(self, samples: Sequence[Sample], show: bool = True) -> Self:
        """Train on good samples only. Raises MafrError if one is labelled anomalous."""
        for sample in samples:
            if sample.label:
                raise MafrError(f"{sample.category}/{sample.id} is anomalous; train on good samples only")
        return self.fit_split(SampleSplit(samples, self.extractor), show=show)

    def fit_split(self, split: Split, indices: Sequence[int] | None = None, show: bool = False) -> Self:
        """Train on samples with stored features, or on some `indices` of them."""
        chosen = list(range(len(split)) if indices is None else indices)
        if not chosen:
            raise MafrError("training needs at least one sample")
        if self.config.extractor_mode == "train":
            raise ConfigError("the compared methods are for extractor_mode 'eval'; leave them out with --methods mafr")
        with computing(self._exact), own_randomness(self.place):
            torch.manual_seed(self.config.seed)
            self.train(split, chosen, show)
        self.trained = True
        return self

    def predict(self, sample: Sample) -> Prediction:
        """Maps and score of one sample."""
        return self.score_split(SampleSplit([sample], self.extractor), [0])[0]

    def score_split(self, split: Split, indices: Sequence[int]) -> list[Prediction]:
        """Maps and scores of some samples."""
        if not self.trained:
            raise MafrError("this detector is not trained yet; call fit, or load a saved one")
        with computing(self._exact), torch.inference_mode():
            return [self.score(split, k) for k in indices]

    def calibrate(self, samples: Sequence[Sample]) -> float:
        """Set and return the threshold: the `config.quantile` of the scores of good validation samples."""
        scores = [self.predict(s).score for s in bar(samples, what="calibrating") if not s.label]
        if not scores:
            raise MafrError("calibration needs at least one good validation sample")
        self.threshold = score_threshold(scores, self.config.quantile)
        return self.threshold

    def nbytes(self) -> int:
        """Size of what is stored of the method itself, in bytes; the frozen backbones do not count."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state().values())

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `detector.json` into `folder`; returns it."""
        if not self.trained:
            raise MafrError("this detector is not trained yet; nothing to save")
        folder = Path(folder)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state().items()}
        write_atomically(folder / "model.safetensors", safetensors.torch.save(state))
        record = {"format": FORMAT, "method": self.name, "threshold": self.threshold, "history": self.history}
        write_json(folder / "detector.json", record | {"config": self.config.as_dict()})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a saved detector of this method. Raises WeightsError if a file is missing, damaged or another's."""
        folder = Path(folder)
        try:
            record = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
            if record["format"] != FORMAT or record["method"] != cls.name:
                raise WeightsError(
                    f"{folder / 'detector.json'} holds a {record['method']} detector of format {record['format']}; "
                    f"{cls.name} of format {FORMAT} expected"
                )
            detector = cls(loadable(Config.from_dict(record["config"])))
            detector.threshold, detector.history = record["threshold"], list(record["history"])
            with torch.random.fork_rng(devices=[]):  # networks are drawn before they are filled
                detector.restore(safetensors.torch.load((folder / "model.safetensors").read_bytes()))
        except OSError as error:
            reason = error.strerror
            raise WeightsError(f"{error.filename}: cannot be read ({reason}); save the detector again") from error
        except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError, ConfigError) as error:
            raise WeightsError(f"{folder} holds no whole {cls.name} detector ({error}); save it again") from error
        detector.trained = True
        return detector


def prediction(psi_rgb: Tensor | None, psi_xyz: Tensor | None, psi: Tensor, score: float) -> Prediction:
    """A Prediction of maps (…, S, S); a part that a method does not have is its whole map."""
    maps = [psi if part is None else part for part in (psi_rgb, psi_xyz, psi)]
    arrays = [np.asarray(part.detach().float().cpu()).reshape(part.shape[-2:]) for part in maps]
    return Prediction(*arrays, float(score))
