"""A new head and u8 images, from the command line to compiled kernels: against torch and onnxruntime."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import edgec
from edgec.runtime import RuntimeFailure
from edgec.runtime.layout import read_artifact
from edgec.tools.cli import main
from edgec.tools.device_run import run_on_device
from edgec.tools.testing.models import small_cnn_onnx, small_cnn_torch

BATCH, CLASSES, MEAN, STD = 8, 6, 0.3, 0.4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    onnx.save(small_cnn_onnx(seed=3), folder / "cnn.onnx")
    return folder


@pytest.fixture(scope="module")
def artifact(folder) -> Path:
    """Compiled from the command line: a head of six, images, the head trained."""
    words = ["compile", str(folder / "cnn.onnx"), "-o", str(folder / "new.edge"), "--batch", "2"]
    words += ["--new-head", str(CLASSES), "--seed", "7", "--input-image", f"x={MEAN},{STD}"]
    words += ["--train", "--train-batch", str(BATCH), "--update", "head", "--momentum", "0.5"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    return folder / "new.edge"


@pytest.fixture
def model(artifact):
    with edgec.load(artifact, threads=1) as model:
        yield model


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 28, 28, 1)).astype(np.uint8)


def _twin(model, live: int) -> torch.nn.Module:
    """The same network in torch, with a Linear of the live classes alone."""
    twin = small_cnn_torch(seed=3)
    twin.fc = torch.nn.Linear(3136, live)
    parameters = model.parameters()
    with torch.no_grad():
        twin.fc.weight.copy_(torch.from_numpy(parameters["fc.weight.head"][:live]))
        twin.fc.bias.copy_(torch.from_numpy(parameters["fc.bias.head"][:live]))
    return twin.double()


def _seen_by_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(((images / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2))


def test_it_takes_images_and_says_so(model, artifact) -> None:
    assert [(info.name, info.shape, info.dtype) for info in model.inputs] == [("x", (2, 28, 28, 1), np.uint8)]
    assert model.outputs[0].shape == (2, CLASSES)
    assert model.trained == ("fc.weight.head", "fc.bias.head")
    manifest = read_artifact(artifact).manifest
    assert manifest["new_head"] == {"classes": CLASSES, "node": None, "seed": 7}
    assert manifest["images"] == {"x": {"mean": [MEAN], "std": [STD]}}


@pytest.mark.parametrize("live", [1, 4, CLASSES])
def test_training_it_is_training_torchs_linear_of_the_live_classes(artifact, live: int) -> None:
    """Five steps with momentum; the rows of other classes stay to the bit."""
    images, labels = _images(BATCH), np.random.default_rng(2).integers(0, live, BATCH)
    with edgec.load(artifact, threads=1) as model:
        before, twin = model.parameters(), _twin(model, live)
        optimizer = torch.optim.SGD(twin.fc.parameters(), lr=1e-3, momentum=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(twin(_seen_by_torch(images)), torch.from_numpy(labels))
            loss.backward()
            optimizer.step()
            got = model.step({"x": images, "labels": labels}, lr=1e-3, classes=live)
            assert got == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
        after = model.parameters()
        weight = twin.fc.weight.detach().numpy()
        np.testing.assert_allclose(after["fc.weight.head"][:live], weight, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(after["fc.weight.head"][live:], before["fc.weight.head"][live:])
        scores = twin(_seen_by_torch(images[:2])).detach().numpy()
        np.testing.assert_allclose(
            model.run({"x": images[:2], "classes": live})["logits"][:, :live], scores, rtol=1e-4, atol=1e-5
        )


def test_classes_are_added_without_compiling_again(model) -> None:
    images = _images(BATCH)
    few = {"x": images, "labels": np.array([0, 1, 2] * 2 + [0, 1])}
    more = {"x": images, "labels": np.array([0, 1, 2, 3] * 2)}
    assert np.isfinite(model.step(few, lr=1e-3, classes=3))
    before = model.parameters()
    with pytest.raises(RuntimeFailure, match=r"`labels`\[3\] is 3: it must be less than `classes`"):
        model.step(more, lr=1e-3, classes=3)
    np.testing.assert_array_equal(model.parameters()["fc.weight.head"], before["fc.weight.head"])
    assert np.isfinite(model.step(more, lr=1e-3, classes=4))
    outputs = model.run({"x": images[:2], "classes": 4})["logits"]
    assert (outputs[:, :4].max(axis=1) > outputs[:, 4:].max(axis=1)).all()
    for wrong in (0, CLASSES + 1):
        with pytest.raises(RuntimeFailure, match=f"`classes` is {wrong}, outside 1 to {CLASSES}"):
            model.run({"x": images[:2], "classes": wrong})


def test_a_device_takes_live_classes_and_images(folder, tmp_path) -> None:
    out = tmp_path / "arm.edge"
    head, image = edgec.NewHead(CLASSES, "fc", seed=1), edgec.ImageInput((MEAN,), (STD,))
    edgec.compile(folder / "cnn.onnx", target=("x86", "rpi4"), batch=2, new_head=head, images={"x": image}, out=out)
    images = _images(2)
    with edgec.load(out, threads=1) as model:
        for feeds in ({"x": images}, {"x": images, "classes": np.int32(4)}):
            there = run_on_device("qemu", out, "infer", feeds)
            np.testing.assert_allclose(there.outputs["logits"], model.run(feeds)["logits"], rtol=1e-4, atol=1e-5)


def test_the_fine_tuning_loop_takes_live_classes(artifact, folder, capsys) -> None:
    np.savez(folder / "data.npz", x=_images(16), labels=np.arange(16) % 4)
    words = ["train", str(artifact), "--data", str(folder / "data.npz"), "--eval-data", str(folder / "data.npz")]
    words += ["--epochs", "1", "--lr", "0.001", "--json"]
    losses = {}
    for classes in (4, CLASSES):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--classes", str(classes)])
        record = json.loads(capsys.readouterr().out)
        assert caught.value.code == 0
        losses[classes] = [*record["losses"], record["evaluations"][0]["loss"]]
    # Fewer classes to choose from: every sample's loss is less.
    assert all(few < all_ for few, all_ in zip(losses[4], losses[CLASSES], strict=True))
    with pytest.raises(SystemExit) as caught:
        main([*words, "--classes", "3"])
    assert caught.value.code == 1 and "E0604" in capsys.readouterr().err


def test_all_classes_live_where_nobody_says(model) -> None:
    images = _images(2)
    np.testing.assert_array_equal(
        model.run({"x": images})["logits"], model.run({"x": images, "classes": CLASSES})["logits"]
    )


def test_what_needs_the_old_head_is_refused(artifact, folder, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(folder / "cnn.onnx"), str(artifact)])
    assert caught.value.code == 1 and "error[E0111]: the artifact has a new head" in capsys.readouterr().err


def test_images_alone_agree_with_onnxruntime(folder, capsys) -> None:
    image = edgec.ImageInput((MEAN,), (STD,))
    edgec.compile(folder / "cnn.onnx", batch=2, images={"x": image}, out=folder / "images.edge")
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(folder / "cnn.onnx"), str(folder / "images.edge"), "--json"])
    assert caught.value.code == 0
    assert 0 < json.loads(capsys.readouterr().out)["outputs"]["logits"]["relative"] < 1e-5


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--new-head", "none"], 2, "not of the form N or N:NODE"),
        (["--new-head", "5:conv7"], 1, "error[E0111]: node `conv7` is no dense layer"),
        (["--input-image", "x=0.5"], 2, "not of the form NAME=MEAN,STD"),
        (["--input-image", "0.5,0.5"], 2, "names no input"),
        (["--input-image", "y=0.5,0.5"], 1, "error[E0111]: the model has no input `y`"),
        (["--input-image", "x=0.5:0.5:0.5,1"], 1, "error[E0111]: 3 means or deviations for 1 channels"),
    ],
)
def test_wrong_options(folder, capsys, options: list[str], status: int, message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", str(folder / "cnn.onnx"), "--batch", "1", *options])
    assert caught.value.code == status and message in capsys.readouterr().err


def test_a_switch_is_fixed(folder):
    """The artifact has one input less, and `edgec verify` gives the model both."""
    scale, shift = (
        onnx.helper.make_graph([onnx.helper.make_node(op, ["x", "x"], ["z"])], op, [], [_info("z", None)])
        for op in ("Mul", "Add")
    )
    nodes = [
        onnx.helper.make_node("Equal", ["rate", "wanted"], ["same"]),
        onnx.helper.make_node("If", ["same"], ["y"], then_branch=scale, else_branch=shift),
    ]
    inputs = [_info("x", (1, 40)), onnx.helper.make_tensor_value_info("rate", onnx.TensorProto.INT32, ())]
    wanted = onnx.numpy_helper.from_array(np.array(16000, np.int32), "wanted")
    graph = onnx.helper.make_graph(nodes, "switch", inputs, [_info("y", (1, 40))], [wanted])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "switch.onnx")
    for words in (["compile", "switch.onnx", "--value", "rate=16000"], ["verify", "switch.onnx", "switch.edge"]):
        words = [str(folder / word) if word.startswith("switch.") else word for word in words]
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
    x = np.linspace(-1, 1, 40, dtype=np.float32)[None]
    with edgec.load(folder / "switch.edge") as model:
        assert [info.name for info in model.inputs] == ["x"]
        np.testing.assert_array_equal(model.run({"x": x})["y"], x * x)


def _info(name: str, shape: tuple[int, ...] | None) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
