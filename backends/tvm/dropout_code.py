"""Code of dropout: a vector of blocks decides on four vectors of elements."""

from __future__ import annotations

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import Index, Pointer, bind, build_kernel, constant, select, serial, when
from edgec.backends.tvm.dropout import DropoutSpec
from edgec.backends.tvm.random_code import threefry2x32, word
from edgec.graph.ops.dropout import DECISIONS, blocks


def emit_dropout(spec: DropoutSpec, target: Target) -> PrimFunc:
    def body(x: Pointer, seed: Pointer, step: Pointer, y: Pointer, lo: Expr, hi: Expr) -> None:
        quarter = blocks(spec.elements)
        whole = spec.elements - (DECISIONS - 1) * quarter  # blocks of four decisions; the rest make three
        lanes = target.lanes
        share = -(-whole // (spec.tasks * lanes)) * lanes
        key, count = bind(seed.load(0)), bind(step.load(0))

        def decide(block: Index, width: int, parts: int) -> None:
            numbers = bind(T.ramp(block, 1, width) if width > 1 else block)
            low, high = threefry2x32(key, spec.op.stream, count, numbers)
            mask = word(0xFFFF, width)
            drawn = (low & mask, low >> word(16, width), high & mask, high >> word(16, width))
            for part, number in enumerate(drawn[:parts]):
                at = block + part * quarter
                value = x.load(at, width) * constant(spec.op.scale, width)
                kept = number >= word(spec.op.threshold, width)
                y.store(at, select(kept, value, constant(0.0, width)))

        with serial(lo, hi) as task:
            start = bind(task * share)
            stop = bind(T.max(start, T.min(start + share, whole)))
            full = bind((stop - start) // lanes)
            if lanes > 1:
                with serial(0, full) as i:
                    decide(start + i * lanes, lanes, DECISIONS)
            with serial(start + full * lanes if lanes > 1 else start, stop) as block:
                decide(block, 1, DECISIONS)
            if quarter > whole:
                with when(task == spec.tasks - 1), serial(whole, quarter) as block:
                    decide(block + task * 0, 1, DECISIONS - 1)  # an expression, also where it is one block

    return build_kernel(spec.arguments, body)
