"""`RNN`, `GRU` and `LSTM`, unrolled over time: one product for the inputs of all steps, one for each step's state.

Formulas and the order of gates (i, o, f, c; z, r, h) are those of ONNX, opset 22.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.frontend.onnx.context import Context, Converted, Known
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_activation import Activation, read_activations
from edgec.frontend.onnx.ops_logic import cast
from edgec.frontend.onnx.ops_movement import joined, parted
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.less import Less
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where
from edgec.graph.types import DType

MAX_STEPS = 1024  # each becomes some fifteen nodes

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass
class _Cell:
    """The parameters of one direction, and how the nodes of a step are written. Shapes: [B, H] for states."""

    ctx: Context
    node: Node
    hidden: int
    recurrence: Sequence[Value]  # [H, gates * H]; of a GRU whose reset comes first [H, 2 * H] and [H, H]
    bias: Value | None  # of a GRU's candidate [H], which stands inside a product with the reset gate
    activations: Sequence[Activation]
    peepholes: Sequence[Value] | None  # [H] each: i, o, f
    clip: float | None

    def __call__(self, op: Op, *operands: Value) -> Value:
        return self.ctx.emit(self.node, op, *operands)

    def gate(self, x: Value, first: int, last: int | None = None) -> Value:
        """Gates `first` to `last`, which stand in columns of H."""
        stop = (first + 1 if last is None else last) * self.hidden
        return self(Slice.along(1, first * self.hidden, stop, x.type), x)

    def activate(self, index: int, x: Value) -> Value:
        clipped = x if self.clip is None else self(Clip(-self.clip, self.clip), x)
        return self.activations[index](self.ctx, self.node, clipped)

    def rnn(self, x: Value, h: Value, c: Value | None) -> tuple[Value, Value | None]:
        return self.activate(0, self(Add(), x, self(MatMul(), h, self.recurrence[0]))), None

    def gru(self, x: Value, h: Value, c: Value | None) -> tuple[Value, Value | None]:
        product = self(MatMul(), h, self.recurrence[0])
        reset_last = len(self.recurrence) == 1
        inner = self.gate(product, 0, 2) if reset_last else product
        gates = self.activate(0, self(Add(), self.gate(x, 0, 2), inner))
        z, r = self.gate(gates, 0), self.gate(gates, 1)
        if reset_last:
            inner = self(Mul(), r, self.biased(self.gate(product, 2)))
        else:
            inner = self.biased(self(MatMul(), self(Mul(), r, h), self.recurrence[1]))
        n = self.activate(1, self(Add(), self.gate(x, 2), inner))
        # (1 - z) * n + z * h
        return self(Add(), n, self(Mul(), z, self(Sub(), h, n))), None

    def biased(self, y: Value) -> Value:
        return y if self.bias is None else self(Add(), y, self.bias)

    def lstm(self, x: Value, h: Value, c: Value | None) -> tuple[Value, Value | None]:
        assert c is not None
        gates = self(Add(), x, self(MatMul(), h, self.recurrence[0]))
        i, o, f, g = (self.gate(gates, index) for index in range(4))
        if self.peepholes is not None:
            i, f = (self(Add(), x, self(Mul(), self.peepholes[k], c)) for x, k in ((i, 0), (f, 2)))
        i, f = self.activate(0, i), self.activate(0, f)
        if self.node.get_int("input_forget", 0):
            f = self(Sub(), self.ctx.number(self.node, 1.0, i), i)
        c = self(Add(), self(Mul(), f, c), self(Mul(), i, self.activate(1, g)))
        if self.peepholes is not None:
            o = self(Add(), o, self(Mul(), self.peepholes[1], c))
        return self(Mul(), self.activate(0, o), self.activations[2](self.ctx, self.node, c)), c


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
    if direction not in names or directions != len(names[direction]) or rows != _GATES[node.op] * hidden:
        raise Unsupported(f"weights of shape {list(ctx.type(node, 2).shape)} do not fit the direction `{direction}`")
    if not 1 <= steps <= MAX_STEPS:
        raise Unsupported(f"{steps} steps; 1 to {MAX_STEPS} are unrolled")
    lengths = _lengths(ctx, node, steps, batch)
    sequences, finals, cells = [], [], []
    activations = read_activations(node, directions)
    for index, backward in enumerate(names[direction]):
        ys, h, c = _run(ctx, node, x, index, activations[index], lengths, backward=backward)
        sequences.append(ctx.emit(node, Reshape((steps, 1, batch, hidden)), joined(ctx, node, ys, 0)))
        finals.append(ctx.emit(node, Reshape((1, batch, hidden)), h))
        cells.append(ctx.emit(node, Reshape((1, batch, hidden)), c) if c is not None else None)
    y, h = joined(ctx, node, sequences, 1), joined(ctx, node, finals, 0)
    results = [y, h] if node.op != "LSTM" else [y, h, joined(ctx, node, cells, 0)]
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
    lengths: Value | Known | None,
    *,
    backward: bool,
) -> tuple[list[Value], Value, Value | None]:
    """One direction: its outputs in the order of time, the last state and, of an LSTM, the last cell."""
    steps, batch, features = x.type.shape
    hidden = ctx.type(node, 2).shape[2]

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

    def rows(value: Value, first: int, last: int) -> Value:
        """Of a tensor that has gates as its first axis."""
        return ctx.emit(node, Slice.along(0, first * hidden, last * hidden, value.type), value)

    gates = _GATES[node.op]
    weight, recurrence = part(1, (gates * hidden, features)), part(2, (gates * hidden, hidden))
    bias = part(3, (2 * gates * hidden,))
    inner = None
    flat = ctx.emit(node, Reshape((steps * batch, features)), x)
    inputs = ctx.emit(node, MatMul(transpose_b=True), flat, weight)
    if bias is not None:
        outer, inner = rows(bias, 0, gates), rows(bias, gates, 2 * gates)
        if node.op == "GRU":
            zeros = ctx.constant(node, np.zeros(hidden, inner.type.dtype.numpy))
            joint, inner = joined(ctx, node, [rows(inner, 0, 2), zeros], 0), rows(inner, 2, 3)
        else:
            joint, inner = inner, None
        inputs = ctx.emit(node, Add(), inputs, ctx.emit(node, Add(), outer, joint))
    two_products = node.op == "GRU" and not node.get_int("linear_before_reset", 0)
    products = [rows(recurrence, 0, 2), rows(recurrence, 2, 3)] if two_products else [recurrence]
    # Transposed once, for all steps.
    products = [ctx.emit(node, Transpose((1, 0)), value) for value in products]
    clip = node.get_float("clip") if "clip" in node.attributes else None
    peepholes = part(7, (3 * hidden,)) if node.op == "LSTM" else None
    peeps = [rows(peepholes, i, i + 1) for i in range(3)] if peepholes is not None else None
    cell = _Cell(ctx, node, hidden, products, inner, activations, peeps, clip)
    update: Callable[..., tuple[Value, Value | None]] = {"RNN": cell.rnn, "GRU": cell.gru, "LSTM": cell.lstm}[node.op]
    zeros = np.zeros((batch, hidden), x.type.dtype.numpy)
    h = part(5, (batch, hidden)) or ctx.constant(node, zeros)
    c = (part(6, (batch, hidden)) or ctx.constant(node, zeros)) if node.op == "LSTM" else None
    outputs: list[Value] = []
    every = list(enumerate(parted(ctx, node, inputs, 0, steps)))
    for step, row in reversed(every) if backward else every:
        new_h, new_c = update(row, h, c)
        if lengths is None:
            h, c, y = new_h, new_c, new_h
        else:  # a row that has ended keeps its state and gives 0
            runs = ctx.emit(node, Less(), ctx.constant(node, np.full((1, 1), step, np.int64)), lengths)
            h = ctx.emit(node, Where(), runs, new_h, h)
            c = ctx.emit(node, Where(), runs, new_c, c) if c is not None else None
            y = ctx.emit(node, Where(), runs, new_h, ctx.constant(node, np.zeros((1, 1), zeros.dtype)))
        outputs.append(y)
    return outputs[::-1] if backward else outputs, h, c


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
