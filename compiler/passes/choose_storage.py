"""Pass `choose_storage`: where the elements of every value lie in memory, and the copies that this asks for.

The backend chooses, with these rules on top: inputs, scalars and outputs of a program are row-major; an updated value
lies as what it replaces; a value that meets a parameter element by element (its scaled copy, its gradient) lies as the
parameter. An input or output that kernels want in another order goes through a copy: a group of one reshape to the
same shape, whose operand and result differ in storage. A reshape that moves nothing becomes a view of its operand.

Requires FUSED; ensures STORAGE.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules, copy_of, may_be_view, same_order
from edgec.graph.ir import Graph, Node, Role, Value
from edgec.runtime.abi import Storage


def choose_storage(subject: TargetSchedules, options: Options) -> bool:
    backend = subject.backend
    leaves = backend.choose_storage([schedule.groups for schedule in subject.programs.values()])
    for schedule in subject.programs.values():
        # Asked before there are copies, so that rules which look at producers do not see them.
        wanted = backend.activation_storage(schedule.graph.values())
        _copy_inputs(schedule, wanted)
        _copy_outputs(schedule, wanted)
        schedule.storage = _storages(schedule.graph, leaves, wanted)
        _alias_views(schedule)
    return True


def _copy_inputs(schedule: Schedule, wanted: dict[Value, Storage]) -> None:
    """Give readers of an input that is not in the wanted order a copy that is; reshapes keep reading the input."""
    graph = schedule.graph
    for leaf in graph.by_role(Role.INPUT):
        readers = [(node, slot) for node, slot in leaf.uses if not may_be_view(node)]
        if not readers or _is_row_major(leaf, wanted):
            continue
        position = next(i for i, group in enumerate(schedule.groups) if any(n in group.nodes for n, _ in readers))
        copy = copy_of(graph, leaf, f"{leaf.name}.copy")
        wanted[copy] = wanted[leaf]
        for node, slot in readers:
            graph.set_input(node, slot, copy)
        _insert_group(schedule, position, copy.producer)


def _copy_outputs(schedule: Schedule, wanted: dict[Value, Storage]) -> None:
    """Give every output memory of its own, in row-major order."""
    graph = schedule.graph
    copies: dict[Value, Value] = {}
    for name, value in list(graph.outputs.items()):
        if not _needs_copy(graph, value, wanted):
            continue
        if value not in copies:
            copy = copies[value] = copy_of(graph, value, f"{value.name}.copy")
            wanted[copy] = Storage.row_major(value.type.shape)
            position = 0
            if value.producer is not None:
                position = next(i for i, group in enumerate(schedule.groups) if value.producer in group.nodes) + 1
            _insert_group(schedule, position, copy.producer)
        graph.outputs[name] = copies[value]
    schedule.regroup([group.nodes for group in schedule.groups])


def _needs_copy(graph: Graph, value: Value, wanted: Mapping[Value, Storage]) -> bool:
    """Whether `value` is, or may be a view of, memory that is not its own; or lies in another order than outputs do."""
    committed = set(graph.updates.values())
    source = value
    while source not in committed and source.producer is not None and may_be_view(source.producer):
        source = source.producer.inputs[0]
    return source in committed or source.role is not None or not _is_row_major(value, wanted)


def _is_row_major(value: Value, wanted: Mapping[Value, Storage]) -> bool:
    return same_order(wanted[value], Storage.row_major(value.type.shape))


def _insert_group(schedule: Schedule, position: int, node: Node) -> None:
    groups = [group.nodes for group in schedule.groups]
    schedule.regroup([*groups[:position], (node,), *groups[position:]])


def _storages(graph: Graph, leaves: Mapping[str, Storage], wanted: Mapping[Value, Storage]) -> dict[Value, Storage]:
    fixed: dict[Value, Storage] = {}
    for leaf in graph.leaves.values():
        row_major = Storage.row_major(leaf.type.shape)
        outside = leaf.role in (Role.INPUT, Role.SCALAR)
        fixed[leaf] = row_major if outside else leaves.get(leaf.name, row_major)
    for target, value in graph.updates.items():
        fixed[value] = fixed[target]
    for value in graph.outputs.values():
        fixed[value] = Storage.row_major(value.type.shape)
    like_parameter = _spread(graph, fixed)
    return {v: fixed.get(v) or like_parameter.get(v) or wanted[v] for v in graph.values()}


def _spread(graph: Graph, fixed: Mapping[Value, Storage]) -> dict[Value, Storage]:
    """Storages of parameters for the computed values that elementwise nodes tie to them, at equal shape."""
    spread: dict[Value, Storage] = {}
    stack = [v for v in fixed if v.role in (Role.PARAM, Role.STATE) and not fixed[v].is_row_major]
    while stack:
        value = stack.pop()
        storage = fixed.get(value) or spread[value]
        near = [node for node, _ in value.uses] + ([value.producer] if value.producer is not None else [])
        for node in near:
            if not node.op.elementwise:
                continue
            for other in (*node.inputs, *node.outputs):
                if other.type.shape == value.type.shape and other not in fixed and other not in spread:
                    spread[other] = storage
                    stack.append(other)
    return spread


def _alias_views(schedule: Schedule) -> None:
    for group in schedule.groups:
        node = group.anchor
        if not may_be_view(node) or node.output in schedule.alias:
            continue
        operand = node.inputs[0]
        if same_order(schedule.storage[operand], schedule.storage[node.output]):
            schedule.alias[node.output] = operand
