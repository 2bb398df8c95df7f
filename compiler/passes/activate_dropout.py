"""Pass `activate_dropout`: dropouts of `train` get a generator, and its state.

States `dropout/seed` and `dropout/step`: each dropout draws from a stream of its own under the seed, each step anew.
The step counts on with every step that is committed, and is saved in checkpoints: what is resumed draws what it would
have.
With `dropout = "off"`, and in other programs, dropouts stay idle, and `canonicalise` drops them.

Requires LOSS. Ensures DROPOUT_ACTIVE.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.rewrite import replace_node
from edgec.graph.ir import Module, Role
from edgec.graph.ops.add import Add
from edgec.graph.ops.dropout import Dropout
from edgec.graph.types import DType, tensor

SEED, STEP = "dropout/seed", "dropout/step"


def activate_dropout(module: Module, options: Options) -> bool:
    if options.train is None or options.train.dropout == "off":
        return False
    graph = module.programs["train"]
    nodes = [node for node in graph.nodes if isinstance(node.op, Dropout) and node.op.threshold]
    if not nodes:
        return False
    state = [
        graph.add_leaf(Role.STATE, name, tensor(DType.I32), data=np.array(value, np.int32))
        for name, value in ((SEED, options.train.seed), (STEP, 0))
    ]
    for stream, node in enumerate(nodes):
        op = replace(node.op, stream=stream)
        y = graph.emit1(op, node.inputs[0], *state, source=node.source, before=node)
        replace_node(graph, node, y, rename=True)
    one = graph.constant(np.array(1, np.int32))
    graph.updates[state[1]] = graph.emit1(Add(), state[1], one, name=graph.fresh_name(f"{STEP}.new"))
    return True
