"""The verifier: every invariant of a program, checked after every pass.

A broken program is a bug of ours, so it raises `VerifyError`, an InternalError. The message quotes the node, where it
came from, and the lines around it:

    program `infer` is broken: operand 0 of `add` is read before it is defined
      --> node `Add_7`
        %a: f32[2] = relu(%x)
        %b: f32[2] = add(%c, %a) @"Add_7"
                         ^^
        %c: f32[2] = exp(%x)
"""

from __future__ import annotations

import enum
from collections import Counter

from edgec.graph.attributes import declared_types, is_of_type, type_text
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops import ALL_OPS
from edgec.graph.text import leaf_text, node_text
from edgec.graph.types import DType, TensorType


class Phase(enum.Enum):
    """What a program has been through; later ones forbid what earlier passes must have removed."""

    IMPORTED = "imported"
    SPECIALISED = "specialised"
    DIFFERENTIATED = "differentiated"
    OPTIMISED = "optimised"


# Gradients and updates come of differentiation alone: a model that brings them could not be differentiated. Not among
# them is conv2d_input_grad: as a forward op it is the transposed convolution, and it has a gradient.
_BACKWARD = frozenset(
    {
        "accumulate",
        "adam_update",
        "avg_pool2d_grad",
        "bias_correction",
        "clip_grad",
        "compress",
        "conv2d_weight_grad",
        "decompress",
        "cum_prod_grad",
        "gate_by_bits",
        "gather_nd_grad",
        "hard_sigmoid_grad",
        "hard_swish_grad",
        "layer_norm_grad",
        "lion_update",
        "inside_bits",
        "max_pool2d_grad",
        "max_pool2d_positions",
        "norm_param_grad",
        "relu_grad",
        "rms_norm_grad",
        "sgd_update",
        "sigmoid_grad",
    }
)

# The ops that may not occur, by phase. Batch norm is folded, dead or live, before gradients are derived.
FORBIDDEN: dict[Phase, frozenset[str]] = {
    Phase.IMPORTED: _BACKWARD,
    Phase.SPECIALISED: _BACKWARD | {"batch_norm"},
    Phase.DIFFERENTIATED: frozenset({"batch_norm"}),
    Phase.OPTIMISED: frozenset({"batch_norm", "batch_norm_train"}),
}

_NEIGHBOURS = 2  # lines quoted on either side


class VerifyError(InternalError):
    """A program breaks an invariant."""


def verify_module(module: Module, phase: Phase | None = None) -> None:
    """Every program, and that programs agree on the params and states that they share by name. VerifyError."""
    shared: dict[str, tuple[str, Value]] = {}
    for name, graph in module.programs.items():
        if graph.name != name:
            raise VerifyError(f"program `{graph.name}` stands in the module as `{name}`")
        verify_graph(graph, phase)
        for leaf in (*graph.by_role(Role.PARAM), *graph.by_role(Role.STATE)):
            owner, twin = shared.setdefault(leaf.name, (name, leaf))
            if (twin.type, twin.role) != (leaf.type, leaf.role):
                raise VerifyError(
                    f"programs `{owner}` and `{name}` disagree on a leaf that they share:\n"
                    f"    {leaf_text(twin)}\n    {leaf_text(leaf)}"
                )


def verify_graph(graph: Graph, phase: Phase | None = None) -> None:
    """All invariants of one program; with `phase`, also which ops may occur in it. VerifyError."""
    _Verifier(graph).check(phase)


class _Verifier:
    def __init__(self, graph: Graph):
        self._graph = graph
        self._defined: set[Value] = set()

    def check(self, phase: Phase | None) -> None:
        for name, leaf in self._graph.leaves.items():
            self._leaf(name, leaf)
        for node in self._graph.nodes:
            self._node(node)
        self._names()
        self._uses()
        self._results()
        if phase is not None:
            self._legality(phase)

    # -- errors -----------------------------------------------------------------------------------------------------

    def _fail(self, problem: str) -> VerifyError:
        return VerifyError(f"program `{self._graph.name}` is broken: {problem}")

    def _fail_leaf(self, leaf: Value, problem: str) -> VerifyError:
        return self._fail(f"{problem}\n    {leaf_text(leaf)}")

    def _fail_node(
        self, node: Node, problem: str, *, operand: int | None = None, result: int | None = None
    ) -> VerifyError:
        """Points at an operand or result of the node, by number, or at the op's name."""
        nodes = self._graph.nodes
        at = next(i for i, other in enumerate(nodes) if other is node)
        lines = [problem]
        if node.source:
            lines.append(f"  --> node `{node.source}`")
        first = max(0, at - _NEIGHBOURS)
        for index, other in enumerate(nodes[first : at + _NEIGHBOURS + 1], first):
            line = node_text(other)
            lines.append(f"    {line.text}")
            if index == at:
                start, end = line.op
                if operand is not None:
                    start, end = line.operands[operand]
                elif result is not None:
                    start, end = line.results[result]
                lines.append(f"    {' ' * start}{'^' * max(1, end - start)}")
        return self._fail("\n".join(lines))

    # -- checks -----------------------------------------------------------------------------------------------------

    def _leaf(self, name: str, leaf: Value) -> None:
        if leaf.name != name:
            raise self._fail_leaf(leaf, f"leaf `{leaf.name}` is listed as `{name}`")
        if leaf.role is None:
            raise self._fail_leaf(leaf, f"leaf `{name}` has no role")
        if leaf.producer is not None:
            raise self._fail_leaf(leaf, f"leaf `{name}` has a producer")
        if leaf.trainable and leaf.role is not Role.PARAM:
            raise self._fail_leaf(leaf, f"leaf `{name}` is trainable, but no param")
        if leaf.role is Role.SCALAR and (leaf.type.shape or leaf.type.dtype not in (DType.F32, DType.I32)):
            raise self._fail_leaf(leaf, f"scalar `{name}` is neither f32[] nor i32[]")
        if leaf.data is None:
            if leaf.role is Role.CONSTANT:
                raise self._fail_leaf(leaf, f"constant `{name}` has no data")
        elif leaf.role in (Role.INPUT, Role.SCALAR):
            raise self._fail_leaf(leaf, f"{leaf.role.value} `{name}` has data")
        elif (leaf.data.dtype, leaf.data.shape) != (leaf.type.dtype.numpy, leaf.type.shape):
            held = f"{leaf.data.dtype}{list(leaf.data.shape)}"
            raise self._fail_leaf(leaf, f"the data of `{name}` is {held}, its type {leaf.type}")
        if leaf.bounds is not None and (leaf.role not in (Role.INPUT, Role.SCALAR) or leaf.type.dtype.is_float):
            raise self._fail_leaf(leaf, f"`{name}` has bounds and is no input or scalar of integers")
        self._defined.add(leaf)

    def _node(self, node: Node) -> None:
        self._operands(node)
        self._attributes(node)
        for index, value in enumerate(node.outputs):
            if value.producer is not node or value.index != index or value.role is not None:
                problem = f"result {index} of `{node.op.name}` is not linked to its node"
                raise self._fail_node(node, problem, result=index)
            if value in self._defined:
                problem = f"result {index} of `{node.op.name}` is defined twice"
                raise self._fail_node(node, problem, result=index)
            self._defined.add(value)
        self._types(node)

    def _operands(self, node: Node) -> None:
        for slot, value in enumerate(node.inputs):
            if value in self._defined:
                continue
            later = any(value is result for other in self._graph.nodes for result in other.outputs)
            problem = "is read before it is defined" if later else "belongs to no node or leaf of the program"
            raise self._fail_node(node, f"operand {slot} of `{node.op.name}` {problem}", operand=slot)

    def _attributes(self, node: Node) -> None:
        if type(node.op) not in ALL_OPS:
            raise self._fail_node(node, f"`{node.op.name}` is not in ALL_OPS")
        for name, declared in declared_types(type(node.op)).items():
            value = getattr(node.op, name)
            if not is_of_type(value, declared):
                held = f"{value!r}, a {type(value).__name__}"
                problem = f"attribute {name} of `{node.op.name}` is {held}, and not {type_text(declared)}"
                raise self._fail_node(node, problem)

    def _types(self, node: Node) -> None:
        try:
            inferred = node.op.infer(*(value.type for value in node.inputs))
        except UserError as error:
            raise self._fail_node(node, f"`{node.op.name}` does not type-check: {error.message}") from error
        stated: tuple[TensorType, ...] = tuple(value.type for value in node.outputs)
        if inferred != stated:
            texts = (", ".join(map(str, types)) for types in (inferred, stated))
            problem = f"`{node.op.name}` gives {next(texts)}, the program says {next(texts)}"
            wrong = next((i for i, (t, u) in enumerate(zip(inferred, stated, strict=False)) if t != u), None)
            raise self._fail_node(node, problem, result=wrong)

    def _names(self) -> None:
        for name, count in Counter(value.name for value in self._graph.values()).items():
            if count > 1:
                raise self._fail(f"{count} values are called `{name}`")
            if self._graph.fresh_name(name) == name:
                raise self._fail(f"the program does not know the name `{name}` as taken")

    def _uses(self) -> None:
        readers = {(value, node, slot) for node in self._graph.nodes for slot, value in enumerate(node.inputs)}
        uses = [(value, node, slot) for value in self._graph.values() for node, slot in value.uses]
        recorded = set(uses)
        for value, node, slot in readers - recorded:
            problem = f"`{value.name}` does not know that it is operand {slot} of `{node.op.name}`"
            raise self._fail_node(node, problem, operand=slot)
        wrong = recorded - readers if len(uses) == len(recorded) else Counter(uses) - Counter(readers)
        for value, node, slot in wrong:
            raise self._fail(f"`{value.name}` believes to be operand {slot} of `{node_text(node).text}`, and is not")

    def _results(self) -> None:
        graph = self._graph
        for name, value in graph.outputs.items():
            if value not in self._defined:
                raise self._fail(f"output `{name}` is {value}, which the program does not define")
        for name, count in graph.counts.items():
            if name not in graph.outputs or count.name not in graph.outputs:
                raise self._fail(f"output `{name}` is counted by `{count.name}`, and one of them is no output")
            if not 0 <= count.axis < graph.outputs[name].type.rank:
                raise self._fail(f"output `{name}` is counted along axis {count.axis}, which it lacks")
            if graph.outputs[count.name].type != TensorType(DType.I64, ()):
                raise self._fail(f"`{count.name}` counts and is {graph.outputs[count.name].type}, not i64[]")
        for leaf, value in graph.updates.items():
            if leaf not in self._defined or leaf.role not in (Role.PARAM, Role.STATE):
                raise self._fail(f"`{leaf.name}` is updated and is neither param nor state of the program")
            if leaf.role is Role.PARAM and not leaf.trainable:
                raise self._fail_leaf(leaf, f"`{leaf.name}` is updated and is not trainable")
            if value not in self._defined:
                raise self._fail(f"the update of `{leaf.name}` is {value}, which the program does not define")
            if value.type != leaf.type:
                raise self._fail(f"the update of `{leaf.name}` is {value}, the leaf {leaf.type}")
        for what, name in (("loss", graph.loss), ("guarded", graph.guard)):
            if name is not None:
                if name not in graph.outputs:
                    raise self._fail(f"the {what} `{name}` is no output")
                kind = graph.outputs[name].type
                if kind.shape or not kind.dtype.is_float:
                    raise self._fail(f"the {what} `{name}` is {kind}, not one float")

    def _legality(self, phase: Phase) -> None:
        for node in self._graph.nodes:
            if node.op.name in FORBIDDEN[phase]:
                raise self._fail_node(node, f"`{node.op.name}` may not occur in a program that is {phase.value}")
