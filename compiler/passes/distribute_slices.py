"""Pass `distribute_slices`: what is done with a weight in two pieces is done with each, and gradients of one alone.

    conv(x, concat(a, b))        =  conv(x[:, :k], a) + conv(x[:, k:], b)
    input_grad(dy, concat(a, b)) =  concat(input_grad(dy, a), input_grad(dy, b))
    weight_grad(x, dy)[:, :k]    =  weight_grad(x[:, :k], dy)

and the same for products. So the frozen piece is never in memory but in the file, gradients are computed for trained
channels alone, and of an activation these channels alone are kept. Where the weight is smaller than the activation
(in early layers, and depthwise ones) the pieces are joined instead, which moves fewer bytes.

Requires SLICED, UPDATES. Ensures DISTRIBUTED.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.compiler.recompute import forward_nodes
from edgec.compiler.rewrite import remove_dead_nodes, replace_node
from edgec.compiler.sparse.narrow import Narrowing
from edgec.compiler.sparse.products import Contracted, Free, part_in
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.transpose import Transpose


def distribute_slices(module: Module, options: Options) -> bool:
    pieces = {name for parts in module.parts.values() if len(parts.pieces) > 1 for name in parts.pieces}
    if not pieces:
        return False
    # One decision for all programs, so that a weight has one form in each: that of `train`, which reads most.
    large: set[frozenset[str]] | None = None
    for graph in sorted(module.programs.values(), key=lambda graph: graph.name != "train"):
        work = _Distribution(graph, pieces, module.updated_names())
        work.lift_joins()
        large = work.large_joins() if large is None else large
        work.split_layers(large)
        if graph.name == "train":
            work.narrow_gradients()
        remove_dead_nodes(graph)
        _drop_unread(graph, pieces)
    return True


def _drop_unread(graph: Graph, pieces: set[str]) -> None:
    for leaf in list(graph.leaves.values()):
        folded = leaf.name in pieces or leaf.role is Role.CONSTANT
        if folded and not leaf.uses and not graph.is_result(leaf) and leaf not in graph.updates:
            graph.remove_leaf(leaf)


class _Distribution:
    """Rewrites one program. A join is the concatenation of a weight's pieces, perhaps scaled or transposed."""

    def __init__(self, graph: Graph, pieces: set[str], updated: set[str]):
        self.graph, self.pieces, self.updated = graph, pieces, updated
        self.narrowing = Narrowing(graph)

    def joins(self) -> list[Node]:
        return [node for node in self.graph.nodes if isinstance(node.op, Concat) and self._names(node)]

    def _names(self, join: Node) -> frozenset[str]:
        """The pieces that a concatenation joins; none where it joins anything else."""
        leaves: set[Value] = set()
        stack = list(join.inputs)
        while stack:
            value = stack.pop()
            if value.producer is None:
                leaves.add(value)
            else:
                stack += value.producer.inputs
        if not all(leaf.role in (Role.PARAM, Role.CONSTANT) for leaf in leaves):
            return frozenset()
        return frozenset(leaf.name for leaf in leaves if leaf.name in self.pieces and leaf.trainable)

    # -- joins move behind what is done with each piece -------------------------------------------------------------

    def lift_joins(self) -> None:
        """Scales and transpositions of a join become those of its pieces; what is known of them is computed now."""
        waiting = self.joins()
        while waiting:
            join = waiting.pop()
            for node in list(dict.fromkeys(reader for reader, _ in join.output.uses)):
                lifted = self._lifted(node, join)
                if lifted is not None:
                    replace_node(self.graph, node, lifted, rename=True)
                    waiting.append(lifted.producer)

    def _lifted(self, node: Node, join: Node) -> Value | None:
        axis, whole = join.op.axis, join.output
        if isinstance(node.op, Transpose):
            parts = [self._emit(node.op, piece, before=node) for piece in join.inputs]
            return self._emit(Concat(node.op.perm.index(axis)), *parts, before=node)
        if not node.op.elementwise or len(node.outputs) > 1 or node.output.type.shape != whole.type.shape:
            return None
        others = [value for value in node.inputs if value is not whole]
        if not all(self._is_scale(value, whole.type.rank - axis) for value in others):
            return None
        parts = []
        for piece in join.inputs:
            operands = [piece if value is whole else value for value in node.inputs]
            parts.append(self._emit(node.op, *operands, before=node))
        return self._emit(Concat(axis), *parts, before=node)

    def _is_scale(self, value: Value, from_behind: int) -> bool:
        """Whether a value depends on no activation, and is the same for all channels along an axis."""
        if value.type.rank >= from_behind and value.type.shape[-from_behind] != 1:
            return False
        sources = self.graph.ancestors([value])
        leaves = [value, *(operand for node in sources for operand in node.inputs)]
        return all(leaf.producer is not None or leaf.role in (Role.PARAM, Role.CONSTANT) for leaf in leaves)

    def _emit(self, op: Op, *operands: Value, before: Node) -> Value:
        """The result of `op`: a constant where it scales what is known and the same for ever."""
        if op.elementwise and all(map(self._frozen, operands)):
            (array,) = op.reference(*(value.data for value in operands))
            return self.graph.constant(array, operands[0].name)
        return self.graph.emit1(op, *operands, source=before.source, before=before)

    def _frozen(self, value: Value) -> bool:
        known = value.role is Role.PARAM and value.data is not None and value.name not in self.updated
        return known or value.role is Role.CONSTANT

    # -- layers become one for each piece ---------------------------------------------------------------------------

    def large_joins(self) -> set[frozenset[str]]:
        """Joins that are larger than the activation which a layer multiplies them with, by the pieces they are of."""
        found = set()
        for join in self.joins():
            parts = [part_in(reader, slot, join.op.axis) for reader, slot in join.output.uses]
            read = [p.companion.type.bytes for p in parts if isinstance(p, Contracted)]
            if None not in parts and read and max(read) <= join.output.type.bytes:
                found.add(self._names(join))
        return found

    def split_layers(self, large: set[frozenset[str]]) -> None:
        for join in self.joins():
            if self._names(join) not in large:
                continue
            for reader, slot in list(join.output.uses):
                part = part_in(reader, slot, join.op.axis)
                if part is not None:
                    replace_node(self.graph, reader, self._split(reader, slot, part, join), rename=True)

    def _split(self, node: Node, slot: int, part: Contracted | Free, join: Node) -> Value:
        """The same result from each piece by itself, the trained one first."""
        results, start = [], 0
        for piece in join.inputs:
            end = start + piece.type.shape[join.op.axis]
            operands = list(node.inputs)
            operands[slot] = piece
            if isinstance(part, Contracted):
                operands[1 - slot] = self.narrowing.slice(part.companion, part.axis, start, end, before=node)
            results.append(self.graph.emit1(node.op, *operands, source=node.source, before=node))
            start = end
        if isinstance(part, Free):
            return self.graph.emit1(Concat(part.axis), *results, source=node.source, before=node)
        total = results[0]
        for result in results[1:]:
            total = self.graph.emit1(Add(), result, total, source=node.source, before=node)
        return total

    # -- gradients of what is trained alone -------------------------------------------------------------------------

    def narrow_gradients(self) -> None:
        """Slices of gradients become gradients from slices: `derive_gradients` writes the former for a join."""
        forward = forward_nodes(self.graph)
        for node in [node for node in self.graph.nodes if node not in forward]:
            narrow = self.narrowing.narrowed(node, forward)
            if narrow is not None:
                replace_node(self.graph, node, narrow, rename=True)
