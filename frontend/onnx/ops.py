"""Every ONNX operator that becomes graph ops, and why some never will."""

from __future__ import annotations

from collections.abc import Callable

from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.expand import is_function
from edgec.frontend.onnx.fold import FOLDS
from edgec.frontend.onnx.model import Node
from edgec.frontend.onnx.ops_control import CONTROL_FLOW
from edgec.frontend.onnx.ops_einsum import EINSUM
from edgec.frontend.onnx.ops_elementwise import ELEMENTWISE
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
from edgec.frontend.onnx.ops_resize import RESIZES
from edgec.frontend.onnx.ops_select import SELECTIONS
from edgec.frontend.onnx.ops_signal import SIGNALS

CONVERTERS: dict[str, Callable[[Context, Node], Converted]] = {
    **ELEMENTWISE,
    **LOGIC,
    **MATH,
    **LAYERS,
    **REDUCTIONS,
    **MOVEMENTS,
    **INDEXING,
    **NORMS,
    **POOLS,
    **QUANTIZED,
    **RESIZES,
    **GRIDS,
    **SIGNALS,
    **SELECTIONS,
    **RECURRENT,
    **EINSUM,
}

_DATA_DEPENDENT = ("NonZero", "Unique", "Compress", "NonMaxSuppression")
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def refusal(node: Node) -> str | None:
    """Why no node of this kind can be imported, whatever its inputs are; None if it depends on them."""
    if node.domain and not is_function(node):
        return f"the operator belongs to the domain `{node.domain}`"
    if node.op in CONVERTERS or node.op in FOLDS or node.op in CONTROL_FLOW or is_function(node):
        return None
    if node.op in _RANDOM:
        return "random numbers at run time"
    return data_dependent(node) or "the operator has no equivalent"


def data_dependent(node: Node) -> str | None:
    return "its output shape depends on data" if node.op in _DATA_DEPENDENT else None
