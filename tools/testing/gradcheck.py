"""Checks an op's `vjp` against finite differences of its `reference`, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgec.graph.interp import run
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.base import GradientBuilder, Op
from edgec.graph.types import DType, TensorType


class ScratchBuilder(GradientBuilder):
    """Appends backward nodes to a graph; the gradients of `wanted` values are asked for."""

    def __init__(self, graph: Graph, wanted: Sequence[Value], dtype: DType):
        self.graph = graph
        self._wanted = set(wanted)
        self._dtype = dtype

    def emit(self, op: Op, *inputs: Value) -> Value:
        return self.graph.emit1(op, *inputs)

    def emit_all(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        return self.graph.emit(op, *inputs)

    def constant(self, array: np.ndarray) -> Value:
        array = np.asarray(array)
        return self.graph.constant(array.astype(self._dtype.numpy) if array.dtype.kind == "f" else array)

    def wanted(self, value: Value) -> bool:
        return value in self._wanted


def vjp_gradients(
    op: Op,
    inputs: Sequence[np.ndarray],
    output_gradients: Sequence[np.ndarray | None],
    wanted: Sequence[bool] | None = None,
) -> list[np.ndarray | None]:
    """Gradients of `inputs` by the op's own `vjp`, interpreted; None where it gives none.

    Arrays keep their dtypes (f32 or f64; integers for labels). `wanted` defaults to every float input.
    """
    graph = Graph("vjp")
    leaves = [
        graph.add_leaf(Role.INPUT, f"x{i}", TensorType(DType.of(x.dtype), x.shape), data=None)
        for i, x in enumerate(inputs)
    ]
    if wanted is None:
        wanted = [leaf.type.dtype.is_float for leaf in leaves]
    dtype = next(leaf.type.dtype for leaf in leaves if leaf.type.dtype.is_float)
    outputs = graph.emit(op, *leaves)
    cotangents: list[Value | None] = []
    feeds = {leaf.name: x for leaf, x in zip(leaves, inputs, strict=True)}
    for output, array in zip(outputs, output_gradients, strict=True):
        if array is None:
            cotangents.append(None)
            continue
        cotangent = graph.add_leaf(Role.INPUT, f"d{output.name}", output.type)
        feeds[cotangent.name] = np.asarray(array, dtype=output.type.dtype.numpy)
        cotangents.append(cotangent)
    build = ScratchBuilder(graph, [leaf for leaf, w in zip(leaves, wanted, strict=True) if w], dtype)
    gradients = op.vjp(build, tuple(leaves), outputs, tuple(cotangents))
    assert len(gradients) == len(leaves), f"{op.name}.vjp gives {len(gradients)} gradients for {len(leaves)} inputs"
    for i, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        if gradient is not None:
            assert gradient.type == leaf.type, f"gradient of {op.name}'s input {i} is {gradient}, of {leaf}"
            graph.outputs[f"g{i}"] = gradient
    results = run(graph, feeds).outputs
    return [results.get(f"g{i}") for i in range(len(leaves))]


def numerical_gradient(
    op: Op,
    inputs: Sequence[np.ndarray],
    output_gradients: Sequence[np.ndarray | None],
    index: int,
    step: float = 1e-6,
) -> np.ndarray:
    """d(sum of output_gradients * outputs) / d(inputs[index]) by central differences; inputs in float64."""

    inputs = [np.array(x) for x in inputs]
    x = inputs[index]
    gradient = np.zeros(x.shape)
    for position in np.ndindex(x.shape):
        center = x[position]
        x[position] = center + step
        above = op.reference(*inputs)
        x[position] = center - step
        below = op.reference(*inputs)
        x[position] = center
        # Differences before the sum: the large terms that this element does not change cancel exactly.
        changes = zip(above, below, output_gradients, strict=True)
        gradient[position] = sum(float(np.sum((a - b) * g)) for a, b, g in changes if g is not None) / (2 * step)
    return gradient


def check_vjp(
    op: Op,
    *inputs: np.ndarray,
    output_gradients: Sequence[np.ndarray | None] | None = None,
    data: Sequence[int] = (),
    seed: int = 0,
    rtol: float = 1e-6,
    atol: float = 1e-6,
) -> None:
    """Assert that the `vjp` of `op` at `inputs` agrees with finite differences for every float input but
    those whose numbers are in `data` (targets of a loss).

    Float inputs are taken to float64; keep them away from kinks (a relu at 0). `output_gradients` are drawn at random
    unless given; give None for an output that no one reads. Each input is also asked for alone, so that a `vjp` that
    overlooks `wanted` or depends on a sibling's gradient is seen.
    """
    arrays = [np.asarray(x, np.float64) if DType.of(x.dtype).is_float else x for x in inputs]
    if output_gradients is None:
        rng = np.random.default_rng(seed)
        output_gradients = [rng.standard_normal(y.shape) for y in op.reference(*arrays)]
    floats = [i for i, x in enumerate(arrays) if x.dtype == np.float64 and i not in data]
    together = vjp_gradients(op, arrays, output_gradients)
    for i in floats:
        expected = numerical_gradient(op, arrays, output_gradients, i)
        alone = vjp_gradients(op, arrays, output_gradients, [i == k for k in range(len(arrays))])
        for gradients in (together, alone):
            got = gradients[i]
            assert got is not None, f"{op.name}.vjp gives no gradient for its float input {i}"
            np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol, err_msg=f"{op}, input {i}")
        for k, gradient in enumerate(alone):
            assert k == i or gradient is None, f"{op.name}.vjp computes the gradient of input {k}, which nobody wants"
