"""Cases of functions of numbers, comparisons, bits, choices and casts, in every element type."""

from cases.op_case import Integers, Normal, OpCase, Small, Uniform, case
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.acos import Acos
from edgec.graph.ops.acosh import Acosh
from edgec.graph.ops.add import Add
from edgec.graph.ops.asin import Asin
from edgec.graph.ops.asinh import Asinh
from edgec.graph.ops.atan import Atan
from edgec.graph.ops.atanh import Atanh
from edgec.graph.ops.base import Op
from edgec.graph.ops.bit_and import BitAnd
from edgec.graph.ops.bit_or import BitOr
from edgec.graph.ops.bit_xor import BitXor
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.ceil import Ceil
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.cos import Cos
from edgec.graph.ops.cosh import Cosh
from edgec.graph.ops.div import Div
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.erf import Erf
from edgec.graph.ops.floor import Floor
from edgec.graph.ops.fmod import Fmod
from edgec.graph.ops.less import Less
from edgec.graph.ops.less_equal import LessEqual
from edgec.graph.ops.log import Log
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.minimum import Minimum
from edgec.graph.ops.mod import Mod
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.neg import Neg
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.pow import Pow
from edgec.graph.ops.round import Round
from edgec.graph.ops.shift_left import ShiftLeft
from edgec.graph.ops.shift_right import ShiftRight
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sign import Sign
from edgec.graph.ops.sin import Sin
from edgec.graph.ops.sinh import Sinh
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.tan import Tan
from edgec.graph.ops.tanh import Tanh
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where
from edgec.graph.types import DType

ROW, MATRIX = (3,), (13, 29)
FLOATS = (DType.F32, DType.F16, DType.BF16)
INTEGERS = (DType.I8, DType.U8, DType.I32, DType.I64)

# op, where it is defined
_FUNCTIONS: tuple[tuple[Op, float, float], ...] = (
    (Sqrt(), 0, 9),
    (Log(), 0.01, 9),
    (Erf(), -4, 4),
    (Tanh(), -9, 9),
    (Floor(), -9, 9),
    (Ceil(), -9, 9),
    (Round(), -9, 9),
    (Sin(), -30, 30),
    (Cos(), -30, 30),
    (Tan(), -1.5, 1.5),
    (Asin(), -1, 1),
    (Acos(), -1, 1),
    (Atan(), -9, 9),
    (Sinh(), -5, 5),
    (Cosh(), -5, 5),
    (Asinh(), -9, 9),
    (Acosh(), 1, 9),
    (Atanh(), -0.9, 0.9),
    (Neg(), -3, 3),
    (Abs(), -3, 3),
    (Sign(), -3, 3),
    (Sigmoid(), -9, 9),
)


def _function(op: Op, low: float, high: float) -> tuple[OpCase, ...]:
    types = tuple(case(f"matrix_{d.value}", op, Uniform(MATRIX, low, high, d)) for d in FLOATS)
    return (case("interval", op, Uniform(ROW, low, high)), *types)


def _pairs(op: Op, dtypes: tuple[DType, ...], b_is_small: bool) -> tuple[OpCase, ...]:
    """Two operands of one shape, in every type; a row and a matrix in the last."""
    cases = []
    for dtype in dtypes:
        b = Small(dtype, MATRIX) if b_is_small else _numbers(dtype, MATRIX)
        cases.append(case(f"of_{dtype.value}", op, _numbers(dtype, MATRIX), b))
    last = dtypes[-1]
    return (*cases, case(f"row_{last.value}", op, _numbers(last, ROW), Small(last, ROW)))


def _numbers(dtype: DType, shape: tuple[int, ...]) -> Uniform | Integers | Small:
    if dtype.is_float:
        return Uniform(shape, dtype=dtype)
    return Small(dtype, shape) if dtype is DType.BOOL else Integers(dtype, shape)


_ALL = (*FLOATS, *INTEGERS)
_TYPES = (*_ALL, DType.BOOL)

CASES = (
    *(found for entry in _FUNCTIONS for found in _function(*entry)),
    *(case(f"of_{dtype.value}", op, Integers(dtype, MATRIX)) for op in (Neg(), Abs(), Sign()) for dtype in INTEGERS),
    *(case(f"of_{dtype.value}", Clip(-20, 30), _numbers(dtype, MATRIX)) for dtype in _ALL),
    *(found for op in (Add(), Sub(), Mul()) for found in _pairs(op, (DType.F16, DType.BF16, *INTEGERS), False)),
    *(found for op in (Minimum(), Maximum(), Less(), LessEqual()) for found in _pairs(op, _ALL, False)),
    *(found for op in (Div(), Mod(), Fmod()) for found in _pairs(op, INTEGERS, True)),
    *(
        case(f"of_{d.value}", op, Uniform(MATRIX, dtype=d), Uniform(MATRIX, 0.5, 2, d))
        for op in (Mod(), Fmod(), Div())
        for d in FLOATS
    ),
    *_pairs(Pow(), INTEGERS, True),
    *(case(f"of_{d.value}", Pow(), Uniform(MATRIX, 0.1, 3, d), Uniform(MATRIX, dtype=d)) for d in FLOATS),
    case("whole_exponents", Pow(), Uniform((5, 7)), Small(DType.F32, (5, 7))),
    *_pairs(Equal(), _TYPES, True),
    *(found for op in (BitAnd(), BitOr(), BitXor()) for found in _pairs(op, (*INTEGERS, DType.BOOL), False)),
    *(found for op in (ShiftLeft(), ShiftRight()) for found in _pairs(op, INTEGERS, True)),
    *(
        case(f"of_{d.value}", Where(), Small(DType.BOOL, MATRIX), _numbers(d, MATRIX), _numbers(d, (29,)))
        for d in _TYPES
    ),
    *(case(f"{a.value}_to_{b.value}", Cast(b.value), _numbers(a, MATRIX)) for a in _TYPES for b in _TYPES),
    case("whole", Cast("i32"), Normal((3, 5), scale=1e10)),
    *(case(f"of_{d.value}", Transpose((1, 0)), _numbers(d, MATRIX)) for d in _TYPES),
    *(case(f"of_{d.value}", Concat(0), _numbers(d, (3, 5)), _numbers(d, (1, 5))) for d in _TYPES),
    *(case(f"of_{d.value}", Pad((1, 0), (0, 3), 1.0), _numbers(d, (3, 5))) for d in _TYPES),
    *(case(f"of_{d.value}", MatMul(), _numbers(d, (5, 7)), _numbers(d, (7, 3))) for d in FLOATS),
)
