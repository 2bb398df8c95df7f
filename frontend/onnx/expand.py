"""Operators that ONNX itself defines by simpler ones: their function bodies, for a node and the types of its inputs.

Any composite operator without a converter of its own is imported this way, with the meaning that the standard gives it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import AttributeProto, defs, helper, numpy_helper
from onnx.inliner import inline_selected_functions

from edgec.frontend.onnx.model import Body, Node, Opaque, Unsupported
from edgec.frontend.onnx.reader import to_body
from edgec.frontend.onnx.tensors import ExternalData
from edgec.graph.types import TensorType


def is_function(node: Node) -> bool:
    """Whether the standard defines the node's operator by others."""
    if not defs.has(node.op, node.domain):
        return False
    try:
        schema = defs.get_schema(node.op, node.opset, node.domain)
    except defs.SchemaError:  # newer than the model's opset
        return False
    return schema.has_function or schema.has_context_dependent_function


def function_body(node: Node, types: Sequence[TensorType | None]) -> Body:
    """What the node stands for, in terms of its own inputs and outputs. `types` are those of its inputs, None: absent.

    Unsupported where the standard has no body for these types.
    """
    inputs = {
        name: helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind.dtype.numpy), kind.shape)
        for name, kind in zip(node.inputs, types, strict=True)
        if kind is not None
    }
    if "" in node.inputs:  # the inliner looks up the type of an absent input, too
        inputs[""] = helper.make_empty_tensor_value_info("")
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.outputs if name]
    call = helper.make_node(node.op, node.inputs, node.outputs, domain=node.domain)
    call.attribute.extend(_attribute(name, value) for name, value in node.attributes.items())
    schema = defs.get_schema(node.op, node.opset, node.domain)
    defaults = [entry.default_value for name, entry in schema.attributes.items() if name not in node.attributes]
    call.attribute.extend(value for value in defaults if value.name)  # bodies refer to them
    graph = helper.make_graph([call], "call", list(inputs.values()), outputs)
    opsets = {"": defs.onnx_opset_version(), node.domain: node.opset}  # bodies of other domains use the standard's
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*entry) for entry in opsets.items()])
    try:
        expanded = inline_selected_functions(model, [(node.domain, node.op)], inline_schema_functions=True)
    except Exception as error:  # whatever its C++ throws: there is no common type
        raise Unsupported(f"its definition cannot be expanded: {error}") from None
    opsets = {entry.domain: entry.version for entry in expanded.opset_import}
    body = to_body(expanded.graph, opsets, ExternalData(None))
    if any((inner.op, inner.domain) == (node.op, node.domain) for inner in body.nodes):
        raise Unsupported("the standard does not define it for these inputs")
    return body


def _attribute(name: str, value: object) -> AttributeProto:
    if isinstance(value, Body | Opaque):
        raise Unsupported(f"attribute `{name}` is {value.what if isinstance(value, Opaque) else 'a graph'}")
    if isinstance(value, np.ndarray):
        value = numpy_helper.from_array(value)
    if value == ():
        return helper.make_attribute(name, value, attr_type=AttributeProto.INTS)
    return helper.make_attribute(name, value)
