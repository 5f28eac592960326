"""The processor: its name, and the limit with which results repeat to the byte on other processors.

Libraries choose their code by the processor. With AVX-512 they add longer vectors, so in another order, and take other
approximations of functions: the last bits differ, and a training carries the difference on. The limit makes each of
them choose what it chooses on a processor with AVX2. On AMD's, MKL takes code of its own even then, so there are two
reaches: "intel", Intel's processors with AVX2, where products run at about 0.6 of their speed with AVX-512; and "x86",
AMD's too, where they run at about 0.25, by MKL's oldest code.

The limit is a set of environment variables that each library reads when it is loaded or first used, and that processes
started later inherit.

Tried on one Xeon with AVX-512, and on a Haswell and an EPYC that were emulated in software: there generated data,
products, functions and a training of the variant `released` come out the same to the byte, and so does each value of a
training step of `paper`, on the Haswell.
"""

import os
import platform
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from mafr.errors import ConfigError, notice

REACHES = {"intel": "Intel processors with AVX2", "x86": "x86-64 processors with AVX2"}
_LOADED = ("numpy", "torch")  # and with them scipy: too late for a limit
_LIMITS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch's convolutions; its products of bfloat16 go with it
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's and scipy's matrix products
}
_MKL = "MKL_CBWR", {"intel": "AVX2", "x86": "COMPATIBLE"}  # torch's matrix products, decompositions, some functions
_NUMPY = "NPY_DISABLE_CPU_FEATURES"  # numpy's exp, log, sin and others
_SINCE_2_4, _BEFORE = "X86_V4 AVX512_ICL AVX512_SPR", "AVX512F AVX512CD AVX512_SKX AVX512_ICL"  # its names for AVX-512
HOW = "start the process with it: `mafr same-bytes REACH COMMAND`, such as `mafr same-bytes x86 jupyter lab`"


def processor_name() -> str:
    """The processor's model name as the system tells it."""
    return _told("model name") or platform.processor() or platform.machine()


@lru_cache
def _told(what: str) -> str:
    """What Linux says of the first processor, "" elsewhere."""
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((row.partition(":")[2].strip() for row in rows if row.startswith(what)), "")


@lru_cache
def limits(reach: str) -> dict[str, str]:
    """The environment variables of the limit with a reach, of `REACHES`."""
    numbers = [int(n) for n in re.findall(r"\d+", version("numpy"))[:2]]
    name, codes = _MKL
    return {**_LIMITS, name: codes[reach], _NUMPY: _SINCE_2_4 if numbers >= [2, 4] else _BEFORE}


def limited() -> str:
    """The reach that this process is limited to, "" without a limit."""
    return next((reach for reach in REACHES if limits(reach).items() <= os.environ.items()), "")


def common_reach(reaches: Iterable[str]) -> str:
    """The reach of a result of several inputs: theirs where all have the same, "" where one has none or another."""
    found = set(reaches)
    return found.pop() if len(found) == 1 else ""


def limit(reach: str) -> None:
    """Limit this process and those that it starts, so that results repeat on the processors of a reach.

    Must come before numpy and torch are loaded: raises ConfigError where they are, and on a processor beyond the reach.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise ConfigError(f"the same bytes are for x86-64 processors; this is {platform.machine()}")
    if reach == "intel" and _told("vendor_id") not in ("GenuineIntel", ""):
        raise ConfigError(f"this processor ({processor_name()}) is not Intel's; for the same bytes here too take x86")
    if limited() == reach:
        return
    if loaded := [name for name in _LOADED if name in sys.modules]:
        raise ConfigError(f"the same bytes have no effect once {' and '.join(loaded)} are loaded; {HOW}")
    for name, value in limits(reach).items():
        if os.environ.get(name, value).upper() != value.upper():
            notice(f"for the same bytes {name} is {value} now, not {os.environ[name]}")
    os.environ.update(limits(reach))
