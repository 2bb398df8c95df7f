"""Pass `append_updates`: every gradient of `train` is consumed by one optimizer step, and is no output any more.

Adds the run-time scalar `lr`, and with momentum a state `<param>/momentum` of zeros for each trained parameter.

Requires GRADIENTS. Ensures UPDATES.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.passes.append_loss import reserve
from edgec.compiler.passes.derive_gradients import GRADIENT
from edgec.compiler.train import Train
from edgec.graph.errors import InternalError
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.types import DType, tensor

LEARNING_RATE = "lr"


def append_updates(module: Module, options: Options) -> bool:
    graph = module.programs.get("train")
    if graph is None or options.train is None:
        return False
    reserve(graph, LEARNING_RATE, "the learning rate")
    rate = graph.add_leaf(Role.SCALAR, LEARNING_RATE, tensor(DType.F32))
    for param in [leaf for leaf in graph.leaves.values() if leaf.name + GRADIENT in graph.outputs]:
        _update(graph, param, graph.outputs.pop(param.name + GRADIENT), rate, options.train)
    return True


def _update(graph: Graph, param: Value, gradient: Value, rate: Value, train: Train) -> None:
    if train.optimizer != "sgd":
        raise InternalError(f"optimizer {train.optimizer!r} passed the check of Train")
    op = SgdUpdate(train.momentum, train.weight_decay, train.nesterov)
    operands, targets = [param, gradient, rate], [param]
    if train.momentum:
        zeros = np.zeros(param.type.shape, param.type.dtype.numpy)
        targets.append(graph.add_leaf(Role.STATE, f"{param.name}/momentum", param.type, data=zeros))
        operands.append(targets[-1])
    names = [f"{target.name}.new" for target in targets]
    graph.updates.update(zip(targets, graph.emit(op, *operands, names=names), strict=True))
