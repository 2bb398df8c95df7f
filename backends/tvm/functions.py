"""exp, log and rsqrt of f32 as polynomials, scalar or vector: no libm symbol, the same code on every target.

Each function must be called where a statement may be emitted, since it binds its intermediate values: an expression
tree would repeat them at every use. NaN operands give NaN, so that the guard sees a diverging loss. The errors stated
were measured over the whole range of f32, with and without FMA contraction.
"""

from __future__ import annotations

import math

from edgec.backends.tvm._tvm import Expr, T, tirx
from edgec.backends.tvm.builder import bind, broadcast, constant, lanes_of, select

# Adding 1.5 * 2^23 to |x| < 2^22 rounds x to the nearest integer, which then stands in the low bits of the sum.
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000


def _constant(value: float, like: Expr) -> Expr:
    return constant(value, lanes_of(like))


def _integer(value: int, like: Expr) -> Expr:
    return broadcast(T.int32(value), lanes_of(like))


def _typed(name: str, like: Expr) -> str:
    return name if lanes_of(like) == 1 else f"{name}x{lanes_of(like)}"


def _bits(x: Expr) -> Expr:
    return tirx.reinterpret(_typed("int32", x), x)


def _from_bits(i: Expr) -> Expr:
    return tirx.reinterpret(_typed("float32", i), i)


def horner(x: Expr, *coefficients: float) -> Expr:
    """coefficients[0] * x^n + ... + coefficients[n]."""
    total = _constant(coefficients[0], x)
    for c in coefficients[1:]:
        total = total * x + _constant(c, x)
    return total


def exp(x: Expr) -> Expr:
    """e^x. At most 1 ulp off, also for subnormal results; 0 below -103.98, inf above 88.73 (Cephes, extended)."""
    lowest, highest = _constant(-104.0, x), _constant(89.0, x)
    # A comparison with NaN is false and lets it through.
    x = bind(x)
    x = bind(select(x < lowest, lowest, x))
    x = bind(select(x > highest, highest, x))
    shifted = bind(x * _constant(math.log2(math.e), x) + _constant(_ROUND, x))
    n = bind(shifted - _constant(_ROUND, x))
    r = bind(x - n * _constant(0.693359375, x) - n * _constant(-2.12194440e-4, x))
    p = horner(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    p = bind(p * (r * r) + r + _constant(1.0, x))
    # 2^n in two factors: n reaches 128 and -150, where one factor is infinite or subnormal.
    power = bind(_bits(shifted) - _integer(_ROUND_BITS, x))
    half = bind(power >> _integer(1, x))
    return bind(p * _power_of_two(half) * _power_of_two(power - half))


def _power_of_two(n: Expr) -> Expr:
    return _from_bits((n + _integer(127, n)) << _integer(23, n))


def log(x: Expr) -> Expr:
    """Natural logarithm. At most 1 ulp off, also for subnormals; -inf at 0, NaN below, inf at inf (Cephes logf)."""
    tiny = x < _constant(2.0**-126, x)
    scaled = bind(select(tiny, x * _constant(2.0**23, x), x))
    pattern = bind(_bits(scaled))
    # m in [sqrt(1/2), sqrt(2)): subtract the bits of sqrt(1/2), and what remains above bit 23 is the exponent.
    e = bind((pattern - _integer(0x3F3504F3, x)) >> _integer(23, x))
    m = bind(_from_bits(pattern - (e << _integer(23, x))) - _constant(1.0, x))
    exponent = bind(tirx.Cast(_typed("float32", x), e) - select(tiny, _constant(23.0, x), _constant(0.0, x)))
    p = horner(m, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
               -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
    square = bind(m * m)
    y = bind(p * m * square + exponent * _constant(-2.12194440e-4, x) - _constant(0.5, x) * square)
    y = bind(m + y + exponent * _constant(0.693359375, x))
    y = select(x == _constant(math.inf, x), x, y)
    y = select(x == _constant(0.0, x), _constant(-math.inf, x), y)
    # Not x < 0: that would let NaN through as a number.
    return bind(select(x >= _constant(0.0, x), y, _constant(math.nan, x)))


def rsqrt(x: Expr) -> Expr:
    """1 / sqrt(x) of a normal x > 0, at most 2 ulp off (Newton's iteration from the classic bit trick)."""
    y = bind(_from_bits(_integer(0x5F3759DF, x) - (_bits(x) >> _integer(1, x))))
    half = bind(x * _constant(0.5, x))
    for _ in range(4):
        y = bind(y + y * (_constant(0.5, x) - half * y * y))
    return y
