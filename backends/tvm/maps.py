"""Elementwise chains, copies between storages and data movement: one spec, regions of strided loops.

Every element of every result is a function of one element of each operand. A region is a loop nest over a part of the
index space; most kernels have one. Nothing here loads tvm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering, Target
from edgec.backends.tvm.computation import Computation, Computed, Memory, bind_computation
from edgec.backends.tvm.movement import Part, movement_parts
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.strides import Nest, Strides, Window, broadcast, even_windows, extents_of, make_nest, strides_of
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.compress import Compress
from edgec.graph.ops.decompress import Decompress
from edgec.graph.ops.mul import Mul
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_TASK_ELEMENTS = 1 << 14  # some microseconds
_MOST_TASKS = 32


@dataclass(frozen=True)
class Slot:
    """Tensor `index` of a region's nest."""

    index: int


@dataclass(frozen=True)
class MapStep:
    """An elementwise op on slots and on results of earlier steps."""

    op: Op
    operands: tuple[Slot | Computed, ...]


@dataclass(frozen=True)
class Region:
    """A loop nest in which slot k walks `nest.tensors[k]` of argument `arguments[k]`, in the memory order of slot 0.

    With `fill`, the source of the data (slot 1 of a movement) is that constant.
    """

    nest: Nest
    arguments: tuple[int, ...]
    fill: float | None = None


@dataclass(frozen=True)
class MapSpec:
    """Steps done for every element of every region, and (value, slot) for what is stored.

    Task t of T does the t-th of T runs of every region's rows.
    """

    stem: str
    arguments: tuple[Argument, ...]
    regions: tuple[Region, ...]
    steps: tuple[MapStep, ...]
    stores: tuple[tuple[Slot | Computed, Slot], ...]
    tasks: int


def lower_map(request: Request) -> Lowering | None:
    """A group that is elementwise, or moves data and is elementwise behind that, in any dtype."""
    bound = bind_computation(request.group, request.storage, request.alias)
    spec = map_spec(bound.computation, request.target)
    if spec is None:
        return None
    request.call(spec, bound.operands, spec.tasks)
    return request.lowering()


def transposition(batch: int, rows: int, columns: int) -> MapSpec:
    """Arguments y[batch, columns, rows], x[batch, rows, columns], both row-major f32: y = x with its axes swapped."""
    size, extents = batch * rows * columns, (batch, columns, rows)
    written = Strides(extents, (columns * rows, rows, 1))
    read = Strides(extents, (columns * rows, 1, columns))
    region = Region(Nest(extents, (written, read)), (0, 1))
    arguments = (Argument(DType.F32, size, Access.WRITE), Argument(DType.F32, size, Access.READ))
    tasks = max(1, min(_MOST_TASKS, size // _TASK_ELEMENTS))
    return MapSpec("f32_transpose", arguments, (region,), (), ((Slot(1), Slot(0)),), tasks)


def map_spec(computation: Computation, target: Target) -> MapSpec | None:
    """None for anchors and storages that are not covered."""
    moves = not computation.anchor.op.elementwise
    followers = computation.steps[1 if moves else 0 :]
    halves = any(argument.dtype in (DType.F16, DType.BF16) for argument in computation.arguments)
    if halves and len(computation.steps) > 1 and not _are_compressed(computation):
        return None  # between two steps, values would have to be rounded
    if any(argument.elements == 0 for argument in computation.arguments):
        return None
    if any(store.memory.type.shape != computation.shape for store in computation.stores):
        return None
    parts = _parts(computation)
    if parts is None:
        return None
    # Slot 0 is the first result, slot 1 of a movement its source; then every other tensor once.
    memories = list(dict.fromkeys(store.memory for store in computation.stores))
    memories += [None] if moves else []
    for step in followers:
        for operand in step.operands:
            if isinstance(operand, Memory) and operand not in memories:
                memories.append(operand)
    moved = Slot(memories.index(None)) if moves else None

    def reference(operand: Memory | Computed) -> Slot | Computed:
        if isinstance(operand, Memory):
            return Slot(memories.index(operand))
        if not moves:
            return operand
        return moved if operand.step == 0 else Computed(operand.step - 1, operand.output)

    regions = []
    for part in parts:
        region = _region(computation, part, memories)
        if region is None:
            return None
        regions += _cut_flat(region, _task_count(computation), 4 * target.lanes)
    steps = tuple(MapStep(step.op, _in_order(step.op, map(reference, step.operands))) for step in followers)
    stores = tuple((reference(store.value), reference(store.memory)) for store in computation.stores)
    return MapSpec(computation.stem, computation.arguments, tuple(regions), steps, stores, _task_count(computation))


def _in_order(op: Op, operands: Iterable[Slot | Computed]) -> tuple[Slot | Computed, ...]:
    """One order for sums and products that differ in nothing else, so that they are one kernel."""
    return tuple(sorted(operands, key=repr) if isinstance(op, (Add, Mul)) else operands)


def _are_compressed(computation: Computation) -> bool:
    """Whether halves are read by `decompress` and made by `compress` alone, whose results no other step reads."""
    steps = {Computed(i): step for i, step in enumerate(computation.steps)}
    read = {operand for step in steps.values() for operand in step.operands}
    halves = (DType.F16, DType.BF16)
    loaded = {operand for operand in read if isinstance(operand, Memory) and operand.type.dtype in halves}
    made = {store.value for store in computation.stores if store.memory.type.dtype in halves}
    readers = [step.op for step in steps.values() if loaded.intersection(step.operands)]
    writers = [steps[value].op for value in made]
    return (
        all(isinstance(op, Decompress) for op in readers)
        and all(isinstance(op, Compress) for op in writers)
        and not any(isinstance(step.op, Compress) and value in read for value, step in steps.items())
    )


def _task_count(computation: Computation) -> int:
    return max(1, min(_MOST_TASKS, computation.elements // _TASK_ELEMENTS))


def _parts(computation: Computation) -> list[Part] | None:
    if not computation.anchor.op.elementwise:
        return movement_parts(computation.anchor, computation.shape)
    full = [
        operand.storage
        for step in computation.steps
        for operand in step.operands
        if isinstance(operand, Memory) and operand.type.shape == computation.shape
    ]
    windows = even_windows(computation.shape, [*full, *(store.memory.storage for store in computation.stores)])
    return windows and [Part(window) for window in windows]


def _region(computation: Computation, part: Part, memories: Sequence[Memory | None]) -> Region | None:
    """The nest of all tensors over a part's window; None where one has no strides there."""
    tensors: list[Strides | None] = []
    arguments = []
    for memory in memories:
        if memory is not None:
            tensors.append(_strides_over(memory, part.window, computation.shape))
            arguments.append(memory.argument)
        elif part.source is not None:
            tensors.append(part.source)
            arguments.append(computation.anchor.operands[part.operand].argument)
        else:  # a constant: any tensor that does not move
            tensors.append(Strides(extents_of(part.window), (0,) * len(part.window)))
            arguments.append(computation.stores[0].memory.argument)
    nest = make_nest(tensors) if None not in tensors else None
    return nest and Region(nest, tuple(arguments), part.fill)


def _strides_over(memory: Memory, window: Window, shape: tuple[int, ...]) -> Strides | None:
    """A tensor over a window of the index space: its own part of it, or broadcast."""
    own = memory.type.shape
    if own == shape:
        if memory.storage.dims == own:
            return strides_of(memory.storage, window)
        return strides_of(memory.storage) if extents_of(window) == shape else None
    if memory.storage.dims != own:
        return None
    lead = len(shape) - len(own)
    part = tuple((0, 1) if n == 1 else w for n, w in zip(own, window[lead:], strict=True))
    strides = strides_of(memory.storage, part)
    return strides and broadcast(strides, extents_of(part), extents_of(window))


def _cut_flat(region: Region, tasks: int, unit: int) -> list[Region]:
    """A single long loop as rows for the tasks to share: blocks of equal length, a multiple of `unit`, and a rest."""
    if tasks == 1 or len(region.nest.extents) != 1:
        return [region]
    (n,) = region.nest.extents
    length = -(-n // (tasks * unit)) * unit
    blocks, rest = divmod(n, length)
    regions = []
    if blocks:
        cut = tuple(
            Strides((blocks, length), (t.strides[0] * length, t.strides[0]), t.base) for t in region.nest.tensors
        )
        regions.append(Region(Nest((blocks, length), cut), region.arguments, region.fill))
    if rest:
        start = blocks * length
        cut = tuple(Strides((rest,), t.strides, t.base + start * t.strides[0]) for t in region.nest.tensors)
        regions.append(Region(Nest((rest,), cut), region.arguments, region.fill))
    return regions
