"""Cases of layer and root mean square normalisation."""

from cases.op_case import Normal, case
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.rms_norm import RmsNorm

CASES = (
    case("rows", LayerNorm(1), Normal((13, 29)), Normal((29,)), Normal((29,))),
    case("images", LayerNorm(2, 1e-3), Normal((2, 5, 3, 7), scale=3.0)),
    case("scaled", LayerNorm(1), Normal((3, 5, 4)), Normal((5, 4))),
    case("all", LayerNorm(0), Normal((3, 5)), Normal((3, 5)), Normal((3, 5))),
    case("wide", LayerNorm(2), Normal((2, 7, 384)), Normal((384,)), Normal((384,))),
    case("rows", RmsNorm(1), Normal((13, 29)), Normal((29,))),
    case("images", RmsNorm(2, 1e-3), Normal((2, 5, 3, 7), scale=3.0)),
    case("all", RmsNorm(0), Normal((3, 5)), Normal((3, 5))),
    case("wide", RmsNorm(2), Normal((2, 7, 384)), Normal((384,))),
)
