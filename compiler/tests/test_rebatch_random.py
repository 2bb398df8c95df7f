"""rebatch on random programs: each image is treated as if alone, or the program is refused."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rebatched import check

from edgec.compiler.rebatch import rebatch
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops import (
    Add,
    BroadcastTo,
    Concat,
    Conv2d,
    MatMul,
    Mul,
    Pad,
    ReduceMean,
    ReduceSum,
    Relu,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)
from edgec.graph.types import DType, TensorType


def factorisations(size: int) -> st.SearchStrategy:
    """Shapes of `size` elements with up to four axes."""

    @st.composite
    def draw_shape(draw: st.DrawFn) -> tuple[int, ...]:
        shape, left = [], size
        for _ in range(draw(st.integers(0, 3))):
            extent = draw(st.sampled_from([n for n in range(1, left + 1) if left % n == 0]))
            shape.append(extent)
            left //= extent
        return (*shape, left)

    return draw_shape()


@st.composite
def programs(draw: st.DrawFn, batch: int) -> Graph:
    """A random program over one input [batch,2,3,4] and some parameters; every value is an output."""
    graph = Graph("infer")
    rng = np.random.default_rng(0)
    pool = [graph.add_leaf(Role.INPUT, "x", TensorType(DType.F32, (batch, 2, 3, 4)))]

    def param(*shape: int) -> Value:
        array = rng.standard_normal(shape).astype(np.float32)
        return graph.add_leaf(Role.PARAM, graph.fresh_name("w"), TensorType(DType.F32, shape), data=array)

    for _ in range(draw(st.integers(1, 7))):
        x = draw(st.sampled_from(pool))
        op, others = _draw_op(draw, x, pool, param)
        try:
            pool.append(graph.emit1(op, x, *others))
        except UserError:
            continue
    for index, value in enumerate(pool[1:]):
        graph.outputs[f"y{index}"] = value
    return graph


def _draw_op(draw: st.DrawFn, x: Value, pool: list[Value], param: object) -> tuple:
    shape, rank = x.type.shape, x.type.rank
    axis = draw(st.integers(0, max(0, rank - 1)))
    kinds = ["reshape", "reshape", "transpose", "relu", "reduce", "softmax", "slice", "pad", "concat", "add", "mul"]
    kinds += ["matmul", "matmul", "products", "broadcast", "conv"]
    kind = draw(st.sampled_from(kinds))
    zeros, steps = [0] * rank, [1] * rank
    if kind == "reshape" or not rank:
        return Reshape(draw(factorisations(math.prod(shape)))), ()
    if kind == "transpose":
        return Transpose(tuple(draw(st.permutations(range(rank))))), ()
    if kind == "relu":
        return Relu(), ()
    if kind == "reduce":
        return draw(st.sampled_from([ReduceMean, ReduceSum]))((axis,), draw(st.booleans())), ()
    if kind == "softmax":
        return Softmax(axis), ()
    if kind == "slice":
        ends = list(shape)
        ends[axis] = draw(st.integers(1, shape[axis]))
        return Slice(tuple(zeros), tuple(ends), tuple(steps)), ()
    if kind == "pad":
        low = list(zeros)
        low[axis] = draw(st.integers(0, 1))
        return Pad(tuple(low), tuple(zeros)), ()
    if kind == "concat":
        other = draw(st.sampled_from([x, param(*shape), *[v for v in pool if v.type == x.type]]))
        return Concat(axis), (other,)
    if kind in ("add", "mul"):
        same = [v for v in pool if v.type.rank <= rank]
        lower = param(*draw(st.sampled_from([shape[1:], shape[-1:], (1,) * rank, shape])))
        return (Add() if kind == "add" else Mul()), (draw(st.sampled_from([lower, *same])),)
    if kind == "matmul":
        flags = draw(st.tuples(st.booleans(), st.booleans()))
        inner = shape[-2] if flags[0] and rank > 1 else shape[-1]
        return MatMul(*flags), (param(2, inner) if flags[1] else param(inner, 2),)
    if kind == "products":
        return MatMul(*draw(st.tuples(st.booleans(), st.booleans()))), (draw(st.sampled_from(pool)),)
    if kind == "broadcast":
        return BroadcastTo(tuple(2 if n == 1 and i == axis else n for i, n in enumerate(shape))), ()
    return Conv2d(), (param(2, shape[1] if rank > 1 else 1, 1, 1),)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([1, 2]))
def test_every_image_is_treated_as_if_alone(data: st.DataObject, batch: int) -> None:
    graph = data.draw(programs(batch))
    try:
        check(graph, batch, 3 * batch)
    except UserError as error:
        assert error.code == "E0302" and error.where and error.hint


def test_most_random_programs_of_one_image_can_be_rebatched() -> None:
    """Or the property above would hold for a function that always refuses."""
    accepted = []

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(programs(1))
    def count(graph: Graph) -> None:
        try:
            rebatch(graph, 2, "train")
            accepted.append(True)
        except UserError:
            accepted.append(False)

    count()
    assert sum(accepted) > 40
