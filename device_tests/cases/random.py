"""Cases of dropout: the same decisions on every target."""

from cases.op_case import Integers, Normal, OpCase, case
from edgec.graph.ops.dropout import Dropout
from edgec.graph.types import DType

_STATE = (Integers(DType.I32, ()), Integers(DType.I32, ()))


def _dropout(name: str, op: Dropout, *shape: int) -> OpCase:
    return case(name, op, Normal(shape), *_STATE)


CASES = (
    _dropout("rows", Dropout(0.5), 13, 29),
    _dropout("image", Dropout(0.1, stream=3), 2, 5, 3, 7),
    _dropout("channels", Dropout(0.5, shared=2, stream=1), 7, 65, 3, 5),
    _dropout("large", Dropout(0.25, stream=2), 8, 125, 67),
    _dropout("one", Dropout(0.5), 1),
    _dropout("all", Dropout(1.0), 3, 7),
    case("idle", Dropout(0.5), Normal((3, 7))),
)
