"""A small language for kernels over TVM's IR builder: pointers, vectors, accumulators, loops.

A kernel is written as a Python function that emits statements when it runs: Python loops unroll (register tiles),
`serial` emits a loop. Nothing is scheduled or vectorised behind the author's back:

    def body(x: Pointer, y: Pointer, lo: Expr, hi: Expr) -> None:
        with serial(lo, hi) as task:
            for start, lanes in split_width(24, 16):
                y.store(task * 24 + start, maximum(constant(0.0, lanes), x.load(task * 24 + start, lanes)))

    function = build_kernel(spec.arguments, body)

Vectors have any number of lanes that is a power of two and at most the target's; other widths are cut by
`split_width`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from edgec.backends.base import Argument, Target
from edgec.backends.tvm._tvm import Expr, IRBuilder, PrimFunc, T, tirx
from edgec.graph.types import DType
from edgec.runtime.abi import Arch

# What lies in memory. Half floats are their bits, a bool is a byte of 0 or 1.
MEMORY_DTYPE = {
    DType.F16: "uint16",
    DType.BF16: "uint16",
    DType.F32: "float32",
    DType.F64: "float64",
    DType.I8: "int8",
    DType.U8: "uint8",
    DType.I32: "int32",
    DType.I64: "int64",
    DType.BOOL: "uint8",
}
# What kernels compute with: half floats in f32 (see `conversions`).
VALUE_DTYPE = MEMORY_DTYPE | {DType.F16: "float32", DType.BF16: "float32"}

LINE = 16  # elements of f32 in a line of the caches
_MOST_TURNS = 1 << 16  # more than any loop over tiles or pieces of a tile has

Index = Expr | int


class Pointer:
    """Memory that a kernel reads or writes by element index: an argument, or a local array (registers, if indices
    are constants).
    """

    def __init__(self, buffer: tirx.Buffer, start: Index = 0):
        self._buffer, self._start = buffer, start

    def at(self, start: Index) -> Pointer:
        """The same memory, counted from element `start`, which may lie before its first."""
        start = self._start + start
        return Pointer(self._buffer, start if isinstance(start, int) else bind(start))

    def load(self, index: Index, lanes: int = 1) -> Expr:
        """`lanes` consecutive elements from `index`."""
        index = self._from_start(index)
        return self._buffer[index if lanes == 1 else T.ramp(index, 1, lanes)]

    def store(self, index: Index, value: Expr) -> None:
        """Write as many consecutive elements as `value` has lanes."""
        lanes, index = lanes_of(value), self._from_start(index)
        T.buffer_store(self._buffer, value, [index if lanes == 1 else T.ramp(index, 1, lanes)])

    def address(self, index: Index) -> Expr:
        """Of one element, for a function that the target's text defines."""
        return T.address_of(self._buffer[self._from_start(index)])

    def _from_start(self, index: Index) -> Index:
        return index if isinstance(self._start, int) and self._start == 0 else displaced(self._start + index)


# The processor that LLVM makes instructions for; None for what becomes text. Its code is better with some help.
_PROCESSOR: ContextVar[Arch | None] = ContextVar("processor", default=None)


@contextmanager
def instructions_of(target: Target) -> Iterator[None]:
    """Write kernels for the instructions of a target."""
    before = _PROCESSOR.set(None if target.c_source or target.arch.is_device else target.arch)
    try:
        yield
    finally:
        _PROCESSOR.reset(before)


def by_llvm() -> bool:
    """Whether LLVM makes the instructions, so that what every processor has can be asked for."""
    return _PROCESSOR.get() is not None


def displaced(index: Index) -> Index:
    """For LLVM, the same index with its constant added last: it becomes the displacement of a load or store from an
    address that neighbours share. Within a product it costs each access an addition and an extension.
    """
    if isinstance(index, int) or not by_llvm():
        return index
    rest, constant = _split_constant(index)
    return rest + constant if constant else rest


def _split_constant(index: Expr) -> tuple[Expr, int]:
    """(rest, constant) of sums, differences and products with constants."""
    match index:
        case tirx.IntImm():
            return tirx.const(0, "int32"), index.value
        case tirx.Add() | tirx.Sub():
            (a, m), (b, n) = _split_constant(index.a), _split_constant(index.b)
            return (a + b, m + n) if isinstance(index, tirx.Add) else (a - b, m - n)
        case tirx.Mul(b=tirx.IntImm()):
            a, m = _split_constant(index.a)
            return a * index.b, m * index.b.value
    return index, 0


# Where local arrays lie: "global" is the only scope that TVM's C generator knows, and to LLVM all scopes are the stack.
_LOCAL_SCOPE: ContextVar[str] = ContextVar("local scope", default="global")


def build_kernel(arguments: Sequence[Argument], body: Callable[..., None], name: str = "kernel") -> PrimFunc:
    """A serial kernel `void name(pointers..., int32 lo, int32 hi)` whose statements `body(*pointers, lo, hi)` emits.

    Arguments never overlap: an input that an output overwrites is one READ_WRITE argument.
    """
    with IRBuilder() as builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"tirx.noalias": True, "global_symbol": name})
            handles = _handles(arguments)
            lo, hi = T.arg("lo", T.int32()), T.arg("hi", T.int32())
            body(*_pointers(arguments, handles), lo, hi)
    return builder.get()


@dataclass(frozen=True)
class DeviceKernel:
    """A kernel `void name(pointers...)` for `groups` groups of `threads` work items, whose statements
    `body(*pointers, group, item)` emits: once, when it is built.
    """

    arguments: Sequence[Argument]
    groups: int
    threads: int
    body: Callable[..., None]


def build_device_kernel(kernel: DeviceKernel, name: str = "kernel") -> PrimFunc:
    scope = _LOCAL_SCOPE.set("local")
    try:
        with IRBuilder() as builder:
            with T.prim_func():
                T.func_name(name)
                T.func_attr({"tirx.noalias": True, "global_symbol": name, "calling_conv": _DEVICE_LAUNCH})
                pointers = _pointers(kernel.arguments, _handles(kernel.arguments))
                with (
                    T.launch_thread("blockIdx.x", kernel.groups) as group,
                    T.launch_thread("threadIdx.x", kernel.threads) as item,
                ):
                    kernel.body(*pointers, group, item)
        return builder.get()
    finally:
        _LOCAL_SCOPE.reset(scope)


_DEVICE_LAUNCH = 2  # tirx::CallingConv::kDeviceKernelLaunch


def _handles(arguments: Sequence[Argument]) -> list[Expr]:
    return [T.arg(f"p{i}", T.handle(MEMORY_DTYPE[argument.dtype])) for i, argument in enumerate(arguments)]


def _pointers(arguments: Sequence[Argument], handles: Sequence[Expr]) -> list[Pointer]:
    # An empty buffer is legal as an argument but not as a declaration.
    return [
        Pointer(T.decl_buffer((max(argument.elements, 1),), MEMORY_DTYPE[argument.dtype], data=handle))
        for argument, handle in zip(arguments, handles, strict=True)
    ]


def prefetch(pointer: Pointer, index: Index) -> None:
    """Ask for the line of memory that element `index` lies in; it may lie behind the end."""
    for_reading, keep, data = 0, 3, 1
    arguments = (T.int32(flag) for flag in (for_reading, keep, data))
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", pointer.address(index), *arguments))


# -- control ----------------------------------------


@contextmanager
def serial(start: Index, stop: Index) -> Iterator[Index]:
    """A real loop; the body is emitted once. A single iteration between constants needs no loop."""
    if isinstance(start, int) and isinstance(stop, int) and stop - start == 1:
        yield start
        return
    with T.serial(start, stop) as index:
        yield index


@contextmanager
def when(condition: Expr | bool) -> Iterator[None]:
    """Emit the body under an `if`."""
    with T.If(condition), T.Then():
        yield


def choose(condition: Expr | bool, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
    """Emit `then` under the condition and `otherwise` under its opposite; one of them alone if the condition is
    known.
    """
    if isinstance(condition, bool):
        return then() if condition else otherwise()
    with T.If(condition):
        with T.Then():
            then()
        with T.Else():
            otherwise()


# -- values ----------------------------------------


def lanes_of(value: Expr) -> int:
    return value.ty.dtype.lanes


def scalar_type(value: Expr) -> str:
    """TVM's name of the type of one lane."""
    return str(value.ty.dtype).partition("x")[0]


def cast(value: Expr, kind: str) -> Expr:
    """Converted lane by lane to TVM type `kind`: integers wrap, floats must lie in its range."""
    lanes = lanes_of(value)
    return tirx.Cast(kind if lanes == 1 else f"{kind}x{lanes}", value)


def constant(value: float, lanes: int = 1) -> Expr:
    """The f32 nearest to `value` in every lane."""
    # As bits: TVM prints float literals of C with seven digits, which is not enough to name every f32.
    bits = int(np.float32(value).view(np.int32))
    # LLVM code generation takes a reinterpreted 0 for a null pointer.
    return broadcast(tirx.reinterpret("float32", T.int32(bits)) if bits else T.float32(0.0), lanes)


def number(value: float, dtype: DType, lanes: int = 1) -> Expr:
    """A constant of any dtype, as kernels compute with it. An infinity is the end of the range of an integer."""
    kind = VALUE_DTYPE[dtype]
    if kind == "float32":
        return constant(value, lanes)
    if math.isinf(value):
        limits = np.iinfo(dtype.numpy)
        value = limits.max if value > 0 else limits.min
    return broadcast(tirx.const(int(value), kind), lanes)


def like(x: Expr, value: float) -> Expr:
    """A constant in the type and lanes of `x`; of an integer type, the value must be one of its numbers."""
    kind = scalar_type(x)
    return constant(value, lanes_of(x)) if kind == "float32" else broadcast(tirx.const(int(value), kind), lanes_of(x))


def fill_value(lo: Expr, lanes: int = 1) -> Expr:
    """Zeros for filling memory, made of a kernel's `lo` in a way that LLVM does not see through.

    Neighbouring stores of a constant 0 become a call of memset, which is slow here. `lo` is never negative.
    """
    return broadcast(tirx.reinterpret("float32", lo >> 31), lanes)


def opaque_zero(lo: Expr) -> Expr:
    """0 to add to the end of a loop that must stay one, made of a kernel's `lo` so that LLVM neither sees that it is 0
    nor has a bound for it that lets it unroll the loop.
    """
    return (lo >> 31) * -_MOST_TURNS


def opaque(index: Index, lo: Expr) -> Index:
    """The same index, of which LLVM knows nothing more: it would keep a pointer of its own for each address that
    follows from counters of loops, and advance all of them in each loop around. `lo` is a kernel's.
    """
    return index if isinstance(index, int) else bind(index | (lo >> 31))


def masked(value: Expr, mask: Expr) -> Expr:
    """f32 `value` where the i32 `mask` is -1, and 0 where it is 0, be `value` NaN there."""
    lanes = lanes_of(value)
    suffix = f"x{lanes}" if lanes > 1 else ""
    bits = tirx.reinterpret(f"int32{suffix}", value) & broadcast(mask, lanes)
    return tirx.reinterpret(f"float32{suffix}", bits)


def broadcast(value: Expr, lanes: int) -> Expr:
    """A scalar in every lane; a vector of `lanes` stays as it is."""
    return value if lanes == 1 or lanes_of(value) == lanes else T.broadcast(value, lanes)


def bind(value: Expr) -> Expr:
    """Name a value that is used more than once, so that expressions do not grow as trees."""
    return T.Bind(value)


def local(elements: int, dtype: DType = DType.F32) -> Pointer:
    """An array of the kernel itself, uninitialised. With constant indices LLVM keeps all of it in registers."""
    return Pointer(T.alloc_buffer((elements,), VALUE_DTYPE[dtype], scope=_LOCAL_SCOPE.get()))


def shared(elements: int, dtype: DType = DType.F32) -> Pointer:
    """An array that the items of a device's work group share, uninitialised."""
    return Pointer(T.alloc_buffer((elements,), VALUE_DTYPE[dtype], scope="shared"))


def synchronise() -> None:
    """Wait until all items of the work group are here and their writes are seen by all; every item must come by."""
    T.evaluate(T.tvm_storage_sync("shared"))


def detach(value: Expr) -> Expr:
    """The same value, through a cell that LLVM removes. TVM's analyses see through `bind`, in time that doubles with
    each value that is read twice; here they stop.
    """
    cell = Pointer(T.alloc_buffer((lanes_of(value),), scalar_type(value), scope=_LOCAL_SCOPE.get()))
    cell.store(0, value)
    return cell.load(0, lanes_of(value))


def select(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    """Lane by lane; both sides are evaluated."""
    return tirx.Select(condition, then, otherwise)


def maximum(bound: Expr, x: Expr) -> Expr:
    """The larger of two; NaN if `x` is one, as in numpy."""
    return _extremum("llvm.maximum", T.max, bound, x, lambda x: bound > x)


def minimum(bound: Expr, x: Expr) -> Expr:
    """The smaller of two; NaN if `x` is one, as in numpy."""
    return _extremum("llvm.minimum", T.min, bound, x, lambda x: bound < x)


def larger(best: Expr, x: Expr) -> Expr:
    """The larger of two floats; NaN if either is one, as in numpy."""
    # TVM's `x != x` is never true.
    return maximum(best, x) if _passes_nan_on(x) else select(x == x, select(x > best, x, best), x)


def smaller(best: Expr, x: Expr) -> Expr:
    """The smaller of two floats; NaN if either is one, as in numpy."""
    return minimum(best, x) if _passes_nan_on(x) else select(x == x, select(x < best, x, best), x)


def _extremum(intrinsic: str, own: Callable[..., Expr], bound: Expr, x: Expr, beyond: Callable[[Expr], Expr]) -> Expr:
    if _passes_nan_on(x):
        return T.call_llvm_pure_intrin(x.ty, intrinsic, bound, x)
    if _LOCAL_SCOPE.get() != "local" or not scalar_type(x).startswith("float"):
        return own(bound, x)
    x = bind(x)  # functions of devices (fmax) take the number where there is one
    return select(beyond(x), bound, x)


def _passes_nan_on(x: Expr) -> bool:
    """Whether the machine has extrema that do, in one instruction: `fmax` and `fmin` of Arm."""
    return _PROCESSOR.get() is Arch.AARCH64 and scalar_type(x) == "float32"


def shuffle(vectors: Sequence[Expr], indices: Sequence[int]) -> Expr:
    """The lanes `indices` of the concatenation of `vectors`."""
    return tirx.Shuffle(list(vectors), list(indices))


def element(vector: Expr, lane: int) -> Expr:
    """One lane of a vector as a scalar; multiplied with a vector it becomes an operand of Arm's multiply by element."""
    return tirx.Shuffle([vector], [lane])


# -- widths ----------------------------------------


def split_width(width: int, lanes: int) -> tuple[tuple[int, int], ...]:
    """Cut a width into vectors (start, lanes): full ones, then falling powers of two. 10 with 8 lanes: (0, 8), (8,
    2).
    """
    pieces, start = [], 0
    while start < width:
        while lanes > width - start:
            lanes //= 2
        pieces.append((start, lanes))
        start += lanes
    return tuple(pieces)
