"""Tiled products of devices, and sums in parts, on the OpenCL driver at hand: every op, ragged tiles, groups."""

from __future__ import annotations

import re

import pytest
from cases.op_case import Normal, OpCase, assert_agrees, case
from executors import OPENCL, Session
from op_module import op_module, operands, results
from subject import Subject

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.gpu.kernels import TeamSpec
from edgec.backends.tvm.gpu.parts import PartsSpec
from edgec.backends.tvm.gpu.products import LARGE, MAX_PARTS, SMALL, ProductSpec
from edgec.compiler.budget import schedule_target
from edgec.compiler.pack import kernel_specs
from edgec.compiler.passbase import Options, Trace
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.reduce_sum import ReduceSum

# name, attributes, x shape, w shape
_CONVOLUTIONS = (
    ("pointwise", {}, (2, 19, 13, 11), (33, 19, 1, 1)),
    ("strided_3x3", {"pads": (1, 1, 1, 1), "strides": (2, 2)}, (2, 9, 17, 15), (35, 9, 3, 3)),
    ("grouped_dilated", {"groups": 2, "pads": (2, 1, 2, 1), "dilations": (2, 1)}, (1, 18, 14, 9), (20, 9, 3, 3)),
)
_PRODUCTS = (
    ("rows", {}, (3, 70, 41), (41, 37)),
    ("turned", {"transpose_a": True, "transpose_b": True}, (2, 1, 600, 33), (3, 17, 600)),
)


def _output(attributes: dict, x: tuple[int, ...], w: tuple[int, ...]) -> tuple[int, ...]:
    return (x[0], w[0], *Conv2d(**attributes).window(x[2:], w[2:]).output)


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
    *(case(name, MatMul(**a), Normal(x), Normal(y)) for name, a, x, y in _PRODUCTS),
)


SUMS = (
    case("channels", ReduceSum((0, 2, 3)), Normal((3, 5, 61, 53))),
    case("first", ReduceSum((0,), keepdims=True), Normal((9001, 3))),
    case("all", ReduceSum((0, 1), keepdims=True), Normal((150, 67))),
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return OPENCL.open(Subject(lambda: op_module((*CASES, *SUMS))), tmp_path_factory.mktemp("products"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_products(session: Session, case: OpCase) -> None:
    ran = session.run(case.name, [operands(case)])
    assert "tile" in ran.kernels[0], ran.kernels
    for name, array in results(case).items():
        assert_agrees(case.op, ran.outputs[name], array)


@pytest.mark.parametrize("case", SUMS, ids=str)
def test_sums_in_parts(session: Session, case: OpCase) -> None:
    ran = session.run(case.name, [operands(case)])
    assert [re.search("part_team|parts", kernel)[0] for kernel in ran.kernels] == ["part_team", "parts"]
    for name, array in results(case).items():
        assert_agrees(case.op, ran.outputs[name], array)


def lowered(op: Conv2d | MatMul, *shapes: tuple[int, ...]) -> list:
    module = op_module((case("case", op, *(Normal(shape) for shape in shapes)),))
    schedules = schedule_target(module, TvmBackend(find_target("mobile-gpu")), Options(), Trace())
    assert schedules is not None
    return kernel_specs(schedules)


def test_a_device_is_filled() -> None:
    """Large tiles where there are many, small ones where there are few, parts of the depth where there are fewer."""
    (many,) = lowered(MatMul(), (1024, 512), (512, 1024))
    assert isinstance(many, ProductSpec) and (many.tile, many.parts) == (LARGE, 1)
    assert many.groups == 256 and many.threads == 256
    few, adding = lowered(MatMul(), (64, 4096), (4096, 64))
    assert isinstance(few, ProductSpec) and few.tile == SMALL and 1 < few.parts <= MAX_PARTS
    assert isinstance(adding, PartsSpec) and few.groups == 4 * few.parts
    (narrow,) = lowered(MatMul(), (4, 4096), (4096, 64))
    assert isinstance(narrow, TeamSpec), "too few rows for tiles"
