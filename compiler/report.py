"""The figures of a compilation: what `edgec compile --json` prints, and the memory rows that the manifest keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgec.backends.base import CodeImage, Group
from edgec.compiler.memory.lifetimes import Lifetime, lifetimes
from edgec.compiler.passes.append_updates import APPLY, HELD
from edgec.compiler.recompute import AGAIN
from edgec.compiler.schedule import Schedule, Span, TargetSchedules, may_be_view
from edgec.graph.ir import Module, Node, Role, Value
from edgec.runtime.format import Artifact, Region, TensorKind, Variant


@dataclass(frozen=True)
class ProgramFigures:
    """One program. `ops` are nodes of the graph, without copies that a target adds; all else in MACs and bytes.

    `arena_bytes` is the planned arena with workspaces, `state_bytes` optimizer state, running statistics and held
    gradients, `saved_activation_bytes` the part of the arena that the forward part computes and the rest reads.
    `recomputed_macs` come on top of `macs`: what a memory budget has no room to keep is computed twice, and so are rows
    that two strips of a tiled chain need.
    """

    ops: int
    macs: int
    arena_bytes: int
    state_bytes: int
    saved_activation_bytes: int
    recomputed_macs: int


@dataclass(frozen=True)
class Report:
    """One compilation. Figures that differ between targets are those of the target that needs most.

    `param_bytes` counts every copy of parameters and constants that a loaded model reads, in whatever layout.
    `artifact_bytes` is 0 until the file is written.
    """

    targets: tuple[str, ...]
    artifact_bytes: int
    param_bytes: int
    seconds: float
    programs: dict[str, ProgramFigures]

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {"targets": list(self.targets)}


def program_figures(module: Module, name: str, schedules: Sequence[Schedule]) -> ProgramFigures:
    """Figures of program `name`; `schedules` are those of all targets.

    States of `train` are those of the whole step: with accumulation some are read by `apply` alone.
    """
    graph = module.programs[name]
    step = [module.programs[part] for part in ("train", APPLY) if part in module.programs]
    states = {leaf for part in (step if name == "train" else [graph]) for leaf in part.by_role(Role.STATE)}
    return ProgramFigures(
        ops=len(graph.nodes),
        macs=_macs(graph.nodes),
        arena_bytes=max(schedule.plan.arena_bytes for schedule in schedules),
        state_bytes=sum({leaf.name: leaf.type.bytes for leaf in states}.values()),
        saved_activation_bytes=max(sum(v.type.bytes for v in saved_activations(s)) for s in schedules),
        recomputed_macs=max(_macs(schedule.graph.nodes) for schedule in schedules) - _macs(graph.nodes),
    )


def _macs(nodes: Iterable[Node]) -> int:
    return sum(node.cost.macs for node in nodes)


def saved_activations(schedule: Schedule) -> list[Value]:
    """Memory in the arena that a group before the guard computes and one behind it reads."""
    guard = schedule.guard
    if guard is None:
        return []
    alive = lifetimes(schedule)
    read_later = {schedule.home(value) for group in schedule.groups[guard:] for value in group.inputs}
    return [v for v, life in alive.items() if v.role is None and life.start < guard and v in read_later]


def param_bytes(artifact: Artifact, variant: Variant) -> int:
    """Bytes of parameters and constants, where a loaded variant reads them."""
    kinds = (TensorKind.PARAM, TensorKind.CONSTANT)
    return sum(artifact.tensors[p.tensor].data.nbytes for p in variant.placements if _kind(artifact, p.tensor) in kinds)


def _kind(artifact: Artifact, tensor: int) -> TensorKind:
    return artifact.tensors[tensor].kind


def memory_rows(schedule: Schedule) -> list[dict]:
    """One row for everything in the arena, in order of first step: name, role, bytes, offset, first and last step, and
    for what is kept over the guard the ops that read it behind it.
    """
    kept_for = _kept_for(schedule)
    outputs = {schedule.home(value) for value in schedule.graph.outputs.values()}
    guard = len(schedule.groups) if schedule.guard is None else schedule.guard
    rows = []
    for value, life in lifetimes(schedule).items():
        reason = ", ".join(sorted(kept_for.get(value, ())))
        role = _role(value, life, bool(reason), outputs, guard)
        rows.append(_row(value.name, role, life, schedule.plan.values[value], reason))
    for (step, index), span in schedule.plan.workspaces.items():
        rows.append(_row(f"workspace {step}.{index}", "workspace", Lifetime(step, step), span))
    return sorted(rows, key=lambda row: (row["first"], row["offset"], row["name"]))


def _kept_for(schedule: Schedule) -> dict[Value, set[str]]:
    """For memory that the backward part reads and the forward part, or the program's user, has written: its readers."""
    kept = set(saved_activations(schedule))
    if schedule.guard is None:
        return {}
    forward = schedule.forward()
    readers: dict[Value, set[str]] = {}
    for group in schedule.groups[schedule.guard :]:
        if schedule.is_view(group):
            continue
        for reader in group.nodes:
            for source in map(_behind_views, reader.inputs):
                home = schedule.home(source)
                # A value made behind the guard may have overwritten what was kept there.
                if source.role is Role.INPUT or (source.producer in forward and home in kept):
                    readers.setdefault(home, set()).add(reader.op.name)
    return readers


def _behind_views(value: Value) -> Value:
    while value.producer is not None and may_be_view(value.producer):
        value = value.producer.inputs[0]
    return value


def _row(name: str, role: str, life: Lifetime, span: Span, kept_for: str = "") -> dict:
    return {
        "name": name,
        "role": role,
        "bytes": span.bytes,
        "offset": span.offset,
        "first": life.start,
        "last": life.end,
        "kept_for": kept_for,
    }


def _role(value: Value, life: Lifetime, kept: bool, outputs: set[Value], guard: int) -> str:
    if value.role is not None:
        return value.role.value
    if value in outputs:
        return "output"
    if kept:
        return "saved activation"
    if life.start < guard:
        return "activation"
    return "computed again" if AGAIN in value.name else "gradient"


def program_memory(schedule: Schedule) -> dict:
    """What `edgec memory` shows of one program: the plan's rows, its steps, its bounds."""
    return {
        "arena_bytes": schedule.plan.arena_bytes,
        "live_peak_bytes": schedule.plan.live_peak,
        "guard": schedule.guard,
        "steps": [_step_name(group) for group in schedule.groups],
        "rows": memory_rows(schedule),
    }


def _step_name(group: Group) -> str:
    source = next((node.source for node in group.nodes if node.source), group.anchor.outputs[0].name)
    return f"{'+'.join(node.op.name for node in group.nodes)} {source}"


def variant_memory(artifact: Artifact, variant: Variant, schedules: TargetSchedules) -> dict:
    """What `edgec memory` shows of one target."""
    mapped = [p for p in variant.placements if p.region is Region.WEIGHTS]
    states = [p for p in variant.placements if p.region is Region.STATE]
    held = [p for p in states if artifact.tensors[p.tensor].name.endswith(HELD)]
    return {
        "target": variant.target,
        "trained_bytes": variant.param_bytes,
        "state_bytes": variant.state_bytes,
        "held_bytes": sum(artifact.tensors[p.tensor].data.nbytes for p in held),
        "mapped_bytes": sum(artifact.tensors[p.tensor].data.nbytes for p in mapped),
        "programs": {name: program_memory(schedule) for name, schedule in schedules.programs.items()},
    }


def code_figures(variant: Variant, image: CodeImage, cpu: str) -> dict:
    """One entry of `"code"` of `edgec inspect --json`."""
    return {"kind": image.kind, "arch": cpu, "bytes": len(image.data), "target": variant.target}
