"""Pass `normalise_input`: inputs that take u8 images [N,H,W,C], normalised inside the program.

The model's [N,C,H,W] is pixel * scale + shift per channel, with 1 / (255 std) and -mean / std folded beforehand.

Requires CANONICAL. Ensures IMAGES_NORMALISED.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.adapt import ImageInput
from edgec.compiler.passbase import Options
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.transpose import Transpose
from edgec.graph.types import DType, tensor

_FROM_NHWC = Transpose((0, 3, 1, 2))


def normalise_input(module: Module, options: Options) -> bool:
    graph = module.programs["infer"]
    for name, image in options.images.items():
        _normalise(graph, _image_input(graph, name, image), image)
    return bool(options.images)


def _image_input(graph: Graph, name: str, image: ImageInput) -> Value:
    """The leaf that becomes an image. UserError E0111 where it cannot."""
    leaf = graph.leaves.get(name)
    if leaf is None or leaf.role is not Role.INPUT:
        known = ", ".join(f"`{value.name}`" for value in graph.by_role(Role.INPUT))
        message, hint = f"the model has no input `{name}` to take images", f"it has {known}"
        raise UserError("E0111", message, where="image input", hint=hint)
    channels = max(len(image.mean), len(image.std))
    if leaf.type.rank != 4 or not leaf.type.dtype.is_float:
        raise UserError(
            "E0111", f"input `{name}` is {leaf.type}, not floats [N,C,H,W]: no image", where=f"input `{name}`"
        )
    if channels not in (1, leaf.type.shape[1]):
        message = f"{channels} means or deviations for {leaf.type.shape[1]} channels"
        raise UserError("E0111", message, where=f"input `{name}`", hint="give one number, or one for each channel")
    return leaf


def _normalise(graph: Graph, leaf: Value, image: ImageInput) -> None:
    """The leaf keeps its place and name, and takes another type."""
    readers = list(leaf.uses)
    first = min((reader for reader, _ in readers), key=graph.nodes.index, default=None)
    outputs = [name for name, value in graph.outputs.items() if value is leaf]
    (n, c, h, w), dtype = leaf.type.shape, leaf.type.dtype
    leaf.type = tensor(DType.U8, n, h, w, c)

    def per_channel(numbers: list[float], name: str) -> Value:
        return graph.constant(np.array(numbers, dtype.numpy).reshape(c, 1, 1), f"{leaf.name}.{name}")

    def emit(op: Op, *operands: Value, name: str = "") -> Value:
        return graph.emit1(op, *operands, name=name, before=first)

    scale, shift = image.affine(c)
    planes = emit(Cast(dtype.value), emit(_FROM_NHWC, leaf))
    scaled = emit(Mul(), planes, per_channel(scale, "scale"))
    value = emit(Add(), scaled, per_channel(shift, "shift"), name=f"{leaf.name}.normalised")
    for reader, slot in readers:
        graph.set_input(reader, slot, value)
    for name in outputs:
        graph.outputs[name] = value
