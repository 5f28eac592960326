"""Exponential, Gaussian cumulative, sums: functions that LLVM turns into vector code."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from mafr.compiled import compile_loops

F = np.float32
_LOG2_E, _LN2_HIGH, _LN2_LOW = F(1.44269504), F(0.693359375), F(-2.12194440e-4)
_ROUND = F(12582912.0)  # 1.5 · 2^23: adding and subtracting it rounds to whole numbers


def compiled(function):
    """Compile at the first call and keep the result on disk; without the interpreter's lock.

    A product and a sum may become one operation, which rounds once.
    """
    return compile_loops(function, "contract")


def inlined(function):
    """As `compiled`, for a function that others take into their loops."""
    return compile_loops(function, "contract", inline="always")


def summed(function):
    """As `compiled`, for a sum that may run in several parts side by side."""
    return compile_loops(function, "contract", "reassoc", "nsz")


@intrinsic
def _float_of_bits(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@inlined
def exp(x):
    """e^x to some 2 units in the last place; x is limited to [-87, 88]. Coefficients: Cephes, expf."""
    x = min(max(x, F(-87.0)), F(88.0))
    n = (x * _LOG2_E + _ROUND) - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    power = _float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
    return (p * (r * r) + r + F(1.0)) * power


@inlined
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return F(1.0) / (F(1.0) + exp(-x))


@inlined
def gauss(x):
    """(Φ(x), φ(x)) of the standard normal distribution, to 1.5e-7. Abramowitz and Stegun, 7.1.26."""
    e = exp(x * x * F(-0.5))
    t = F(1.0) / (F(1.0) + F(0.3275911 * 0.5**0.5) * abs(x))
    q = F(1.061405429)
    q = q * t + F(-1.453152027)
    q = q * t + F(1.421413741)
    q = q * t + F(-0.284496736)
    q = q * t + F(0.254829592)
    tail = F(0.5) * q * t * e
    return (tail if x < F(0.0) else F(1.0) - tail), e * F((2 * np.pi) ** -0.5)


@summed
def total(values):
    """The sum of (W,) values."""
    value = F(0.0)
    for j in range(values.shape[0]):
        value += values[j]
    return value


@summed
def dot(x, y):
    """The sum of the products of (W,) values."""
    value = F(0.0)
    for j in range(x.shape[0]):
        value += x[j] * y[j]
    return value


_LANES = 16


@compiled
def highest(values):
    """The maximum of (W,) values."""
    count, lanes = values.shape[0], np.empty(_LANES, F)
    whole = count - count % _LANES
    for lane in range(_LANES):
        lanes[lane] = values[0]
    for j in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] = max(lanes[lane], values[j + lane])
    top = lanes[0]
    for lane in range(1, _LANES):
        top = max(top, lanes[lane])
    for j in range(whole, count):
        top = max(top, values[j])
    return top
