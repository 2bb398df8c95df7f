"""`RNN`, `GRU` and `LSTM` of ONNX, opset 22, as unrolled cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from edgec.frontend.onnx.context import Context, Converted, Known
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_activation import Activation, read_activations
from edgec.frontend.onnx.ops_logic import cast
from edgec.frontend.onnx.ops_movement import joined
from edgec.frontend.recurrent import (
    MAX_STEPS,
    Cell,
    GruCell,
    LstmCell,
    PlainCell,
    State,
    input_products,
    unroll,
)
from edgec.graph.ir import Value
from edgec.graph.ops.less import Less
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose
from edgec.graph.types import DType

_GATES = {"RNN": "n", "GRU": "zrn", "LSTM": "iofg"}


def _recurrent(ctx: Context, node: Node) -> Converted:
    """X[T, B, I], W[D, G * H, I], R[D, G * H, H], optional bias, lengths, h0, c0, P -> Y[T, D, B, H], Y_h, Y_c."""
    x = ctx.value(node, 0)
    batch_first = bool(node.get_int("layout", 0))
    if x.type.rank != 3 or ctx.type(node, 1).rank != 3 or ctx.type(node, 2).rank != 3:
        raise Unsupported("input and weights must have rank 3")
    x = ctx.emit(node, Transpose((1, 0, 2)), x) if batch_first else x
    steps, batch, _ = x.type.shape
    directions, rows, hidden = ctx.type(node, 2).shape
    names = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    direction = node.get_str("direction", "forward")
    if direction not in names or directions != len(names[direction]) or rows != len(_GATES[node.op]) * hidden:
        raise Unsupported(f"weights of shape {list(ctx.type(node, 2).shape)} do not fit the direction `{direction}`")
    if not 1 <= steps <= MAX_STEPS:
        raise Unsupported(f"{steps} steps; 1 to {MAX_STEPS} are unrolled")
    lengths = _lengths(ctx, node, steps, batch)
    activations = read_activations(node, directions)
    sequences, finals = [], []
    for index, backward in enumerate(names[direction]):
        ys, state = _run(ctx, node, x, index, activations[index], lengths, backward=backward)
        sequences.append(ctx.emit(node, Reshape((steps, 1, batch, hidden)), ys))
        finals.append([ctx.emit(node, Reshape((1, batch, hidden)), value) for value in state])
    ends = [joined(ctx, node, parts, 0) for parts in zip(*finals, strict=True)]
    results = [joined(ctx, node, sequences, 1), *ends]
    if batch_first:
        results = [
            ctx.emit(node, Transpose((2, 0, 1, 3) if value.type.rank == 4 else (1, 0, 2)), value) for value in results
        ]
    return tuple(results)


def _run(
    ctx: Context,
    node: Node,
    x: Value,
    index: int,
    activations: Sequence[Activation],
    lengths: Value | None,
    *,
    backward: bool,
) -> tuple[Value, State]:
    """One direction: its outputs [T, B, H], and the last state."""
    _, batch, features = x.type.shape
    hidden = ctx.type(node, 2).shape[2]
    writer = ctx.writer(node)

    def part(position: int, shape: tuple[int, ...]) -> Value | None:
        """This direction's share of an optional input."""
        if not ctx.has(node, position):
            return None
        value = ctx.value(node, position)
        if math.prod(value.type.shape) != math.prod(shape) * ctx.type(node, 2).shape[0]:
            raise Unsupported(f"input {position} has the shape {list(value.type.shape)}")
        if value.type.rank == 3 and node.get_int("layout", 0) and position in (5, 6):
            value = ctx.emit(node, Transpose((1, 0, 2)), value)
        return ctx.emit(node, Reshape(shape), ctx.emit(node, Slice.along(0, index, index + 1, value.type), value))

    def cut(vector: Value, start: int, end: int) -> Value:
        return ctx.emit(node, Slice.along(0, start, end, vector.type), vector)

    gates = len(_GATES[node.op]) * hidden
    weight, recurrence, bias = part(1, (gates, features)), part(2, (gates, hidden)), part(3, (2 * gates,))
    biases = [] if bias is None else [cut(bias, at, at + gates) for at in (0, gates)]
    inner = biases.pop() if biases and node.op == "GRU" else None
    clip = node.get_float("clip") if "clip" in node.attributes else None
    formulas = [partial(activation, ctx, node) for activation in activations]
    common = (writer, _GATES[node.op], recurrence, formulas, clip)
    if node.op == "LSTM":
        seen = part(7, (3 * hidden,))
        peepholes = seen and {letter: cut(seen, at * hidden, (at + 1) * hidden) for at, letter in enumerate("iof")}
        cell: Cell = LstmCell(*common, peepholes=peepholes, coupled=bool(node.get_int("input_forget", 0)))
    elif node.op == "GRU":
        cell = GruCell(*common, bias=inner, reset_after=bool(node.get_int("linear_before_reset", 0)))
    else:
        cell = PlainCell(*common)
    state = tuple(
        part(position, (batch, hidden)) or writer.constant(np.zeros((1, hidden), x.type.dtype.numpy))
        for position in ((5, 6) if node.op == "LSTM" else (5,))
    )

    def runs(step: int) -> Value:
        return ctx.emit(node, Less(), writer.constant(np.full((1, 1), step, np.int64)), lengths)

    inputs = input_products(writer, x, weight, biases)
    return unroll(cell, inputs, state, backward=backward, runs=None if lengths is None else runs)


def _lengths(ctx: Context, node: Node, steps: int, batch: int) -> Value | None:
    """The lengths of the rows as [B, 1]; None if all have every step."""
    if not ctx.has(node, 4):
        return None
    entry = ctx.entry(node, 4)
    if isinstance(entry, Known):
        if entry.array.shape == (batch,) and np.all(entry.array == steps):
            return None
        return ctx.constant(node, entry.array.reshape(-1, 1).astype(np.int64))
    if entry.type.shape != (batch,):
        raise Unsupported(f"{list(entry.type.shape)} lengths for {batch} rows")
    return cast(ctx, node, ctx.emit(node, Reshape((batch, 1)), entry), DType.I64)


RECURRENT = dict.fromkeys(_GATES, _recurrent)
