"""The torch twin of an ONNX model: the peer for gradients, training curves and timings.

Covers the convolutional models that this repository's tests and benchmarks use; parameters keep their ONNX names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F


class OnnxTwin(torch.nn.Module):
    """Runs the nodes of `model` in order. Batch norm is frozen: running statistics are buffers, scale and shift train.

    A float initializer with one element is a constant, as a broadcast factor is in our own frontend. With `logits`, a
    final Softmax is left out.

    `regions` maps names of activation nodes to the values that another implementation fed them: the piece of a
    piecewise activation is then chosen by those, so that a value within rounding of a kink takes the same side in both.
    """

    def __init__(
        self, model: onnx.ModelProto, *, logits: bool = False, regions: Mapping[str, np.ndarray] | None = None
    ):
        super().__init__()
        graph = model.graph
        self._slots: dict[str, str] = {}  # ONNX name to attribute name: torch refuses dots
        frozen = {n.input[i] for n in graph.node if n.op_type == "BatchNormalization" for i in (3, 4)}
        shapes: dict[str, np.ndarray] = {}
        for initializer in graph.initializer:
            array = numpy_helper.to_array(initializer).copy()
            shapes[initializer.name] = array
            slot = initializer.name.replace(".", "__")
            self._slots[initializer.name] = slot
            if array.dtype != np.float32:
                continue
            if array.size > 1 and initializer.name not in frozen:
                self.register_parameter(slot, torch.nn.Parameter(torch.from_numpy(array)))
            else:
                self.register_buffer(slot, torch.from_numpy(array))
        nodes = list(graph.node)
        if logits and nodes[-1].op_type == "Softmax":
            self._output = nodes.pop().input[0]
        else:
            self._output = graph.output[0].name
        self._input = next(i.name for i in graph.input if i.name not in shapes)
        integers = {name: array for name, array in shapes.items() if array.dtype != np.float32}
        self._steps = _steps(nodes, integers, regions or {})

    def named_onnx_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trainable parameters under their ONNX names."""
        names = {slot: name for name, slot in self._slots.items()}
        return {names[slot]: parameter for slot, parameter in self.named_parameters()}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {name: getattr(self, slot) for name, slot in self._slots.items() if hasattr(self, slot)}
        values[self._input] = x
        for function, inputs, output in self._steps:
            values[output] = function(*[values[name] for name in inputs])
        return values[self._output]


def _steps(
    nodes: Sequence[onnx.NodeProto], integers: dict[str, np.ndarray], regions: Mapping[str, np.ndarray]
) -> list[tuple[Callable, list[str], str]]:
    steps = []
    shape_values: set[str] = set(integers)
    for node in nodes:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs = [name for name in node.input if name and name not in shape_values]
        if node.op_type in ("Shape", "Constant") or (node.op_type != "Reshape" and not inputs):
            shape_values.add(node.output[0])  # only reshapes read these, and they are flattens here
            continue
        function = _function(node.op_type, attrs)
        if node.name in regions:
            function = _forced(node.op_type, attrs, torch.from_numpy(regions[node.name]))
        steps.append((function, inputs, node.output[0]))
    return steps


def _forced(op: str, a: dict, fed: torch.Tensor) -> Callable:
    """A piecewise activation whose pieces are chosen by `fed` instead of its own operand."""
    if op == "Relu":
        return lambda x: torch.where(fed > 0, x, 0.0)
    if op == "HardSwish":
        return lambda x: torch.where(fed <= -3, 0.0 * x, torch.where(fed >= 3, x, x * (x + 3) / 6))
    if op == "HardSigmoid":
        inside = (fed * a["alpha"] + a["beta"] > 0) & (fed * a["alpha"] + a["beta"] < 1)
        return lambda x: torch.where(inside, x * a["alpha"] + a["beta"], (fed > 0).to(x.dtype))
    raise NotImplementedError(op)


def _function(op: str, a: dict) -> Callable:
    if op == "Conv":
        top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
        if (top, left) != (bottom, right):
            raise NotImplementedError("asymmetric padding")
        return lambda x, w, b=None: F.conv2d(
            x, w, b, a.get("strides", (1, 1)), (top, left), a.get("dilations", (1, 1)), a.get("group", 1)
        )
    if op == "BatchNormalization":
        return lambda x, gamma, beta, mean, var: F.batch_norm(x, mean, var, gamma, beta, False, 0.0, a["epsilon"])
    if op == "Gemm":
        if not a.get("transB"):
            return lambda x, w, b=None: F.linear(x, w.t(), b)
        return F.linear
    if op == "MaxPool":
        return lambda x: F.max_pool2d(x, a["kernel_shape"], a.get("strides", 1), a.get("pads", (0, 0))[0])
    if op == "HardSigmoid":
        return lambda x: torch.clamp(x * a["alpha"] + a["beta"], 0.0, 1.0)
    simple: dict[str, Callable] = {
        "Add": torch.add,
        "Mul": torch.mul,
        "MatMul": torch.matmul,
        "Relu": F.relu,
        "HardSwish": F.hardswish,
        "Identity": lambda x: x,
        "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
        "Softmax": lambda x: F.softmax(x, -1),
        "Reshape": lambda x: x.flatten(1),
        "Flatten": lambda x: x.flatten(1),
    }
    return simple[op]
