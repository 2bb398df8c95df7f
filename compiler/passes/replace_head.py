"""Pass `replace_head`: a fresh dense layer of N outputs in place of the last one, for other classes than the model's.

The layer is a product with a parameter, or a 1x1 convolution of a 1x1 map, whose results are the class scores. What
follows it up to the outputs (bias, softmax, reshapes) is written again for N scores. New weights and biases are uniform
in +-1/sqrt(fan_in), torch's initialisation of Linear, and are named `<old name>.head`.

Requires CANONICAL. Ensures HEAD_REPLACED.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgec.compiler.adapt import NewHead
from edgec.compiler.passbase import Options
from edgec.compiler.rewrite import describe, param_behind, remove_dead_nodes, reshape
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.elementwise import Unary
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.sub import Sub

HEAD = ".head"


def replace_head(module: Module, options: Options) -> bool:
    if options.new_head is None:
        return False
    graph = module.programs["infer"]
    before = {leaf.name for leaf in graph.by_role(Role.PARAM)}
    layer = find_head(graph, options.new_head.node)
    _Replacement(graph, layer, options.new_head).run()
    replaced = before.difference(graph.leaves)
    module.source = {name: tensor for name, tensor in module.source.items() if tensor.leaf not in replaced}
    return True


def find_head(graph: Graph, name: str | None) -> Node:
    """The dense layer that came from node `name`, or the last one that the first output depends on. UserError E0111."""
    live = graph.ancestors([next(iter(graph.outputs.values()))])
    layers = [node for node in graph.nodes if node in live and _is_dense(node)]
    chosen = [node for node in layers if name in (None, node.source)]
    if chosen:
        return chosen[-1]
    listed = ", ".join(f"`{node.source}`" for node in layers[-3:])
    raise UserError(
        "E0111",
        f"node `{name}` is no dense layer that the scores depend on" if name else "the model has no dense layer",
        where="new head",
        hint=f"the last dense layers are {listed}" if listed else "a head is a Gemm, a MatMul or a 1x1 Conv",
    )


def class_axis(layer: Node) -> int:
    """The axis of a dense layer's result along which the class scores stand."""
    return 1 if isinstance(layer.op, Conv2d) else layer.output.type.rank - 1


def _is_dense(node: Node) -> bool:
    if isinstance(node.op, Conv2d):
        x, w = node.inputs
        pooled = x.type.shape[2:] == (1, 1) == w.type.shape[2:] and node.op.groups == 1
        return pooled and param_behind(w) is not None
    return isinstance(node.op, MatMul) and node.inputs[1].type.rank == 2 and param_behind(node.inputs[1]) is not None


class _Replacement:
    """One head: the twins of values that depend on the old layer, each with the axis of its class scores."""

    def __init__(self, graph: Graph, layer: Node, head: NewHead):
        self._graph, self._layer, self._head = graph, layer, head
        self._old = layer.output.type.shape[class_axis(layer)]
        weight = layer.inputs[1].type
        self._fan_in = weight.size // self._old
        self._rng = np.random.default_rng(head.seed)
        self._twins: dict[Value, tuple[Value, int]] = {}

    def run(self) -> None:
        graph, layer = self._graph, self._layer
        leaves = set(graph.by_role(Role.PARAM))
        followers = list(self._followers())
        # Behind all of the old nodes, so that every operand stands before its readers.
        x, w = layer.inputs
        axis = class_axis(layer)
        rows = 0 if isinstance(layer.op, Conv2d) or layer.op.transpose_b else 1
        self._emit(layer, (x, self._fresh(param_behind(w), w.type.shape, rows)), axis)
        for node in followers:
            self._follow(node)
        for name, value in graph.outputs.items():
            if value in self._twins:
                graph.outputs[name] = self._twins[value][0]
        names = {twin: value.name for value, (twin, _) in self._twins.items()}
        remove_dead_nodes(graph)
        for twin, name in names.items():
            graph.rename(twin, graph.fresh_name(name))
        for leaf in leaves:
            if not leaf.uses and not graph.is_result(leaf):
                graph.remove_leaf(leaf)

    def _followers(self) -> Iterator[Node]:
        behind = {self._layer.output}
        for node in self._graph.nodes:
            if any(value in behind for value in node.inputs):
                behind.update(node.outputs)
                yield node

    def _follow(self, node: Node) -> None:
        """The node again, for N scores. UserError E0111 where it does not treat every class alike."""
        x = next(value for value in node.inputs if value in self._twins)
        axis = self._twins[x][1]
        match node.op:
            case Reshape(shape=shape):
                axis = self._reshaped_axis(node, x.type.shape, axis)
                self._emit(node, (self._twins[x][0],), axis, Reshape(self._resize(shape, axis)))
            case Unary() | Softmax():
                self._emit(node, (self._twins[x][0],), axis)
            case Add() | Sub() | Mul():
                self._emit(node, tuple(self._operand(node, value, axis) for value in node.inputs), axis)
            case _:
                raise self._refusal(node)

    def _operand(self, node: Node, value: Value, axis: int) -> Value:
        """A twin, a fresh bias, or what is the same for all classes."""
        if value in self._twins:
            return self._twins[value][0]
        place = axis - node.output.type.rank + value.type.rank
        if place < 0 or value.type.shape[place] == 1:
            return value
        param = param_behind(value)
        if param is None or not isinstance(node.op, Add | Sub):
            raise self._refusal(node)
        return self._fresh(param, value.type.shape, place)

    def _reshaped_axis(self, node: Node, before: tuple[int, ...], axis: int) -> int:
        outer = math.prod(before[:axis])
        for place, extent in enumerate(node.op.shape):
            if extent == self._old and math.prod(node.op.shape[:place]) == outer:
                return place
        raise self._refusal(node)

    def _resize(self, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
        return (*shape[:axis], self._head.classes, *shape[axis + 1 :])

    def _fresh(self, old: Value, shape: tuple[int, ...], axis: int) -> Value:
        """A parameter in place of `old`, which is read in `shape`: a vector stays one, behind a reshape."""
        wanted = self._resize(shape, axis)
        kind = old.type.with_shape((self._head.classes,) if old.type.rank == 1 else wanted)
        bound = 1 / math.sqrt(self._fan_in)
        data = self._rng.uniform(-bound, bound, kind.shape).astype(kind.dtype.numpy)
        leaf = self._graph.add_leaf(Role.PARAM, self._graph.fresh_name(f"{old.name}{HEAD}"), kind, data=data)
        return reshape(self._graph, leaf, wanted)

    def _emit(self, node: Node, operands: tuple[Value, ...], axis: int, op: object = None) -> None:
        self._twins[node.output] = self._graph.emit1(op or node.op, *operands, source=node.source), axis

    def _refusal(self, node: Node) -> UserError:
        return UserError(
            "E0111",
            f"the head cannot be replaced: {describe(node)} ({node.op.name}) does not treat all classes alike",
            where="new head",
            hint="name another layer, as in --new-head N:NODE",
        )
