"""`edgec search` on compiled kernels: what is planted is found, the budget kept, nothing measured twice."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import edgec
from edgec.backends.targets import find_target
from edgec.compiler.sparse.scheme import Scheme
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Role
from edgec.graph.ops import Add, MatMul, Relu
from edgec.graph.types import DType, tensor
from edgec.runtime.dataset import Sizes
from edgec.runtime.errors import RuntimeFailure
from edgec.tools import api
from edgec.tools.cli import main
from edgec.tools.request import Request
from edgec.tools.search import run as search_run
from edgec.tools.search.journal import Journal
from edgec.tools.search.measure import HELD_OUT, Laboratory, split
from edgec.tools.search.report import SearchReport, Wish
from edgec.tools.testing.models import small_cnn_onnx

WIDTH, CLASSES, LAYERS = 12, 4, 5
PLANTED = "dense2.weight"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Journals of its own for every test; kernels are those of all."""
    monkeypatch.setattr(search_run, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def dense_net(broken: str | None = None) -> Module:
    """x f32[1,12] -> scores f32[1,4]: dense layers with relu. Of the weight `broken` most is lost."""
    rng = np.random.default_rng(0)
    graph = Graph("infer")
    y = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 1, WIDTH))
    for number in range(LAYERS):
        out = CLASSES if number == LAYERS - 1 else WIDTH
        weight = rng.standard_normal((y.type.shape[1], out)) * np.sqrt(2 / WIDTH)
        bias = rng.uniform(-0.1, 0.1, out)
        if f"dense{number}.weight" == broken:
            weight *= 0.02
        leaves = [
            graph.add_leaf(Role.PARAM, f"dense{number}.{what}", tensor(DType.F32, *a.shape), data=a.astype(np.float32))
            for what, a in (("weight", weight), ("bias", bias))
        ]
        y = graph.emit1(Add(), graph.emit1(MatMul(), y, leaves[0], source=f"dense{number}"), leaves[1])
        y = graph.emit1(Relu(), y) if number < LAYERS - 1 else y
    graph.outputs["scores"] = y
    return Module({"infer": graph})


@dataclasses.dataclass(frozen=True)
class Planted(Request):
    """The dense net with one weight broken."""

    def read(self) -> Module:
        return dense_net(PLANTED)


def told_right(samples: int = 256) -> dict[str, np.ndarray]:
    """What the whole net says."""
    x = np.random.default_rng(1).standard_normal((samples, WIDTH)).astype(np.float32)
    graph, y = dense_net().programs["infer"], x
    for number in range(LAYERS):
        y = y @ graph.leaves[f"dense{number}.weight"].data + graph.leaves[f"dense{number}.bias"].data
        y = np.maximum(y, 0) if number < LAYERS - 1 else y
    return {"x": x, "labels": y.argmax(axis=1)}


def planted_search(budget: int, **wish: object) -> SearchReport:
    request = Planted("", (find_target("x86"),), train=edgec.Train(batch=16, optimizer="adam"))
    return search_run.find_scheme(request, told_right(), Wish(budget, lr=0.01, steps=60, threads=1, **wish))


def test_the_layer_that_can_help_is_found():
    report = planted_search(1 << 20)
    best = max(report.contributions, key=lambda one: one.gain)
    assert best.name == PLANTED and best.measured
    assert report.scheme.ratio_of(PLANTED) == 1.0 and report.expected_gain > 0.1
    assert report.found_loss < min(report.head_loss, report.bias_loss) and report.found_accuracy > report.head_accuracy


def test_the_budget_is_kept_by_the_real_plan():
    large = planted_search(1 << 20)
    for budget in (large.planned_bytes - 1, large.planned_bytes - 300):
        report = planted_search(budget)
        assert report.planned_bytes <= budget
        train = edgec.Train(batch=16, optimizer="adam", update=report.scheme, memory_budget=budget)
        forecast = api.check(Planted("", (find_target("x86"),), train=train))
        assert forecast.training_bytes() == {find_target("x86").name: report.planned_bytes}


def test_a_search_that_was_killed_goes_on(cache, monkeypatch):
    """It dies in a measurement, with half a line written; then nothing is measured twice, and the end is the same."""
    whole = planted_search(1 << 20)
    (path,) = (cache / "search").iterdir()
    lines = path.read_text().splitlines()
    path.unlink()
    ran: list[tuple[frozenset[str], int]] = []  # what was trained, on which fold
    measure = Laboratory.run

    def counted(self, trained, **options):
        ran.append((frozenset(trained), options.get("fold", 0)))
        if len(ran) == 5:
            raise KeyboardInterrupt
        return measure(self, trained, **options)

    monkeypatch.setattr(Laboratory, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        planted_search(1 << 20)
    with path.open("a") as file:
        file.write('{"name": "run 0.01 torn')
    before = set(ran[:4])
    again = planted_search(1 << 20)
    assert again.scheme == whole.scheme and again.contributions == whole.contributions
    assert not before & set(ran[5:])
    assert sorted(line for line in path.read_text().splitlines() if "torn" not in line) == sorted(lines)
    count = len(ran)
    other = planted_search(1 << 19)  # for another budget there are plans to make, and nothing to measure
    assert len(ran) == count and other.runs == 0


def test_channels_that_are_not_trained_stay_as_they_are():
    """Of a weight of which some elements are put back; a run on another fold learns from other samples."""
    train = edgec.Train(batch=16, update="head")
    request = Planted("", (find_target("x86"),), train=train)
    update = Scheme("full")
    laboratory = Laboratory(request, request.read(), update, told_right(), seed=0, threads=1)
    try:
        name, head = PLANTED, "dense4.weight"
        start = laboratory._model.parameter(name)
        frozen = np.arange(start.size).reshape(start.shape) % 3 == 0
        some = laboratory.run({name: frozen, head: None}, lr=0.1, steps=20)
        trained = laboratory._model.parameter(name)
        assert np.array_equal(trained[frozen], start[frozen])
        assert (trained[~frozen] != start[~frozen]).mean() > 0.5  # some neurons are dead
        losses = [laboratory.run({name: None, head: None}, lr=0.1, steps=20, fold=fold).loss for fold in (0, 1, 0)]
        assert losses[0] == losses[2] and len({some.loss, *losses}) == 3
        with pytest.raises(RuntimeFailure, match="E0601"):
            laboratory._model.parameter("dense9.weight")
    finally:
        laboratory.close()


def test_folds_hold_every_sample_out_once():
    sizes = Sizes(samples=42, batch=4, masked=False)
    data = {"x": np.arange(42)}
    parts = [split(data, sizes, fold) for fold in range(HELD_OUT)]
    assert all(sorted([*train["x"], *judged["x"]]) == list(range(42)) for train, judged in parts)
    assert sorted(np.concatenate([judged["x"] for _, judged in parts])) == list(range(42))


def test_what_there_is_no_time_for_is_estimated():
    report = planted_search(1 << 20, seconds=0.0)
    assert not any(one.measured for one in report.contributions)
    assert report.planned_bytes <= 1 << 20


def test_a_limit_on_time_per_step_is_kept():
    free, bounded = planted_search(1 << 20), planted_search(1 << 20, step_ratio=1.6)
    assert bounded.macs_ratio <= 1.6 < free.macs_ratio


def test_a_budget_too_small_for_the_head():
    with pytest.raises(UserError, match="E0405.*the head alone, needs") as failure:
        planted_search(100)
    needed = int("".join(filter(str.isdigit, failure.value.message.split(" bytes")[0])))
    assert planted_search(needed).planned_bytes <= needed


def test_a_journal_survives_damage(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    assert journal.recall("a", lambda: 1) == 1
    path.write_bytes(path.read_bytes() + b'\xff\xfe\n["no record"]\n{"name": "b", "resu')
    journal = Journal(path)
    assert journal.recall("a", lambda: 2) == 1
    assert journal.recall("b", lambda: 3) == 3
    assert Journal(path).recall("b", lambda: 4) == 3
    with pytest.raises(UserError, match="E0507"):
        Journal(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="E0505"):
        journal.recall("c", lambda: 5)


# -- the command, and `auto` -----------------------------------------------------------------------------------------


@pytest.fixture
def cnn(tmp_path) -> Path:
    """cnn.onnx, and images of which the brighter half says the class."""
    (tmp_path / "cnn.onnx").write_bytes(small_cnn_onnx().SerializeToString())
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 48)
    x = rng.standard_normal((48, 1, 28, 28)).astype(np.float32)
    x[labels == 1, :, :14] += 1
    np.savez(tmp_path / "train.npz", x=x, labels=labels)
    return tmp_path


OPTIONS = "--batch 1 --train-batch 8 --memory-budget 2MB --data train.npz"


def test_the_command_writes_a_scheme_that_compiles(cnn, capsys, monkeypatch):
    monkeypatch.chdir(cnn)
    with pytest.raises(SystemExit) as done:
        main(f"search cnn.onnx {OPTIONS} --steps 4 --threads 1 -o found.toml --json".split())
    figures = json.loads(capsys.readouterr().out)
    assert not done.value.code and figures["planned_bytes"] <= figures["budget"] == 2 << 20
    scheme = Scheme.from_toml("found.toml")
    assert [rule.pattern for rule in scheme.weights] == [rule["pattern"] for rule in figures["scheme"]["weights"]]
    report = edgec.compile(
        "cnn.onnx", batch=1, out="cnn.edge", train=edgec.Train(batch=8, update="found.toml", memory_budget="2MB")
    )
    assert report.programs["train"].arena_bytes <= figures["planned_bytes"]


def test_auto_is_a_search_and_a_compilation(cnn, monkeypatch):
    monkeypatch.chdir(cnn)
    train = edgec.Train(batch=8, update="auto", memory_budget="2MB")
    edgec.compile("cnn.onnx", batch=1, out="cnn.edge", train=train, data="train.npz")
    found = edgec.search("cnn.onnx", batch=1, data=dict(np.load("train.npz")), train=train, out="found.toml")
    assert found.runs == 0  # the journal has it
    with edgec.load("cnn.edge", threads=1) as model:
        weights = {name for name in model.trained if name.endswith("weight")} - {"fc.weight"}
    assert weights == {rule.pattern for rule in found.scheme.weights}
    with pytest.raises(UserError, match="E0302.*measures what training gains"):
        edgec.compile("cnn.onnx", batch=1, out="cnn.edge", train=train)
    with pytest.raises(UserError, match="E0302.*needs a memory budget"):
        edgec.compile("cnn.onnx", batch=1, out="cnn.edge", train=edgec.Train(update="auto"), data="train.npz")
    with pytest.raises(UserError, match="E0302.*takes a search"):
        api.check(Request("cnn.onnx", (find_target("x86"),), batch=1, train=train))
