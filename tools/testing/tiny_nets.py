"""Three image classifiers for micro-controllers: MobileNetV2 w0.35, ProxylessNAS w0.3, MCUNet-5fps.

The structures on which sparse schemes were published (Lin et al. 2022, arXiv:2206.15472): images of 128x128, inverted
residual blocks, and no convolution behind the last block. Convolutions are called `conv0` to `conv50` in the order in
which they run, as the schemes number them; the classifier is `fc`. `tiny_net` has them as they are deployed, batch
norms folded into biases; `tiny_net_onnx` as they are trained.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops import Add, Clip, Conv2d, MatMul, ReduceMean, Reshape
from edgec.graph.types import DType, tensor

# Input, expanded and output channels, kernel, stride, R for residual, and how many: the first block expands nothing.
STRUCTURES = {
    "mbv2": "16-16-8k3s1 8-48-8k3s2 8-48-8k3s1R 8-48-16k3s2 16-96-16k3s1Rx2 16-96-24k3s2 24-144-24k3s1Rx3 "
    "24-144-32k3s1 32-192-32k3s1Rx2 32-192-56k3s2 56-336-56k3s1Rx2 56-336-112k3s1",
    "mcunet": "16-16-8k3s1 8-32-16k3s2 16-48-16k3s1R 16-48-24k7s2 24-120-24k3s1R 24-120-40k3s2 40-160-40k7s1R "
    "40-160-48k5s1 48-144-48k3s1R 48-192-48k3s1R 48-240-96k7s2 96-384-96k5s1Rx2 96-576-160k3s1",
    "proxyless": "16-16-8k3s1 8-24-16k5s2 16-48-16k3s1R 16-48-16k7s2 16-48-16k3s1R 16-48-16k5s1Rx2 16-96-24k7s2 "
    "24-72-24k5s1Rx3 24-144-32k5s1 32-96-32k5s1Rx3 32-192-64k7s2 64-384-64k7s1R 64-192-64k7s1Rx2 64-384-96k7s1",
}
T = TypeVar("T")  # what stands for an activation
_BLOCK = re.compile(r"(\d+)-(\d+)-(\d+)k(\d)s(\d)(R?)(?:x(\d))?")


@dataclass(frozen=True)
class Block:
    """One inverted residual: 1x1 to `expanded` channels, depthwise, 1x1 to `output`; relu6 behind the first two."""

    input: int
    expanded: int
    output: int
    kernel: int
    stride: int
    residual: bool


def blocks(name: str) -> list[Block]:
    found = []
    for word in STRUCTURES[name].split():
        *numbers, residual, times = _BLOCK.fullmatch(word).groups()
        found += [Block(*map(int, numbers), bool(residual))] * int(times or 1)
    return found


def tiny_net(name: str, *, classes: int = 10, size: int = 128, seed: int = 0) -> Module:
    """x f32[1,3,size,size] -> logits f32[1,classes]; weights are He-normal, biases in +-0.1."""
    net = _GraphNet(seed)
    x = net.graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 1, 3, size, size))
    net.graph.outputs["logits"] = net.build(x, blocks(name), classes)
    return Module({"infer": net.graph})


def tiny_net_onnx(name: str, *, classes: int = 10, size: int = 128, channels: int = 3, seed: int = 0) -> ModelProto:
    """x f32[N,channels,size,size] -> logits f32[N,classes], N dynamic, as it is before it is trained.

    Behind every convolution stands a batch norm (`norm0`, ...), at 1, 0 and the statistics 0 and 1; weights are
    He-normal.
    """
    net = _OnnxNet(seed)
    net.build(("x", channels), blocks(name), classes)
    graph = helper.make_graph(
        net.nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in net.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


class _Net(ABC, Generic[T]):
    """The structure, of what stands for an activation in some kind of model."""

    def __init__(self, seed: int):
        self.rng, self.convolutions = np.random.default_rng(seed), 0

    def build(self, x: T, found: list[Block], classes: int) -> T:
        x = self.relu6(self.conv(x, 16, 3, stride=2))
        for block in found:
            x = self.block(x, block)
        return self.head(x, classes)

    def block(self, x: T, block: Block) -> T:
        y = x
        if block.expanded != block.input:
            y = self.relu6(self.conv(y, block.expanded, 1))
        y = self.relu6(self.conv(y, block.expanded, block.kernel, stride=block.stride, groups=block.expanded))
        y = self.conv(y, block.output, 1)
        return self.add(x, y) if block.residual else y

    def next_name(self) -> str:
        self.convolutions += 1
        return f"conv{self.convolutions - 1}"

    def he_normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))

    @abstractmethod
    def conv(self, x: T, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> T: ...

    @abstractmethod
    def relu6(self, x: T) -> T: ...

    @abstractmethod
    def add(self, x: T, y: T) -> T: ...

    @abstractmethod
    def head(self, x: T, classes: int) -> T: ...


class _GraphNet(_Net[Value]):
    def __init__(self, seed: int):
        super().__init__(seed)
        self.graph = Graph("infer")

    def conv(self, x: Value, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> Value:
        name = self.next_name()
        weight = self.param(f"{name}.weight", self.he_normal(out, x.type.shape[1] // groups, kernel, kernel))
        op = Conv2d((stride, stride), (kernel // 2,) * 4, groups=groups)
        y = self.graph.emit1(op, x, weight, name=name, source=name)
        bias = self.param(f"{name}.bias", self.rng.uniform(-0.1, 0.1, out))
        return self.graph.emit1(Add(), y, self.graph.emit1(Reshape((out, 1, 1)), bias), source=name)

    def relu6(self, x: Value) -> Value:
        return self.graph.emit1(Clip(0.0, 6.0), x)

    def add(self, x: Value, y: Value) -> Value:
        return self.graph.emit1(Add(), x, y)

    def head(self, x: Value, classes: int) -> Value:
        x = self.graph.emit1(ReduceMean((2, 3)), x)
        weight = self.param("fc.weight", self.he_normal(classes, x.type.shape[1]))
        y = self.graph.emit1(MatMul(transpose_b=True), x, weight, source="fc")
        return self.graph.emit1(Add(), y, self.param("fc.bias", self.rng.uniform(-0.1, 0.1, classes)), source="fc")

    def param(self, name: str, array: np.ndarray) -> Value:
        data = array.astype(np.float32)
        return self.graph.add_leaf(Role.PARAM, name, tensor(DType.F32, *data.shape), data=data)


class _OnnxNet(_Net[tuple[str, int]]):
    """An activation is its name and its channels."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def conv(self, x: tuple[str, int], out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> tuple[str, int]:
        name, (before, channels) = self.next_name(), x
        self.weights[f"{name}.weight"] = self.he_normal(out, channels // groups, kernel, kernel)
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        y = self.emit("Conv", name, before, f"{name}.weight", group=groups, **sizes)
        norm = name.replace("conv", "norm")
        begin = {"weight": np.ones, "bias": np.zeros, "running_mean": np.zeros, "running_var": np.ones}
        self.weights |= {f"{norm}.{what}": values(out) for what, values in begin.items()}
        return self.emit("BatchNormalization", norm, y, *(f"{norm}.{what}" for what in begin)), out

    def relu6(self, x: tuple[str, int]) -> tuple[str, int]:
        self.weights |= {"zero": np.array(0), "six": np.array(6)}
        return self.emit("Clip", f"{x[0]}.relu6", x[0], "zero", "six"), x[1]

    def add(self, x: tuple[str, int], y: tuple[str, int]) -> tuple[str, int]:
        return self.emit("Add", f"{y[0]}.sum", x[0], y[0]), x[1]

    def head(self, x: tuple[str, int], classes: int) -> tuple[str, int]:
        self.weights |= {"fc.weight": self.he_normal(classes, x[1]), "fc.bias": np.zeros(classes)}
        pooled = self.emit("GlobalAveragePool", "pool", x[0])
        flat = self.emit("Flatten", "flat", pooled)
        self.nodes.append(helper.make_node("Gemm", [flat, "fc.weight", "fc.bias"], ["logits"], "fc", transB=1))
        return "logits", classes

    def emit(self, op: str, name: str, *inputs: str, **attributes: object) -> str:
        output = f"{name}.out"
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output
