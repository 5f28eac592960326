"""Emulated bfloat16 products for processors without them: slow, to measure what they change in the results."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mafr.device import EMULATED

_ATEN = torch.ops.aten
# Under inference mode the composite ones arrive whole.
_PRODUCTS = (_ATEN.mm, _ATEN.addmm, _ATEN.bmm, _ATEN.baddbmm, _ATEN.linear, _ATEN.matmul)


@contextmanager
def emulated_bfloat16() -> Iterator[None]:
    """Inside the block the CPU takes `precision` "bfloat16": products are sums in float32, rounded once at the end.

    That is what processors with bfloat16 instructions compute, but for the order of the sums. Torch's own way without
    such instructions is hundreds of times slower. Only for this thread.
    """
    before = EMULATED.set(True)
    try:
        with _Products():
            yield
    finally:
        EMULATED.reset(before)


class _Products(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func.overloadpacket not in _PRODUCTS or not any(_is_half(value) for value in args):
            return func(*args, **kwargs)
        out = kwargs.pop("out", None)
        exact = func.overloadpacket(*(value.float() if _is_half(value) else value for value in args), **kwargs)
        return exact.bfloat16() if out is None else out.copy_(exact)


def _is_half(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 and value.device.type == "cpu"
