"""Pass `mark_trainable`: sets `Value.trainable` on the parameters that the update scheme trains, in whole or in part.

Statistics of a batch norm are never trained by gradients. Without a training specification nothing is trainable.

Ensures TRAINABLE_MARKED.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.compiler.sparse.select import select
from edgec.graph.ir import Module, Role


def mark_trainable(module: Module, options: Options) -> bool:
    names = set()
    if options.train is not None:
        names = {leaf.name for leaf in select(module.programs["infer"], options.train.scheme)}
    changed = False
    for program in module.programs.values():
        for leaf in program.by_role(Role.PARAM):
            wanted = leaf.name in names
            changed |= leaf.trainable != wanted
            leaf.trainable = wanted
    return changed
