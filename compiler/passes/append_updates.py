"""Pass `append_updates`: every gradient of `train` is consumed by one optimizer step, and is no output any more.

Where one update takes several steps, `train` adds its gradients to those that are held as states, and a program `apply`
makes the update: gradients there are sums over all rows so far, divided by their weight. So it is the step that one
large batch would have made, however its rows were dealt out.

Requires GRADIENTS. Ensures UPDATES.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.optimizers import UpdateBuilder
from edgec.compiler.parameter_groups import weights_of
from edgec.compiler.passbase import Options
from edgec.compiler.passes.append_loss import total_and_weight
from edgec.compiler.passes.derive_gradients import GRADIENT
from edgec.compiler.rewrite import reserve
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops.accumulate import Accumulate
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.less import Less
from edgec.graph.ops.where import Where
from edgec.graph.types import DType, tensor

APPLY = "apply"
DUE = "due"
HELD = "/held"
HELD_STEPS = "held/steps"
HELD_WEIGHT = "held/weight"


def append_updates(module: Module, options: Options) -> bool:
    graph, train = module.programs.get("train"), options.train
    if graph is None or train is None:
        return False
    weights = weights_of(graph)
    trained = [leaf for leaf in graph.leaves.values() if leaf.name + GRADIENT in graph.outputs]
    gradients = {param: graph.outputs.pop(param.name + GRADIENT) for param in trained}
    for pattern in (group.pattern for group in train.groups):
        if not any(group.holds(param.name) for group in train.groups if group.pattern == pattern for param in trained):
            raise UserError("E0302", f"no trained parameter is called `{pattern}`", where="groups")
    if train.accumulate == 1:
        UpdateBuilder(graph, train, weights).update(gradients)
        return True
    apply = Graph(APPLY)
    _hold(graph, gradients, train.accumulate)
    held = {_twin(apply, param): _twin(apply, graph.leaves[param.name + HELD]) for param in gradients}
    steps, weight = (_twin(apply, graph.leaves[name]) for name in (HELD_STEPS, HELD_WEIGHT))
    UpdateBuilder(apply, train, weights).update(held, weight)
    apply.updates[steps] = apply.constant(np.zeros((), np.int32), "none")
    module.programs = {"infer": module.programs.pop("infer"), "train": graph, APPLY: apply} | module.programs
    return True


def _hold(graph: Graph, gradients: dict[Value, Value], count: int) -> None:
    """Gradients, their weight and the number of steps are added to what is held, or replace what was applied."""

    def emit(op: Op, *operands: Value, name: str = "") -> Value:
        return graph.emit1(op, *operands, name=name)

    def number(value: int) -> Value:
        return graph.constant(np.array(value, np.int32), "held.constant")

    reserve(graph, HELD_STEPS, "the number of steps held")
    steps = graph.add_leaf(Role.STATE, HELD_STEPS, tensor(DType.I32), data=np.zeros((), np.int32))
    # A full round that was not applied, because its gradients were refused, is dropped.
    unfinished = emit(Where(), emit(Less(), steps, number(count)), steps, number(0))
    now = graph.updates[steps] = emit(Add(), unfinished, number(1), name=f"{HELD_STEPS}.new")
    keep = emit(Cast(DType.F32.value), unfinished, name="held.keep")
    if DUE in graph.outputs:
        raise UserError("E0302", f"the model has an output called `{DUE}`, the name of one of training")
    graph.outputs[DUE] = emit(Cast(DType.I32.value), emit(Equal(), now, number(count)), name=DUE)
    total, weight = total_and_weight(graph)
    weight = weight or graph.constant(np.ones((), total.type.dtype.numpy), "held.one")
    for name, value in [(HELD_WEIGHT, weight), *((param.name + HELD, value) for param, value in gradients.items())]:
        zeros = np.zeros(value.type.shape, value.type.dtype.numpy)
        held = graph.add_leaf(Role.STATE, name, value.type, data=zeros)
        graph.updates[held] = emit(Accumulate(), held, value, keep, name=f"{name}.new")


def _twin(graph: Graph, leaf: Value) -> Value:
    return graph.add_leaf(leaf.role, leaf.name, leaf.type, data=leaf.data, trainable=leaf.trainable)
