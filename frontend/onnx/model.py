"""An ONNX model as plain data: what the rest of the frontend works on instead of protobuf messages."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

import numpy as np

from edgec.graph.errors import UserError
from edgec.graph.types import DType

MAX_CYCLE = 8  # nodes of a cycle that are named
Dim = int | str | None  # a number, a symbol shared by name, or simply unknown


class Unsupported(Exception):
    """A node that cannot be imported; the text is the reason, for the user."""


@dataclass(frozen=True)
class Opaque:
    """Something the frontend does not read (a sparse tensor, a string tensor); `what` names it."""

    what: str


@dataclass(frozen=True)
class Reference:
    """The value of an attribute inside a function: what the call gives for `name`."""

    name: str


@dataclass(frozen=True, eq=False)
class Sparse:
    """A tensor of which most elements are 0: `values[i]` lies at the flat position `positions[i]`."""

    values: np.ndarray
    positions: np.ndarray
    shape: tuple[int, ...]

    def dense(self) -> np.ndarray:
        array = np.zeros(math.prod(self.shape), self.values.dtype)
        array[self.positions] = self.values
        return array.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Body:
    """A graph inside a node: a branch of `If`, what `Loop` and `Scan` repeat, or a function. It sees outer names."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    initializers: dict[str, np.ndarray | Sparse | Opaque]
    nodes: tuple[Node, ...]

    @cached_property
    def outer_names(self) -> set[str]:
        """What it reads and does not define."""
        own = {*self.inputs, *self.initializers, *(name for node in self.nodes for name in node.outputs)}
        read = {*self.outputs, *(name for node in self.nodes for name in node.reads)}
        return read - own - {""}


Attribute = (
    int
    | float
    | str
    | tuple[int, ...]
    | tuple[float, ...]
    | tuple[str, ...]
    | np.ndarray
    | Sparse
    | Body
    | Reference
    | Opaque
)
FunctionKey = tuple[str, str, str]  # domain, name and overload


@dataclass(frozen=True)
class Input:
    """A model input; `dims` is None where even the rank is unknown."""

    name: str
    dtype: DType | Opaque
    dims: tuple[Dim, ...] | None

    def __str__(self) -> str:
        if self.dims is None:
            return f"`{self.name}` of unknown rank"
        return f"`{self.name}` [{','.join('?' if dim is None else str(dim) for dim in self.dims)}]"


@dataclass(frozen=True)
class Node:
    """One application of an ONNX operator. An absent optional input is the empty name."""

    op: str
    domain: str
    opset: int  # version of the operator set of `domain` that the model asks for
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)
    overload: str = ""

    @property
    def function(self) -> FunctionKey:
        return self.domain, self.op, self.overload

    @property
    def label(self) -> str:
        return self.name or f"{self.op}:{next(filter(None, self.outputs), '')}"

    @property
    def reads(self) -> set[str]:
        """Its inputs, and what the graphs inside it read of those around them."""
        bodies = [value for value in self.attributes.values() if isinstance(value, Body)]
        return {name for name in self.inputs if name}.union(*(body.outer_names for body in bodies))

    def get_int(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if not isinstance(value, int):
            raise Unsupported(f"attribute `{name}` is not an integer")
        return value

    def get_float(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if not isinstance(value, (int, float)):
            raise Unsupported(f"attribute `{name}` is not a number")
        return float(value)

    def get_str(self, name: str, default: str | None = None) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise Unsupported(f"attribute `{name}` is not a string")
        return value

    def get_ints(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        value = self._get(name, default)
        if not isinstance(value, tuple) or not all(isinstance(item, int) for item in value):
            raise Unsupported(f"attribute `{name}` is not a list of integers")
        return value

    def get_floats(self, name: str) -> tuple[float, ...]:
        value = self._get(name, None)
        if not isinstance(value, tuple) or not all(isinstance(item, float) for item in value):
            raise Unsupported(f"attribute `{name}` is not a list of numbers")
        return value

    def get_body(self, name: str) -> Body:
        value = self._get(name, None)
        if not isinstance(value, Body):
            raise Unsupported(f"attribute `{name}` is not a graph")
        return value

    def _get(self, name: str, default: Attribute | None) -> Attribute:
        value = self.attributes.get(name, default)
        if value is None:
            raise Unsupported(f"attribute `{name}` is missing")
        return value


@dataclass(frozen=True)
class Function:
    """An operator that the model defines itself. `defaults` holds its attributes, None: without a default."""

    opset: int  # of the standard's operators in it
    body: Body
    defaults: dict[str, Attribute | None]


@dataclass(frozen=True)
class Model:
    """One ONNX file. `label` names it in errors; initializer arrays are read-only and may be mapped from disk."""

    label: str
    opset: int
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    initializers: dict[str, np.ndarray | Sparse | Opaque]
    nodes: tuple[Node, ...]
    functions: dict[FunctionKey, Function] = field(default_factory=dict)


def in_order(nodes: Sequence[Node], given: Collection[str]) -> tuple[Node, ...]:
    """The nodes as they are if each stands behind those whose results it reads, as the standard has it; else sorted.

    What is `given` has values before any node. UserError E0102 names the nodes of a cycle.
    """
    makers = {name: index for index, node in enumerate(nodes) for name in node.outputs if name}
    makers = {name: index for name, index in makers.items() if name not in given}
    before = [[makers[name] for name in node.reads if name in makers] for node in nodes]
    if all(maker < index for index, makers_of in enumerate(before) for maker in makers_of):
        return tuple(nodes)
    try:
        return tuple(nodes[index] for index in TopologicalSorter(dict(enumerate(before))).static_order())
    except CycleError as error:
        names = " -> ".join(f"`{nodes[index].label}`" for index in error.args[1][:MAX_CYCLE])
        raise UserError("E0102", f"the nodes read one another in a circle: {names}") from None
