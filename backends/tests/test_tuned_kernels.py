"""Kernels are right with every choice that a database could make, on shapes that divide by nothing."""

import dataclasses
from collections.abc import Iterator

import pytest

from edgec.backends.base import Target
from edgec.backends.targets import find_target, host_features
from edgec.backends.tvm.strategies import lower_group
from edgec.backends.tvm.tuning.choice import MODEL
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.types import DType, tensor
from edgec.tools.testing.group_case import check_group, group_of, storages

F32 = DType.F32
TARGETS = [t for t in map(find_target, ("x86-64-v4", "x86-64-v3")) if t.features in host_features()]
Case = tuple[Graph, dict[Value, Value], list[Value], int]


def convolution(which: str, channels: int, outputs: int, size: int, kernel: int, stride: int, groups: int = 1) -> Case:
    op = Conv2d((stride,) * 2, (kernel // 2,) * 4, groups=groups)
    x_type = tensor(F32, 2, channels, size, size)
    w_type = tensor(F32, outputs, channels // groups, kernel, kernel)
    (y_type,) = op.infer(x_type, w_type)
    graph = Graph(which)
    if which == "forward":
        x, w = graph.add_leaf(Role.INPUT, "x", x_type), graph.add_leaf(Role.PARAM, "w", w_type)
        bias = graph.add_leaf(Role.PARAM, "b", tensor(F32, outputs, 1, 1))
        return graph, {}, [graph.emit1(Add(), graph.emit1(op, x, w), bias)], 0
    if which == "input_grad":
        dy, w = graph.add_leaf(Role.INPUT, "dy", y_type), graph.add_leaf(Role.PARAM, "w", w_type)
        return graph, {}, [graph.emit1(Conv2dInputGrad(**op.same(), input_size=(size, size)), dy, w)], 0
    x, dy = graph.add_leaf(Role.INPUT, "x", x_type), graph.add_leaf(Role.INPUT, "dy", y_type)
    dw = graph.emit1(Conv2dWeightGrad(**op.same(), kernel_size=(kernel, kernel)), x, dy)
    w, lr = graph.add_leaf(Role.PARAM, "w", w_type), graph.add_leaf(Role.SCALAR, "lr", tensor(F32))
    updated = graph.emit1(SgdUpdate(), w, dw, lr)
    return graph, {updated: w}, [updated], 0


def few_rows(rows: int) -> Case:
    graph = Graph("few_rows")
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, rows, 301))
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, rows, 37))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, 37, 301))
    graph.emit1(MatMul(), x, w)
    return graph, {}, [graph.emit1(MatMul(transpose_b=True), dy, w)], 1


CASES = {
    "pointwise": convolution("forward", 19, 77, 9, 1, 1),
    "dense_lines": convolution("forward", 5, 37, 9, 3, 2),
    "input_grad": convolution("input_grad", 77, 19, 9, 1, 1),
    "strided_input_grad": convolution("input_grad", 35, 6, 7, 3, 2),
    "weight_grad": convolution("weight_grad", 29, 43, 9, 1, 1),
    "lines_weight_grad": convolution("weight_grad", 7, 37, 9, 3, 1),
    "long_weight_grad": convolution("weight_grad", 3, 17, 27, 1, 1),
    "depthwise": convolution("forward", 27, 27, 17, 3, 1, 27),
    "depthwise_input_grad": convolution("input_grad", 21, 21, 9, 5, 2, 21),
    "depthwise_weight_grad": convolution("weight_grad", 21, 21, 17, 5, 1, 21),
    "few_rows": few_rows(13),
    "frozen": convolution("forward", 19, 37, 9, 3, 1),
}


@dataclasses.dataclass
class Only:
    """The `number`-th candidate of each problem, as far as there are so many; `most` is the largest count seen."""

    number: int
    most: int = 0

    def choose(self, problem, target):
        candidates = problem.candidates(target)
        self.most = max(self.most, len(candidates))
        return candidates[min(self.number, len(candidates) - 1)]


def distinct_choices(case: Case, target: Target) -> Iterator[int]:
    """Numbers of candidates that make kernels of their own."""
    graph, alias, outputs, before = case
    group, storage, seen, number, most = group_of(graph, outputs, before), storages(graph, target), set(), 0, 1
    while number < most:
        only = Only(number)
        specs = tuple(call.spec for call in lower_group(group, storage, alias, target, only).calls)
        most = only.most
        if specs not in seen:
            yield number
        seen.add(specs)
        number += 1


def check(name: str, target: Target, number: int) -> None:
    graph, alias, outputs, before = CASES[name]
    check_group(graph, target, outputs=outputs, alias=alias, before=before, tuning=Only(number))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", CASES)
def test_there_is_a_choice_and_its_last_is_right(target, name: str):
    numbers = list(distinct_choices(CASES[name], target))
    assert len(numbers) > 1 and numbers[0] == 0
    check(name, target, numbers[-1])


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", CASES)
def test_every_choice_is_right(target, name: str):
    for number in distinct_choices(CASES[name], target):
        check(name, target, number)


def test_the_cases_pose_every_kind_of_problem():
    kinds = set()

    class Asked:
        def choose(self, problem, target):
            kinds.add(problem.kind)
            return MODEL.choose(problem, target)

    target = find_target("x86-64-v3")
    for graph, alias, outputs, before in CASES.values():
        lower_group(group_of(graph, outputs, before), storages(graph, target), alias, target, Asked())
    assert kinds == {"product", "sum", "depthwise", "depthwise_sum", "few_rows", "winograd"}
