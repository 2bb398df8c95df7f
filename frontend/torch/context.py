"""What a converter may use: arguments of a call as graph values, tensors or numbers, and `emit`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from edgec.frontend.torch.call import TORCH_DTYPES, Call, Known, Ref, Unsupported, type_of
from edgec.frontend.writer import Writer
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.base import Op
from edgec.graph.types import DType, TensorType

MAX_ELEMENTS = 2**31 - 1  # of one tensor: kernels index with int32
MAX_TABLE = 2**26  # elements of a table that a converter makes


@dataclass(frozen=True, eq=False)
class Complex:
    """A complex tensor: two real ones of its shape."""

    real: Value
    imaginary: Value


Entry = Value | Known
Entries = Entry | Complex | tuple[Entry | Complex | None, ...]  # None: a result that edgec does not compute
Converted = Entries


class Context:
    """The graph under construction and what the names of the program stand for."""

    def __init__(self, graph: Graph, reserved: frozenset[str] = frozenset()):
        self.graph = graph
        self.entries: dict[str, Entries] = {}
        self._reserved = reserved
        self._leaves: dict[Known, Value] = {}

    # -- arguments --------------------------------------------------------------------------------------------------

    def has(self, call: Call, name: str) -> bool:
        """Whether the optional argument is given."""
        return call.arguments.get(name) is not None

    def resolve(self, argument: object) -> Entry:
        """The entry that a tensor argument stands for."""
        if not isinstance(argument, Ref):
            raise Unsupported(f"an argument is a {type(argument).__name__} where a tensor is expected")
        entry = self.entries[argument.name]
        if argument.index is not None:
            if not isinstance(entry, tuple):
                raise Unsupported("reads one of several results where there is one")
            entry = entry[argument.index] if argument.index < len(entry) else None
        elif isinstance(entry, tuple):
            entry = entry[0]
        if entry is None:
            raise Unsupported(f"reads result {argument.index} of `{argument.name}`, which edgec does not compute")
        return entry

    def entry(self, call: Call, name: str) -> Entry:
        if not self.has(call, name):
            raise Unsupported(f"argument `{name}` is missing")
        return self.resolve(call.arguments[name])

    def type(self, call: Call, name: str) -> TensorType:
        """The type of a tensor argument, without making a leaf of it."""
        entry = self.entry(call, name)
        if isinstance(entry, Complex):
            raise Unsupported("of complex tensors")
        return entry.type if isinstance(entry, Value) else type_of(entry.tensor)

    def value(self, call: Call, name: str) -> Value:
        """A tensor argument as a value of the graph: a known one becomes a parameter or a constant."""
        return self.as_value(self.entry(call, name))

    def values(self, call: Call, name: str) -> list[Value]:
        """A list of tensors."""
        return [self.as_value(self.resolve(item)) for item in self.list(call, name)]

    def statistic(self, call: Call, name: str) -> Value:
        """A running statistic: a buffer that keeps its name and stays readable, as parameters do."""
        entry = self.entry(call, name)
        if isinstance(entry, Value) or not entry.name or entry in self._leaves:
            return self.as_value(entry)
        return self._leaf(entry, Role.PARAM)

    def known(self, call: Call, name: str, what: str) -> torch.Tensor:
        """A tensor argument that must be known at compile time; `what` names it in the reason if it is not."""
        entry = self.entry(call, name)
        if isinstance(entry, Value):
            raise Unsupported(f"{what} is computed from the model's inputs; it must be known at compile time")
        return entry.tensor

    def number(self, call: Call, name: str) -> float:
        """An argument that is a number, or a known tensor of one element."""
        argument = call.arguments.get(name)
        if isinstance(argument, Ref):
            tensor = self.known(call, name, f"`{name}`")
            if tensor.numel() != 1:
                raise Unsupported(f"`{name}` has {tensor.numel()} elements; one is supported")
            argument = tensor.item()
        if not isinstance(argument, int | float):
            raise Unsupported(f"`{name}` is {argument!r}, not a number")
        return argument

    def integer(self, call: Call, name: str) -> int:
        number = self.number(call, name)
        if not isinstance(number, int):
            raise Unsupported(f"`{name}` is {number!r}, not an integer")
        return number

    def flag(self, call: Call, name: str) -> bool:
        return bool(call.arguments.get(name))

    def list(self, call: Call, name: str) -> list[object]:
        argument = call.arguments.get(name)
        if not isinstance(argument, list):
            raise Unsupported(f"`{name}` is {argument!r}, not a list")
        return argument

    def integers(self, call: Call, name: str) -> tuple[int, ...]:
        items = self.list(call, name)
        if not all(type(item) is int for item in items):
            raise Unsupported(f"`{name}` is not a list of integers")
        return tuple(items)

    def pair(self, call: Call, name: str, rank: int = 2) -> tuple[int, ...]:
        """A list of `rank` integers; one stands for all of them."""
        items = self.integers(call, name)
        items = items * rank if len(items) == 1 else items
        if len(items) != rank:
            raise Unsupported(f"`{name}` has {len(items)} elements; {rank} are needed")
        return items

    def axis(self, call: Call, name: str, rank: int) -> int:
        """An axis, counted from the front."""
        return normal_axis(self.integer(call, name), rank)

    def axes(self, call: Call, name: str, rank: int) -> tuple[int, ...]:
        """Axes counted from the front, ascending; all of them where none is given."""
        if not self.has(call, name) or call.arguments[name] == []:
            return tuple(range(rank))
        given = call.arguments[name]
        return tuple(sorted({normal_axis(axis, rank) for axis in (given if isinstance(given, list) else [given])}))

    # -- results ----------------------------------------------------------------------------------------------------

    def emit(self, call: Call, op: Op, *inputs: Value) -> Value:
        """Append an op with one output. The converter's result gets the name of the call afterwards."""
        name = self.free_name(f"{call.name}.{op.name}")
        value = self.graph.emit1(op, *inputs, name=name, source=call.source)
        if value.type.size > MAX_ELEMENTS:
            raise Unsupported(f"the result {value.type} has more than {MAX_ELEMENTS} elements")
        return value

    def emit_all(self, call: Call, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Append an op with several outputs."""
        stem = f"{call.name}.{op.name}"
        return self.graph.emit(op, *inputs, names=[self.free_name(stem)], source=call.source)

    def emit_first(self, call: Call, op: Op, *inputs: Value) -> Value:
        """Append an op of which only the first output matters."""
        return self.emit_all(call, op, *inputs)[0]

    def constant(self, call: Call, array: np.ndarray, dtype: DType) -> Value:
        return self.graph.constant(np.asarray(array).astype(dtype.numpy), self.free_name(f"{call.name}.c"))

    def scalar(self, call: Call, number: float, like: Value) -> Value:
        """A scalar constant in the dtype of `like`."""
        return self.constant(call, np.array(number), like.type.dtype)

    def writer(self, call: Call) -> Writer:
        """For code that serves all frontends."""
        return Writer(
            partial(self.emit, call), lambda array: self.graph.constant(array, self.free_name(f"{call.name}.c"))
        )

    def free_name(self, stem: str) -> str:
        """`stem` or like it: no name that is taken or kept for an input or a stored tensor."""
        name = self.graph.fresh_name(stem)
        while name in self._reserved:
            name = self.graph.fresh_name(f"{name}_")
        return name

    def as_value(self, entry: Entry) -> Value:
        if isinstance(entry, Value):
            return entry
        if isinstance(entry, Complex):
            raise Unsupported("of complex tensors")
        if entry in self._leaves:
            return self._leaves[entry]
        return self._leaf(entry, Role.PARAM if entry.trainable else Role.CONSTANT)

    def _leaf(self, known: Known, role: Role) -> Value:
        kind = type_of(known.tensor)
        name = known.name or self.free_name("c")
        leaf = self.graph.add_leaf(role, name, kind, data=to_numpy(known.tensor))
        self._leaves[known] = leaf
        return leaf


def normal_axis(axis: object, rank: int) -> int:
    """`axis` counted from the front; a scalar counts as a vector, as in torch."""
    rank = max(rank, 1)
    if type(axis) is not int or not -rank <= axis < rank:
        raise Unsupported(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def check_table(rows: int, columns: int) -> None:
    """Unsupported if a table of so many elements shall not be made."""
    if rows * columns > MAX_TABLE:
        raise Unsupported(f"it would need a table of {rows} by {columns} elements")


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The elements, shared with the tensor where it lies in row-major order."""
    kind = type_of(tensor)
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if kind.dtype is DType.BF16:
        return plain.view(torch.int16).numpy().view(kind.dtype.numpy)
    return plain.numpy()


def to_dtype(known: Known, dtype: DType) -> Known:
    """The tensor in another dtype: itself if it has it."""
    if known.tensor.dtype == TORCH_DTYPES[dtype]:
        return known
    if known.trainable:
        raise Unsupported(f"casts the parameter `{known.name}` to {dtype.value}")
    return Known(known.tensor.to(TORCH_DTYPES[dtype]))
