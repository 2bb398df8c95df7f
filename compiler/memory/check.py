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

from edgec.backends.base import Argument, Group, KernelCall, Workspace
from edgec.compiler.schedule import MemoryPlan, Schedule, Span
from edgec.graph.errors import InternalError
from edgec.graph.ir import Role, Value
from edgec.runtime.abi import BUFFER_ALIGNMENT, Access
from edgec.runtime.format import Region, Tensor, Variant

# An owner of memory: a value (`Schedule.home`), or a workspace by the position of its group and its index.
Owner = Value | tuple[int, int]


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
    """Abstract memory: `intact[owner]` are the values whose every byte stands in the owner's range."""

    def __init__(self, schedule: Schedule, plan: MemoryPlan):
        self.schedule = schedule
        self.graph = schedule.graph
        self.plan = plan
        self.where = self.graph.name
        self.places = self._places()
        self.intact: dict[Owner, set[Value]] = {owner: set() for owner in self.places}
        self.live: set[Owner] = set()  # those in the arena with anything intact
        self.updated = set(self.graph.updates)
        self.committing = not schedule.guarded

    def fail(self, message: str) -> InternalError:
        return InternalError(f"memory plan of {self.where}: {message}")

    # -- memory -----------------------------------------------------------------------------------------------------

    def _places(self) -> dict[Owner, Place]:
        places: dict[Owner, Place] = {}
        for value, span in self.plan.values.items():
            places[value] = self._in_arena(str(value), span, value.type.bytes)
        for position, group in enumerate(self.schedule.groups):
            for workspace in self.schedule.lowerings[group].workspaces:
                key = (position, workspace.index)
                if key not in self.plan.workspaces:
                    raise self.fail(f"workspace {workspace.index} of group {position} has no place")
                places[key] = self._in_arena(f"workspace {key}", self.plan.workspaces[key], workspace.bytes)
        for leaf in self.graph.leaves.values():
            if leaf.role not in (Role.INPUT, Role.SCALAR):
                places[leaf] = Place(leaf, Span(0, leaf.type.bytes))
        return places

    def _in_arena(self, name: str, span: Span, wanted: int) -> Place:
        if span.bytes < wanted:
            raise self.fail(f"{name} needs {wanted} bytes and has {span.bytes}")
        if span.offset % BUFFER_ALIGNMENT:
            raise self.fail(f"{name} lies at {span.offset}, which is not a multiple of {BUFFER_ALIGNMENT}")
        if span.offset < 0 or span.end > self.plan.arena_bytes:
            raise self.fail(f"{name} ends at {span.end}, the arena at {self.plan.arena_bytes}")
        return Place(None, span)

    def owner(self, value: Value) -> Value:
        home = self.schedule.home(value)
        if home not in self.places:
            raise self.fail(f"{value} has no place")
        if self.places[home].span.bytes < value.type.bytes:
            raise self.fail(f"{value} does not fit into the memory of {home}")
        return home

    def holds(self, value: Value) -> bool:
        return value in self.intact[self.owner(value)]

    def overwrite(self, owner: Owner) -> None:
        """Forget all that stood in any byte of the owner's range."""
        place = self.places[owner]
        if place.space is None:
            lost = {other for other in self.live if self.places[other].overlaps(place)}
            for other in lost:
                self.intact[other].clear()
            self.live -= lost
        self.intact[owner].clear()

    def settle(self, owner: Owner, value: Value) -> None:
        """From now on, `value` stands in the owner's range."""
        self.intact[owner].add(value)
        if self.places[owner].space is None:
            self.live.add(owner)

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
            self.overwrite(self.owner(leaf))
            self.settle(leaf, leaf)
        for leaf in self.graph.leaves.values():
            if self.schedule.home(leaf) is not leaf or not self.holds(leaf):
                raise self.fail(f"{leaf} shares its memory with another leaf")

    def _guard(self) -> None:
        for value in self.schedule.watched:
            if not self.holds(value):
                raise self.fail(f"the guard reads {value}, which is not there")
        self.committing = True

    def _view(self, group: Group) -> None:
        operand, view = group.anchor.inputs[0], group.anchor.output
        if self.owner(operand) is not self.owner(view):
            raise self.fail(f"{view} is a view of {operand} but lies elsewhere")
        if not self.holds(operand):
            raise self.fail(f"{view} is a view of {operand}, which is overwritten")
        self.settle(self.owner(view), view)

    def _group(self, position: int, group: Group) -> None:
        where = f"group {position} ({group.anchor.op.name} of {group.anchor.outputs[0]})"
        written: set[Owner] = set()
        for call in self.schedule.lowerings[group].calls:
            self._call(where, position, group, call, written)
        owners = [self.owner(value) for value in group.outputs]
        if len(set(owners)) != len(owners):
            raise self.fail(f"{where}: two outputs share memory")
        for value, owner in zip(group.outputs, owners, strict=True):
            if owner not in written:
                raise self.fail(f"{where}: {value} is never written, or overwritten at once")
            self.settle(owner, value)

    def _call(self, where: str, position: int, group: Group, call: KernelCall, written: set[Owner]) -> None:
        """One kernel call; `written` are the owners that this group has written and nothing overwrote since."""
        arguments = call.spec.arguments
        if len(arguments) != len(call.operands):
            raise self.fail(f"{where}: {len(call.operands)} operands for {len(arguments)} arguments")
        owners: list[Owner] = []
        for operand in call.operands:
            scratch = isinstance(operand, Workspace)
            owners.append((position, operand.index) if scratch else self.owner(operand))
            if owners[-1] not in self.places:
                raise self.fail(f"{where}: {operand} is not declared")
        for argument, operand, owner in zip(arguments, call.operands, owners, strict=True):
            if argument.bytes > self.places[owner].span.bytes:
                raise self.fail(f"{where}: {operand} is smaller than the {argument.bytes} bytes of its argument")
            reads = argument.access is not Access.WRITE and argument.bytes > 0
            if reads and not self._readable(group, operand, owner, argument, written):
                raise self.fail(f"{where}: reads {operand}, which is not there any more, or not yet")
            if argument.access is not Access.READ:
                self._check_write(where, group, operand, owner)
        for i, argument in enumerate(arguments):
            if argument.access is Access.READ:
                continue
            for j, other in enumerate(owners):
                if i != j and self.places[owners[i]].overlaps(self.places[other]):
                    raise self.fail(f"{where}: {call.operands[i]} is written and overlaps {call.operands[j]}")
        for argument, owner in zip(arguments, owners, strict=True):
            if argument.access is not Access.READ:
                self.overwrite(owner)
                written -= {w for w in written if self.places[w].overlaps(self.places[owner])}
                written.add(owner)

    def _readable(
        self, group: Group, operand: Value | Workspace, owner: Owner, argument: Argument, written: set[Owner]
    ) -> bool:
        if isinstance(operand, Workspace):
            # What a kernel both writes and reads is its own scratch: that it writes first is the kernel's matter.
            return owner in written or argument.access is Access.READ_WRITE
        if owner in written:
            return operand not in group.inputs
        if operand in group.inputs:
            return self.holds(operand)
        # One pointer for an output and the input that it overwrites: the input is what is read.
        return operand in group.outputs and any(
            self.owner(value) is owner and self.holds(value) for value in group.inputs
        )

    def _check_write(self, where: str, group: Group, operand: Value | Workspace, owner: Owner) -> None:
        if isinstance(operand, Workspace):
            return
        if owner not in {self.owner(value) for value in group.outputs}:
            raise self.fail(f"{where}: writes {operand}, which is none of its outputs")
        if not isinstance(owner, Value) or owner.role is None:
            return
        if owner not in self.updated:
            raise self.fail(f"{where}: writes {owner}, which nothing updates")
        if not self.committing:
            raise self.fail(f"{where}: writes {owner} before the guard")

    def _finish(self) -> None:
        for name, value in self.graph.outputs.items():
            if not self.holds(value):
                raise self.fail(f"output {name!r} is overwritten before the end")
            if self.schedule.home(value).role is not None:
                raise self.fail(f"output {name!r} has no memory of its own")
        for target, value in self.graph.updates.items():
            if self.owner(value) is not target or not self.holds(value):
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
