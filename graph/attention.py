"""Finding attention, softmax(q k^T) v (Vaswani et al., Attention is all you need, 2017), and its gradient in a graph.

Models write it as a product, elementwise nodes (a scale, masks), a softmax along the last axis, perhaps elementwise
nodes again, and a product. Who knows that these belong together can compute them for some rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from edgec.graph.ir import Node, Value
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.sub import Sub

_LONGEST = 8  # elementwise nodes one after another


@dataclass(frozen=True)
class Weights:
    """scores = q k^T [..., rows, keys], `before` element by element, softmax, `after` element by element."""

    scores: Node
    before: tuple[Node, ...]
    softmax: Node
    after: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.scores, *self.before, self.softmax, *self.after)


@dataclass(frozen=True)
class Attention:
    """`product` multiplies the weights by v [..., keys, columns]."""

    weights: Weights
    product: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*self.weights.nodes, self.product)

    @property
    def results(self) -> tuple[Node, ...]:
        return (self.product,)


@dataclass(frozen=True)
class SlopesOfScores:
    """From dy to the gradient of the scores: `product` is dy v^T, `after` leads to what the softmax gets, the four
    nodes of `normal` are the softmax's gradient y * (dy - sum(dy * y)), and `before` leads to the scores.
    """

    product: Node
    after: tuple[Node, ...]
    normal: tuple[Node, Node, Node, Node]
    before: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.product, *self.after, *self.normal, *self.before)


@dataclass(frozen=True)
class AttentionGradient:
    """The weights once more, and those gradients that are wanted: of q and k by way of `slopes`, and of v."""

    weights: Weights
    slopes: SlopesOfScores | None
    q: Node | None
    k: Node | None
    v: Node | None

    @property
    def nodes(self) -> tuple[Node, ...]:
        slopes = () if self.slopes is None else self.slopes.nodes
        return (*self.weights.nodes, *slopes, *self.results)

    @property
    def results(self) -> tuple[Node, ...]:
        return tuple(node for node in (self.q, self.k, self.v) if node is not None)


def attention_of(softmax: Node, among: Container[Node]) -> Attention | None:
    """The attention that a softmax belongs to; None if to none. Readers that are not `among` these do not count."""
    weights = _weights(softmax)
    if weights is None:
        return None
    after, node = _towards_product(softmax.output, lambda node: node in among)
    if node is None or node.op != MatMul() or node.inputs[0] is not (after[-1] if after else softmax).output:
        return None
    if node.inputs[1] is node.inputs[0]:
        return None
    return Attention(Weights(weights.scores, weights.before, softmax, after), node)


def gradient_of(softmax: Node) -> AttentionGradient | None:
    """The gradient of an attention, from the softmax that was computed again for it alone; None where it is no such."""
    weights = _weights(softmax)
    if weights is None:
        return None
    y = softmax.output
    readers = list(dict.fromkeys(node for node, _ in y.uses))
    normal = next((found for node in readers if (found := _normal(node, y)) is not None), None)
    own = () if normal is None else normal
    after: tuple[Node, ...] = ()
    v = slopes = q = k = None
    if any(node not in own for node in readers):
        after, v = _towards_product(y, lambda node: node not in own)
        read = (after[-1] if after else softmax).output
        if v is None or v.op != MatMul(transpose_a=True) or v.inputs[0] is not read or v.inputs[1] is read:
            return None
    if normal is not None:
        found = _slopes(normal, y)
        if found is None:
            return None
        slopes, last = found
        for node in dict.fromkeys(node for node, _ in last.uses):
            kind = _operand_of(node, last, weights.scores)
            if kind == "q" and q is None:
                q = node
            elif kind == "k" and k is None:
                k = node
            else:
                return None
        if v is not None and slopes.product.inputs[0] is not v.inputs[1]:
            return None
    if q is None and k is None and (v is None or slopes is not None):
        return None
    return AttentionGradient(Weights(weights.scores, weights.before, softmax, after), slopes, q, k, v)


def _weights(softmax: Node) -> Weights | None:
    x = softmax.inputs[0]
    if not isinstance(softmax.op, Softmax) or softmax.op.axis != x.type.rank - 1:
        return None
    found = _back_to_product(x)
    if found is None or found[0].op.transpose_a:
        return None
    return Weights(*found, softmax, ())


def _back_to_product(value: Value, limit: int = _LONGEST) -> tuple[Node, tuple[Node, ...]] | None:
    """The product that `value` comes of by elementwise nodes of its shape, and these."""
    node = value.producer
    if node is None:
        return None
    if isinstance(node.op, MatMul):
        return node, ()
    if not node.op.elementwise or len(node.outputs) > 1 or limit == 0:
        return None
    for operand in node.inputs:
        if operand.type.shape == value.type.shape:
            found = _back_to_product(operand, limit - 1)
            if found is not None:
                return found[0], (*found[1], node)
    return None


def _towards_product(value: Value, counts: Callable[[Node], bool]) -> tuple[tuple[Node, ...], Node | None]:
    """The elementwise nodes of its shape between `value` and the one product that all of them lead to, and that."""
    between: set[Node] = set()
    products: set[Node] = set()
    ahead = [value]
    while ahead:
        read = ahead.pop()
        for node in {node for node, _ in read.uses if counts(node)} - between:
            if isinstance(node.op, MatMul):
                products.add(node)
            elif node.op.elementwise and len(node.outputs) == 1 and node.output.type.shape == value.type.shape:
                between.add(node)
                ahead.append(node.output)
            else:
                return (), None
        if len(between) > _LONGEST:
            return (), None
    if len(products) != 1:
        return (), None
    (product,) = products
    ordered = _in_order(product.inputs[0], between)
    return (tuple(ordered), product) if len(ordered) == len(between) else ((), None)


def _in_order(value: Value, among: set[Node]) -> list[Node]:
    """Those that `value` comes of, behind what they read."""
    order: dict[Node, None] = {}

    def visit(node: Node | None) -> None:
        if node in among and node not in order:
            for operand in node.inputs:
                visit(operand.producer)
            order[node] = None

    visit(value.producer)
    return list(order)


def _normal(first: Node, y: Value) -> tuple[Node, Node, Node, Node] | None:
    """The nodes of y * (dy - sum(dy * y)), of which `first` is the product in the sum."""
    if not isinstance(first.op, Mul):
        return None
    dy = first.inputs[1] if first.inputs[0] is y else first.inputs[0]
    total = _only_reader(first)
    rank = y.type.rank
    if dy is y or total is None or total.op != ReduceSum((rank - 1,), keepdims=True):
        return None
    rest = _only_reader(total)
    if rest is None or not isinstance(rest.op, Sub) or list(rest.inputs) != [dy, total.output]:
        return None
    last = _only_reader(rest)
    if last is None or not isinstance(last.op, Mul) or set(last.inputs) != {y, rest.output}:
        return None
    return first, total, rest, last


def _only_reader(node: Node) -> Node | None:
    readers = {reader for reader, _ in node.output.uses}
    return readers.pop() if len(readers) == 1 else None


def _slopes(normal: tuple[Node, Node, Node, Node], y: Value) -> tuple[SlopesOfScores, Value] | None:
    """What leads to the gradient of the scores, and that gradient."""
    first, _, _, last = normal
    dy = first.inputs[1] if first.inputs[0] is y else first.inputs[0]
    found = _back_to_product(dy)
    if found is None or found[0].op != MatMul(transpose_b=True):
        return None
    before: list[Node] = []
    node = last
    while len(before) <= _LONGEST:
        readers = {reader for reader, _ in node.output.uses}
        if readers and all(isinstance(reader.op, MatMul) for reader in readers):
            return SlopesOfScores(*found, normal, tuple(before)), node.output
        following = _only_reader(node)
        if following is None or not following.op.elementwise or len(following.outputs) > 1:
            return None
        if following.output.type.shape != node.output.type.shape:
            return None
        before.append(following)
        node = following
    return None


def _operand_of(node: Node, slopes: Value, scores: Node) -> str:
    """Whose gradient a product with that of the scores is: "q", "k", or "" if neither's."""
    (q, k), transposed = scores.inputs, scores.op.transpose_b
    left, right = node.inputs
    if left is slopes and right is k and node.op == MatMul(transpose_b=not transposed):
        return "q"
    operands = (slopes, q) if transposed else (q, slopes)
    if (left, right) == operands and node.op == MatMul(transpose_a=True):
        return "k"
    return ""
