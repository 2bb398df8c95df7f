"""Models of an opset before the oldest one that is imported, brought there: mostly by onnx's own converter."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper
from onnx.version_converter import convert_version

from edgec.graph.errors import UserError

OLDEST_OPSET = 7  # numpy's broadcasting came with it
# Before it the second operand's first axis was matched with any one of the first's, and only if `broadcast` said so.
_ALIGNED = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
_HIDDEN = "edgec.hidden"  # a domain that the converter leaves alone
ALIGN = "edgec.Align"  # (a, b) {axis} -> b, with extents of 1 behind its own so that its first axis meets that of a


def upgraded(proto: ModelProto, label: str) -> ModelProto:
    """The model itself if its opset is new enough. UserError E0103 where it cannot be converted."""
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if not 1 <= opset < OLDEST_OPSET:
        return proto
    proto = ModelProto.FromString(proto.SerializeToString())
    _align(proto)
    _list_initializers(proto)
    proto.opset_import.append(helper.make_opsetid(_HIDDEN, 1))
    try:
        proto = convert_version(proto, OLDEST_OPSET)
    except Exception as error:  # whatever its C++ throws: there is no common type
        reason = f"the model has opset {opset}, and cannot be converted to {OLDEST_OPSET}: {error}"
        raise UserError("E0103", reason, where=label) from None
    for node in proto.graph.node:
        if node.domain == _HIDDEN:
            node.domain = ""
    return proto


def _align(proto: ModelProto) -> None:
    """Write broadcasting out. The converter would, but compares a bias of channels with the last axis, and refuses it;
    and it wants to know the shape of everything."""
    nodes: list[NodeProto] = []
    for number, node in enumerate(proto.graph.node):
        axis = _hide(node)
        if axis is not None:
            name = f"{node.input[1]}.aligned.{number}"
            nodes.append(helper.make_node(ALIGN, node.input, [name], domain=_HIDDEN, axis=axis))
            node.input[1] = name
        nodes.append(node)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def _hide(node: NodeProto) -> int | None:
    """Make the node one of opset 7 that the converter leaves alone, if it broadcasts; the axis that it aligns."""
    if node.domain or len(node.input) < 2:
        return None
    given = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "PRelu":  # a slope for each channel
        node.domain = _HIDDEN
        return 1
    if given.get("broadcast") != 1 or node.op_type not in (*_ALIGNED, "Gemm"):
        return None
    kept = [attribute for attribute in node.attribute if attribute.name not in ("broadcast", "axis")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.domain = _HIDDEN
    return given.get("axis")


def _list_initializers(proto: ModelProto) -> None:
    """As inputs, too: the converter knows them as they were then."""
    inputs = {info.name for info in proto.graph.input}
    for tensor in proto.graph.initializer:
        if tensor.name not in inputs:
            proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    proto.ir_version = min(proto.ir_version, 3)
