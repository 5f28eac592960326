"""Chains of pointwise operations that torch.compile fuses into one kernel each, on request (`Config.compiled`).

Every call otherwise runs them one by one: compiling needs a C++ compiler (a GPU also Triton) and minutes of warming
up. CUDA graphs are no alternative: they fix all shapes, and each sample has its own number of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch

from mafr.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

# The process's, not a context's: a GPU's backward passes run in threads that autograd has started long before.
_requests: list[bool | None] = [False]


@contextmanager
def compiling(wanted: bool | None) -> Iterator[None]:
    """Inside the block kernels are compiled, or are not; None: not, whatever blocks inside it say."""
    _requests.append(None if _requests[-1] is None else wanted)
    try:
        yield
    finally:
        _requests.pop()


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function of tensors for `compiling`. Calls raise ConfigError where torch cannot compile."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _requests[-1]:
            return function(*args, **kwargs)
        try:
            return _compiled(function)(*args, **kwargs)
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
