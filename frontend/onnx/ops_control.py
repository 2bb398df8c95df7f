"""Control flow that is decided at compile time: one branch of `If`, or a choice of both; `Loop` and `Scan` unrolled."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgec.frontend.onnx.arguments import normal_axis
from edgec.frontend.onnx.context import (
    DEPENDS_ON_DATA,
    KNOWN_AT_COMPILE_TIME,
    Context,
    Counted,
    Entry,
    Known,
    Listed,
    Results,
    as_tensor,
)
from edgec.frontend.onnx.model import Body, Node, Unsupported
from edgec.frontend.onnx.ops_movement import joined
from edgec.graph.ir import Value
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.where import Where

RunBody = Callable[[Body, Mapping[str, Entry]], Results]

MAX_TRIPS = 4096


def _if(ctx: Context, node: Node, run: RunBody) -> Results:
    """The branch that a known condition takes; of a computed one both, and a choice between results of equal types."""
    condition = ctx.entry(node, 0)
    if ctx.type(node, 0).size != 1:
        raise Unsupported(f"the condition has {ctx.type(node, 0).size} elements")
    if isinstance(condition, Known):
        return run(node.get_body("then_branch" if condition.array.reshape(()) else "else_branch"), {})
    condition = ctx.emit(node, Reshape(()), condition) if condition.type.shape else condition
    branches = [run(node.get_body(name), {}) for name in ("then_branch", "else_branch")]
    results = []
    for pair in zip(*branches, strict=True):
        if any(isinstance(result, Listed) for result in pair):
            raise Unsupported("the condition is computed from the model's inputs and chooses between sequences")
        if any(isinstance(result, Counted) for result in pair):
            raise Unsupported(f"chooses between results whose extent {DEPENDS_ON_DATA}")
        a, b = (ctx.constant(node, result.array) if isinstance(result, Known) else result for result in pair)
        if a.type != b.type:
            raise Unsupported(
                f"the condition is computed from the model's inputs and chooses between {a.type} and {b.type}"
            )
        results.append(ctx.emit(node, Where(), condition, a, b))
    return tuple(results)


def _loop(ctx: Context, node: Node, run: RunBody) -> Results:
    """The body's inputs are (iteration, condition, carried...), its outputs (condition, carried..., scanned...)."""
    body = node.get_body("body")
    trips = _trips(ctx.known(node, 0, "the trip count")) if ctx.has(node, 0) else None
    going = ctx.entry(node, 1) if ctx.has(node, 1) else Known(np.array(True))
    carried = [ctx.any_entry(node, index) for index in range(2, len(node.inputs))]
    if len(body.inputs) != 2 + len(carried) or len(body.outputs) < 1 + len(carried):
        raise Unsupported("the body does not fit the carried values")
    rows: list[Results] = []
    while (trips is None or len(rows) < trips) and _is_true(going):
        if len(rows) == MAX_TRIPS:
            raise Unsupported(f"the loop runs more than {MAX_TRIPS} times")
        step = Known(np.array(len(rows), np.int64))
        going, *results = run(body, dict(zip(body.inputs, (step, going, *carried), strict=True)))
        carried, row = results[: len(carried)], tuple(results[len(carried) :])
        rows.append(row)
    if not rows and len(body.outputs) > 1 + len(carried):
        raise Unsupported("the loop never runs, so that its scanned outputs have no type")
    return (*carried, *(_joined(ctx, node, column, 0, reverse=False) for column in zip(*rows, strict=True)))


def _scan(ctx: Context, node: Node, run: RunBody) -> Results:
    """The body's inputs are (states..., one slice of each scanned input), its outputs (states..., one of each)."""
    body = node.get_body("body")
    first = 1 if node.opset < 9 else 0  # opset 8: sequence lengths first, and a leading batch axis
    scanned = node.get_int("num_scan_inputs")
    if first or not 1 <= scanned <= len(node.inputs):
        raise Unsupported("the scan of opset 8, with a batch axis" if first else f"{scanned} scanned inputs")
    states = [ctx.entry(node, index) for index in range(len(node.inputs) - scanned)]
    sources = [ctx.value(node, index) for index in range(len(node.inputs) - scanned, len(node.inputs))]
    axes = _per_item(node, "scan_input_axes", scanned)
    axes = [normal_axis(axis, x.type.rank) for axis, x in zip(axes, sources, strict=True)]
    backward = _per_item(node, "scan_input_directions", scanned)
    if len(body.inputs) != len(node.inputs) or len(body.outputs) < len(states):
        raise Unsupported("the body does not fit the states and scanned inputs")
    lengths = {x.type.shape[axis] for axis, x in zip(axes, sources, strict=True)}
    if len(lengths) != 1 or not 1 <= max(lengths) <= MAX_TRIPS:
        raise Unsupported(f"scans over {sorted(lengths)} steps; one length of 1 to {MAX_TRIPS} is supported")
    (length,) = lengths
    rows: list[Results] = []
    for step in range(length):
        slices = [
            _taken(ctx, node, x, axis, length - 1 - step if back else step)
            for x, axis, back in zip(sources, axes, backward, strict=True)
        ]
        results = run(body, dict(zip(body.inputs, (*states, *slices), strict=True)))
        states = list(results[: len(states)])
        rows.append(results[len(states) :])
    columns = list(zip(*rows, strict=True))
    places = zip(
        columns,
        _per_item(node, "scan_output_axes", len(columns)),
        _per_item(node, "scan_output_directions", len(columns)),
        strict=True,
    )
    return (*states, *(_joined(ctx, node, column, axis, reverse=bool(back)) for column, axis, back in places))


def _trips(count: np.ndarray) -> int:
    if count.size != 1:
        raise Unsupported(f"the trip count has {count.size} elements")
    return max(int(count.reshape(())), 0)


def _is_true(condition: Entry) -> bool:
    condition = as_tensor(condition)
    if not isinstance(condition, Known) or condition.array.size != 1:
        raise Unsupported(f"the condition is computed from the model's inputs; {KNOWN_AT_COMPILE_TIME}")
    return bool(condition.array.reshape(()))


def _per_item(node: Node, name: str, count: int) -> tuple[int, ...]:
    values = node.get_ints(name, (0,) * count)
    if len(values) != count:
        raise Unsupported(f"{name} {list(values)} must have {count} entries")
    return values


def _taken(ctx: Context, node: Node, x: Value, axis: int, position: int) -> Value:
    """x[..., position, ...] along `axis`."""
    part = ctx.emit(node, Slice.along(axis, position, position + 1, x.type), x)
    return ctx.emit(node, Reshape(x.type.shape[:axis] + x.type.shape[axis + 1 :]), part)


def _sequence_map(ctx: Context, node: Node, run: RunBody) -> Results:
    """The body for every item of a sequence; other inputs are sequences of the same length, or tensors for all."""
    body, items = node.get_body("body"), ctx.listed(node, 0)
    others = [ctx.any_entry(node, index) for index in range(1, len(node.inputs))]
    if len(body.inputs) != len(node.inputs):
        raise Unsupported("the body does not fit the inputs")
    if any(isinstance(other, Listed) and len(other.items) != len(items) for other in others):
        raise Unsupported("the sequences have different lengths")
    rows = []
    for step, item in enumerate(items):
        given = [other.items[step] if isinstance(other, Listed) else other for other in others]
        rows.append(run(body, dict(zip(body.inputs, (item, *given), strict=True))))
    columns = zip(*rows, strict=True) if rows else [()] * len(body.outputs)
    return tuple(Listed(tuple(map(as_tensor, column))) for column in columns)


def _joined(ctx: Context, node: Node, given: tuple[Entry, ...], axis: int, *, reverse: bool) -> Value | Known:
    """What the steps gave, one after the other along a new axis."""
    parts = [as_tensor(entry) for entry in (given[::-1] if reverse else given)]
    if all(isinstance(part, Known) for part in parts):
        if len({part.array.shape for part in parts}) != 1:
            raise Unsupported("the steps give different shapes")
        return Known(np.stack([part.array for part in parts], normal_axis(axis, parts[0].array.ndim + 1)))
    values = [ctx.tensor(part, f"{node.outputs[0]}.{step}") for step, part in enumerate(parts)]
    shape = values[0].type.shape
    axis = normal_axis(axis, len(shape) + 1)
    rows = [ctx.emit(node, Reshape((*shape[:axis], 1, *shape[axis:])), value) for value in values]
    return joined(ctx, node, rows, axis)


CONTROL_FLOW: dict[str, Callable[[Context, Node, RunBody], Results]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceMap": _sequence_map,
}
