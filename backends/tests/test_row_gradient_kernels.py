"""Scheduled kernels over rows: gradients of norms, dropout to the bit, sums of picked rows in one order."""

import numpy as np
import pytest

from edgec.backends.targets import find_target
from edgec.backends.tvm.generic.kernel import GenericSpec
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.base import Op
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.gather_nd_grad import GatherNdGrad
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.rms_norm_grad import RmsNormGrad
from edgec.graph.types import DType, TensorType, tensor
from edgec.runtime.abi import Storage
from edgec.tools.testing.group_case import check_group
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group

TARGETS = [find_target(name) for name in ("x86", "x86-64-v3")]
ROWS = [(13, 29), (3, 384), (200, 65), (1, 7)]

every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)


@every_target
@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("op", [LayerNormGrad(1), RmsNormGrad(1)], ids=str)
@pytest.mark.parametrize("scaled", [True, False])
def test_gradients_of_norms(target, shape: tuple[int, int], op: Op, scaled: bool):
    graph = Graph("gradient")
    dy, x = (graph.add_leaf(Role.INPUT, name, tensor(DType.F32, *shape)) for name in ("dy", "x"))
    count = 2 if isinstance(op, LayerNormGrad) else 1
    rows = [graph.add_leaf(Role.INPUT, f"r{i}", tensor(DType.F32, shape[0])) for i in range(count)]
    gamma = [graph.add_leaf(Role.PARAM, "gamma", tensor(DType.F32, shape[1]))] if scaled else []
    graph.emit(op, dy, x, *rows, *gamma)
    check_group(graph, target)


def scheduled(op: Op, arrays: list[np.ndarray], target) -> np.ndarray:
    """The op through a scheduled kernel, all tasks in reverse order."""
    group = op_group(op, [TensorType(DType.of(array.dtype), array.shape) for array in arrays])
    storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
    memory = memory_of(group, arrays, storage)
    lowering = lower_group(group, storage, {}, target)
    assert not any(isinstance(call.spec, GenericSpec) for call in lowering.calls), "fell back to the generic kernel"
    run_lowering(lowering, memory, target)
    (output,) = group.outputs
    return memory[output].reshape(output.type.shape)


@every_target
@pytest.mark.parametrize("count", [16, 17, 18, 19, 63, 1000, 65_537])
def test_dropout_to_the_bit(target, count: int):
    x = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    operands = [x, np.array(-5, np.int32), np.array(123456789, np.int32)]
    op = Dropout(0.3, stream=4)
    np.testing.assert_array_equal(scheduled(op, operands, target), op.reference(*operands)[0])


@every_target
@pytest.mark.parametrize(
    ("shape", "count", "dtype"), [((7, 3), 50, np.int64), ((3001, 37), 90, np.int32), ((5,), 9, np.int64)]
)
def test_picked_rows_are_added_in_order(target, shape: tuple[int, ...], count: int, dtype: type):
    """To the bit: a sum of floats in another order would differ."""
    rng = np.random.default_rng(0)
    dy = (rng.standard_normal((count, *shape[1:])) * 10.0 ** rng.integers(-3, 4, (count, *shape[1:]))).astype(
        np.float32
    )
    indices = rng.integers(-shape[0] - 2, shape[0] + 2, (count, 1)).astype(dtype)
    op = GatherNdGrad(shape)
    np.testing.assert_array_equal(scheduled(op, [dy, indices], target), op.reference(dy, indices)[0])
