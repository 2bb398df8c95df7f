"""exp, log and friends as polynomials over TVM expressions, scalar or vector: no libm symbol, the same code on every target.

Each function must be called where a statement may be emitted, since it binds its intermediate values: an expression tree
would repeat them at every use. NaN operands give NaN, so that a diverging loss is seen by the guard. Errors were measured
over the whole range of f32, with and without FMA contraction.
"""

from __future__ import annotations

import math
import struct

from tvm import tirx
from tvm.tirx.script import builder as T

# Adding 1.5 * 2^23 to |x| < 2^22 rounds x to the nearest integer, which then stands in the low bits of the sum.
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000


def lanes(x) -> int:
    return x.ty.dtype.lanes


def constant(value: float, like):
    """The f32 nearest to `value`, broadcast to the lanes of `like`."""
    scalar = T.float32(struct.unpack("<f", struct.pack("<f", value))[0])
    return scalar if lanes(like) == 1 else T.broadcast(scalar, lanes(like))


def _integer(value: int, like):
    scalar = T.int32(value)
    return scalar if lanes(like) == 1 else T.broadcast(scalar, lanes(like))


def _typed(name: str, like) -> str:
    return name if lanes(like) == 1 else f"{name}x{lanes(like)}"


def bits(x):
    return tirx.reinterpret(_typed("int32", x), x)


def from_bits(i):
    return tirx.reinterpret(_typed("float32", i), i)


def horner(x, *coefficients: float):
    """coefficients[0] * x^n + ... + coefficients[n]."""
    total = constant(coefficients[0], x)
    for c in coefficients[1:]:
        total = total * x + constant(c, x)
    return total


def exp(x):
    """e^x. At most 1 ulp off, also for subnormal results; 0 below -103.98 and inf above 88.73 (Cephes expf, extended)."""
    lowest, highest = constant(-104.0, x), constant(89.0, x)
    # Select, not min and max: a comparison with NaN is false and lets it through.
    x = T.Bind(tirx.Select(x < lowest, lowest, x))
    x = T.Bind(tirx.Select(x > highest, highest, x))
    shifted = T.Bind(x * constant(math.log2(math.e), x) + constant(_ROUND, x))
    n = T.Bind(shifted - constant(_ROUND, x))
    r = T.Bind(x - n * constant(0.693359375, x) - n * constant(-2.12194440e-4, x))
    p = horner(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    p = T.Bind(p * (r * r) + r + constant(1.0, x))
    # 2^n in two factors: n reaches 128 and -150, where one factor is infinite or subnormal.
    power = T.Bind(bits(shifted) - _integer(_ROUND_BITS, x))
    half = T.Bind(power >> _integer(1, x))
    return T.Bind(p * _power_of_two(half) * _power_of_two(power - half))


def _power_of_two(n):
    return from_bits((n + _integer(127, n)) << _integer(23, n))


def log(x):
    """Natural logarithm. At most 1 ulp off, also for subnormals; -inf at 0, NaN below, inf at inf (Cephes logf)."""
    tiny = x < constant(2.0**-126, x)
    scaled = T.Bind(tirx.Select(tiny, x * constant(2.0**23, x), x))
    pattern = T.Bind(bits(scaled))
    # m in [sqrt(1/2), sqrt(2)): subtract the bits of sqrt(1/2), and what remains above bit 23 is the exponent.
    e = T.Bind((pattern - _integer(0x3F3504F3, x)) >> _integer(23, x))
    m = T.Bind(from_bits(pattern - (e << _integer(23, x))) - constant(1.0, x))
    exponent = T.Bind(tirx.Cast(_typed("float32", x), e) - tirx.Select(tiny, constant(23.0, x), constant(0.0, x)))
    p = horner(m, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
               -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
    square = T.Bind(m * m)
    y = T.Bind(p * m * square + exponent * constant(-2.12194440e-4, x) - constant(0.5, x) * square)
    y = T.Bind(m + y + exponent * constant(0.693359375, x))
    y = tirx.Select(x == constant(math.inf, x), x, y)
    y = tirx.Select(x == constant(0.0, x), constant(-math.inf, x), y)
    return T.Bind(tirx.Select(x < constant(0.0, x), constant(math.nan, x), y))


def rsqrt(x):
    """1 / sqrt(x) of a normal x > 0, at most 2 ulp off (Newton's iteration from the classic bit trick)."""
    y = T.Bind(from_bits(_integer(0x5F3759DF, x) - (bits(x) >> _integer(1, x))))
    half = T.Bind(x * constant(0.5, x))
    for _ in range(4):
        y = T.Bind(y + y * (constant(0.5, x) - half * y * y))
    return y
