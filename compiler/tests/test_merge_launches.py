"""Pass `merge_launches`: which launches become one, and that nobody overtakes what it waits for.

That programs still compute the same to the bit is in test_plan_execution.py, where anything may merge with anything.
"""

from __future__ import annotations

from hypothesis import given, settings

from edgec.backends.base import KernelSpec
from edgec.compiler.compile import lower_module
from edgec.compiler.passbase import Options
from edgec.compiler.passes.merge_launches import waits
from edgec.compiler.schedule import Launch, Schedule
from edgec.graph.ir import Graph, Module
from edgec.graph.parse import parse_graph
from edgec.tools.testing.programs import initialise, random_trains
from edgec.tools.testing.reference_backend import DEVICE_TARGET, MergedReference, ReferenceBackend

# A chain of three, and beside it two small kernels that only prepare and one that only ends.
BESIDE = """graph infer {
  input %x: f32[4,4]
  param %p: f32[4,4]
  param %q: f32[4,4]
  %a: f32[4,4] = matmul(%x, %p)
  %b: f32[4,4] = matmul(%a, %p)
  %c: f32[4,4] = matmul(%b, %p)
  %u: f32[4,4] = matmul(%p, %q)
  %v: f32[4,4] = matmul(%q, %q)
  output "c" = %c
  output "u" = %u
  output "v" = %v
}"""


def scheduled(graph: Graph, backend: ReferenceBackend) -> Schedule:
    result = lower_module(initialise(Module({graph.name: graph})), [backend], Options())
    assert result is not None
    return result.schedules[0].programs[graph.name]


def parts(launch: Launch) -> int:
    return len(launch.spec.parts) if isinstance(launch.spec, MergedReference) else 1


def test_what_stands_beside_the_chain_joins_it() -> None:
    """Three launches one behind the other stay three, and take the other two along."""
    schedule = scheduled(parse_graph(BESIDE), ReferenceBackend(DEVICE_TARGET))
    assert len(schedule.launches) == 3 and sum(map(parts, schedule.launches)) == 5
    assert waits(schedule, schedule.launches) == [[], [0], [1]]


def test_what_many_read_is_one_argument() -> None:
    schedule = scheduled(parse_graph(BESIDE), ReferenceBackend(DEVICE_TARGET))
    for launch in schedule.launches:
        names = [operand.name for operand in launch.operands]
        assert len(names) == len(set(names)) == len(launch.spec.arguments)


class _Apart(ReferenceBackend):
    def merge_key(self, spec: KernelSpec, tasks: int) -> None:
        return None


def test_a_backend_may_want_none_of_it() -> None:
    schedule = scheduled(parse_graph(BESIDE), _Apart(DEVICE_TARGET))
    assert [parts(launch) for launch in schedule.launches] == [1] * 5


@given(random_trains())
@settings(max_examples=40, deadline=None)
def test_chains_stay_as_short_and_nothing_is_lost(graph: Graph) -> None:
    merged = scheduled(graph.clone(), ReferenceBackend(DEVICE_TARGET))
    plain = scheduled(graph.clone(), _Apart(DEVICE_TARGET))
    assert sum(map(parts, merged.launches)) == len(plain.launches)
    assert _longest(merged) == _longest(plain)
    assert (merged.stop is None) == (plain.stop is None)


def _longest(schedule: Schedule) -> int:
    lengths: list[int] = []
    for earlier in waits(schedule, schedule.launches):
        lengths.append(1 + max((lengths[i] for i in earlier), default=0))
    return max(lengths, default=0)
