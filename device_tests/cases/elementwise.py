"""Cases of elementwise ops: every op once, then broadcasting in each form that kernels treat on their own."""

import math

from cases.op_case import Integers, Normal, OpCase, Positive, ResultOf, Small, Uniform, case
from edgec.graph.ops.add import Add
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.compress import Compress
from edgec.graph.ops.decompress import Decompress
from edgec.graph.ops.div import Div
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_sigmoid_grad import HardSigmoidGrad
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.hard_swish_grad import HardSwishGrad
from edgec.graph.ops.inside_bits import InsideBits
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.relu_grad import ReluGrad
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sigmoid_grad import SigmoidGrad
from edgec.graph.ops.sub import Sub
from edgec.graph.types import DType

IMAGE = (2, 5, 3, 7)
LARGE = (2, 24, 23, 25)
WEIGHT = (10, 3, 3, 3)
PRIMES = (3, 5, 7, 11)
# One element, fewer than a vector, and primes throughout: no extent is a multiple of any number of lanes.
ODD = {"one": (1, 1, 1, 1), "row": (3,), "matrix": (13, 29), "prime": (1, 13, 11, 17)}
# Packed along an axis: whole bytes or not, runs of several pieces or shorter than a vector.
BITS = (((8, 5, 3, 7), 0), ((2, 24, 23, 25), 1), ((1, 13, 16, 17), 2), ((3, 29), 1), ((5,), 0), ((8, 24, 41, 50), 0))


def _odd_cases(name: str, shape: tuple[int, ...]) -> tuple[OpCase, ...]:
    """Every op of one operand, and its gradient, in one odd shape."""
    wide = Normal(shape, scale=3.0)
    return (
        case(name, Relu(), wide),
        case(name, Sigmoid(), wide),
        case(name, Exp(), wide),
        case(name, HardSwish(), wide),
        case(name, Clip(-1.0, 2.5), wide),
        case(name, HardSigmoid(1 / 6, 0.5), wide),
        case(name, ReluGrad(), Normal(shape), ResultOf(Relu(), (0,))),
        case(name, SigmoidGrad(), Normal(shape), ResultOf(Sigmoid(), (0,))),
        case(name, ClipGrad(-0.5, 0.5), Normal(shape), ResultOf(Clip(-0.5, 0.5), (0,))),
        case(name, HardSigmoidGrad(1 / 6), wide, ResultOf(HardSigmoid(1 / 6, 0.5), (0,))),
        case(name, HardSwishGrad(), Normal(shape), wide),
        case(name, Add(), wide, Normal(shape)),
        case(name, Sub(), wide, Normal(shape)),
        case(name, Mul(), wide, Normal(shape)),
        case(name, Div(), wide, Positive(shape)),
        case(name, SgdUpdate(), wide, Normal(shape), Positive(())),
        case(f"{name}_momentum", SgdUpdate(0.9, 0.01), wide, Normal(shape), Positive(()), Normal(shape)),
    )


CASES = (
    *(found for name, shape in ODD.items() for found in _odd_cases(name, shape)),
    case("labels", Add(), Integers(DType.I64, (7,)), Integers(DType.I64, (7,))),
    case("integers", Sub(), Integers(DType.I32, (3, 5)), Integers(DType.I32, (5,))),
    case("integers", Mul(), Integers(DType.I32, (3, 5)), Integers(DType.I32, ())),
    case("per_channel", Div(), Normal(IMAGE), Positive((5, 1, 1))),
    case("scalar_left", Div(), Normal(()), Positive(IMAGE)),
    case("same_shape", Add(), Normal(IMAGE), Normal(IMAGE)),
    case("same_shape", Sub(), Normal(IMAGE), Normal(IMAGE)),
    case("same_shape", Mul(), Normal(IMAGE), Normal(IMAGE)),
    case("same_shape", Div(), Normal(IMAGE), Positive(IMAGE)),
    case("large", Mul(), Normal(LARGE), Normal(LARGE)),
    case("per_channel", Add(), Normal(IMAGE), Normal((5, 1, 1))),
    case("per_channel_left", Sub(), Normal((5, 1, 1)), Normal(IMAGE)),
    case("scalar", Mul(), Normal(IMAGE), Normal(())),
    case("scalars", Mul(), Normal(()), Normal(())),
    case("per_image_and_channel", Mul(), Normal(IMAGE), Normal((2, 5, 1, 1))),
    case("per_image_and_channel_large", Mul(), Normal(LARGE), Normal((2, 24, 1, 1))),
    case("per_pixel", Mul(), Normal(IMAGE), Normal((2, 1, 3, 7))),
    case("per_column", Add(), Normal(IMAGE), Normal((7,))),
    case("both_broadcast", Add(), Normal((3, 1, 4)), Normal((2, 1, 5, 1))),
    case("rows", Add(), Normal((9, 33)), Normal((33,))),
    case("per_output_channel", Mul(), Normal(WEIGHT), Positive((10, 1, 1, 1))),
    case("image", Relu(), Normal(IMAGE)),
    case("image", Sigmoid(), Normal(IMAGE, scale=20.0)),
    case("image", Exp(), Normal(IMAGE, scale=3.0)),
    case("image", HardSwish(), Normal(IMAGE, scale=3.0)),
    case("relu6", Clip(0.0, 6.0), Normal(IMAGE, scale=5.0)),
    case("image", HardSigmoid(0.2, 0.5), Normal(IMAGE, scale=3.0)),
    case("image", ReluGrad(), Normal(IMAGE), ResultOf(Relu(), (0,))),
    case("image", SigmoidGrad(), Normal(IMAGE), ResultOf(Sigmoid(), (0,))),
    case("image", ClipGrad(-0.5, 0.5), Normal(IMAGE), ResultOf(Clip(-0.5, 0.5), (0,))),
    case("image", HardSigmoidGrad(0.2), Normal(IMAGE, scale=3.0), ResultOf(HardSigmoid(0.2, 0.5), (0,))),
    case("image", HardSwishGrad(), Normal(IMAGE), Normal(IMAGE, scale=3.0)),
    *(
        found
        for shape, axis in BITS
        for found in (
            case(f"axis_{axis}_of_{math.prod(shape)}", InsideBits(-0.5, 1.0, axis), Normal(shape, ties=True)),
            case(
                f"axis_{axis}_of_{math.prod(shape)}",
                GateByBits(axis),
                Normal(shape),
                ResultOf(InsideBits(0.0, math.inf, axis), (0,)),
            ),
        )
    ),
    case("f16", Compress("f16"), Normal(IMAGE, scale=4e4)),  # some lie beyond the range
    case("f16_small", Compress("f16"), Normal(WEIGHT, scale=1e-5)),  # subnormal
    case("u8", Compress("u8"), Normal(IMAGE), Uniform((1, IMAGE[1], 1, 1), 40.0, 60.0), Small(DType.F32, ())),
    case("u8_rows", Compress("u8"), Normal(WEIGHT), Uniform(WEIGHT[-1:], 40.0, 60.0), Normal(WEIGHT[-1:], 90.0)),
    case("f16_odd", Compress("f16"), Normal(PRIMES, scale=4.0)),
    case("u8_odd", Compress("u8"), Normal(PRIMES), Uniform((1, PRIMES[1], 1, 1), 40.0, 60.0), Small(DType.F32, ())),
    case("f16", Decompress(), Uniform(IMAGE, dtype=DType.F16)),
    case("u8", Decompress(), Small(DType.U8, IMAGE, 256), Positive((1, IMAGE[1], 1, 1)), Small(DType.F32, ())),
    case("f16_odd", Decompress(), Uniform(PRIMES, dtype=DType.F16)),
    case("u8_odd", Decompress(), Small(DType.U8, PRIMES, 256), Positive(PRIMES[-1:]), Small(DType.F32, ())),
    case("plain", SgdUpdate(), Normal(WEIGHT), Normal(WEIGHT), Positive(())),
    case("weight_decay", SgdUpdate(weight_decay=0.1), Normal(WEIGHT), Normal(WEIGHT), Positive(())),
    case("momentum", SgdUpdate(momentum=0.9), Normal(WEIGHT), Normal(WEIGHT), Positive(()), Normal(WEIGHT)),
    case(
        "nesterov",
        SgdUpdate(momentum=0.9, weight_decay=0.1, nesterov=True),
        Normal((33,)),
        Normal((33,)),
        Positive(()),
        Normal((33,)),
    ),
)
