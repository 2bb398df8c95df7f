"""ONNX model to graph: walks the nodes in order, folds what is known, converts the rest, collects what it cannot."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgec.frontend.onnx.context import MAX_ELEMENTS, Context, Entry, Known, Results, initializer
from edgec.frontend.onnx.expand import function_body, is_function
from edgec.frontend.onnx.model import Body, Model, Node, Opaque, Unsupported
from edgec.frontend.onnx.ops import CONTROL_FLOW, CONVERTERS, data_dependent, refusal
from edgec.frontend.onnx.reader import Source, read_model
from edgec.frontend.onnx.shapes import Shape, bind_shapes
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.types import TensorType


def read_onnx(source: Source, *, shapes: Mapping[str, Shape] | None = None, batch: int | None = None) -> Module:
    """Import an ONNX model (path, bytes or `ModelProto`) as a module with the program `infer`.

    `shapes` binds inputs by name; `batch` sets the leading dimensions that stay dynamic. Inputs, outputs and parameters
    keep their ONNX names; a parameter has the shape of its initializer, whose data it shares.

    UserError: E0101, E0102, E0106, E0107 for the file, E0104 and E0105 for shapes, E0103 for everything that cannot be
    imported, in one list, and E0201 for operands that do not fit one another.
    """
    model = read_model(source)
    _check_inputs(model)
    return Module({"infer": _Importer(model, bind_shapes(model.inputs, shapes or {}, batch, model.label)).run()})


@dataclass(frozen=True)
class _Problem:
    node: Node
    code: str
    reason: str

    def __str__(self) -> str:
        return f"  `{self.node.label}` ({self.node.op}, opset {self.node.opset}): {self.reason}"


class _Importer:
    def __init__(self, model: Model, shapes: Mapping[str, Shape]):
        self.model = model
        self.nodes = needed(model.nodes, model.outputs)
        self.graph = Graph("infer")
        names = {name for node in model.nodes for name in (*node.inputs, *node.outputs)}
        self.ctx = Context(self.graph, names.union(model.initializers, shapes))
        self.problems: list[_Problem] = []
        self.lost: set[str] = set()  # outputs of nodes that failed: what reads them is not judged
        for item in model.inputs:
            if math.prod(shapes[item.name]) > MAX_ELEMENTS:
                message = f"input {item} would have more than {MAX_ELEMENTS} elements"
                raise UserError("E0103", message, where=model.label)
            leaf = self.graph.add_leaf(Role.INPUT, item.name, TensorType(item.dtype, shapes[item.name]))
            self.ctx.entries[item.name] = leaf

    def run(self) -> Graph:
        for node in self.nodes:
            self._load_inputs(node)
            self._import(node)
        if self.problems:
            raise _listed(self.problems, self.model.label)
        for name in self.model.outputs:
            self._load(name, f"output `{name}`")
            try:
                self.graph.outputs[name] = self.ctx.result(name)
            except Unsupported as error:
                raise UserError("E0103", f"output `{name}`: {error}", where=self.model.label) from None
        _remove_dead(self.graph)
        return self.graph

    def _load_inputs(self, node: Node) -> None:
        for name in sorted(node.reads, key=str):  # damaged names are bytes
            if name not in self.lost:
                self._load(name, f"node `{node.label}`")

    def _load(self, name: str, reader: str) -> None:
        """Make sure that `name` has an entry: initializers get theirs when they are first read."""
        if name in self.ctx.entries:
            return
        if name not in self.model.initializers:
            message = f"{reader} reads `{name}`, which nothing before it defines"
            raise UserError("E0102", message, where=self.model.label)
        self.ctx.entries[name] = initializer(name, self.model.initializers[name])

    def _import(self, node: Node) -> None:
        for name in node.outputs:
            if name in self.ctx.entries or name in self.lost:
                raise UserError("E0102", f"`{name}` is defined twice", where=f"{self.model.label}: node `{node.label}`")
        if refusal(node) is None and not self.lost.isdisjoint(node.reads):
            self.lost.update(node.outputs)
            return
        try:
            self._convert_and_bind(node)
            return
        except Unsupported as error:
            self.problems.append(_Problem(node, "E0103", str(error)))
        except UserError as error:
            reason = error.message if error.hint is None else f"{error.message} ({error.hint})"
            self.problems.append(_Problem(node, error.code, reason))
        self.lost.update(node.outputs)

    def _convert_and_bind(self, node: Node) -> None:
        made = len(self.graph.nodes)
        self._bind(node, self._convert(node), {v for n in self.graph.nodes[made:] for v in n.outputs})

    def _convert(self, node: Node) -> Results:
        reason = refusal(node)
        if reason is not None:
            raise Unsupported(reason)
        if not node.domain:
            folded = self.ctx.fold(node)
            if folded is not None:
                return folded
            if node.op in CONTROL_FLOW:
                return CONTROL_FLOW[node.op](self.ctx, node, self._run_body)
            if node.op in CONVERTERS:
                converted = CONVERTERS[node.op](self.ctx, node)
                return converted if isinstance(converted, tuple) else (converted,)
        if is_function(node):
            types = [self.ctx.type(node, i) if name else None for i, name in enumerate(node.inputs)]
            return self._run_body(function_body(node, types), {})
        raise Unsupported(data_dependent(node) or "supported only on values that are known at compile time")

    def _run_body(self, body: Body, given: Mapping[str, Entry]) -> Results:
        """Import the nodes of a body in a scope of its own, its inputs standing for `given`; its outputs."""
        with self.ctx.scope(given):
            for name, array in body.initializers.items():
                self.ctx.entries[name] = array if isinstance(array, Opaque) else Known(array)
            for node in needed(body.nodes, body.outputs):
                self.ctx.count_node()
                for name in node.reads:
                    if name not in self.ctx.entries:
                        raise Unsupported(f"`{node.label}` inside it reads `{name}`, which nothing before it defines")
                try:
                    self._convert_and_bind(node)
                except Unsupported as error:
                    raise Unsupported(f"`{node.op}` inside it: {error}") from None
            return tuple(self.ctx.read(name) for name in body.outputs)

    def _bind(self, node: Node, results: Results, made: set[Value]) -> None:
        """Give the results their names. Values `made` for this node take them, an alias keeps the one it has."""
        for index, name in enumerate(node.outputs):
            if not name:
                continue
            if index >= len(results):
                what = f"output {index} of `{node.label}` ({node.op}), which edgec does not compute"
                self.ctx.entries[name] = Opaque(what)
                continue
            self.ctx.entries[name] = results[index]
            if results[index] in made and self.graph.fresh_name(name) == name:
                self.graph.rename(results[index], name)


def _check_inputs(model: Model) -> None:
    lines = [f"  input `{item.name}`: {item.dtype.what}" for item in model.inputs if isinstance(item.dtype, Opaque)]
    if lines:
        raise UserError(
            "E0103", "\n".join(["the model has inputs that cannot be imported:", *lines]), where=model.label
        )


def needed(nodes: Sequence[Node], outputs: Collection[str]) -> list[Node]:
    """The nodes that the outputs depend on, in order: what is left over from training need not be importable."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(name for name in node.outputs if name):
            wanted |= node.reads
            kept.append(node)
    return kept[::-1]


def _listed(problems: list[_Problem], label: str) -> UserError:
    """E0103 with every problem; E0201 if all operators are known and only operands do not fit."""
    code = "E0103" if any(problem.code == "E0103" for problem in problems) else "E0201"
    what = "that cannot be imported" if code == "E0103" else "with operands that do not fit"
    count = "1 node" if len(problems) == 1 else f"{len(problems)} nodes"
    hint = "check the given shapes: the model may be made for one size" if code == "E0201" else None
    return UserError(code, "\n".join([f"the model has {count} {what}:", *map(str, problems)]), where=label, hint=hint)


def _remove_dead(graph: Graph) -> None:
    """Drop what only shape arithmetic read."""
    alive = graph.ancestors(graph.results())
    graph.remove_all([node for node in graph.nodes if node not in alive])
    for leaf in [*graph.by_role(Role.PARAM), *graph.by_role(Role.CONSTANT)]:
        if not leaf.uses and not graph.is_result(leaf):
            graph.remove_leaf(leaf)
