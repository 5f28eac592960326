"""Provenance of a result: software, commit, processor, memory."""

import os
import platform
import resource
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from mafr import __version__
from mafr.processor import limited, processor_name


def peak_megabytes() -> float:
    """Largest resident size of this process since `reset_peak`, or so far, MB (Linux, macOS)."""
    # Not ru_maxrss where it can be helped: a child inherits that of the process which started it.
    return _status("VmHWM:") or _largest()


def resident_megabytes() -> float:
    """Resident size of this process now, MB; where the system does not tell, its largest so far."""
    return _status("VmRSS:") or _largest()


def gpu_peak_megabytes() -> dict[str, float]:
    """Most memory that torch has held on the current GPU since `reset_peak`, MB; empty where it has used none."""
    torch = _torch_with_gpu()
    return {"gpu_peak_mb": torch.cuda.max_memory_allocated() / 2**20} if torch else {}


def reset_peak() -> None:
    """Let `peak_megabytes` (Linux; elsewhere it stays the largest so far) and `gpu_peak_megabytes` start again."""
    if torch := _torch_with_gpu():
        torch.cuda.reset_peak_memory_stats()
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _torch_with_gpu() -> ModuleType | None:
    # Asking must not be what loads it.
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_initialized() else None


def _status(name: str) -> float | None:
    try:
        rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(row.split()[1]) / 2**10 for row in rows if row.startswith(name)), None)


def _largest() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@lru_cache(maxsize=1)
def software_versions() -> dict[str, str]:
    """The versions of the software that computed a result."""
    names = ("torch", "timm", "numpy", "scipy")
    return {"mafr": __version__, "python": platform.python_version(), **{n: version(n) for n in names}}


def processor() -> dict[str, str | list[str]]:
    """The processor's name and instruction sets, and the reach of the same bytes (`mafr.processor`), "" without."""
    from mafr.device import instruction_sets  # which loads torch

    return {"processor": processor_name(), "instruction_sets": list(instruction_sets()), "same_bytes": limited()}


@lru_cache(maxsize=4)
def git_commit(folder: Path) -> str | None:
    """The commit of the checkout that `folder` lies in, or None outside one."""
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
