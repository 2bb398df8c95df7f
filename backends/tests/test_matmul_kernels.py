"""MatMul in all its forms against numpy: transposed, batched, packed weights, gradients of weights, fused."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.backends.targets import find_target
from edgec.backends.tvm.tiling import chains
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.add import Add
from edgec.graph.ops.erf import Erf
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.types import DType, tensor
from edgec.tools.testing.group_case import check_group

F32 = DType.F32
TARGETS = [find_target(name) for name in ("x86", "x86-64-v3")]
FEW = settings(max_examples=6, deadline=None)
EXTENTS = st.sampled_from([1, 2, 3, 7, 8, 13, 16, 17, 29, 33, 50, 64, 97])


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(m=EXTENTS, k=EXTENTS, n=EXTENTS, transpose_a=st.booleans(), transpose_b=st.booleans(), weight=st.booleans())
def test_matrices(target, m, k, n, transpose_a, transpose_b, weight):
    graph = Graph("matmul")
    a = graph.add_leaf(Role.INPUT, "a", tensor(F32, *((k, m) if transpose_a else (m, k))))
    b = graph.add_leaf(Role.PARAM if weight else Role.INPUT, "b", tensor(F32, *((n, k) if transpose_b else (k, n))))
    bias = graph.add_leaf(Role.PARAM, "bias", tensor(F32, n))
    y = graph.emit1(MatMul(transpose_a, transpose_b), a, b)
    graph.emit1(Sigmoid(), graph.emit1(Add(), y, bias))
    check_group(graph, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(
    m=EXTENTS, k=EXTENTS, n=EXTENTS, batch=st.integers(1, 4), right=st.sampled_from(["own", "shared", "weight"]),
    row_bias=st.booleans(), transpose_a=st.booleans(), transpose_b=st.booleans(),
)  # fmt: skip
def test_batches(target, m, k, n, batch, right, row_bias, transpose_a, transpose_b):
    """The right matrix: one for each of the batch, or one for all, row-major or in the panels of a weight."""
    graph = Graph("batched")
    a = graph.add_leaf(Role.INPUT, "a", tensor(F32, batch, *((k, m) if transpose_a else (m, k))))
    rows = (n, k) if transpose_b else (k, n)
    role = Role.PARAM if right == "weight" else Role.INPUT
    b = graph.add_leaf(role, "b", tensor(F32, *((batch, *rows) if right == "own" else rows)))
    bias = graph.add_leaf(Role.INPUT, "bias", tensor(F32, batch, m, 1) if row_bias else tensor(F32, batch, 1, n))
    graph.emit1(Add(), graph.emit1(MatMul(transpose_a, transpose_b), a, b), bias)
    check_group(graph, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@FEW
@given(m=EXTENTS, k=EXTENTS, n=EXTENTS, transposed=st.booleans(), momentum=st.sampled_from([0.0, 0.9]))
def test_weight_gradient_updates_the_packed_weight(target, m, k, n, transposed, momentum):
    """x [m,k], weight [k,n], or [n,k] where the forward product transposes it."""
    graph = Graph("update")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, m, k))
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, m, n))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, *((n, k) if transposed else (k, n))))
    lr = graph.add_leaf(Role.SCALAR, "lr", tensor(F32))
    state = [graph.add_leaf(Role.STATE, "v", w.type)] if momentum else []
    graph.emit1(MatMul(transpose_b=transposed), x, w)  # elsewhere: it is what packs the weight
    dw = graph.emit1(MatMul(True), *((dy, x) if transposed else (x, dy)))
    results = graph.emit(SgdUpdate(momentum=momentum), w, dw, lr, *state)
    alias = dict(zip(results, [w, *state], strict=True))
    check_group(graph, target, outputs=list(results), alias=alias, before=1)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(("m", "k", "n"), [(31, 7, 45), (300, 9, 37), (1, 5, 3)])
def test_long_steps_run_in_a_loop_over_the_rows_of_a_tile(target, m: int, k: int, n: int):
    forward = Graph("forward")
    x, w = forward.add_leaf(Role.INPUT, "x", tensor(F32, m, k)), forward.add_leaf(Role.PARAM, "w", tensor(F32, k, n))
    y = forward.emit1(MatMul(), x, w)
    check_group(forward, target, outputs=[y, forward.emit1(Mul(), forward.emit1(Erf(), y), y)])
    gradient = Graph("gradient")
    x, dy = (
        gradient.add_leaf(Role.INPUT, "x", tensor(F32, m, k)),
        gradient.add_leaf(Role.INPUT, "dy", tensor(F32, m, n)),
    )
    dw = gradient.emit1(MatMul(True), x, dy)
    check_group(gradient, target, outputs=[gradient.emit1(Erf(), dw)])


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_scores_of_attention(target):
    """q k^T of every head, as the gradient of a batched product has it too: k is transposed by a kernel of its own."""
    graph = Graph("scores")
    q, k = (graph.add_leaf(Role.INPUT, name, tensor(F32, 2, 3, 77, 32)) for name in "qk")
    graph.emit1(MatMul(transpose_b=True), q, k)
    assert check_group(graph, target, row_major=(q, k)) == ["f32_transpose", "f32_matmul"]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_one_row_by_many_columns(target):
    """A dense layer at batch 1: tasks are panels, and one row of sums is several interleaved ones."""
    graph = Graph("dense")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, 1, 515))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, 515, 1283))
    graph.emit1(MatMul(), x, w)
    check_group(graph, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("per", [(2, 1, 8, 1), (2, 1, 1, 1), (2, 1, 1, 6)], ids=str)
def test_one_head(target, per):
    """One channel is stored as NHWC: in memory order the matrix has one column, for the product it has six."""
    graph = Graph("one_head")
    a = graph.add_leaf(Role.INPUT, "a", tensor(F32, 2, 1, 8, 3))
    b = graph.add_leaf(Role.INPUT, "b", tensor(F32, 2, 1, 3, 6))
    factor = graph.add_leaf(Role.INPUT, "factor", tensor(F32, *per))
    y = graph.emit1(MatMul(), a, b)
    graph.emit1(Mul(), graph.emit1(Sigmoid(), y), factor)
    check_group(graph, target, row_major=(a, b, factor))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("rows", [1, 8, 13, 33])
@pytest.mark.parametrize("transpose_b", [True, False])
def test_few_rows_by_a_weight_read_against_its_panels(target, rows: int, transpose_b: bool):
    """The gradient of a dense layer's input: no workspace for another weight, unless rows are many."""
    graph = Graph("against")
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, rows, 301))
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, rows, 37))
    shape = (37, 301) if transpose_b else (301, 37)
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, *shape))
    graph.emit1(MatMul(transpose_b=not transpose_b), x, w)  # the forward product decides how it lies
    other = graph.add_leaf(Role.INPUT, "other", tensor(F32, rows, 37))
    graph.emit1(Mul(), graph.emit1(MatMul(transpose_b=transpose_b), dy, w), other)
    stems = check_group(graph, target, before=1)
    assert stems[-1] == ("f32_matmul_dots_mul" if rows <= 32 else "f32_matmul_mul") and len(stems) == 1 + (rows > 32)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("depth", [257, 515, 4608])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_long_sums(target, depth: int, rows: int):
    """As exact as short ones: one chain would miss by five times as much at the largest depth."""
    graph = Graph("deep")
    a = graph.add_leaf(Role.INPUT, "a", tensor(F32, rows, depth))
    graph.emit1(MatMul(), a, graph.add_leaf(Role.PARAM, "b", tensor(F32, depth, 37)))
    check_group(graph, target, tolerance=4e-7)


@pytest.mark.parametrize(
    "depth", [(1, 1, 256), (1, 1, 257), (7, 7, 8), (3, 3, 96), (3, 3, 192), (11, 11, 3), (9, 300, 1)]
)
def test_chains_are_even_and_short(depth):
    cut, pieces = chains(depth)
    longest = -(-depth[cut] // pieces) * math.prod(depth[cut + 1 :])
    assert longest <= (128 if math.prod(depth) > 256 else 256)
    assert pieces == 1 or pieces * 128 * math.prod(depth[:cut]) < 3 * math.prod(depth), "chains are too short"
