"""`Method`: fit, predict, calibrate, save and load, the same for MAFR and every compared method."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from mafr.calibration import FalseAlarms
from mafr.config import NEED_STORED, Config, differences
from mafr.data.samples import Sample, labels_of, name_of
from mafr.device import Place, computing, loadable, own_randomness
from mafr.errors import ConfigError, DataError, MafrError, WeightsError
from mafr.features.extract import PARTS, FeatureExtractor
from mafr.features.sources.splits import Split, split_of
from mafr.features.weights.files import WeightFile, reading
from mafr.parallel.progress import bar
from mafr.paths import Paths, write_atomically, write_json
from mafr.scoring import Answer, FinalMaps

FORMAT = 1  # of what `Method.save` writes
WEIGHTS, RECORD = "model.safetensors", "detector.json"


@dataclass(frozen=True)
class Prediction:
    """Maps and image score of one sample."""

    psi_rgb: np.ndarray  # (S, S) float32 residual map, eq. 7, zero where there is no 3D point
    psi_xyz: np.ndarray
    psi: np.ndarray  # (S, S) float32: fused, masked and blurred, eq. 8
    score: float  # higher is more anomalous
    scored: np.ndarray | None = None  # (S, S) bool, the scored pixels; None: those with a 3D point

    @classmethod
    def of(
        cls, psi_rgb: Tensor | None, psi_xyz: Tensor | None, psi: Tensor, score: float, scored: Tensor | None = None
    ) -> Prediction:
        """From maps (…, S, S); `psi` takes the place of a residual map that a method does not have."""
        maps = [psi if part is None else part for part in (psi_rgb, psi_xyz, psi)]
        arrays = [np.asarray(part.detach().float().cpu()).reshape(part.shape[-2:]) for part in maps]
        return cls(*arrays, float(score), None if scored is None else scored.cpu().numpy().reshape(psi.shape[-2:]))


class Method(ABC):
    """A method from samples to scores. Subclasses fill in `train`, `score`, `state` and `restore`.

    `threshold` is the image score above which a sample is not OK, None before `calibrate`; `validation_scores` are
    those of the good validation samples that it was taken from, empty where they are not known; `history` holds the
    mean losses of each epoch.
    """

    name: ClassVar[str]  # in the run store, on the command line and in saved detectors
    reads: tuple[str, ...] = PARTS  # the backbones whose stored tokens the method uses
    draws_features: ClassVar[bool] = False  # whether it supports `extractor_mode` "train"
    takes_windows: ClassVar[bool] = False  # whether it supports `view` "part"
    kept_with_runs: ClassVar[bool] = False  # whether a run stores the detector beside its record

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        self.config = config
        self.threshold: float | None = None
        self.validation_scores: list[float] = []
        self.history: list[dict[str, float]] = []
        self.trained = False
        self.checkpoint: Path | None = None  # where `train` may save its state
        self.held_out: tuple[Split, list[int]] | None = None  # good samples that `train` may judge itself by
        self._extractor = extractor

    @cached_property
    def place(self) -> Place:
        """Device and precision. Raises ConfigError for those that this machine does not have."""
        return Place.of(self.config)

    @classmethod
    def feature_config(cls, config: Config) -> Config:
        """The settings of the stored features that the method uses.

        They differ where it prunes backbones, and where it needs those of the whole image.
        """
        return config if cls.takes_windows else replace(config, view="whole", cell_point="centre")

    @classmethod
    def weight_files(cls, config: Config) -> tuple[WeightFile, ...]:
        """The downloaded files of the method's own backbone, if it has one beside those of the stored features."""
        return ()

    @property
    def extractor(self) -> FeatureExtractor | None:
        """The frozen backbones, loaded when first needed; None for methods that need none."""
        if self._extractor is None and self.reads:
            weights = Paths.resolve(self.config.profile).weights
            self._extractor = FeatureExtractor.from_config(self.feature_config(self.config), weights)
        return self._extractor

    def searches(self) -> list[float]:
        """Seconds of each search in a memory bank so far; none for a method without one."""
        return []

    # ---- filled in by each method

    @abstractmethod
    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        """Learn from the good samples `indices` of `split`; all randomness from `config.seed`."""

    @abstractmethod
    def score(self, split: Split, k: int) -> Prediction:
        """Maps and image score of sample k."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs; it is written to disk, and the cost table gives its size."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`. Raises KeyError or RuntimeError for a state that does not fit."""

    def learn_scales(self, split: Split, indices: Sequence[int]) -> Answer | None:
        """Learn from good validation samples what the scoring needs beside the model; nothing unless overridden.

        Returns the answer for them where it is known by then: what `answer` would find again.
        """
        return None

    def extras(self) -> dict[str, object]:
        """What a saved detector's record holds beside what all methods have."""
        return {}

    def take_extras(self, record: Mapping[str, object]) -> None:  # noqa: B027
        """The inverse of `extras`. Raises KeyError, TypeError or ValueError for a record that does not fit."""

    # ---- shared by all

    @property
    def _exact(self) -> Config:
        # Methods that may use TF32 say so themselves, in blocks of their own inside.
        return replace(self.config, precision="float32") if self.config.precision == "tf32" else self.config

    def fit(self, samples: Sequence[Sample], show: bool = True, validation: Sequence[Sample] | None = None) -> Self:
        """Train on good samples only. Raises DataError if one is labelled anomalous.

        validation: samples that say when to stop, see `fit_split`.
        """
        self.check_training(labels_of(samples), lambda k: name_of(samples[k]))  # before backbones are loaded
        held_out = None if validation is None else split_of(validation, self.extractor)
        return self.fit_split(split_of(samples, self.extractor), show=show, validation=held_out)

    def fit_split(
        self, split: Split, indices: Sequence[int] | None = None, checkpoint: Path | None = None, show: bool = False,
        validation: Split | None = None,
    ) -> Self:  # fmt: skip
        """Train on samples with stored features, or on some `indices` of them; errors as in `fit`.

        checkpoint: where a long training saves its state, and resumes from. validation: its good samples say when to
        stop, where the setting `patience` asks for it.
        """
        chosen = list(range(len(split)) if indices is None else indices)
        self.check_training(split.labels if chosen else [], split.name)
        self.checkpoint = checkpoint
        self.prepare(split, chosen)
        if validation is not None and self.config.patience:
            self.held_out = validation, np.flatnonzero(validation.labels == 0).tolist()
            self.prepare(*self.held_out)
        with computing(self._exact), own_randomness(self.place):
            torch.manual_seed(self.config.seed)
            self.train(split, chosen, show)
        self.trained = True
        return self

    def predict(self, sample: Sample) -> Prediction:
        """Maps and score of one sample."""
        return self.score_split(split_of([sample], self.extractor), [0])[0]

    def score_split(self, split: Split, indices: Sequence[int]) -> list[Prediction]:
        """Maps and scores of some samples. Raises MafrError before the method is trained."""
        self._check_trained("call fit, or load a saved one")
        self.prepare(split, indices)
        with computing(self._exact), torch.inference_mode():
            return [self.score(split, k) for k in indices]

    def answer(self, split: Split, indices: Sequence[int]) -> Answer:
        """Maps and scores of some samples, before a fusion operator is chosen where there are several."""
        found = self.score_split(split, indices)
        maps = torch.from_numpy(np.stack([one.psi for one in found]))[:, None]
        own = replace(self.config, map_scaling="none")  # scaling the maps by metric is the released MAFR's
        return FinalMaps(maps, np.array([one.score for one in found]), own)

    def calibrate(self, samples: Sequence[Sample]) -> float:
        """Set and return the threshold: the `config.quantile` of the scores of good validation samples.

        Their scores are kept in `validation_scores`. Raises MafrError where no sample is good.
        """
        return self.calibrate_split(split_of(samples, self.extractor))

    def calibrate_split(self, split: Split) -> float:
        """`calibrate` on validation samples with stored features."""
        good = np.flatnonzero(split.labels == 0).tolist()
        if good:
            self.prepare(split, good)
            self.learn_scales(split, good)
        return self.calibrate_by([self.score_split(split, [k])[0].score for k in bar(good, what="calibrating")])

    def calibrate_by(self, scores: Sequence[float]) -> float:
        """Set and return the threshold from the scores of good validation samples; errors as in `calibrate`."""
        if not len(scores):
            raise MafrError("calibration needs at least one good validation sample")
        self.validation_scores = [float(score) for score in scores]
        self.threshold = score_threshold(self.validation_scores, self.config.quantile)
        return self.threshold

    @property
    def false_alarms(self) -> FalseAlarms | None:
        """What the threshold promises for new good parts; None where the validation scores are not known."""
        count = len(self.validation_scores)
        return FalseAlarms.of(count, self.config.quantile) if count else None

    def nbytes(self) -> int:
        """Size of `state` in bytes; the frozen backbones do not count."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state().values())

    def prepare(self, split: Split, indices: Sequence[int]) -> None:  # noqa: B027
        """Work before `train` and `score` that may use all of torch's threads; none unless overridden."""

    def check_training(self, labels: Sequence[int], name: Callable[[int], str]) -> None:
        """Refuse samples that cannot be trained on; name: gives sample k's name, for the error."""
        if not len(labels):
            raise MafrError("training needs at least one sample")
        if self.config.extractor_mode == "train" and not self.draws_features:
            raise ConfigError(NEED_STORED)
        if (odd := np.flatnonzero(labels)).size:
            raise DataError(
                f"{name(odd[0])} is an anomalous sample; train on good samples only, the others belong to the test "
                "folder"
            )

    def _check_trained(self, advice: str) -> None:
        if not self.trained:
            raise MafrError(f"this detector is not trained yet; {advice}")

    # ---- on the disk

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `detector.json` into `folder`; returns it."""
        self._check_trained("nothing to save")
        folder = Path(folder)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state().items()}
        write_atomically(folder / WEIGHTS, safetensors.torch.save(state))
        record = {"format": FORMAT, "method": self.name, "threshold": self.threshold, "history": self.history}
        record |= self.extras()
        if self.false_alarms:
            record["validation_scores"] = self.validation_scores
            record["false_alarms"] = self.false_alarms.as_dict()
        write_json(folder / RECORD, record | {"config": self.config.as_dict()})
        return folder

    @classmethod
    def load(cls, folder: str | Path, config: Config | None = None) -> Self:
        """Read a saved detector of this method.

        Raises WeightsError if a file is missing, damaged or another method's, and where `config`, if given, differs in
        a setting that decides the features or the model.
        """
        folder = Path(folder)
        record = read_record(folder)
        try:
            if record.get("method", cls.name) != cls.name:
                raise WeightsError(f"{folder / RECORD} holds a {record['method']} detector; {cls.name} expected")
            threshold, history = record["threshold"], list(record["history"])
            if not isinstance(record["config"], dict) or not isinstance(threshold, int | float | None):
                raise TypeError("config is no dict, or threshold no number")
            saved = Config.from_dict(record["config"])
            scores = [float(score) for score in record.get("validation_scores", ())]  # older detectors have none
            if not np.isfinite([*scores, *([] if threshold is None else [float(threshold)])]).all():
                raise ValueError(f"threshold {threshold} or a validation score is no finite number")
        except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
            path = folder / RECORD
            raise WeightsError(f"{path} lacks what this version needs ({error}); save the detector again") from error
        if config is not None and (odd := differences(saved, config, cls.name)):
            raise WeightsError(f"{folder} holds a detector of another configuration: {'; '.join(odd)}")
        detector = cls(loadable(saved))
        detector.threshold, detector.validation_scores, detector.history = threshold, scores, history
        with reading(folder / WEIGHTS, "detector", "save the detector again"):
            state = safetensors.torch.load((folder / WEIGHTS).read_bytes())
        try:
            with torch.random.fork_rng(devices=[]):  # networks are drawn before they are filled
                detector.restore(state)
            detector.take_extras(record)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise WeightsError(
                f"{folder} holds no complete {cls.name} detector: {WEIGHTS} does not fit its own {RECORD} ({error}); "
                "save it again"
            ) from error
        detector.trained = True
        return detector


def score_threshold(scores: Sequence[float], quantile: float) -> float:
    """The `quantile` of good validation scores, linear between them."""
    return float(np.quantile(np.asarray(scores, dtype=np.float64), quantile))


def read_record(folder: Path) -> dict:
    """The `detector.json` of any method. Raises WeightsError where it is missing, damaged or of another version."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{path} is missing; a saved detector is a folder with {RECORD} and {WEIGHTS}, written by `mafr fit` or "
            "Detector.save"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read as a saved detector ({error}); save it again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise WeightsError(f"{path} is no detector of format {FORMAT}; it was written by another version of mafr")
    return record
