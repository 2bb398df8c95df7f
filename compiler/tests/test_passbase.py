"""The pass loop: order, facts, verification after each pass, dumps, stopping, and who gets the blame."""

from pathlib import Path

import pytest

from edgec.compiler.passbase import Fact, Level, Options, Pass, Phase, Trace, check_order, run_pipeline
from edgec.compiler.pipeline import MODULE_PASSES, SCHEDULE_PASSES, transform_module
from edgec.compiler.train import Train
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Module
from edgec.graph.ops import Add
from edgec.graph.parse import parse_module
from edgec.graph.text import print_module
from edgec.tools.testing.train_cases import small_cnn

Notes = list[str]


def note(text: str) -> object:
    def run(subject: Notes, options: Options) -> bool:
        subject.append(text)
        return True

    return run


def reject_bad(subject: Notes, facts: frozenset[Fact]) -> None:
    if "bad" in subject:
        raise InternalError("a bad note")


LEVEL: Level[Notes] = Level(verify=reject_bad, text="\n".join)
THREE = (
    Pass("write_a", Phase.SPECIALISE, note("a"), ensures=frozenset({Fact.CANONICAL})),
    Pass("write_b", Phase.SPECIALISE, note("b"), requires=frozenset({Fact.CANONICAL}), optional=True),
    Pass("write_c", Phase.SPARSIFY, note("c"), breaks=frozenset({Fact.CANONICAL})),
)


def test_passes_run_in_order_and_are_told() -> None:
    subject, seen = [], []
    trace = Trace(observe=seen.append)
    assert run_pipeline(THREE, subject, Options(), LEVEL, trace)
    assert subject == ["a", "b", "c"]
    assert seen == trace.done == ["write_a", "write_b", "write_c"]
    assert Fact.CANONICAL not in trace.facts


def test_optional_passes_have_a_switch_and_others_have_none() -> None:
    subject: Notes = []
    run_pipeline(THREE, subject, Options(skip=frozenset({"write_a", "write_b"})), LEVEL, Trace())
    assert subject == ["a", "c"]


def test_the_run_stops_after_a_phase() -> None:
    subject: Notes = []
    assert not run_pipeline(THREE, subject, Options(), LEVEL, Trace(stop_after=Phase.SPECIALISE))
    assert subject == ["a", "b"]
    assert run_pipeline(THREE, [], Options(), LEVEL, Trace(stop_after=Phase.SPARSIFY))


def test_dumps_are_numbered_over_several_runs(tmp_path: Path) -> None:
    trace = Trace(dump=tmp_path / "ir")
    trace.write("import", lambda: "start")
    run_pipeline(THREE[:2], [], Options(), LEVEL, trace)
    run_pipeline(THREE[2:], ["x"], Options(), LEVEL, trace)
    texts = {path.name: path.read_text() for path in sorted((tmp_path / "ir").iterdir())}
    assert texts == {
        "000_import.ir": "start",
        "001_write_a.ir": "a",
        "002_write_b.ir": "a\nb",
        "003_write_c.ir": "x\nc",
    }


def test_a_dump_that_cannot_be_written_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        run_pipeline(THREE, [], Options(), LEVEL, Trace(dump=tmp_path / "file"))
    assert caught.value.code == "E0505"


def test_a_broken_subject_is_blamed_on_the_pass() -> None:
    passes = (THREE[0], Pass("write_bad", Phase.SPECIALISE, note("bad")), THREE[2])
    subject: Notes = []
    with pytest.raises(InternalError, match="pass write_bad left a broken program: a bad note"):
        run_pipeline(passes, subject, Options(), LEVEL, Trace())
    assert subject == ["a", "bad"]


@pytest.mark.parametrize(("code", "blamed"), [("E0301", UserError), ("E0201", InternalError)])
def test_type_errors_within_a_pass_are_ours_and_other_user_errors_the_users(code: str, blamed: type) -> None:
    def fail(subject: Notes, options: Options) -> bool:
        raise UserError(code, "what is wrong")

    with pytest.raises(blamed, match="what is wrong") as caught:
        run_pipeline((Pass("fail_here", Phase.SPECIALISE, fail),), [], Options(), LEVEL, Trace())
    assert ("fail_here" in str(caught.value)) == (blamed is InternalError)


def test_the_order_of_a_list_is_checked() -> None:
    with pytest.raises(InternalError, match="write_b requires .*CANONICAL"):
        check_order(THREE[1:])
    with pytest.raises(InternalError, match="write_a of phase specialise stands after phase sparsify"):
        check_order((THREE[2], THREE[0]))
    broken_again = (*THREE, Pass("write_d", Phase.SPARSIFY, note("d"), requires=frozenset({Fact.CANONICAL})))
    with pytest.raises(InternalError, match="write_d requires"):
        check_order(broken_again)


def test_the_real_lists_are_in_order_and_each_pass_has_a_file_and_a_test() -> None:
    facts = check_order(MODULE_PASSES)
    assert {Fact.UPDATES, Fact.NO_DEAD, Fact.CANONICAL, Fact.CONSTANTS_FOLDED, Fact.NO_BATCH_NORM} <= facts
    check_order(SCHEDULE_PASSES, facts)
    tests = Path(__file__).parent
    for step in (*MODULE_PASSES, *SCHEDULE_PASSES):
        assert step.run.__module__ == f"edgec.compiler.passes.{step.name}"
    for step in MODULE_PASSES:
        assert (tests / f"test_{step.name}.py").exists(), f"pass {step.name} has no test of its name"


def test_every_dump_of_a_module_reads_back(tmp_path: Path) -> None:
    module = small_cnn().module
    assert transform_module(module, Options(train=Train(batch=2, momentum=0.9)), Trace(dump=tmp_path))
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names[0] == "000_import.ir"
    assert [name[4:-3] for name in names[1:]] == [step.name for step in MODULE_PASSES]
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert print_module(parse_module(text)).count("\n") == text.count("\n")


def test_stopping_early_leaves_no_train_program() -> None:
    module = small_cnn().module
    assert not transform_module(module, Options(train=Train()), Trace(stop_after=Phase.SPECIALISE))
    assert list(module.programs) == ["infer"]


def test_a_pass_that_breaks_a_real_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_it(module: Module, options: Options) -> bool:
        graph = module.programs["infer"]
        node = graph.emit(Add(), graph.leaves["fc.bias"], graph.leaves["fc.bias"])[0].producer
        graph.nodes.insert(0, graph.nodes.pop())
        node.inputs[0] = graph.outputs["y"]
        return True

    broken = (Pass("break_it", Phase.SPECIALISE, break_it), *MODULE_PASSES)
    monkeypatch.setattr("edgec.compiler.pipeline.MODULE_PASSES", broken)
    with pytest.raises(InternalError, match="pass break_it left a broken program"):
        transform_module(small_cnn().module, Options())
