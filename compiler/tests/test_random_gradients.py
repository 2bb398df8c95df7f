"""Gradients of random programs against directional finite differences: any wiring, not only that of known models."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops import Add, Concat, MatMul, Mul, ReduceMean, Reshape, Sigmoid, Slice, Softmax, Sub, Transpose
from edgec.graph.types import DType, TensorType

ROWS, WIDTH = 2, 3
SQUARE = TensorType(DType.F64, (ROWS, WIDTH, WIDTH))


@st.composite
def programs(draw: st.DrawFn) -> Module:
    """Smooth ops between values [N,3,3], wired at random: residuals, many readers, parameters read again and again."""
    graph = Graph("infer")
    rng = np.random.default_rng(0)
    pool = [graph.add_leaf(Role.INPUT, "x", SQUARE)]
    for name in ("u", "v"):
        data = rng.standard_normal((WIDTH, WIDTH))
        pool.append(graph.add_leaf(Role.PARAM, name, TensorType(DType.F64, data.shape), data=data))
    for _ in range(draw(st.integers(1, 12))):
        pool.append(_draw_node(draw, graph, pool))
    last = next(value for value in reversed(pool) if value.type == SQUARE)
    graph.outputs["y"] = graph.emit1(Reshape((ROWS, WIDTH * WIDTH)), last)
    return Module({"infer": graph})


def _draw_node(draw: st.DrawFn, graph: Graph, pool: list[Value]) -> Value:
    x, y = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
    kind = draw(st.sampled_from(["add", "sub", "mul", "sigmoid", "matmul", "transpose", "softmax", "mean", "cut"]))
    last = x.type.rank - 1
    if kind in ("add", "sub", "mul"):
        return graph.emit1({"add": Add(), "sub": Sub(), "mul": Mul()}[kind], x, y)
    if kind == "sigmoid":
        return graph.emit1(Sigmoid(), x)
    if kind == "matmul":
        return graph.emit1(MatMul(draw(st.booleans()), draw(st.booleans())), x, y)
    if kind == "transpose":
        return graph.emit1(Transpose((*range(last - 1), last, last - 1)), x)
    if kind == "softmax":
        return graph.emit1(Softmax(last), x)
    if kind == "mean":
        return graph.emit1(Sub(), x, graph.emit1(ReduceMean((last,), True), x))
    if x.type != y.type:
        return x
    rest, first = (graph.emit1(Slice.along(last, *span, v.type), v) for v, span in ((x, (1, WIDTH)), (y, (0, 1))))
    return graph.emit1(Concat(last), rest, first)


@settings(max_examples=80, deadline=None)
@given(programs())
def test_steps_are_gradients(module: Module) -> None:
    graph = module.programs["infer"]
    reached = {v.name for n in graph.ancestors(graph.results()) for v in n.inputs if v.role is Role.PARAM}
    if not reached:
        return
    transform_module(module, Options(train=Train()))
    train, evaluate = module.programs["train"], module.programs["eval"]
    rng = np.random.default_rng(1)
    feeds = {"x": rng.standard_normal(SQUARE.shape), "labels": rng.integers(0, WIDTH * WIDTH, ROWS)}
    updates = run(train, {**feeds, "lr": np.float32(1)}).updates
    assert updates.keys() == reached
    for name, new in updates.items():
        at = train.leaves[name].data
        direction = rng.standard_normal(at.shape)

        def loss(step: float, name: str = name, line: np.ndarray = direction, at: np.ndarray = at) -> float:
            return float(run(evaluate, {**feeds, name: at + step * line}).outputs["loss"])

        expected = (loss(1e-5) - loss(-1e-5)) / 2e-5
        np.testing.assert_allclose(np.sum((at - new) * direction), expected, rtol=1e-4, atol=1e-6)
