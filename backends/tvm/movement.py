"""Data movement as parts of an output: each part reads one operand by strides, or is a constant. Loads no tvm."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.tvm.computation import Memory, Step
from edgec.backends.tvm.strides import Strides, Window, extents_of, strides_of, whole
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose


@dataclass(frozen=True)
class Part:
    """Where a window of the output comes from: `source` strides over the window's extents (or a split of them) in
    operand `operand`, or the constant `fill`.
    """

    window: Window
    operand: int = 0
    source: Strides | None = None
    fill: float | None = None


def movement_parts(step: Step, shape: tuple[int, ...]) -> list[Part] | None:
    """The parts of the output of a movement op; None for other ops and for storages with no strides here."""
    operands = [operand for operand in step.operands if isinstance(operand, Memory)]
    (x, *_) = operands
    match step.op:
        case Reshape():
            parts = [Part(whole(shape), source=strides_of(x.storage))]
        case Transpose(perm=perm):
            parts = [Part(whole(shape), source=_transposed(x, perm))]
        case Slice():
            parts = [Part(whole(shape), source=_sliced(x, step.op))]
        case Concat(axis=axis):
            parts, start = [], 0
            for i, operand in enumerate(operands):
                stop = start + operand.type.shape[axis]
                window = (*whole(shape[:axis]), (start, stop), *whole(shape[axis + 1 :]))
                parts.append(Part(window, i, strides_of(operand.storage)))
                start = stop
        case Pad():
            inner = tuple((low, low + n) for low, n in zip(step.op.low, x.type.shape, strict=True))
            parts = [Part(inner, source=strides_of(x.storage)), *_border(shape, inner, step.op.value)]
        case _:
            return None
    if any(part.source is None and part.fill is None for part in parts):
        return None
    return [part for part in parts if 0 not in extents_of(part.window)]


def _transposed(x: Memory, perm: tuple[int, ...]) -> Strides | None:
    strides = strides_of(x.storage)
    if strides is None or strides.dims != x.type.shape:
        return None
    return Strides(
        tuple(strides.dims[axis] for axis in perm), tuple(strides.strides[axis] for axis in perm), strides.base
    )


def _sliced(x: Memory, op: Slice) -> Strides | None:
    strides = strides_of(x.storage)
    if strides is None or strides.dims != x.type.shape:
        return None
    extents = tuple(len(range(*bounds)) for bounds in zip(op.starts, op.ends, op.steps, strict=True))
    base = strides.base + sum(start * stride for start, stride in zip(op.starts, strides.strides, strict=True))
    return Strides(extents, tuple(n * s for n, s in zip(op.steps, strides.strides, strict=True)), base)


def _border(shape: tuple[int, ...], inner: Window, value: float) -> list[Part]:
    """The space around a window, in slabs that do not overlap."""
    parts = []
    for axis, (low, high) in enumerate(inner):
        for slab in ((0, low), (high, shape[axis])):
            parts.append(Part((*inner[:axis], slab, *whole(shape[axis + 1 :])), fill=value))
    return parts
