"""Depthwise convolutions of devices and their gradients, on the OpenCL driver at hand: strides, dilations, borders,
rows that are no multiple of an item's, positions in parts.
"""

from __future__ import annotations

import pytest
from cases.op_case import Normal, OpCase, assert_agrees, case
from executors import OPENCL, Session
from op_module import op_module, operands, results
from subject import Subject

from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad

# name, attributes, x shape, taps
_CASES = (
    ("plain", {"pads": (1, 1, 1, 1)}, (2, 5, 9, 7), (3, 3)),
    ("tall", {"pads": (2, 2, 2, 2)}, (1, 37, 33, 31), (5, 5)),
    ("many", {"pads": (1, 1, 1, 1)}, (2, 33, 49, 53), (3, 3)),
    ("strided", {"pads": (1, 1, 1, 1), "strides": (2, 2)}, (2, 24, 57, 56), (3, 3)),
    ("strided_by_three", {"pads": (0, 2, 1, 0), "strides": (3, 2)}, (3, 7, 14, 15), (2, 4)),
    ("dilated", {"pads": (3, 1, 2, 4), "dilations": (2, 3), "strides": (2, 1)}, (2, 6, 17, 13), (3, 3)),
    ("unread_border", {"strides": (2, 2)}, (1, 4, 12, 12), (3, 3)),
)


def _cases() -> list[OpCase]:
    found = []
    for name, attributes, x, taps in _CASES:
        own = {**attributes, "groups": x[1]}
        w = (x[1], 1, *taps)
        y = (*x[:2], *Conv2d(**own).window(x[2:], taps).output)
        found += [
            case(name, Conv2d(**own), Normal(x), Normal(w)),
            case(name, Conv2dInputGrad(**own, input_size=x[2:]), Normal(y), Normal(w)),
            case(name, Conv2dWeightGrad(**own, kernel_size=taps), Normal(x), Normal(y)),
        ]
    return found


CASES = _cases()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return OPENCL.open(Subject(lambda: op_module(CASES)), tmp_path_factory.mktemp("depthwise"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_depthwise(session: Session, case: OpCase) -> None:
    ran = session.run(case.name, [operands(case)])
    assert "depthwise" in ran.kernels[0], ran.kernels
    for name, array in results(case).items():
        assert_agrees(case.op, ran.outputs[name], array)
