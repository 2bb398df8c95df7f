"""Vector kernels for elementwise chains and data movement, against the ops' references."""

import numpy as np
import pytest
from cases import elementwise, movement
from cases.op_case import OpCase, assert_agrees

from edgec.backends.base import Group
from edgec.backends.targets import find_target
from edgec.backends.tvm.generic.kernel import lower_generic
from edgec.backends.tvm.maps import lower_map
from edgec.backends.tvm.products import Request
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.div import Div
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.inside_bits import InsideBits
from edgec.graph.ops.less import Less
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.where import Where
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group, some_storage

OTHERS = (Reduction, InsideBits, GateByBits)  # with strategies of their own
CASES = [case for case in (*elementwise.CASES, *movement.CASES) if not isinstance(case.op, OTHERS)]
TARGETS = [find_target("x86"), find_target("x86-64-v3")]


def natural(shape: tuple[int, ...]) -> Storage:
    return Storage.channels_last(shape) if len(shape) == 4 else Storage.row_major(shape)


@pytest.mark.parametrize("seed", [0, 1, "natural"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_map_agrees_with_the_reference(case: OpCase, seed: int | str):
    arrays = case.arrays()
    group = op_group(case.op, case.types)
    values = (*group.inputs, *group.outputs)
    storage = {
        value: natural(value.type.shape) if seed == "natural" else some_storage(value.type.shape, seed, panels=False)
        for value in values
    }
    target = TARGETS[seed == 1]
    memory = memory_of(group, arrays, storage)
    lowering = lower_map(Request(group, storage, {}, target))
    if lowering is None:
        # Integers, or a reshape of axes in another order that has no common split: the generic kernel's.
        integers = any(not kind.dtype.is_float for kind in case.types)
        assert integers or (case.name == "reshape/regroup" and seed != 0)
        return
    run_lowering(lowering, memory, target)
    for value, expected in zip(group.outputs, case.op.reference(*arrays), strict=True):
        assert_agrees(case.op, storage[value].unpack(memory[value], value.type.shape), expected)


def run_group(group: Group, arrays: list[np.ndarray], storage: dict, alias: dict | None = None) -> dict:
    """Logical results of a group by value; also checks its generic kernel against the vector kernel."""
    alias = alias or {}
    results = []
    for lower in (
        lambda: lower_map(Request(group, storage, alias, TARGETS[0])),
        lambda: generic(group, storage, alias),
    ):
        memory = memory_of(group, arrays, storage)
        for output, shared in alias.items():
            memory[output] = memory[shared]
        run_lowering(lower(), memory, TARGETS[0])
        results.append({v: storage[v].unpack(memory[v], v.type.shape) for v in group.outputs})
    for value, other in results[1].items():
        np.testing.assert_allclose(results[0][value], other, rtol=1e-6, atol=1e-6)
    return results[0]


def generic(group: Group, storage: dict, alias: dict):
    return lower_generic(group, storage, alias, TARGETS[0])


@pytest.mark.parametrize("outputs", [10, 12, 40])
def test_update_in_place_of_weights_in_panels(outputs: int):
    shape = (outputs, 3, 3, 3)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in (shape, shape, (), shape)]
    op = SgdUpdate(momentum=0.9, weight_decay=0.01)
    group = op_group(op, [TensorType(DType.F32, a.shape) for a in arrays])
    panels = Storage(shape, (2, 3, 1, 0), 4)
    storage = {v: panels if v.type.shape else Storage.row_major(()) for v in (*group.inputs, *group.outputs)}
    alias = dict(zip(group.outputs, (group.inputs[0], group.inputs[3]), strict=True))
    results = run_group(group, arrays, storage, alias)
    for value, expected in zip(group.outputs, op.reference(*arrays), strict=True):
        np.testing.assert_allclose(results[value], expected, rtol=1e-5, atol=1e-6)


def test_weights_in_ragged_panels_times_a_factor_per_output_channel():
    shapes = ((10, 3, 3, 3), (10, 1, 1, 1))
    arrays = [np.random.default_rng(1).standard_normal(s).astype(np.float32) for s in shapes]
    group = op_group(Mul(), [TensorType(DType.F32, s) for s in shapes])
    panels = Storage(shapes[0], (2, 3, 1, 0), 4)
    storage = {
        v: panels if v.type.shape == shapes[0] else Storage.row_major(shapes[1])
        for v in (*group.inputs, *group.outputs)
    }
    results = run_group(group, arrays, storage)
    np.testing.assert_array_equal(results[group.outputs[0]], arrays[0] * arrays[1])


@pytest.mark.parametrize("anchor", [Add(), Concat(1)])
def test_chain_with_two_results_in_one_kernel(anchor: Op):
    """anchor(a, b) and relu(anchor(a, b)) * c are both wanted."""
    graph = Graph("test")
    a, b = (graph.add_leaf(Role.INPUT, name, TensorType(DType.F32, (2, 5, 6, 7))) for name in "ab")
    y = graph.emit1(anchor, a, b)
    c = graph.add_leaf(Role.INPUT, "c", TensorType(DType.F32, (y.type.shape[1], 1, 1)))
    z = graph.emit1(Mul(), graph.emit1(Relu(), y), c)
    group = Group(tuple(graph.nodes), (a, b, c), (y, z))
    storage = {v: natural(v.type.shape) for v in (a, b, c, y, z)}
    arrays = [
        np.random.default_rng(i).standard_normal(v.type.shape).astype(np.float32) for i, v in enumerate((a, b, c))
    ]
    results = run_group(group, arrays, storage)
    (expected,) = anchor.reference(*arrays[:2])
    np.testing.assert_array_equal(results[y], expected)
    np.testing.assert_array_equal(results[z], np.maximum(expected, 0) * arrays[2])


@pytest.mark.parametrize("product", [Mul(), Div()], ids=lambda op: op.name)
@pytest.mark.parametrize("choice", [Maximum(), Less(), Where()], ids=lambda op: op.name)
def test_products_of_choices(choice: Op, product: Op):
    """The code generator's analysis of ranges gives up on some of them."""
    graph = Graph("choice")
    a, b = (graph.add_leaf(Role.INPUT, name, TensorType(DType.F32, (3, 40))) for name in "ab")
    factor = graph.add_leaf(Role.INPUT, "factor", TensorType(DType.F32, ()))
    if choice == Where():
        mask = graph.add_leaf(Role.INPUT, "mask", TensorType(DType.BOOL, (3, 40)))
        chosen = graph.emit1(choice, mask, a, b)
    else:
        chosen = graph.emit1(choice, a, b)
    chosen = graph.emit1(Cast("f32"), chosen) if chosen.type.dtype is DType.BOOL else chosen
    y = graph.emit1(product, chosen, factor)
    inputs = tuple(graph.leaves.values())
    rng = np.random.default_rng(4)
    arrays = [
        np.asarray(
            rng.standard_normal(v.type.shape) > 0 if v.type.dtype is DType.BOOL else rng.standard_normal(v.type.shape),
            v.type.dtype.numpy,
        )
        for v in inputs
    ]
    storage = {v: natural(v.type.shape) for v in (*inputs, y)}
    results = run_group(Group(tuple(graph.nodes), inputs, (y,)), arrays, storage)
    known = dict(zip(inputs, arrays, strict=True))
    for node in graph.nodes:
        known[node.output] = node.op.reference(*(known[v] for v in node.inputs))[0]
    np.testing.assert_allclose(results[y], known[y], rtol=1e-6)


def test_small_work_is_one_task_and_large_work_is_many():
    for shape, tasks in (((1, 16, 8, 8), 1), ((8, 64, 32, 32), 32)):
        group = op_group(Relu(), [TensorType(DType.F32, shape)])
        storage = {v: natural(shape) for v in (*group.inputs, *group.outputs)}
        assert lower_map(Request(group, storage, {}, TARGETS[0])).calls[0].tasks == tasks


@pytest.mark.parametrize("op", [Add(), Mul()], ids=str)
def test_the_order_of_a_sum_or_product_makes_no_other_kernel(op: Op):
    specs = []
    for swapped in (False, True):
        graph = Graph("chain")
        a, b, c = (graph.add_leaf(Role.INPUT, name, TensorType(DType.F32, (32,))) for name in "abc")
        pair = (graph.emit1(Div(), a, b), c)
        last = graph.emit1(op, *(reversed(pair) if swapped else pair))
        group = Group(tuple(graph.nodes), (a, b, c), (last,))
        storage = {value: Storage.row_major((32,)) for value in graph.values()}
        (call,) = lower_map(Request(group, storage, {}, TARGETS[0])).calls
        specs.append(call.spec)
    assert specs[0] == specs[1]
