"""`mafr bench --steps`: one training step on one thread, plain, general and as trained, beside its products alone.

A small step is a few hundred rows wide. What its matrix products take by themselves is the floor: they are run again,
in the step's order, on the arrays that the step gave them, each with an array of its own for its result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mafr.baselines.ast import AST
from mafr.baselines.cfm import CFM
from mafr.baselines.parts.flow import likelihood_loss
from mafr.baselines.parts.student import distance
from mafr.bench.work import describe_machine, make_sample
from mafr.config import Config
from mafr.device import Place, computing
from mafr.fast.convolution import rows_of
from mafr.fast.layers import Dropout
from mafr.fast.restorer import Restorer, Scene, open_scene
from mafr.fast.weights import FlatWeights
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.features.interpolation import densify
from mafr.losses import CompositeLoss
from mafr.model import MAFR
from mafr.parallel.progress import bar

WARM_UP = 3  # steps that are not counted
WITHOUT_ATTENTION = ", without attention"


@dataclass(frozen=True)
class StepRow:
    """Milliseconds of a step, the best of the repetitions."""

    method: str
    plain_ms: float  # the networks as torch modules, with automatic gradients
    general_ms: float  # as trained at sizes where arithmetic dominates
    product_ms: float  # as trained here
    floor_ms: float  # its matrix products alone
    gflop: float  # of these products

    @property
    def over_floor(self) -> float:
        """How many times its products the step takes."""
        return self.product_ms / self.floor_ms


@dataclass(frozen=True)
class Steps:
    """The three ways of one step."""

    method: str
    plain: Callable[[], object]
    general: Callable[[], object]
    product: Callable[[], object]


def step_times(config: Config, share: float = 0.25, repeats: int = 40) -> tuple[dict, list[StepRow]]:
    """Measure: (the machine, rows). share: of the image's pixels with a 3D point."""
    config = replace(config, random_weights=True, device="cpu", precision="float32", threads=1)
    sample = make_sample(config, share)
    tokens = FeatureExtractor.from_config(config, random_weights=True).extract(sample)
    with computing(config):
        cases = list(_cases(config, tokens))
        return describe_machine(config), [_measure(case, repeats) for case in bar(cases, what="steps")]


def _cases(config: Config, tokens: Tokens) -> Iterator[Steps]:
    for variant in ("paper", "released"):
        yield mafr_steps(config.with_variant(variant), tokens)
    yield mafr_steps(replace(config.with_variant("paper"), cbam_scope="none"), tokens)
    yield cfm_steps(config, tokens)
    yield from ast_steps(config)


def mafr_steps(config: Config, tokens: Tokens) -> Steps:
    """MAFR's step in a variant, batch 1 as trained."""
    place = Place.of(config)
    scene = replace(open_scene(tokens, config, place, every_pixel=not config.valid_only), remember=True)

    def from_scene(way: Callable[[Restorer], Callable[[Scene, Dropout], object]]) -> Callable[[], None]:
        model = _model(config)
        weights = FlatWeights(model)
        optimiser, step = _adam([weights.vector], config), way(Restorer(model, config, place))
        numbers = iter(range(10**9))

        def run() -> None:
            weights.zero()
            step(scene, Dropout(config.dropout, (0, next(numbers))))
            optimiser.step()

        return run

    model, loss = _model(config), CompositeLoss(config)
    optimiser = _adam(model.parameters(), config)
    e_rgb, e_xyz, valid = densify(tokens, config)

    def plain() -> None:
        e_rgb_hat, e_xyz_hat = model(e_rgb, e_xyz, valid if config.valid_only else None)
        total, _ = loss(e_rgb, e_rgb_hat, e_xyz, e_xyz_hat, valid)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()

    general, product = (from_scene(way) for way in (lambda r: r.general_step, lambda r: r.step))
    name = f"MAFR, {config.variant}" + (WITHOUT_ATTENTION if config.cbam_scope == "none" else "")
    return Steps(name, plain, general, product)


def cfm_steps(config: Config, tokens: Tokens) -> Steps:
    """CFM's step on a batch, both mappings."""
    place, options = Place.of(config), {"lr": config.cfm_learning_rate, "fused": True}
    scenes = [replace(open_scene(tokens, config, place, both=False), remember=True) for _ in range(config.cfm_batch)]

    def from_scenes(name: str) -> Callable[[], None]:
        method = _cfm(config)
        weights = FlatWeights(method.maps)
        optimiser, step = torch.optim.Adam([weights.vector], **options), getattr(method, name)

        def run() -> None:
            weights.zero()
            step(scenes)
            optimiser.step()

        return run

    maps = _cfm(config).maps
    optimiser = torch.optim.Adam(maps.parameters(), **options)
    e_rgb, e_xyz, valid = densify(tokens, config)
    rgb, xyz = (e[0].flatten(1).T[valid.flatten()].repeat(config.cfm_batch, 1) for e in (e_rgb, e_xyz))

    def plain() -> None:
        found = ((maps["to_rgb"], xyz, rgb), (maps["to_xyz"], rgb, xyz))
        total = sum((1 - F.cosine_similarity(mapping(x), wanted)).mean() for mapping, x, wanted in found)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()

    return Steps("CFM", plain, from_scenes("general_step"), from_scenes("step"))


def _cfm(config: Config) -> CFM:
    torch.manual_seed(0)
    method = CFM(config)
    method.maps = method.new_maps()
    return method


def ast_steps(config: Config) -> Iterator[Steps]:
    """AST's steps on a batch: the teacher's, then the student's. Elsewhere they are trained by automatic gradients."""
    from mafr.baselines.parts.flow_step import FlowStep
    from mafr.baselines.parts.student_step import StudentStep

    options = {"lr": config.ast_learning_rate, "weight_decay": config.ast_weight_decay, "fused": True}
    methods = [_ast(config) for _ in range(2)]
    side, channels = methods[0].side, methods[0].channels
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(2, config.ast_batch, channels, side, side, generator=generator)
    weight, positions = torch.rand(config.ast_batch, 1, side, side, generator=generator), methods[0].positions
    seen = torch.cat([positions.expand(len(x), -1, -1, -1), x], dim=1)

    def by_modules(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
        network.train()
        optimiser = torch.optim.Adam(network.parameters(), **options)

        def run() -> None:
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()

        return run

    def by_rows(step: FlowStep | StudentStep, *inputs: Tensor) -> Callable[[], None]:
        optimiser = torch.optim.Adam([step.weights.vector], **options)

        def run() -> None:
            step(*inputs)
            optimiser.step()

        return run

    rows, other = [rows_of(part) for part in (x, seen)], methods[1]
    teacher, student = methods[0].teacher, methods[0].student
    plain = by_modules(teacher, lambda: likelihood_loss(*teacher(x, positions), weight))
    product = by_rows(FlowStep(other.teacher, positions), rows[0], weight.flatten())
    yield Steps("AST, teacher", plain, plain, product)
    plain = by_modules(student, lambda: distance(target, student(seen), weight).mean())
    product = by_rows(StudentStep(other.student, side, side), rows[1], rows_of(target), weight.flatten())
    yield Steps("AST, student", plain, plain, product)


def _ast(config: Config) -> AST:
    torch.manual_seed(0)
    method = AST(config)
    method.build()
    return method


def _model(config: Config) -> MAFR:
    torch.manual_seed(0)
    return MAFR.from_config(config).train()


def _adam(parameters: Sequence[nn.Parameter] | Iterator[nn.Parameter], config: Config) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)


class _Products(TorchDispatchMode):
    """Keeps the matrix products that run inside, with arrays of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []
        self.flop = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_", "bmm", "baddbmm"):
            x, y = (_copy(part) for part in args[-2:])
            out = torch.empty(*x.shape[:-1], y.shape[-1])
            multiply = torch.mm if x.dim() == 2 else torch.bmm
            self.calls.append(lambda: multiply(x, y, out=out))
            self.flop += 2 * x.numel() * y.shape[-1]
        elif name in ("convolution", "convolution_backward"):
            copies = [_copy(part) if isinstance(part, Tensor) else part for part in args]
            self.calls.append(lambda: func(*copies, **kwargs))
            self.flop += flop_registry[func._overloadpacket](*args, **kwargs, out_val=func(*args, **kwargs))
        return func(*args, **kwargs)


def _copy(tensor: Tensor) -> Tensor:
    """An array of its own of the same strides."""
    return torch.empty_strided(tensor.shape, tensor.stride()).copy_(tensor)


def _measure(case: Steps, repeats: int) -> StepRow:
    for _ in range(WARM_UP):
        case.product()
    with _Products() as products:
        case.product()

    def floor() -> None:
        for call in products.calls:
            call()

    ways = (case.plain, case.general, case.product, floor)
    best = [float("inf")] * len(ways)
    for turn in range(WARM_UP + repeats):  # in turn, so that a slow minute of the machine falls on all
        for number, way in enumerate(ways):
            if number == 0 and turn % 8:
                continue  # by far the slowest
            start = time.perf_counter()
            way()
            if turn >= WARM_UP:
                best[number] = min(best[number], time.perf_counter() - start)
    return StepRow(case.method, *(1e3 * seconds for seconds in best), products.flop / 1e9)


def report(machine: dict, rows: Sequence[StepRow]) -> str:
    """The measurement as a table to print."""
    width = max(16, *(len(row.method) for row in rows))
    lines = [
        f"one training step on one thread of {machine['device']}, {machine['gflops']:,.0f} GFLOP/s in large products; "
        "milliseconds, the best of the repetitions",
        "",
        f"{'method':{width}} {'plain':>8} {'general':>8} {'product':>8} {'floor':>8} {'product/floor':>14} "
        f"{'plain/product':>14} {'GFLOP':>7}",
    ]
    for row in rows:
        lines.append(
            f"{row.method:{width}} {row.plain_ms:8.2f} {row.general_ms:8.2f} {row.product_ms:8.2f} {row.floor_ms:8.2f} "
            f"{row.over_floor:14.1f} {row.plain_ms / row.product_ms:14.1f} {row.gflop:7.2f}"
        )
    return "\n".join(lines)


def as_json(config: Config, machine: dict, rows: Sequence[StepRow]) -> dict:
    """The same for a file, with the date."""
    head = {"kind": "steps", "date": date.today().isoformat(), "profile": config.profile, "machine": machine}
    return {**head, "steps": [{**asdict(row), "over_floor": row.over_floor} for row in rows]}
