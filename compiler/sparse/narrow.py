"""A slice of a gradient, computed from slices: of a product only the wanted rows or columns."""

from __future__ import annotations

from dataclasses import replace

from edgec.graph.ir import Graph, Node, Value
from edgec.graph.ops.base import Op
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose


class Narrowing:
    """Slices of one program's values. The same slice of a value is made once."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.slices: dict[tuple[Value, int, int, int], Value] = {}

    def slice(self, value: Value, axis: int, start: int, end: int, *, before: Node) -> Value:
        """`value[start:end]` along `axis`; itself where that is all."""
        if end - start == value.type.shape[axis]:
            return value
        key = (value, axis, start, end)
        if key not in self.slices:
            op = Slice.along(axis, start, end, value.type)
            source = value.producer.source if value.producer is not None else ""
            self.slices[key] = self.graph.emit1(op, value, name=f"{value.name}.slice", source=source, before=before)
        return self.slices[key]

    def narrowed(self, node: Node, forward: set[Node]) -> Value | None:
        """What takes the place of a slice along one axis of a value that a product behind the guard computes."""
        if not isinstance(node.op, Slice) or set(node.op.steps) != {1}:
            return None
        x = node.inputs[0]
        cut = [axis for axis, extent in enumerate(x.type.shape) if node.output.type.shape[axis] != extent]
        if len(cut) != 1:
            return None
        return _Cut(self, node, forward).of(x, cut[0], node.op.starts[cut[0]], node.op.ends[cut[0]])


class _Cut:
    """One slice, on its way up to the products that it narrows."""

    def __init__(self, narrowing: Narrowing, reader: Node, forward: set[Node]):
        self.narrowing, self.reader, self.forward = narrowing, reader, forward

    def of(self, value: Value, axis: int, start: int, end: int) -> Value | None:
        """`value[start:end]` from less work; None where there is nothing to save, or others read the whole."""
        node = value.producer
        if node is None or node in self.forward or len(value.uses) != 1 or len(node.outputs) != 1:
            return None
        if self.narrowing.graph.is_result(value):
            return None
        match node.op:
            case Conv2dWeightGrad():
                return self._weight_grad(node, axis, start, end)
            case MatMul():
                return self._product(node, axis, start, end)
            case Transpose(perm=perm):
                return self._through(node, [self.of(node.inputs[0], perm[axis], start, end)])
            case ReduceSum(axes=axes, keepdims=keepdims):
                kept = [a for a in range(node.inputs[0].type.rank) if keepdims or a not in axes]
                return self._through(node, [self.of(node.inputs[0], kept[axis], start, end)])
            case op if op.elementwise:
                return self._elementwise(node, axis, start, end)
        return None

    def _weight_grad(self, node: Node, axis: int, start: int, end: int) -> Value | None:
        op, (x, dy) = node.op, node.inputs
        if axis == 1 and op.groups == 1:
            return self._emit(node, op, self._slice(x, 1, start, end), dy)
        if axis != 0:
            return None
        if op.groups == 1:
            return self._emit(node, op, x, self._slice(dy, 1, start, end))
        rows = dy.type.shape[1] // op.groups
        if start % rows or end % rows:
            return None
        first, last = start // rows, end // rows
        channels = x.type.shape[1] // op.groups
        narrow = replace(op, groups=last - first)
        x = self._slice(x, 1, first * channels, last * channels)
        return self._emit(node, narrow, x, self._slice(dy, 1, start, end))

    def _product(self, node: Node, axis: int, start: int, end: int) -> Value | None:
        """Rows come from the left operand, columns from the right one."""
        op, operands = node.op, list(node.inputs)
        behind = node.output.type.rank - axis
        if behind > 2:
            return None
        slot = 1 if behind == 1 else 0
        turned = op.transpose_b if slot else op.transpose_a
        side = 3 - behind if turned else behind
        operands[slot] = self._slice(operands[slot], operands[slot].type.rank - side, start, end)
        return self._emit(node, op, *operands)

    def _elementwise(self, node: Node, axis: int, start: int, end: int) -> Value | None:
        """Some operand has less work to do; the others are sliced, or broadcast along the axis anyway."""
        behind, extent = node.output.type.rank - axis, node.output.type.shape[axis]
        along = [value.type.rank >= behind and value.type.shape[-behind] == extent for value in node.inputs]
        narrow = [
            self.of(value, value.type.rank - behind, start, end) if whole else None
            for value, whole in zip(node.inputs, along, strict=True)
        ]
        if not any(value is not None for value in narrow):
            return None
        operands = []
        for value, whole, less in zip(node.inputs, along, narrow, strict=True):
            if not whole:
                operands.append(value)
            else:
                operands.append(less if less is not None else self._slice(value, value.type.rank - behind, start, end))
        return self._emit(node, node.op, *operands)

    def _through(self, node: Node, operands: list[Value | None]) -> Value | None:
        return None if None in operands else self._emit(node, node.op, *operands)

    def _slice(self, value: Value, axis: int, start: int, end: int) -> Value:
        return self.narrowing.slice(value, axis, start, end, before=self.reader)

    def _emit(self, node: Node, op: Op, *operands: Value) -> Value:
        return self.narrowing.graph.emit1(op, *operands, source=node.source, before=self.reader)
