"""Kernels around others: what is watched decides over all of them, and merged ones do what each would do alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from edgec.backends.base import KernelCall, KernelSpec, Part
from edgec.backends.targets import find_target
from edgec.backends.tvm import codegen
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.build import build
from edgec.backends.tvm.gpu.launches import GuardedSpec, MergedSpec, guarded_spec, merge_key, merged_spec
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ops.base import Op
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.softmax import Softmax
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import MAX_DEVICE_ARGS, Storage
from edgec.tools.testing.kernel_call import run_kernel
from edgec.tools.testing.op_group import op_group

CUDA = find_target("cuda:sm_90")


@dataclass
class Small:
    """A call of one op, its operand and what it must give."""

    call: KernelCall
    x: np.ndarray
    wanted: np.ndarray


def small(op: Op, shape: tuple[int, ...], seed: int) -> Small:
    group = op_group(op, (tensor(DType.F32, *shape),))
    storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
    (call,) = lower_group(group, storage, {}, CUDA).calls
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Small(call, x.ravel(), op.reference(x)[0].ravel())


@pytest.fixture
def three() -> list[Small]:
    """Groups of one size: items, a team and its barriers, items again."""
    found = [small(Relu(), (5, 70), 0), small(Softmax(1), (3, 200), 1), small(Relu(), (1000,), 2)]
    assert len({merge_key(each.call.spec, each.call.tasks) for each in found}) == 1
    return found


def merged(calls: list[KernelCall]) -> MergedSpec:
    parts, arguments = [], []
    for call in calls:
        own = tuple(range(len(arguments), len(arguments) + len(call.spec.arguments)))
        arguments += call.spec.arguments
        parts.append(Part(call.spec, call.tasks, own))
    spec = merged_spec(parts, arguments)
    assert spec is not None
    return spec


def test_merged_kernels_do_what_each_would_do(three: list[Small]) -> None:
    spec = merged([each.call for each in three])
    results = [np.full(each.wanted.size, np.nan, np.float32) for each in three]
    arrays = [array for each, result in zip(three, results, strict=True) for array in (each.x, result)]
    run_kernel(spec, CUDA, arrays, spec.groups)
    for each, result in zip(three, results, strict=True):
        np.testing.assert_allclose(result, each.wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("words", [(1.0,), (np.nan,), (np.inf,), (0.0, 2.0), (0.0, -np.inf), (np.nan, 1.0)], ids=str)
def test_what_is_watched_decides(three: list[Small], words: tuple[float, ...]) -> None:
    """Of all kinds of kernel; a barrier is met by all items or by none."""
    for each in three:
        spec = guarded_spec(each.call.spec, len(words))
        result = np.full(each.wanted.size, 7, np.float32)
        watched = [np.float32([word]) for word in words]
        run_kernel(spec, CUDA, [each.x, result, *watched], each.call.tasks)
        wanted = each.wanted if np.isfinite(words).all() else np.full_like(result, 7)
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)


def test_guarded_parts_of_one_kernel_ask_for_themselves(three: list[Small]) -> None:
    first, second = three[0].call, three[2].call
    spec = merged([KernelCall(GuardedSpec(first.spec, 1), first.operands, first.tasks), second])
    results = [np.full(each.wanted.size, 7, np.float32) for each in (three[0], three[2])]
    run_kernel(spec, CUDA, [three[0].x, results[0], np.float32([np.nan]), three[2].x, results[1]], spec.groups)
    assert (results[0] == 7).all()
    np.testing.assert_array_equal(results[1], three[2].wanted)


def test_shared_memory_of_a_part_is_declared_by_the_function(three: list[Small]) -> None:
    """OpenCL C lets only functions themselves declare local memory."""
    text = build([merged([each.call for each in three])], find_target("mobile-gpu")).data.decode()
    for form in text.split("__kernel ")[1:]:  # large groups and small ones
        body = form.splitlines()
        declared = [number for number, line in enumerate(body) if "__local" in line]
        assert declared and max(declared) < next(number for number, line in enumerate(body) if "if (" in line)


def test_what_stays_alone() -> None:
    relu = small(Relu(), (10,), 0).call.spec
    assert merge_key(relu, 0) is None and merge_key(relu, 100_000) is None
    assert merge_key(GuardedSpec(relu, 1), 1) == merge_key(relu, 1) is not None
    product = op_group(MatMul(), (tensor(DType.F32, 64, 64), tensor(DType.F32, 64, 64)))
    storage = {value: Storage.row_major(value.type.shape) for value in (*product.inputs, *product.outputs)}
    (call,) = lower_group(product, storage, {}, CUDA).calls
    assert merge_key(call.spec, call.tasks) is None
    wide = MergedSpec((), (relu.arguments[0],) * MAX_DEVICE_ARGS)
    assert guarded_spec(wide, 1) is None
    assert merged_spec([Part(relu, 1, (0, 1))] * 17, relu.arguments) is None
    assert merged_spec([Part(relu, 1, (0, 1))], relu.arguments * MAX_DEVICE_ARGS) is None


def shared_bytes(spec: KernelSpec) -> int:
    text = codegen.compile_kernel(spec, CUDA, "kernel", "edgec.backends.tvm.emitters").decode()
    return sum(4 * int(count) for count in re.findall(r"__shared__[^;]*\[(\d+)\];", text))


def test_parts_share_out_what_every_device_has() -> None:
    """Of shared memory: sums of rows have two or three arrays, one for each thing that a team adds up."""
    call = small(Softmax(1), (3, 400), 0).call
    part = Part(call.spec, call.tasks, (0, 1))
    fitting = max(count for count in range(1, 17) if merged_spec([part] * count, call.spec.arguments) is not None)
    assert 1 < fitting < 16
    for count in (1, fitting):
        merged_kernel = merged([call] * count)
        assert count * shared_bytes(call.spec) == shared_bytes(merged_kernel) <= 16384


def test_the_sums_of_parts_merge_too() -> None:
    call = small(ReduceSum((0,)), (100, 40), 0).call
    assert merge_key(call.spec, call.tasks) is not None


def test_in_opencl_kernels_whose_items_wait_stay_alone() -> None:
    items, team = small(Relu(), (5, 70), 0).call, small(Softmax(1), (3, 200), 1).call
    opencl, cuda = TvmBackend(find_target("mobile-gpu")), TvmBackend(CUDA)
    for plain in (team.spec, GuardedSpec(team.spec, 1)):
        assert opencl.merge_key(plain, 1) is None and cuda.merge_key(plain, 1) is not None
    assert opencl.merge_key(GuardedSpec(items.spec, 1), 1) == cuda.merge_key(items.spec, 1) is not None
