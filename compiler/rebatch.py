"""The same program at another batch size.

A program compiled for a batch of b images has b written into shapes and attributes. Here every value is followed: does
it hold something of each image, and then along which of its axes? The batch is the outermost factor of one axis (of
extent b, or b * r after images were merged with rows or tokens). Each op has a rule that says where the batch goes;
a program that mixes images, or fixes their number where it cannot be changed, is refused with the node's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgec.compiler.rewrite import describe
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Graph, Node, Role, Value
from edgec.graph.ops.arg_reduction import ArgReduction
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.cumulative import Cumulative
from edgec.graph.ops.elementwise import Binary, Unary
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.resample import Resample
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.top_k import TopK
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where

Shape = tuple[int, ...]


class _Mixed(Exception):
    """An op that cannot follow the batch; the message says why."""


@dataclass(frozen=True)
class _Batch:
    """From `old` images to `new`."""

    old: int
    new: int

    def resize(self, shape: Shape, axis: int) -> Shape:
        return (*shape[:axis], shape[axis] // self.old * self.new, *shape[axis + 1 :])


@dataclass(frozen=True)
class _Operand:
    """The old shape of an operand, and the axis that holds the batch (None: the same for all images)."""

    shape: Shape
    axis: int | None


def rebatch(graph: Graph, batch: int, name: str) -> tuple[Graph, dict[str, int | None]]:
    """A copy of `graph` called `name` for `batch` images, and for each output the axis that holds the batch.

    The leading axis of every input is the batch. UserError E0302 where there is no such axis, or a node cannot follow.
    At the same size nothing needs to follow, so that models may mix their images; outputs are then taken to lead with
    the batch.
    """
    old = batch_of(graph)
    if old == batch:
        return graph.clone(name), dict.fromkeys(graph.outputs, 0)
    sizes = _Batch(old, batch)
    copy = Graph(name)
    twins: dict[Value, Value] = {}
    axes: dict[Value, int | None] = {}
    for leaf in graph.leaves.values():
        axes[leaf] = 0 if leaf.role is Role.INPUT and leaf.type.rank else None
        kind = leaf.type if axes[leaf] is None else leaf.type.with_shape(sizes.resize(leaf.type.shape, 0))
        twins[leaf] = copy.add_leaf(
            leaf.role, leaf.name, kind, data=leaf.data, trainable=leaf.trainable, bounds=leaf.bounds
        )
    for node in graph.nodes:
        operands = tuple(_Operand(value.type.shape, axes[value]) for value in node.inputs)
        values = [twins[value] for value in node.inputs]
        try:
            op, axis = _follow(node.op, operands, sizes)
            if isinstance(op, Concat):
                values = [
                    _spread(copy, value, operand, axis, sizes) for value, operand in zip(values, operands, strict=True)
                ]
            names = [value.name for value in node.outputs]
            outputs = copy.emit(op, *values, names=names, source=node.source)
        except _Mixed as reason:
            raise _refusal(node, sizes, str(reason)) from None
        except UserError as error:
            raise _refusal(node, sizes, error.message) from error
        for value, twin in zip(node.outputs, outputs, strict=True):
            twins[value], axes[value] = twin, axis
            wanted = value.type.shape if axis is None else sizes.resize(value.type.shape, axis)
            if twin.type.shape != wanted:
                raise InternalError(f"the batch rule of {op.name} promised {wanted} for {twin}")
    copy.outputs = {key: twins[value] for key, value in graph.outputs.items()}
    copy.updates = {twins[target]: twins[value] for target, value in graph.updates.items()}
    copy.loss, copy.guard = graph.loss, graph.guard
    return copy, {key: axes[value] for key, value in graph.outputs.items()}


def batch_of(graph: Graph) -> int:
    """The leading extent that all inputs share. UserError E0302 where they differ or there is none."""
    extents = {leaf.name: leaf.type.shape[0] for leaf in graph.by_role(Role.INPUT) if leaf.type.rank}
    if len(set(extents.values())) != 1 or 0 in extents.values():
        listed = ", ".join(f"{name}: {extent}" for name, extent in extents.items()) or "none"
        raise UserError(
            "E0302",
            f"training needs inputs whose leading axis is the batch, of one extent; it is {listed}",
            hint="bind other shapes with --shape, or export the model with the batch as the leading axis",
        )
    return next(iter(extents.values()))


def _refusal(node: Node, sizes: _Batch, reason: str) -> UserError:
    return UserError(
        "E0302",
        f"the model cannot be trained with a batch of {sizes.new}: {reason}",
        where=describe(node),
        hint=f"train with a batch of {sizes.old}, or compile the model for a batch of {sizes.new}",
    )


def _spread(graph: Graph, value: Value, operand: _Operand, axis: int | None, sizes: _Batch) -> Value:
    """What is the same for all images (a class token), once for each."""
    if axis is None or operand.axis is not None:
        return value
    if sizes.old != 1 or operand.shape[axis] != 1:
        raise _Mixed(f"an operand of shape {operand.shape} is fixed at {operand.shape[axis]} images")
    return graph.emit1(BroadcastTo(sizes.resize(operand.shape, axis)), value)


def _follow(op: Op, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    """The op at the new batch size, and the axis of its results that holds the batch."""
    if all(operand.axis is None for operand in operands):
        return op, None
    for kind, rule in RULES.items():
        if isinstance(op, kind):
            return rule(op, operands, sizes)
    raise _Mixed(f"{op.name} is not known to treat images one by one")


def _same_axis(op: Op, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    return op, operands[0].axis


def _aligned(operands: tuple[_Operand, ...]) -> int:
    """The axis of a broadcast result that holds the batch; shapes align at the last axis."""
    rank = max(len(operand.shape) for operand in operands)
    places = {operand.axis + rank - len(operand.shape) for operand in operands if operand.axis is not None}
    if len(places) != 1:
        raise _Mixed("the batch stands on different axes of its operands")
    (place,) = places
    extents = set()
    for operand in operands:
        axis = place - rank + len(operand.shape)
        if operand.axis is not None:
            extents.add(operand.shape[axis])
        elif axis >= 0 and operand.shape[axis] != 1:
            raise _Mixed(f"an operand of shape {operand.shape} is fixed at the old batch")
    if len(extents) != 1:
        raise _Mixed("one operand has several rows for each image, another has one")
    return place


def _binary(op: Op, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    return op, _aligned(operands)


def _conv(op: Op, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    x, w = operands
    if x.axis != 0 or w.axis is not None:
        raise _Mixed("the batch must be the leading axis of a convolution's input, and weights the same for all images")
    return op, 0


def _batch_norm(op: Op, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    x, *parts = operands
    if x.axis == 1 or any(part.axis is not None for part in parts):
        raise _Mixed("batch norm reads its channels along the batch")
    return op, x.axis


def _pool(op: Op, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    (x,) = operands
    if x.axis is None or x.axis > 1:
        raise _Mixed("the batch lies along a pooled axis")
    return op, x.axis


def _matmul(op: MatMul, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    """The batch may be a leading axis of both operands, or the rows of a, or the columns of b; not the inner axis."""
    a, b = operands
    rank = max(len(a.shape), len(b.shape))
    inner_a, inner_b = len(a.shape) - (2 if op.transpose_a else 1), len(b.shape) - (1 if op.transpose_b else 2)
    if a.axis == inner_a or b.axis == inner_b:
        raise _Mixed("a product sums over the batch")
    rows_of_a = a.axis is not None and a.axis >= len(a.shape) - 2
    columns_of_b = b.axis is not None and b.axis >= len(b.shape) - 2
    if rows_of_a and b.axis is None:
        return op, rank - 2
    if columns_of_b and a.axis is None:
        return op, rank - 1
    if rows_of_a or columns_of_b:
        raise _Mixed("a product multiplies images with one another")
    leading = tuple(_Operand(x.shape[:-2], x.axis) for x in operands)
    return op, _aligned(leading) + rank - max(len(x.shape) for x in leading) - 2


def _reshape(op: Reshape, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    """The batch keeps its place in memory: behind as many elements as before, the outermost factor of an axis.

    With a batch of one, several axes may qualify; it stays where it is, else it takes the first.
    """
    (x,) = operands
    before = math.prod(x.shape[: x.axis])
    fits = [
        axis
        for axis, extent in enumerate(op.shape)
        if math.prod(op.shape[:axis]) == before and extent % sizes.old == 0 and extent
    ]
    if not fits:
        raise _Mixed(f"the shape {op.shape} leaves no axis for the batch")
    axis = x.axis if x.axis in fits else fits[0]
    return Reshape(sizes.resize(op.shape, axis)), axis


def _transpose(op: Transpose, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    return op, op.perm.index(operands[0].axis)


def _concat(op: Concat, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    axes = {operand.axis for operand in operands if operand.axis is not None}
    if len(axes) != 1 or op.axis in axes:
        raise _Mixed("images are concatenated, or the batch stands on different axes")
    return op, axes.pop()


def _slice(op: Slice, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    (x,) = operands
    axis = x.axis
    if (op.starts[axis], op.ends[axis], op.steps[axis]) != (0, x.shape[axis], 1):
        raise _Mixed("some images are cut out of the batch")
    return replace(op, ends=sizes.resize(op.ends, axis)), axis


def _pad(op: Pad, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    (x,) = operands
    if op.low[x.axis] or op.high[x.axis]:
        raise _Mixed("the batch is padded")
    return op, x.axis


def _broadcast_to(op: BroadcastTo, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    (x,) = operands
    axis = x.axis + len(op.shape) - len(x.shape)
    if op.shape[axis] != x.shape[x.axis]:
        raise _Mixed("images are repeated along the batch")
    return BroadcastTo(sizes.resize(op.shape, axis)), axis


def _reduction(op: Reduction, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    axis = operands[0].axis
    if axis in op.axes:
        raise _Mixed("images are reduced to one")
    return op, axis if op.keepdims else axis - sum(reduced < axis for reduced in op.axes)


def _softmax(op: Softmax, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    if op.axis == operands[0].axis:
        raise _Mixed("softmax is taken over the batch")
    return op, operands[0].axis


def _along(
    op: ArgReduction | TopK | Cumulative, operands: tuple[_Operand, ...], sizes: _Batch
) -> tuple[Op, int | None]:
    """Ops that look along one axis of their only operand."""
    axis = operands[0].axis
    if axis == op.axis:
        raise _Mixed(f"{op.name} compares or adds up images")
    dropped = isinstance(op, ArgReduction) and not op.keepdims and op.axis < axis
    return op, axis - dropped


def _gather(op: Gather, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    x, indices = operands
    if x.axis is None:
        return op, op.axis + indices.axis
    if indices.axis is not None or x.axis == op.axis:
        raise _Mixed("images are picked out of the batch")
    return op, x.axis if x.axis < op.axis else x.axis + len(indices.shape) - 1


def _elements(
    op: GatherElements | ScatterElements, operands: tuple[_Operand, ...], sizes: _Batch
) -> tuple[Op, int | None]:
    axes = {operand.axis for operand in operands}
    if len(axes) != 1 or op.axis in axes or len({operand.shape[operands[0].axis] for operand in operands}) != 1:
        raise _Mixed("elements are picked or placed across the batch, or at the same place of all images")
    return op, axes.pop()


def _gather_nd(op: GatherNd, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    x, indices = operands
    if x.axis is None and indices.axis >= max(op.batch_dims, 0) and indices.axis < len(indices.shape) - 1:
        return op, indices.axis
    if x.axis is None or x.axis != indices.axis or x.axis >= op.batch_dims:
        raise _Mixed("coordinates reach across the batch")
    return op, x.axis


def _scatter_nd(op: ScatterNd, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    raise _Mixed("coordinates reach across the batch")


def _resample(op: Resample, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    x, *tables = operands
    if x.axis == op.axis or any(table.axis is not None for table in tables):
        raise _Mixed("images are interpolated along the batch, or by tables of their own")
    return op, x.axis


def _rows(op: LayerNorm | RmsNorm, operands: tuple[_Operand, ...], sizes: _Batch) -> tuple[Op, int | None]:
    x, *parts = operands
    if x.axis is None or x.axis >= op.axis or any(part.axis is not None for part in parts):
        raise _Mixed("statistics are taken over the batch")
    return op, x.axis


# By class, base classes included; what is not here cannot occur before differentiation.
RULES: dict[type[Op], Callable[..., tuple[Op, int | None]]] = {
    Unary: _same_axis,
    Cast: _same_axis,
    Binary: _binary,
    Where: _binary,
    Conv2d: _conv,
    Conv2dInputGrad: _conv,
    MatMul: _matmul,
    MaxPool2d: _pool,
    AvgPool2d: _pool,
    BatchNorm: _batch_norm,
    Reshape: _reshape,
    Transpose: _transpose,
    Concat: _concat,
    Slice: _slice,
    Pad: _pad,
    BroadcastTo: _broadcast_to,
    Reduction: _reduction,
    Softmax: _softmax,
    ArgReduction: _along,
    TopK: _along,
    Cumulative: _along,
    Gather: _gather,
    GatherElements: _elements,
    ScatterElements: _elements,
    GatherNd: _gather_nd,
    ScatterNd: _scatter_nd,
    Resample: _resample,
    LayerNorm: _rows,
    RmsNorm: _rows,
}
