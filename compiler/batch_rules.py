"""For each op, where the batch goes: the axis of its results that holds it, and the op at another batch size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgec.graph.ops.arg_reduction import ArgReduction
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.cumulative import Cumulative
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.elementwise import Binary, Unary
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduce_mean import ReduceMean
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


class Mixed(Exception):
    """An op that cannot follow the batch; the message says why."""


@dataclass(frozen=True)
class Batch:
    """From `old` images to `new`."""

    old: int
    new: int

    def resize(self, shape: Shape, axis: int) -> Shape:
        return (*shape[:axis], shape[axis] // self.old * self.new, *shape[axis + 1 :])


@dataclass(frozen=True)
class Operand:
    """The old shape of an operand, and the axis that holds the batch (None: the same for all images).

    The batch is one factor of that axis, behind one of `outer` elements: [S*B] has an outer of S.
    """

    shape: Shape
    axis: int | None
    outer: int = 1


def candidates(op: Op, operands: tuple[Operand, ...], sizes: Batch) -> list[tuple[Op, int | None, int]]:
    """The op at the new batch size, the axis of its results that holds the batch and the outer factor there; several
    where a batch of one leaves that open, the likeliest first. Mixed if there is none.
    """
    batched = [operand for operand in operands if operand.axis is not None]
    if not batched:
        return [(op, None, 1)]
    if isinstance(op, Reshape):
        return _reshapes(op, operands[0], sizes)
    outers = {operand.outer for operand in batched}
    if len(outers) != 1:
        raise Mixed("the batch stands at different places of one axis")
    for kind, rule in RULES.items():
        if isinstance(op, kind):
            return [(*rule(op, operands, sizes), outers.pop())]
    raise Mixed(f"{op.name} is not known to treat images one by one")


def _same_axis(op: Op, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    return op, operands[0].axis


def _aligned(operands: tuple[Operand, ...]) -> int:
    """The axis of a broadcast result that holds the batch; shapes align at the last axis."""
    rank = max(len(operand.shape) for operand in operands)
    places = {operand.axis + rank - len(operand.shape) for operand in operands if operand.axis is not None}
    if len(places) != 1:
        raise Mixed("the batch stands on different axes of its operands")
    (place,) = places
    extents = set()
    for operand in operands:
        axis = place - rank + len(operand.shape)
        if operand.axis is not None:
            extents.add(operand.shape[axis])
        elif axis >= 0 and operand.shape[axis] != 1:
            raise Mixed(f"an operand of shape {operand.shape} is fixed at the old batch")
    if len(extents) != 1:
        raise Mixed("one operand has several rows for each image, another has one")
    return place


def _binary(op: Op, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    return op, _aligned(operands)


def _conv(op: Op, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    x, w = operands
    if x.axis != 0 or w.axis is not None:
        raise Mixed("the batch must be the leading axis of a convolution's input, and weights the same for all images")
    return op, 0


def _batch_norm(op: Op, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    x, *parts = operands
    if x.axis == 1 or any(part.axis is not None for part in parts):
        raise Mixed("batch norm reads its channels along the batch")
    return op, x.axis


def _batch_norm_train(op: Op, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    raise Mixed("statistics are taken over the batch")


def _pool(op: Op, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    (x,) = operands
    if x.axis is None or x.axis > 1:
        raise Mixed("the batch lies along a pooled axis")
    return op, x.axis


def _matmul(op: MatMul, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    """The batch may be a leading axis of both operands, or the rows of a, or the columns of b; not the inner axis."""
    a, b = operands
    rank = max(len(a.shape), len(b.shape))
    inner_a, inner_b = len(a.shape) - (2 if op.transpose_a else 1), len(b.shape) - (1 if op.transpose_b else 2)
    if a.axis == inner_a or b.axis == inner_b:
        raise Mixed("a product sums over the batch")
    rows_of_a = a.axis is not None and a.axis >= len(a.shape) - 2
    columns_of_b = b.axis is not None and b.axis >= len(b.shape) - 2
    if rows_of_a and b.axis is None:
        return op, rank - 2
    if columns_of_b and a.axis is None:
        return op, rank - 1
    if rows_of_a or columns_of_b:
        raise Mixed("a product multiplies images with one another")
    leading = tuple(Operand(x.shape[:-2], x.axis) for x in operands)
    return op, _aligned(leading) + rank - max(len(x.shape) for x in leading) - 2


def _reshapes(op: Reshape, x: Operand, sizes: Batch) -> list[tuple[Op, int, int]]:
    """The reshapes that keep the batch behind as many elements as before, each with its axis and what is before it in
    that axis; the likeliest first. Mixed if there is none.

    With a batch of one there may be several: [S,1,E] as [S,H,D] may be [S,B*H,D] or [S*B,H,D]. An axis that stands
    beside others as it did before is likely to have nothing to do with the batch.
    """
    before = math.prod(x.shape[: x.axis]) * x.outer
    found = []
    for axis, extent in enumerate(op.shape):
        prefix = math.prod(op.shape[:axis])
        outer = before // prefix if prefix and before % prefix == 0 else 0
        if outer and extent and extent % (outer * sizes.old) == 0:
            lead = axis < x.axis and op.shape[: axis + 1] == x.shape[: axis + 1]
            tail = len(op.shape) - axis < len(x.shape) - x.axis and op.shape[axis:] == x.shape[axis - len(op.shape) :]
            found.append((lead or tail, extent != outer * sizes.old, axis != x.axis, axis, outer))
    if not found:
        raise Mixed(f"the shape {op.shape} leaves no axis for the batch")
    return [(Reshape(sizes.resize(op.shape, axis)), axis, outer) for *_, axis, outer in sorted(found)]


def _transpose(op: Transpose, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    return op, op.perm.index(operands[0].axis)


def _concat(op: Concat, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    axes = {operand.axis for operand in operands if operand.axis is not None}
    if len(axes) != 1 or op.axis in axes:
        raise Mixed("images are concatenated, or the batch stands on different axes")
    return op, axes.pop()


def _slice(op: Slice, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    (x,) = operands
    axis = x.axis
    if (op.starts[axis], op.ends[axis], op.steps[axis]) != (0, x.shape[axis], 1):
        raise Mixed("some images are cut out of the batch")
    return replace(op, ends=sizes.resize(op.ends, axis)), axis


def _pad(op: Pad, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    (x,) = operands
    if op.low[x.axis] or op.high[x.axis]:
        raise Mixed("the batch is padded")
    return op, x.axis


def _broadcast_to(op: BroadcastTo, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    (x,) = operands
    axis = x.axis + len(op.shape) - len(x.shape)
    if op.shape[axis] != x.shape[x.axis]:
        raise Mixed("images are repeated along the batch")
    return BroadcastTo(sizes.resize(op.shape, axis)), axis


def _reduction(op: Reduction, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    axis = operands[0].axis
    if axis in op.axes:
        raise Mixed("images are reduced to one")
    return op, axis if op.keepdims else axis - sum(reduced < axis for reduced in op.axes)


def _moments(op: Moments, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    _, axis = _reduction(ReduceMean(op.axes), operands, sizes)
    return op, axis


def _softmax(op: Softmax, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    if op.axis == operands[0].axis:
        raise Mixed("softmax is taken over the batch")
    return op, operands[0].axis


def _along(op: ArgReduction | TopK | Cumulative, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    """Ops that look along one axis of their only operand."""
    axis = operands[0].axis
    if axis == op.axis:
        raise Mixed(f"{op.name} compares or adds up images")
    dropped = isinstance(op, ArgReduction) and not op.keepdims and op.axis < axis
    return op, axis - dropped


def _gather(op: Gather, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    x, indices = operands
    if x.axis is None:
        return op, op.axis + indices.axis
    if indices.axis is not None or x.axis == op.axis:
        raise Mixed("images are picked out of the batch")
    return op, x.axis if x.axis < op.axis else x.axis + len(indices.shape) - 1


def _elements(
    op: GatherElements | ScatterElements, operands: tuple[Operand, ...], sizes: Batch
) -> tuple[Op, int | None]:
    axes = {operand.axis for operand in operands}
    if len(axes) != 1 or op.axis in axes or len({operand.shape[operands[0].axis] for operand in operands}) != 1:
        raise Mixed("elements are picked or placed across the batch, or at the same place of all images")
    return op, axes.pop()


def _gather_nd(op: GatherNd, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    x, indices = operands
    if x.axis is None and indices.axis >= max(op.batch_dims, 0) and indices.axis < len(indices.shape) - 1:
        return op, indices.axis
    if x.axis is None or x.axis != indices.axis or x.axis >= op.batch_dims:
        raise Mixed("coordinates reach across the batch")
    return op, x.axis


def _scatter_nd(op: ScatterNd, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    raise Mixed("coordinates reach across the batch")


def _resample(op: Resample, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    x, *tables = operands
    if x.axis == op.axis or any(table.axis is not None for table in tables):
        raise Mixed("images are interpolated along the batch, or by tables of their own")
    return op, x.axis


def _non_max_suppression(op: NonMaxSuppression, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    boxes, scores, *thresholds = operands
    if boxes.axis != 0 or scores.axis != 0 or any(threshold.axis is not None for threshold in thresholds):
        raise Mixed("boxes and scores must both be those of images")
    return op, 0


def _rows(op: LayerNorm | RmsNorm, operands: tuple[Operand, ...], sizes: Batch) -> tuple[Op, int | None]:
    x, *parts = operands
    if x.axis is None or x.axis >= op.axis or any(part.axis is not None for part in parts):
        raise Mixed("statistics are taken over the batch")
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
    BatchNormTrain: _batch_norm_train,
    Dropout: _same_axis,
    Transpose: _transpose,
    Concat: _concat,
    Slice: _slice,
    Pad: _pad,
    BroadcastTo: _broadcast_to,
    Reduction: _reduction,
    Moments: _moments,
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
    NonMaxSuppression: _non_max_suppression,
    LayerNorm: _rows,
    RmsNorm: _rows,
}
