"""Circular and hyperbolic functions of f32 and their inverses, scalar or vector: no libm symbol, as in `functions`.

Polynomials and reductions are those of Cephes (S. Moshier). Errors are measured by `backends/tests/test_functions.py`.
"""

from __future__ import annotations

import math

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import bind, cast, detach, like, select
from edgec.backends.tvm.functions import copy_sign, exp, horner, log, log1p, magnitude, nearest, sqrt

_LARGE = 2.0**14  # from here on squares plus 1 are squares, in f32


def _octants(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, sine, cosine) of x reduced to [-pi/4, pi/4]: pi/2 in three parts, exact products up to |x| = 8192."""
    n = nearest(x * like(x, 2 / math.pi))
    r = bind(x - n * like(x, 1.5703125) - n * like(x, 4.837512969970703125e-4) - n * like(x, 7.54978995489188216e-8))
    # What is beyond all accuracy still needs a quadrant.
    quadrant = bind(cast(select(magnitude(n) < like(n, 2.0**30), n, like(n, 0.0)), "int32"))
    z = bind(r * r)
    sine = horner(z, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1) * z * r + r
    cosine = horner(z, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2) * z * z
    return detach(quadrant), detach(sine), detach(cosine - like(x, 0.5) * z + like(x, 1.0))


def _turned(quadrant: Expr, even: Expr, odd: Expr) -> Expr:
    """`even` in quadrants 0 and 2, `odd` in 1 and 3, negative in the last two."""
    value = bind(select((quadrant & like(quadrant, 1)) == like(quadrant, 0), even, odd))
    return detach(select((quadrant & like(quadrant, 2)) == like(quadrant, 0), value, like(value, 0.0) - value))


def sin(x: Expr) -> Expr:
    """Within 2 ulp, or 1e-7 near its zeros, up to |x| = 8192; NaN for infinities."""
    quadrant, sine, cosine = _octants(detach(x))
    return _turned(quadrant, sine, cosine)


def cos(x: Expr) -> Expr:
    """Within 2 ulp, or 1e-7 near its zeros, up to |x| = 8192; NaN for infinities."""
    quadrant, sine, cosine = _octants(detach(x))
    return _turned(quadrant + like(quadrant, 1), sine, cosine)


def tan(x: Expr) -> Expr:
    """sin / cos."""
    quadrant, sine, cosine = _octants(detach(x))
    even = (quadrant & like(quadrant, 1)) == like(quadrant, 0)
    return detach(select(even, sine / cosine, (like(cosine, 0.0) - cosine) / sine))


def atan(x: Expr) -> Expr:
    """Within 2 ulp."""
    x = detach(x)
    a = bind(magnitude(x))
    one = like(x, 1.0)
    far, middle = a > like(x, 2.414213562373095), a > like(x, 0.4142135623730950)
    start = bind(select(far, like(x, math.pi / 2), select(middle, like(x, math.pi / 4), like(x, 0.0))))
    r = bind(select(far, like(x, -1.0) / a, select(middle, (a - one) / (a + one), a)))
    z = bind(r * r)
    p = horner(z, 8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
    return detach(copy_sign(magnitude(start + (p * z * r + r)), x))


def _asin_tail(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(near, s, asin(s)) for 0 <= a: s is a if near, else sqrt((1 - a) / 2), where asin(a) = pi/2 - 2 asin(s)."""
    near = a <= like(a, 0.5)
    z = bind(select(near, a * a, like(a, 0.5) * (like(a, 1.0) - a)))
    s = detach(select(near, a, sqrt(z)))
    p = horner(z, 4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)
    return near, s, detach(p * z * s + s)


def asin(x: Expr) -> Expr:
    """Within 3 ulp; NaN outside [-1, 1]."""
    x = detach(x)
    a = bind(magnitude(x))
    near, _, y = _asin_tail(a)
    y = bind(select(near, y, like(x, math.pi / 2) - like(x, 2.0) * y))
    return detach(select(y == y, copy_sign(magnitude(y), x), y))


def acos(x: Expr) -> Expr:
    """Within 3 ulp; NaN outside [-1, 1]."""
    x = detach(x)
    near, _, y = _asin_tail(bind(magnitude(x)))
    negative = x < like(x, 0.0)
    signed = select(negative, like(x, 0.0) - y, y)
    twice = bind(like(x, 2.0) * y)
    return detach(select(near, like(x, math.pi / 2) - signed, select(negative, like(x, math.pi) - twice, twice)))


def sinh(x: Expr) -> Expr:
    """Within 4 ulp; infinite from 89.4 on."""
    x = detach(x)
    z = bind(x * x)
    near = horner(z, 2.03721912945e-4, 8.33028376239e-3, 1.66667160211e-1) * z * x + x
    half = bind(exp(magnitude(x) * like(x, 0.5)))  # e^|x| itself overflows too early
    far = (like(x, 0.5) * half) * half - (like(x, 0.5) / half) / half
    return detach(select(magnitude(x) > like(x, 1.0), copy_sign(magnitude(far), x), near))


def cosh(x: Expr) -> Expr:
    """Within 4 ulp; infinite from 89.4 on."""
    half = bind(exp(magnitude(detach(x)) * like(x, 0.5)))
    return detach((like(x, 0.5) * half) * half + (like(x, 0.5) / half) / half)


def tanh(x: Expr) -> Expr:
    """Within 2 ulp."""
    x = detach(x)
    a = bind(magnitude(x))
    z = bind(x * x)
    p = horner(z, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
    far = like(x, 1.0) - like(x, 2.0) / (exp(a + a) + like(x, 1.0))
    return detach(select(a >= like(x, 0.625), copy_sign(magnitude(far), x), p * z * x + x))


def asinh(x: Expr) -> Expr:
    """Within 4 ulp."""
    x = detach(x)
    a = bind(magnitude(x))
    one = like(x, 1.0)
    near = log1p(a + a * a / (one + sqrt(a * a + one)))
    far = log(a) + like(x, math.log(2.0))
    y = bind(select(a > like(x, _LARGE), far, near))
    return detach(select(x == x, copy_sign(magnitude(y), x), x))


def acosh(x: Expr) -> Expr:
    """Within 4 ulp; NaN below 1."""
    x = detach(x)
    t = bind(x - like(x, 1.0))
    near = log1p(t + sqrt(t * t + (t + t)))
    y = select(x > like(x, _LARGE), log(x) + like(x, math.log(2.0)), near)
    return detach(select(x >= like(x, 1.0), y, like(x, math.nan)))


def atanh(x: Expr) -> Expr:
    """Within 4 ulp; infinite at -1 and 1, NaN beyond."""
    x = detach(x)
    a = bind(magnitude(x))
    y = bind(like(x, 0.5) * log1p((a + a) / (like(x, 1.0) - a)))
    y = bind(select(a == like(x, 1.0), like(x, math.inf), y))
    return detach(select(y == y, copy_sign(magnitude(y), x), y))
