"""Which axes of values go together: where one is put into another order, all of its class must be.

A layer's output channels are those of its bias, its norm, what is added to it and the weights that read it; the adds of
a residual stage tie the channels of all its blocks. The same analysis decides what structured pruning may remove
(DepGraph, arXiv:2301.12900).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from edgec.graph.ir import Graph, Node, Role, Value
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.transpose import Transpose

Axis = tuple[Value, int]


class AxisClasses:
    """The classes of one program. `fixed` are those that an input, an output or some op wants in their own order."""

    def __init__(self, graph: Graph):
        self._parent: dict[Axis, Axis] = {}
        self._fixed: set[Axis] = set()
        for leaf in graph.leaves.values():
            if leaf.role not in (Role.PARAM, Role.CONSTANT):
                self._fix(leaf)
        for value in graph.results():
            self._fix(value)
        for node in graph.nodes:
            self._read(node)

    def members(self, axis: Axis) -> list[Axis]:
        """All axes of leaves in the class of `axis`; none where its order is fixed."""
        root = self._root(axis)
        if any(self._root(other) == root for other in self._fixed):
            return []
        return [other for other in self._parent if self._root(other) == root and other[0].producer is None]

    def together(self, axes: Iterable[Axis]) -> list[list[Axis]]:
        """`axes` by class."""
        groups: dict[Axis, list[Axis]] = defaultdict(list)
        for axis in axes:
            groups[self._root(axis)].append(axis)
        return list(groups.values())

    # -- union-find -------------------------------------------------------------------------------------------------

    def _root(self, axis: Axis) -> Axis:
        self._parent.setdefault(axis, axis)
        while self._parent[axis] != axis:
            self._parent[axis] = self._parent[self._parent[axis]]
            axis = self._parent[axis]
        return axis

    def _join(self, *axes: Axis) -> None:
        first = self._root(axes[0])
        for axis in axes[1:]:
            self._parent[self._root(axis)] = first

    def _fix(self, value: Value, axes: Iterable[int] | None = None) -> None:
        self._fixed.update(self._root((value, axis)) for axis in (range(value.type.rank) if axes is None else axes))

    # -- what an op does to the order of its operands' axes ---------------------------------------------------------

    def _read(self, node: Node) -> None:
        match node.op:
            case Conv2d() | Conv2dInputGrad():
                self._convolution(node)
            case MatMul():
                self._product(node)
            case BatchNorm():
                x, *vectors = node.inputs
                self._same(x, node.output)
                self._join((x, 1), *((vector, 0) for vector in vectors))
            case LayerNorm(axis=axis):
                x, *vectors = node.inputs
                y, *statistics = node.outputs
                self._same(x, y)
                for vector in vectors:
                    for place in range(vector.type.rank):
                        self._join((x, axis + place), (vector, place))
                for value in statistics:
                    for place in range(value.type.rank):
                        self._join((x, place), (value, place))
            case Reduction(axes=axes, keepdims=keepdims):
                x, y = node.inputs[0], node.output
                kept = [axis for axis in range(x.type.rank) if axis not in axes]
                for place, axis in enumerate(kept):
                    self._join((x, axis), (y, axis if keepdims else place))
            case MaxPool2d() | AvgPool2d():
                x, y = node.inputs[0], node.output
                self._join((x, 0), (y, 0))
                self._join((x, 1), (y, 1))
                self._fix(x, (2, 3))
                self._fix(y, (2, 3))
            case Transpose(perm=perm):
                for place, axis in enumerate(perm):
                    self._join((node.inputs[0], axis), (node.output, place))
            case Reshape():
                self._reshape(node)
            case Gather(axis=axis):
                self._lookup(node, axis)
            case Softmax():
                self._same(node.inputs[0], node.output)
            case Concat() | Slice():
                for value in node.inputs:
                    self._cut(value, node.output)
            case op if (op.elementwise or isinstance(op, BroadcastTo)) and len(node.outputs) == 1:
                for value in node.inputs:
                    self._broadcast(value, node.output)
            case _:
                for value in (*node.inputs, *node.outputs):
                    self._fix(value)

    def _same(self, x: Value, y: Value) -> None:
        for axis in range(x.type.rank):
            self._join((x, axis), (y, axis))

    def _broadcast(self, x: Value, y: Value) -> None:
        lift = y.type.rank - x.type.rank
        for axis, extent in enumerate(x.type.shape):
            if extent == y.type.shape[axis + lift]:
                self._join((x, axis), (y, axis + lift))

    def _cut(self, x: Value, y: Value) -> None:
        """Whole axes go together; of those that are joined or cut, places matter."""
        for axis, extent in enumerate(x.type.shape):
            if extent == y.type.shape[axis]:
                self._join((x, axis), (y, axis))
            else:
                self._fix(x, (axis,))
                self._fix(y, (axis,))

    def _lookup(self, node: Node, axis: int) -> None:
        (x, indices), y = node.inputs, node.output
        self._fix(indices)
        self._fix(x, (axis,))
        self._fix(y, range(axis, axis + indices.type.rank))
        for place in range(x.type.rank):
            if place != axis:
                self._join((x, place), (y, place if place < axis else place + indices.type.rank - 1))

    def _convolution(self, node: Node) -> None:
        (x, w), y, groups = node.inputs, node.output, node.op.groups
        inputs, outputs = (1, 0) if isinstance(node.op, Conv2d) else (0, 1)
        self._join((x, 0), (y, 0))
        if groups == 1:
            self._join((x, 1), (w, inputs))
            self._join((y, 1), (w, outputs))
        elif groups == x.type.shape[1] == y.type.shape[1]:
            self._join((x, 1), (y, 1), (w, 0))
        else:
            for value in (x, y):
                self._fix(value, (1,))
            self._fix(w, (0, 1))
        for value in (x, y, w):
            self._fix(value, (2, 3))

    def _product(self, node: Node) -> None:
        (a, b), y, op = node.inputs, node.output, node.op
        rows, inner_a = (a.type.rank - side for side in ((1, 2) if op.transpose_a else (2, 1)))
        inner_b, columns = (b.type.rank - side for side in ((1, 2) if op.transpose_b else (2, 1)))
        self._join((a, inner_a), (b, inner_b))
        self._join((a, rows), (y, y.type.rank - 2))
        self._join((b, columns), (y, y.type.rank - 1))
        for value in (a, b):
            for axis in range(value.type.rank - 2):
                place = axis + y.type.rank - value.type.rank
                if value.type.shape[axis] == y.type.shape[place]:
                    self._join((value, axis), (y, place))

    def _reshape(self, node: Node) -> None:
        """Axes that are whole on both sides go together; what is merged or split stays in its order."""
        x, y = node.inputs[0], node.output
        ends = []
        for value in (x, y):
            places, size = {}, 1
            for axis, extent in enumerate(value.type.shape):
                if extent != 1:
                    places[size, size * extent] = axis
                size *= extent
            ends.append(places)
        for span in ends[0].keys() & ends[1].keys():
            self._join((x, ends[0][span]), (y, ends[1][span]))
        for value, own, other in ((x, *ends), (y, *ends[::-1])):
            self._fix(value, [axis for span, axis in own.items() if span not in other])
