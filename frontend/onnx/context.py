"""What a converter may use: operands as graph values, arguments as numpy arrays, and `emit`."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgec.frontend.onnx.fold import FOLDS
from edgec.frontend.onnx.model import Node, Opaque, Sparse, Unsupported
from edgec.frontend.writer import Writer
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.base import Op
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.slice import Slice
from edgec.graph.types import DType, TensorType

KNOWN_AT_COMPILE_TIME = "it must be known at compile time"
DEPENDS_ON_DATA = "depends on data"
MAX_ELEMENTS = 2**31 - 1  # of one tensor: kernels index with int32
MAX_RANK = 32  # of what converters put in between; numpy has 64
MAX_FOLDED = 2**28  # elements that folding may make for one model: whole networks whose weights are filled, 1 GiB
EMPTYING = (Slice, BroadcastTo)  # ops that make a tensor without elements of one that has some
MAX_EXPANDED = 50_000  # nodes that bodies of functions, branches and loops may add to one model


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor known at compile time. `parameter` is the name of the float initializer it is, else empty."""

    array: np.ndarray
    parameter: str = ""

    @property
    def foldable(self) -> bool:
        """Whether what is computed from it may be a constant: a parameter proper stays live, for training."""
        return not self.parameter or self.array.size == 1


@dataclass(frozen=True, eq=False)
class Listed:
    """A sequence of tensors, whose length is always known; it exists at compile time only."""

    items: tuple[Value | Known, ...]


@dataclass(frozen=True, eq=False)
class Counted:
    """A tensor whose extent along `axis` depends on data: the first `count` slices of `value`, an i64[] of the program.
    `value` has room for the most that there can be; what lies behind the count is finite or not, and means nothing.
    """

    value: Value
    axis: int
    count: Value

    def __str__(self) -> str:
        return f"reads a tensor of {list(self.value.type.shape)} at most, whose extent along axis {self.axis} varies"


NOTHING = Opaque("an optional value that is empty")  # an optional value that is not empty is its element
LOST = Opaque("the result of a node that could not be imported")

Entry = Value | Known | Counted | Listed | Opaque  # opaque: reading it is refused, with the reason
Results = tuple[Entry, ...]
Converted = Entry | Results  # what a converter returns


class LostError(Exception):
    """A node reads what was lost with another one, which has been reported."""


class ExhaustedError(Exception):
    """The model grows beyond a bound; the text says which. Nothing behind it is looked at."""


class Context:
    """The graph under construction and what the ONNX names stand for.

    `reserved` holds every name of the model: values that the model does not name keep clear of them.
    """

    def __init__(self, graph: Graph, reserved: Collection[str]):
        self.graph = graph
        self.entries: ChainMap[str, Entry] = ChainMap()  # one map for each scope, the innermost first
        self._reserved = reserved
        self._leaves: dict[Known, Value] = {}
        self._stems: dict[str, int] = {}  # how often a stem has been asked for
        self._folded = 0
        self._expanded = 0

    # -- scopes -----------------------------------------------------------------------------------------------------

    @contextmanager
    def scope(self, names: Mapping[str, Entry]) -> Iterator[None]:
        """A scope for the names of a body: it sees those around it, and they vanish behind it."""
        with self._entries(self.entries.new_child(dict(names))):
            yield

    @contextmanager
    def call(self, names: Mapping[str, Entry]) -> Iterator[None]:
        """A scope for the names of a function, which sees nothing else."""
        with self._entries(ChainMap(dict(names))):
            yield

    @contextmanager
    def _entries(self, entries: ChainMap[str, Entry]) -> Iterator[None]:
        outer, self.entries = self.entries, entries
        try:
            yield
        finally:
            self.entries = outer

    @contextmanager
    def aside(self) -> Iterator[Graph]:
        """A graph for what is not to become part of the program: converters emit to it meanwhile."""
        outer = self.graph, self._leaves
        self.graph, self._leaves = Graph("aside"), {}
        try:
            yield self.graph
        finally:
            self.graph, self._leaves = outer

    def count_node(self) -> None:
        """One more node out of a body; ExhaustedError where unrolling does not end within reason."""
        self._expanded += 1
        if self._expanded > MAX_EXPANDED:
            raise ExhaustedError(f"functions and unrolled bodies have more than {MAX_EXPANDED} nodes")

    # -- operands ---------------------------------------------------------------------------------------------------

    def has(self, node: Node, index: int) -> bool:
        """Whether the optional input is given."""
        return index < len(node.inputs) and bool(node.inputs[index])

    def entry(self, node: Node, index: int) -> Value | Known:
        return as_tensor(self.any_entry(node, index))

    def any_entry(self, node: Node, index: int) -> Entry:
        """An input of whatever kind, for those who only hand it on."""
        if not self.has(node, index):
            raise Unsupported(f"input {index} is missing")
        return self.entries[node.inputs[index]]

    def listed(self, node: Node, index: int) -> tuple[Value | Known, ...]:
        """The tensors of a sequence."""
        entry = self.any_entry(node, index)
        if not isinstance(entry, Listed):
            raise Unsupported(f"input {index} is not a sequence")
        return entry.items

    def type(self, node: Node, index: int) -> TensorType:
        """The type of an input, without making a leaf of it."""
        entry = self.entry(node, index)
        if isinstance(entry, Value):
            return entry.type
        return TensorType(_dtype(entry.array), entry.array.shape)

    def value(self, node: Node, index: int) -> Value:
        """An input as a tensor of the graph: a known one becomes a parameter or a constant."""
        return self.tensor(self.entry(node, index), node.inputs[index])

    def tensor(self, entry: Value | Known, name: str) -> Value:
        """An entry as a tensor of the graph; a constant is called `name`."""
        return entry if isinstance(entry, Value) else self._leaf(entry, name, entry.parameter)

    def factor(self, node: Node, index: int, shape: tuple[int, ...]) -> Value:
        """An operand of an elementwise op with a result of `shape`; one element for a whole sample is a constant."""
        entry = self.entry(node, index)
        if isinstance(entry, Value) or entry.array.size != 1:
            return self.value(node, index)
        # The bias of a layer with one output is not a factor: a sample, the result without its batch, has one element.
        sample = shape[1:] if len(shape) > 1 else shape
        is_factor = entry.array.ndim == 0 or math.prod(sample) > 1
        return self._leaf(entry, node.inputs[index], "" if is_factor else entry.parameter)

    def known(self, node: Node, index: int, what: str) -> np.ndarray:
        """An input that must be known at compile time; `what` names it in the reason if it is not."""
        entry = self.entry(node, index)
        if isinstance(entry, Value):
            raise Unsupported(f"{what} is computed from the model's inputs; {KNOWN_AT_COMPILE_TIME}")
        return entry.array

    def known_ints(self, node: Node, index: int, what: str) -> tuple[int, ...]:
        array = self.known(node, index, what)
        if array.ndim > 1 or array.dtype.kind not in "iu":
            raise Unsupported(f"{what} is not a list of integers")
        return tuple(int(item) for item in array.reshape(-1))

    def known_scalar(self, node: Node, index: int, what: str) -> float:
        array = self.known(node, index, what)
        if array.size != 1:
            raise Unsupported(f"{what} has {array.size} elements; one is supported")
        return float(array.reshape(()))

    # -- results ----------------------------------------------------------------------------------------------------

    def emit(self, node: Node, op: Op, *inputs: Value) -> Value:
        """Append an op with one output. The converter's result gets the ONNX name afterwards."""
        of_nothing = self._of_nothing(node, op, inputs)
        if of_nothing is not None:
            return of_nothing[0]
        value = self.graph.emit1(op, *inputs, name=self._free_name(f"{node.outputs[0]}.{op.name}"), source=node.label)
        if value.type.size > MAX_ELEMENTS:
            raise Unsupported(f"the result {value.type} has more than {MAX_ELEMENTS} elements")
        if value.type.rank > MAX_RANK:
            raise Unsupported(f"the result has {value.type.rank} axes; up to {MAX_RANK} are supported")
        return value

    def _of_nothing(self, node: Node, op: Op, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        """The results of an op that has tensors without elements, which no kernel computes; None for all others."""
        if all(value.type.size for value in inputs) and not isinstance(op, EMPTYING):
            return None
        types = op.infer(*(value.type for value in inputs))
        if not any(kind.size for kind in types):
            return tuple(self.constant(node, np.zeros(kind.shape, kind.dtype.numpy)) for kind in types)
        if all(value.type.size for value in inputs):
            return None
        if not any(value.type.size for value in inputs):
            arrays = op.reference(*(np.zeros(value.type.shape, value.type.dtype.numpy) for value in inputs))
            return tuple(self.constant(node, array) for array in arrays)
        match op:
            case Concat():
                parts = [value for value in inputs if value.type.size]
                return (self.emit(node, op, *parts) if len(parts) > 1 else parts[0],)
            case MatMul():
                return (self.constant(node, np.zeros(types[0].shape, types[0].dtype.numpy)),)
            case ScatterElements() | ScatterNd():
                return (inputs[0],)
            case _:
                raise Unsupported(f"reads a tensor without elements: {', '.join(str(v.type) for v in inputs)}")

    def number(self, node: Node, number: float, like: Value) -> Value:
        """A scalar constant in the dtype of `like`; Unsupported for what no integer of it is."""
        dtype = like.type.dtype
        if not dtype.is_float and not (math.isfinite(number) and int(number) == number and _fits(int(number), dtype)):
            raise Unsupported(f"computes with {number:g} on {dtype.value} at run time")
        array = np.array(number, dtype.numpy)
        return self.graph.constant(array, self._free_name(f"{node.outputs[0]}.c"))

    def constant(self, node: Node, array: np.ndarray) -> Value:
        """A constant that the converter makes up: a table of indices, weights, a mask."""
        _dtype(array)
        return self.graph.constant(array, self._free_name(f"{node.outputs[0]}.c"))

    def writer(self, node: Node) -> Writer:
        """For code that serves all frontends."""
        return Writer(partial(self.emit, node), partial(self.constant, node))

    def emit_all(self, node: Node, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Append an op with several outputs."""
        of_nothing = self._of_nothing(node, op, inputs)
        return self.graph.emit(op, *inputs, source=node.label) if of_nothing is None else of_nothing

    def fold(self, node: Node) -> tuple[Known, ...] | None:
        """The results of a node that can be evaluated at compile time; None if it cannot."""
        if node.op not in FOLDS or not self.all_known(node):
            return None
        arrays = [self.entries[name].array if name else None for name in node.inputs]
        results, cost = FOLDS[node.op].run(node, arrays, self.foldable_elements)
        self.count_folded(cost)
        return tuple(Known(array) for array in results)

    def all_known(self, node: Node) -> bool:
        """Whether a constant may stand for what the node computes."""
        entries = [self.entries[name] for name in node.inputs if name]
        return all(isinstance(entry, Known) and entry.foldable for entry in entries)

    @property
    def foldable_elements(self) -> int:
        """How many more may be made at compile time."""
        return MAX_FOLDED - self._folded

    def count_folded(self, elements: int) -> None:
        self._folded += elements

    def dense(self, sparse: Sparse) -> Known:
        """A sparse tensor as a constant; training would fill its gaps."""
        size = math.prod(sparse.shape)
        if size > self.foldable_elements:
            raise Unsupported(f"a sparse tensor of {size} elements is too large")
        self.count_folded(size)
        return Known(sparse.dense())

    def result(self, name: str) -> Value:
        """The value of a model output."""
        return self.tensor(as_tensor(self.entries[name]), name)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _leaf(self, known: Known, name: str, parameter: str) -> Value:
        if known in self._leaves:
            return self._leaves[known]
        kind = TensorType(_dtype(known.array), known.array.shape)
        data = np.ascontiguousarray(known.array).reshape(kind.shape)  # which makes vectors of scalars
        if parameter:
            leaf = self.graph.add_leaf(Role.PARAM, parameter, kind, data=data)
        else:
            name = self.graph.fresh_name(known.parameter or name)
            leaf = self.graph.add_leaf(Role.CONSTANT, name, kind, data=data)
        self._leaves[known] = leaf
        return leaf

    def _free_name(self, stem: str) -> str:
        """`stem`, or the first of `stem.1`, `stem.2`, ... that nobody has."""
        while True:
            count = self._stems.get(stem, 0)
            self._stems[stem] = count + 1
            name = f"{stem}.{count}" if count else stem
            if name not in self._reserved and self.graph.fresh_name(name) == name:
                return name


def initializer(name: str, array: np.ndarray) -> Known:
    """The entry of a dense initializer of the model."""
    is_float = array.dtype.kind == "f" or array.dtype == DType.BF16.numpy
    return Known(array, name if is_float else "")


def _fits(number: int, dtype: DType) -> bool:
    if dtype is DType.BOOL:
        return number in (0, 1)
    return np.iinfo(dtype.numpy).min <= number <= np.iinfo(dtype.numpy).max


def as_tensor(entry: Entry) -> Value | Known:
    """The entry if it can be read as a tensor; LostError, Unsupported."""
    if entry is LOST:
        raise LostError
    if isinstance(entry, Listed):
        raise Unsupported("reads a sequence where a tensor is needed")
    if isinstance(entry, Counted):
        raise Unsupported(f"{entry}: it {DEPENDS_ON_DATA}")
    if isinstance(entry, Opaque):
        raise Unsupported(f"reads {entry.what}")
    return entry


def _dtype(array: np.ndarray) -> DType:
    try:
        return DType.of(array.dtype)
    except KeyError:
        raise Unsupported(f"tensors of dtype {array.dtype} are not supported") from None
