"""Code of sums in parts: where a part goes, and the kernel that adds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, T
from edgec.backends.tvm.builder import DeviceKernel, Index, Pointer, bind, serial, shared, synchronise
from edgec.backends.tvm.computation import Memory
from edgec.backends.tvm.generic.kernel_code import emit_element
from edgec.backends.tvm.generic.loops_code import Variable, where
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.backends.tvm.gpu.parts import PartedSpec, PartsSpec


def finish_part(
    spec: PartedSpec, tensor: Callable[[Memory], Tensor], part: Index, index: Sequence[Index], total: Expr
) -> None:
    """Of several parts the sum is stored among them; an only one is the anchor's result, and what follows is done."""
    if spec.parts > 1:
        tensor(spec.computation.stores[0].memory).store([part, *index], total)
    else:
        emit_element(spec.computation, tensor, index, (total,))


def emit_parts(spec: PartsSpec, target: Target) -> DeviceKernel:
    shape = spec.computation.shape
    rows = math.prod(shape)
    per_slice = -(-spec.parts // spec.slices)

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters

        def tensor(memory: Memory) -> Tensor:
            return Tensor(pointers[memory.argument], memory.type, memory.storage)

        sums = pointers[spec.computation.anchor.operands[0].argument]
        own, part = bind(item % spec.results), bind(item // spec.results)
        row = bind(group * spec.results + own)
        inside = [row < rows] if rows % spec.results else []
        total = Variable(0.0)
        with where(inside), serial(part * per_slice, T.min((part + 1) * per_slice, spec.parts)) as i:
            total.add(sums.load(i * rows + row))
        if spec.slices == 1:
            with where(inside):
                emit_element(spec.computation, tensor, unravel(row, shape), (total.value,))
            return
        cells = shared(spec.threads)
        cells.store(item, total.value)
        synchronise()
        with where([part == 0, *inside]):
            for i in range(1, spec.slices):
                total.add(cells.load(own + i * spec.results))
            emit_element(spec.computation, tensor, unravel(row, shape), (total.value,))

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)
