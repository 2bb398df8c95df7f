"""Cases of normalisations and of what their gradients sum up."""

from cases.op_case import Normal, OpCase, Positive, Uniform, case
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.rms_norm_grad import RmsNormGrad


def _batch_norm(name: str, *x: int) -> OpCase:
    return case(name, BatchNormTrain(1e-3), Normal(x, scale=3.0), Positive(x[1:2]), Normal(x[1:2]))


def _param_grad(name: str, axes: tuple[int, ...], x: tuple[int, ...], statistics: tuple[int, ...]) -> OpCase:
    return case(name, NormParamGrad(axes), Normal(x), Normal(x), Normal(statistics), Positive(statistics))


CASES = (
    _batch_norm("image", 2, 5, 3, 7),
    _batch_norm("rows", 13, 29),
    _batch_norm("lines", 3, 17, 11),
    _batch_norm("wide", 3, 65, 9, 7),
    case("rows", LayerNormGrad(1), Normal((13, 29)), Normal((13, 29)), Normal((13,)), Positive((13,)), Normal((29,))),
    case("images", LayerNormGrad(2), *(Normal((3, 5, 3, 7)),) * 2, Normal((3, 5)), Positive((3, 5))),
    case("all", LayerNormGrad(0), *(Normal((3, 5)),) * 2, Normal(()), Positive(()), Normal((3, 5))),
    case("wide", LayerNormGrad(2), *(Normal((2, 7, 384)),) * 2, Normal((2, 7)), Positive((2, 7)), Normal((384,))),
    case("rows", RmsNormGrad(1), Normal((13, 29)), Normal((13, 29)), Positive((13,)), Normal((29,))),
    case("images", RmsNormGrad(2), *(Normal((3, 5, 3, 7)),) * 2, Positive((3, 5))),
    case("all", RmsNormGrad(0), *(Normal((3, 5)),) * 2, Positive(()), Normal((3, 5))),
    case("wide", RmsNormGrad(2), *(Normal((2, 7, 384)),) * 2, Positive((2, 7)), Normal((384,))),
    case("channels", Moments((0, 2, 3)), Normal((3, 37, 5, 7), scale=3.0)),
    case("rows", Moments((1,)), Normal((13, 29))),
    case("columns", Moments((0,)), Normal((13, 29))),
    case("all", Moments((0, 1)), Normal((3, 5))),
    case("large", Moments((0, 2, 3)), Normal((2, 48, 25, 23))),
    case("one_channel", Moments((0, 2, 3)), Normal((4, 1, 55, 61))),
    case("weighted", Moments((0, 2, 3)), Normal((3, 37, 5, 7), scale=3.0), Uniform((3, 1, 1, 1), 0.2, 0.4)),
    case("weighted_columns", Moments((0,)), Normal((13, 29)), Uniform((13, 1), 0.0, 0.15)),
    case(
        "weighted",
        BatchNormTrain(1e-3),
        Normal((3, 5, 4, 2), scale=3.0),
        Positive((5,)),
        Normal((5,)),
        Uniform((3, 1, 1, 1), 0.2, 0.4),
    ),
    _param_grad("channels", (0, 2, 3), (3, 37, 5, 7), (37, 1, 1)),
    _param_grad("rows", (0,), (13, 29), (13, 1)),
    _param_grad("tokens", (0, 1), (3, 7, 65), (3, 7, 1)),
    _param_grad("large", (0, 2, 3), (2, 48, 25, 23), (48, 1, 1)),
    _param_grad("of_all", (0,), (5, 3), ()),
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
