"""What chooses the parameters of kernels: candidates are legal, records speak for their class, files are checked."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.backends.targets import find_target
from edgec.backends.tvm.strategies import lower_group
from edgec.backends.tvm.tiling import multiplies_by_element, reduce_block, vectors_of
from edgec.backends.tvm.tuning import database
from edgec.backends.tvm.tuning.choice import Record, Tuning, by_model, class_of, ranked
from edgec.backends.tvm.tuning.depthwise import DepthwiseProblem, DepthwiseSumProblem
from edgec.backends.tvm.tuning.few_rows import FewRowsProblem
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.backends.tvm.tuning.problem import bucket
from edgec.backends.tvm.tuning.products import ProductProblem
from edgec.backends.tvm.tuning.sums import SumProblem
from edgec.backends.tvm.tuning.winograd import WinogradProblem
from edgec.backends.tvm.winograd import WinogradSpec
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.matmul import MatMul
from edgec.graph.types import DType, tensor
from edgec.tools.testing.group_case import group_of, storages

TARGETS = [find_target(name) for name in ("x86-64-v4", "x86-64-v3", "rpi4")]
SIZES = st.integers(1, 3000)
SMALL = st.integers(1, 7)
PROBLEMS = st.one_of(
    st.builds(ProductProblem, SMALL, SIZES, st.integers(0, 5000), SIZES, SMALL, st.just(0), SMALL, SMALL),
    st.builds(SumProblem, SMALL, SIZES, SMALL, SIZES, SIZES, st.integers(1, 32), SMALL, SMALL),
    st.builds(DepthwiseProblem, SIZES, SIZES, SIZES, SMALL, SMALL, SMALL, SMALL, SMALL),
    st.builds(DepthwiseSumProblem, SIZES, SIZES, SIZES, SMALL, SMALL, SMALL, SMALL, SMALL),
    st.builds(FewRowsProblem, SIZES, SIZES, SIZES),
    st.builds(WinogradProblem, SMALL, SIZES, SIZES, SIZES, SIZES),
)

KINDS = (ProductProblem, SumProblem, DepthwiseProblem, DepthwiseSumProblem, FewRowsProblem, WinogradProblem)


@given(problem=PROBLEMS, target=st.sampled_from(TARGETS))
def test_the_model_chooses_what_is_legal(problem, target):
    candidates = problem.candidates(target)
    assert candidates and len(set(candidates)) == len(candidates)
    assert all(0 < problem.cycles(candidate, target) < 1e18 for candidate in candidates)
    assert sorted(map(repr, ranked(problem, target))) == sorted(map(repr, candidates))
    chosen = by_model(problem, target)
    # At most a little dearer than the best, and the same however often it is asked.
    assert problem.cycles(chosen, target) <= 1.04 * min(problem.cycles(c, target) for c in candidates)
    assert by_model(problem, target) == chosen


@given(problem=PROBLEMS, target=st.sampled_from(TARGETS))
def test_tiles_fit_the_registers(problem, target):
    for candidate in problem.candidates(target):
        if isinstance(problem, ProductProblem):
            vectors = vectors_of(candidate.width, target.lanes)
            of_left = candidate.rows if multiplies_by_element(target) else 1
            assert candidate.rows == 1 or candidate.rows * vectors + vectors + of_left <= target.registers
            assert 1 <= candidate.width <= problem.columns
        if isinstance(problem, DepthwiseSumProblem):
            rows = candidate.kernel_rows
            assert rows == 1 or rows * problem.taps_x + candidate.results <= target.registers + 1


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_few_rows_are_summed_in_one_block_and_more_in_even_ones(target):
    """Sums of one block need no workspace; of two, 256 and 32 rows would be twice the sums for little."""

    def block(rows: int) -> int:
        problem = SumProblem(1, rows, 1, 96, 576, 2 * target.lanes, 1, 3)
        return reduce_block(1, rows, problem.candidates(target)[0].block_rows)

    assert [block(rows) for rows in (72, 196, 288, 384)] == [72, 196, 288, 384]
    for rows in (400, 1000, 18_432):
        # In the nearest cache stay the columns of a panel and a line of the left row.
        assert block(rows) * (8 * target.lanes + 64) <= machine_of(target).near
        blocks = -(-rows // block(rows))
        assert block(rows) * blocks - rows < blocks


@given(extent=st.integers(0, 1 << 20))
def test_a_class_of_extents_is_within_half_of_itself(extent):
    low = bucket(extent)
    assert low <= extent and bucket(low) == low and (extent < low * 1.5 or extent <= 8)


# -- records ---------------------------------------------------------------


def product(rows: int = 100) -> tuple[Graph, list]:
    graph = Graph("product")
    a = graph.add_leaf(Role.INPUT, "a", tensor(DType.F32, rows, 64))
    return graph, [graph.emit1(MatMul(), a, graph.add_leaf(Role.PARAM, "b", tensor(DType.F32, 64, 96)))]


OTHER = {"x86-64-v4": 8, "x86-64-v3": 4, "rpi4": 7}  # heights that the model takes for none of the products below


def tile_of(tuning: Tuning, target, rows: int = 100) -> int:
    graph, outputs = product(rows)
    lowering = lower_group(group_of(graph, outputs), storages(graph, target), {}, target, tuning)
    return lowering.calls[0].spec.tile_rows


def record_for(target, **changes) -> dict[str, Record]:
    """A record of another tile height than the model's, for the class of `product`."""
    problem = ProductProblem(1, 100, 64, 96, 1, 2 * target.lanes, 0, 1)
    parameters = vars(by_model(problem, target)) | {"rows": OTHER[target.name]} | changes
    return {class_of(problem, target): Record(parameters, 1.2)}


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_a_record_is_used_for_its_class_of_shapes_and_no_other(target):
    other, tuning = OTHER[target.name], Tuning(record_for(target))
    assert tile_of(Tuning(), target) != other
    assert tile_of(tuning, target) == other
    assert tile_of(tuning, target, rows=120) == other  # the same class
    assert tile_of(tuning, target, rows=60) == tile_of(Tuning(), target, rows=60) != other


def test_a_record_of_another_instruction_set_is_not_used():
    wide, narrow, arm = TARGETS
    for other in (narrow, arm):
        assert tile_of(Tuning(record_for(other)), wide) == tile_of(Tuning(), wide)


@pytest.mark.parametrize(
    "changes", [{"rows": 10**6}, {"rows": 0}, {"rows": "14"}, {"width": 1}, {"extra": 1}, {"rows": True}], ids=str
)
def test_parameters_that_are_not_legal_are_passed_over(changes):
    (target, *_) = TARGETS
    assert tile_of(Tuning(record_for(target, **changes)), target) == tile_of(Tuning(), target)


def test_a_record_without_parameters_leaves_the_choice_to_the_model():
    (target, *_) = TARGETS
    (key,) = record_for(target)
    assert tile_of(Tuning({key: Record(None)}), target) == tile_of(Tuning(), target)


def filtered_tile(tuning: Tuning, target, channels: int) -> int:
    graph = Graph("convolution")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 1, channels, 28, 28))
    w = graph.add_leaf(Role.PARAM, "w", tensor(DType.F32, channels, channels, 3, 3))
    outputs = [graph.emit1(Conv2d(pads=(1, 1, 1, 1)), x, w)]
    *_, last = lower_group(group_of(graph, outputs), storages(graph, target), {}, target, tuning).calls
    return last.spec.filters.tile if isinstance(last.spec, WinogradSpec) else 0


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("channels", "rule", "record", "tile"),
    [(64, 4, 2, 2), (64, 4, 0, 0), (3, 0, 4, 4), (512, 2, 4, 2)],  # 36 positions of 512 by 512 are more than may be
)
def test_a_record_overrules_the_rule_for_filtering(target, channels: int, rule: int, record: int, tile: int):
    key = class_of(WinogradProblem(1, 28, 28, channels, channels), target)
    assert filtered_tile(Tuning(), target, channels) == rule
    assert filtered_tile(Tuning({key: Record({"tile": record}, 1.2)}), target, channels) == tile


# -- files -----------------------------------------------------------------


def test_a_database_is_read_as_it_was_written(tmp_path: Path):
    records = {"b": Record(None), "a": Record({"rows": 12, "form": "dots"}, 1.25)}
    path = tmp_path / "folder" / "db.json"
    database.write_records(path, records, "a processor")
    first = path.read_bytes()
    assert database.read_records(path) == records
    database.write_records(path, dict(reversed(records.items())), "a processor")
    assert path.read_bytes() == first


def file_of(**changes) -> str:
    return json.dumps({"edgec_tuning": 1, "kernels": database.KERNELS, "cpu": "", "records": {}} | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[" * 100_000,
        "[]",
        "{}",
        file_of(edgec_tuning=2),
        file_of(kernels=database.KERNELS - 1),
        file_of(records=[]),
        file_of(records={"k": 1}),
        file_of(records={"k": {"parameters": {}}}),
        file_of(records={"k" * 1000: {"parameters": None, "gain": 1.0}}),
        file_of(records={"k": {"parameters": {"rows": 1.5}, "gain": 1.0}}),
        file_of(records={"k": {"parameters": {"rows": [1]}, "gain": 1.0}}),
        file_of(records={"k": {"parameters": None, "gain": float("nan")}}),
        file_of(records={"k": {"parameters": None, "gain": float("inf")}}),
        file_of(records={"k": {"parameters": None, "gain": True}}),
    ],
    ids=lambda text: text[:60],
)
def test_a_damaged_database_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "db.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        database.read_records(path)
    assert caught.value.code == "E0508" and caught.value.where == str(path) and caught.value.hint


def test_a_huge_database_is_refused_without_reading_it_all(tmp_path: Path):
    path = tmp_path / "db.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="larger than"):
        database.read_records(path)


def test_a_database_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        database.find_tuning(tmp_path / "none.json")
    assert caught.value.code == "E0507"


def test_the_users_records_go_before_what_is_shipped(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path))
    shipped = dict(database.shipped_records())
    assert database.find_tuning().records == shipped
    key = next(iter(shipped), "product")
    database.write_records(database.user_path(), {key: Record(None, 1.5)}, "")
    assert database.find_tuning().records == shipped | {key: Record(None, 1.5)}
    assert database.find_tuning(database.OFF).records == {}
    assert database.fingerprint(database.find_tuning()) != database.fingerprint(Tuning(shipped))


def test_what_is_shipped_is_legal():
    """Every key is of an instruction set and a class of problems that there are."""
    kinds = {p.kind for p in KINDS}
    for key, record in database.shipped_records().items():
        kind, dtype, isa, *_ = key.split()
        assert kind in kinds and dtype == "f32" and isa in ("avx512", "avx2"), key
        assert record.parameters is None or record.gain >= 1.03
