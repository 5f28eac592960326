"""The processor: its name, and the limit to AVX2 with which results repeat on other x86-64 processors.

Libraries choose their code by the processor. With AVX-512 they add longer vectors, so in another order, and take other
approximations of functions: the last bits differ, and a training carries the difference on. The limit makes each of
them choose what it chooses on a processor with AVX2; products then run at about half their speed. It consists of
environment variables that each library reads when it is loaded or first used, and that processes started later
inherit. Numba's kernels need none: their instructions are the same everywhere, see `mafr.fast.loops.elementary`.
"""

import os
import platform
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from mafr.errors import ConfigError, notice

_LOADED = ("numpy", "torch")  # and with them scipy: too late for a limit
_LIMITS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_CBWR": "AVX2",  # torch's matrix products and decompositions; Intel describes it for its own processors
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch's convolutions; its products of bfloat16 go with it
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's and scipy's matrix products
}
_NUMPY = "NPY_DISABLE_CPU_FEATURES"  # numpy's exp, log, sin and others
_SINCE_2_4, _BEFORE = "X86_V4 AVX512_ICL AVX512_SPR", "AVX512F AVX512CD AVX512_SKX AVX512_ICL"  # its names for AVX-512
HOW = "start the process with it: `mafr same-bytes COMMAND`, such as `mafr same-bytes jupyter lab`"


@lru_cache(maxsize=1)
def processor_name() -> str:
    """The processor's model name as the system tells it."""
    try:
        for row in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def limits() -> dict[str, str]:
    """The environment variables of the limit to AVX2."""
    numbers = [int(n) for n in re.findall(r"\d+", version("numpy"))[:2]]
    return {**_LIMITS, _NUMPY: _SINCE_2_4 if numbers >= [2, 4] else _BEFORE}


def limited(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process, or one with another environment, is limited to AVX2."""
    return all(environment.get(name) == value for name, value in limits().items())


def limit() -> None:
    """Limit this process and those that it starts to AVX2, so that results repeat on other x86-64 processors.

    Must come before numpy and torch are loaded: raises ConfigError where they are, and on other processors than x86-64.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise ConfigError(f"the same bytes on every processor are for x86-64; this is {platform.machine()}")
    if limited():
        return
    if loaded := [name for name in _LOADED if name in sys.modules]:
        raise ConfigError(f"the same bytes have no effect once {' and '.join(loaded)} are loaded; {HOW}")
    for name, value in limits().items():
        if os.environ.get(name, value).upper() != value.upper():
            notice(f"for the same bytes {name} is {value} now, not {os.environ[name]}")
    os.environ.update(limits())
