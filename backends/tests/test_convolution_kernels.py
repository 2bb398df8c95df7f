"""Dense, grouped and depthwise convolutions and both gradients against numpy, over odd geometries, fused and in
place.
"""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.backends.targets import find_target
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.hard_swish_grad import HardSwishGrad
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.types import DType, tensor
from edgec.tools.testing.group_case import check_group

F32 = DType.F32
TARGETS = [find_target(name) for name in ("x86", "x86-64-v3")]
FEW = settings(max_examples=5, deadline=None)
# Nothing here is a multiple of a vector except by chance: 1, primes, one more or less than a panel.
CHANNELS = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 40, 67])


@dataclass(frozen=True)
class Geometry:
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    op: Conv2d

    @property
    def y(self) -> tuple[int, ...]:
        return self.op.infer(tensor(F32, *self.x), tensor(F32, *self.w))[0].shape


@st.composite
def geometries(draw: st.DrawFn, depthwise: bool = False, groups: int = 1) -> Geometry:
    kernel, strides, dilations = (draw(st.tuples(st.integers(1, n), st.integers(1, n))) for n in (4, 3, 2))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    # The window must fit once; beyond that sizes are free, also where the last pixels are never read.
    size = [max(1, r - pads[i] - pads[i + 2]) + draw(st.integers(0, 9)) for i, r in enumerate(reach)]
    inputs, outputs = draw(CHANNELS), draw(CHANNELS)
    images = draw(st.integers(1, 3))
    if depthwise:
        channels = max(2, inputs)
        op = Conv2d(strides, pads, dilations, channels)
        return Geometry((images, channels, *size), (channels, 1, *kernel), op)
    op = Conv2d(strides, pads, dilations, groups)
    return Geometry((images, inputs * groups, *size), (outputs * groups, inputs, *kernel), op)


def forward(geometry: Geometry, target, row_major_input: bool = False) -> list[str]:
    """Bias, activation and a residual; pre-activation and result are both handed out, the result over the residual."""
    graph = Graph("forward")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, *geometry.x))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, *geometry.w))
    bias = graph.add_leaf(Role.PARAM, "b", tensor(F32, geometry.w[0], 1, 1))
    residual = graph.add_leaf(Role.INPUT, "r", tensor(F32, *geometry.y))
    before = graph.emit1(Add(), graph.emit1(geometry.op, x, w), bias)
    result = graph.emit1(Add(), residual, graph.emit1(HardSwish(), before))
    return check_group(
        graph, target, outputs=[before, result], alias={result: residual}, row_major=(x,) if row_major_input else ()
    )


def gated(geometry: Geometry, target) -> list[str]:
    """A sigmoid, whose steps are long, times what it is of."""
    graph = Graph("gated")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, *geometry.x))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, *geometry.w))
    y = graph.emit1(geometry.op, x, w)
    return check_group(graph, target, outputs=[graph.emit1(Mul(), y, graph.emit1(Sigmoid(), y))])


def input_grad(geometry: Geometry, target, row_major_dy: bool = False) -> list[str]:
    graph = Graph("input_grad")
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, *geometry.y))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, *geometry.w))
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, *geometry.x))
    dx = graph.emit1(Conv2dInputGrad(**geometry.op.same(), input_size=geometry.x[2:]), dy, w)
    result = graph.emit1(HardSwishGrad(), dx, x)
    return check_group(graph, target, alias={result: x}, row_major=(dy,) if row_major_dy else ())


def weight_grad(geometry: Geometry, target, update: SgdUpdate | None) -> list[str]:
    graph = Graph("weight_grad")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, *geometry.x))
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, *geometry.y))
    op = Conv2dWeightGrad(**geometry.op.same(), kernel_size=geometry.w[2:])
    dw = graph.emit1(op, x, dy)
    if update is None:
        return check_group(graph, target)
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, *geometry.w))
    lr = graph.add_leaf(Role.SCALAR, "lr", tensor(F32))
    held: list[Value] = [w]
    if update.momentum:
        held.append(graph.add_leaf(Role.STATE, "v", tensor(F32, *geometry.w)))
    results = graph.emit(update, w, dw, lr, *held[1:])
    return check_group(graph, target, outputs=list(results), alias=dict(zip(results, held, strict=True)))


UPDATES = st.sampled_from([None, SgdUpdate(), SgdUpdate(momentum=0.9, weight_decay=0.1, nesterov=True)])


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(geometry=geometries(), row_major=st.booleans())
def test_dense_forward(target, geometry: Geometry, row_major: bool):
    assert "hard_swish" in forward(geometry, target, row_major)[-1]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(geometry=geometries())
def test_dense_input_grad(target, geometry: Geometry):
    assert "input_grad_hard_swish_grad" in input_grad(geometry, target)[-1]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("stride", [1, 2])
def test_input_grad_of_a_map_that_was_tokens(target, stride: int):
    """A transposed convolution upsamples what a transformer leaves: row-major, and read through a copy."""
    geometry = Geometry((2, 9, 7, 8), (21, 9, 2, 2), Conv2d((stride, stride)))
    assert input_grad(geometry, target, row_major_dy=True)[-1].endswith("input_grad_hard_swish_grad")


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(geometry=geometries(), update=UPDATES)
def test_dense_weight_grad(target, geometry: Geometry, update: SgdUpdate | None):
    assert "weight_grad" in weight_grad(geometry, target, update)[-1]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@settings(FEW, max_examples=3)
@given(geometry=geometries(groups=3))
def test_grouped_forward(target, geometry: Geometry):
    forward(geometry, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(geometry=geometries(depthwise=True), row_major=st.booleans())
def test_depthwise_forward(target, geometry: Geometry, row_major: bool):
    assert forward(geometry, target, row_major)[-1] == "f32_depthwise_add_hard_swish_add"


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(geometry=geometries(depthwise=True))
def test_depthwise_input_grad(target, geometry: Geometry):
    assert input_grad(geometry, target) == ["f32_depthwise_input_grad_hard_swish_grad"]


def test_depthwise_sums_are_never_filled_by_the_library():
    """At these extents LLVM made a call of memset of sums that begin as the constant 0."""
    graph = Graph("backward")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, 1, 336, 4, 4))
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, 1, 336, 4, 4))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, 336, 1, 3, 3))
    dx = graph.emit1(Conv2dInputGrad(pads=(1, 1, 1, 1), groups=336, input_size=(4, 4)), dy, w)
    graph.outputs["dx"] = graph.emit1(ClipGrad(0.0, 6.0), dx, x)
    check_group(graph, TARGETS[0])


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(geometry=geometries(depthwise=True), update=UPDATES)
def test_depthwise_weight_grad(target, geometry: Geometry, update: SgdUpdate | None):
    assert weight_grad(geometry, target, update)[-1].startswith("f32_depthwise_weight_grad")


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((1, 16, 23, 29), (40, 16, 1, 1), Conv2d()),  # one line of 667 rows: several row blocks
        Geometry((3, 5, 40, 31), (17, 5, 3, 3), Conv2d(pads=(1, 1, 1, 1))),  # several line blocks
        Geometry((1, 97, 6, 5), (33, 97, 3, 3), Conv2d(pads=(1, 1, 1, 1))),  # sums in chains of one tap
        Geometry((1, 11, 9, 9), (17, 11, 5, 5), Conv2d((2, 2))),  # sums in chains of two rows of taps
        Geometry((2, 130, 12, 12), (130, 1, 5, 5), Conv2d((2, 2), (2, 2, 2, 2), groups=130)),  # several channel tasks
        Geometry((4, 70, 13, 60), (70, 1, 3, 3), Conv2d(pads=(1, 1, 1, 1), groups=70)),
        # Tiles at both borders in one loop with those between, borders wider than a tile's first column, phases.
        Geometry((2, 19, 9, 57), (19, 1, 3, 3), Conv2d((2, 2), (1, 1, 1, 1), groups=19)),
        Geometry((1, 18, 9, 56), (18, 1, 4, 3), Conv2d((1, 1), (3, 2, 1, 3), (1, 2), groups=18)),
        Geometry((1, 16, 11, 85), (16, 1, 2, 3), Conv2d((3, 3), (1, 1, 0, 2), groups=16)),
        Geometry((1, 16, 9, 17), (16, 1, 4, 4), Conv2d((2, 2), (1, 1, 1, 1), groups=16)),  # equally many taps
    ],
    ids=[
        "pointwise",
        "dense",
        "deep",
        "deep-5x5",
        "depthwise-strided",
        "depthwise-wide",
        "depthwise-wide-strided",
        "depthwise-wide-borders",
        "depthwise-wide-phases",
        "depthwise-wide-phases-alike",
    ],
)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_more_than_one_task_and_block(target, geometry: Geometry):
    forward(geometry, target)
    input_grad(geometry, target)
    for update in (None, SgdUpdate(momentum=0.9)):
        weight_grad(geometry, target, update)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("depthwise", [False, True])
@FEW
@given(data=st.data())
def test_long_steps_after_a_convolution(target, depthwise: bool, data: st.DataObject):
    gated(data.draw(geometries(depthwise)), target)
