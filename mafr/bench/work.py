"""The processes of `mafr bench`: one path each, one stage at a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from mafr.bench.plain import PlainPipeline, plain_metrics
from mafr.bench.plain_features import plain_features
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.detector import Detector
from mafr.device import Place, compiling, computing, gpu_products, instruction_sets, why_precision
from mafr.experiments.provenance import peak_megabytes, reset_peak, resident_megabytes
from mafr.fast.layers import Dropout
from mafr.fast.restorer import Restorer, open_scene
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.metrics import evaluate
from mafr.model import MAFR
from mafr.processor import limited, processor_name

METRIC_MAPS = 40  # maps whose metrics are computed


@dataclass(frozen=True)
class Case:
    """One comparison: settings, share of valid pixels, and the file that hands tokens from process to process."""

    config: Config
    share: float
    tokens: Path


@dataclass(frozen=True)
class Measured:
    """One repetition of a stage."""

    seconds: float
    megabytes: float
    result: np.ndarray | None  # the anomaly map, where one is made


def make_sample(config: Config, share: float, seed: int = 0) -> Sample:
    """A processed sample with exactly the share of valid pixels, a bumpy disc with a smooth random image."""
    rng, side = np.random.default_rng(seed), config.image_size
    y, x = np.mgrid[:side, :side] / side - 0.5
    coarse = torch.from_numpy(rng.random((1, 3, 16, 16), dtype=np.float32))
    rgb = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)[0].numpy()
    height = 0.4 + 0.01 * np.sin(25 * x + 1) * np.cos(20 * y) + 0.0002 * rng.standard_normal(x.shape)
    xyz = np.stack([0.1 * x + 0.2, 0.1 * y + 0.2, height]).astype(np.float32)
    order = np.argsort(np.hypot(x, 0.8 * y), axis=None, kind="stable")
    xyz.reshape(3, -1)[:, order[round(share * side * side) :]] = 0
    gt = np.zeros((1, side, side), dtype=bool)
    return Sample(rgb=rgb, xyz=xyz, gt=gt, label=0, defect="good", category="bench", id="000")


def make_maps(config: Config, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """gt (N, S, S) bool and maps (N, S, S) float32 with weak anomalies in half of them."""
    rng, side = np.random.default_rng(seed), config.image_size
    maps = rng.random((METRIC_MAPS, side, side), dtype=np.float32)
    gt = np.zeros(maps.shape, dtype=bool)
    for k in range(METRIC_MAPS // 2):
        top, left = rng.integers(0, side * 3 // 4, size=2)
        gt[k, top : top + side // 8, left : left + side // 6] = True
    maps[gt] += 0.4
    return gt, maps


def serve(kind: str, case: Case, line: Connection) -> None:
    """Answer the parent until it hangs up, by EOFError.

    kind: "plain", "sample", "tokens", or "machine" for one answer.
    """
    if kind == "machine":
        line.send(describe_machine(case.config))
        return
    work = _Work(kind, case)
    line.send("ready")
    while True:
        what, stage = line.recv()
        line.send(work.count(stage) if what == "count" else work.run(stage))


_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # torch counts a GPU's only
_COUNTED_AS = {torch.ops.aten.addmm_: torch.ops.aten.addmm}  # torch has no formula for the one in place


class _Operations(TorchDispatchMode):
    """Counts by torch's own formulas; its `FlopCounterMode` also follows modules, which nested gradients break."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        formula, kwargs = flop_registry.get(_COUNTED_AS.get(func._overloadpacket, func._overloadpacket)), kwargs or {}
        if func._overloadpacket is _ATTENTION:
            self.total += sdpa_flop_count(*(part.shape for part in args[:3]))
            return func(*args, **kwargs)
        if formula is None:  # without gradients, composite operations arrive whole
            with self:
                out = func.decompose(*args, **kwargs)
            return out if out is not NotImplemented else func(*args, **kwargs)
        out = func(*args, **kwargs)
        self.total += formula(*args, **kwargs, out_val=out)
        return out


class _Work:
    def __init__(self, kind: str, case: Case) -> None:
        self.loaded = resident_megabytes()  # the libraries are in memory, nothing of the method is
        config = case.config
        if kind == "plain":
            config = replace(config, precision="float32")
        self.config, self.case, self.place = config, case, Place.of(config)
        self.sample = make_sample(config, case.share)
        torch.manual_seed(0)
        self.model = MAFR.from_config(config).to(self.place.device)
        self.stages: dict[str, Callable[[], Tensor | None]] = getattr(self, f"_{kind}")()

    def run(self, stage: str) -> Measured:
        """One repetition, with its own peak of memory where the system tells it."""
        _reset_peak(self.place)
        with computing(self.config):
            if self.place.device.type == "cuda":
                self.stages[stage]()  # which takes back the memory that `_reset_peak` has returned
            self._wait()
            start = time.perf_counter()
            result = self.stages[stage]()
            self._wait()
            seconds = time.perf_counter() - start
        array = None if result is None else result.detach().float().cpu().numpy()
        return Measured(seconds, _peak(self.place) - (0 if self.place.device.type == "cuda" else self.loaded), array)

    def count(self, stage: str) -> float:
        """10⁹ floating-point operations of the stage's matrix products and convolutions."""
        if stage == "metrics":
            return 0.0
        with _Operations() as counter, compiling(None):
            self.stages[stage]()
        return counter.total / 1e9

    def _wait(self) -> None:
        if self.place.device.type == "cuda":
            torch.cuda.synchronize()

    def _plain(self) -> dict[str, Callable]:
        extractor = FeatureExtractor.from_config(self.config, random_weights=True)
        pipeline = PlainPipeline(self.model, extractor, self.config)
        optimiser: list[torch.optim.Optimizer] = []
        maps = make_maps(self.config)

        def step() -> None:
            if not optimiser:
                optimiser.append(torch.optim.Adam(self.model.parameters(), lr=self.config.learning_rate))
            self.model.train()
            pipeline.step(self.sample, optimiser[0])

        torch.manual_seed(0)  # the weights as they were before any step
        untouched = MAFR.from_config(self.config).to(self.place.device).eval()

        def predict() -> Tensor:
            pipeline.model = untouched
            try:
                return pipeline.predict(self.sample)
            finally:
                pipeline.model = self.model

        return {
            "extraction": lambda: plain_features(extractor, self.sample) and None,
            "training step": step,
            "inference": predict,
            "metrics": lambda: plain_metrics(*maps) and None,
        }

    def _detector(self, extractor: FeatureExtractor | None = None) -> Detector:
        torch.manual_seed(0)
        model = MAFR.from_config(self.config).to(self.place.device).eval()
        return Detector.of_model(model, self.config, extractor)

    def _sample(self) -> dict[str, Callable]:
        extractor = FeatureExtractor.from_config(self.config, random_weights=True)
        detector = self._detector(extractor)
        tokens = extractor.extract(self.sample)
        torch.save([tokens.rgb, tokens.xyz, tokens.index, tokens.weight], self.case.tokens)
        return {
            "extraction": lambda: extractor.extract(self.sample) and None,
            "sample to map": lambda: torch.from_numpy(detector.predict(self.sample).psi)[None, None],
        }

    def _tokens(self) -> dict[str, Callable]:
        config, place = self.config, self.place
        tokens = Tokens(*torch.load(self.case.tokens, weights_only=True))
        detector = self._detector()
        optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, fused=True)
        restorer, steps, maps = Restorer(self.model, config, place), iter(range(10**9)), make_maps(config)
        valid = torch.from_numpy(self.sample.valid)[None]

        def step() -> None:
            self.model.train()
            scene = open_scene(tokens, config, place, every_pixel=not config.valid_only)
            optimiser.zero_grad(set_to_none=True)
            restorer.step(scene, Dropout(config.dropout, (0, next(steps))))
            optimiser.step()

        return {
            "training step": step,
            "inference from tokens": lambda: detector.anomaly_map(tokens, valid)[2],
            "metrics": lambda: evaluate(*maps) and None,
        }


def difference(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """|a - b| / |b|, NaN where one is missing."""
    return float("nan") if a is None or b is None else float(np.linalg.norm(a - b) / np.linalg.norm(b))


def describe_machine(config: Config) -> dict[str, float | str | list[str]]:
    """Name, precision and its reason, instruction sets, and rates of matrix products, in 10⁹ operations a second."""
    place = Place.of(config)
    names = {**place.describe(), "why": why_precision(config), "instruction_sets": list(instruction_sets())}
    if place.device.type == "cpu":
        names["device"] = processor_name() + (f", same bytes: {limited()}" if limited() else "")
    with computing(config):
        rates = {"gflops": _rate(place.device, place.dtype)}
    with gpu_products("float32"):
        rates["gflops_float32"] = _rate(place.device, torch.float32)
    return {**names, "threads": torch.get_num_threads(), "torch": torch.__version__, **rates}


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    side, best = (8192 if device.type == "cuda" else 2048), float("inf")
    a = torch.randn(side, side, device=device).to(dtype)
    for _ in range(8):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def _reset_peak(place: Place) -> None:
    if place.device.type == "cuda":
        torch.cuda.empty_cache()  # the other path's process has the rest of the card
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak()


def _peak(place: Place) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if place.device.type == "cuda" else peak_megabytes()
