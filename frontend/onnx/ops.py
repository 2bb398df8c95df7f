"""Every ONNX operator that becomes graph ops, and why some never will."""

from __future__ import annotations

from collections.abc import Callable

from onnx import defs

from edgec.frontend.onnx.context import DEPENDS_ON_DATA, Context, Converted
from edgec.frontend.onnx.expand import is_function
from edgec.frontend.onnx.fold import FOLDS
from edgec.frontend.onnx.model import Node
from edgec.frontend.onnx.ops_contrib import CONTRIB, DOMAIN
from edgec.frontend.onnx.ops_control import CONTROL_FLOW
from edgec.frontend.onnx.ops_einsum import EINSUM
from edgec.frontend.onnx.ops_elementwise import ELEMENTWISE
from edgec.frontend.onnx.ops_found import FOUND
from edgec.frontend.onnx.ops_grid import GRIDS
from edgec.frontend.onnx.ops_indexing import INDEXING
from edgec.frontend.onnx.ops_logic import LOGIC
from edgec.frontend.onnx.ops_math import MATH
from edgec.frontend.onnx.ops_movement import MOVEMENTS
from edgec.frontend.onnx.ops_nn import LAYERS
from edgec.frontend.onnx.ops_norm import NORMS
from edgec.frontend.onnx.ops_pool import POOLS
from edgec.frontend.onnx.ops_quant import QUANTIZED
from edgec.frontend.onnx.ops_recurrent import RECURRENT
from edgec.frontend.onnx.ops_reduce import REDUCTIONS
from edgec.frontend.onnx.ops_regions import REGIONS
from edgec.frontend.onnx.ops_resize import RESIZES
from edgec.frontend.onnx.ops_select import SELECTIONS
from edgec.frontend.onnx.ops_sequence import SEQUENCES
from edgec.frontend.onnx.ops_signal import SIGNALS

CONVERTERS: dict[str, Callable[[Context, Node], Converted]] = {
    **ELEMENTWISE,
    **LOGIC,
    **MATH,
    **LAYERS,
    **REDUCTIONS,
    **MOVEMENTS,
    **INDEXING,
    **FOUND,
    **NORMS,
    **POOLS,
    **QUANTIZED,
    **RESIZES,
    **GRIDS,
    **REGIONS,
    **SIGNALS,
    **SELECTIONS,
    **RECURRENT,
    **EINSUM,
    **SEQUENCES,
}

_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def converter(node: Node) -> Callable[[Context, Node], Converted] | None:
    """What turns a node into graph ops, if its operator has one of ours."""
    return {"": CONVERTERS, DOMAIN: CONTRIB}.get(node.domain, {}).get(node.op)


def refusal(node: Node) -> str | None:
    """Why no node of this kind can be imported, whatever its inputs are; None if it depends on them."""
    if converter(node) is not None and node.domain:
        return None
    if node.domain and not is_function(node):
        return f"the operator belongs to the domain `{node.domain}`"
    reason = _too_many(node)
    if reason is not None:
        return reason
    if node.op in CONVERTERS or node.op in FOLDS or node.op in CONTROL_FLOW or is_function(node):
        return None
    if node.op in _RANDOM:
        return "random numbers at run time"
    return data_dependent(node) or "the operator has no equivalent"


def _too_many(node: Node) -> str | None:
    """What is given beyond the operands and results that the standard knows; converters ask for those they need."""
    if not defs.has(node.op, node.domain):
        return None
    try:
        schema = defs.get_schema(node.op, node.opset, node.domain)
    except defs.SchemaError:  # newer than the model's opset
        return None
    for what, count, limit in (
        ("inputs", len(node.inputs), schema.max_input),
        ("outputs", len(node.outputs), schema.max_output),
    ):
        if count > limit:
            return f"has {count} {what}; the standard gives it at most {limit}"
    return None


def data_dependent(node: Node) -> str | None:
    return f"its output shape {DEPENDS_ON_DATA}" if node.op == "Unique" else None
