"""nn.LSTM, nn.GRU and nn.RNN as unrolled cells, all layers and directions; parameters as `_flat_weights` lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

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
from edgec.frontend.torch.call import Call, Known, Unsupported
from edgec.frontend.torch.context import Context, Converted, to_numpy
from edgec.frontend.torch.ops_elementwise import operand
from edgec.frontend.torch.ops_movement import cut, join, reshape, transpose
from edgec.frontend.writer import Writer
from edgec.graph.ir import Value
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.tanh import Tanh

# From what a direction has beside its weights of the input: the recurrence, a bias inside of it, a projection.
MakeCell = Callable[[Writer, Value, Value | None, Value | None], Cell]


def _lstm_cell(writer: Writer, recurrence: Value, bias: Value | None, projection: Value | None) -> Cell:
    sigmoid, tanh = (partial(writer.emit, op) for op in (Sigmoid(), Tanh()))
    return LstmCell(writer, "ifgo", recurrence, (sigmoid, tanh, tanh), projection=projection)


def _gru_cell(writer: Writer, recurrence: Value, bias: Value | None, projection: Value | None) -> Cell:
    activations = [partial(writer.emit, op) for op in (Sigmoid(), Tanh())]
    return GruCell(writer, "rzn", recurrence, activations, bias=bias)


def _plain_cell(activation: Tanh | Relu) -> MakeCell:
    def make(writer: Writer, recurrence: Value, bias: Value | None, projection: Value | None) -> Cell:
        return PlainCell(writer, "n", recurrence, (partial(writer.emit, activation),))

    return make


def _layers(make: MakeCell, state_names: Sequence[str], ctx: Context, call: Call) -> Converted:
    """x[T,B,I] or [B,T,I] -> outputs [T,B,D*H] or [B,T,D*H], and the last states [L*D,B,H]."""
    if ctx.flag(call, "train") and ctx.number(call, "dropout"):
        raise Unsupported("dropout in training mode; export the module after module.eval()")
    x = operand(ctx, call, "input")
    batch_first = ctx.flag(call, "batch_first")
    x = transpose(ctx, call, x, (1, 0, 2)) if batch_first else x
    steps, batch, _ = x.type.shape
    if not 1 <= steps <= MAX_STEPS:
        raise Unsupported(f"{steps} steps; 1 to {MAX_STEPS} are unrolled")
    layers, directions = ctx.integer(call, "num_layers"), 2 if ctx.flag(call, "bidirectional") else 1
    params = ctx.values(call, "params")
    share = len(params) // (layers * directions)
    given = [ctx.resolve(item) for item in (ctx.list(call, "hx") if len(state_names) > 1 else [call.arguments["hx"]])]
    finals: list[State] = []
    for layer in range(layers):
        sequences = []
        for direction in range(directions):
            index = layer * directions + direction
            own = params[index * share : (index + 1) * share]
            state = tuple(_initial(ctx, call, entry, index) for entry in given)
            outputs, final = _run(make, ctx, call, x, own, state, backward=direction == 1)
            sequences.append(outputs)
            finals.append(tuple(reshape(ctx, call, value, (1, *value.type.shape)) for value in final))
        x = join(ctx, call, sequences, 2)
    x = transpose(ctx, call, x, (1, 0, 2)) if batch_first else x
    return x, *(join(ctx, call, list(parts), 0) for parts in zip(*finals, strict=True))


def _initial(ctx: Context, call: Call, entry: Value | Known, index: int) -> Value:
    """The state [B,H] that one direction begins with; [1,H] if it is known and the same for all rows."""
    if isinstance(entry, Known) and not entry.trainable and entry.tensor.shape[1]:
        rows = entry.tensor[index]
        if (rows == rows[:1]).all():
            return ctx.graph.constant(to_numpy(rows[:1]), ctx.free_name(f"{call.name}.c"))
    states = ctx.as_value(entry)
    return reshape(ctx, call, cut(ctx, call, states, 0, range(index, index + 1)), states.type.shape[1:])


def _run(
    make: MakeCell, ctx: Context, call: Call, x: Value, params: Sequence[Value], state: State, *, backward: bool
) -> tuple[Value, State]:
    """One direction of one layer. `params`: the weights of input and state, both biases and a projection, if any."""
    writer = ctx.writer(call)
    weight, recurrence, *rest = params
    biases = rest[:2] if ctx.flag(call, "has_biases") else []
    (projection,) = rest[len(biases) :] or [None]
    inner = biases.pop() if biases and make is _gru_cell else None
    cell = make(writer, recurrence, inner, projection)
    return unroll(cell, input_products(writer, x, weight, biases), state, backward=backward)


RECURRENT = {
    "aten.lstm.input": partial(_layers, _lstm_cell, ("h", "c")),
    "aten.gru.input": partial(_layers, _gru_cell, ("h",)),
    "aten.rnn_tanh.input": partial(_layers, _plain_cell(Tanh()), ("h",)),
    "aten.rnn_relu.input": partial(_layers, _plain_cell(Relu()), ("h",)),
}
