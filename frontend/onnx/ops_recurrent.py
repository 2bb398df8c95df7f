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
from edgec.frontend.onnx.ops_logic import cast
from edgec.frontend.onnx.ops_movement import joined
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.less import Less
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.tanh import Tanh
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where
from edgec.graph.types import DType

MAX_STEPS = 1024  # each becomes some ten nodes

_ACTIVATIONS: dict[str, Op] = {
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "relu": Relu(),
    "hardsigmoid": HardSigmoid(0.2, 0.5),
}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


@dataclass
class _Direction:
    """The parameters of one direction, and how its nodes are written. Shapes: [B, H] for states."""

    ctx: Context
    node: Node
    hidden: int
    recurrence: Value  # [gates * H, H]
    bias: Value | None  # of the recurrence [gates * H], where it cannot join that of the input
    activations: Sequence[Op]
    peepholes: Value | None  # [3 * H]: i, o, f
    clip: float | None

    def __call__(self, op: Op, *operands: Value) -> Value:
        return self.ctx.emit(self.node, op, *operands)

    def gate(self, x: Value, index: int) -> Value:
        """Columns index * H to (index + 1) * H."""
        return self(Slice.along(x.type.rank - 1, index * self.hidden, (index + 1) * self.hidden, x.type), x)

    def activate(self, index: int, x: Value) -> Value:
        clipped = x if self.clip is None else self(Clip(-self.clip, self.clip), x)
        return self(self.activations[index], clipped)

    def product(self, h: Value) -> Value:
        return self(MatMul(transpose_b=True), h, self.recurrence)

    def rnn(self, x: Value, h: Value, c: Value | None) -> tuple[Value, Value | None]:
        return self.activate(0, self(Add(), x, self.product(h))), None

    def gru(self, x: Value, h: Value, c: Value | None) -> tuple[Value, Value | None]:
        hidden = self.hidden
        two = Slice.along(0, 0, 2 * hidden, self.recurrence.type)
        last = Slice.along(0, 2 * hidden, 3 * hidden, self.recurrence.type)
        gates = self(MatMul(transpose_b=True), h, self(two, self.recurrence))
        gates = self(Add(), self(Slice.along(1, 0, 2 * hidden, x.type), x), gates)
        gates = self.activate(0, gates)
        z, r = self.gate(gates, 0), self.gate(gates, 1)
        bias = self.gate(self.bias, 2) if self.bias is not None else None

        def candidate(state: Value) -> Value:
            y = self(MatMul(transpose_b=True), state, self(last, self.recurrence))
            return y if bias is None else self(Add(), y, bias)

        if self.node.get_int("linear_before_reset", 0):
            inner = self(Mul(), r, candidate(h))
        else:
            inner = candidate(self(Mul(), r, h))
        n = self.activate(1, self(Add(), self.gate(x, 2), inner))
        # (1 - z) * n + z * h
        return self(Add(), n, self(Mul(), z, self(Sub(), h, n))), None

    def lstm(self, x: Value, h: Value, c: Value | None) -> tuple[Value, Value | None]:
        assert c is not None
        gates = self(Add(), x, self.product(h))
        i, o, f, g = (self.gate(gates, index) for index in range(4))
        if self.peepholes is not None:
            i = self(Add(), i, self(Mul(), self.gate(self.peepholes, 0), c))
            f = self(Add(), f, self(Mul(), self.gate(self.peepholes, 2), c))
        i, f = self.activate(0, i), self.activate(0, f)
        if self.node.get_int("input_forget", 0):
            f = self(Sub(), self.ctx.number(self.node, 1.0, i), i)
        c = self(Add(), self(Mul(), f, c), self(Mul(), i, self.activate(1, g)))
        if self.peepholes is not None:
            o = self(Add(), o, self(Mul(), self.gate(self.peepholes, 1), c))
        return self(Mul(), self.activate(0, o), self(self.activations[2], c)), c


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
    for index, backward in enumerate(names[direction]):
        ys, h, c = _run(ctx, node, x, index, lengths, backward=backward)
        sequences.append(joined(ctx, node, [ctx.emit(node, Reshape((1, 1, batch, hidden)), y) for y in ys], 0))
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
    ctx: Context, node: Node, x: Value, index: int, lengths: Value | Known | None, *, backward: bool
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

    gates = _GATES[node.op] * hidden
    weight, recurrence = part(1, (gates, features)), part(2, (gates, hidden))
    bias = part(3, (2 * gates,))
    inner = None
    flat = ctx.emit(node, Reshape((steps * batch, features)), x)
    inputs = ctx.emit(node, MatMul(transpose_b=True), flat, weight)
    if bias is not None:
        outer, inner = (ctx.emit(node, Slice.along(0, at, at + gates, bias.type), bias) for at in (0, gates))
        if node.op == "GRU":  # the candidate's own bias stands inside a product with the reset gate
            both = Slice.along(0, 0, 2 * hidden, inner.type)
            zeros = ctx.constant(node, np.zeros(hidden, inner.type.dtype.numpy))
            joint = joined(ctx, node, [ctx.emit(node, both, inner), zeros], 0)
            inputs = ctx.emit(node, Add(), inputs, ctx.emit(node, Add(), outer, joint))
        else:
            inputs = ctx.emit(node, Add(), inputs, ctx.emit(node, Add(), outer, inner))
    inputs = ctx.emit(node, Reshape((steps, batch, gates)), inputs)
    clip = node.get_float("clip") if "clip" in node.attributes else None
    peepholes = part(7, (3 * hidden,)) if node.op == "LSTM" else None
    cell = _Direction(ctx, node, hidden, recurrence, inner, _activations(node, index), peepholes, clip)
    update: Callable[..., tuple[Value, Value | None]] = {"RNN": cell.rnn, "GRU": cell.gru, "LSTM": cell.lstm}[node.op]
    zeros = np.zeros((batch, hidden), x.type.dtype.numpy)
    h = part(5, (batch, hidden)) or ctx.constant(node, zeros)
    c = (part(6, (batch, hidden)) or ctx.constant(node, zeros)) if node.op == "LSTM" else None
    outputs: list[Value] = []
    for step in reversed(range(steps)) if backward else range(steps):
        row = ctx.emit(node, Slice.along(0, step, step + 1, inputs.type), inputs)
        new_h, new_c = update(ctx.emit(node, Reshape((batch, gates)), row), h, c)
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


def _activations(node: Node, direction: int) -> list[Op]:
    names = node.attributes.get("activations", ())
    count = len(_DEFAULTS[node.op])
    own = names[direction * count : (direction + 1) * count] if names else _DEFAULTS[node.op]
    if len(own) != count or any(str(name).lower() not in _ACTIVATIONS for name in own):
        raise Unsupported(f"activations {list(names)}; {', '.join(_ACTIVATIONS)} are supported")
    if "activation_alpha" in node.attributes or "activation_beta" in node.attributes:
        raise Unsupported("activations with parameters of their own")
    return [_ACTIVATIONS[str(name).lower()] for name in own]


RECURRENT = dict.fromkeys(_GATES, _recurrent)
