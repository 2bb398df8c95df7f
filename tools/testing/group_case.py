"""For tests: one group of a small graph, lowered for a target, run, and compared with the ops' numpy references."""

from __future__ import annotations

import numpy as np

from edgec.backends.base import Group, Target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.generic.kernel import GenericSpec
from edgec.backends.tvm.strategies import lower_group
from edgec.backends.tvm.tuning.choice import MODEL, Chooser
from edgec.graph.ir import Graph, Role, Value
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering


def group_of(graph: Graph, outputs: list[Value] | None = None, before: int = 0) -> Group:
    """All nodes of `graph` but the first `before` as one group that hands out `outputs`, by default the last value."""
    outputs = outputs or list(graph.nodes[-1].outputs)
    nodes = graph.nodes[before:]
    inputs = [leaf for leaf in graph.leaves.values() if any(node in nodes for node, _ in leaf.uses)]
    return Group(tuple(nodes), inputs=tuple(inputs), outputs=tuple(outputs))


def storages(graph: Graph, target: Target, row_major: tuple[Value, ...] = ()) -> dict[Value, Storage]:
    """What the compiler would choose, except that feature maps lie as NHWC also where they are inputs of the
    program.
    """
    backend = TvmBackend(target)
    chosen = backend.choose_storage([[group_of(graph)]])
    result = {}
    for value in graph.values():
        if value in row_major:
            result[value] = Storage.row_major(value.type.shape)
        elif value.role is Role.INPUT and value.type.rank == 4:
            result[value] = Storage.channels_last(value.type.shape)
        elif value.role in (None, Role.INPUT):
            result[value] = backend.activation_storage([value])[value]
        else:
            result[value] = chosen.get(value.name, Storage.row_major(value.type.shape))
    return result


def check_group(
    graph: Graph,
    target: Target,
    *,
    outputs: list[Value] | None = None,
    alias: dict[Value, Value] | None = None,
    row_major: tuple[Value, ...] = (),
    before: int = 0,
    seed: int = 0,
    tolerance: float = 1e-5,
    tuning: Chooser = MODEL,
) -> list[str]:
    """Lower, run on signed data, compare with f64 references; the stems of the kernels.

    Errors are relative to the largest result. No test of a scheduled kernel may pass on the generic one.
    """
    alias = alias or {}
    group = group_of(graph, outputs, before)
    storage = storages(graph, target, row_major)
    lowering = lower_group(group, storage, alias, target, tuning)
    assert not any(isinstance(call.spec, GenericSpec) for call in lowering.calls), "fell back to the generic kernel"
    rng = np.random.default_rng(seed)
    logical = {leaf: rng.normal(size=leaf.type.shape).astype(np.float32) for leaf in graph.leaves.values()}
    memory = {leaf: storage[leaf].pack(array) for leaf, array in logical.items()}
    for output in group.outputs:
        memory[output] = (
            memory[alias[output]] if output in alias else np.full(output.type.size, np.nan, output.type.dtype.numpy)
        )
    exact = {leaf: array.astype(np.float64) for leaf, array in logical.items()}
    with np.errstate(invalid="ignore"):  # logarithms of negative numbers and the like are NaN here and there
        for node in graph.nodes:
            exact.update(zip(node.outputs, node.op.reference(*(exact[v] for v in node.inputs)), strict=True))
    run_lowering(lowering, memory, target)
    for output in group.outputs:
        got = storage[output].unpack(memory[output], output.type.shape)
        scale = max(1.0, float(np.nanmax(np.abs(exact[output]), initial=0.0)))
        np.testing.assert_allclose(got, exact[output], rtol=0, atol=tolerance * scale, err_msg=str(output))
    return [call.spec.stem for call in lowering.calls]
