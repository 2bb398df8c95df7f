"""The nine classic image classifiers that the onnx wheel ships as structures (Apache-2.0), with weights that live.

The wheel fills their weights with single numbers, so that every input gives the same output. Here they are drawn:
He-normal (He et al. 2015), scales of norms in [0.5, 1.5], shifts in [-0.3, 0.3], and the statistics of norms are those
of given images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

LIGHT_MODELS = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)

_FILL = "ConstantOfShape"


def light_model_path(name: str) -> Path:
    """The structure as the wheel ships it: one image f32[1,3,224,224] -> 1000 probabilities."""
    return Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"


def light_model(name: str, images: np.ndarray, seed: int = 0) -> ModelProto:
    """The model with living weights. `images` f32[n,3,224,224] make the statistics of its norms."""
    model = onnx.load(light_model_path(name))
    weights = dict(_draw(model, np.random.default_rng(seed)))
    _replace(model, weights)
    _replace(model, _measure_norms(model, images))
    onnx.checker.check_model(model)
    return model


def save_light_model(name: str, path: Path, images: np.ndarray, seed: int = 0) -> Path:
    """`light_model` as a file, its weights (half a gigabyte for some) in another one beside it."""
    onnx.save_model(light_model(name, images, seed), path, save_as_external_data=True, location=f"{path.name}.data")
    return path


def input_name(model: ModelProto) -> str:
    """The name of the one input that is no initializer."""
    weights = {tensor.name for tensor in model.graph.initializer}
    (name,) = (item.name for item in model.graph.input if item.name not in weights)
    return name


def _draw(model: ModelProto, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight by name: what layers and norms read, directly or as another shape."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == _FILL:
            shapes[node.output[0]] = tuple(numpy_helper.to_array(known[node.input[0]]).tolist())
    readers = {name: (node, index) for node in model.graph.node for index, name in enumerate(node.input)}
    for name, shape in shapes.items():
        if name in readers:
            node, index = readers[name]
            while node.op_type in ("Unsqueeze", "Reshape") and index == 0:
                node, index = readers[node.output[0]]
            array = _weight(node.op_type, index, shape, rng)
            if array is not None:
                yield name, array.astype(np.float32, copy=False)


def _weight(op: str, index: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray | None:
    """A weight for input `index` of an operator; None for what is no weight."""
    match op, index:
        case "Conv", 1:
            return _he_normal(rng, shape, math.prod(shape[1:]))
        case "Gemm", 1:
            return _he_normal(rng, shape, shape[-1])  # all of them are transposed
        case ("BatchNormalization", 1) | ("Mul", _):
            return rng.uniform(0.5, 1.5, shape)
        case ("BatchNormalization", 3):
            return np.zeros(shape)
        case ("BatchNormalization", 4):
            return np.ones(shape)
        case ("BatchNormalization" | "Conv" | "Gemm", 2) | ("Add", _):
            return rng.uniform(-0.3, 0.3, shape)
    return None


def _he_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan_in))


def _replace(model: ModelProto, weights: dict[str, np.ndarray]) -> None:
    """Let `weights` be initializers, in place of those of their names and of the nodes that fill them."""
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type != _FILL or node.output[0] not in weights]
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read and tensor.name not in weights]
    inputs = [item for item in graph.input if item.name in read]
    for field, items in ((graph.node, nodes), (graph.initializer, kept), (graph.input, inputs)):
        del field[:]
        field.extend(items)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    declared = {item.name for item in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in weights.items()
        if name not in declared  # before version 4 of the format every initializer is an input
    )


def _measure_norms(model: ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    """Means and variances of all norms on `images`, each behind norms that have theirs, by the names of the weights."""
    twin = ModelProto()
    twin.CopyFrom(model)
    graph = twin.graph
    measured = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            x = node.input[0]
            mean, var = (f"{x}.{what}" for what in ("mean", "var"))
            measured |= {node.input[3]: mean, node.input[4]: var}
            nodes += [
                helper.make_node("ReduceMean", [x], [mean], axes=[0, 2, 3]),
                helper.make_node("Sub", [x, mean], [f"{x}.centred"]),
                helper.make_node("Mul", [f"{x}.centred"] * 2, [f"{x}.squares"]),
                helper.make_node("ReduceMean", [f"{x}.squares"], [var], axes=[0, 2, 3]),
                helper.make_node("Sqrt", [var], [f"{x}.deviation"]),
                helper.make_node("Div", [f"{x}.centred", f"{x}.deviation"], [f"{x}.normal"]),
            ]
            node.input[0] = f"{x}.normal"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _free_batch(twin, len(images))
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in measured.values())
    if not measured:
        return {}
    session = onnxruntime.InferenceSession(twin.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(list(measured.values()), {input_name(model): images})
    return {name: result.reshape(-1) for name, result in zip(measured, results, strict=True)}


def _free_batch(model: ModelProto, batch: int) -> None:
    """Let the model take `batch` images: its input says 1, and so do the shapes that it gives to activations."""
    (data,) = (item for item in model.graph.input if item.name == input_name(model))
    data.type.tensor_type.shape.dim[0].dim_value = batch
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[0] not in weights:
            shape = weights[node.input[1]]
            array = numpy_helper.to_array(shape).copy()
            array[0] = 0  # as it was
            shape.CopyFrom(numpy_helper.from_array(array, shape.name))
