"""Device, precision of matrix products, and compilation of kernels of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache, wraps

import torch

from mafr.config import Config
from mafr.errors import ConfigError
from mafr.processor import HOW, limited

EMULATED: ContextVar[bool] = ContextVar("EMULATED", default=False)  # see `mafr.bench.emulation`


@dataclass(frozen=True)
class Place:
    """A device and the type of matrix products there; sums, statistics, losses and weights stay float32."""

    device: torch.device
    dtype: torch.dtype
    tf32: bool = False  # whether a GPU's tensor cores may round the factors of float32 products to 10 bits

    @classmethod
    def of(cls, config: Config) -> Place:
        """Resolve the settings `device` and `precision` on this machine.

        Raises ConfigError for "cuda" without a GPU that the installed torch supports, for "bfloat16" where the hardware
        would emulate it, for "tf32" anywhere but on a GPU that has it, and for what contradicts the limit of
        `mafr.processor`, with which "auto" means the processor and float32.
        """
        wanted, same_bytes = config.device, limited()
        if same_bytes:
            _check_limited(config)
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() and not same_bytes else "cpu"
        if wanted == "cuda" and not torch.cuda.is_available():
            raise ConfigError('device is "cuda", but torch finds no GPU here; use --set device=cpu')
        # With its number, because threads that prepare samples have their own current GPU.
        device = torch.device("cuda", _this_gpu()) if wanted == "cuda" else torch.device(wanted)
        native = native_bfloat16(device.type) or (EMULATED.get() and device.type == "cpu")
        if config.precision == "bfloat16" and not native:
            raise ConfigError(
                'precision is "bfloat16", which this hardware does not multiply natively; use --set precision=float32 '
                'or precision=auto'
            )
        tf32 = config.precision == "tf32"
        if tf32 and not (device.type == "cuda" and native):  # the same generation brought both
            raise ConfigError(
                'precision is "tf32", which only GPUs from compute capability 8.0 on have; use --set precision=auto'
            )
        auto = config.precision == "auto" and not same_bytes and fast_bfloat16(device.type)
        half = config.precision == "bfloat16" or auto
        return cls(device, torch.bfloat16 if half else torch.float32, tf32)

    @property
    def half(self) -> bool:
        """Whether matrix products take bfloat16."""
        return self.dtype == torch.bfloat16

    @property
    def precision(self) -> str:
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    @property
    def kind(self) -> str:
        """In words, what must be the same where numbers are to be comparable: the kind of device and the precision."""
        return f"{self.device.type} in {self.precision}"

    def describe(self) -> dict[str, str]:
        """The device's name and the precision, for records."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "precision": self.precision}


def _check_limited(config: Config) -> None:
    """Raises ConfigError where the limit of `mafr.processor` came too late for torch, or rules a setting out."""
    if (taken := torch.backends.cpu.get_cpu_capability()) != "AVX2":
        raise ConfigError(f"the same bytes have no effect: torch computes by {taken} code, not AVX2; {HOW}")
    wrong = [] if config.device != "cuda" else ["device=cpu"]
    if config.precision in ("bfloat16", "tf32") and not EMULATED.get():
        wrong.append("precision=float32")
    wrong += ["compiled=false"] if config.compiled else []
    if wrong:
        raise ConfigError(f"the same bytes on other processors need --set {' --set '.join(wrong)}")


def _this_gpu() -> int:
    number = torch.cuda.current_device()
    major, minor = torch.cuda.get_device_capability(number)
    names = (name.partition("_") for name in torch.cuda.get_arch_list())
    built = [(kind, int(n.rstrip("af"))) for kind, _, n in names]
    # Machine code serves later minor versions of the same major one, intermediate code everything later.
    fits = [n <= 10 * major + minor and (kind == "compute" or n // 10 == major) for kind, n in built]
    if built and not any(fits):
        raise ConfigError(
            f"the installed torch {torch.__version__} does not support this GPU ({torch.cuda.get_device_name(number)}, "
            f"compute capability {major}.{minor}); use --set device=cpu, or a build of torch for it"
        )
    return number


def loadable(config: Config) -> Config:
    """Saved settings for use on this machine: without a missing GPU or precision, and without compilation."""
    missing = config.device == "cuda" and not torch.cuda.is_available()
    config = replace(config, compiled=False, device="cpu" if missing else config.device)
    try:
        Place.of(config)
    except ConfigError:
        return replace(config, precision="auto")
    return config


def send(tensor: torch.Tensor, device: torch.device | None) -> torch.Tensor:
    """A CPU tensor on another device; to a GPU through pinned memory, without waiting for the copy."""
    if device is None or device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Limit torch to `count` threads inside the block (0: no change)."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def own_randomness(place: Place) -> Iterator[None]:
    """Confine random states, on the CPU and at the place, to the block."""
    with torch.random.fork_rng(devices=[place.device] if place.device.type == "cuda" else []):
        yield


@contextmanager
def computing(config: Config) -> Iterator[None]:
    """Apply the settings inside the block: threads, a GPU's products, compiled kernels."""
    with torch_threads(config.threads), gpu_products(config.precision), compiling(config.compiled):
        yield


@contextmanager
def gpu_products(precision: str) -> Iterator[None]:
    """Set a GPU's products inside the block; without a GPU nothing happens.

    TF32 only with `precision` "tf32" (torch's default is on for convolutions, off for matrix products), sums of
    bfloat16 products in float32, and only deterministic convolutions of cuDNN.
    Raises ConfigError where torch's older and newer settings of TF32 contradict each other.
    """
    if not torch.cuda.is_available():
        yield
        return
    matmul, cudnn, tf32 = torch.backends.cuda.matmul, torch.backends.cudnn, precision == "tf32"
    wanted = [
        (matmul, "allow_tf32", tf32),
        (cudnn, "allow_tf32", tf32),
        (matmul, "allow_bf16_reduced_precision_reduction", False),
        (cudnn, "deterministic", True),
    ]
    try:
        before = [getattr(backend, name) for backend, name, _ in wanted]
    except RuntimeError as error:
        raise ConfigError(
            f"torch's settings of TF32 contradict each other ({str(error).partition('. ')[0]}); leave `fp32_precision` "
            "and `allow_tf32` alone, mafr sets them by the setting precision"
        ) from error
    for backend, name, value in wanted:
        setattr(backend, name, value)
    try:
        yield
    finally:
        for (backend, name, _), value in zip(wanted, before, strict=True):
            setattr(backend, name, value)


# Of x86 processors, from old to new -> how torch asks for them.
_INSTRUCTION_SETS = {
    "AVX2": "_is_avx2_supported", "AVX512": "_is_avx512_supported", "AVX512_BF16": "_is_avx512_bf16_supported",
    "AMX": "_is_amx_tile_supported",
}  # fmt: skip
# Words in the names of oneDNN's levels that include bfloat16 products, and those of AMX.
_ALLOWING = {"AVX512_BF16": ("BF16", "FP16", "AVX10", "AMX"), "AMX": ("AMX",)}


def instruction_sets() -> tuple[str, ...]:
    """The processor's instruction sets that matter to matrix products: of AVX2, AVX512, AVX512_BF16 and AMX."""
    return tuple(name for name, question in _INSTRUCTION_SETS.items() if getattr(torch.cpu, question, bool)())


@cache
def native_bfloat16(kind: str, number: int | None = None) -> bool:
    """Whether "cpu" or "cuda" (GPU `number`, None: the current one) natively multiplies bfloat16 with float32 sums."""
    if kind == "cuda":
        return torch.cuda.get_device_capability(number) >= (8, 0)
    return _usable("AVX512_BF16") or _usable("AMX")


@cache
def fast_bfloat16(kind: str, number: int | None = None) -> bool:
    """Whether products of bfloat16 are faster there than those of float32, so that `precision` "auto" takes them.

    On GPUs wherever they are native. On processors with AMX only: with AVX512_BF16 alone they are slower (measured
    there: 180 GFLOP/s against 250 to 316 in float32).
    """
    return native_bfloat16(kind, number) if kind == "cuda" else _usable("AMX")


def why_precision(config: Config) -> str:
    """One sentence on the products' type that `Place.of` takes, and why."""
    place = Place.of(config)
    taken = place.describe()["precision"]
    if config.precision != "auto":
        return f"{taken}, as set"
    if place.device.type == "cuda":
        rule = "compute capability 8.0 or later" if place.half else "compute capability below 8.0"
        return f"auto took {taken}: a GPU of {rule}"
    if place.half:
        return f"auto took {taken}: the processor multiplies bfloat16 by AMX"
    if _has_amx():
        return f"auto took {taken}: the processor has AMX, but ONEDNN_MAX_CPU_ISA={_isa_limit()} forbids it"
    if "AVX512_BF16" in instruction_sets():
        return f"auto took {taken}: without AMX, by AVX512_BF16 alone, bfloat16 products are slower"
    return f"auto took {taken}: the processor has no bfloat16 products"


def _usable(name: str) -> bool:
    """Whether the processor has AVX512_BF16 or AMX and no limit set by the user forbids it."""
    limit = _isa_limit()
    allowed = limit in ("", "ALL", "DEFAULT") or any(word in limit for word in _ALLOWING[name])
    return allowed and (_has_amx() if name == "AMX" else name in instruction_sets())


def _has_amx() -> bool:
    # The system must grant it too: an emulating or older kernel may refuse what the processor has.
    return "AMX" in instruction_sets() and getattr(torch.cpu, "_init_amx", lambda: True)()


def _isa_limit() -> str:
    """The newest instruction set that the user lets oneDNN use; "" without a limit."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()


# Pointwise chains are not compiled unless asked for: that needs a C++ compiler (on a GPU also Triton) and minutes of
# warm-up. CUDA graphs are no alternative: they fix all shapes, and each sample has its own number of pixels.
# The requests belong to the process, not to a context, since a GPU's backward passes run in autograd's own threads.
_requests: list[bool | None] = [False]


@contextmanager
def compiling(wanted: bool | None) -> Iterator[None]:
    """Compile kernels inside the block, or not; None: not, whatever blocks inside it say."""
    _requests.append(None if _requests[-1] is None else wanted)
    try:
        yield
    finally:
        _requests.pop()


def kernel(function: Callable) -> Callable:
    """Mark a function of tensors for `compiling`. Calls raise ConfigError where torch cannot compile."""

    @wraps(function)
    def call(*args: object) -> object:
        if not _requests[-1]:
            return function(*args)
        try:
            return _compiled(function)(*args)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"compiled is set, but torch cannot compile here ({reason}); install a C++ compiler such as g++, or "
                "leave the setting out"
            ) from error

    return call


@cache
def _compiled(function: Callable) -> Callable:
    return torch.compile(function, dynamic=True)  # sizes differ from sample to sample
