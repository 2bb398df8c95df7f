"""Kernels of devices whose language has functions of its own for what must not be left to them."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import KernelCall
from edgec.backends.targets import find_target
from edgec.backends.tvm.build import build
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ops.base import Op
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.relu import Relu
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_kernel
from edgec.tools.testing.op_group import op_group

X = np.float32([np.nan, -np.inf, -2, 0.5, 7, np.inf])


def lowered(op: Op, target: str, dtype: DType = DType.F32, size: int = X.size) -> KernelCall:
    group = op_group(op, (tensor(dtype, size),))
    storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
    (call,) = lower_group(group, storage, {}, find_target(target)).calls
    return call


@pytest.mark.parametrize("op", [Relu(), Clip(0.0, 6.0)], ids=lambda op: op.name)
def test_what_is_no_number_stays_none(op: Op) -> None:
    """Or no guard would see it behind the first activation."""
    call, y = lowered(op, "cuda:sm_90"), np.zeros_like(X)
    run_kernel(call.spec, find_target("cuda:sm_90"), [X, y], call.tasks)
    np.testing.assert_array_equal(y, op.reference(X)[0])


@pytest.mark.parametrize("dtype", [DType.U8, DType.I64], ids=lambda dtype: dtype.value)
def test_integers_between_bounds_that_are_none_of_theirs(dtype: DType) -> None:
    op, x = Clip(-20, 30), np.arange(0, 120, 7).astype(dtype.numpy)
    call, y = lowered(op, "cuda:sm_90", dtype, x.size), np.zeros_like(x)
    run_kernel(call.spec, find_target("cuda:sm_90"), [x, y], call.tasks)
    np.testing.assert_array_equal(y, op.reference(x)[0])


@pytest.mark.parametrize("op", [Relu(), Clip(0.0, 6.0)], ids=lambda op: op.name)
def test_opencl_leaves_its_max_undefined_there(op: Op) -> None:
    text = build([lowered(op, "mobile-gpu").spec], find_target("mobile-gpu")).data.decode()
    assert "max(" not in text and "min(" not in text
