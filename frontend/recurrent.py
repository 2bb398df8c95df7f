"""Recurrent cells unrolled over time, for every frontend: one product for the inputs of all steps, one for each state.

LSTM: Hochreiter and Schmidhuber, 1997; GRU: Cho et al., 2014. Formats differ in the order of the gates and in options
that most of them lack. Shapes: B rows, H units, G gates; a state is [B,H].
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce

import numpy as np

from edgec.frontend.writer import Writer
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where

MAX_STEPS = 1024  # of one layer in one direction; each becomes some fifteen nodes

State = tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Cell:
    """One direction of one layer.

    gates: a letter for each, in the order of their rows in the weights. recurrence: [G*H,H]. activations: of the gates,
    then of the candidate, then of what an LSTM puts out, as functions of a value. clip:
    gates and candidate are clipped to +-clip first.
    """

    writer: Writer
    gates: str
    recurrence: Value
    activations: Sequence[Callable[[Value], Value]]
    clip: float | None = None

    @property
    def hidden(self) -> int:
        return self.recurrence.type.shape[0] // len(self.gates)

    def emit(self, op: Op, *operands: Value) -> Value:
        return self.writer.emit(op, *operands)

    def gate(self, x: Value, letters: str) -> Value:
        """The columns that belong to one gate or to neighbours."""
        return self.part(x, self.gates.index(letters), len(letters))

    def part(self, x: Value, start: int, count: int) -> Value:
        return self.emit(Slice.along(1, start * self.hidden, (start + count) * self.hidden, x.type), x)

    def activate(self, index: int, x: Value) -> Value:
        clipped = x if self.clip is None else self.emit(Clip(-self.clip, self.clip), x)
        return self.activations[index](clipped)

    def recurred(self, h: Value) -> Value:
        """The share of the last output in all gates, [B,G*H]."""
        return self.emit(MatMul(), h, self.columns)

    @cached_property
    def columns(self) -> Value:
        """The recurrence as [H,G*H]: transposed once, for all steps."""
        return self.emit(Transpose((1, 0)), self.recurrence)

    @abstractmethod
    def step(self, x: Value, state: State) -> State:
        """The next state, of which the first value is the output; x[B,G*H] is the share of the input."""


class PlainCell(Cell):
    def step(self, x: Value, state: State) -> State:
        return (self.activate(0, self.emit(Add(), x, self.recurred(state[0]))),)


@dataclass(frozen=True, eq=False)
class GruCell(Cell):
    """bias: [G*H], of the recurrence: the candidate's part stands inside a product, and cannot join that of the input.
    reset_after: the reset gate scales the recurrence's share of the candidate, not the state that it is computed from.
    """

    bias: Value | None = None
    reset_after: bool = True

    def step(self, x: Value, state: State) -> State:
        (h,) = state
        both = self.gates.replace("n", "")
        share = self._share(h, self.gates if self.reset_after else both)
        gates = self.gate(share, both) if self.reset_after else share
        opened = self.activate(0, self.emit(Add(), self.gate(x, both), gates))
        z, r = (self.part(opened, both.index(letter), 1) for letter in "zr")
        if self.reset_after:
            candidate = self.emit(Mul(), r, self.gate(share, "n"))
        else:
            candidate = self._share(self.emit(Mul(), r, h), "n")
        n = self.activate(1, self.emit(Add(), self.gate(x, "n"), candidate))
        # (1 - z) * n + z * h
        return (self.emit(Add(), n, self.emit(Mul(), z, self.emit(Sub(), h, n))),)

    def _share(self, h: Value, letters: str) -> Value:
        """What the recurrence gives to some of the gates, with its bias."""
        columns, bias = self._weights[letters]
        y = self.emit(MatMul(), h, columns)
        return y if bias is None else self.emit(Add(), y, bias)

    @cached_property
    def _weights(self) -> dict[str, tuple[Value, Value | None]]:
        """Columns of the recurrence and its bias by the gates that they belong to; cut once, not in every step."""
        if self.reset_after:
            return {self.gates: (self.columns, self.bias)}
        return {
            letters: (self.gate(self.columns, letters), self.bias and self._rows(self.bias, letters))
            for letters in (self.gates.replace("n", ""), "n")
        }

    def _rows(self, x: Value, letters: str) -> Value:
        start = self.gates.index(letters) * self.hidden
        return self.emit(Slice.along(0, start, start + len(letters) * self.hidden, x.type), x)


@dataclass(frozen=True, eq=False)
class LstmCell(Cell):
    """peepholes: [H] by gate, what it sees of the cell. coupled: the forget gate is what the input gate leaves.
    projection: [P,H], of what the cell puts out, which then is [B,P] (Sak et al., 2014).
    """

    peepholes: dict[str, Value] | None = None
    coupled: bool = False
    projection: Value | None = None

    def step(self, x: Value, state: State) -> State:
        h, c = state
        gates = self.emit(Add(), x, self.recurred(h))
        i = self.activate(0, self._peeping("i", gates, c))
        if self.coupled:
            f = self.emit(Sub(), self.writer.constant(np.ones((), i.type.dtype.numpy)), i)
        else:
            f = self.activate(0, self._peeping("f", gates, c))
        g = self.activate(1, self.gate(gates, "g"))
        c = self.emit(Add(), self.emit(Mul(), f, c), self.emit(Mul(), i, g))
        o = self.activate(0, self._peeping("o", gates, c))
        h = self.emit(Mul(), o, self.activations[2](c))
        return (h if self.projection is None else self.emit(MatMul(transpose_b=True), h, self.projection)), c

    def _peeping(self, letter: str, gates: Value, c: Value) -> Value:
        x = self.gate(gates, letter)
        return self.emit(Add(), x, self.emit(Mul(), self.peepholes[letter], c)) if self.peepholes else x


def input_products(writer: Writer, x: Value, weight: Value, biases: Sequence[Value]) -> Value:
    """x[T,B,I] times weight[G*H,I], plus all biases [G*H]: [T,B,G*H]."""
    y = writer.emit(MatMul(transpose_b=True), x, weight)
    return writer.emit(Add(), y, reduce(partial(writer.emit, Add()), biases)) if biases else y


def unroll(
    cell: Cell, inputs: Value, state: State, *, backward: bool, runs: Callable[[int], Value] | None = None
) -> tuple[Value, State]:
    """The outputs [T,B,H] in the order of time, and the last state.

    inputs: see `input_products`. state: what the cell begins with, [1,H] where that is the same for all rows. runs: for
    a step the rows that still run, bool [B,1]: one that has ended keeps its state and gives 0.
    """
    steps, batch, width = inputs.type.shape
    outputs: list[Value] = []
    every = list(enumerate(cell.writer.part(inputs, 0, steps)))
    for step, row in reversed(every) if backward else every:
        new = cell.step(cell.emit(Reshape((batch, width)), row), state)
        output = new[0]
        if runs is not None:
            running = runs(step)
            new = tuple(cell.emit(Where(), running, fresh, old) for fresh, old in zip(new, state, strict=True))
            zero = cell.writer.constant(np.zeros((1, 1), output.type.dtype.numpy))
            output = cell.emit(Where(), running, output, zero)
        state = new
        outputs.append(cell.emit(Reshape((1, *output.type.shape)), output))
    return cell.writer.join(outputs[::-1] if backward else outputs, 0), state
