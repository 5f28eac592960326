"""Compiled loops (Numba) that give numpy's values to the last bit."""

import os
from collections.abc import Callable
from pathlib import Path

from numba import njit


def exact(function: Callable) -> Callable:
    """Compile at the first call, and keep the result beside the function's file where that can be written.

    Every operation is rounded by itself, in the order written: none are fused, no sum runs in parts.
    """
    folder = Path(function.__code__.co_filename).parent
    return njit(cache=os.access(folder, os.W_OK), nogil=True, error_model="numpy")(function)
