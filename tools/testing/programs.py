"""Programs in the text form for tests of the compiler, and hypothesis strategies for random ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops import (
    Add,
    Clip,
    Conv2d,
    HardSwish,
    MatMul,
    Moments,
    Mul,
    NormParamGrad,
    ReduceMean,
    Relu,
    Reshape,
    SgdUpdate,
    Sub,
)
from edgec.graph.types import DType, TensorType


def initialise(module: Module, seed: int = 0) -> Module:
    """Give every param, state and constant without data some, the same in every program. Values in +-1."""
    data: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(seed)
    for graph in module.programs.values():
        for leaf in graph.leaves.values():
            if leaf.role in (Role.PARAM, Role.STATE, Role.CONSTANT) and leaf.data is None:
                if leaf.name not in data:
                    data[leaf.name] = rng.uniform(-1, 1, leaf.type.shape).astype(leaf.type.dtype.numpy)
                leaf.data = data[leaf.name]
    return module


def feeds(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Values for all inputs and scalars; integers are class indices 0 and 1, bounded scalars their greatest value."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for leaf in (*graph.by_role(Role.INPUT), *graph.by_role(Role.SCALAR)):
        if leaf.type.dtype.is_float:
            arrays[leaf.name] = rng.uniform(-1, 1, leaf.type.shape).astype(leaf.type.dtype.numpy)
        elif leaf.role is Role.SCALAR and leaf.bounds is not None:
            arrays[leaf.name] = np.array(leaf.bounds.high, leaf.type.dtype.numpy)
        else:
            arrays[leaf.name] = rng.integers(0, 2, leaf.type.shape).astype(leaf.type.dtype.numpy)
    return arrays


@st.composite
def random_trains(draw: st.DrawFn, max_nodes: int = 14) -> Graph:
    """A random program with inputs, params, updates of some of them, outputs, and mostly a loss that is guarded.

    Convolutions, matmuls, reductions, reshapes and elementwise nodes of one rank-4 and some rank-2 shapes, wired at
    random: residuals, several readers, values that are both output and operand, updates whose old value is still read.
    """
    graph = Graph("train")
    image = TensorType(DType.F32, (2, 3, 4, 4))
    graph.add_leaf(Role.INPUT, "x", image)
    graph.add_leaf(Role.INPUT, "weights", TensorType(DType.F32, (2, 1, 1, 1)))
    graph.add_leaf(Role.SCALAR, "lr", TensorType(DType.F32, ()))
    for name in ("w0", "w1"):
        graph.add_leaf(Role.PARAM, name, TensorType(DType.F32, (3, 3, 1, 1)), trainable=True)
    graph.add_leaf(Role.PARAM, "b", TensorType(DType.F32, (3,)), trainable=True)
    graph.add_leaf(Role.STATE, "running", TensorType(DType.F32, (3, 3, 1, 1)))
    pool: list[Value] = [v for v in graph.leaves.values() if v.name != "lr"]
    for _ in range(draw(st.integers(2, max_nodes))):
        pool.append(_random_node(draw, graph, pool))
    computed = [v for v in pool if v.producer is not None]
    for name in ("w0", "w1", "b", "running"):
        _random_update(draw, graph, graph.leaves[name], pool)
    for index in range(draw(st.integers(1, 3))):
        graph.outputs[f"y{index}"] = draw(st.sampled_from(pool if draw(st.booleans()) else computed))
    if draw(st.booleans()):
        source = draw(st.sampled_from(computed))
        axes = tuple(range(source.type.rank))
        graph.outputs["loss"] = graph.emit1(ReduceMean(axes=axes, keepdims=False), source, name="loss")
        graph.loss = "loss"
    return graph


def _random_node(draw: st.DrawFn, graph: Graph, pool: list[Value]) -> Value:
    x = draw(st.sampled_from(pool))
    same = [v for v in pool if v.type == x.type]
    kinds = ["unary", "binary", "reshape"]
    if x.type.shape == (2, 3, 4, 4):
        kinds += ["conv", "conv", "bias", "mean", "moments", "norm_grad"]
    elif x.type.rank == 2 and [v for v in pool if v.type.rank == 2 and v.type.shape[0] == x.type.shape[1]]:
        kinds += ["matmul"]
    kind = draw(st.sampled_from(kinds))
    if kind == "unary":
        op = draw(st.sampled_from([Relu(), HardSwish(), Clip(low=-0.5, high=0.5)]))
        return graph.emit1(op, x)
    if kind == "binary":
        return graph.emit1(draw(st.sampled_from([Add(), Mul(), Sub()])), x, draw(st.sampled_from(same)))
    if kind == "reshape":
        shape = draw(st.sampled_from(_other_shapes(x.type.shape)))
        return graph.emit1(Reshape(shape), x)
    if kind == "conv":
        weights = [v for v in pool if v.type.shape == (3, 3, 1, 1)]
        return graph.emit1(Conv2d(), x, draw(st.sampled_from(weights)))
    if kind == "bias":
        channels = [v for v in pool if v.type.shape == (3,)]
        return graph.emit1(Add(), x, graph.emit1(Reshape((3, 1, 1)), draw(st.sampled_from(channels))))
    if kind == "moments":
        weights = [[], *([v] for v in pool if v.type.shape == (2, 1, 1, 1))]
        return draw(st.sampled_from(graph.emit(Moments(axes=(0, 2, 3)), x, *draw(st.sampled_from(weights)))))
    if kind == "norm_grad":
        channels = [v for v in pool if v.type.shape == (3,)]
        mean, inverse = (graph.emit1(Reshape((3, 1, 1)), draw(st.sampled_from(channels))) for _ in range(2))
        sums = graph.emit(NormParamGrad(axes=(0, 2, 3)), x, draw(st.sampled_from(same)), mean, inverse)
        return draw(st.sampled_from(sums))
    if kind == "mean":
        return graph.emit1(ReduceMean(axes=(0, 2, 3), keepdims=False), x)
    right = [v for v in pool if v.type.rank == 2 and v.type.shape[0] == x.type.shape[1]]
    return graph.emit1(MatMul(), x, draw(st.sampled_from(right)))


def _other_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    size = int(np.prod(shape))
    pairs = [(size // n, n) for n in (1, 3, 12) if size % n == 0]
    known = [s for s in ((2, 3, 4, 4), (3, 3, 1, 1), (3,)) if int(np.prod(s)) == size]
    return [s for s in [*pairs, *known, (size,)] if s != shape] or [(1, *shape)]


def _random_update(draw: st.DrawFn, graph: Graph, target: Value, pool: list[Value]) -> None:
    """Nothing, an SGD step, or any value of the right type: also a leaf, or one that is handed out or read as well."""
    fitting = [v for v in pool if v.type == target.type and v is not target]
    kind = draw(st.sampled_from(["none", "step", "any"]))
    if kind == "none" or not fitting:
        return
    value = draw(st.sampled_from(fitting))
    if kind == "step":
        value = graph.emit1(SgdUpdate(), target, value, graph.leaves["lr"], name=f"{target.name}.new")
        if draw(st.booleans()):
            pool.append(value)
    graph.updates[target] = value
