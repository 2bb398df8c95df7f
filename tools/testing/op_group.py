"""One op, or a chain of them, as a backend gets it: a group with storages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgec.backends.base import Group
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.base import Op
from edgec.graph.types import TensorType
from edgec.runtime.abi import Storage


def op_group(op: Op, types: Sequence[TensorType]) -> Group:
    """The group of one node; its inputs are leaves."""
    graph = Graph("test")
    leaves = [graph.add_leaf(Role.INPUT, f"x{i}", kind) for i, kind in enumerate(types)]
    outputs = graph.emit(op, *leaves)
    return Group(tuple(graph.nodes), tuple(dict.fromkeys(leaves)), outputs)


def some_storage(shape: tuple[int, ...], seed: int, panels: bool = True) -> Storage:
    """Row-major for seed 0; else any order of the axes, and sometimes panels of 4."""
    if seed == 0:
        return Storage.row_major(shape)
    rng = np.random.default_rng([seed, *shape])
    perm = tuple(int(axis) for axis in rng.permutation(len(shape)))
    return Storage(tuple(shape), perm, 4 if panels and len(shape) > 1 and rng.random() < 0.4 else 0)


def memory_of(group: Group, arrays: Sequence[np.ndarray], storage: Mapping[Value, Storage]) -> dict[Value, np.ndarray]:
    """The flat arrays of a group's values: inputs from logical `arrays`, outputs filled with a rare value."""
    memory = {value: storage[value].pack(array).copy() for value, array in zip(group.inputs, arrays, strict=True)}
    for value in group.outputs:
        memory[value] = np.full(value.type.size, 77, value.type.dtype.numpy)
    return memory
