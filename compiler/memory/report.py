"""The memory plan of an artifact for people: bytes by role, the peak, what is alive there. Reads the manifest alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgec.graph.errors import UserError
from edgec.runtime.abi import BUFFER_ALIGNMENT


@dataclass(frozen=True)
class Alive:
    """A buffer at the peak; `kept_for` are the ops behind the guard that read what was computed before it."""

    name: str
    role: str
    bytes: int
    kept_for: str


@dataclass(frozen=True)
class MemoryReport:
    """One program for one target. All in bytes; `alive` has the largest first.

    `peak_step` is the step with most bytes alive, `peak_label` what it computes. `by_role` sums what is alive there,
    `by_reason` those of it that are kept for the backward part, by the ops that read them.
    `held_bytes` is the part of `state_bytes` that gradients take between the steps of one update.
    `arena_bytes` exceeds `live_peak_bytes` by what fragmentation costs.
    """

    target: str
    program: str
    arena_bytes: int
    live_peak_bytes: int
    trained_bytes: int
    state_bytes: int
    held_bytes: int
    mapped_bytes: int
    peak_step: int
    peak_label: str
    by_role: dict[str, int]
    by_reason: dict[str, int]
    alive: tuple[Alive, ...]
    plan: Mapping  # the manifest's entry: rows, steps, guard


def memory_reports(manifest: Mapping) -> list[MemoryReport]:
    """Every program of every target, in the order of the artifact. UserError E0502 where the manifest has no plan."""
    try:
        return [
            _report(variant, name, program)
            for variant in manifest["variants"]
            for name, program in variant["programs"].items()
        ]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError("E0502", "the manifest of the artifact has no memory plan") from error


def _report(variant: Mapping, name: str, program: Mapping) -> MemoryReport:
    rows = program["rows"]
    steps = range(max(len(program["steps"]), 1))
    live = [sum(_padded(row["bytes"]) for row in rows if row["first"] <= step <= row["last"]) for step in steps]
    peak = live.index(max(live))
    alive = [
        Alive(row["name"], row["role"], row["bytes"], row.get("kept_for", ""))
        for row in rows
        if row["first"] <= peak <= row["last"]
    ]
    by_role: Counter[str] = Counter()
    by_reason: Counter[str] = Counter()
    for buffer in alive:
        by_role[buffer.role] += buffer.bytes
        if buffer.kept_for:
            by_reason[buffer.kept_for] += buffer.bytes
    return MemoryReport(
        target=variant["target"],
        program=name,
        arena_bytes=program["arena_bytes"],
        live_peak_bytes=program["live_peak_bytes"],
        trained_bytes=variant["trained_bytes"],
        state_bytes=variant["state_bytes"],
        held_bytes=variant["held_bytes"],
        mapped_bytes=variant["mapped_bytes"],
        peak_step=peak,
        peak_label=program["steps"][peak] if program["steps"] else "",
        by_role=dict(by_role.most_common()),
        by_reason=dict(by_reason.most_common()),
        alive=tuple(sorted(alive, key=lambda buffer: (-buffer.bytes, buffer.name))),
        plan=program,
    )


def _padded(size: int) -> int:
    return -(-size // BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT
