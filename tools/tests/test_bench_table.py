"""make bench: every row can be made, peers are asked to do the same as we do, and verdicts say what the figures do."""

import re
from xml.etree import ElementTree

import pytest
import torch

from edgec.tools.bench import measure as measuring
from edgec.tools.bench.__main__ import render, to_json
from edgec.tools.bench.compare import Timing
from edgec.tools.bench.measure import Result, measure
from edgec.tools.bench.onnx_models import EXPORTED, IMAGES
from edgec.tools.bench.picture import draw
from edgec.tools.bench.rows import Row, rows
from edgec.tools.bench.subjects import SUBJECTS
from edgec.tools.testing.made_up_times import make_up_times

TIMES = {"edgec": 2.0, "onnxruntime": 4.0, "torch eager": 9.0, "torch channels_last": 8.0, "plain": 1.0, "peak": 0.5}


def _result(ours: float = 2.0, theirs: float = 4.0, **row) -> Result:
    described = Row(**{"name": "a row", "model": "small_cnn", "program": "infer", "batch": 1, "threads": 1} | row)
    timings = {
        "edgec": Timing(ours, 0.1, 9, "", ours, ours),
        "onnxruntime": Timing(theirs, 0.1, 9, "", theirs, 2 * theirs),
        "openvino": Timing(error="not here"),
    }
    return Result(described, timings, macs=1_000_000, peak=10.0)


def test_rows_have_names_of_their_own_and_known_models() -> None:
    table = list(rows())
    assert len({row.name for row in table}) == len(table)
    for row in table:
        known = {*IMAGES, *EXPORTED} if row.program == "infer" else {*IMAGES, *SUBJECTS}
        assert row.model in known and EXPORTED.get(row.model, row.model) in {*IMAGES, *SUBJECTS}
        assert row.goal is None or row.goal <= row.bar


@pytest.fixture
def asked(monkeypatch) -> dict[str, dict]:
    """Contenders by name as they were asked to run; their times are made up."""
    return make_up_times(monkeypatch, measuring, TIMES)


def test_a_peer_trains_the_same(asked, tmp_path) -> None:
    row = Row("train", "small_cnn", "train", 4, 2, 0.3, train={"momentum": 0.5})
    result = measure(row, 2, tmp_path)
    assert result.fastest() == "torch channels_last" and result.ratio() == 0.25
    spec = asked["torch eager"]
    assert spec["shapes"] == {"x": (4, 1, 28, 28)} and spec["momentum"] == 0.5 and spec["threads"] == 2
    assert asked["edgec"]["threads"] == 2 and asked["peak"]["threads"] == 1


def test_a_row_beside_another_is_measured_with_it(asked, tmp_path) -> None:
    plain = Row("plain", "small_cnn", "infer", 1, 1)
    result = measure(Row("row", "small_cnn", "infer", 1, 2, 1.1, beside=plain, busy=True), 2, tmp_path)
    assert set(asked) == {"edgec", "plain", "peak"} and asked["plain"]["threads"] == 1
    assert result.ratio() == 2.0 and "misses 1.1" in "\n".join(render(result))


@pytest.mark.parametrize(
    ("ours", "said"), [(2.0, "beats the goal of 0.6"), (3.0, "meets 1.1"), (4.5, "misses 1.1")]
)  # fmt: skip
def test_verdicts(ours: float, said: str) -> None:
    result = _result(ours, bar=1.1, goal=0.6)
    lines = list(render(result))
    assert lines[1].endswith(said) and "not measured: not here" in lines[2]
    # One thread: the processor's time stands in brackets.
    assert f"ratio {ours / 4:.2f} [{ours / 8:.2f}]" in lines[1]
    assert result.share() == pytest.approx(2e6 / (ours * 1e6) / 10.0)
    assert to_json(result)["fastest"] == "onnxruntime" and to_json(result)["ratio"] == ours / 4


def test_the_picture_has_a_point_for_every_ratio() -> None:
    alone = _result(name="alone")
    alone.timings.pop("onnxruntime")
    slow, fast = _result(9.0, bar=1.1, goal=0.9), _result(1.0, name="fast & small", bar=1.1)
    root = ElementTree.fromstring(draw([slow, alone, fast]))
    points = [node for node in root.iter() if node.tag.endswith("circle")]
    assert len(points) == 2 and float(points[0].get("cx")) > float(points[1].get("cx"))
    assert points[0].get("fill") != points[1].get("fill")
    assert any("fast & small" in (node.text or "") for node in root.iter())


@pytest.mark.parametrize("name", [name for name in SUBJECTS if "224" not in name])
def test_subjects_take_their_inputs(name: str) -> None:
    subject = SUBJECTS[name]
    module = subject.make().eval()
    with torch.no_grad():
        result = module(*subject.inputs(1))
    if name != "minilm":
        assert result.shape == (1, subject.classes, *subject.labels)
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert bool(norms) == bool(re.fullmatch(r"(mobilenet_v2|resnet18)_\d+", name))
