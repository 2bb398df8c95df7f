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
    """Runs the nodes of `model` in order. It begins in eval mode, where batch norm is frozen: running statistics are
    buffers, scale and shift train. After `train()` norms take the statistics of the batch, and move the running ones.

    Weights are initializers or Constant nodes. A float tensor with one element is a constant, as a broadcast factor is
    in our own frontend. With `logits`, a final Softmax is left out.
    """

    def __init__(self, model: onnx.ModelProto, *, logits: bool = False):
        super().__init__()
        graph = model.graph
        self._slots: dict[str, str] = {}  # ONNX name to attribute name: torch refuses dots
        running = {n.input[i] for n in graph.node if n.op_type == "BatchNormalization" for i in (3, 4)}
        tensors = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                tensors[node.output[0]] = numpy_helper.to_array(node.attribute[0].t).copy()
        for name, array in tensors.items():
            if array.dtype != np.float32:
                continue
            self._slots[name] = slot = name.replace(".", "__")
            if array.size > 1 and name not in running:
                self.register_parameter(slot, torch.nn.Parameter(torch.from_numpy(array)))
            else:
                self.register_buffer(slot, torch.from_numpy(array))
        nodes = [node for node in graph.node if node.op_type != "Constant"]
        while logits and nodes[-1].op_type == "Identity":
            nodes.pop()
        if logits and nodes[-1].op_type == "Softmax":
            self._output = nodes.pop().input[0]
        else:
            self._output = graph.output[0].name
        self._input = next(i.name for i in graph.input if i.name not in tensors)
        self._steps = self._read(nodes, tensors)
        self.eval()

    def named_onnx_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trainable parameters under their ONNX names."""
        return {self._names[slot]: parameter for slot, parameter in self.named_parameters()}

    def named_onnx_buffers(self) -> dict[str, torch.Tensor]:
        """Running statistics and constants under their ONNX names."""
        return {self._names[slot]: buffer for slot, buffer in self.named_buffers()}

    def set_parameters(self, values: Mapping[str, np.ndarray]) -> None:
        """Of their ONNX names; shapes may be others, as of a head with more classes. Other names are passed over."""
        for name in self.named_onnx_parameters().keys() & values.keys():
            setattr(self, self._slots[name], torch.nn.Parameter(torch.from_numpy(values[name].copy())))

    @property
    def _names(self) -> dict[str, str]:
        return {slot: name for name, slot in self._slots.items()}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.values(x)[self._output]

    def values(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """All that the nodes compute, by ONNX name."""
        values = {name: getattr(self, slot) for name, slot in self._slots.items() if hasattr(self, slot)}
        values[self._input] = x
        for function, inputs, output in self._steps:
            values[output] = function(*[values[name] for name in inputs])
        return values

    def _read(
        self, nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, np.ndarray]
    ) -> list[tuple[Callable, list[str], str]]:
        """Of every node that computes: its function, its operands and its output."""
        steps = []
        shapes = {name for name, array in tensors.items() if array.dtype != np.float32}
        for node in nodes:
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            inputs = [name for name in node.input if name and name not in shapes]
            if node.op_type == "Shape" or (node.op_type != "Reshape" and not inputs):
                shapes.add(node.output[0])  # only reshapes read these, and those of activations are flattens here
                continue
            if node.op_type == "Reshape" and node.input[0] in tensors:
                function = _reshape(tensors[node.input[1]].tolist())
            elif node.op_type == "BatchNormalization":
                function = self._norm(attrs)
            else:
                function = _function(node.op_type, attrs)
            steps.append((function, inputs, node.output[0]))
        return steps

    def _norm(self, a: dict) -> Callable:
        """ONNX's momentum is the part that is kept, torch's the part that is new."""
        new = 1 - a.get("momentum", 0.9)
        return lambda x, gamma, beta, mean, variance: F.batch_norm(
            x, mean, variance, gamma, beta, self.training, new, a.get("epsilon", 1e-5)
        )


def _reshape(shape: list[int]) -> Callable:
    """Of a weight: as it says."""
    return lambda x: x.reshape(shape)


def _hard_swish(x: torch.Tensor) -> torch.Tensor:
    """torch's own rounds 1/6 to f32 in double precision too."""
    return F.hardswish(x) if x.dtype == torch.float32 else x * torch.clamp(x + 3, 0, 6) / 6


def _function(op: str, a: dict) -> Callable:
    if op == "Conv":
        top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
        if (top, left) != (bottom, right):
            raise NotImplementedError("asymmetric padding")
        return lambda x, w, b=None: F.conv2d(
            x, w, b, a.get("strides", (1, 1)), (top, left), a.get("dilations", (1, 1)), a.get("group", 1)
        )
    if op == "Gemm":
        if not a.get("transB"):
            return lambda x, w, b=None: F.linear(x, w.t(), b)
        return F.linear
    if op == "MaxPool":
        return lambda x: F.max_pool2d(x, a["kernel_shape"], a.get("strides", 1), a.get("pads", (0, 0))[0])
    if op == "AveragePool":
        pads = a.get("pads", (0, 0))[0]
        padded = bool(a.get("count_include_pad", 0))
        return lambda x: F.avg_pool2d(x, a["kernel_shape"], a.get("strides", 1), pads, count_include_pad=padded)
    if op == "HardSigmoid":
        return lambda x: torch.clamp(x * a["alpha"] + a["beta"], 0.0, 1.0)
    simple: dict[str, Callable] = {
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Div": torch.div,
        "Clip": torch.clamp,
        "Sum": lambda *terms: sum(terms[1:], terms[0]),
        "MatMul": torch.matmul,
        "Relu": F.relu,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "HardSwish": _hard_swish,
        "Identity": lambda x: x,
        "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
        "Softmax": lambda x: F.softmax(x, -1),
        "Reshape": lambda x: x.flatten(1),
        "Flatten": lambda x: x.flatten(1),
    }
    return simple[op]
