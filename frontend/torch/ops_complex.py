"""Complex tensors as pairs of real ones: rotary embeddings by complex products, Fourier transforms by matrices.

They occur between real tensors only: inputs, parameters and outputs are real.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from edgec.frontend.torch.call import TORCH_DTYPES, Call, Known, Ref, Unsupported, type_of
from edgec.frontend.torch.context import Complex, Context, Converted, Entries, Entry, check_table, normal_axis
from edgec.frontend.torch.fold import references
from edgec.frontend.torch.ops_elementwise import ELEMENTWISE
from edgec.frontend.torch.ops_index import INDEXING
from edgec.frontend.torch.ops_math import MATH
from edgec.frontend.torch.ops_movement import MOVEMENTS, cut, join, reshape, transpose
from edgec.frontend.torch.ops_nn import LAYERS
from edgec.frontend.torch.ops_reduce import REDUCTIONS
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.cos import Cos
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.neg import Neg
from edgec.graph.ops.sin import Sin
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub

Convert = Callable[[Context, Call], Converted]


def is_complex(entry: Entry | Complex) -> bool:
    return isinstance(entry, Complex) or (isinstance(entry, Known) and entry.tensor.is_complex())


def _part(entry: Entries, index: int) -> Entries:
    """The real or the imaginary part; a real tensor has none but zeros."""
    if entry is None or isinstance(entry, tuple):
        return entry and tuple(_part(item, index) for item in entry)
    if isinstance(entry, Complex):
        return entry.imaginary if index else entry.real
    if is_complex(entry):
        return Known((entry.tensor.imag if index else entry.tensor.real).contiguous())
    if index == 0:
        return entry
    kind = entry.type if isinstance(entry, Value) else type_of(entry.tensor)
    return Known(torch.zeros(kind.shape, dtype=TORCH_DTYPES[kind.dtype]))


@contextlib.contextmanager
def _parts(ctx: Context, call: Call, index: int, only: Ref | None = None) -> Iterator[None]:
    """Meanwhile the complex operands of the call are their real or imaginary parts; with `only`, that one alone."""
    refs = references(list(call.arguments.values())) if only is None else [only]
    kept = {ref.name: ctx.entries[ref.name] for ref in refs}
    ctx.entries.update({name: _part(entry, index) for name, entry in kept.items()})
    try:
        yield
    finally:
        ctx.entries.update(kept)


def _paired(real: Converted, imaginary: Converted) -> Converted:
    if isinstance(real, tuple):
        return tuple(_paired(a, b) for a, b in zip(real, imaginary, strict=True))
    return Complex(real, imaginary)


def _linear(convert: Convert, ctx: Context, call: Call) -> Converted:
    """What treats real and imaginary parts alike, each by itself."""
    results = []
    for index in (0, 1):
        with _parts(ctx, call, index):
            results.append(convert(ctx, call))
    return _paired(*results)


def _sum(convert: Convert, ctx: Context, call: Call) -> Converted:
    if not isinstance(call.arguments["other"], Ref):
        raise Unsupported("adds a number to a complex tensor")
    return _linear(convert, ctx, call)


def _bilinear(convert: Convert, left: str, right: str, ctx: Context, call: Call) -> Converted:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i, and less where a factor is real."""
    factors = [name for name in (left, right) if isinstance(call.arguments[name], Ref)]
    factors = [name for name in factors if is_complex(ctx.entry(call, name))]

    def product(*indices: int) -> Value:
        with contextlib.ExitStack() as stack:
            for name, index in zip(factors, indices, strict=True):
                stack.enter_context(_parts(ctx, call, index, call.arguments[name]))
            return convert(ctx, call)

    if len(factors) == 1:
        return Complex(product(0), product(1))
    if call.arguments[left] == call.arguments[right]:
        real, imaginary = (ctx.as_value(_part(ctx.entry(call, left), index)) for index in (0, 1))
        both = ctx.emit(call, Mul(), real, imaginary)
        squares = (ctx.emit(call, Mul(), part, part) for part in (real, imaginary))
        return Complex(ctx.emit(call, Sub(), *squares), ctx.emit(call, Add(), both, both))
    real = ctx.emit(call, Sub(), product(0, 0), product(1, 1))
    return Complex(real, ctx.emit(call, Add(), product(0, 1), product(1, 0)))


def _quotient(convert: Convert, ctx: Context, call: Call) -> Converted:
    other = call.arguments["other"]
    if isinstance(other, Ref) and is_complex(ctx.resolve(other)):
        raise Unsupported("divides by a complex tensor")
    results = []
    for index in (0, 1):
        with _parts(ctx, call, index, call.arguments["self"]):
            results.append(convert(ctx, call))
    return _paired(*results)


def _pair_of(ctx: Context, call: Call, name: str) -> tuple[Value, Value]:
    entry = ctx.entry(call, name)
    return ctx.as_value(_part(entry, 0)), ctx.as_value(_part(entry, 1))


def _as_complex(ctx: Context, call: Call) -> Converted:
    """x[...,2] as complex [...]."""
    x = ctx.value(call, "self")
    axis = x.type.rank - 1
    parts = (cut(ctx, call, x, axis, range(index, index + 1)) for index in (0, 1))
    return Complex(*(reshape(ctx, call, part, x.type.shape[:-1]) for part in parts))


def _as_real(ctx: Context, call: Call) -> Converted:
    parts = _pair_of(ctx, call, "self")
    return join(ctx, call, [reshape(ctx, call, part, (*part.type.shape, 1)) for part in parts], parts[0].type.rank)


def _polar(ctx: Context, call: Call) -> Converted:
    size, angle = ctx.value(call, "abs"), ctx.value(call, "angle")
    return Complex(*(ctx.emit(call, Mul(), size, ctx.emit(call, op, angle)) for op in (Cos(), Sin())))


def _joined(ctx: Context, call: Call) -> Converted:
    return Complex(ctx.value(call, "real"), ctx.value(call, "imag"))


def _conjugate(ctx: Context, call: Call) -> Converted:
    real, imaginary = _pair_of(ctx, call, "self")
    return Complex(real, ctx.emit(call, Neg(), imaginary))


def _size(ctx: Context, call: Call) -> Converted:
    squares = [ctx.emit(call, Mul(), part, part) for part in _pair_of(ctx, call, "self")]
    return ctx.emit(call, Sqrt(), ctx.emit(call, Add(), *squares))


# -- Fourier transforms ------------------------------------------------------------------------------------------------


def _scale(ctx: Context, call: Call, count: int) -> float:
    """torch's normalisation: none, by the root of the number of elements, by that number."""
    return (1.0, 1 / math.sqrt(count), 1 / count)[ctx.integer(call, "normalization")]


def _rotations(sign: float, rows: int, columns: int, extent: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """scale * exp(sign * 2 pi i * row * column / extent), [rows, columns], as its parts."""
    check_table(rows, columns)
    # Whole turns are taken off while they are integers: the angle keeps its digits.
    angles = sign * 2 * math.pi / extent * (np.outer(np.arange(rows), np.arange(columns)) % extent)
    return scale * np.cos(angles), scale * np.sin(angles)


def _along(ctx: Context, call: Call, x: Value, axis: int, matrix: np.ndarray) -> Value:
    """x times matrix[extent, out] along an axis."""
    perm = [at for at in range(x.type.rank) if at != axis] + [axis]
    last = transpose(ctx, call, x, perm)
    rows = reshape(ctx, call, last, (last.type.size // last.type.shape[-1], last.type.shape[-1]))
    y = ctx.emit(call, MatMul(), rows, ctx.constant(call, matrix, x.type.dtype))
    y = reshape(ctx, call, y, (*last.type.shape[:-1], matrix.shape[1]))
    return transpose(ctx, call, y, sorted(range(len(perm)), key=perm.__getitem__))


def _turned(ctx: Context, call: Call, pair: tuple[Value, Value], axis: int, sign: float, scale: float) -> Complex:
    extent = pair[0].type.shape[axis]
    cos, sin = _rotations(sign, extent, extent, extent, scale)
    (a, b), (c, d) = ([_along(ctx, call, part, axis, m) for part in pair] for m in (cos, sin))
    return Complex(ctx.emit(call, Sub(), a, d), ctx.emit(call, Add(), c, b))


def _dims(ctx: Context, call: Call, rank: int) -> list[int]:
    return [normal_axis(axis, rank) for axis in ctx.integers(call, "dim")]


def _transform(ctx: Context, call: Call) -> Converted:
    """Of a complex tensor: `_fft_c2c`."""
    pair = _pair_of(ctx, call, "self")
    dims = _dims(ctx, call, pair[0].type.rank)
    scale = _scale(ctx, call, math.prod(pair[0].type.shape[axis] for axis in dims))
    for axis in dims:
        y = _turned(ctx, call, pair, axis, -1.0 if ctx.flag(call, "forward") else 1.0, scale)
        pair, scale = (y.real, y.imaginary), 1.0
    return Complex(*pair)


def _transform_real(ctx: Context, call: Call) -> Converted:
    """Of a real tensor: `_fft_r2c`; the last of the axes is transformed first, half of it if `onesided`."""
    x = ctx.value(call, "self")
    *others, last = _dims(ctx, call, x.type.rank)
    scale = _scale(ctx, call, math.prod(x.type.shape[axis] for axis in (*others, last)))
    extent = x.type.shape[last]
    out = extent // 2 + 1 if ctx.flag(call, "onesided") else extent
    pair = tuple(_along(ctx, call, x, last, m) for m in _rotations(-1.0, extent, out, extent, scale))
    for axis in others:
        y = _turned(ctx, call, pair, axis, -1.0, 1.0)
        pair = (y.real, y.imaginary)
    return Complex(*pair)


def _transform_back(ctx: Context, call: Call) -> Converted:
    """Of half a spectrum to a real tensor: `_fft_c2r`. What is not there mirrors what is."""
    pair = _pair_of(ctx, call, "self")
    *others, last = _dims(ctx, call, pair[0].type.rank)
    extent = ctx.integer(call, "last_dim_size")
    scale = _scale(ctx, call, extent * math.prod(pair[0].type.shape[axis] for axis in others))
    for axis in others:
        y = _turned(ctx, call, pair, axis, 1.0, 1.0)
        pair = (y.real, y.imaginary)
    half = extent // 2 + 1
    pair = tuple(cut(ctx, call, part, last, range(half)) for part in pair)
    cos, sin = _rotations(1.0, half, extent, extent, scale)
    mirrored = np.full((half, 1), 2.0)
    mirrored[0] = 1.0
    if extent % 2 == 0:
        mirrored[-1] = 1.0
    parts = (_along(ctx, call, part, last, mirrored * m) for part, m in zip(pair, (cos, sin), strict=True))
    return ctx.emit(call, Sub(), *parts)


COMPLEX: dict[str, Convert] = {
    "aten.view_as_complex.default": _as_complex,
    "aten.view_as_real.default": _as_real,
    "aten.polar.default": _polar,
    "aten.complex.default": _joined,
    "aten._conj.default": _conjugate,
    "aten._fft_c2c.default": _transform,
    "aten._fft_r2c.default": _transform_real,
    "aten._fft_c2r.default": _transform_back,
}

_MOVED = (
    "view _unsafe_view unsqueeze squeeze transpose t permute expand repeat cat stack slice select split "
    "split_with_sizes unbind flip roll constant_pad_nd diagonal"
)
_ALIKE: dict[str, Convert] = {
    **{key: convert for key, convert in MOVEMENTS.items() if key.split(".")[1] in _MOVED.split()},
    **{key: ELEMENTWISE[key] for key in ("aten.clone.default", "aten.alias.default", "aten.detach.default")},
    **{key: REDUCTIONS[key] for key in ("aten.mean.dim", "aten.sum.dim_IntList", "aten.mean.default")},
    "aten.neg.default": MATH["aten.neg.default"],
    "aten.index_select.default": INDEXING["aten.index_select.default"],
}

# What is done where an operand is complex.
ON_COMPLEX: dict[str, Convert] = {
    **COMPLEX,
    **{key: partial(_linear, convert) for key, convert in _ALIKE.items()},
    "aten.add.Tensor": partial(_sum, ELEMENTWISE["aten.add.Tensor"]),
    "aten.sub.Tensor": partial(_sum, ELEMENTWISE["aten.sub.Tensor"]),
    "aten.mul.Tensor": partial(_bilinear, ELEMENTWISE["aten.mul.Tensor"], "self", "other"),
    "aten.square.default": partial(_bilinear, ELEMENTWISE["aten.mul.Tensor"], "self", "self"),
    "aten.matmul.default": partial(_bilinear, LAYERS["aten.matmul.default"], "self", "other"),
    "aten.mm.default": partial(_bilinear, LAYERS["aten.mm.default"], "self", "mat2"),
    "aten.bmm.default": partial(_bilinear, LAYERS["aten.bmm.default"], "self", "mat2"),
    "aten.div.Tensor": partial(_quotient, ELEMENTWISE["aten.div.Tensor"]),
    "aten.abs.default": _size,
}
