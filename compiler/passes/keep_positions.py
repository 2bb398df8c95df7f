"""Pass `keep_positions`: a max pool of `train` hands out which tap each window took, and its gradient reads that.

A position takes a byte where the pool's argument takes four for each tap. Without this pass, positions are found again
behind the guard, from the argument.

Requires GRADIENTS, CANONICAL; ensures POSITIONS_KEPT.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.compiler.rewrite import replace_node
from edgec.graph.ir import Graph, Module, Node
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions


def keep_positions(module: Module, options: Options) -> bool:
    graph = module.programs.get("train")
    if graph is None:
        return False
    found = [node for node in graph.nodes if isinstance(node.op, MaxPool2dPositions)]
    return any([_join(graph, node) for node in found])


def _join(graph: Graph, behind: Node) -> bool:
    """Let the pool that `behind` repeats take the positions; False where there is none."""
    op, (x,) = behind.op, behind.inputs
    wanted = MaxPool2d(op.kernel_size, op.strides, op.pads, op.dilations)
    pool = next((node for node, _ in x.uses if node.op == wanted), None)
    if pool is None:
        return False
    names = [graph.fresh_name(f"{pool.output.name}.{suffix}") for suffix in ("max", "positions")]
    y, positions = graph.emit(op, x, names=names, source=pool.source, before=pool)
    for old, new in zip(behind.outputs, (y, positions), strict=True):
        graph.replace_uses(old, new)
    graph.remove(behind)
    replace_node(graph, pool, y, rename=True)
    return True
