"""Updates of some channels on compiled kernels: the steps, checkpoints, parameters in one piece, and the way back."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import edgec
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.sparse.scheme import Scheme
from edgec.graph.parse import parse_module
from edgec.runtime import Model, RuntimeFailure, load
from edgec.runtime.layout import read_manifest, write_artifact
from edgec.runtime.parts import read_parts
from edgec.tools.bench.plans import plan
from edgec.tools.cli import main
from edgec.tools.safetensors import read_safetensors
from edgec.tools.testing.layer_nets import SIDE, Layer, fill, module_of
from edgec.tools.testing.models import small_cnn_onnx
from edgec.tools.testing.programs import initialise
from edgec.tools.testing.widen import narrowed

BATCH = 4
NET = """
graph infer {
  input %x: f32[1,9,8,8]
  param %conv.weight: f32[20,9,3,3]
  param %conv.bias: f32[20]
  param %dw.weight: f32[20,1,3,3]
  param %pw.weight: f32[48,20,1,1]
  param %project.weight: f32[11,48,1,1]
  param %fc.weight: f32[5,11]
  %c: f32[1,20,4,4] = conv2d(%x, %conv.weight) {strides=(2,2), pads=(1,1,1,1)}
  %v: f32[20,1,1] = reshape(%conv.bias) {shape=(20,1,1)}
  %b: f32[1,20,4,4] = add(%c, %v)
  %h: f32[1,20,4,4] = hard_swish(%b)
  %d: f32[1,20,4,4] = conv2d(%h, %dw.weight) {pads=(1,1,1,1), groups=20}
  %e: f32[1,20,4,4] = clip(%d) {low=0.0, high=6.0}
  %p: f32[1,48,4,4] = conv2d(%e, %pw.weight)
  %q: f32[1,48,4,4] = relu(%p)
  %j: f32[1,11,4,4] = conv2d(%q, %project.weight)
  %m: f32[1,11] = reduce_mean(%j) {axes=(2,3)}
  %y: f32[1,5] = matmul(%m, %fc.weight) {transpose_b=true}
  output "y" = %y
}
"""
SCHEME = """
base = "head"
biases = 1

[weights]
"conv2.weight" = 0.25
"fc.weight" = 0.5
"""


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((BATCH, 9, 8, 8)).astype(np.float32), "labels": rng.integers(0, 5, BATCH)}


def opened(path: Path, update: str | Scheme, **train: object) -> Model:
    options = Options(train=edgec.Train(batch=BATCH, update=update, **train))
    module = initialise(parse_module(NET))
    write_artifact(path, compile_module(module, [TvmBackend(find_target("x86"))], options).artifact)
    return load(path, threads=1)


def changes(model: Model) -> dict[str, np.ndarray]:
    before = model.parameters()
    model.step(data(), lr=1.0)
    return {name: before[name] - after for name, after in model.parameters().items()}


@pytest.mark.parametrize(
    ("ratio", "channels"), [(0.125, "largest"), pytest.param(0.8, "first", marks=pytest.mark.long)]
)
def test_a_step_changes_the_chosen_channels_as_a_full_step_does(tmp_path: Path, ratio: float, channels: str) -> None:
    """With channels in odd numbers, and vectors of kernels cut anywhere."""
    scheme = Scheme("full", channels=channels, weights=(edgec.WeightRule("*.weight", ratio),))
    with opened(tmp_path / "full.edge", "full") as full, opened(tmp_path / "part.edge", scheme) as part:
        dense, sparse = changes(full), changes(part)
        assert dense.keys() == sparse.keys() and set(part.trained) == set(full.trained) == set(dense)
        for name, change in sparse.items():
            kept = part.trained_elements(name)
            assert kept.all() == (name == "conv.bias") and not change[~kept].any()
            scale = np.abs(dense[name]).max()
            assert scale > 1e-4 and np.abs(change[kept]).max() > 0
            np.testing.assert_allclose(change[kept], dense[name][kept], rtol=0, atol=1e-5 * scale, err_msg=name)
        assert part.param_bytes < full.param_bytes
        energy = np.square(full.parameters()["project.weight"] + dense["project.weight"]).sum((0, 2, 3))
        kept = part.trained_elements("project.weight")[0, :, 0, 0]
        if channels == "largest":
            assert energy[kept].min() > energy[~kept].max() and not kept[: kept.sum()].all()


@pytest.mark.long
def test_kernels_of_every_kind_of_layer(tmp_path: Path) -> None:
    """Plain, grouped, depthwise and tied convolutions of odd channels, and a product."""
    layers = [Layer("plain", 5, 9), Layer("grouped", 9, 9), Layer("depthwise", 9, 9), Layer("tied", 9, 9)]
    rng = np.random.default_rng(0)
    wide = module_of(layers)
    fill(wide, rng, whole=False)
    feeds = {"x": rng.standard_normal((1, 5, SIDE, SIDE)).astype(np.float32), "labels.y": np.ones((1, 4), np.float32)}
    found = []
    for update in ("full", Scheme("none", weights=(edgec.WeightRule("*", 0.4),))):
        module, out = narrowed(wide), tmp_path / f"{len(found)}.edge"
        plan(module, Options(train=edgec.Train(batch=1, update=update, loss="sum_mse:y")), out)
        with load(out, threads=1) as model:
            before = model.parameters()
            model.step(feeds, lr=1.0)
            after = model.parameters()
            found.append({name: (before[name] - after[name], model.trained_elements(name)) for name in before})
    dense, sparse = found
    for name, (change, kept) in sparse.items():
        scale = np.abs(dense[name][0]).max()
        assert 0 < kept.mean() < 1 and np.abs(change[kept]).max() > 0 and not change[~kept].any()
        np.testing.assert_allclose(change[kept], dense[name][0][kept], rtol=0, atol=1e-5 * scale, err_msg=name)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slices") / "m.edge"
    opened(path, Scheme("none", weights=(edgec.WeightRule("p*.weight", 0.25),)), momentum=0.9).close()
    return path


def test_checkpoints_hold_slices_and_their_momentum(path: Path, tmp_path: Path) -> None:
    with load(path, threads=1) as model:
        model.step(data(), lr=0.1)
        model.save_checkpoint(tmp_path / "c")
        losses = [model.step(data(), lr=0.1) for _ in range(3)]
        wanted = model.parameters() | model.states()
        assert {name: state.shape for name, state in model.states().items()} == {
            "pw.weight/slice/momentum": (48, 5, 1, 1),
            "project.weight/slice/momentum": (11, 12, 1, 1),
        }
    with load(path, threads=2) as resumed:
        resumed.load_checkpoint(tmp_path / "c")
        assert [resumed.step(data(), lr=0.1) for _ in range(3)] == losses
        for name, array in (resumed.parameters() | resumed.states()).items():
            np.testing.assert_array_equal(array, wanted[name], err_msg=name)


def test_parameters_are_set_in_one_piece_where_they_may_change(path: Path) -> None:
    with load(path, threads=1) as model:
        weight = model.parameters()["pw.weight"]
        weight[:, :5] += 1
        model.set_parameters({"pw.weight": weight})
        np.testing.assert_array_equal(model.parameters()["pw.weight"], weight)
        weight[:, 5] += 1
        with pytest.raises(RuntimeFailure, match="`pw.weight/rest` is frozen") as caught:
            model.set_parameters({"pw.weight": weight})
        assert caught.value.code == "E0610"
        with pytest.raises(RuntimeFailure) as caught:
            model.set_parameters({"pw.weight": weight[:1]})
        assert caught.value.code == "E0603"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse")
    onnx.save(small_cnn_onnx(), folder / "cnn.onnx")
    (folder / "scheme.toml").write_text(SCHEME)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((16, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 16)
    np.savez(folder / "data.npz", x=x, labels=labels)
    return folder


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return caught.value.code


def test_the_whole_way_by_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(folder)
    model = ("cnn.onnx", "--batch", "1", "--train", "--train-batch", "4", "--update", "scheme.toml")
    assert command("compile", *model, "--json") == 0
    train = json.loads(capsys.readouterr().out)["programs"]["train"]
    assert command("check", *model[:-1], "full", "--json") == 0
    full = json.loads(capsys.readouterr().out)["programs"]["x86"]["train"]
    assert all(train[key] < full[key] for key in ("macs", "arena_bytes", "saved_activation_bytes"))
    assert command("verify", "cnn.onnx", "cnn.edge") == 0
    assert command("verify", "cnn.onnx", "cnn.edge", "--train") == 0
    assert command("train", "cnn.edge", "--data", "data.npz", "--epochs", "1", "--lr", "0.1", "--checkpoint", "c") == 0
    assert command("export", "cnn.edge", "--checkpoint", "c", "-o", "tuned.onnx") == 0
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(name).graph.initializer}
        for name in ("cnn.onnx", "tuned.onnx")
    )
    changed = {name: np.any(before[name] != after[name], axis=(0, 2, 3)) for name in ("conv1.weight", "conv2.weight")}
    assert not changed["conv1.weight"].any() and changed["conv2.weight"].tolist() == [True] * 8 + [False] * 24
    capsys.readouterr()
    assert command("memory", "cnn.edge", "cnn.edge", "--json") == 0
    record, _ = json.loads(capsys.readouterr().out)["training"]
    assert record["update"]["biases"] == 1 and record["saved_activation_bytes"] == train["saved_activation_bytes"]
    assert record["total_bytes"] == sum(record[f"{kind}_bytes"] for kind in ("arena", "trained", "state"))
    assert command("memory", "cnn.edge", "cnn.edge") == 0
    assert "head, biases: 1, weights: 2" in " ".join(capsys.readouterr().out.split())
    x = np.load("data.npz")["x"][:1]
    expected = onnxruntime.InferenceSession("tuned.onnx").run(None, {"x": x})[0]
    with load("cnn.edge", threads=1) as tuned:
        assert tuned.trained == ("conv2.bias", "fc.bias", "conv2.weight", "fc.weight")
        tuned.load_checkpoint("c")
        np.testing.assert_allclose(tuned.run({"x": x})["logits"], expected, rtol=1e-4, atol=1e-5)


def test_a_scheme_for_another_model_names_what_there_is(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(folder)
    Path("other.toml").write_text('base = "none"\n\n[weights]\n"conv2.wieght" = 0.5\n')
    assert command("compile", "cnn.onnx", "--batch", "1", "--train", "--update", "other.toml") == 1
    message = capsys.readouterr().err
    assert "E0302" in message and "no parameter that can be trained is called `conv2.wieght`" in message
    assert "did you mean 'conv2.weight'" in message


@pytest.mark.parametrize(
    "record",
    [{"axis": 0}, {"pieces": 3, "axis": 0, "orders": [], "adapter": None}, None, {"pieces": ["a"], "axis": "x"}],
)
def test_parts_that_nobody_of_ours_wrote(record: object) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        read_parts({"parts": {"w": record}})
    assert caught.value.code == "E0502"


def test_a_manifest_is_read_without_the_rest(path: Path, tmp_path: Path) -> None:
    assert read_manifest(path)["train"]["update"]["base"] == "none"
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b'"manifest_version"') + 3] ^= 1
    for name, content, code in (("d", damaged, "E0502"), ("e", b"", "E0501"), ("t", damaged[:40], "E0502")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RuntimeFailure) as caught:
            read_manifest(tmp_path / name)
        assert caught.value.code == code


@pytest.mark.long
def test_adapters_are_merged_on_the_way_back_or_stay_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(folder)
    Path("lora.toml").write_text('base = "none"\n[lora]\nrank = 4\nlayers = ["fc.weight"]\n')
    model = ("cnn.onnx", "--batch", "1", "--train", "--train-batch", "4", "--update", "lora.toml", "-o", "lora.edge")
    assert command("compile", *model) == 0
    assert command("train", "lora.edge", "--data", "data.npz", "--epochs", "1", "--lr", "0.1", "--checkpoint", "l") == 0
    assert command("export", "lora.edge", "--checkpoint", "l", "-o", "merged.onnx") == 0
    assert command("export", "lora.edge", "--checkpoint", "l", "-o", "l.safetensors", "--adapters") == 0
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(name).graph.initializer}
        for name in ("cnn.onnx", "merged.onnx")
    )
    change = after["fc.weight"] - before["fc.weight"]
    assert [name for name in before if np.any(before[name] != after[name])] == ["fc.weight"]
    assert np.linalg.matrix_rank(change, tol=1e-4 * np.linalg.norm(change)) <= 4 and np.abs(change).max() > 1e-4
    with load("lora.edge", threads=1) as tuned:
        tuned.load_checkpoint("l")
        adapters = tuned.adapters()
        assert {name: a.shape for name, a in adapters.items()} == {
            "fc.weight/lora_A": (4, 3136),
            "fc.weight/lora_B": (10, 4),
        }
        product = adapters["fc.weight/lora_B"] @ adapters["fc.weight/lora_A"]
        np.testing.assert_allclose(change, product, rtol=0, atol=1e-6)
        assert tuned.trained == ("fc.weight",) and tuned.trained_elements("fc.weight").all()
        x = np.load("data.npz")["x"][:1]
        expected = onnxruntime.InferenceSession("merged.onnx").run(None, {"x": x})[0]
        np.testing.assert_allclose(tuned.run({"x": x})["logits"], expected, rtol=1e-4, atol=1e-5)
        with pytest.raises(RuntimeFailure, match="frozen"):
            tuned.set_parameters({"fc.weight": before["fc.weight"] + 1})
    assert read_safetensors(Path("l.safetensors")).keys() == adapters.keys()
    capsys.readouterr()
    assert command("export", "lora.edge", "--checkpoint", "l", "-o", "l.onnx", "--adapters") == 2
    assert command("verify", "cnn.onnx", "lora.edge", "--train") == 0
