"""Every aten operator that becomes graph ops, and why some never will."""

from __future__ import annotations

from collections.abc import Callable

from edgec.frontend.torch.call import Call
from edgec.frontend.torch.context import Context, Converted
from edgec.frontend.torch.ops_advanced_index import ADVANCED_INDEXING
from edgec.frontend.torch.ops_complex import COMPLEX
from edgec.frontend.torch.ops_elementwise import ELEMENTWISE
from edgec.frontend.torch.ops_index import INDEXING
from edgec.frontend.torch.ops_logic import LOGIC
from edgec.frontend.torch.ops_math import MATH
from edgec.frontend.torch.ops_movement import MOVEMENTS
from edgec.frontend.torch.ops_nn import LAYERS
from edgec.frontend.torch.ops_norm import NORMALISATIONS
from edgec.frontend.torch.ops_recurrent import RECURRENT
from edgec.frontend.torch.ops_reduce import REDUCTIONS
from edgec.frontend.torch.ops_resample import RESAMPLING
from edgec.frontend.torch.ops_windows import WINDOWS

CONVERTERS: dict[str, Callable[[Context, Call], Converted]] = {
    **ELEMENTWISE,
    **MATH,
    **LOGIC,
    **MOVEMENTS,
    **LAYERS,
    **NORMALISATIONS,
    **INDEXING,
    **ADVANCED_INDEXING,
    **WINDOWS,
    **REDUCTIONS,
    **RESAMPLING,
    **RECURRENT,
    **COMPLEX,
}

_RANDOM = ("rand", "normal", "bernoulli", "multinomial", "uniform")
_DATA_DEPENDENT = ("nonzero", "unique", "masked_select", "item", "_local_scalar_dense", "nms", "bincount")
_CONTROL_FLOW = ("cond", "while_loop", "map_impl", "scan", "associative_scan")


def refusal(call: Call) -> str:
    """Why a call that has no converter cannot be imported."""
    if not call.op.startswith("aten."):
        if call.op in _CONTROL_FLOW:
            return "control flow: programs are static"
        return "the operator is not one of torch's own"
    name = call.op.split(".")[1]
    if "batch_norm" in name:
        return "batch norm with the statistics of the batch; export the module after module.eval()"
    if "dropout" in name:
        return "dropout in training mode; export the module after module.eval()"
    if name.startswith(_DATA_DEPENDENT):
        return "its output shape depends on data"
    if any(word in name for word in _RANDOM):
        return "random numbers at run time"
    return "the operator has no equivalent"
