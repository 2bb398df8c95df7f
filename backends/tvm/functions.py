"""exp, log, pow, erf and roots of f32 as polynomials, scalar or vector: no libm symbol, the same code on every target.
Where LLVM makes the instructions, a root is one of them.

Each function must be called where a statement may be emitted, since it binds its intermediate values: an expression
tree would repeat them at every use. NaN operands give NaN, so that the guard sees a diverging loss. The errors stated
were measured over the whole range of f32, with and without FMA contraction.
"""

from __future__ import annotations

import math

from edgec.backends.tvm._tvm import Expr, T, tirx
from edgec.backends.tvm.builder import bind, broadcast, by_llvm, cast, constant, detach, lanes_of, select

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


def squared(x: Expr) -> Expr:
    x = bind(x)
    return x * x


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
    x = detach(x)
    x = bind(select(x < lowest, lowest, x))
    x = bind(select(x > highest, highest, x))
    n, r = _whole_and_rest(x)
    return _scaled_exp(r, n)


def exp_of_difference(x: Expr) -> Expr:
    """e^x for x <= 0, at most 1 ulp off; 0 below -87.33, where results would be subnormal and slow."""
    lowest = _constant(-87.33, x)
    x = detach(x)
    bounded = bind(select(x < lowest, lowest, x))
    n, r = _whole_and_rest(bounded)
    return detach(select(x < lowest, _constant(0.0, x), _exp_of_rest(r) * _power_of_two(n)))


def _whole_and_rest(x: Expr) -> tuple[Expr, Expr]:
    """(n, r) with e^x = 2^n e^r, |r| <= ln(2) / 2."""
    shifted = bind(x * _constant(math.log2(math.e), x) + _constant(_ROUND, x))
    n = bind(shifted - _constant(_ROUND, x))
    r = bind(x - n * _constant(0.693359375, x) - n * _constant(-2.12194440e-4, x))
    return _bits(shifted) - _integer(_ROUND_BITS, x), r


def _scaled_exp(r: Expr, n: Expr) -> Expr:
    """e^r * 2^n for |r| <= ln(2) / 2."""
    p = _exp_of_rest(r)
    # 2^n in two factors: n reaches 128 and -150, where one factor is infinite or subnormal.
    n = bind(n)
    half = bind(n >> _integer(1, n))
    return detach(p * _power_of_two(half) * _power_of_two(n - half))


def _exp_of_rest(r: Expr) -> Expr:
    """e^r for |r| <= ln(2) / 2."""
    p = horner(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    return bind(p * (r * r) + r + _constant(1.0, r))


def _power_of_two(n: Expr) -> Expr:
    return _from_bits((n + _integer(127, n)) << _integer(23, n))


def log(x: Expr) -> Expr:
    """Natural logarithm. At most 1 ulp off, also for subnormals; -inf at 0, NaN below, inf at inf (Cephes logf)."""
    exponent, m = _split(x)
    square = bind(m * m)
    y = bind(_log_tail(m) * m * square + exponent * _constant(-2.12194440e-4, x) - _constant(0.5, x) * square)
    y = bind(m + y + exponent * _constant(0.693359375, x))
    y = select(x == _constant(math.inf, x), x, y)
    y = select(x == _constant(0.0, x), _constant(-math.inf, x), y)
    # Not x < 0: that would let NaN through as a number.
    return detach(select(x >= _constant(0.0, x), y, _constant(math.nan, x)))


def _split(x: Expr) -> tuple[Expr, Expr]:
    """(e, m) with x = 2^e (1 + m) for a finite x > 0; 1 + m lies in [sqrt(1/2), sqrt(2))."""
    x = detach(x)
    tiny = x < _constant(2.0**-126, x)
    scaled = bind(select(tiny, x * _constant(2.0**23, x), x))
    pattern = bind(_bits(scaled))
    # Subtract the bits of sqrt(1/2), and what remains above bit 23 is the exponent.
    e = bind((pattern - _integer(0x3F3504F3, x)) >> _integer(23, x))
    m = bind(_from_bits(pattern - (e << _integer(23, x))) - _constant(1.0, x))
    return detach(cast(e, "float32") - select(tiny, _constant(23.0, x), _constant(0.0, x))), detach(m)


def _log_tail(m: Expr) -> Expr:
    """(log(1 + m) - m + m^2 / 2) / m^3."""
    return horner(m, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
                  -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip


def rsqrt(x: Expr) -> Expr:
    """1 / sqrt(x) of a normal x > 0, at most 2 ulp off (Newton's iteration from the classic bit trick)."""
    x = detach(x)
    if by_llvm():
        return detach(_constant(1.0, x) / sqrt(x))
    y = bind(_from_bits(_integer(0x5F3759DF, x) - (_bits(x) >> _integer(1, x))))
    half = bind(x * _constant(0.5, x))
    for _ in range(4):
        y = bind(y + y * (_constant(0.5, x) - half * y * y))
    return detach(y)


def sqrt(x: Expr) -> Expr:
    """At most 1 ulp off; NaN below 0, -0 at -0 (`rsqrt`, and one step of Heron's method)."""
    x = detach(x)
    if by_llvm():
        # An instruction of x86 and Arm, rounded right. C has a function of libm for it, which kernels do not call.
        return detach(T.call_llvm_pure_intrin(x.ty, "llvm.sqrt", x))
    tiny = x < _constant(2.0**-100, x)
    scaled = bind(select(tiny, x * _constant(2.0**48, x), x))
    root = bind(scaled * rsqrt(scaled))
    root = bind(_constant(0.5, x) * (root + scaled / root))
    root = select(tiny, root * _constant(2.0**-24, x), root)
    unchanged = select(x == _constant(0.0, x), x, select(x == _constant(math.inf, x), x, root))
    return detach(select(x >= _constant(0.0, x), unchanged, _constant(math.nan, x)))


def log1p(x: Expr) -> Expr:
    """log(1 + x), a few ulp off also for small x: the error of 1 + x is divided out (Hewlett-Packard's formula)."""
    x = detach(x)
    one = _constant(1.0, x)
    u = bind(x + one)
    y = bind(log(u))
    corrected = y * (x / (u - one))
    return detach(select(u == one, x, select(u == _constant(math.inf, x), u, corrected)))


def erf(x: Expr) -> Expr:
    """Error function, at most 2 ulp off (two polynomials after N. Juffa, https://stackoverflow.com/a/35148199)."""
    x = detach(x)
    a = bind(magnitude(x))
    square = bind(x * x)
    far = horner(a, -1.72853470e-5, 3.83197126e-4)
    far = bind(far * square + horner(a, -3.88396438e-3, 2.42546219e-2))
    far = bind(far * a + _constant(-1.06777877e-1, x))
    far = bind(far * a + _constant(-6.34846687e-1, x))
    far = bind(far * a + _constant(-1.28717512e-1, x))
    far = _constant(1.0, x) - exp_of_difference(far * a - a)
    near = horner(square, -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
    near = near * x + x
    # The far polynomial has its range, beyond which erf is 1.
    far = select(a > _constant(4.0, x), _constant(1.0, x), far)
    return detach(select(a > _constant(0.927734375, x), copy_sign(far, x), near))


def power(x: Expr, y: Expr) -> Expr:
    """x^y as C's pow: a few ulp off while |y log2(x)| is below 128, with all its special cases."""
    x, y = detach(x), detach(y)
    zero, one, infinity = _constant(0.0, x), _constant(1.0, x), _constant(math.inf, x)
    a = bind(magnitude(x))
    result = select(a == zero, select(y < zero, infinity, zero), _positive_power(a, y))
    result = bind(select(a == infinity, select(y < zero, zero, infinity), result))
    # A negative base: the sign of an odd exponent; no real number for a fraction, but for the limits 0 and infinity.
    half = y * _constant(0.5, y)
    odd = bind(select(floor(half) != half, zero - result, result))
    limit = select(a == zero, result, select(a == infinity, result, _constant(math.nan, x)))
    negative = select(floor(y) == y, odd, limit)
    result = bind(select(_bits(x) < _integer(0, x), negative, result))
    # An infinite exponent.
    grows = select(a > one, select(y > zero, infinity, zero), select(y > zero, zero, infinity))
    result = bind(select(magnitude(y) == infinity, select(a == one, one, grows), result))
    result = select(x == x, select(y == y, result, y), x)
    return detach(select(y == zero, one, select(x == one, one, result)))


def _positive_power(x: Expr, y: Expr) -> Expr:
    """x^y of a finite x > 0. y * log2(x) is kept in two parts: a whole number, and what exp needs all digits of."""
    exponent, m = _split(x)
    square = bind(m * m)
    logarithm = bind(m + (_log_tail(m) * m * square - _constant(0.5, x) * square))
    rough = bind(y * (exponent + logarithm * _constant(math.log2(math.e), x)))
    n = nearest(select(magnitude(rough) < _constant(200.0, x), rough, _constant(0.0, x)))
    # 12 bits of y times the 8 of the exponent are exact.
    high = bind(_from_bits(_bits(y) & _integer(-4096, y)))
    fraction = (high * exponent - n) + (y - high) * exponent
    r = fraction * _constant(math.log(2.0), x) + y * logarithm
    result = bind(_scaled_exp(bind(r), cast(n, "int32")))
    result = select(rough > _constant(130.0, x), _constant(math.inf, x), result)
    return bind(select(rough < _constant(-155.0, x), _constant(0.0, x), result))


# -- whole numbers and signs ----------------------------------------


def magnitude(x: Expr) -> Expr:
    """Absolute value."""
    return _from_bits(_bits(x) & _integer(0x7FFFFFFF, x))


def copy_sign(x: Expr, sign: Expr) -> Expr:
    """x >= 0 with the sign of `sign`."""
    return _from_bits(_bits(x) | (_bits(sign) & _integer(-(2**31), x)))


def nearest(x: Expr) -> Expr:
    """The nearest whole number, of two the even one."""
    x = detach(x)
    a = bind(magnitude(x))
    large = _constant(2.0**23, x)
    return detach(select(a < large, copy_sign((a + large) - large, x), x))


def floor(x: Expr) -> Expr:
    """The largest whole number that is not above x."""
    x = detach(x)
    whole = bind(nearest(x))
    below = whole - _constant(1.0, x)
    return detach(select(whole > x, below, whole))


def ceil(x: Expr) -> Expr:
    """The smallest whole number that is not below x."""
    x = detach(x)
    whole = bind(nearest(x))
    # -0.5 becomes -0, as IEEE 754 has it.
    above = copy_sign(magnitude(whole + _constant(1.0, x)), x)
    return detach(select(whole < x, above, whole))


def truncate(x: Expr) -> Expr:
    """x without its fraction."""
    x = detach(x)
    return detach(copy_sign(floor(magnitude(x)), x))


def remainder(x: Expr, y: Expr) -> Expr:
    """C's fmod: x - y * truncate(x / y), exact while |x / y| is below 2^44; NaN for an infinite x or y = 0."""
    x, y = detach(x), detach(y)
    a, b = bind(magnitude(x)), bind(magnitude(y))
    rest = a
    for _ in range(3):  # each takes 22 bits off the quotient, the last what rounding left
        rest = detach(_reduced(rest, b))
    rest = select(b == _constant(math.inf, x), a, rest)
    rest = bind(select(a < _constant(math.inf, x), rest, _constant(math.nan, x)))
    return detach(select(y == y, copy_sign(rest, x), y))


def _reduced(a: Expr, b: Expr) -> Expr:
    """a - q * b >= 0 for a whole q near a / b, exactly: both factors are cut into halves of 12 bits."""
    q = floor(a / b)
    mask = _integer(-4096, a)
    q_high, b_high = bind(_from_bits(_bits(q) & mask)), bind(_from_bits(_bits(b) & mask))
    q_low, b_low = bind(q - q_high), bind(b - b_high)
    rest = bind((((a - q_high * b_high) - q_high * b_low) - q_low * b_high) - q_low * b_low)
    rest = bind(select(rest < _constant(0.0, a), rest + b, rest))
    return select(rest >= b, rest - b, rest)
