"""Sums, means and maxima over axes, in one fixed order: vectors of kept elements, or vectors along a reduced axis.

A reduction whose results are too few to keep threads busy is done in two kernels: a fixed number of partial results in
a workspace, then those in the order of their index. Nothing here loads tvm.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgec.backends.base import Argument, Lowering, Target
from edgec.backends.tvm.computation import Computation, Computed, Memory, Step, bind_computation
from edgec.backends.tvm.maps import MapStep, Slot
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.strides import Nest, Strides, broadcast, make_nest, strides_of
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_TASK_ELEMENTS = 1 << 14
_MOST_TASKS = 32
_MOST_PARTIALS = 64
BLOCK_VECTORS = 4  # of kept elements in registers: enough chains to hide the latency of an addition


class Fold(enum.Enum):
    SUM = "sum"
    MAX = "max"


@dataclass(frozen=True)
class ReduceSpec:
    """`fold` over loops `reduced` of a nest whose slot 0 is the operand; then elementwise steps on each result.

    The result is slot `count` - 1 and lower: `stores` say (value, slot). A result of the fold is `Computed(0)` after
    division by `divisor`; steps count from 1. Loops keep the operand's memory order; the innermost is contiguous there.
    """

    stem: str
    arguments: tuple[Argument, ...]
    nest: Nest
    slots: tuple[int, ...]  # argument of each tensor of the nest
    reduced: tuple[int, ...]
    fold: Fold
    divisor: int
    steps: tuple[MapStep, ...]
    stores: tuple[tuple[Slot | Computed, Slot], ...]
    tasks: int

    @property
    def inner_is_kept(self) -> bool:
        return len(self.nest.extents) - 1 not in self.reduced

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(self.nest.extents)) if axis not in self.reduced)


def lower_reduction(request: Request) -> Lowering | None:
    """A reduction in f32 and elementwise nodes behind it, where the operand has a contiguous innermost loop."""
    bound = bind_computation(request.group, request.storage, request.alias)
    spec = reduce_spec(bound.computation, request.target)
    if spec is None:
        return None
    parts = _partials(spec, request.target)
    if parts == 1:
        request.call(spec, bound.operands, spec.tasks)
        return request.lowering()
    first, second = _in_two(spec, parts, request.target)
    workspace = request.workspace(first.arguments[-1].elements)
    request.call(first, (bound.operands[spec.slots[0]], workspace), first.tasks)
    request.call(second, (*bound.operands, workspace), second.tasks)
    return request.lowering()


def reduce_spec(computation: Computation, target: Target) -> ReduceSpec | None:
    """The reduction in one kernel; None for what is not covered."""
    anchor, op = computation.anchor, computation.anchor.op
    if not isinstance(op, (ReduceSum, ReduceMean, ReduceMax)) or not isinstance(anchor.operands[0], Memory):
        return None
    if any(argument.dtype is not DType.F32 or argument.elements == 0 for argument in computation.arguments):
        return None
    x = anchor.operands[0]
    shape = computation.shape
    if any(store.memory.type.shape != shape for store in computation.stores):
        return None
    memories = [x, *dict.fromkeys(store.memory for store in computation.stores)]
    for step in computation.steps[1:]:
        memories += [m for m in step.operands if isinstance(m, Memory) and m not in memories]
    tensors = [strides_of(x.storage), *(_over_operand(m, op, x.type.shape, shape) for m in memories[1:])]
    nest = make_nest(tensors) if None not in tensors and x not in memories[1:] else None
    if nest is None or not nest.extents or nest.tensors[0].strides[-1] != 1:
        return None
    reduced = _reduced_loops(nest, op, x)
    if reduced is None or not reduced:
        return None
    inner = len(nest.extents) - 1
    if inner not in reduced and (
        any(t.strides[inner] not in (0, 1) for t in nest.tensors) or nest.tensors[1].strides[inner] != 1
    ):
        return None
    steps = tuple(MapStep(step.op, _references(step, memories)) for step in computation.steps[1:])
    stores = tuple((store.value, Slot(memories.index(store.memory))) for store in computation.stores)
    divisor = math.prod(x.type.shape[axis] for axis in op.axes) if isinstance(op, ReduceMean) else 1
    slots = tuple(memory.argument for memory in memories)
    fold = Fold.MAX if isinstance(op, ReduceMax) else Fold.SUM
    spec = ReduceSpec(computation.stem, computation.arguments, nest, slots, reduced, fold, divisor, steps, stores, 1)
    return replace(spec, tasks=_tasks(spec, target))


def _references(step: Step, memories: Sequence[Memory]) -> tuple[Slot | Computed, ...]:
    return tuple(Slot(memories.index(m)) if isinstance(m, Memory) else m for m in step.operands)


def _over_operand(
    memory: Memory, op: ReduceSum | ReduceMean | ReduceMax, source: tuple[int, ...], shape: tuple[int, ...]
) -> Strides | None:
    """A tensor that the result indexes, over the index space of the operand: it stands still along reduced axes."""
    strides = strides_of(memory.storage)
    if strides is None or strides.dims != memory.type.shape:
        return None
    over = broadcast(strides, memory.type.shape, shape)
    if over is None:
        return None
    kept = iter(zip(over.dims, over.strides, strict=True))
    along = []
    for axis in range(len(source)):
        if axis in op.axes:
            along.append(0)
            if op.keepdims:
                next(kept)
        else:
            along.append(next(kept)[1])
    return Strides(source, tuple(along), over.base)


def _reduced_loops(nest: Nest, op: ReduceSum | ReduceMean | ReduceMax, x: Memory) -> tuple[int, ...] | None:
    """Loops along which the result stands still: exactly the reduced axes."""
    still = tuple(axis for axis, stride in enumerate(nest.tensors[1].strides) if stride == 0)
    elements = math.prod(x.type.shape[axis] for axis in op.axes)
    return still if math.prod(nest.extents[axis] for axis in still) == elements else None


def _units(spec: ReduceSpec, target: Target) -> int:
    """Results, or blocks of them, that are computed independently."""
    kept = math.prod(spec.nest.extents[axis] for axis in spec.kept)
    if not spec.inner_is_kept:
        return kept
    columns = spec.nest.extents[-1]
    return kept // columns * -(-columns // (BLOCK_VECTORS * target.lanes))


def _wanted_tasks(spec: ReduceSpec) -> int:
    return max(1, min(_MOST_TASKS, spec.nest.size // _TASK_ELEMENTS))


def _tasks(spec: ReduceSpec, target: Target) -> int:
    return min(_wanted_tasks(spec), _units(spec, target))


def _partials(spec: ReduceSpec, target: Target) -> int:
    """How many partial results to make: a divisor of the outermost reduced loop, 1 where results are many enough."""
    missing = -(-_wanted_tasks(spec) // _units(spec, target))
    outer = spec.nest.extents[spec.reduced[0]]
    if missing < 2:
        return 1
    divisors = [n for n in range(2, min(outer // 2, _MOST_PARTIALS) + 1) if outer % n == 0]
    return next((n for n in divisors if n >= missing), divisors[-1] if divisors else 1)


def _in_two(spec: ReduceSpec, parts: int, target: Target) -> tuple[ReduceSpec, ReduceSpec]:
    """Partial results [parts][kept loops], and the reduction over those."""
    cut = spec.reduced[0]
    extents = spec.nest.extents
    operand = spec.nest.tensors[0]
    kept = math.prod(extents[axis] for axis in spec.kept)

    # The outermost reduced loop becomes two: the part, which is kept, and what is reduced within it.
    length = extents[cut] // parts
    loops = (*extents[:cut], parts, length, *extents[cut + 1 :])
    walk = (*operand.strides[:cut], operand.strides[cut] * length, *operand.strides[cut:])
    to_partial, step = [0] * len(loops), 1
    for axis in reversed(spec.kept):
        to_partial[axis + (axis > cut)] = step
        step *= extents[axis]
    to_partial[cut] = kept
    nest = Nest(loops, (Strides(loops, walk, operand.base), Strides(loops, tuple(to_partial))))
    partial = Argument(DType.F32, parts * kept, Access.WRITE)
    reduced = tuple(axis + (axis >= cut) for axis in spec.reduced if axis != cut)
    first = ReduceSpec(
        f"{spec.stem}_partial",
        (spec.arguments[spec.slots[0]], partial),
        nest,
        (0, 1),
        tuple(sorted((*(axis for axis in reduced), cut + 1))),
        spec.fold,
        1,
        (),
        ((Computed(0), Slot(1)),),
        1,
    )
    first = replace(first, tasks=_tasks(first, target))

    shape = (parts, *(extents[axis] for axis in spec.kept))
    source = Strides(shape, tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))))
    others = [
        Strides(shape, (0, *(tensor.strides[axis] for axis in spec.kept)), tensor.base)
        for tensor in spec.nest.tensors[1:]
    ]
    second = replace(
        spec,
        stem=f"{spec.stem}_combine",
        arguments=(*spec.arguments, replace(partial, access=Access.READ)),
        nest=Nest(shape, (source, *others)),
        slots=(len(spec.arguments), *spec.slots[1:]),
        reduced=(0,),
    )
    return first, replace(second, tasks=_tasks(second, target))
