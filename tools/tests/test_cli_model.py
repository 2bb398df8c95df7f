"""The commands that work on models and artifacts, on the Fashion-MNIST network."""

import json

import numpy as np
import onnx
import pytest

import edgec
from edgec.graph.errors import UserError
from edgec.runtime.layout import read_artifact
from edgec.tools import api
from edgec.tools.cli import main
from edgec.tools.testing.models import small_cnn_onnx
from edgec.tools.verify import Difference, compare, draw_feeds

BATCH = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds cnn.onnx, cnn.edge compiled from it, and the kernel cache of these tests."""
    folder = tmp_path_factory.mktemp("cli")
    onnx.save(small_cnn_onnx(seed=3), folder / "cnn.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEC_CACHE", str(folder / "cache"))
        api.build(api.Request(folder / "cnn.onnx", api.parse_targets("x86,rpi4"), batch=BATCH), folder / "cnn.edge")
    return folder


@pytest.fixture
def edgec_command(folder, monkeypatch, capsys):
    """Runs the command line in the folder: exit status, stdout, stderr."""
    monkeypatch.setenv("EDGEC_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(words))
        return caught.value.code, *capsys.readouterr()

    return run


# -- compile --


def test_compile_prints_the_promised_figures(edgec_command, folder):
    status, out, _ = edgec_command(
        "compile", "cnn.onnx", "--shape", f"x={BATCH},1,28,28", "-o", "shaped.edge", "--json"
    )
    report = json.loads(out)
    assert status == 0
    assert set(report) == {"targets", "artifact_bytes", "param_bytes", "seconds", "programs"}
    keys = {"ops", "macs", "arena_bytes", "state_bytes", "saved_activation_bytes", "recomputed_macs"}
    assert set(report["programs"]["infer"]) == keys
    assert report["artifact_bytes"] == (folder / "shaped.edge").stat().st_size
    # 3x3 convolutions 1 -> 32 at 28x28 and 32 -> 64 at 14x14, dense 3136 -> 10.
    assert report["programs"]["infer"]["macs"] == BATCH * (9 * 32 * 784 + 9 * 32 * 64 * 196 + 3136 * 10)
    assert report["param_bytes"] == 4 * (9 * 32 + 32 + 9 * 32 * 64 + 64 + 3136 * 10 + 10)


def test_equal_input_gives_equal_bytes(edgec_command, folder):
    assert (
        edgec_command("compile", "cnn.onnx", "--batch", str(BATCH), "--target", "x86,rpi4", "-o", "again.edge")[0] == 0
    )
    assert (folder / "again.edge").read_bytes() == (folder / "cnn.edge").read_bytes()


def test_compile_can_dump_stop_and_keep(edgec_command, folder):
    words = ("compile", "cnn.onnx", "--batch", "1", "-o", "stopped.edge", "--dump-ir", "ir", "--stop-after", "plan")
    assert edgec_command(*words)[:2] == (0, "")
    dumps = sorted(path.name for path in (folder / "ir").iterdir())
    assert dumps[0] == "000_import.ir" and dumps[-1].endswith("_merge_launches.ir")
    assert not (folder / "stopped.edge").exists()
    words = ("compile", "cnn.onnx", "--batch", str(BATCH), "-o", "kept.edge", "--keep-kernels", "kernels")
    assert edgec_command(*words)[0] == 0
    assert (folder / "kernels/x86.elf").read_bytes() == read_artifact(folder / "kept.edge").variants[0].code


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["cnn.onnx"], 1, "error[E0104]"),
        (["none.onnx", "--batch", "1"], 1, "error[E0106]"),
        (["cnn.edge", "--batch", "1"], 1, "error[E0101]"),
        (["cnn.onnx", "--batch", "1", "--target", "x86,vax"], 1, "unknown target `vax`"),
        (["cnn.onnx", "--shape", "y=1,2"], 1, "error[E0105]"),
        (["cnn.onnx", "--batch", "1", "-o", "no/such/folder.edge"], 1, "error[E0505]"),
        (["cnn.onnx", "--batch", "1", "--train", "none.toml"], 1, "error[E0507]"),
        (["cnn.onnx", "--batch", "1", "--train", "--loss", "hinge"], 1, "error[E0302]"),
        (["cnn.onnx", "--shape", "x:1,1"], 2, "NAME=1,3,224,224"),
        (["cnn.onnx", "--batch", "0"], 2, "--batch"),
        (["cnn.onnx", "--train-batch", "8"], 2, "--train-batch says how to train: add --train"),
        (["cnn.onnx", "--stop-after", "lunch"], 2, "lunch"),
        (["cnn.onnx", "--target", "mobile-gpu", "--emit", "static", "no"], 2, "--emit static is for processors"),
        ([], 2, "MODEL"),
    ],
)
def test_what_is_wrong_is_told(edgec_command, words, status, text):
    code, out, err = edgec_command("compile", *words)
    assert code == status and out == "" and text in err


# -- check --


def test_check_forecasts_what_compile_reports_without_generating_code(edgec_command, folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("check generated code")

    monkeypatch.setattr("edgec.backends.tvm.backend.build", refuse)
    status, out, _ = edgec_command("check", "cnn.onnx", "--batch", str(BATCH), "--target", "x86,rpi4", "--json")
    forecast = json.loads(out)
    manifest = read_artifact(folder / "cnn.edge").manifest
    assert status == 0 and set(forecast["programs"]) == {"x86", "rpi4"}
    needed = max(programs["infer"]["arena_bytes"] for programs in forecast["programs"].values())
    assert needed == manifest["programs"]["infer"]["arena_bytes"]
    assert forecast["param_bytes"] == manifest["param_bytes"]


def test_check_adds_up_what_training_needs(edgec_command):
    words = ("check", "cnn.onnx", "--batch", "1", "--train", "--train-batch", "4", "--momentum", "0.9")
    status, out, _ = edgec_command(*words, "--json")
    forecast = json.loads(out)
    figures = forecast["programs"]["x86"]["train"]
    assert status == 0 and figures["state_bytes"] == forecast["trained_bytes"] > 0
    needed = figures["arena_bytes"] + figures["state_bytes"] + forecast["trained_bytes"]
    assert forecast["training_bytes"] == {"x86": needed} and figures["arena_bytes"] > 0
    assert "training on x86 needs" in edgec_command(*words)[1]


def test_check_lists_what_cannot_be_trained_and_what_cannot_be_lowered(edgec_command, monkeypatch):
    """No op of today lacks either, so some are made to."""
    monkeypatch.setattr("edgec.graph.ops.matmul.MatMul.no_gradient", "it is only a test")
    monkeypatch.setattr("edgec.graph.ops.add.Add.no_gradient", "it is only a test")
    monkeypatch.setattr(
        "edgec.backends.tvm.backend.TvmBackend.unsupported",
        lambda self, node: f"not on {self.target.name}" if node.op.name == "matmul" else None,
    )
    words = ("check", "cnn.onnx", "--batch", "1", "--target", "x86,rpi4", "--train")
    status, out, err = edgec_command(*words)
    assert status == 1 and out == ""
    assert [line[:12] for line in err.splitlines() if line.startswith("error")] == [
        "error[E0301]",
        "error[E0403]",
        "error[E0403]",
    ]
    assert all(word in err for word in ("fc", "not on x86", "not on rpi4", "it is only a test"))
    status, out, _ = edgec_command(*words, "--json")
    problems = json.loads(out)["problems"]
    assert status == 1 and [problem["code"] for problem in problems] == ["E0301", "E0403", "E0403"]
    assert all({"node", "op", "reason"} <= record.keys() for problem in problems for record in problem["nodes"])
    assert problems[0]["nodes"]
    assert problems[1]["nodes"] and {record["program"] for record in problems[1]["nodes"]} == {"infer"}


def test_check_lists_every_operator_where_a_gradient_ends(edgec_command, folder):
    """One parameter is reached another way, one is not reached at all; the model can be trained all the same."""
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "a"], ["xa"], "reached"),
        onnx.helper.make_node("MatMul", ["x", "b"], ["xb"], "hidden"),
        onnx.helper.make_node("Floor", ["xa"], ["fa"], "down"),
        onnx.helper.make_node("Round", ["xb"], ["rb"], "nearest"),
        onnx.helper.make_node("Sum", ["xa", "fa", "rb"], ["y"], "sum"),
    ]
    weights = [onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), name) for name in "ab"]
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", (2, 3)), ("y", (2, 4)))
    )
    graph = onnx.helper.make_graph(nodes, "cut", [x], [y], weights)
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "cut.onnx")
    forecast = json.loads(edgec_command("check", "cut.onnx", "--train", "--json")[1])
    assert [(end["node"], end["op"]) for end in forecast["no_gradient"]] == [("down", "floor"), ("nearest", "round")]
    assert all(end["reason"] for end in forecast["no_gradient"]) and forecast["untrained"] == ["b"]
    status, out, _ = edgec_command("check", "cut.onnx", "--train")
    assert status == 0 and "no gradient passes:" in out and "nearest" in out
    assert "no gradient reaches, and nothing changes: b" in out
    for words in (["check", "cut.onnx"], ["check", "cnn.onnx", "--batch", "1", "--train"]):
        assert "no gradient" not in edgec_command(*words)[1]


def test_check_names_nodes_that_cannot_be_imported(edgec_command, folder):
    model = small_cnn_onnx()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Relux", "acme"
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(model, folder / "odd.onnx")
    status, _, err = edgec_command("check", "odd.onnx", "--batch", "1")
    assert status == 1 and "error[E0103]" in err and "relu1" in err
    (problem,) = json.loads(edgec_command("check", "odd.onnx", "--batch", "1", "--json")[1])["problems"]
    reason = "the operator belongs to the domain `acme`"
    assert problem["nodes"] == [{"node": "relu1", "op": "Relux", "opset": 1, "reason": reason}]


# -- run --


def test_run_writes_what_python_computes(edgec_command, folder):
    x = np.random.default_rng(0).standard_normal((BATCH, 1, 28, 28)).astype(np.float32)
    np.savez(folder / "in.npz", x=x)
    status, out, _ = edgec_command("run", "cnn.edge", "--input", "in.npz", "-o", "out", "--check-finite", "--json")
    summary = json.loads(out)["outputs"]["logits"]
    written = np.load(folder / "out")["logits"]
    assert status == 0 and summary["shape"] == [BATCH, 10] and summary["max"] == written.max()
    np.testing.assert_array_equal(written, edgec.load(folder / "cnn.edge", threads=1).run({"x": x})["logits"])


@pytest.mark.parametrize(
    ("arrays", "options", "code"),
    [
        ({"y": np.zeros(3, np.float32)}, [], "E0601"),
        ({"x": np.zeros((1, 1, 28, 28), np.float32)}, [], "E0603"),
        ({"x": np.zeros((BATCH, 1, 28, 28), np.float64)}, [], "E0602"),
        ({"x": np.zeros((BATCH, 1, 28, 28), np.float32)}, ["--program", "train"], "E0606"),
        ({"x": np.full((BATCH, 1, 28, 28), np.nan, np.float32)}, ["--check-finite"], "E0611"),
        ({"x": np.array([None])}, [], "E0507"),
    ],
)
def test_run_refuses_wrong_data(edgec_command, folder, arrays, options, code):
    np.savez(folder / "wrong.npz", **arrays)
    status, _, err = edgec_command("run", "cnn.edge", "--input", "wrong.npz", *options)
    assert status == 1 and f"error[{code}]" in err


def test_run_refuses_files_that_are_something_else(edgec_command, folder):
    np.save(folder / "single.npy", np.zeros(3))
    for words, code in [
        (("cnn.edge", "--input", "none.npz"), "E0507"),
        (("cnn.edge", "--input", "cnn.onnx"), "E0507"),
        (("cnn.edge", "--input", "single.npy"), "E0507"),
        (("cnn.onnx", "--input", "single.npy"), "E0501"),
        (("none.edge", "--input", "single.npy"), "E0507"),
    ]:
        status, _, err = edgec_command("run", *words)
        assert status == 1 and f"error[{code}]" in err, words


# -- verify --


def test_verify_agrees_and_tells_another_model_apart(edgec_command, folder):
    status, out, _ = edgec_command("verify", "cnn.onnx", "cnn.edge", "--json")
    row = json.loads(out)["outputs"]["logits"]
    assert status == 0 and 0 < row["relative"] < 1e-5 and row["largest_magnitude"] > 0.01
    onnx.save(small_cnn_onnx(seed=4), folder / "other.onnx")
    status, _, err = edgec_command("verify", "other.onnx", "cnn.edge")
    assert status == 1 and "error[E0612]" in err and "logits" in err


def test_differences_count_what_is_not_finite():
    one, nan, inf = np.ones(2), np.array([1.0, np.nan]), np.array([1.0, np.inf])
    assert compare({"y": one}, {"y": one}) == [Difference("y", 0.0, 1.0)]
    assert compare({"y": nan}, {"y": nan})[0].relative == 0 and compare({"y": inf}, {"y": inf})[0].relative == 0
    for actual, expected in [(nan, one), (one, nan), (inf, one), (inf, -inf), (nan, inf)]:
        assert compare({"y": actual}, {"y": expected})[0].relative == np.inf
    with pytest.raises(UserError, match="other names"):
        compare({"y": one}, {"z": one})
    with pytest.raises(UserError, match="shape"):
        compare({"y": one}, {"y": np.ones(3)})


def test_drawn_feeds_fit_and_repeat(folder):
    inputs = edgec.load(folder / "cnn.edge", threads=1).inputs
    first, second = draw_feeds(inputs, seed=1), draw_feeds(inputs, seed=1)
    assert first["x"].dtype == np.float32 and first["x"].shape == (BATCH, 1, 28, 28)
    np.testing.assert_array_equal(first["x"], second["x"])


# -- inspect, memory --


def test_inspect_shows_programs_code_and_origin(edgec_command, folder):
    status, out, _ = edgec_command("inspect", "cnn.edge", "--json")
    record = json.loads(out)
    assert status == 0 and record["provenance"]["model"] == "cnn.onnx"
    assert [(code["kind"], code["arch"]) for code in record["code"]] == [("elf", "x86-64"), ("elf", "cortex-a72")]
    assert record["artifact_bytes"] == (folder / "cnn.edge").stat().st_size
    assert {"name": "logits", "role": "output", "dtype": "f32", "shape": [BATCH, 10]} in record["signatures"]["infer"]
    status, text, _ = edgec_command("inspect", "cnn.edge")
    assert status == 0 and f"f32[{BATCH},1,28,28]" in text and "rpi4" in text and str(folder) not in text


def test_memory_explains_the_peak(edgec_command):
    status, out, _ = edgec_command("memory", "cnn.edge", "--json")
    programs = json.loads(out)["programs"]
    assert status == 0 and [program["target"] for program in programs] == ["x86", "rpi4"]
    for program in programs:
        assert 0 < sum(program["peak"]["bytes_by_role"].values()) <= program["arena_bytes"]
        assert bool(program["peak"]["bytes_by_reason"]) == (program["program"] == "train")
    status, text, _ = edgec_command("memory", "cnn.edge", "cnn.edge")
    assert status == 0 and text.count("the peak, ") == 4


# -- Python --


def test_the_facade_compiles_and_loads(folder, monkeypatch):
    monkeypatch.setenv("EDGEC_CACHE", str(folder / "cache"))
    shapes = {"x": (BATCH, 1, 28, 28)}
    report = edgec.compile(small_cnn_onnx(seed=3), target="x86", shapes=shapes, out=folder / "python.edge")
    assert report.targets == ("x86",) and report.programs["infer"].arena_bytes > 0
    assert edgec.load(folder / "python.edge", threads=1).outputs[0].name == "logits"


def test_targets_are_parsed_once_each():
    assert [target.name for target in api.parse_targets("rpi4, x86,rpi4")] == ["rpi4", "x86"]
    assert [target.name for target in api.parse_targets(["pixel"])] == ["pixel"]
