"""Proof that a planned program computes what its graph says, byte for byte of memory. Knows nothing of the planner.

The checker runs the program over what memory holds instead of over numbers: it remembers for every range which values
are intact there, lets each kernel call read and write its operands, and forgets whatever a write touches. So a plan is
right exactly if every read finds its value intact. It uses no lifetimes and no reasoning of the passes, so a mistake in
those cannot hide here. Anything wrong is an InternalError.

Proved for every program: a read finds the value it means; an output and a new parameter value is intact at the end, the
latter in the memory of what it replaces; nothing outside `updates` changes; parameters and states are written after the
guard only; a written operand overlaps no other operand of its call (kernels are compiled without aliasing); every
operand is large enough, aligned, and inside the arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.backends.base import Argument, Group, KernelCall, Workspace
from edgec.compiler.schedule import MemoryPlan, Schedule, Span
from edgec.graph.errors import InternalError
from edgec.graph.ir import Node, Role, Value
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.reshape import Reshape
from edgec.runtime.abi import BUFFER_ALIGNMENT, Access
from edgec.runtime.format import Region, Tensor, Variant

# What has a range of memory: a value, or a workspace by the position of its group and its index.
Item = Value | tuple[int, int]


@dataclass(frozen=True)
class Place:
    """A range of memory: `space` is None for the arena, else the leaf that has memory of its own."""

    space: Value | None
    span: Span

    def overlaps(self, other: Place) -> bool:
        return self.space is other.space and self.span.overlaps(other.span)


def check_plan(schedule: Schedule) -> None:
    """Prove the plan of one program; InternalError with what is wrong and where."""
    if schedule.plan is None:
        raise InternalError(f"{schedule.graph.name}: there is no plan to check")
    _Machine(schedule, schedule.plan).run()


class _Machine:
    """Abstract memory: `intact` are the items whose every byte stands in their place."""

    def __init__(self, schedule: Schedule, plan: MemoryPlan):
        self.schedule = schedule
        self.graph = schedule.graph
        self.plan = plan
        self.where = self.graph.name
        self.homes = self._homes()
        self.places: dict[Item, Place] = dict(self.homes)
        self.intact: dict[Value | None, set[Item]] = {}  # by space
        self.updated = set(self.graph.updates)
        self.committing = not schedule.guarded

    def fail(self, message: str) -> InternalError:
        return InternalError(f"memory plan of {self.where}: {message}")

    # -- memory -----------------------------------------------------------------------------------------------------

    def _homes(self) -> dict[Item, Place]:
        """What memory is given to: leaves, values that own memory in the arena, workspaces."""
        homes: dict[Item, Place] = {}
        for value, span in self.plan.values.items():
            homes[value] = self._in_arena(str(value), span, value.type.bytes)
        for position, group in enumerate(self.schedule.groups):
            for workspace in self.schedule.lowerings[group].workspaces:
                key = (position, workspace.index)
                if key not in self.plan.workspaces:
                    raise self.fail(f"workspace {workspace.index} of group {position} has no place")
                homes[key] = self._in_arena(f"workspace {key}", self.plan.workspaces[key], workspace.bytes)
        for leaf in self.graph.leaves.values():
            if leaf.role not in (Role.INPUT, Role.SCALAR):
                homes[leaf] = Place(leaf, Span(0, leaf.type.bytes))
        return homes

    def _in_arena(self, name: str, span: Span, wanted: int) -> Place:
        if span.bytes < wanted:
            raise self.fail(f"{name} needs {wanted} bytes and has {span.bytes}")
        if span.offset % BUFFER_ALIGNMENT:
            raise self.fail(f"{name} lies at {span.offset}, which is not a multiple of {BUFFER_ALIGNMENT}")
        if span.offset < 0 or span.end > self.plan.arena_bytes:
            raise self.fail(f"{name} ends at {span.end}, the arena at {self.plan.arena_bytes}")
        return Place(None, span)

    def place(self, value: Value) -> Place:
        """Where `value` lies: in the memory of its home, perhaps in a part of it."""
        if value not in self.places:
            home, start = self.schedule.home(value), self.schedule.offset(value)
            if home not in self.homes:
                raise self.fail(f"{value} has no place")
            memory = self.homes[home]
            if start < 0 or start + value.type.bytes > memory.span.bytes:
                raise self.fail(f"{value} does not fit into the memory of {home}")
            if start % BUFFER_ALIGNMENT:
                raise self.fail(f"{value} lies at {start} in {home}, which is not a multiple of {BUFFER_ALIGNMENT}")
            self.places[value] = Place(memory.space, Span(memory.span.offset + start, value.type.bytes))
        return self.places[value]

    def holds(self, value: Value) -> bool:
        return value in self.intact.get(self.place(value).space, ())

    def overwrite(self, place: Place) -> None:
        """Forget all that stood in any byte of `place`."""
        there = self.intact.setdefault(place.space, set())
        there -= {item for item in there if self.places[item].overlaps(place)}

    def settle(self, item: Item) -> None:
        """From now on, `item` stands in its place."""
        self.intact.setdefault(self.places[item].space, set()).add(item)

    # -- the program ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self._start()
        guard = self.schedule.guard
        for position, group in enumerate(self.schedule.groups):
            if position == guard:
                self._guard()
            if self.schedule.is_view(group):
                self._view(group)
            else:
                self._group(position, group)
        if guard == len(self.schedule.groups):
            self._guard()
        self._finish()

    def _start(self) -> None:
        for leaf in self.graph.leaves.values():
            self.overwrite(self.place(leaf))
            self.settle(leaf)
        for leaf in self.graph.leaves.values():
            if self.schedule.home(leaf) is not leaf or not self.holds(leaf):
                raise self.fail(f"{leaf} shares its memory with another leaf")

    def _guard(self) -> None:
        for value in self.schedule.watched:
            if not self.holds(value):
                raise self.fail(f"the guard reads {value}, which is not there")
        self.committing = True

    def _view(self, group: Group) -> None:
        node = group.anchor
        view = node.output
        joined = isinstance(node.op, Concat)
        for operand in node.inputs:
            whole, part = (view, operand) if joined else (operand, view)
            if self._relative(part, whole) is None:
                raise self.fail(f"{view} is a view of {operand} but lies elsewhere")
            if not self.holds(operand):
                raise self.fail(f"{view} is a view of {operand}, which is overwritten")
        if not isinstance(node.op, Reshape):
            self._check_ranges(node)
        self.settle(view)

    def _relative(self, part: Value, whole: Value) -> int | None:
        """Bytes from the start of `whole` to that of `part`; None where `part` does not lie inside."""
        inner, outer = self.place(part), self.place(whole)
        start = inner.span.offset - outer.span.offset
        inside = inner.space is outer.space and 0 <= start <= outer.span.bytes - inner.span.bytes
        return start if inside else None

    def _check_ranges(self, node: Node) -> None:
        """Every part of a slice or concatenation that moves nothing lies where its elements do, one by one."""
        whole = node.output if isinstance(node.op, Concat) else node.inputs[0]
        storage = self.schedule.storage
        positions = storage[whole].unpack(np.arange(whole.type.size), whole.type.shape)
        if isinstance(node.op, Concat):
            ends = np.cumsum([part.type.shape[node.op.axis] for part in node.inputs])
            pieces = np.split(positions, ends[:-1], axis=node.op.axis)
            parts = list(zip(node.inputs, pieces, strict=True))
        else:
            parts = [(node.output, node.op.reference(positions)[0])]
        for part, elements in parts:
            flat = storage[part].pack(elements)
            first = self._relative(part, whole) // whole.type.dtype.bytes
            if not np.array_equal(flat, np.arange(first, first + flat.size)):
                raise self.fail(f"{part} lies in {whole}, but not where its elements are")

    def _group(self, position: int, group: Group) -> None:
        where = f"group {position} ({group.anchor.op.name} of {group.anchor.outputs[0]})"
        written: set[Place] = set()
        for call in self.schedule.lowerings[group].calls:
            self._call(where, position, group, call, written)
        places = [self.place(value) for value in group.outputs]
        if any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i]):
            raise self.fail(f"{where}: two outputs share memory")
        for value, place in zip(group.outputs, places, strict=True):
            if place not in written:
                raise self.fail(f"{where}: {value} is never written, or overwritten at once")
            self.settle(value)

    def _call(self, where: str, position: int, group: Group, call: KernelCall, written: set[Place]) -> None:
        """One kernel call; `written` is what this group has written and nothing overwrote since."""
        arguments = call.spec.arguments
        if len(arguments) != len(call.operands):
            raise self.fail(f"{where}: {len(call.operands)} operands for {len(arguments)} arguments")
        places: list[Place] = []
        for operand in call.operands:
            if not isinstance(operand, Workspace):
                places.append(self.place(operand))
            elif (position, operand.index) in self.places:
                places.append(self.places[position, operand.index])
            else:
                raise self.fail(f"{where}: {operand} is not declared")
        for argument, operand, place in zip(arguments, call.operands, places, strict=True):
            if argument.bytes > place.span.bytes:
                raise self.fail(f"{where}: {operand} is smaller than the {argument.bytes} bytes of its argument")
            reads = argument.access is not Access.WRITE and argument.bytes > 0
            if reads and not self._readable(group, operand, place, argument, written):
                raise self.fail(f"{where}: reads {operand}, which is not there any more, or not yet")
            if argument.access is not Access.READ:
                self._check_write(where, group, operand, place)
        for i, argument in enumerate(arguments):
            if argument.access is Access.READ:
                continue
            for j, other in enumerate(places):
                if i != j and places[i].overlaps(other):
                    raise self.fail(f"{where}: {call.operands[i]} is written and overlaps {call.operands[j]}")
        for argument, place in zip(arguments, places, strict=True):
            if argument.access is not Access.READ:
                self.overwrite(place)
                written -= {w for w in written if w.overlaps(place)}
                written.add(place)

    def _readable(
        self, group: Group, operand: Value | Workspace, place: Place, argument: Argument, written: set[Place]
    ) -> bool:
        if isinstance(operand, Workspace):
            # What a kernel both writes and reads is its own scratch: that it writes first is the kernel's matter.
            return place in written or argument.access is Access.READ_WRITE
        if place in written:
            return operand not in group.inputs
        if operand in group.inputs:
            return self.holds(operand)
        # One pointer for an output and the input that it overwrites: the input is what is read.
        return operand in group.outputs and any(
            self.place(value) == place and self.holds(value) for value in group.inputs
        )

    def _check_write(self, where: str, group: Group, operand: Value | Workspace, place: Place) -> None:
        if isinstance(operand, Workspace):
            return
        if place not in {self.place(value) for value in group.outputs}:
            raise self.fail(f"{where}: writes {operand}, which is none of its outputs")
        if place.space is None:
            return
        if place.space not in self.updated:
            raise self.fail(f"{where}: writes {place.space}, which nothing updates")
        if not self.committing:
            raise self.fail(f"{where}: writes {place.space} before the guard")

    def _finish(self) -> None:
        for name, value in self.graph.outputs.items():
            if not self.holds(value):
                raise self.fail(f"output {name!r} is overwritten before the end")
            if self.schedule.home(value).role is not None:
                raise self.fail(f"output {name!r} has no memory of its own")
        for target, value in self.graph.updates.items():
            if self.place(value) != self.place(target) or not self.holds(value):
                raise self.fail(f"the new value of {target} is not in its memory at the end")
        for leaf in self.graph.leaves.values():
            outside = leaf.role in (Role.INPUT, Role.SCALAR)
            if not outside and leaf not in self.updated and not self.holds(leaf):
                raise self.fail(f"{leaf} is not updated, but overwritten")


def check_placements(variant: Variant, tensors: Sequence[Tensor]) -> None:
    """Prove that placements in the parameter and state regions are aligned, disjoint and inside; buffers inside too."""
    arena = max((program.arena_bytes for program in variant.programs), default=0)
    sizes = {Region.PARAM: variant.param_bytes, Region.STATE: variant.state_bytes, Region.ARENA: arena}
    for buffer in variant.buffers:
        limit = tensors[buffer.tensor].data.nbytes if buffer.region is Region.WEIGHTS else sizes[buffer.region]
        if buffer.offset + buffer.bytes > limit:
            raise InternalError(f"{buffer} of {variant.target} ends outside its region")
    for region in (Region.PARAM, Region.STATE):
        placed = [(p.offset, p.tensor) for p in variant.placements if p.region is region]
        end = 0
        for offset, tensor in sorted(placed):
            if offset % BUFFER_ALIGNMENT or offset < end:
                raise InternalError(f"tensor {tensor} of {variant.target} is misplaced in {region.name}")
            end = offset + tensors[tensor].data.nbytes
        if end > sizes[region]:
            raise InternalError(f"region {region.name} of {variant.target} is too small")
