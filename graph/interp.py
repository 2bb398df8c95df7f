"""The reference interpreter: runs a graph with the numpy references of its ops, in its own dtypes or in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Graph, Node, Role, Value
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.compress import Compress
from edgec.graph.ops.decompress import Decompress
from edgec.graph.types import DType


@dataclass(frozen=True)
class Results:
    """Outputs by output name, and new values of params and states by leaf name."""

    outputs: dict[str, np.ndarray]
    updates: dict[str, np.ndarray]


def run(
    graph: Graph,
    feeds: Mapping[str, np.ndarray],
    dtype: np.dtype | type | None = None,
    *,
    observe: Callable[[str, np.ndarray], None] | None = None,
) -> Results:
    """Run one program once. Nothing of the graph changes: updates are returned, not applied.

    `feeds` holds every input and scalar by name, and any param or state that shall not start from its own data.
    `dtype=np.float64` computes all floats in double precision. `observe(name, array)` sees every leaf and computed
    value as it appears, and may change it for its readers: `run(..., observe=values.__setitem__)` keeps them all in the
    dictionary `values`.

    UserError: E0601 for a feed that is missing or names no leaf, E0602 and E0603 for its dtype and shape.
    """
    float_dtype = None if dtype is None else np.dtype(dtype)
    for name in feeds:
        if name not in graph.leaves or graph.leaves[name].role is Role.CONSTANT:
            known = ", ".join(leaf.name for leaf in graph.leaves.values() if leaf.role is not Role.CONSTANT)
            raise UserError("E0601", f"program `{graph.name}` has no input `{name}`", hint=f"it has: {known}")
    values: dict[Value, np.ndarray] = {}
    for leaf in graph.leaves.values():
        values[leaf] = _leaf_array(graph, leaf, feeds, _run_dtype(leaf, float_dtype))
        if observe:
            observe(leaf.name, values[leaf])
    kept = set(graph.results())
    unread = {value: len(value.uses) for value in graph.values()}
    # Infinities and NaN are values like any other; whoever wants to know looks at the results.
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            arrays = node.op.reference(*(values[v] for v in node.inputs))
            if isinstance(node.op, Cast | Compress | Decompress):  # to a float means: to the one computed in
                arrays = tuple(array.astype(_run_dtype(node.output, float_dtype)) for array in arrays)
            for value, array in _checked(node, arrays, float_dtype):
                values[value] = array
                if observe:
                    observe(value.name, array)
            for value in node.inputs:
                unread[value] -= 1
                if unread[value] == 0 and value not in kept:
                    del values[value]
    return Results(
        outputs={name: values[value] for name, value in graph.outputs.items()},
        updates={leaf.name: values[value] for leaf, value in graph.updates.items()},
    )


def within_counts(graph: Graph, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of the model that `graph` came from: those that are counted without what lies behind their count, and
    without the counts.
    """
    counters = {count.name for count in graph.counts.values()}
    found = {name: array for name, array in outputs.items() if name not in counters}
    for name, count in graph.counts.items():
        found[name] = np.take(found[name], range(int(outputs[count.name])), count.axis)
    return found


def _run_dtype(value: Value, float_dtype: np.dtype | None) -> np.dtype:
    own = value.type.dtype
    return float_dtype if float_dtype is not None and own.is_float else own.numpy


def _leaf_array(graph: Graph, leaf: Value, feeds: Mapping[str, np.ndarray], dtype: np.dtype) -> np.ndarray:
    """What a leaf holds at the start, as a copy: what is fed, else its own data."""
    array = feeds.get(leaf.name, leaf.data)
    if array is None and leaf.role is Role.SCALAR and leaf.bounds is not None:
        array = np.array(leaf.bounds.high)
    if array is None:
        raise UserError("E0601", f"nothing is fed for {leaf.role.value} `{leaf.name}` of program `{graph.name}`")
    array = np.asarray(array)
    if array.shape != leaf.type.shape:
        raise UserError("E0603", f"`{leaf.name}` has shape {array.shape}, program `{graph.name}` takes {leaf.type}")
    if _same_kind(array.dtype, dtype):
        cast = array.astype(dtype)
        if leaf.type.dtype.is_float or np.array_equal(cast, array):
            return cast
    raise UserError("E0602", f"`{leaf.name}` holds {array.dtype}, program `{graph.name}` takes {leaf.type}")


def _same_kind(given: np.dtype, wanted: np.dtype) -> bool:
    """Floats for floats, integers for integers, bool for bool."""
    try:
        given_type, wanted_type = DType.of(given), DType.of(wanted)
    except KeyError:
        return False
    if DType.BOOL in (given_type, wanted_type):
        return given_type is wanted_type
    return given_type.is_float == wanted_type.is_float


def _checked(
    node: Node, arrays: tuple[np.ndarray, ...], float_dtype: np.dtype | None
) -> list[tuple[Value, np.ndarray]]:
    """Outputs with their arrays. A reference that breaks its own type rule is our bug."""
    pairs = list(zip(node.outputs, arrays, strict=True))
    for value, array in pairs:
        wanted = _run_dtype(value, float_dtype)
        if not isinstance(array, np.ndarray) or array.shape != value.type.shape or array.dtype != wanted:
            got = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InternalError(f"the reference of {node.op.name} gives {got} for {value}, computed in {wanted}")
    return pairs
