"""One model written twice, as a float64 graph and in torch, and what graphs are written with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops import Add, BatchNorm, Conv2d, MatMul, Reshape
from edgec.graph.types import DType, TensorType

Weights = dict[str, torch.Tensor]


@dataclass
class Twins:
    """One model as a graph with a batch of one and as a torch function from weights and x to logits.

    `forward_train` is that in training mode: batch norms take the statistics of the batch, and move those of `weights`.
    """

    module: Module
    forward: Callable[[Weights, torch.Tensor], torch.Tensor]
    x_shape: tuple[int, ...]  # of one image
    classes: int
    forward_train: Callable[[Weights, torch.Tensor], torch.Tensor] | None = None

    def weights(self) -> Weights:
        """Fresh float64 tensors of all parameters; those of the graph's own data."""
        leaves = self.module.programs["infer"].by_role(Role.PARAM)
        return {leaf.name: torch.tensor(leaf.data) for leaf in leaves}

    def batch(self, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels."""
        rng = np.random.default_rng(seed)
        return rng.standard_normal((size, *self.x_shape)), rng.integers(0, self.classes, size)


@dataclass
class Build:
    """Writes a float64 `infer` program."""

    rng: np.random.Generator
    graph: Graph = field(default_factory=lambda: Graph("infer"))

    def input(self, *shape: int) -> Value:
        return self.graph.add_leaf(Role.INPUT, "x", TensorType(DType.F64, shape))

    def param(self, name: str, array: np.ndarray) -> Value:
        return self.graph.add_leaf(Role.PARAM, name, TensorType(DType.F64, array.shape), data=array)

    def weight(self, name: str, *shape: int) -> Value:
        fan_in = int(np.prod(shape[1:]))
        return self.param(name, self.rng.standard_normal(shape) * (2 / fan_in) ** 0.5)

    def vector(self, name: str, size: int, low: float = -0.3, high: float = 0.3) -> Value:
        return self.param(name, self.rng.uniform(low, high, size))

    def __call__(self, op: object, *operands: Value) -> Value:
        return self.graph.emit1(op, *operands, source=f"{op.name}_{len(self.graph.nodes)}")

    def conv(self, name: str, x: Value, out: int, kernel: int, *, bias: bool = False, **attributes: object) -> Value:
        channels = x.type.shape[1] // attributes.get("groups", 1)
        y = self(Conv2d(**attributes), x, self.weight(f"{name}.weight", out, channels, kernel, kernel))
        return self(Add(), y, self(Reshape((out, 1, 1)), self.vector(f"{name}.bias", out))) if bias else y

    def norm(self, name: str, x: Value) -> Value:
        size = x.type.shape[1]
        gamma = self.vector(f"{name}.gamma", size, 0.5, 1.5)
        beta, mean = self.vector(f"{name}.beta", size), self.vector(f"{name}.mean", size)
        return self(BatchNorm(1e-3), x, gamma, beta, mean, self.vector(f"{name}.variance", size, 0.5, 2.0))

    def dense(self, name: str, x: Value, out: int) -> Value:
        y = self(MatMul(transpose_b=True), x, self.weight(f"{name}.weight", out, x.type.shape[-1]))
        return self(Add(), y, self.vector(f"{name}.bias", out))

    def finish(self, output: Value) -> Module:
        self.graph.outputs["y"] = output
        return Module({"infer": self.graph})
