"""Three image classifiers for micro-controllers, as graphs: MobileNetV2 w0.35, ProxylessNAS w0.3, MCUNet-5fps.

The structures on which sparse schemes were published (Lin et al. 2022, arXiv:2206.15472): images of 128x128, inverted
residual blocks, batch norms folded into biases, and no convolution behind the last block. Convolutions are called
`conv0` to `conv50` in the order in which they run, as the schemes number them; the classifier is `fc`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

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
    return _Net(seed).build(blocks(name), classes, size)


class _Net:
    def __init__(self, seed: int):
        self.graph, self.rng, self.convolutions = Graph("infer"), np.random.default_rng(seed), 0

    def build(self, found: list[Block], classes: int, size: int) -> Module:
        x = self.graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 1, 3, size, size))
        x = self.relu6(self.conv(x, 16, 3, stride=2))
        for block in found:
            x = self.block(x, block)
        x = self.graph.emit1(ReduceMean((2, 3)), x)
        channels = x.type.shape[1]
        y = self.graph.emit1(MatMul(transpose_b=True), x, self.weight("fc.weight", classes, channels), source="fc")
        y = self.graph.emit1(Add(), y, self.param("fc.bias", self.rng.uniform(-0.1, 0.1, classes)), source="fc")
        self.graph.outputs["logits"] = y
        return Module({"infer": self.graph})

    def block(self, x: Value, block: Block) -> Value:
        y = x
        if block.expanded != block.input:
            y = self.relu6(self.conv(y, block.expanded, 1))
        y = self.relu6(self.conv(y, block.expanded, block.kernel, stride=block.stride, groups=block.expanded))
        y = self.conv(y, block.output, 1)
        return self.graph.emit1(Add(), x, y) if block.residual else y

    def conv(self, x: Value, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> Value:
        name = f"conv{self.convolutions}"
        self.convolutions += 1
        weight = self.weight(f"{name}.weight", out, x.type.shape[1] // groups, kernel, kernel)
        op = Conv2d((stride, stride), (kernel // 2,) * 4, groups=groups)
        y = self.graph.emit1(op, x, weight, name=name, source=name)
        bias = self.param(f"{name}.bias", self.rng.uniform(-0.1, 0.1, out))
        return self.graph.emit1(Add(), y, self.graph.emit1(Reshape((out, 1, 1)), bias), source=name)

    def relu6(self, x: Value) -> Value:
        return self.graph.emit1(Clip(0.0, 6.0), x)

    def weight(self, name: str, *shape: int) -> Value:
        return self.param(name, self.rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:])))

    def param(self, name: str, array: np.ndarray) -> Value:
        data = array.astype(np.float32)
        return self.graph.add_leaf(Role.PARAM, name, tensor(DType.F32, *data.shape), data=data)
