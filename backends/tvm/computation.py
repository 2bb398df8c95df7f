"""A group as data: what it computes from which memory, free of graph objects, so that it can be the heart of a spec.

Where `Epilogue` describes what follows an anchor in the anchor's own matrix view, a `Computation` keeps logical shapes
and storages of everything. Kernels that walk the logical index space (elementwise, movement, reductions, all generic
ones) are written from it. Nothing here loads tvm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgec.backends.base import Argument, Group
from edgec.graph.ir import Value
from edgec.graph.ops.base import Op
from edgec.graph.types import TensorType
from edgec.runtime.abi import Access, Storage


@dataclass(frozen=True)
class Memory:
    """A tensor of `type` that lies in `storage` behind argument `argument` of the kernel."""

    type: TensorType
    storage: Storage
    argument: int


@dataclass(frozen=True)
class Computed:
    """Output `output` of step `step`: it need not exist in memory."""

    step: int
    output: int = 0


@dataclass(frozen=True)
class Step:
    """One op. Operands are memory or results of earlier steps."""

    op: Op
    operands: tuple[Memory | Computed, ...]


@dataclass(frozen=True)
class Store:
    """A result and where it goes. Several arguments never overlap; an output may share that of an input (in place)."""

    value: Computed
    memory: Memory


@dataclass(frozen=True)
class Computation:
    """Steps in order, the first of which is the anchor, and the results that are written to memory."""

    arguments: tuple[Argument, ...]
    steps: tuple[Step, ...]
    stores: tuple[Store, ...]

    @property
    def anchor(self) -> Step:
        return self.steps[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first result: the index space of elementwise steps."""
        return self.stores[0].memory.type.shape

    @property
    def elements(self) -> int:
        """Of the largest tensor."""
        return max(argument.elements for argument in self.arguments)

    @property
    def stem(self) -> str:
        """`f32_conv2d_add_relu`."""
        names = "_".join(step.op.name for step in self.steps)
        return f"{self.stores[0].memory.type.dtype.value}_{names}"

    @property
    def in_place(self) -> bool:
        return any(argument.access == Access.READ_WRITE for argument in self.arguments)


@dataclass(frozen=True)
class BoundComputation:
    """A computation and the values that its arguments stand for."""

    computation: Computation
    operands: tuple[Value, ...]
    label: str


def bind_computation(group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]) -> BoundComputation:
    """A group as data. Arguments are its inputs, then its outputs; an output in an input's memory stands for both."""
    overwritten = {alias[output]: output for output in group.outputs if output in alias}
    slots: dict[Value, int] = {}
    for value in group.inputs:
        slots.setdefault(overwritten.get(value, value), len(slots))
    for value in group.outputs:
        slots.setdefault(value, len(slots))

    def memory(value: Value) -> Memory:
        return Memory(value.type, storage[value], slots[overwritten.get(value, value)])

    computed: dict[Value, Computed] = {}
    steps = []
    for index, node in enumerate(group.nodes):
        steps.append(Step(node.op, tuple(computed[v] if v in computed else memory(v) for v in node.inputs)))
        computed.update((value, Computed(index, position)) for position, value in enumerate(node.outputs))
    stores = tuple(Store(computed[value], Memory(value.type, storage[value], slots[value])) for value in group.outputs)
    arguments = tuple(Argument(value.type.dtype, value.type.size, _access(value, group, alias)) for value in slots)
    return BoundComputation(Computation(arguments, tuple(steps), stores), tuple(slots), label(group))


def _access(value: Value, group: Group, alias: Mapping[Value, Value]) -> Access:
    if value not in group.outputs:
        return Access.READ
    return Access.READ_WRITE if value in alias and alias[value] in group.inputs else Access.WRITE


def label(group: Group) -> str:
    """The source nodes, for the profile."""
    return ", ".join(dict.fromkeys(node.source or node.op.name for node in group.nodes))
