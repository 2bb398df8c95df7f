"""Pass `tile_chains`: chains of convolutions whose inner values a memory budget has no room for, strip by strip.

`TargetSchedules.tilings` names them (`compiler/tile_search.py` chooses). The kernels compute the same sums in the same
order, so results have the same bits.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules
from edgec.compiler.tiling import Tiling, chain_of, tile
from edgec.graph.errors import InternalError


def tile_chains(subject: TargetSchedules, options: Options) -> bool:
    for name, tilings in subject.tilings.items():
        schedule = subject.programs[name]
        for tiling in tilings:
            _tile(schedule, tiling)
        schedule.regroup([node] for node in list(schedule.graph.nodes))
    return any(subject.tilings.values())


def _tile(schedule: Schedule, tiling: Tiling) -> None:
    graph, names = schedule.graph, set(tiling.values)
    nodes = [node for node in graph.nodes if node.outputs[0].name in names]
    chain = chain_of(nodes, set(graph.results())) if len(nodes) == len(names) else None
    if chain is None:
        raise InternalError(f"{graph.name}: there is no chain of {', '.join(tiling.values)}")
    forward = schedule.forward()
    tiled = tile(graph, chain, tiling.images, tiling.rows)
    schedule.seams |= tiled.seams
    if chain.nodes[0] in forward:
        schedule.early.update(tiled.seams, *tiled.copies.values())
    for node in chain.nodes:
        if node in schedule.again:
            schedule.again.remove(node)
            schedule.again.update(tiled.copies[node])
