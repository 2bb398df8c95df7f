"""Pass `eliminate_dead`: what no result depends on goes, nodes and leaves; inputs stay, they are the signature.

Ensures NO_DEAD.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.compiler.rewrite import remove_dead_nodes
from edgec.graph.ir import Module, Role


def eliminate_dead(module: Module, options: Options) -> bool:
    changed = False
    for graph in module.programs.values():
        changed |= remove_dead_nodes(graph)
        for leaf in list(graph.leaves.values()):
            if leaf.role is Role.INPUT or leaf.uses or graph.is_result(leaf) or leaf in graph.updates:
                continue
            graph.remove_leaf(leaf)
            changed = True
    return changed
