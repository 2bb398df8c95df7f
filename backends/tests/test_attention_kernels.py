"""Attention and its gradient without the matrix of scores, against f64 references and against kernels node by node."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_register_tiles import SPILL, innermost
from test_register_tiles import TARGETS as REGISTER_TARGETS

from edgec.backends.base import Group, Target
from edgec.backends.targets import find_target
from edgec.backends.tvm.attention import AttentionGradientSpec, AttentionSpec
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.generic.kernel import GenericSpec
from edgec.backends.tvm.strategies import in_pieces, lower_group
from edgec.backends.tvm.tuning.choice import MODEL
from edgec.compiler.schedule import make_group
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops import Add, Div, MatMul, Mul, ReduceSum, Softmax, Sub, Where
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import disassemble, run_lowering

F32 = DType.F32
TARGETS = {name: find_target(name) for name in ("x86", "x86-64-v3")}
# batch, heads, rows, keys, depth, columns: whole tiles and panels; primes; one row; one key; tails of every width; more
# blocks of rows than one, the last one shorter; rows of scores that are kept apart.
SHAPES = [
    (2, 2, 28, 32, 16, 32),
    (1, 2, 17, 19, 7, 5),
    (2, 1, 1, 13, 8, 8),
    (1, 3, 11, 1, 4, 3),
    (1, 1, 61, 63, 33, 31),
    (1, 2, 101, 701, 5, 12),
    (1, 2, 29, 256, 8, 8),
]


class Net:
    """softmax(q k^T * scale + mask) v, or its gradient, of leaves."""

    def __init__(self, shape: tuple[int, ...], *, transposed: bool = False):
        self.graph = Graph("infer")
        self.batch, self.heads, self.rows, self.keys, self.depth, self.columns = shape
        self.transposed = transposed
        self.q = self.leaf("q", self.rows, self.depth)
        self.k = self.leaf("k", *((self.depth, self.keys) if transposed else (self.keys, self.depth)))
        self.v = self.leaf("v", self.keys, self.columns)
        self.scale = self.graph.constant(np.float32(1 / math.sqrt(self.depth)), "scale")

    def leaf(self, name: str, *matrix: int) -> Value:
        return self.graph.add_leaf(Role.INPUT, name, tensor(F32, self.batch, self.heads, *matrix))

    def mask(self, *shape: int, dtype: DType = F32) -> Value:
        return self.graph.add_leaf(Role.INPUT, "mask", tensor(dtype, *shape))

    def weights(self, mask: Value | None = None, allowed: Value | None = None) -> Value:
        scores = self.graph.emit1(MatMul(transpose_b=not self.transposed), self.q, self.k)
        scores = self.graph.emit1(Mul(), scores, self.scale)
        if mask is not None and mask.type.dtype is DType.BOOL:
            scores = self.graph.emit1(Where(), mask, scores, self.graph.constant(np.float32(-1e30), "masked"))
        elif mask is not None:
            scores = self.graph.emit1(Add(), scores, mask)
        return self.graph.emit1(Softmax(3), scores)

    def allow(self, value: Value, allowed: Value | None) -> Value:
        if allowed is None:
            return value
        return self.graph.emit1(Where(), allowed, value, self.graph.constant(np.float32(0), "zero"))

    def forward(self, mask: Value | None = None, allowed: Value | None = None) -> Group:
        self.graph.outputs["y"] = self.graph.emit1(MatMul(), self.allow(self.weights(mask), allowed), self.v)
        return make_group(self.graph, self.graph.nodes)

    def gradient(self, wanted: str = "qkv", mask: Value | None = None, allowed: Value | None = None) -> Group:
        emit, y, dy = self.graph.emit1, self.weights(mask), self.leaf("dy", self.rows, self.columns)
        if "v" in wanted:
            self.graph.outputs["dv"] = emit(MatMul(transpose_a=True), self.allow(y, allowed), dy)
        if "q" in wanted or "k" in wanted:
            slopes = self.allow(emit(MatMul(transpose_b=True), dy, self.v), allowed)
            total = emit(ReduceSum((3,), keepdims=True), emit(Mul(), slopes, y))
            slopes = emit(Mul(), y, emit(Sub(), slopes, total))
            if mask is not None and mask.type.dtype is DType.BOOL:
                slopes = self.allow(slopes, mask)
            slopes = emit(Mul(), slopes, self.scale)
        if "q" in wanted:
            self.graph.outputs["dq"] = emit(MatMul(transpose_b=self.transposed), slopes, self.k)
        if "k" in wanted:
            operands = (self.q, slopes) if self.transposed else (slopes, self.q)
            self.graph.outputs["dk"] = emit(MatMul(transpose_a=True), *operands)
        return make_group(self.graph, self.graph.nodes)

    def feeds(self, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        drawn = {}
        for leaf in self.graph.by_role(Role.INPUT):
            values = rng.normal(size=leaf.type.shape)
            drawn[leaf.name] = values > -0.7 if leaf.type.dtype is DType.BOOL else values.astype(np.float32)
        return drawn


def computed(net: Net, group: Group, feeds: dict[str, np.ndarray], target: str, apart: bool = False) -> dict:
    storage = {value: Storage.row_major(value.type.shape) for value in net.graph.values()}
    machine = TARGETS[target]
    if apart:
        lowering = in_pieces(group, [(node,) for node in group.nodes], storage, {}, machine, MODEL)
    else:
        lowering = lower_group(group, storage, {}, machine)
    specs = [call.spec for call in lowering.calls]
    assert not any(isinstance(spec, GenericSpec) for spec in specs)
    assert any(isinstance(spec, AttentionSpec | AttentionGradientSpec) for spec in specs) != apart
    memory = {leaf: leaf.data if leaf.data is not None else feeds[leaf.name] for leaf in net.graph.leaves.values()}
    memory = {leaf: np.ascontiguousarray(array).reshape(-1).copy() for leaf, array in memory.items()}
    memory |= {value: np.full(value.type.size, np.nan, np.float32) for value in group.outputs}
    run_lowering(lowering, memory, TARGETS[target])
    return {name: memory[value].reshape(value.type.shape) for name, value in net.graph.outputs.items()}


def check(net: Net, group: Group, target: str) -> None:
    feeds = net.feeds()
    got = computed(net, group, feeds, target)
    for name, exact in run(net.graph, feeds, np.float64).outputs.items():
        scale = max(1.0, float(np.abs(exact).max()))
        np.testing.assert_allclose(got[name], exact, rtol=0, atol=1e-5 * scale, err_msg=name)


EVERYWHERE = [
    pytest.param(shape, target, marks=() if target == "x86-64-v3" or shape == SHAPES[4] else pytest.mark.long)
    for shape in SHAPES
    for target in TARGETS
]


@pytest.mark.parametrize(("shape", "target"), EVERYWHERE, ids=str)
def test_attention(shape: tuple[int, ...], target: str):
    net = Net(shape)
    check(net, net.forward(), target)


@pytest.mark.parametrize(("shape", "target"), EVERYWHERE, ids=str)
def test_gradients(shape: tuple[int, ...], target: str):
    net = Net(shape)
    check(net, net.gradient(), target)


@pytest.mark.parametrize("wanted", ["q", "k", "v", "qk", "qv", "kv"])
def test_some_of_the_gradients(wanted: str):
    net = Net((1, 2, 37, 19, 7, 5))
    check(net, net.gradient(wanted), "x86-64-v3")


@pytest.mark.parametrize("part", ["forward", "gradient"])
def test_keys_that_are_given_transposed(part: str):
    net = Net((2, 1, 37, 19, 7, 5), transposed=True)
    check(net, getattr(net, part)(), "x86-64-v3")


MASKS = {"keys": (2, 1, 1, 19), "rows": (37, 19), "both": (2, 1, 37, 19), "heads": (3, 37, 1), "all": (2, 3, 37, 19)}


@pytest.mark.parametrize("part", ["forward", "gradient"])
@pytest.mark.parametrize("dtype", [DType.F32, DType.BOOL], ids=str)
@pytest.mark.parametrize("mask", MASKS)
def test_masks(mask: str, dtype: DType, part: str):
    net = Net((2, 3, 37, 19, 7, 5))
    check(net, getattr(net, part)(mask=net.mask(*MASKS[mask], dtype=dtype)), "x86-64-v3")


@pytest.mark.parametrize("part", ["forward", "gradient"])
def test_a_mask_as_large_as_scores_whose_rows_would_be_kept_apart(part: str):
    net = Net((1, 2, 9, 256, 7, 5))
    check(net, getattr(net, part)(mask=net.mask(1, 2, 9, 256)), "x86-64-v3")


@pytest.mark.parametrize("part", ["forward", "gradient"])
def test_weights_that_are_masked_behind_the_softmax(part: str):
    net = Net((2, 3, 37, 19, 7, 5))
    check(net, getattr(net, part)(allowed=net.mask(2, 1, 1, 19, dtype=DType.BOOL)), "x86")


def test_a_scale_that_divides_and_one_behind_the_softmax():
    net = Net((1, 2, 5, 9, 3, 4))
    scores = net.graph.emit1(Div(), net.graph.emit1(MatMul(transpose_b=True), net.q, net.k), net.scale)
    weights = net.graph.emit1(Mul(), net.graph.emit1(Softmax(3), scores), net.scale)
    net.graph.outputs["y"] = net.graph.emit1(MatMul(), weights, net.v)
    check(net, make_group(net.graph, net.graph.nodes), "x86")


@pytest.mark.parametrize("part", ["forward", "gradient"])
@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min, -1e30])
def test_rows_without_keys_are_as_they_are_node_by_node(lowest: float, part: str):
    net = Net((2, 1, 9, 21, 8, 8))
    group = getattr(net, part)(mask=net.mask(2, 1, 1, 21))
    feeds = net.feeds()
    feeds["mask"][:] = 0
    feeds["mask"][1] = lowest
    feeds["mask"][0, ..., 7:] = lowest
    got, apart = (computed(net, group, feeds, "x86", is_apart) for is_apart in (False, True))
    for name, expected in apart.items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def attends(net: Net, group: Group, target: str = "x86") -> bool:
    return TvmBackend(find_target(target)).attends(group)


@pytest.mark.parametrize("part", ["forward", "gradient"])
def test_what_pays(part: str):
    large, small = Net((1, 4, 256, 256, 16, 16)), Net((1, 1, 16, 16, 16, 16))
    assert attends(large, getattr(large, part)())
    assert not attends(small, getattr(small, part)())  # all scores stay in the nearest caches


@pytest.mark.parametrize("target", ["cuda:sm_80", "cortex-m7", "mobile-gpu"])
def test_targets_without_such_kernels(target: str):
    net = Net((1, 4, 256, 256, 16, 16))
    assert not attends(net, net.forward(), target)


def test_rows_too_long_for_a_cache():
    net = Net((1, 1, 64, 100_000, 4, 4))
    assert not attends(net, net.forward())


def test_keys_that_heads_share_without_being_repeated():
    net = Net((2, 4, 128, 128, 4, 4))
    shared = net.graph.add_leaf(Role.INPUT, "shared", tensor(F32, 2, 1, 128, 4))
    scores = net.graph.emit1(MatMul(transpose_b=True), net.q, shared)
    net.graph.outputs["y"] = net.graph.emit1(MatMul(), net.graph.emit1(Softmax(3), scores), net.v)
    assert not attends(net, make_group(net.graph, net.graph.nodes))


@pytest.mark.parametrize("rows", range(1, 200, 7))
def test_blocks_have_every_row_once(rows: int):
    net = Net((1, 2, rows, 3000, 4, 4))
    storage = {value: Storage.row_major(value.type.shape) for value in net.graph.values()}
    group = net.forward()
    storage |= {value: Storage.row_major(value.type.shape) for value in (*group.outputs, *net.graph.values())}
    shape = lower_group(group, storage, {}, TARGETS["x86"]).calls[-1].spec.shape
    height, larger, smaller = shape.split
    assert larger + smaller == shape.blocks
    assert larger * height + smaller * (height - 1) == rows


def test_windows_are_smaller_than_the_scores():
    net = Net((1, 8, 512, 512, 16, 16))
    storage = {value: Storage.row_major(value.type.shape) for value in net.graph.values()}
    group = net.forward()
    storage |= {value: Storage.row_major(value.type.shape) for value in group.outputs}
    lowering = lower_group(group, storage, {}, TARGETS["x86"])
    assert sum(workspace.bytes for workspace in lowering.workspaces) < 8 * 512 * 512 * 4 / 3


@pytest.mark.parametrize("part", ["forward", "gradient"])
@pytest.mark.parametrize("target", REGISTER_TARGETS, ids=lambda t: t.name)
def test_no_accumulator_is_spilled(target: Target, part: str):
    """Also where a matrix takes several blocks, whose sums of dk and dv go on from those of the one before."""
    net = Net((1, 2, 512, 512, 64, 64))
    group = getattr(net, part)()
    storage = {value: Storage.row_major(value.type.shape) for value in net.graph.values()}
    spec = lower_group(group, storage, {}, target).calls[-1].spec
    assert spec.shape.blocks > 1
    hot = innermost(disassemble(spec, target), 8)
    assert hot, "no loops of multiply-adds"
    assert not [line for loop in hot for line in loop if SPILL.search(line)]
