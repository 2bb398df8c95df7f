"""Pass `mark_trainable`: sets `Value.trainable` on the parameters that the update scheme trains.

Statistics of a batch norm are never trained by gradients. Without a training specification nothing is trainable.

Ensures TRAINABLE_MARKED.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgec.compiler.passbase import Options
from edgec.compiler.rewrite import param_behind
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.div import Div
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sub import Sub


def mark_trainable(module: Module, options: Options) -> bool:
    graph = module.programs["infer"]
    names = set() if options.train is None else {leaf.name for leaf in _trained(graph, options.train.update)}
    changed = False
    for program in module.programs.values():
        for leaf in program.by_role(Role.PARAM):
            wanted = leaf.name in names
            changed |= leaf.trainable != wanted
            leaf.trainable = wanted
    return changed


def _trained(graph: Graph, update: str) -> set[Value]:
    """The parameters that scheme `update` names. UserError E0302, E0303."""
    candidates = _candidates(graph)
    if update == "full":
        chosen = candidates
    elif update == "head":
        chosen = _last_layers(graph, candidates, 1, update)
    elif update == "bias":
        chosen = _biases(graph) & candidates | _last_layers(graph, candidates, 1, update)
    elif update.startswith("last:"):
        chosen = _last_layers(graph, candidates, int(update.removeprefix("last:")), update)
    else:
        raise InternalError(f"update scheme {update!r} passed the check of Train")
    if not chosen:
        raise UserError("E0303", f"update {update!r}: the model has no parameter that can be trained")
    return chosen


def _candidates(graph: Graph) -> set[Value]:
    """Float parameters that the outputs depend on, without statistics."""
    statistics = {
        param_behind(value) for node in graph.nodes if isinstance(node.op, BatchNorm) for value in node.inputs[3:]
    }
    read = {value for node in graph.ancestors(graph.results()) for value in node.inputs}
    return {p for p in graph.by_role(Role.PARAM) if p.type.dtype.is_float and p in read and p not in statistics}


def _last_layers(graph: Graph, candidates: set[Value], count: int, update: str) -> set[Value]:
    """The weights of the last `count` convolutions and products, with what belongs to each."""
    live = graph.ancestors(graph.results())
    layers = [node for node in graph.nodes if node in live and _weight(node) in candidates]
    if not layers:
        raise UserError("E0303", f"update {update!r}: the model has no convolution or product with a trainable weight")
    if count > len(layers):
        raise UserError(
            "E0302", f"update {update!r}: the model has {len(layers)} layers with trainable weights", where="update"
        )
    chosen: set[Value] = set()
    for node in layers[-count:]:
        chosen |= {_weight(node), *_followers(node)} & candidates
    return chosen


def _weight(node: Node) -> Value | None:
    """The parameter that a convolution or product multiplies with."""
    if isinstance(node.op, Conv2d | Conv2dInputGrad):
        return param_behind(node.inputs[1])
    if isinstance(node.op, MatMul):
        return param_behind(node.inputs[1]) or param_behind(node.inputs[0])
    return None


def _followers(node: Node) -> Iterable[Value]:
    """Bias and scale right behind a layer, and the gamma and beta of the norm that follows, where nobody else reads."""
    value = node.output
    while len({reader for reader, _ in value.uses}) == 1:
        reader, slot = value.uses[0]
        if isinstance(reader.op, BatchNorm) and slot == 0:
            yield from filter(None, map(param_behind, reader.inputs[1:3]))
            return
        if isinstance(reader.op, Add | Sub | Mul | Div) and len(value.uses) == 1:
            other = param_behind(reader.inputs[1 - slot])
            if other is None:
                return
            yield other
        elif not isinstance(reader.op, Reshape):
            return
        value = reader.output


def _biases(graph: Graph) -> set[Value]:
    """Vectors that are added to an activation, and the beta of every batch norm."""
    found: set[Value | None] = set()
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm):
            found.add(param_behind(node.inputs[2]))
        elif isinstance(node.op, Add | Sub):
            for value, other in (node.inputs, node.inputs[::-1]):
                param = param_behind(value)
                if (
                    param is not None
                    and param_behind(other) is None
                    and param.type.size == max(param.type.shape, default=1)
                ):
                    found.add(param)
    return {param for param in found if param is not None}
