"""A model's last dense layer with other classes: what `--new-head` made, written into the ONNX model it came from.

Only what says how many classes there are changes: the layer's weight and bias, and the shapes of the outputs. They keep
their names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from edgec.graph.errors import UserError

_LAYERS = ("Gemm", "MatMul", "FusedGemm", "FusedMatMul", "Conv")
_ALIKE = ("Add", "Sub", "Softmax", "LogSoftmax", "Sigmoid", "Identity", "Flatten", "Squeeze", "Cast", "Tanh", "Relu")


def replace_head(
    model: ModelProto, tensors: Mapping[str, TensorProto], head: Mapping[str, np.ndarray], where: str
) -> None:
    """Give the initializers named in `head` the shapes of its values, and the outputs so many classes, in place.

    UserError E0111 where another than one axis differs, where something else reads the layer's weights, or where a node
    behind the layer may not treat all classes alike: the model would not be the one that was trained.
    """
    graph = model.graph
    sizes = {_class_sizes(name, tensors[name], value, where) for name, value in head.items()}
    if len(sizes) != 1:
        raise _refusal("the parameters of its head differ in their number of classes", where)
    ((old, new),) = sizes
    behind: set[str] = set()
    for node in graph.node:
        readers = [name for name in node.input if name in head]
        if readers and not (node.op_type in _LAYERS or (node.op_type in ("Add", "Sub") and behind & set(node.input))):
            raise _refusal(f"{node.op_type} `{node.name}` reads `{readers[0]}`", where)
        if behind & set(node.input) and node.op_type not in _ALIKE:
            raise _refusal(f"{node.op_type} `{node.name}` stands behind the head", where)
        if readers or behind & set(node.input):
            behind.update(node.output)
    for name, value in head.items():
        del tensors[name].dims[:]
        tensors[name].dims.extend(value.shape)
    if old != new:
        _reshape_values(graph, behind, old, new)


def _class_sizes(name: str, tensor: TensorProto, value: np.ndarray, where: str) -> tuple[int, int]:
    """Classes before and after: where the shapes differ; zeros where they do not."""
    pairs = list(zip(tensor.dims, value.shape, strict=False))
    differing = [pair for pair in pairs if pair[0] != pair[1]]
    if tuple(tensor.dims) == value.shape:
        return 0, 0
    if len(tensor.dims) != value.ndim or len(differing) != 1:
        raise _refusal(f"`{name}` has the shape {list(value.shape)}, in the model {list(tensor.dims)}", where)
    return differing[0]


def _reshape_values(graph: GraphProto, behind: set[str], old: int, new: int) -> None:
    """Of values behind the head: the last extent that is the old number of classes is the new one."""
    kept = [info for info in graph.value_info if info.name not in behind]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for output in graph.output:
        dims = output.type.tensor_type.shape.dim
        places = [dim for dim in dims if output.name in behind and dim.dim_value == old]
        if places:
            places[-1].dim_value = new


def _refusal(what: str, where: str) -> UserError:
    hint = "-o weights.safetensors writes all weights; those of the head have names that end in `.head`"
    return UserError("E0111", f"the new head has no place in the model: {what}", where=where, hint=hint)
