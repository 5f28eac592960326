"""Many parts through one detector: some threads read and clean the next ones while one is scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from threadpoolctl import threadpool_limits

from mafr.config import Config
from mafr.data import Sample, load_pair
from mafr.errors import ConfigError, DataError
from mafr.parallel.processes import processors
from mafr.predict.parts import PartFiles

if TYPE_CHECKING:
    from mafr.method import Method, Prediction

MOST_READERS = 8  # threads; a GPU scores no more than these read
AHEAD = 4  # parts per thread that are read but not scored yet: some 3 MB each at 400 x 400 pixels

OK, NOT_OK, UNREADABLE = "OK", "not OK", "error"


@dataclass(frozen=True)
class Scored:
    """A part's score and verdict; of one that could not be read or scored the error alone."""

    part: PartFiles
    score: float = float("nan")
    verdict: str = UNREADABLE
    error: str = ""
    sample: Sample | None = None
    prediction: Prediction | None = None


class Scorer:
    """Scores parts by a detector, in their order. A context manager: its threads end with the block.

    Each part is scored by itself, as `Method.predict` does it, so that its result is the same to the byte whatever
    comes before and after it. No more than `AHEAD` parts per reading thread are held.
    """

    def __init__(
        self, detector: Method, threshold: float, plane: str | None = None, intrinsics: str | Path | None = None,
        readers: int = 0,
    ) -> None:  # fmt: skip
        """plane, intrinsics: as in `mafr.data.load_pair`; intrinsics go before a part's own camera. readers: threads
        that read ahead; 0: as many as suit this machine. Raises WeightsError for missing backbones.
        """
        self.detector, self.threshold = detector, threshold
        self.plane, self.intrinsics = plane, intrinsics
        self.readers = readers or max(1, min(MOST_READERS, processors() - 1))
        _ = detector.extractor  # what is missing is said before the first part

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self.readers, "read")
        self._stack = ExitStack()
        self._stack.enter_context(scoring_threads(self.detector.config))
        # Threads of the small products in cleaning would only fight for the processors; they change no result.
        self._stack.enter_context(threadpool_limits(1, user_api="blas"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def __call__(self, parts: Iterable[PartFiles]) -> Iterator[Scored]:
        """The results of some parts, one after the other. Those that cannot be read or scored have an `error`."""
        rest = iter(parts)
        coming = deque((part, self._pool.submit(self._read, part)) for part in islice(rest, AHEAD * self.readers))
        try:
            while coming:
                part, future = coming.popleft()
                sample = future.result()
                del future  # the sample's memory
                coming.extend((later, self._pool.submit(self._read, later)) for later in islice(rest, 1))
                yield self._score(part, sample)
        finally:
            for _, future in coming:
                future.cancel()

    def _read(self, part: PartFiles) -> Sample | str:
        """A part's sample, or the reason that there is none."""
        if part.error:
            return part.error
        try:
            return load_pair(part.rgb, part.xyz, self.detector.config, self.plane, self.intrinsics or part.camera)
        except DataError as error:
            return str(error).strip()
        except Exception as error:  # a decoder's own kind for some damage: the other parts go on
            return f"{part.rgb}, {part.xyz}: cannot be read ({type(error).__name__}: {error}); export the scan again"

    def _score(self, part: PartFiles, sample: Sample | str) -> Scored:
        if isinstance(sample, str):
            return Scored(part, error=sample)
        try:
            prediction = self.detector.predict(sample)
        except DataError as error:
            return Scored(part, error=f"{part.xyz}: {str(error).strip()}")
        return Scored(part, prediction.score, verdict_of(prediction.score, self.threshold), "", sample, prediction)


@contextmanager
def scoring_threads(config: Config) -> Iterator[None]:
    """Score with as many threads as the settings say inside the block; by default small backbones with one.

    Sums of several threads differ in their last bits. With one, a part's score is the same on every number of
    processors, alone or among others, and reading ahead has the other processors.
    """
    from mafr.device import torch_threads

    with torch_threads(config.threads or int(config.rgb_backbone != "dino_vitb8")):
        yield


def verdict_of(score: float, threshold: float) -> str:
    """OK up to the threshold."""
    return OK if score <= threshold else NOT_OK


def threshold_of(detector: Method, folder: str | Path, given: float | None = None) -> tuple[float, str]:
    """The threshold, `given` or the detector's own, and where it comes from in words. Raises ConfigError for none."""
    if given is not None:
        return given, "as given"
    if detector.threshold is None:
        raise ConfigError(f"{folder} has no threshold of its own; give one with --threshold")
    return detector.threshold, f"the {detector.config.quantile:.0%} quantile of good validation scores"
