"""Code of the parts of a sum on devices."""

from __future__ import annotations

import math

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, T
from edgec.backends.tvm.builder import DeviceKernel, Pointer, bind, serial
from edgec.backends.tvm.computation import Memory
from edgec.backends.tvm.generic.loops_code import Team, Variable, once, where, working_as
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.backends.tvm.gpu.sums import SumSpec


def emit_sum(spec: SumSpec, target: Target) -> DeviceKernel:
    op, (operand,) = spec.computation.anchor.op, spec.computation.anchor.operands
    store = spec.computation.stores[0].memory
    extents = [operand.type.shape[axis] for axis in op.axes]
    terms = math.prod(extents)
    per_part = -(-terms // spec.parts)

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters

        def tensor(memory: Memory) -> Tensor:
            return Tensor(pointers[memory.argument], memory.type, memory.storage)

        part, *result = unravel(group, store.type.shape)
        kept = iter(result if not op.keepdims else [i for a, i in enumerate(result) if a not in op.axes])
        fixed = {axis: next(kept) for axis in range(operand.type.rank) if axis not in op.axes}
        first = bind(part * per_part)
        last = bind(T.min(first + per_part, terms))
        with working_as(Team(item, spec.threads)):
            total = Variable(0.0)
            with serial(0, -(-per_part // spec.threads)) as turn:
                term = bind(first + turn * spec.threads + item)
                with where([term < last]):
                    own = dict(zip(op.axes, unravel(term, extents), strict=True))
                    total.add(tensor(operand).load([{**fixed, **own}[axis] for axis in range(operand.type.rank)]))
            value = total.total
            with once():
                tensor(store).store([part, *result], value)

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)
