"""Epilogues: how operands are classified, every elementwise op and every operand pattern on register tiles, in
place.
"""

import pytest

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.epilogue import Broadcast, Full, Rows, classify, same_order
from edgec.backends.tvm.expressions import SUPPORTED
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops import ALL_OPS
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.acos import Acos
from edgec.graph.ops.acosh import Acosh
from edgec.graph.ops.add import Add
from edgec.graph.ops.asin import Asin
from edgec.graph.ops.asinh import Asinh
from edgec.graph.ops.atan import Atan
from edgec.graph.ops.atanh import Atanh
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.base import Op
from edgec.graph.ops.bce_logits import BceLogits
from edgec.graph.ops.ceil import Ceil
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.compress import Compress
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.cos import Cos
from edgec.graph.ops.cosh import Cosh
from edgec.graph.ops.div import Div
from edgec.graph.ops.erf import Erf
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.floor import Floor
from edgec.graph.ops.fmod import Fmod
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_sigmoid_grad import HardSigmoidGrad
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.hard_swish_grad import HardSwishGrad
from edgec.graph.ops.log import Log
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.minimum import Minimum
from edgec.graph.ops.mod import Mod
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.neg import Neg
from edgec.graph.ops.pow import Pow
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.relu_grad import ReluGrad
from edgec.graph.ops.round import Round
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sigmoid_grad import SigmoidGrad
from edgec.graph.ops.sign import Sign
from edgec.graph.ops.sin import Sin
from edgec.graph.ops.sinh import Sinh
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.tan import Tan
from edgec.graph.ops.tanh import Tanh
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import Storage
from edgec.tools.testing.group_case import check_group

F32 = DType.F32
TARGETS = [find_target(name) for name in ("x86", "x86-64-v3")]
SHAPE = (2, 19, 3, 5)
NHWC = Storage.channels_last(SHAPE)
UNARY = [
    Relu(),
    Sigmoid(),
    Exp(),
    HardSwish(),
    Clip(-0.5, 1.5),
    HardSigmoid(0.2, 0.5),
    Abs(),
    Acos(),
    Acosh(),
    Asin(),
    Asinh(),
    Atan(),
    Atanh(),
    Ceil(),
    Cos(),
    Cosh(),
    Erf(),
    Floor(),
    Log(),
    Neg(),
    Round(),
    Sign(),
    Sin(),
    Sinh(),
    Sqrt(),
    Tan(),
    Tanh(),
]
GRADIENTS = [ReluGrad(), SigmoidGrad(), ClipGrad(-0.5, 1.5), HardSigmoidGrad(0.2), HardSwishGrad()]
BINARY = [Add(), BceLogits(), Sub(), Mul(), Div(), Minimum(), Maximum(), Mod(), Fmod(), Pow()]
BITS = {"bit_and", "bit_or", "bit_xor", "shift_left", "shift_right"}


def pointwise() -> tuple[Graph, Value]:
    graph = Graph("epilogue")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, 2, 7, 3, 5))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, 19, 7, 1, 1))
    return graph, graph.emit1(Conv2d(), x, w)


def test_every_elementwise_op_has_an_expression_and_a_case_here():
    elementwise = {op.name for op in ALL_OPS if op.elementwise}
    assert elementwise == SUPPORTED
    # A broadcast reads no result of an anchor; updates are tested with the weight gradients they follow.
    # What reads or writes other types than f32 never follows a product: device_tests' cases of numbers have them.
    updates = {"sgd_update", "adam_update", "lion_update", "accumulate", "bias_correction"}
    others = updates | {"broadcast_to", "equal", "less", "less_equal", "where", "cast", "compress", "decompress"} | BITS
    assert elementwise == {op.name for op in (*UNARY, *GRADIENTS, *BINARY)} | others


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_unary(target, op: Op):
    graph, y = pointwise()
    graph.emit1(op, y)
    # Next to a pole the tangent's slope, here up to 2e4 times its value, multiplies the rounding of the product.
    check_group(graph, target, tolerance=2e-3 if op == Tan() else 1e-5)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", GRADIENTS, ids=lambda op: op.name)
@pytest.mark.parametrize("result_is_dy", [True, False])
def test_gradient(target, op: Op, result_is_dy: bool):
    graph, y = pointwise()
    other = graph.add_leaf(Role.INPUT, "other", tensor(F32, *SHAPE))
    graph.emit1(op, *((y, other) if result_is_dy else (other, y)))
    check_group(graph, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.name)
def test_binary_of_one_value_twice(target, op: Op):
    graph, y = pointwise()
    graph.emit1(op, y, y)
    check_group(graph, target)


PATTERNS = {
    (2, 19, 3, 5): Full(0),
    (19, 1, 1): Broadcast(0, column_stride=1),
    (1, 19, 1, 1): Broadcast(0, column_stride=1),
    (2, 1, 3, 5): Broadcast(0, 0, (Rows(1),)),
    (2, 19, 1, 1): Broadcast(0, 1, (Rows(19, 15),)),
    (2, 1, 1, 1): Broadcast(0, 0, (Rows(1, 15),)),
    (2, 1, 3, 1): Broadcast(0, 0, (Rows(1, 5),)),
    (1, 1, 3, 5): Broadcast(0, 0, (Rows(1, 1, 15),)),  # the same for every image
    (3, 5): Broadcast(0, 0, (Rows(1, 1, 15),)),
    (1, 1, 3, 1): Broadcast(0, 0, (Rows(1, 5, 3),)),
    (1, 1): Broadcast(0),
    (): Broadcast(0),
}


@pytest.mark.parametrize("shape", PATTERNS, ids=str)
def test_patterns(shape: tuple[int, ...]):
    storage = Storage.channels_last(shape) if len(shape) == 4 else Storage.row_major(shape)
    assert classify(0, shape, storage, SHAPE, NHWC) == PATTERNS[shape]


def test_a_mask_of_a_batch_for_several_heads():
    scores, mask = (5, 3, 7, 11), (5, 1, 7, 11)
    found = classify(0, mask, Storage.row_major(mask), scores, Storage.row_major(scores))
    assert found == Broadcast(0, 1, (Rows(11, 1, 7), Rows(77, 21)))


@pytest.mark.parametrize(
    ("shape", "storage"),
    [
        (SHAPE, Storage.row_major(SHAPE)),  # other order
        ((2, 19, 1, 1), Storage((2, 19, 1, 1), (1, 0, 2, 3))),  # channels are not neighbours
    ],
)
def test_what_is_no_simple_pattern(shape: tuple[int, ...], storage: Storage):
    assert classify(0, shape, storage, SHAPE, NHWC) is None


def test_order_ignores_axes_of_one_element_and_a_single_panel():
    shape = (1, 6, 1, 1)
    assert same_order(Storage.row_major(shape), Storage.channels_last(shape))
    assert same_order(Storage((4, 6), (0, 1), 6), Storage.row_major((4, 6)))
    assert not same_order(Storage((4, 6), (0, 1), 4), Storage.row_major((4, 6)))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("shape", PATTERNS, ids=str)
def test_operands_from_memory(target, shape: tuple[int, ...]):
    graph, y = pointwise()
    other = graph.add_leaf(Role.INPUT, "other", tensor(F32, *shape))
    graph.emit1(Sub(), other, y)
    check_group(graph, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_three_outputs_one_of_them_in_place(target):
    graph, y = pointwise()
    other = graph.add_leaf(Role.INPUT, "other", tensor(F32, *SHAPE))
    z = graph.emit1(Mul(), y, other)
    # `other` is read again after the step whose result replaces it.
    last = graph.emit1(Add(), graph.emit1(Relu(), z), other)
    check_group(graph, target, outputs=[y, z, last], alias={last: other})


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("kind", ["pointwise", "depthwise", "pool"])
@pytest.mark.parametrize("per", [(19, 1, 1), (1, 19, 1, 1)], ids=str)
def test_a_map_of_one_pixel(target, kind: str, per: tuple[int, ...]):
    """Stored row by row it lies as channels do: the columns are channels all the same."""
    graph = Graph("pixel")
    if kind == "pool":
        y = graph.emit1(AvgPool2d((3, 3), (1, 1)), graph.add_leaf(Role.INPUT, "x", tensor(F32, 1, 19, 3, 3)))
    else:
        groups, size = (19, 3) if kind == "depthwise" else (1, 1)
        x = graph.add_leaf(Role.INPUT, "x", tensor(F32, 1, 19, size, size))
        w = graph.add_leaf(Role.PARAM, "w", tensor(F32, 19, 19 // groups, size, size))
        y = graph.emit1(Conv2d(groups=groups), x, w)
    bias = graph.add_leaf(Role.PARAM, "bias", tensor(F32, *per))
    result = graph.emit1(Add(), y, bias)
    check_group(graph, target, row_major=(result,))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_a_half_float_for_later_beside_the_result(target):
    """Rounded where it is stored, while the step behind it reads the result itself."""
    graph, y = pointwise()
    kept = graph.emit1(Compress("f16"), y)
    check_group(graph, target, outputs=[kept, graph.emit1(Relu(), y)], tolerance=2.0**-11)


def test_fusion_is_offered_only_where_the_epilogue_can_read():
    backend = TvmBackend(TARGETS[0])
    graph, y = pointwise()
    conv = graph.nodes[0]
    for shape, fits in (((19, 1, 1), True), ((3, 5), True), ((19, 3, 5), False)):
        other = graph.add_leaf(Role.INPUT, graph.fresh_name("o"), tensor(F32, *shape))
        graph.emit1(Add(), y, other)
        assert backend.fusion()(conv, graph.nodes[-1]) is fits
    # An input of the program is row-major; a map that a kernel computed is not.
    image = graph.add_leaf(Role.INPUT, "image", tensor(F32, *SHAPE))
    graph.emit1(Add(), y, image)
    assert not backend.fusion()(conv, graph.nodes[-1])
    graph.emit1(Relu(), graph.emit1(Conv2d(), graph.leaves["x"], graph.leaves["w"]))
    graph.emit1(Add(), y, graph.nodes[-1].output)
    assert backend.fusion()(conv, graph.nodes[-1])
