"""The same program at another batch size.

A program compiled for a batch of b images has b written into shapes and attributes. Here every value is followed: does
it hold something of each image, and then where? The batch is one factor of one axis (of extent b, or more after images
were merged with rows or tokens). Each op has a rule (`batch_rules.py`) that says where the batch goes; a program that
mixes images, or fixes their number where it cannot be changed, is refused with the node's name.

A batch of one leaves open where it stands in a reshaped tensor. What the rules accept treats every image by itself,
wherever the batch was thought to be: so a choice that leads to a refusal is taken back, and the next one tried.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.compiler.batch_rules import Batch, Mixed, Operand, candidates
from edgec.compiler.rewrite import describe
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Graph, Node, Role, Value
from edgec.graph.ops.base import Op
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.concat import Concat
from edgec.graph.types import TensorType

_MAX_RETRIES = 100_000  # rounds beyond one for each node: choices that were taken back, and what followed from them


@dataclass(frozen=True)
class _Step:
    """A node at the new batch size: its op, what it makes, and where that holds the batch."""

    op: Op
    types: tuple[TensorType, ...]
    axis: int | None
    outer: int


# A node by what decides about it. Nodes of one source that look alike play one part: steps of a recurrent layer, heads.
_Key = tuple[str | None, Op, tuple[Operand, ...]]
_Option = tuple[Op, int | None, int]


@dataclass
class _Choice:
    """Nodes that left several steps open: the first of them, and the options that were not tried yet."""

    index: int
    key: _Key
    rest: list[_Option]


def rebatch(graph: Graph, batch: int, name: str) -> tuple[Graph, dict[str, int | None]]:
    """A copy of `graph` called `name` for `batch` images, and for each output the axis that holds the batch.

    The leading axis of every input is the batch. UserError E0302 where there is no such axis, or a node cannot follow.
    At the same size nothing needs to follow, so that models may mix their images; outputs are then taken to lead with
    the batch.
    """
    old = batch_of(graph)
    if old == batch:
        return graph.clone(name), dict.fromkeys(graph.outputs, 0)
    sizes = Batch(old, batch)
    search = _Search(graph, sizes)
    steps = search.run()
    copy = Graph(name)
    twins: dict[Value, Value] = {}
    for leaf in graph.leaves.values():
        kind = search.types[leaf]
        twins[leaf] = copy.add_leaf(
            leaf.role, leaf.name, kind, data=leaf.data, trainable=leaf.trainable, bounds=leaf.bounds
        )
    for node, step in zip(graph.nodes, steps, strict=True):
        values = [twins[value] for value in node.inputs]
        if isinstance(step.op, Concat):
            operands = search.operands(node)
            values = [
                _spread(copy, value, operand, step.axis, sizes) for value, operand in zip(values, operands, strict=True)
            ]
        names = [value.name for value in node.outputs]
        twins |= zip(node.outputs, copy.emit(step.op, *values, names=names, source=node.source), strict=True)
    copy.outputs = {key: twins[value] for key, value in graph.outputs.items()}
    copy.updates = {twins[target]: twins[value] for target, value in graph.updates.items()}
    copy.loss, copy.guard, copy.counts = graph.loss, graph.guard, dict(graph.counts)
    return copy, {key: search.places[value][0] for key, value in graph.outputs.items()}


class _Search:
    """Where the batch stands in every value, by trying."""

    def __init__(self, graph: Graph, sizes: Batch):
        self.graph, self.sizes = graph, sizes
        self.places: dict[Value, tuple[int | None, int]] = {}  # axis and outer factor
        self.types: dict[Value, TensorType] = {}  # at the new size
        for leaf in graph.leaves.values():
            axis = 0 if leaf.role is Role.INPUT and leaf.type.rank else None
            self.places[leaf] = (axis, 1)
            self.types[leaf] = leaf.type if axis is None else leaf.type.with_shape(sizes.resize(leaf.type.shape, 0))

    def operands(self, node: Node) -> tuple[Operand, ...]:
        return tuple(Operand(value.type.shape, *self.places[value]) for value in node.inputs)

    def run(self) -> list[_Step]:
        """A step for every node. UserError E0302 with the first refusal if no choice leads to the end."""
        steps: list[_Step] = []
        choices: list[_Choice] = []
        chosen: dict[_Key, tuple[int, _Option]] = {}  # and where that was decided
        refusal: UserError | None = None
        nodes = self.graph.nodes
        for _ in range(len(nodes) + _MAX_RETRIES):
            try:
                if len(steps) == len(nodes):
                    self._check_outputs()
                    return steps
                node = nodes[len(steps)]
                operands = self.operands(node)
                key = (node.source, node.op, operands)
                if key not in chosen:
                    first, *rest = candidates(node.op, operands, self.sizes)
                    chosen[key] = len(steps), first
                    if rest:
                        choices.append(_Choice(len(steps), key, rest))
                steps.append(self._step(node, chosen[key][1]))
            except (Mixed, UserError) as error:
                reason = error.message if isinstance(error, UserError) else str(error)
                refusal = refusal or _refusal(nodes[min(len(steps), len(nodes) - 1)], self.sizes, reason)
                if not choices:
                    raise refusal from None
                last = choices[-1]
                del steps[last.index :]
                chosen = {key: found for key, found in chosen.items() if found[0] < last.index}
                chosen[last.key] = last.index, last.rest.pop(0)
                if not last.rest:
                    choices.pop()
        assert refusal is not None  # each round too many has taken a choice back
        raise refusal

    def _check_outputs(self) -> None:
        for name, value in self.graph.outputs.items():
            if self.places[value][1] != 1:
                raise Mixed(f"the images of output `{name}` are interleaved")

    def _step(self, node: Node, option: _Option) -> _Step:
        op, axis, outer = option
        operands = [
            _spread_type(self.types[value], operand, axis, self.sizes) if isinstance(op, Concat) else self.types[value]
            for value, operand in zip(node.inputs, self.operands(node), strict=True)
        ]
        types = op.infer(*operands)
        for value, kind in zip(node.outputs, types, strict=True):
            wanted = value.type.shape if axis is None else self.sizes.resize(value.type.shape, axis)
            if kind.shape != wanted:
                raise InternalError(f"the batch rule of {op.name} promised {wanted} for {kind}")
            self.places[value], self.types[value] = (axis, outer), kind
        return _Step(op, types, axis, outer)


def batch_of(graph: Graph) -> int:
    """The leading extent that all inputs share. UserError E0302 where they differ or there is none."""
    extents = {leaf.name: leaf.type.shape[0] for leaf in graph.by_role(Role.INPUT) if leaf.type.rank}
    if len(set(extents.values())) != 1 or 0 in extents.values():
        listed = ", ".join(f"{name}: {extent}" for name, extent in extents.items()) or "none"
        raise UserError(
            "E0302",
            f"training needs inputs whose leading axis is the batch, of one extent; it is {listed}",
            hint="bind other shapes with --shape, or export the model with the batch as the leading axis",
        )
    return next(iter(extents.values()))


def _refusal(node: Node, sizes: Batch, reason: str) -> UserError:
    return UserError(
        "E0302",
        f"the model cannot be trained with a batch of {sizes.new}: {reason}",
        where=describe(node),
        hint=f"train with a batch of {sizes.old}, or compile the model for a batch of {sizes.new}",
    )


def _spread(graph: Graph, value: Value, operand: Operand, axis: int | None, sizes: Batch) -> Value:
    """What is the same for all images (a class token), once for each."""
    kind = _spread_type(value.type, operand, axis, sizes)
    return value if kind == value.type else graph.emit1(BroadcastTo(kind.shape), value)


def _spread_type(kind: TensorType, operand: Operand, axis: int | None, sizes: Batch) -> TensorType:
    if axis is None or operand.axis is not None:
        return kind
    if sizes.old != 1 or operand.shape[axis] != 1:
        raise Mixed(f"an operand of shape {operand.shape} is fixed at {operand.shape[axis]} images")
    return kind.with_shape(sizes.resize(operand.shape, axis))
