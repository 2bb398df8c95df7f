"""Computing a chain of nodes in strips of rows, so that no value inside of it is ever whole in memory.

A chain is what a run of scheduled groups computes, of ops that `row_rules` knows. Its results, the values that others
read, are made strip by strip; every strip takes the rows of the chain's operands that it depends on, computes all nodes
on them with the padding that is left there, and hands out its rows of the results. What neighbouring strips both need
of a value inside is computed for each of them: the price, in multiply-adds. Chains of several images are cut into
images first, which costs nothing. In the graph this is the same ops on slices, and concatenations of what they give;
`place_parts` sees that neither moves a byte.

Patch by patch inference: Lin et al., "MCUNetV2: memory-efficient patch-based inference for tiny deep learning",
arXiv:2110.15352.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from edgec.compiler.row_rules import IMAGES, ROWS, RowRule, Rows, row_rule, with_padding
from edgec.graph.ir import Graph, Node, Value
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.slice import Slice

MOST_PARTS = 16  # of a concatenation: should it need a kernel after all, that has so many operands


@dataclass(frozen=True)
class Tiling:
    """A chain, by the names of what its nodes compute, and its strips: so many images and rows of its last value."""

    values: tuple[str, ...]
    images: int
    rows: int


@dataclass(frozen=True)
class Strip:
    """What one strip computes and hands out: rows by value. `reads` are those of operands, by node and slot."""

    computed: dict[Value, Rows]
    handed_out: dict[Value, Rows]
    reads: dict[tuple[Node, int], Rows]
    padding: dict[Node, Rows]


class Chain:
    """Nodes that can be computed in strips, in order. Use `chain_of`, which knows whether they can."""

    def __init__(self, nodes: tuple[Node, ...], rules: dict[Node, RowRule], results: Collection[Value]):
        self.nodes, self.rules = nodes, rules
        made = {node.output: node for node in nodes}
        self.exits = [v for v in made if v in results or any(reader not in rules for reader, _ in v.uses)]
        operands = dict.fromkeys(
            value
            for node in nodes
            for value, read in zip(node.inputs, rules[node].reads, strict=True)
            if read.rows and value not in made
        )
        self.entries = list(operands)
        self.last = nodes[-1].output
        self._inner = made.keys()

    @property
    def images(self) -> int:
        return self.last.type.shape[IMAGES]

    @property
    def height(self) -> int:
        return self.last.type.shape[ROWS]

    def strips(self, rows: int) -> list[Strip] | None:
        """The strips of one image, `rows` rows of the last value each, from the top; None where one of them would
        see nothing but padding.
        """
        strips: list[Strip] = []
        done = dict.fromkeys(self.exits, 0)
        for top in range(0, self.height, rows):
            strip = self._strip(min(top + rows, self.height), done)
            if strip is None:
                return None
            done |= {value: rows[1] for value, rows in strip.handed_out.items()}
            strips.append(strip)
        return strips

    def middle(self, rows: int) -> Strip | None:
        """The strip in the middle of `strips(rows)`, which has neighbours on both sides if any has."""
        count = -(-self.height // rows)
        done = dict.fromkeys(self.exits, 0)
        if count // 2:
            above = self._strip(count // 2 * rows, done)
            if above is None:
                return None
            done |= {value: rows[1] for value, rows in above.handed_out.items()}
        return self._strip(min((count // 2 + 1) * rows, self.height), done)

    def _strip(self, bottom: int, done: dict[Value, int]) -> Strip | None:
        """The strip that ends at row `bottom` of the last value; exits were handed out up to the rows in `done`."""
        needed: dict[Value, Rows] = {}
        strip = Strip({}, {}, {}, {})
        for node in reversed(self.nodes):
            value, rule = node.output, self.rules[node]
            rows = needed.get(value)
            if value in done:
                rows = self._hand_out(strip, value, rows, done[value], bottom)
            if rows is None:
                continue
            strip.computed[value] = rows
            for slot, read in enumerate(rule.reads):
                if not read.rows:
                    continue
                operand = node.inputs[slot]
                wanted, strip.padding[node] = rule.rows_read(rows, operand.type.shape[ROWS])
                if wanted[0] >= wanted[1]:
                    return None
                strip.reads[node, slot] = wanted
                needed[operand] = _hull(needed.get(operand), wanted)
        return strip

    def _hand_out(self, strip: Strip, value: Value, rows: Rows | None, done: int, bottom: int) -> Rows | None:
        """Note which rows of an exit come with this strip: what it computes of them anyway, and all in the last one."""
        height = value.type.shape[ROWS]
        if bottom == self.height:
            end = height
        elif any(reader in self.rules for reader, _ in value.uses):
            end = rows[1] if rows is not None else done
        else:
            end = height * bottom // self.height
        if end <= done:
            return rows
        strip.handed_out[value] = (done, end)
        return _hull(rows, (done, end))


def _hull(a: Rows | None, b: Rows) -> Rows:
    return b if a is None else (min(a[0], b[0]), max(a[1], b[1]))


def chain_of(nodes: Collection[Node], results: Collection[Value]) -> Chain | None:
    """The chain of `nodes`, which stand in order; None where one has no row rule, is read as a whole by another, or
    they are of several numbers of images. `results` are those of the program.
    """
    rules: dict[Node, RowRule] = {}
    made: set[Value] = set()
    for node in nodes:
        rule = row_rule(node)
        if rule is None:
            return None
        for value, read in zip(node.inputs, rule.reads, strict=True):
            if value in made and not read.rows:
                return None
        rules[node] = rule
        made.add(node.output)
    if len({value.type.shape[IMAGES] for value in made}) != 1:
        return None
    return Chain(tuple(nodes), rules, results)


@dataclass
class Tiled:
    """The nodes that take the place of a chain: `seams` cut and join, `copies` are those of each old node."""

    seams: set[Node] = field(default_factory=set)
    copies: dict[Node, list[Node]] = field(default_factory=dict)


def tile(graph: Graph, chain: Chain, images: int, rows: int) -> Tiled:
    """Compute `chain` in strips of `images` images and `rows` rows of its last value. Names of results stay."""
    return _Tiler(graph, chain).run(images, rows)


class _Tiler:
    def __init__(self, graph: Graph, chain: Chain):
        self.graph, self.chain = graph, chain
        self.tiled = Tiled(copies={node: [] for node in chain.nodes})
        self.added: list[Node] = []

    def run(self, images: int, rows: int) -> Tiled:
        graph, chain = self.graph, self.chain
        strips = chain.strips(rows)
        assert strips is not None  # whoever chose the rows has looked
        old = list(graph.nodes)
        parts: dict[Value, list[Value]] = {value: [] for value in chain.exits}
        for first in range(0, chain.images, images):
            span = (first, min(first + images, chain.images))
            pieces: dict[Value, list[Value]] = {value: [] for value in chain.exits}
            for strip in strips:
                for value, piece in self._strip(strip, span):
                    pieces[value].append(piece)
            for value, of_images in pieces.items():
                parts[value].append(self._join(of_images, ROWS, value))
        joined = {value: self._join(of_all, IMAGES, value) for value, of_all in parts.items()}
        graph.nodes = _ordered(old, set(chain.nodes), self.added)
        for value, whole in joined.items():
            graph.replace_uses(value, whole)
        names = {value: value.name for value in joined}
        graph.remove_all(chain.nodes)
        for value, whole in joined.items():
            graph.rename(whole, names[value])
        return self.tiled

    def _emit(self, node: Node) -> Node:
        self.added.append(node)
        return node

    def _strip(self, strip: Strip, images: Rows) -> Iterator[tuple[Value, Value]]:
        """Emit the nodes of one strip; the exits with their part in it."""
        made: dict[Value, Value] = {}
        cuts: dict[tuple[Value, Rows | None, bool], Value] = {}

        def operand(node: Node, slot: int) -> Value:
            value, read = node.inputs[slot], self.chain.rules[node].reads[slot]
            rows = strip.reads.get((node, slot)) if read.rows else None
            if value in made:
                return self._cut(made[value], rows, strip.computed[value][0], None)
            key = (value, rows, read.images)
            if key not in cuts:
                cuts[key] = self._cut(value, rows, 0, images if read.images else None)
            return cuts[key]

        nodes = [node for node in self.chain.nodes if node.output in strip.computed]
        inner = {node.output for node in nodes}
        for node in nodes:  # what comes from outside first, so that no result waits for it
            for slot, value in enumerate(node.inputs):
                if value not in inner:
                    operand(node, slot)
        for node in nodes:
            op = with_padding(node.op, strip.padding.get(node, (0, 0)))
            inputs = [operand(node, slot) for slot in range(len(node.inputs))]
            name = f"{node.output.name}.rows{strip.computed[node.output][0]}"
            made[node.output] = self.graph.emit1(op, *inputs, name=name, source=node.source)
            self.tiled.copies[node].append(self._emit(made[node.output].producer))
        for value, rows in strip.handed_out.items():
            yield value, self._cut(made[value], rows, strip.computed[value][0], None)

    def _cut(self, value: Value, rows: Rows | None, first: int, images: Rows | None) -> Value:
        """Rows and images of `value`, which begins at row `first`; itself where that is all of it."""
        shape = value.type.shape
        starts, ends = [0] * len(shape), list(shape)
        if rows is not None:
            starts[ROWS], ends[ROWS] = rows[0] - first, rows[1] - first
        if images is not None:
            starts[IMAGES], ends[IMAGES] = images
        if not any(starts) and tuple(ends) == shape:
            return value
        cut = self.graph.emit1(Slice(tuple(starts), tuple(ends), (1,) * len(shape)), value)
        self.tiled.seams.add(self._emit(cut.producer))
        return cut

    def _join(self, parts: list[Value], axis: int, value: Value) -> Value:
        if len(parts) == 1:
            return parts[0]
        if len(parts) > MOST_PARTS:
            runs = [parts[i : i + MOST_PARTS] for i in range(0, len(parts), MOST_PARTS)]
            return self._join([self._join(run, axis, value) for run in runs], axis, value)
        whole = self.graph.emit1(Concat(axis), *parts, source=value.producer.source)
        self.tiled.seams.add(self._emit(whole.producer))
        return whole


def _ordered(nodes: list[Node], chain: set[Node], added: list[Node]) -> list[Node]:
    """`nodes` with `added` for `chain`; of those that stood between nodes of the chain, what depends on it comes after
    and the rest before.
    """
    places = [place for place, node in enumerate(nodes) if node in chain]
    first, last = places[0], places[-1] + 1
    behind, before = set(chain), []
    for node in nodes[first:last]:
        if any(value.producer in behind for value in node.inputs):
            behind.add(node)
        elif node not in chain:
            before.append(node)
    after = [node for node in nodes[first:last] if node in behind and node not in chain]
    middle = [node for node in nodes[first:last] if node in chain]
    return [*nodes[:first], *before, *middle, *added, *after, *nodes[last:]]
