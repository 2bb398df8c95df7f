"""Integer arithmetic that traps or has no meaning in machine instructions, defined as in the ops' references."""

from __future__ import annotations

import math

import numpy as np

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import bind, detach, like, scalar_type, select


def within(x: Expr, bound: float) -> float:
    """`bound`, or the end of the range of x's type that lies before it."""
    limits = np.iinfo(scalar_type(x))
    if math.isinf(bound):
        return limits.max if bound > 0 else limits.min
    return min(max(int(bound), limits.min), limits.max)


def _is_signed(x: Expr) -> bool:
    return scalar_type(x).startswith("i")


# TVM's simplifier ends the process on a condition that is never true, such as an unsigned number below 0.


def magnitude(x: Expr) -> Expr:
    """The least integer stays as it is."""
    return select(x < like(x, 0), like(x, 0) - x, x) if _is_signed(x) else x


def sign(x: Expr) -> Expr:
    """-1, 0 or 1."""
    positive = select(x > like(x, 0), like(x, 1), like(x, 0))
    return select(x < like(x, 0), like(x, -1), positive) if _is_signed(x) else positive


def _unlike_minus_one(b: Expr) -> Expr:
    """A divisor that does not trap: b, or 1 in place of 0 and -1."""
    bad = b == like(b, 0)
    safe = select(bad, like(b, 1), b)
    return bind(select(b == like(b, -1), like(b, 1), safe) if _is_signed(b) else safe)


def divide(a: Expr, b: Expr) -> Expr:
    """Rounded to zero; 0 for b = 0. The least integer by -1 wraps to itself."""
    quotient = tirx.truncdiv(a, _unlike_minus_one(b))
    if _is_signed(a):
        quotient = select(b == like(b, -1), like(a, 0) - a, quotient)
    return select(b == like(b, 0), like(a, 0), quotient)


def remainder(a: Expr, b: Expr) -> Expr:
    """With the sign of a; 0 for b = 0."""
    return select(b == like(b, 0), like(a, 0), tirx.truncmod(a, _unlike_minus_one(b)))


def floor_mod(a: Expr, b: Expr) -> Expr:
    """With the sign of b; 0 for b = 0."""
    rest = detach(remainder(a, b))
    if not _is_signed(a):
        return rest
    signs = detach(rest ^ b)
    return select(rest == like(rest, 0), rest, select(signs < like(b, 0), rest + b, rest))


def _bits(a: Expr) -> int:
    return 8 * np.dtype(scalar_type(a)).itemsize


def power(a: Expr, b: Expr) -> Expr:
    """Products that wrap; a negative b gives 0, but for |a| = 1."""
    zero, one = like(a, 0), like(a, 1)
    total, square = one, a
    for bit in range(_bits(a) - _is_signed(a)):
        square = detach(square * square) if bit else square
        total = detach(select(((b >> like(b, bit)) & one) == one, total * square, total))
    if not _is_signed(a):
        return total
    odd = select((b & one) == one, a, one)
    inverse = select(a == one, one, select(a == like(a, -1), odd, zero))
    return select(b < zero, inverse, total)


def _outside(a: Expr, b: Expr) -> Expr:
    """Whether a shift by b leaves nothing of a."""
    above = b > like(b, _bits(a) - 1)
    return tirx.any(above, b < like(b, 0)) if _is_signed(b) else above


def shift_left(a: Expr, b: Expr) -> Expr:
    """0 for b outside 0..bits-1."""
    return select(_outside(a, b), like(a, 0), a << (b & like(b, _bits(a) - 1)))


def shift_right(a: Expr, b: Expr) -> Expr:
    """Keeps the sign of signed types."""
    end = a >> like(a, _bits(a) - 1)
    return select(_outside(a, b), end if _is_signed(a) else like(a, 0), a >> (b & like(b, _bits(a) - 1)))
