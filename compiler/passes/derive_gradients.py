"""Pass `derive_gradients`: reverse-mode differentiation of `train`, written as nodes of the same program.

Walks the nodes from the loss backwards and asks each op's `vjp`. Only gradients that some trainable parameter needs are
computed; contributions to a value with several readers are summed. The gradient of parameter p becomes output
`p/gradient`, until the updates consume it.

Requires LOSS, TRAINABLE_MARKED. Ensures GRADIENTS. Breaks CANONICAL, CONSTANTS_FOLDED, NO_DEAD.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.passes.append_loss import total_and_weight
from edgec.compiler.rewrite import describe
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Graph, Module, Node, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import GradientBuilder, Op
from edgec.graph.types import DType

GRADIENT = "/gradient"


def derive_gradients(module: Module, options: Options) -> bool:
    graph = module.programs.get("train")
    if graph is None:
        return False
    loss = graph.outputs[graph.loss]
    forward = graph.ancestors([loss])
    path = [node for node in graph.nodes if node in forward]
    needed = _depends_on_trainable(graph, path)
    if loss not in needed:
        raise _unreachable(path, needed)
    gradients = _Gradients(graph, needed)
    # Held gradients are those of sums: sums of several batches add up.
    held = options.train is not None and options.train.accumulate > 1
    root = total_and_weight(graph)[0] if held else loss
    gradients.add(root, gradients.constant(np.ones((), np.float32)))
    for node in reversed(path):
        if any(value in needed for value in node.outputs):
            gradients.through(node)
    for leaf in list(graph.leaves.values()):
        if leaf.trainable and (gradient := gradients.of(leaf)) is not None:
            graph.outputs[leaf.name + GRADIENT] = gradient
    return True


def gradient_ends(graph: Graph) -> list[dict[str, str]]:
    """The operators between trained parameters and the loss of `graph` that pass no gradient on: node, op, reason."""
    forward = graph.ancestors([graph.outputs[graph.loss]])
    path = [node for node in graph.nodes if node in forward]
    return [_record(node) for node in _ends(path, _depends_on_trainable(graph, path))]


def _ends(path: list[Node], needed: set[Value]) -> list[Node]:
    return [n for n in path if n.op.no_gradient is not None and any(value in needed for value in n.inputs)]


def _record(node: Node) -> dict[str, str]:
    return {"node": node.source, "op": node.op.name, "reason": node.op.no_gradient or ""}


def _depends_on_trainable(graph: Graph, path: list[Node]) -> set[Value]:
    """Values that change smoothly with a trainable parameter: only their gradients can be of use.

    Decisions, positions and rounding end what is differentiated: they are constant around almost every point.
    """
    needed = {leaf for leaf in graph.leaves.values() if leaf.trainable}
    for node in path:
        if node.op.no_gradient is None and any(value in needed for value in node.inputs):
            needed.update(value for value in node.outputs if value.type.dtype.is_float)
    return needed


def _unreachable(path: list[Node], needed: set[Value]) -> UserError:
    """The error of a loss that no trained parameter changes smoothly, with every operator that stands between."""
    ends = _ends(path, needed)
    if not ends:
        return UserError("E0303", "the loss does not depend on any parameter that the update scheme trains")
    listed = "".join(f"\n  {describe(node)} ({node.op.name}): {node.op.no_gradient}" for node in ends)
    return UserError(
        "E0301",
        f"no gradient reaches a trained parameter: {len(ends)} operators between them and the loss have none:{listed}",
        hint="train layers behind these, with `update`",
        nodes=[_record(node) for node in ends],
    )


def _float_type(node: Node) -> DType:
    """The dtype in which a node computes: constants of its gradient take it."""
    return next(value.type.dtype for value in node.outputs if value.type.dtype.is_float)


class _Gradients(GradientBuilder):
    """Gradients so far, by value; the builder that `vjp`s write with."""

    def __init__(self, graph: Graph, needed: set[Value]):
        self._graph, self._needed = graph, needed
        self._dtype = graph.outputs[graph.loss].type.dtype
        self._parts: dict[Value, list[Value]] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._unnamed: set[Value] = set()  # made here, and called after their ops so far
        self._source = ""

    def add(self, value: Value, gradient: Value) -> None:
        if gradient.type != value.type:
            raise InternalError(f"gradient {gradient} of {value} has another type")
        self._parts.setdefault(value, []).append(gradient)

    def of(self, value: Value) -> Value | None:
        """The sum of all contributions, in the order in which they came; None where the loss does not depend on it."""
        parts = self._parts.get(value)
        if not parts:
            return None
        while len(parts) > 1:
            parts[:2] = [self.emit(Add(), parts[0], parts[1])]
        if parts[0] in self._unnamed:
            self._unnamed.remove(parts[0])
            self._graph.rename(parts[0], self._graph.fresh_name(f"{value.name}.gradient"))
        return parts[0]

    def through(self, node: Node) -> None:
        """From the gradients of a node's results to those of its operands: all readers of the results are done."""
        self._source, self._dtype = node.source, _float_type(node)
        results = tuple(self.of(value) for value in node.outputs)
        if all(gradient is None for gradient in results):
            return
        gradients = node.op.vjp(self, tuple(node.inputs), node.outputs, results)
        for value, gradient in zip(node.inputs, gradients, strict=True):
            if value not in self._needed:
                continue
            if gradient is None:
                raise InternalError(f"{node.op.name}.vjp gives no gradient for {value}, which a parameter needs")
            self.add(value, gradient)

    # -- for vjps ---------------------------------------------------------------------------------------------------

    def emit(self, op: Op, *inputs: Value) -> Value:
        (value,) = self.emit_all(op, *inputs)
        return value

    def emit_all(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        values = self._graph.emit(op, *inputs, source=self._source)
        self._unnamed.update(values)
        return values

    def constant(self, array: np.ndarray) -> Value:
        if DType.of(array.dtype).is_float:
            array = array.astype(self._dtype.numpy)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._graph.constant(array)
        return self._constants[key]

    def wanted(self, value: Value) -> bool:
        return value in self._needed
