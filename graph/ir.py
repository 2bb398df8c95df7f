"""The graph: SSA values, nodes in execution order, and the roles of what comes from outside.

A `Graph` is one program. A `Module` is the programs of one artifact; a parameter or state is shared between programs
by its name. Invariants (checked by `edgec.graph.verify`): nodes stand in an order in which every operand is defined
before it is read; value names are unique within a graph; `Value.uses` is exactly the set of readers.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.graph.errors import InternalError
from edgec.graph.ops.base import Cost, Op
from edgec.graph.parts import Parts
from edgec.graph.types import DType, TensorType


class Role(enum.Enum):
    """Where a value that no node computes comes from."""

    INPUT = "input"  # given for every run
    PARAM = "param"  # a tensor of the source model
    STATE = "state"  # optimizer state, running statistics, counters
    CONSTANT = "constant"  # known at compile time, not the user's
    SCALAR = "scalar"  # one f32 or i32 given at run time: learning rate, step, ...


@dataclass(frozen=True)
class Bounds:
    """What every element of an integer input or scalar must be: `low` to `high`, or `ignored` (no label here)."""

    low: int
    high: int
    ignored: int | None = None


@dataclass(frozen=True)
class Count:
    """Of an output only the first slices along `axis` hold results: as many as the output `name`, an i64, says."""

    name: str
    axis: int


@dataclass(eq=False)
class Value:
    """A tensor: a leaf with a role, or output `index` of `producer`. Compared by identity."""

    name: str
    type: TensorType
    role: Role | None = None
    producer: Node | None = None
    index: int = 0
    uses: list[tuple[Node, int]] = field(default_factory=list, repr=False)
    data: np.ndarray | None = field(default=None, repr=False)  # of a constant; initial value of a param or state
    trainable: bool = False  # a param that the update may change
    bounds: Bounds | None = None  # of an input or scalar of integers; such a scalar is `high` where nobody gives it

    def __str__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(eq=False)
class Node:
    """One application of an op. `source` names what it came from: an ONNX node, or torch file and line."""

    op: Op
    inputs: list[Value]
    outputs: tuple[Value, ...] = ()
    source: str = ""

    @property
    def output(self) -> Value:
        """The only output; an error where there are several."""
        (value,) = self.outputs
        return value

    @property
    def cost(self) -> Cost:
        return self.op.cost(tuple(v.type for v in self.inputs), tuple(v.type for v in self.outputs))


class Graph:
    """One program: leaves by name, nodes in order, named outputs, and updates of parameters and states.

    `updates` maps a param or state leaf to the value that replaces it at the end of the program. `loss` is the output
    name of the scalar that the guard watches, in a train program; `guard` that of another one that it watches. `counts`
    has the outputs whose extent depends on data, by name: they have room for the most that there can be.
    """

    def __init__(self, name: str):
        self.name = name
        self.leaves: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.outputs: dict[str, Value] = {}
        self.counts: dict[str, Count] = {}
        self.updates: dict[Value, Value] = {}
        self.loss: str | None = None
        self.guard: str | None = None
        self._names: set[str] = set()

    # -- building ---------------------------------------------------------------------------------------------------

    def add_leaf(
        self,
        role: Role,
        name: str,
        type: TensorType,
        *,
        data: np.ndarray | None = None,
        trainable: bool = False,
        bounds: Bounds | None = None,
    ) -> Value:
        if name in self._names:
            raise InternalError(f"value name {name!r} is taken in graph {self.name!r}")
        value = Value(name, type, role, data=data, trainable=trainable, bounds=bounds)
        self._names.add(name)
        self.leaves[name] = value
        return value

    def constant(self, array: np.ndarray, name: str = "c") -> Value:
        """A constant leaf holding `array`, under a fresh name that starts with `name`."""

        array = np.ascontiguousarray(array).reshape(np.shape(array))
        kind = TensorType(DType.of(array.dtype), array.shape)
        return self.add_leaf(Role.CONSTANT, self.fresh_name(name), kind, data=array)

    def emit(
        self,
        op: Op,
        *inputs: Value,
        names: Sequence[str] = (),
        source: str = "",
        before: Node | None = None,
    ) -> tuple[Value, ...]:
        """Append (or insert before `before`) a node; output types are inferred. Raises UserError on a type mismatch."""
        types = op.infer(*(value.type for value in inputs))
        node = Node(op, list(inputs), source=source)
        outputs = []
        for index, kind in enumerate(types):
            wanted = names[index] if index < len(names) else op.name
            name = wanted if index < len(names) and wanted not in self._names else self.fresh_name(wanted)
            self._names.add(name)
            outputs.append(Value(name, kind, producer=node, index=index))
        node.outputs = tuple(outputs)
        for slot, value in enumerate(inputs):
            value.uses.append((node, slot))
        if before is None:
            self.nodes.append(node)
        else:
            self.nodes.insert(self.nodes.index(before), node)
        return node.outputs

    def emit1(self, op: Op, *inputs: Value, name: str = "", source: str = "", before: Node | None = None) -> Value:
        """`emit` for an op with one output."""
        (value,) = self.emit(op, *inputs, names=(name,) if name else (), source=source, before=before)
        return value

    def fresh_name(self, stem: str) -> str:
        if stem not in self._names:
            return stem
        counter = 1
        while f"{stem}.{counter}" in self._names:
            counter += 1
        return f"{stem}.{counter}"

    # -- changing ---------------------------------------------------------------------------------------------------

    def replace_uses(self, old: Value, new: Value) -> None:
        """Every reader, output and update of `old` reads `new` instead."""
        for node, slot in old.uses:
            node.inputs[slot] = new
            new.uses.append((node, slot))
        old.uses = []
        for name, value in self.outputs.items():
            if value is old:
                self.outputs[name] = new
        for target, value in self.updates.items():
            if value is old:
                self.updates[target] = new

    def set_input(self, node: Node, slot: int, value: Value) -> None:
        node.inputs[slot].uses.remove((node, slot))
        node.inputs[slot] = value
        value.uses.append((node, slot))

    def remove(self, node: Node) -> None:
        """Remove a node that nobody reads."""
        for value in node.outputs:
            if value.uses or self.is_result(value):
                raise InternalError(f"value {value} of a removed node is still read")
        for slot, value in enumerate(node.inputs):
            value.uses.remove((node, slot))
        for value in node.outputs:
            self._names.discard(value.name)
        self.nodes.remove(node)

    def remove_all(self, nodes: Collection[Node]) -> None:
        """Remove nodes that only one another read, in time linear in the graph."""
        dead, results = set(nodes), set(self.results())
        for value in (value for node in dead for value in node.outputs):
            if value in results or any(reader not in dead for reader, _ in value.uses):
                raise InternalError(f"value {value} of a removed node is still read")
        for value in {value for node in dead for value in node.inputs}:
            value.uses = [(reader, slot) for reader, slot in value.uses if reader not in dead]
        self._names.difference_update(value.name for node in dead for value in node.outputs)
        self.nodes = [node for node in self.nodes if node not in dead]

    def remove_leaf(self, value: Value) -> None:
        if value.uses or self.is_result(value):
            raise InternalError(f"leaf {value} is still read")
        del self.leaves[value.name]
        self._names.discard(value.name)

    def rename(self, value: Value, name: str) -> None:
        if name in self._names:
            raise InternalError(f"value name {name!r} is taken in graph {self.name!r}")
        if value.role is not None:
            self.leaves = {name if k == value.name else k: v for k, v in self.leaves.items()}
        self._names.discard(value.name)
        self._names.add(name)
        value.name = name

    # -- asking -----------------------------------------------------------------------------------------------------

    def by_role(self, role: Role) -> list[Value]:
        return [value for value in self.leaves.values() if value.role is role]

    def values(self) -> Iterator[Value]:
        yield from self.leaves.values()
        for node in self.nodes:
            yield from node.outputs

    def is_result(self, value: Value) -> bool:
        """Whether the program hands `value` out: as an output, or as the new value of a parameter or state."""
        return value in self.outputs.values() or value in self.updates.values()

    def results(self) -> list[Value]:
        return [*self.outputs.values(), *self.updates.values()]

    def ancestors(self, values: Iterable[Value]) -> set[Node]:
        """All nodes that `values` depend on."""
        seen: set[Node] = set()
        stack = [value.producer for value in values if value.producer is not None]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            stack.extend(value.producer for value in node.inputs if value.producer is not None)
        return seen

    def clone(self, name: str | None = None) -> Graph:
        """A deep copy that shares array data."""
        copy = Graph(name or self.name)
        copy.loss, copy.guard, copy.counts = self.loss, self.guard, dict(self.counts)
        copy._names = set(self._names)
        made: dict[Value, Value] = {}
        for leaf in self.leaves.values():
            made[leaf] = Value(
                leaf.name, leaf.type, leaf.role, data=leaf.data, trainable=leaf.trainable, bounds=leaf.bounds
            )
            copy.leaves[leaf.name] = made[leaf]
        for node in self.nodes:
            twin = Node(node.op, [made[v] for v in node.inputs], source=node.source)
            for slot, value in enumerate(twin.inputs):
                value.uses.append((twin, slot))
            twin.outputs = tuple(Value(v.name, v.type, producer=twin, index=v.index) for v in node.outputs)
            made.update(zip(node.outputs, twin.outputs, strict=True))
            copy.nodes.append(twin)
        copy.outputs = {name: made[v] for name, v in self.outputs.items()}
        copy.updates = {made[t]: made[v] for t, v in self.updates.items()}
        return copy


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of the source model's state as it was given: `data`, and the leaf that stands for it in programs.

    Tied tensors have one leaf; a leaf may be missing, because nothing reads it. `counts_batches` marks an integer that
    grows by one with every batch whose statistics a norm takes.
    """

    data: np.ndarray
    leaf: str
    counts_batches: bool = False


@dataclass
class Module:
    """The programs of one artifact by name (`infer`, `train`, `eval`); params and states are shared by name.

    `source` is the state of the model that it came from (a torch module's state_dict), by name: what an artifact gives
    back, whatever passes make of it. `parts` says of parameters of the source model, by name, how programs hold those
    that they hold in pieces. Neither is in the text form.
    """

    programs: dict[str, Graph] = field(default_factory=dict)
    source: dict[str, SourceTensor] = field(default_factory=dict)
    parts: dict[str, Parts] = field(default_factory=dict)

    def clone(self) -> Module:
        programs = {name: graph.clone() for name, graph in self.programs.items()}
        return Module(programs, dict(self.source), dict(self.parts))

    def updated_names(self) -> set[str]:
        """Names of all params and states that any program changes."""
        return {target.name for graph in self.programs.values() for target in graph.updates}
