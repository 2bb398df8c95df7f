"""Parameter groups: another rate or weight decay for parameters by name, and which of them are weights at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from edgec.compiler.sparse.scheme import source_name
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Node, Role, Value
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.matmul import MatMul


@dataclass(frozen=True)
class ParameterGroup:
    """The parameters whose names match `pattern` (as in a shell: `*.bias`, `layer[0-3].*`).

    rate: times the learning rate of the step. weight_decay: instead of the optimizer's, None for that one.
    """

    pattern: str
    rate: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or not self.pattern:
            raise _wrong("pattern", self.pattern, "a pattern of parameter names is needed, as in `*.bias`")
        if not _is_number(self.rate):
            raise _wrong("rate", self.rate, "the rate multiplier is finite and not negative")
        if self.weight_decay is not None and not _is_number(self.weight_decay):
            raise _wrong("weight_decay", self.weight_decay, "the weight decay is finite and not negative")

    def holds(self, name: str) -> bool:
        return fnmatchcase(source_name(name), self.pattern)


def weights_of(graph: Graph) -> set[str]:
    """Names of the parameters that a convolution, a product or a lookup reads, perhaps scaled by their batch norm.

    What is added to activations or normalises them (biases, gamma, beta) is none: weight decay pulls it where it has no
    business. Nor is a scale that is folded into a weight, which is smaller than what comes of it.
    """
    fixed = {leaf for leaf in graph.leaves.values() if leaf.role in (Role.PARAM, Role.CONSTANT)}
    behind = {leaf: {leaf} for leaf in graph.by_role(Role.PARAM)}
    found: set[Value] = set()
    for node in graph.nodes:
        for slot, value in enumerate(node.inputs):
            if _multiplies(node, slot):
                found |= behind.get(value, set())
        if all(value in fixed for value in node.inputs):
            size = node.outputs[0].type.size
            whole = isinstance(node.op, Concat)  # of the pieces of one weight
            own = {p for value in node.inputs for p in behind.get(value, set()) if whole or p.type.size == size}
            fixed.update(node.outputs)
            behind.update(dict.fromkeys(node.outputs, own))
    return {param.name for param in found}


def _multiplies(node: Node, slot: int) -> bool:
    if isinstance(node.op, Conv2d | Conv2dInputGrad):
        return slot == 1
    return isinstance(node.op, MatMul) or (isinstance(node.op, Gather) and slot == 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value and math.isfinite(value)


def _wrong(name: str, value: Any, message: str) -> UserError:
    return UserError("E0302", f"{name} = {value!r}: {message}", where=f"groups: {name}")
