"""ONNX model to graph: walks the nodes in order, folds what is known, converts the rest, collects what it cannot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edgec.frontend.onnx.context import (
    DEPENDS_ON_DATA,
    KNOWN_AT_COMPILE_TIME,
    LOST,
    MAX_ELEMENTS,
    Context,
    Counted,
    Entry,
    ExhaustedError,
    Known,
    LostError,
    Results,
    initializer,
)
from edgec.frontend.onnx.counted import on_counted
from edgec.frontend.onnx.evaluate import evaluated
from edgec.frontend.onnx.expand import function_body, is_function
from edgec.frontend.onnx.functions import called
from edgec.frontend.onnx.model import Body, Function, Model, Node, Opaque, Sparse, Unsupported
from edgec.frontend.onnx.ops import CONTROL_FLOW, converter, data_dependent, refusal
from edgec.frontend.onnx.reader import NEWEST_OPSET, Source, read_model
from edgec.frontend.onnx.shapes import Shape, bind_shapes, bind_values
from edgec.frontend.onnx.upgrade import OLDEST_OPSET
from edgec.graph.errors import UserError
from edgec.graph.ir import Count, Graph, Module, Role, SourceTensor, Value
from edgec.graph.types import TensorType

MAX_DEPTH = 50  # of functions and bodies inside one another


def read_onnx(
    source: Source,
    *,
    shapes: Mapping[str, Shape] | None = None,
    batch: int | None = None,
    values: Mapping[str, ArrayLike] | None = None,
) -> Module:
    """Import an ONNX model (path, bytes or `ModelProto`) as a module with the program `infer`.

    `shapes` binds inputs by name; `batch` sets the leading dimensions that stay dynamic. Inputs, outputs and parameters
    keep their ONNX names; a parameter has the shape of its initializer, whose data it shares. `values` are inputs that
    never change (a sampling rate, a mode): the program does not have them.

    UserError: E0101, E0102, E0106, E0107 for the file, E0104 and E0105 for shapes and values, E0103 for everything that
    cannot be imported, in one list, and E0201 for operands that do not fit one another.
    """
    model = read_model(source)
    _check_inputs(model)
    fixed = bind_values(model.inputs, values or {}, model.label)
    given = {name: array.shape for name, array in fixed.items()} | dict(shapes or {})
    graph = _Importer(model, bind_shapes(model.inputs, given, batch, model.label), fixed).run()
    parameters = graph.by_role(Role.PARAM)
    return Module({"infer": graph}, {leaf.name: SourceTensor(leaf.data, leaf.name) for leaf in parameters})


_NAMELESS = Opaque("an output without a name")


@dataclass(frozen=True)
class _Problem:
    node: Node
    outer: tuple[Node, ...]  # those whose bodies it stands in
    code: str
    reason: str

    def __str__(self) -> str:
        inside = f" in `{self.outer[-1].label}` ({self.outer[-1].op})" if self.outer else ""
        return f"  `{self.node.label}` ({self.node.op}, opset {self.node.opset}){inside}: {self.reason}"

    def to_json(self) -> dict[str, str | int]:
        record = {"node": self.node.label, "op": self.node.op, "opset": self.node.opset, "reason": self.reason}
        return record | ({"inside": self.outer[-1].label} if self.outer else {})


class _Importer:
    def __init__(self, model: Model, shapes: Mapping[str, Shape], fixed: Mapping[str, np.ndarray]):
        self.model = model
        self.nodes = needed(model.nodes, model.outputs)
        self.graph = Graph("infer")
        names = {name for node in model.nodes for name in (*node.inputs, *node.outputs)}
        self.ctx = Context(self.graph, names.union(model.initializers, shapes))
        self.path: list[Node] = []  # the nodes being imported, each inside a body of the one before it
        self.counted: dict[str, Counted] = {}  # outputs whose extent depends on data
        self.problems: dict[str, _Problem] = {}  # by their text: a loop meets each of its own many times
        self.ctx.entries.update({name: Known(array) for name, array in fixed.items()})
        for item in model.inputs:
            if item.name in fixed:
                continue
            if math.prod(shapes[item.name]) > MAX_ELEMENTS:
                message = f"input {item} would have more than {MAX_ELEMENTS} elements"
                raise UserError("E0103", message, where=model.label)
            leaf = self.graph.add_leaf(Role.INPUT, item.name, TensorType(item.dtype, shapes[item.name]))
            self.ctx.entries[item.name] = leaf

    def run(self) -> Graph:
        try:
            for node in self.nodes:
                for name in sorted(node.reads):
                    self._load(name, f"node `{node.label}`")
                self._import(node)
        except ExhaustedError as error:
            self._note(_Problem(self.path[0], (), "E0103", str(error)))
        if self.problems:
            raise _listed(list(self.problems.values()), self.model)
        for name in self.model.outputs:
            self._load(name, f"output `{name}`")
            try:
                self.graph.outputs[name] = self._result(name)
            except Unsupported as error:
                raise UserError("E0103", f"output `{name}`: {error}", where=self.model.label) from None
            if name in self.graph.leaves and self.graph.leaves[name].role is Role.INPUT:
                message = f"output `{name}` is an input of the model, which gives nothing back"
                hint = "remove it from the outputs"
                raise UserError("E0103", message, where=self.model.label, hint=hint)
        for name, entry in self.counted.items():
            self._count(name, entry)
        _remove_dead(self.graph)
        return self.graph

    def _result(self, name: str) -> Value:
        entry = self.ctx.entries[name]
        if isinstance(entry, Counted):
            self.counted[name] = entry
            return entry.value
        value = self.ctx.result(name)
        if value.role is Role.INPUT and not value.type.size:  # it comes back as it is: there is nothing in it
            return self.graph.constant(np.zeros(value.type.shape, value.type.dtype.numpy), name)
        return value

    def _count(self, name: str, entry: Counted) -> None:
        """One more output says how much of output `name` holds results; those of one extent share it."""
        outputs = self.graph.outputs
        known = (count.name for count in self.graph.counts.values() if outputs[count.name] is entry.count)
        counter = next(known, None)
        if counter is None:
            counter = next(free for n in itertools.count() if (free := f"{name}.count{n or ''}") not in outputs)
            outputs[counter] = entry.count
        self.graph.counts[name] = Count(counter, entry.axis)

    def _load(self, name: str, reader: str) -> None:
        """Make sure that `name` has an entry: initializers get theirs when they are first read."""
        if name in self.ctx.entries:
            return
        if name not in self.model.initializers:
            message = f"{reader} reads `{name}`, which nothing before it defines"
            raise UserError("E0102", message, where=self.model.label)
        self.ctx.entries[name] = self._initializer(name, self.model.initializers[name])

    def _initializer(self, name: str, array: np.ndarray | Sparse | Opaque) -> Entry:
        if isinstance(array, Sparse):
            try:
                return self.ctx.dense(array)
            except Unsupported as error:
                return Opaque(str(error))
        return array if isinstance(array, Opaque) else initializer(name, array)

    def _import(self, node: Node) -> None:
        """Give the node's results their entries, LOST ones where it cannot be imported."""
        for name in node.outputs:
            if name and name in self.ctx.entries.maps[0]:
                where = f"{self.model.label}: node `{node.label}`"
                raise UserError("E0102", f"`{name}` is defined twice", where=where)
        outer = tuple(self.path)
        self.path.append(node)
        try:
            self._convert_and_bind(node)
        except LostError:
            self._lose(node)
        except Unsupported as error:
            self._note(_Problem(node, outer, "E0103", str(error)))
            self._lose(node)
        except UserError as error:
            if error.code == "E0102":
                raise
            reason = error.message if error.hint is None else f"{error.message} ({error.hint})"
            self._note(_Problem(node, outer, error.code, reason))
            self._lose(node)
        self.path.pop()

    def _note(self, problem: _Problem) -> None:
        self.problems.setdefault(str(problem), problem)

    def _lose(self, node: Node) -> None:
        self.ctx.entries.update((name, LOST) for name in node.outputs if name)

    def _convert_and_bind(self, node: Node) -> None:
        made = len(self.graph.nodes)
        self._bind(node, self._convert(node), {v for n in self.graph.nodes[made:] for v in n.outputs})

    def _convert(self, node: Node) -> Results:
        function = self.model.functions.get(node.function)
        reason = None if function is not None else refusal(node)
        if reason is not None:
            raise Unsupported(reason)
        if any(self.ctx.entries[name] is LOST for name in node.reads):
            raise LostError
        if function is not None:
            return self._call(node, function)
        if not node.domain:
            folded = self.ctx.fold(node)
            if folded is not None:
                return folded
            if node.op in CONTROL_FLOW:
                return CONTROL_FLOW[node.op](self.ctx, node, self._run_body)
        convert = converter(node)
        if convert is not None and any(isinstance(self.ctx.entries[name], Counted) for name in node.inputs if name):
            return on_counted(self.ctx, node, convert)
        if convert is not None:
            return evaluated(self.ctx, node, convert)
        if is_function(node):
            types = [self.ctx.type(node, i) if name else None for i, name in enumerate(node.inputs)]
            made = iter(self._run_body(function_body(node, types), {}))
            return tuple(next(made) if name else _NAMELESS for name in node.outputs)
        for index, name in enumerate(node.inputs):
            if name:
                self.ctx.entry(node, index)
        raise Unsupported(data_dependent(node) or "supported only on values that are known at compile time")

    def _call(self, node: Node, function: Function) -> Results:
        """The results of a function of the model's own."""
        if any(outer.function == node.function for outer in self.path[:-1]):
            raise Unsupported("the function calls itself")
        if not OLDEST_OPSET <= function.opset <= NEWEST_OPSET:
            known = f"{OLDEST_OPSET} to {NEWEST_OPSET}"
            raise Unsupported(f"the function has opset {function.opset}; in functions edgec imports {known}")
        body = called(function, node)
        given = [self.ctx.entries[name] for name in node.inputs if name]
        with self.ctx.call(dict(zip(body.inputs, given, strict=True))):
            return self._results(body)

    def _run_body(self, body: Body, given: Mapping[str, Entry]) -> Results:
        """Import the nodes of a body in a scope of its own, its inputs standing for `given`; its outputs."""
        with self.ctx.scope(given):
            for name, array in body.initializers.items():
                known = isinstance(array, np.ndarray)
                self.ctx.entries[name] = Known(array) if known else self._initializer(name, array)
            return self._results(body)

    def _results(self, body: Body) -> Results:
        if len(self.path) > MAX_DEPTH:
            raise Unsupported(f"functions and bodies are nested more than {MAX_DEPTH} deep")
        for node in needed(body.nodes, body.outputs):
            self.ctx.count_node()
            for name in sorted(node.reads):
                self._check_defined(name, f"node `{node.label}`")
            self._import(node)
        for name in body.outputs:
            self._check_defined(name, f"output `{name}`")
        return tuple(self.ctx.entries[name] for name in body.outputs)

    def _check_defined(self, name: str, reader: str) -> None:
        if name not in self.ctx.entries:
            where = f"{self.model.label}: inside node `{self.path[-1].label}`"
            raise UserError("E0102", f"{reader} reads `{name}`, which nothing before it defines", where=where)

    def _bind(self, node: Node, results: Results, made: set[Value]) -> None:
        """Give the results their names. Values `made` for this node take them, an alias keeps the one it has."""
        for index, name in enumerate(node.outputs):
            if not name:
                continue
            if index >= len(results):
                what = f"output {index} of `{node.label}` ({node.op}), which edgec does not compute"
                self.ctx.entries[name] = Opaque(what)
                continue
            self.ctx.entries[name] = result = results[index]
            value = result.value if isinstance(result, Counted) else result
            if value in made and self.graph.fresh_name(name) == name:
                self.graph.rename(value, name)


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


def _listed(problems: list[_Problem], model: Model) -> UserError:
    """E0103 with every problem; E0201 if all operators are known and only operands do not fit."""
    code = "E0103" if any(problem.code == "E0103" for problem in problems) else "E0201"
    what = "that cannot be imported" if code == "E0103" else "with operands that do not fit"
    count = "1 node" if len(problems) == 1 else f"{len(problems)} nodes"
    text = "\n".join([f"the model has {count} {what}:", *map(str, problems)])
    nodes = [problem.to_json() for problem in problems]
    return UserError(code, text, where=model.label, hint=_advice(code, text, model), nodes=nodes)


def _advice(code: str, text: str, model: Model) -> str | None:
    if code == "E0201":
        return "check the given shapes: the model may be made for one size"
    # What decides structure is a switch, not data.
    switches = [item.name for item in model.inputs if item.dims is not None and all(dim == 1 for dim in item.dims)]
    if KNOWN_AT_COMPILE_TIME in text and switches:
        return f"an input that never changes can be fixed: --value {switches[0]}=NUMBER"
    if DEPENDS_ON_DATA in text:
        return "cut the model before these nodes (onnx.utils.extract_model) and run what follows where shapes may vary"
    return None


def _remove_dead(graph: Graph) -> None:
    """Drop what only shape arithmetic read."""
    alive = graph.ancestors(graph.results())
    graph.remove_all([node for node in graph.nodes if node not in alive])
    for leaf in [*graph.by_role(Role.PARAM), *graph.by_role(Role.CONSTANT)]:
        if not leaf.uses and not graph.is_result(leaf):
            graph.remove_leaf(leaf)
