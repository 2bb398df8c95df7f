"""Pass `place_parts`: which slices and parts of concatenations need no copy, and which must have one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.memory.check import check_plan
from edgec.compiler.pack import pack_artifact
from edgec.compiler.passbase import Options, Trace, run_pipeline
from edgec.compiler.passes.place_parts import first_byte
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES
from edgec.compiler.schedule import Schedule, TargetSchedules
from edgec.graph import interp
from edgec.graph.errors import InternalError
from edgec.graph.ir import Module
from edgec.graph.ops import Slice
from edgec.graph.parse import parse_graph
from edgec.runtime.abi import Storage
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds, initialise
from edgec.tools.testing.reference_backend import ReferenceBackend


def placed(body: str) -> tuple[TargetSchedules, Schedule]:
    """Through all passes; the program's values equal those of the interpreter."""
    text = "graph infer {\ninput %x: f32[4,32]\nparam %w: f32[32,32]\n" + body + "\n}"
    module = initialise(Module({"infer": parse_graph(text)}))
    subject = TargetSchedules.of(module, ReferenceBackend())
    run_pipeline(SCHEDULE_PASSES, subject, Options(), SCHEDULE_LEVEL, Trace())
    schedule = subject.programs["infer"]
    image = subject.backend.build([call.spec for lowering in schedule.lowerings.values() for call in lowering.calls])
    machine = PlanInterpreter(pack_artifact(module, [(subject, image)], {}), image)
    arrays = feeds(module.programs["infer"])
    found = machine.run("infer", arrays)
    for name, array in interp.run(module.programs["infer"], arrays).outputs.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    return subject, schedule


def places(schedule: Schedule) -> dict[str, tuple[str, int]]:
    return {v.name: (schedule.alias[v].name, offset) for v, offset in schedule.offsets.items()}


CASES = {
    "rows of an operand": (
        """%a: f32[4,32] = matmul(%x, %w)
        %s: f32[2,32] = slice(%a) {starts=(2,0), ends=(4,32), steps=(1,1)}
        %t: f32[2,32] = slice(%a) {starts=(0,0), ends=(2,32), steps=(1,1)}
        %y: f32[2,32] = matmul(%s, %w)
        %z: f32[2,32] = matmul(%t, %w)
        output "y" = %y
        output "z" = %z""",
        {"s": ("a", 256), "t": ("a", 0)},
    ),
    "rows of an input": (
        """%s: f32[2,32] = slice(%x) {starts=(1,0), ends=(3,32), steps=(1,1)}
        %y: f32[2,32] = matmul(%s, %w)
        output "y" = %y""",
        {"s": ("x", 128)},
    ),
    "columns are no run of bytes": (
        """%a: f32[4,32] = matmul(%x, %w)
        %s: f32[4,16] = slice(%a) {starts=(0,0), ends=(4,16), steps=(1,1)}
        %y: f32[4,4] = matmul(%s, %s) {transpose_b=true}
        output "y" = %y""",
        {},
    ),
    "columns of one row are": (
        """%a: f32[4,32] = matmul(%x, %w)
        %r: f32[1,32] = slice(%a) {starts=(1,0), ends=(2,32), steps=(1,1)}
        %s: f32[1,16] = slice(%r) {starts=(0,16), ends=(1,32), steps=(1,1)}
        %y: f32[1,1] = matmul(%s, %s) {transpose_b=true}
        output "y" = %y""",
        {"r": ("a", 128), "s": ("r", 64)},
    ),
    "a run that is not aligned": (
        """%a: f32[4,32] = matmul(%x, %w)
        %r: f32[1,32] = slice(%a) {starts=(1,0), ends=(2,32), steps=(1,1)}
        %s: f32[1,8] = slice(%r) {starts=(0,8), ends=(1,16), steps=(1,1)}
        %y: f32[1,1] = matmul(%s, %s) {transpose_b=true}
        output "y" = %y""",
        {"r": ("a", 128)},
    ),
    "every other row": (
        """%a: f32[4,32] = matmul(%x, %w)
        %s: f32[2,32] = slice(%a) {starts=(0,0), ends=(4,32), steps=(2,1)}
        %y: f32[2,32] = matmul(%s, %w)
        output "y" = %y""",
        {},
    ),
    "what the program hands out": (
        """%a: f32[4,32] = matmul(%x, %w)
        %s: f32[2,32] = slice(%a) {starts=(2,0), ends=(4,32), steps=(1,1)}
        output "s" = %s""",
        {},
    ),
    "a parameter": (
        """%s: f32[16,32] = slice(%w) {starts=(16,0), ends=(32,32), steps=(1,1)}
        %y: f32[4,16] = matmul(%x, %s) {transpose_b=true}
        output "y" = %y""",
        {},
    ),
    "parts of a result": (
        """%a: f32[4,32] = matmul(%x, %w)
        %b: f32[4,32] = matmul(%a, %w)
        %c: f32[8,32] = concat(%a, %b) {axis=0}
        %y: f32[8,32] = matmul(%c, %w)
        output "y" = %y""",
        {"a": ("c", 0), "b": ("c", 512)},
    ),
    "one part twice": (
        """%a: f32[4,32] = matmul(%x, %w)
        %c: f32[8,32] = concat(%a, %a) {axis=0}
        %y: f32[8,32] = matmul(%c, %w)
        output "y" = %y""",
        {},
    ),
    "one part in two results": (
        """%a: f32[4,32] = matmul(%x, %w)
        %b: f32[4,32] = matmul(%a, %w)
        %c: f32[8,32] = concat(%a, %b) {axis=0}
        %d: f32[8,32] = concat(%b, %a) {axis=0}
        %y: f32[8,8] = matmul(%c, %d) {transpose_b=true}
        output "y" = %y""",
        {"a": ("c", 0), "b": ("c", 512)},
    ),
    "a part that is an input": (
        """%a: f32[4,32] = matmul(%x, %w)
        %c: f32[8,32] = concat(%x, %a) {axis=0}
        %y: f32[8,32] = matmul(%c, %w)
        output "y" = %y""",
        {},
    ),
    "results within results": (
        """%a: f32[4,32] = matmul(%x, %w)
        %b: f32[4,32] = matmul(%a, %w)
        %c: f32[8,32] = concat(%a, %b) {axis=0}
        %e: f32[4,32] = matmul(%b, %w)
        %d: f32[12,32] = concat(%e, %c) {axis=0}
        %y: f32[12,32] = matmul(%d, %w)
        output "y" = %y""",
        {"a": ("c", 0), "b": ("c", 512), "e": ("d", 0), "c": ("d", 512)},
    ),
}


@pytest.mark.parametrize(("body", "wanted"), CASES.values(), ids=CASES)
def test_cases(body: str, wanted: dict[str, tuple[str, int]]) -> None:
    _, schedule = placed(body)
    assert places(schedule) == wanted


def test_a_view_that_would_keep_too_much_alive_is_a_copy() -> None:
    """A row of a large value, read at the very end, at the peak of something else."""
    _, schedule = placed(
        """%a: f32[4,32] = matmul(%x, %w)
        %s: f32[1,32] = slice(%a) {starts=(0,0), ends=(1,32), steps=(1,1)}
        %m: f32[32,32] = matmul(%a, %x) {transpose_a=true}
        %n: f32[32,32] = matmul(%m, %w)
        %o: f32[32,32] = matmul(%n, %w)
        %y: f32[1,32] = matmul(%s, %o)
        output "y" = %y"""
    )
    assert places(schedule) == {}


def test_a_part_in_the_wrong_place_is_seen() -> None:
    for case in ("parts of a result", "rows of an operand"):
        _, schedule = placed(CASES[case][0])
        check_plan(schedule)
        first, second = schedule.offsets
        schedule.offsets[first], schedule.offsets[second] = schedule.offsets[second], schedule.offsets[first]
        with pytest.raises(InternalError, match="not where its elements are"):
            check_plan(schedule)
        schedule.offsets[first] = schedule.offsets[second] = 4
        with pytest.raises(InternalError, match="not a multiple of 64"):
            check_plan(schedule)
        schedule.offsets[first] = 1 << 20
        with pytest.raises(InternalError, match="does not fit"):
            check_plan(schedule)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_the_first_byte_of_a_run(data: st.DataObject) -> None:
    """`first_byte` says where a box lies exactly if all of its elements stand there one after the other."""
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 16]), min_size=1, max_size=4)))
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    starts = tuple(data.draw(st.integers(0, extent - 1)) for extent in shape)
    ends = tuple(data.draw(st.integers(s + 1, n)) for s, n in zip(starts, shape, strict=True))
    dims = ",".join(map(str, shape))
    graph = parse_graph(f'graph infer {{\ninput %x: f32[{dims}]\n%a: f32[{dims}] = relu(%x)\noutput "a" = %a\n}}')
    whole = graph.outputs["a"]
    part = graph.emit1(Slice(starts, ends, (1,) * len(shape)), whole)
    schedule = Schedule(graph, ReferenceBackend(), [])
    schedule.storage = {whole: Storage(shape, perm), part: Storage(part.type.shape, perm)}
    positions = schedule.storage[whole].unpack(np.arange(whole.type.size), shape)
    run = schedule.storage[part].pack(part.producer.op.reference(positions)[0])
    is_run = bool((np.diff(run) == 1).all()) and run[0] * 4 % 64 == 0
    assert first_byte(schedule, part, whole, starts) == (run[0] * 4 if is_run else None)
