"""Small nets of convolutions of every kind, with the weights that the caller wants: for tests of sparse updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.graph.ir import Module
from edgec.graph.parse import parse_module

SIDE = 4  # a mean over 16 elements rounds nothing
KINDS = ("plain", "pointwise", "grouped", "depthwise", "tied")


@dataclass(frozen=True)
class Layer:
    """A convolution; a tied one is there twice."""

    kind: str
    inputs: int
    outputs: int

    @property
    def weight(self) -> tuple[int, ...]:
        groups = self.groups
        kernel = 1 if self.kind == "pointwise" else 3
        return (self.outputs, self.inputs // groups, kernel, kernel)

    @property
    def groups(self) -> int:
        return {"grouped": 3, "depthwise": self.inputs}.get(self.kind, 1)

    def text(self, number: int, source: str) -> str:
        attributes = f"pads=({', '.join(['1' if self.weight[2] == 3 else '0'] * 4)}), groups={self.groups}"
        shape = f"f64[1,{self.outputs},{SIDE},{SIDE}]"
        lines = [f"%c{number}: {shape} = conv2d(%{source}, %w{number}) {{{attributes}}}"]
        last = f"c{number}"
        if self.kind == "tied":
            lines.append(f"%t{number}: {shape} = conv2d(%c{number}, %w{number}) {{{attributes}}}")
            last = f"t{number}"
        return "\n".join([*lines, f"%r{number}: {shape} = relu(%{last})"])


def module_of(layers: Sequence[Layer]) -> Module:
    """x f64[1,C,4,4] -> y f64[1,4]; weights `w0`, `w1`, ... and `fc`, without values."""
    params = "\n".join(f"param %w{i}: f64[{','.join(map(str, one.weight))}]" for i, one in enumerate(layers))
    body = "\n".join(one.text(i, f"r{i - 1}" if i else "x") for i, one in enumerate(layers))
    last = layers[-1].outputs
    return parse_module(
        f"graph infer {{\ninput %x: f64[1,{layers[0].inputs},{SIDE},{SIDE}]\n{params}\nparam %fc: f64[4,{last}]\n"
        f"{body}\n%m: f64[1,{last}] = reduce_mean(%r{len(layers) - 1}) {{axes=(2,3)}}\n"
        '%y: f64[1,4] = matmul(%m, %fc) {transpose_b=true}\noutput "y" = %y\n}'
    )


def fill(module: Module, rng: np.random.Generator, *, whole: bool) -> None:
    """Whole numbers, whose sums are the same in any order, or normal ones."""
    for leaf in module.programs["infer"].leaves.values():
        if leaf.name != "x":
            shape = leaf.type.shape
            leaf.data = rng.integers(-2, 3, shape).astype(np.float64) if whole else rng.standard_normal(shape) / 2
