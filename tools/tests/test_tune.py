"""`edgec tune`: what wins a race, what is kept, and what compilations make of it."""

import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.backends.tvm.tuning.choice import Record
from edgec.backends.tvm.tuning.database import read_records, user_path, write_records
from edgec.graph.errors import UserError
from edgec.runtime.layout import read_artifact
from edgec.tools import api
from edgec.tools.cli import main
from edgec.tools.testing.models import small_cnn_onnx
from edgec.tools.testing.own_cache import make_cache
from edgec.tools.tune import measure
from edgec.tools.tune import run as tune_run
from edgec.tools.tune.race import Outcome, race

# -- races -----------------------------------------------------------------


class Track:
    """Ways that take planted times on a clock of their own. `pace(way, turn)`: seconds."""

    def __init__(self, count: int, pace):
        self.now, self.pace = 0.0, pace
        self.turns = [0] * count
        self.ways = [lambda way=way: self.step(way) for way in range(count)]

    def step(self, way: int) -> None:
        self.now += self.pace(way, self.turns[way])
        self.turns[way] += 1

    def race(self) -> Outcome:
        return race(self.ways, lambda: None, lambda: self.now)


def test_the_fastest_wins():
    track = Track(4, lambda way, turn: (1.0, 1.02, 0.8, 0.9)[way])
    assert track.race() == Outcome(2, pytest.approx(1.25), 1.0)


def test_losers_leave_early():
    track = Track(3, lambda way, turn: (1.0, 3.0, 0.9)[way])
    track.race()
    assert track.turns[1] == 3 and track.turns[2] == 25


def test_the_usual_way_stays_where_nothing_is_clearly_faster():
    assert Track(3, lambda way, turn: (1.0, 0.98, 0.99)[way]).race().winner == 0


def test_a_way_must_win_in_most_rounds():
    # Faster by a third in two rounds of three, slower in the others: a neighbour's doing, not its own.
    track = Track(2, lambda way, turn: 1.0 if way == 0 else (0.7, 0.7, 1.4)[turn % 3])
    assert track.race() == Outcome(0, 1.0, 1.0)


def test_what_slows_a_whole_round_decides_nothing():
    def pace(way: int, turn: int) -> float:
        return (1.0, 0.9)[way] * (5.0 if turn % 4 == 3 else 1.0)

    track = Track(2, pace)
    # Way 0 runs twice more, before the rounds: its busy turns are shifted against those of way 1.
    track.turns[1] = 2
    outcome = track.race()
    assert outcome.winner == 1 and outcome.gain == pytest.approx(1 / 0.9)


# -- the command -----------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    onnx.save(small_cnn_onnx(seed=1), tmp_path / "cnn.onnx")
    monkeypatch.setenv("EDGEC_CACHE", str(make_cache(tmp_path / "cache")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def last_wins(monkeypatch):
    """Races that the last way wins, without compiling or running anything."""
    monkeypatch.setattr(measure, "run_ways", lambda ways, *_: Outcome(len(ways) - 1, 1.2, 1e-4))


def edgec(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return caught.value.code, *capsys.readouterr()


def request(folder: Path, target: str = "x86", **more) -> api.Request:
    return api.Request(folder / "cnn.onnx", api.parse_targets(target), batch=1, **more)


def quiet(key: str, done: int, total: int) -> None: ...


def test_tune_measures_keeps_and_shows(folder: Path, capsys):
    """With real races; few ways, since only the path is tested."""
    words = ("tune", "cnn.onnx", "--batch", "1", "--candidates", "2", "-o", "db.json", "--json")
    status, out, _ = edgec(capsys, *words)
    report = json.loads(out)
    assert status == 0 and report["database"] == "db.json" and report["left"] == report["known"] == 0
    assert len(report["measured"]) == report["classes"] > 2
    assert {one["key"] for one in report["measured"]} == read_records(Path("db.json")).keys()
    assert all(one["gain"] >= 1 and 0 < one["share"] <= 1 for one in report["measured"])
    status, out, _ = edgec(capsys, *words[:-1])
    assert status == 0 and "0 classes measured" in out and f"{report['classes']} known before" in out


def test_an_interrupted_run_goes_on_where_it_was(folder: Path, last_wins):
    path = folder / "db.json"
    stops = itertools.chain([False, False], itertools.repeat(True))
    first = tune_run.tune(request(folder), path, tune_run.Wish(2), quiet, lambda: next(stops))
    assert len(first.measured) == 2 and first.left == first.classes - 2
    assert read_records(path).keys() == {one.key for one in first.measured}
    rest = tune_run.tune(request(folder), path, tune_run.Wish(2), quiet)
    assert rest.known == 2 and rest.left == 0
    assert {one.key for one in rest.measured}.isdisjoint(one.key for one in first.measured)
    again = tune_run.tune(request(folder), path, tune_run.Wish(2, again=True), quiet)
    assert again.known == 0 and len(again.measured) == again.classes


def test_what_comes_into_question_by_a_choice_is_measured_too(folder: Path, last_wins):
    """A convolution that the model would filter is multiplied directly once that has won, and then has tiles."""
    weights = {"p": (64, 3, 1, 1), "w": (64, 64, 3, 3)}
    initializers = [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    shapes = {"x": (1, 3, 28, 28), "y": (1, 64, 28, 28)}
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items())
    nodes = [
        onnx.helper.make_node("Conv", ["x", "p"], ["h"]),
        onnx.helper.make_node("Conv", ["h", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = onnx.helper.make_graph(nodes, "frozen", [x], [y], initializers)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), folder / "cnn.onnx")
    report = tune_run.tune(request(folder), folder / "db.json", tune_run.Wish(3), quiet)
    filtered, direct, _ = sorted(report.measured, key=lambda one: ("winograd" not in one.key, "lines:1 " in one.key))
    assert filtered.parameters == {"tile": 0} and direct.key.startswith("product")
    assert report.classes == 3 and report.measured.index(filtered) < report.measured.index(direct)


def test_a_winner_must_win_again_alone(folder: Path, monkeypatch):
    """The best of many owes a part of its lead to luck."""
    counts = []

    def lucky_once(ways, *_):
        counts.append(len(ways))
        return Outcome(len(ways) - 1 if len(ways) > 2 else 0, 1.2, 1e-4)

    monkeypatch.setattr(measure, "run_ways", lucky_once)
    report = tune_run.tune(request(folder), folder / "db.json", tune_run.Wish(3), quiet)
    assert report.measured and all(one.parameters is None for one in report.measured)
    assert 3 in counts and counts[counts.index(3) + 1] == 2


def test_without_time_nothing_is_measured(folder: Path, last_wins):
    report = tune_run.tune(request(folder), folder / "db.json", tune_run.Wish(2, seconds=0), quiet)
    assert report.measured == [] and report.left == report.classes
    assert read_records(folder / "db.json") == {}


def test_compilations_use_what_was_tuned(folder: Path, last_wins, capsys):
    """The default place, a file, and none; equal records give equal bytes."""

    def compiled(name: str, *words: str) -> bytes:
        status, *_ = edgec(capsys, "compile", "cnn.onnx", "--batch", "1", "-o", name, *words)
        assert status == 0
        return Path(name).read_bytes()

    plain = compiled("plain.edge", "--tuning", "off")
    assert compiled("again.edge", "--tuning", "off") == plain
    assert edgec(capsys, "tune", "cnn.onnx", "--batch", "1", "--candidates", "3")[0] == 0
    tuned = compiled("tuned.edge")
    assert tuned != plain and compiled("tuned2.edge") == tuned
    assert compiled("off.edge", "--tuning", "off") == plain
    file = folder / "mine.json"
    write_records(file, read_records(user_path()), "another machine's name")
    assert compiled("file.edge", "--tuning", "mine.json") == tuned
    made = read_artifact(Path("tuned.edge")).manifest["provenance"]
    assert len(made["tuning"]) == 16 and "tuning" not in read_artifact(Path("plain.edge")).manifest["provenance"]


def test_artifacts_name_the_records_of_their_targets_alone(folder: Path):
    def tuning(target: str, **records: Record) -> str | None:
        write_records(folder / "db.json", records, "")
        return request(folder, target, tuning=folder / "db.json").provenance().get("tuning")

    x86 = {f"product f32 {isa} rows:8": Record({"rows": 6}, 1.1) for isa in ("avx512", "avx2")}
    plain = tuning("x86-64-v3"), tuning("x86-64-v4"), tuning("x86-64-v3,rpi4")
    assert all(tuning(target, **x86) is None for target in ("rpi4", "cortex-m7", "jetson"))
    tuned = tuning("x86-64-v3", **x86), tuning("x86-64-v4", **x86), tuning("x86-64-v3,rpi4", **x86)
    assert tuned[0] == tuned[2] != tuned[1] and set(tuned).isdisjoint(plain)


def test_targets_that_cannot_run_here_are_refused(folder: Path, capsys):
    for target in ("rpi4", "cortex-m7", "cuda", "x86,x86-64-v3"):
        target = {"cuda": "jetson"}.get(target, target)
        status, _, err = edgec(capsys, "tune", "cnn.onnx", "--batch", "1", "--target", target)
        assert status == 1 and "E0406" in err, target


def test_a_damaged_database_stops_a_compilation(folder: Path, capsys):
    Path("bad.json").write_text("{")
    status, _, err = edgec(capsys, "compile", "cnn.onnx", "--batch", "1", "--tuning", "bad.json")
    assert status == 1 and "E0508" in err and "bad.json" in err
    status, _, err = edgec(capsys, "tune", "cnn.onnx", "--batch", "1", "-o", "bad.json")
    assert status == 1 and "E0508" in err


def test_records_that_cannot_be_written(folder: Path, last_wins):
    (folder / "file").write_text("")
    with pytest.raises(UserError) as caught:
        write_records(folder / "file" / "db.json", {"k": Record(None)}, "")
    assert caught.value.code == "E0505"
