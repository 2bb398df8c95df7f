"""What a kernel does with each result before it is stored: the elementwise nodes after an anchor, as data.

A kernel sees its output as a matrix in memory order: the last permuted axis is the columns (channels of NHWC), all
others together are the rows. Operands from memory are read where the result stands (`Full`) or broadcast
(`Broadcast`). All of it is frozen and prints as what it is, so a spec that holds an `Epilogue` stays a key of the
kernel cache. Nothing here loads tvm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from edgec.backends.base import Argument, Group
from edgec.graph.ir import Value
from edgec.graph.ops.adam_update import AdamUpdate
from edgec.graph.ops.base import Op
from edgec.graph.ops.bce_logits import BceLogits
from edgec.graph.ops.cos import Cos
from edgec.graph.ops.erf import Erf
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.log import Log
from edgec.graph.ops.pow import Pow
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sin import Sin
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.tanh import Tanh
from edgec.runtime.abi import Access, Storage

_MOST_ROWS = 2  # divisions for each row of results
_LONG = (AdamUpdate, BceLogits, Cos, Erf, Exp, Log, Pow, Sigmoid, Sin, Sqrt, Tanh)


@dataclass(frozen=True)
class Accumulator:
    """The anchor's result."""


@dataclass(frozen=True)
class Result:
    """An output of an earlier step."""

    step: int
    output: int = 0


@dataclass(frozen=True)
class Full:
    """Element of argument `argument` at the same offset as the result."""

    argument: int


@dataclass(frozen=True)
class Rows:
    """`row // rows % period * stride`; a period of 0 has no end."""

    stride: int
    rows: int = 1
    period: int = 0


@dataclass(frozen=True)
class Broadcast:
    """Element `column * column_stride` plus what `rows` come to, of argument `argument`.

    Per channel: column_stride 1; per row: Rows(1); a scalar: neither; per image and channel: column_stride 1 and
    Rows(channels, pixels of an image); one matrix for each of a batch: Rows(columns, 1, rows of the matrix).
    """

    argument: int
    column_stride: int = 0
    rows: tuple[Rows, ...] = ()


Reference = Accumulator | Result | Full | Broadcast


@dataclass(frozen=True)
class Step:
    """One elementwise op. Steps run in order; `operands` refer to earlier ones."""

    op: Op
    operands: tuple[Reference, ...]


@dataclass(frozen=True)
class Store:
    """`value` is written to argument `argument`, at the result's place."""

    value: Reference
    argument: int


@dataclass(frozen=True)
class Epilogue:
    """Steps after an anchor and what is stored. `arguments` follow the anchor's own among those of the kernel.

    An argument that is both read (`Full`) and stored is READ_WRITE: every element is read before it is overwritten,
    because only the result at that element reads it.
    """

    arguments: tuple[Argument, ...]
    steps: tuple[Step, ...]
    stores: tuple[Store, ...]

    @staticmethod
    def store_only(argument: Argument) -> Epilogue:
        """Write the anchor's result and nothing else."""
        return Epilogue((argument,), (), (Store(Accumulator(), 0),))

    @property
    def read_in_full(self) -> tuple[int, ...]:
        """The arguments of which each result reads an element of its own."""
        full = {o.argument for step in self.steps for o in step.operands if isinstance(o, Full)}
        return tuple(sorted(full))

    @property
    def is_long(self) -> bool:
        """Whether some step is a polynomial of dozens of instructions, which is not to be unrolled for every vector."""
        return any(isinstance(step.op, _LONG) for step in self.steps)

    @property
    def label(self) -> str:
        """Names of the steps, for a kernel's stem: `_add_hard_swish`, or nothing."""
        return "".join(f"_{step.op.name}" for step in self.steps)


@dataclass(frozen=True)
class BoundEpilogue:
    """An epilogue and the values its arguments are bound to."""

    epilogue: Epilogue
    operands: tuple[Value, ...]


def same_order(a: Storage, b: Storage) -> bool:
    """Whether two storages of one shape put equal elements at equal offsets; axes of extent 1 may stand anywhere."""
    if a == b or (a.is_row_major and b.is_row_major):
        return True
    if a.dims != b.dims or _panels(a) != _panels(b):
        return False
    return _order(a) == _order(b)


def _order(storage: Storage) -> list[int]:
    return [axis for axis in storage.perm if storage.dims[axis] != 1]


def _panels(storage: Storage) -> int:
    """Panel width, 0 where one panel holds everything."""
    last = storage.dims[storage.perm[-1]] if storage.perm else 1
    return storage.block if 0 < storage.block < last and storage.size > last else 0


def view_columns(storage: Storage) -> int:
    """Columns of the matrix view."""
    return storage.dims[storage.perm[-1]] if storage.perm else 1


def classify(
    argument: int, shape: tuple[int, ...], storage: Storage, out_shape: tuple[int, ...], out: Storage
) -> Full | Broadcast | None:
    """How an operand of `shape` is read for results of `out_shape` stored as `out`; None if that is not a simple
    pattern.
    """
    if shape == out_shape:
        return Full(argument) if same_order(storage, out) else None
    if storage.size == 1:
        return Broadcast(argument)
    if _panels(storage) or storage.dims != shape or out.dims != out_shape:
        return None
    missing = len(out_shape) - len(shape)
    plain = Storage(storage.dims, storage.perm).strides()
    strides = [0] * missing + [0 if extent == 1 else stride for extent, stride in zip(shape, plain, strict=True)]
    *row_axes, column_axis = out.perm
    column_stride = strides[column_axis]
    if column_stride not in (0, 1):
        return None
    rows: list[Rows] = []
    below, fits = 1, 0  # rows below an axis, and the stride with which it would go on as the axis before did
    for axis in reversed(row_axes):
        extent, stride = out.dims[axis], strides[axis]
        if extent == 1:
            continue
        if stride and stride == fits:
            rows[-1] = Rows(rows[-1].stride, rows[-1].rows, rows[-1].period * extent)
        elif stride:
            rows.append(Rows(stride, below, extent))
        below, fits = below * extent, stride * extent
    if len(rows) > _MOST_ROWS:
        return None
    if rows and rows[-1].rows * rows[-1].period == below:
        rows[-1] = Rows(rows[-1].stride, rows[-1].rows)
    return Broadcast(argument, column_stride, tuple(rows))


def bind_epilogue(
    group: Group,
    results: Mapping[Value, Accumulator],
    storage: Mapping[Value, Storage],
    alias: Mapping[Value, Value],
    view: Storage | None = None,
) -> BoundEpilogue | None:
    """The epilogue of a group whose anchor computes `results`; None if some operand or output has no simple pattern.

    Every value of the epilogue has the shape and memory order of the results. An output that shares an input's
    memory is bound once, as the output, READ_WRITE. `view`: a storage of the results' order whose last permuted axis
    is what the kernel calls columns; that of an output if None. Storages of one order may differ in it, where an axis
    of extent 1 stands last.
    """
    anchor = next(iter(results))
    view = view or next((storage[value] for value in group.outputs if value.type.shape == anchor.type.shape), None)
    if view is None:
        return None
    known: dict[Value, Reference] = dict(results)
    overwritten = {alias[output]: output for output in group.outputs if output in alias}
    slots: dict[Value, int] = {}
    access: dict[Value, Access] = {}

    def slot(value: Value, use: Access) -> int:
        value = overwritten.get(value, value)
        access[value] = access.get(value, use) | use
        return slots.setdefault(value, len(slots))

    steps: list[Step] = []
    for node in group.epilogue:
        operands = []
        for value in node.inputs:
            if value not in known:
                pattern = classify(0, value.type.shape, storage[value], anchor.type.shape, view)
                if pattern is None or (value in overwritten and not isinstance(pattern, Full)):
                    return None
                known[value] = _at(pattern, slot(value, Access.READ))
            operands.append(known[value])
        steps.append(Step(node.op, tuple(operands)))
        for index, value in enumerate(node.outputs):
            if value.type.shape != anchor.type.shape:
                return None
            known[value] = Result(len(steps) - 1, index)
    stores = []
    for value in group.outputs:
        if value.type.shape != anchor.type.shape or not same_order(storage[value], view) or value not in known:
            return None
        stores.append(Store(known[value], slot(value, Access.WRITE)))
    arguments = tuple(Argument(value.type.dtype, value.type.size, Access(access[value])) for value in slots)
    return BoundEpilogue(Epilogue(arguments, tuple(steps), tuple(stores)), tuple(slots))


def _at(pattern: Full | Broadcast, argument: int) -> Full | Broadcast:
    if isinstance(pattern, Full):
        return Full(argument)
    return dataclasses.replace(pattern, argument=argument)
