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
from edgec.backends.tvm.tiling import column_block
from edgec.graph.ir import Value
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import Access, Storage

_TASK_ELEMENTS = 1 << 14
_MOST_TASKS = 32
_MOST_PARTIALS = 64
BLOCK_VECTORS = 4  # of kept elements in registers: enough chains to hide the latency of an addition


class Fold(enum.Enum):
    SUM = "sum"
    MAX = "max"
    MIN = "min"


FoldedOp = ReduceSum | ReduceMean | ReduceMax | ReduceMin
_FOLDS = {ReduceSum: Fold.SUM, ReduceMean: Fold.SUM, ReduceMax: Fold.MAX, ReduceMin: Fold.MIN}


class Term(enum.Enum):
    """What is folded, of the first slots of the nest."""

    VALUE = "x"
    SECOND = "y"
    CENTRED_SQUARE = "(x - mean)^2"
    WEIGHTED = "x * weight"
    WEIGHTED_SQUARE = "(x - mean)^2 * weight"
    NORMAL_PRODUCT = "dy * (x - mean) * inv_std"

    @property
    def reads(self) -> int:
        return _READS[self]


_READS = {
    Term.VALUE: 1,
    Term.SECOND: 2,
    Term.CENTRED_SQUARE: 2,
    Term.WEIGHTED: 2,
    Term.WEIGHTED_SQUARE: 3,
    Term.NORMAL_PRODUCT: 4,
}


@dataclass(frozen=True)
class ReduceSpec:
    """`fold` of `terms` over loops `reduced` of a nest, all in one pass; then elementwise steps on each result.

    The first `reads` slots are operands, the next ones what results go to or steps read: `stores` say (value, slot).
    What becomes of term i is `Computed(i)` after division by `divisor`; steps count on from there. Loops keep the
    memory order of slot 0; the innermost is contiguous there.
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
    terms: tuple[Term, ...] = (Term.VALUE,)

    @property
    def reads(self) -> int:
        """Operands of the terms: each term reads the first few."""
        return max(term.reads for term in self.terms)

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
    call_reduction(request, spec, bound.operands)
    return request.lowering()


def call_reduction(request: Request, spec: ReduceSpec, operands: Sequence[Value]) -> None:
    """One kernel, or several where results are few: partial ones first, then one for each term."""
    parts = _partials(spec, request.target)
    if parts == 1:
        request.call(spec, tuple(operands), spec.tasks)
        return
    first, others = _in_parts(spec, parts, request.target)
    workspaces = [request.workspace(argument.elements) for argument in first.arguments[spec.reads :]]
    request.call(first, (*(operands[slot] for slot in spec.slots[: spec.reads]), *workspaces), first.tasks)
    for (second, slots), workspace in zip(others, workspaces, strict=True):
        request.call(second, (*(operands[slot] for slot in slots), workspace), second.tasks)


def term_spec(
    stem: str,
    terms: tuple[Term, ...],
    operands: Sequence[tuple[TensorType, Storage]],
    axes: tuple[int, ...],
    divisor: int,
    target: Target,
) -> ReduceSpec | None:
    """Sums of `terms` over `axes`: `operands` are what they read, the first in full, and the row-major results."""
    full = operands[0][0]
    results = operands[-len(terms) :]
    if any(kind.dtype is not DType.F32 or not kind.size for kind, _ in operands):
        return None
    tensors = [_over(kind, own, full.shape) for kind, own in operands[: -len(terms)]]
    for kind, own in results:
        tensors.append(_over_operand(Memory(kind, own, 0), ReduceSum(axes), full.shape, kind.shape))
    nest = make_nest(tensors) if None not in tensors else None
    if nest is None or not nest.extents or nest.tensors[0].strides[-1] != 1:
        return None
    inner = len(nest.extents) - 1
    elements = math.prod(full.shape[axis] for axis in axes)
    reduced = tuple(axis for axis, stride in enumerate(nest.tensors[-1].strides) if stride == 0)
    if not reduced or math.prod(nest.extents[axis] for axis in reduced) != elements:
        return None
    if any(tensor.strides[inner] not in (0, 1) for tensor in nest.tensors):
        return None
    first = len(operands) - len(terms)  # of the results
    arguments = tuple(
        Argument(DType.F32, kind.size, Access.WRITE if slot >= first else Access.READ)
        for slot, (kind, _) in enumerate(operands)
    )
    stores = tuple((Computed(i), Slot(first + i)) for i in range(len(terms)))
    slots = tuple(range(len(operands)))
    spec = ReduceSpec(stem, arguments, nest, slots, reduced, Fold.SUM, divisor, (), stores, 1, terms)
    return replace(spec, tasks=_tasks(spec, target))


def _over(kind: TensorType, storage: Storage, shape: tuple[int, ...]) -> Strides | None:
    """A tensor that broadcasts to `shape`, over that."""
    strides = strides_of(storage)
    if strides is None or kind.shape == shape:
        return strides
    return broadcast(strides, kind.shape, shape) if strides.dims == kind.shape else None


def reduce_spec(computation: Computation, target: Target) -> ReduceSpec | None:
    """The reduction in one kernel; None for what is not covered."""
    anchor, op = computation.anchor, computation.anchor.op
    if type(op) not in _FOLDS or not isinstance(anchor.operands[0], Memory):
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
    fold = _FOLDS[type(op)]
    spec = ReduceSpec(computation.stem, computation.arguments, nest, slots, reduced, fold, divisor, steps, stores, 1)
    return replace(spec, tasks=_tasks(spec, target))


def _references(step: Step, memories: Sequence[Memory]) -> tuple[Slot | Computed, ...]:
    return tuple(Slot(memories.index(m)) if isinstance(m, Memory) else m for m in step.operands)


def _over_operand(memory: Memory, op: FoldedOp, source: tuple[int, ...], shape: tuple[int, ...]) -> Strides | None:
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


def _reduced_loops(nest: Nest, op: FoldedOp, x: Memory) -> tuple[int, ...] | None:
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
    return kept // columns * -(-columns // column_block(columns, target, BLOCK_VECTORS))


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


def _in_parts(
    spec: ReduceSpec, parts: int, target: Target
) -> tuple[ReduceSpec, list[tuple[ReduceSpec, tuple[int, ...]]]]:
    """Partial results [parts][kept loops] of each term; and the reductions over those, with the arguments of `spec`
    that stand before the partial results among theirs.
    """
    cut = spec.reduced[0]
    extents = spec.nest.extents
    reads = spec.reads
    kept = math.prod(extents[axis] for axis in spec.kept)

    # The outermost reduced loop becomes two: the part, which is kept, and what is reduced within it.
    length = extents[cut] // parts
    loops = (*extents[:cut], parts, length, *extents[cut + 1 :])
    to_partial, step = [0] * len(loops), 1
    for axis in reversed(spec.kept):
        to_partial[axis + (axis > cut)] = step
        step *= extents[axis]
    to_partial[cut] = kept
    walks = [
        Strides(loops, (*t.strides[:cut], t.strides[cut] * length, *t.strides[cut:]), t.base)
        for t in spec.nest.tensors[:reads]
    ]
    count = len(spec.terms)
    partial = Argument(DType.F32, parts * kept, Access.WRITE)
    reduced = tuple(axis + (axis >= cut) for axis in spec.reduced if axis != cut)
    first = ReduceSpec(
        f"{spec.stem}_partial",
        (*(spec.arguments[slot] for slot in spec.slots[:reads]), *(partial,) * count),
        Nest(loops, (*walks, *(Strides(loops, tuple(to_partial)),) * count)),
        tuple(range(reads + count)),
        tuple(sorted((*(axis for axis in reduced), cut + 1))),
        spec.fold,
        1,
        (),
        tuple((Computed(i), Slot(reads + i)) for i in range(count)),
        1,
        spec.terms,
    )
    first = replace(first, tasks=_tasks(first, target))
    chosen = [tuple(range(reads, len(spec.slots)))] if count == 1 else [(reads + i,) for i in range(count)]
    return first, [_over_parts(spec, parts, partial, slots, target) for slots in chosen]


def _over_parts(
    spec: ReduceSpec, parts: int, partial: Argument, chosen: tuple[int, ...], target: Target
) -> tuple[ReduceSpec, tuple[int, ...]]:
    """The sum of partial results, with the slots `chosen` behind them; the arguments that those are."""
    shape = (parts, *(spec.nest.extents[axis] for axis in spec.kept))
    source = Strides(shape, tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))))
    others = [
        Strides(
            shape, (0, *(spec.nest.tensors[slot].strides[axis] for axis in spec.kept)), spec.nest.tensors[slot].base
        )
        for slot in chosen
    ]
    arguments = tuple(spec.slots[slot] for slot in chosen)

    def moved(operand: Slot | Computed) -> Slot | Computed:
        if isinstance(operand, Slot):
            return Slot(chosen.index(operand.index) + 1)
        return Computed(max(0, operand.step - len(spec.terms) + 1), operand.output)

    second = ReduceSpec(
        f"{spec.stem}_combine",
        (*(spec.arguments[argument] for argument in arguments), replace(partial, access=Access.READ)),
        Nest(shape, (source, *others)),
        (len(arguments), *range(len(arguments))),
        (0,),
        spec.fold,
        spec.divisor,
        tuple(replace(step, operands=tuple(moved(operand) for operand in step.operands)) for step in spec.steps),
        tuple((moved(value), moved(slot)) for value, slot in spec.stores if slot.index in chosen),
        1,
    )
    return replace(second, tasks=_tasks(second, target)), arguments
