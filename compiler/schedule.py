"""Programs on their way to one target: groups in execution order, storage, shared memory, kernel calls, memory plan.

A `Schedule` is one program; `TargetSchedules` are all programs of an artifact for one target, because they share the
storage of their parameters. Invariants (`verify_schedule`): every node belongs to exactly one group, a group runs
after everything it reads, and what overwrites a parameter or state runs after all readers of the old value.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgec.backends.base import Backend, Group, KernelSpec, Lowering
from edgec.compiler.recompute import with_packs
from edgec.compiler.tiling import Tiling
from edgec.graph.errors import InternalError
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.text import print_graph
from edgec.graph.verify import verify_graph
from edgec.runtime.abi import Storage


@dataclass(frozen=True)
class Span:
    """A range of bytes of the arena."""

    offset: int
    bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.bytes

    def overlaps(self, other: Span) -> bool:
        return self.offset < other.end and other.offset < self.end


@dataclass(frozen=True)
class MemoryPlan:
    """Where everything of one program lies in the arena.

    `values` has every value that owns memory there (see `Schedule.home`), `workspaces` those of a group by its position
    and the workspace's index. `live_peak` is the lower bound that no plan for this order can beat.
    """

    values: dict[Value, Span]
    workspaces: dict[tuple[int, int], Span]
    arena_bytes: int
    live_peak: int


@dataclass(frozen=True)
class Launch:
    """A kernel call as the artifact has it. Operands are values, and workspaces by the position of their group and
    their index.
    """

    spec: KernelSpec
    operands: tuple[Value | tuple[int, int], ...]
    tasks: int
    macs: int
    label: str


@dataclass(eq=False)
class Schedule:
    """One program for one target. `graph` is its own copy: passes may add copies of values to it.

    `alias` maps a value to the one whose memory it shares: a view to its operand, an updated value to the parameter or
    state it replaces, an output in place to the input it overwrites, a part to the concatenation it lies in. `offsets`
    are the bytes from the start of that memory, where there are any. `again` are nodes that compute for the backward
    part what the forward part did not keep; `seams` cut operands of tiled chains into strips and join their results;
    `early` are the nodes of strips in the forward part, whether the loss depends on them or not. `launches` are the
    calls of all groups; `stop` of them run before the guard.
    """

    graph: Graph
    backend: Backend
    groups: list[Group]
    storage: dict[Value, Storage] = field(default_factory=dict)
    alias: dict[Value, Value] = field(default_factory=dict)
    offsets: dict[Value, int] = field(default_factory=dict)
    lowerings: dict[Group, Lowering] = field(default_factory=dict)
    plan: MemoryPlan | None = None
    again: set[Node] = field(default_factory=set)
    seams: set[Node] = field(default_factory=set)
    early: set[Node] = field(default_factory=set)
    launches: list[Launch] = field(default_factory=list)
    stop: int | None = None

    @property
    def guarded(self) -> bool:
        """Whether there is a guard: where it has something to watch, and something to protect from it."""
        return bool(self.watched) and bool(self.graph.updates)

    @property
    def watched(self) -> list[Value]:
        """What a guard wants to be finite: the loss, and the norm of the gradients where that was asked for."""
        return [self.graph.outputs[name] for name in (self.graph.loss, self.graph.guard) if name is not None]

    def forward(self) -> set[Node]:
        """The nodes that what is watched depends on, what packs values of theirs, and what was tiled together with such
        nodes: they run before the guard. None where there is no guard.
        """
        return with_packs(self.graph, self.graph.ancestors(self.watched)) | self.early if self.guarded else set()

    @property
    def guard(self) -> int | None:
        """How many groups run before the guard; None where there is none."""
        if not self.guarded:
            return None
        forward = self.forward()
        return sum(group.anchor in forward for group in self.groups)

    def home(self, value: Value) -> Value:
        """The value that owns the memory in which `value` lies: a leaf, or a computed value in the arena."""
        while value in self.alias:
            value = self.alias[value]
        return value

    def offset(self, value: Value) -> int:
        """Bytes from the start of `home(value)` to the first of `value`."""
        total = 0
        while value in self.alias:
            total += self.offsets.get(value, 0)
            value = self.alias[value]
        return total

    def in_arena(self, home: Value) -> bool:
        return home.role in (None, Role.INPUT, Role.SCALAR)

    def is_view(self, group: Group) -> bool:
        """Whether a group only gives memory another shape, cuts it or joins what lies in it, and so needs no call."""
        node = group.anchor
        if len(group.nodes) > 1:
            return False
        if isinstance(node.op, Concat):
            return all(self.alias.get(part) is node.output for part in node.inputs)
        return (may_be_view(node) or isinstance(node.op, Slice)) and self.alias.get(node.output) is node.inputs[0]

    def regroup(self, groups: Iterable[Sequence[Node]]) -> None:
        """Take these groups of nodes in this order; what they read and hand out follows from the graph."""
        self.groups = [make_group(self.graph, nodes) for nodes in groups]
        self.graph.nodes = [node for group in self.groups for node in group.nodes]

    def reorder(self, groups: Sequence[Group]) -> None:
        self.groups = list(groups)
        self.graph.nodes = [node for group in self.groups for node in group.nodes]


@dataclass(eq=False)
class TargetSchedules:
    """All programs of an artifact for one target, by name. `again` names values that `train` shall not keep, `tilings`
    chains of each program that are computed in strips.
    """

    backend: Backend
    programs: dict[str, Schedule]
    again: frozenset[str] = frozenset()
    tilings: Mapping[str, Sequence[Tiling]] = field(default_factory=dict)

    @staticmethod
    def of(
        module: Module,
        backend: Backend,
        again: frozenset[str] = frozenset(),
        tilings: Mapping[str, Sequence[Tiling]] | None = None,
    ) -> TargetSchedules:
        """Every node a group of its own, in the order of the graph. The module stays as it is."""
        programs = {}
        for name, graph in module.programs.items():
            schedule = Schedule(graph.clone(), backend, [])
            schedule.regroup([node] for node in list(schedule.graph.nodes))
            programs[name] = schedule
        return TargetSchedules(backend, programs, again, tilings or {})


def make_group(graph: Graph, nodes: Sequence[Node]) -> Group:
    """A group of `nodes`, with what it reads from memory and what it hands out, each once, in order of appearance.

    An anchor or a tail with several results hands out all of them, read or not: its kernel computes them together.
    """
    members = set(nodes)
    whole = {nodes[0]} if nodes[-1].op.elementwise else {nodes[0], nodes[-1]}
    made = [value for node in nodes for value in node.outputs]
    inner = set(made)
    inputs = dict.fromkeys(value for node in nodes for value in node.inputs if value not in inner)

    def leaves(value: Value) -> bool:
        if value.producer in whole and len(value.producer.outputs) > 1:
            return True
        return any(reader not in members for reader, _ in value.uses) or graph.is_result(value)

    return Group(tuple(nodes), tuple(inputs), tuple(value for value in made if leaves(value)))


def memory_order(storage: Storage) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Normal form of a storage: equal for two storages of one size exactly if they put the elements in the same order.

    Panels of equal width become an axis of their own, axes of extent 1 go, and neighbours that stay neighbours in
    memory become one axis.
    """
    dims, perm, block = list(storage.dims), list(storage.perm), storage.block
    if block and perm and dims[perm[-1]] % block == 0:
        cut = perm[-1]
        dims[cut : cut + 1] = [dims[cut] // block, block]
        perm = [axis + (axis > cut) for axis in perm[:-1]]
        perm, block = [cut, *perm, cut + 1], 0
    kept = [axis for axis, extent in enumerate(dims) if extent != 1]
    perm = [kept.index(axis) for axis in perm if axis in kept]
    if len(perm) < 2 or block >= dims[kept[perm[-1]]]:
        block = 0
    runs: list[list[int]] = []
    for place, axis in enumerate(perm):
        in_panels = block and place == len(perm) - 1
        if runs and not in_panels and axis == runs[-1][-1] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    logical = sorted(runs)
    extents = tuple(math.prod(dims[kept[axis]] for axis in run) for run in logical)
    return extents, tuple(logical.index(run) for run in runs), block


def same_order(a: Storage, b: Storage) -> bool:
    return a.size == b.size and (a.size <= 1 or memory_order(a) == memory_order(b))


def node_predecessors(schedule: Schedule) -> dict[Node, set[Node]]:
    """For every node those that must run before it: producers of what it reads, and readers of what it overwrites.

    A reshape that is not a copy counts as a view, so that the answer holds before storages are chosen.
    """
    graph = schedule.graph
    before = {node: {value.producer for value in node.inputs if value.producer is not None} for node in graph.nodes}
    for value in graph.updates.values():
        target = schedule.alias.get(value)
        if target is not None:
            before[value.producer] |= old_readers(target) - {value.producer}
    return before


def late_order(schedule: Schedule) -> list[Node]:
    """All nodes in a valid order: what the loss depends on first, every node as late as those that wait for it allow.

    Among those that may come last, the one that stands last in the graph does, so the order changes only where it must.
    """
    nodes, before, forward = schedule.graph.nodes, node_predecessors(schedule), schedule.forward()
    rank = {node: position for position, node in enumerate(nodes)}
    waiting = dict.fromkeys(nodes, 0)
    for earlier in before.values():
        for other in earlier:
            waiting[other] += 1
    order: list[Node] = []
    for part in (False, True):
        ready = [-rank[node] for node in nodes if (node in forward) is part and waiting[node] == 0]
        heapq.heapify(ready)
        while ready:
            node = nodes[-heapq.heappop(ready)]
            order.append(node)
            for other in before[node]:
                waiting[other] -= 1
                if waiting[other] == 0 and (other in forward) is part:
                    heapq.heappush(ready, -rank[other])
    if len(order) != len(nodes):
        raise InternalError(f"{schedule.graph.name}: nodes wait for one another")
    return order[::-1]


def old_readers(leaf: Value) -> set[Node]:
    """All nodes that read a leaf's memory, directly or through reshapes."""
    readers: set[Node] = set()
    stack = [leaf]
    while stack:
        for node, _ in stack.pop().uses:
            if node not in readers:
                readers.add(node)
                if may_be_view(node):
                    stack.append(node.output)
    return readers


def is_copy(node: Node) -> bool:
    """Whether a node only moves its operand to memory of its own: a reshape to the same shape, never a view.

    Passes of this level insert such copies; canonicalisation has removed all others.
    """
    return isinstance(node.op, Reshape) and node.output.type == node.inputs[0].type


def may_be_view(node: Node) -> bool:
    return isinstance(node.op, Reshape) and not is_copy(node)


def copy_of(graph: Graph, value: Value, name: str) -> Value:
    """Append a node that copies `value`; it stands in no group yet."""
    return graph.emit1(Reshape(value.type.shape), value, name=name)


def group_predecessors(schedule: Schedule) -> dict[Group, set[Group]]:
    """`node_predecessors` between groups."""
    owner = {node: group for group in schedule.groups for node in group.nodes}
    before: dict[Group, set[Group]] = {group: set() for group in schedule.groups}
    for node, earlier in node_predecessors(schedule).items():
        before[owner[node]].update(owner[other] for other in earlier)
    for group, earlier in before.items():
        earlier.discard(group)
    return before


def verify_schedule(schedule: Schedule) -> None:
    """Raise InternalError where the invariants of the module's docstring do not hold."""
    verify_graph(schedule.graph)
    grouped = [node for group in schedule.groups for node in group.nodes]
    if len(grouped) != len(set(grouped)) or set(grouped) != set(schedule.graph.nodes):
        raise InternalError(f"{schedule.graph.name}: groups are not a partition of the nodes")
    done: set[Group] = set()
    before = group_predecessors(schedule)
    for position, group in enumerate(schedule.groups):
        wanted = make_group(schedule.graph, group.nodes)
        if (group.inputs, group.outputs) != (wanted.inputs, wanted.outputs):
            raise InternalError(f"{schedule.graph.name}: group {position} states wrong inputs or outputs")
        if late := before[group] - done:
            names = ", ".join(value.name for other in late for value in other.outputs)
            raise InternalError(f"{schedule.graph.name}: group {position} must run after those that make {names}")
        done.add(group)
    for value, target in schedule.alias.items():
        start = schedule.offsets.get(value)
        fits = value.type.bytes == target.type.bytes if start is None else start + value.type.bytes <= target.type.bytes
        if not fits:
            raise InternalError(f"{schedule.graph.name}: {value} shares the memory of {target}, of another size")


def print_schedule(schedule: Schedule) -> str:
    """The program as text, then its groups, one a line, with what is known of their memory."""
    lines = [print_graph(schedule.graph).rstrip(), f"groups {schedule.graph.name} on {schedule.backend.target.name} {{"]
    guard = schedule.guard
    for position, group in enumerate(schedule.groups):
        if position == guard:
            lines.append("  guard")
        ops = " ".join(node.op.name for node in group.nodes)
        results = ", ".join(_describe(schedule, value) for value in group.outputs)
        calls = schedule.lowerings[group].calls if group in schedule.lowerings else ()
        kernels = f" -> {', '.join(call.spec.stem for call in calls)}" if calls else ""
        lines.append(f"  {position}: {results} = {ops}({', '.join(f'%{v.name}' for v in group.inputs)}){kernels}")
    return "\n".join([*lines, "}", ""])


def _describe(schedule: Schedule, value: Value) -> str:
    text = f"%{value.name}"
    storage = schedule.storage.get(value)
    if storage is not None and not storage.is_row_major:
        text += f" order={storage.perm}" + (f" block={storage.block}" if storage.block else "")
    if value in schedule.alias:
        text += f" in %{schedule.alias[value].name}"
        if value in schedule.offsets:
            text += f"+{schedule.offsets[value]}"
    if schedule.plan is not None and value in schedule.plan.values:
        span = schedule.plan.values[value]
        text += f" at {span.offset}+{span.bytes}"
    return text
