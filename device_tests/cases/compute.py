"""Cases of convolutions with their gradients, matrix products, pools and batch norm."""

import math

from cases.op_case import Normal, OpCase, Positive, Small, case
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.types import DType, tensor

# name, attributes, x shape, w shape
_CONVOLUTIONS = (
    ("pointwise", {}, (2, 6, 5, 7), (10, 6, 1, 1)),
    ("same_3x3", {"pads": (1, 1, 1, 1)}, (2, 3, 6, 5), (8, 3, 3, 3)),
    ("strided_3x3", {"pads": (1, 1, 1, 1), "strides": (2, 2)}, (1, 3, 9, 8), (17, 3, 3, 3)),
    ("uneven_pads", {"pads": (0, 1, 2, 0), "strides": (1, 2)}, (1, 4, 7, 6), (5, 4, 3, 2)),
    ("dilated", {"dilations": (2, 1), "pads": (2, 1, 2, 1)}, (1, 2, 8, 7), (4, 2, 3, 3)),
    ("grouped", {"groups": 2, "pads": (1, 1, 1, 1)}, (2, 4, 5, 5), (6, 2, 3, 3)),
    ("depthwise", {"groups": 9, "pads": (1, 1, 1, 1)}, (2, 9, 6, 7), (9, 1, 3, 3)),
    ("depthwise_strided_5x5", {"groups": 8, "pads": (2, 2, 2, 2), "strides": (2, 2)}, (1, 8, 9, 9), (8, 1, 5, 5)),
    ("one_pixel", {}, (1, 13, 1, 1), (7, 13, 1, 1)),
    ("prime_3x3", {"pads": (1, 1, 1, 1)}, (1, 13, 7, 11), (29, 13, 3, 3)),
    ("depthwise_prime", {"groups": 13, "pads": (1, 1, 1, 1)}, (3, 13, 7, 5), (13, 1, 3, 3)),
    ("multiplied_depthwise", {"groups": 5, "pads": (1, 1, 1, 1)}, (2, 5, 6, 7), (10, 1, 3, 3)),
    ("whole_image", {}, (2, 7, 5, 3), (11, 7, 5, 3)),
    ("wide", {}, (1, 48, 7, 7), (80, 48, 1, 1)),
    ("unread_edge", {"strides": (2, 2)}, (1, 2, 6, 6), (3, 2, 1, 1)),
)


def _output(attributes: dict, x: tuple[int, ...], w: tuple[int, ...]) -> tuple[int, ...]:
    return (x[0], w[0], *Conv2d(**attributes).window(x[2:], w[2:]).output)


_POOLS = (
    ("2x2", {"kernel_size": (2, 2), "strides": (2, 2)}, (2, 5, 6, 8)),
    ("overlapping_3x3", {"kernel_size": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}, (1, 17, 7, 9)),
    ("whole_image", {"kernel_size": (5, 3)}, (1, 13, 5, 3)),
    ("uneven", {"kernel_size": (2, 3), "strides": (1, 2), "pads": (1, 0, 0, 1)}, (2, 3, 5, 6)),
)


# Its positions need more than a byte.
_LARGE_WINDOW = ("17x16", {"kernel_size": (17, 16), "strides": (2, 2)}, (1, 3, 19, 17))


def _max_pool_grad(name: str, a: dict, x: tuple[int, ...]) -> OpCase:
    """Positions may be any taps, of padding too: those give nothing."""
    dy, positions = MaxPool2dPositions(**a).infer(tensor(DType.F32, *x))
    taps = Small(positions.dtype, positions.shape, math.prod(a["kernel_size"]))
    return case(name, MaxPool2dGrad(**a, input_size=x[2:]), Normal(dy.shape), taps)


def _batch_norm(name: str, *x: int) -> OpCase:
    channels = x[1:2]
    parts = (Positive(channels), Normal(channels), Normal(channels), Positive(channels))
    return case(name, BatchNorm(1e-5), Normal(x), *parts)


CASES = (
    *(case(name, Conv2d(**a), Normal(x), Normal(w)) for name, a, x, w in _CONVOLUTIONS),
    *(
        case(name, Conv2dInputGrad(**a, input_size=x[2:]), Normal(_output(a, x, w)), Normal(w))
        for name, a, x, w in _CONVOLUTIONS
    ),
    *(
        case(name, Conv2dWeightGrad(**a, kernel_size=w[2:]), Normal(x), Normal(_output(a, x, w)))
        for name, a, x, w in _CONVOLUTIONS
    ),
    case("plain", MatMul(), Normal((7, 12)), Normal((12, 10))),
    case("transpose_a", MatMul(transpose_a=True), Normal((12, 7)), Normal((12, 10))),
    case("transpose_b", MatMul(transpose_b=True), Normal((7, 12)), Normal((10, 12))),
    case("transpose_both", MatMul(True, True), Normal((12, 7)), Normal((10, 12))),
    case("one", MatMul(), Normal((1, 1)), Normal((1, 1))),
    case("vector", MatMul(transpose_b=True), Normal((1, 67)), Normal((11, 67))),
    case("prime", MatMul(), Normal((13, 31)), Normal((31, 29))),
    case("prime_weight_grad", MatMul(transpose_a=True), Normal((13, 31)), Normal((13, 29))),
    case("wide", MatMul(transpose_b=True), Normal((8, 96)), Normal((80, 96))),
    case("batched", MatMul(), Normal((3, 1, 4, 5)), Normal((2, 5, 6))),
    *(case(name, MaxPool2d(**a), Normal(x)) for name, a, x in _POOLS),
    *(case(name, MaxPool2dPositions(**a), Normal(x, ties=True)) for name, a, x in (*_POOLS, _LARGE_WINDOW)),
    *(_max_pool_grad(name, a, x) for name, a, x in (*_POOLS, _LARGE_WINDOW)),
    *(
        case(f"{name}_{'with' if pad else 'without'}_pad", AvgPool2d(**a, count_include_pad=pad), Normal(x))
        for name, a, x in _POOLS
        for pad in (False, True)
    ),
    *(
        case(
            f"{name}_{'with' if pad else 'without'}_pad",
            AvgPool2dGrad(**a, count_include_pad=pad, input_size=x[2:]),
            Normal(AvgPool2d(**a).infer(tensor(DType.F32, *x))[0].shape),
        )
        for name, a, x in _POOLS
        for pad in (False, True)
    ),
    _batch_norm("image", 2, 5, 3, 7),
    _batch_norm("one", 1, 1, 1, 1),
    _batch_norm("prime", 1, 13, 11, 17),
    _batch_norm("rows", 7, 13),
)
