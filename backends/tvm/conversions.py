"""Half floats and what `Cast` does, in integer operations: no instruction or library function for them is needed.

Memory holds f16 and bf16 as bits; kernels compute with them in f32 (`widen`) and round once per op, to nearest, ties to
even (`narrow`). Scalars or vectors. Each function binds what it reads more than once.
"""

from __future__ import annotations

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import VALUE_DTYPE, bind, broadcast, cast, lanes_of, like, scalar_type, select
from edgec.graph.types import DType


def _f32(bits: Expr) -> Expr:
    lanes = lanes_of(bits)
    return tirx.reinterpret("float32" if lanes == 1 else f"float32x{lanes}", bits)


def _bits(x: Expr) -> Expr:
    lanes = lanes_of(x)
    return tirx.reinterpret("int32" if lanes == 1 else f"int32x{lanes}", x)


def widen(x: Expr, dtype: DType) -> Expr:
    """What memory holds of `dtype` as what kernels compute with; exact."""
    if dtype is DType.BF16:
        i = cast(x, "int32")
        return bind(_f32(i << like(i, 16)))
    if dtype is DType.F16:
        return _from_f16(x)
    return x


def narrow(x: Expr, dtype: DType) -> Expr:
    """The inverse of `widen`, rounded; NaN stays NaN, what is too large becomes infinite."""
    if dtype is DType.BF16:
        return _to_bf16(x)
    if dtype is DType.F16:
        return _to_f16(x)
    return x


def _from_f16(x: Expr) -> Expr:
    i = bind(cast(x, "int32"))
    magnitude = bind(i & like(i, 0x7FFF))
    shifted = bind(magnitude << like(i, 13))
    normal = shifted + like(i, 112 << 23)
    special = shifted | like(i, 0x7F800000)
    subnormal = _bits(cast(magnitude, "float32") * like(_f32(i), 2.0**-24))
    exact = select(magnitude < like(i, 0x0400), subnormal, select(magnitude >= like(i, 0x7C00), special, normal))
    return bind(_f32(exact | ((i & like(i, 0x8000)) << like(i, 16))))


def _to_f16(x: Expr) -> Expr:
    i = bind(_bits(x))
    magnitude = bind(i & like(i, 0x7FFFFFFF))
    odd = (magnitude >> like(i, 13)) & like(i, 1)
    normal = ((magnitude + like(i, 0x0FFF) + odd) >> like(i, 13)) - like(i, 112 << 10)
    # The unit in the last place of 1/2 is 2^-24, that of subnormal f16: the addition rounds to it.
    half = like(x, 0.5)
    subnormal = _bits(_f32(magnitude) + half) - _bits(half)
    rounded = select(magnitude < like(i, 0x38800000), subnormal, normal)
    rounded = select(magnitude >= like(i, 0x477FF000), like(i, 0x7C00), rounded)
    rounded = select(magnitude > like(i, 0x7F800000), like(i, 0x7E00), rounded)
    sign = (i >> like(i, 16)) & like(i, 0x8000)
    return bind(cast(rounded | sign, "uint16"))


def _to_bf16(x: Expr) -> Expr:
    i = bind(_bits(x))
    magnitude = bind(i & like(i, 0x7FFFFFFF))
    odd = (magnitude >> like(i, 16)) & like(i, 1)
    rounded = (magnitude + like(i, 0x7FFF) + odd) >> like(i, 16)
    rounded = select(magnitude > like(i, 0x7F800000), like(i, 0x7FC0), rounded)
    sign = (i >> like(i, 16)) & like(i, 0x8000)
    return bind(cast(rounded | sign, "uint16"))


def truth(condition: Expr) -> Expr:
    """A comparison as bool: 0 or 1. (A `Cast` of a vector of comparisons stops TVM's code generator.)"""
    lanes = lanes_of(condition)
    return select(condition, *(broadcast(tirx.const(value, "uint8"), lanes) for value in (1, 0)))


def convert(x: Expr, to: DType) -> Expr:
    """The graph's `Cast`. Half floats are rounded where the result is stored."""
    kind = VALUE_DTYPE[to]
    if to is DType.BOOL:
        # TVM's `x != 0` is false for NaN.
        return truth(tirx.EQ(x, like(x, 0))) ^ broadcast(tirx.const(1, "uint8"), lanes_of(x))
    if scalar_type(x) == kind:
        return x
    if scalar_type(x) != "float32":
        return cast(x, kind)
    wide, limit, highest = ("int64", 2.0**63, 2**63 - 1) if to is DType.I64 else ("int32", 2.0**31, 2**31 - 1)
    # What does not fit has no meaning in an instruction, and another one on each machine.
    x = bind(x)
    fits = bind(select(x >= like(x, -limit), x, like(x, -limit)))
    fits = bind(select(x < like(x, limit), fits, like(x, 0.0)))
    whole = bind(cast(fits, wide))
    whole = select(x >= like(x, limit), like(whole, highest), whole)
    whole = bind(select(x == x, whole, like(whole, 0)))
    return whole if wide == kind else cast(whole, kind)
