"""Threefry-2x32 in unsigned 32-bit lanes: the random bits of `edgec.graph.ops.dropout`."""

from __future__ import annotations

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import bind, broadcast, cast, detach, lanes_of
from edgec.graph.ops.dropout import PARITY, ROTATIONS, ROUNDS


def word(value: Expr | int, lanes: int) -> Expr:
    """A 32-bit word in every lane: a constant, or an i32 by its bits."""
    if isinstance(value, int):
        return broadcast(tirx.const(value & 0xFFFFFFFF, "uint32"), lanes)
    return broadcast(cast(value, "uint32"), lanes)


def threefry2x32(seed: Expr, stream: int, step: Expr, block: Expr) -> tuple[Expr, Expr]:
    """Two words for each lane of `block` (i32), under the key (seed, stream) and the counter (step, block)."""
    lanes = lanes_of(block)
    keys = [bind(word(seed, lanes)), word(stream, lanes)]
    keys.append(bind(keys[0] ^ keys[1] ^ word(PARITY, lanes)))
    a, b = bind(word(step, lanes) + keys[0]), bind(cast(block, "uint32") + keys[1])
    for i in range(ROUNDS):
        # TVM looks through bound values, in time that doubles with each that is read twice.
        a = detach(a + b)
        turn = ROTATIONS[i % 8]
        b = detach(((b << word(turn, lanes)) | (b >> word(32 - turn, lanes))) ^ a)
        if i % 4 == 3:
            n = i // 4 + 1
            a, b = a + keys[n % 3], b + keys[(n + 1) % 3] + word(n, lanes)
            a, b = detach(a), detach(b)
    return a, b
