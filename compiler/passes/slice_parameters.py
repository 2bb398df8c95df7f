"""Pass `slice_parameters`: a weight of which the update scheme trains some channels becomes two parameters.

`w` is the concatenation of `w/slice`, which is trained, and `w/rest`, which is not and needs no memory but the file's.
Kept are the first of its input channels, which `order_channels` may have chosen. In every program the concatenation
takes the place of `w`, so autodiff sees nothing special; `distribute_slices` later takes it apart. `Module.parts` says
what became of `w`.

Requires TRAINABLE_MARKED. Ensures SLICED.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.sparse.channels import Channels, channels_of
from edgec.compiler.sparse.scheme import REST, SLICE
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops.concat import Concat
from edgec.graph.parts import Parts


def slice_parameters(module: Module, options: Options) -> bool:
    if options.train is None:
        return False
    scheme, infer = options.train.scheme, module.programs["infer"]
    changed = False
    for weight in infer.by_role(Role.PARAM):
        ratio = scheme.ratio_of(weight.name)
        if not weight.trainable or ratio == 1:
            continue
        channels = channels_of(infer, weight)
        if channels is None or channels.kept(ratio) == channels.count:
            continue
        module.parts[weight.name] = _parts(module, weight, channels, channels.kept(ratio))
        for graph in module.programs.values():
            if weight.name in graph.leaves:
                _cut(graph, graph.leaves[weight.name], module.parts[weight.name])
        changed = True
    return changed


def _parts(module: Module, weight: Value, channels: Channels, kept: int) -> Parts:
    if weight.data is None:
        raise UserError("E0302", f"`{weight.name}` has no values to cut", where=f"weights.{weight.name}")
    before = (slice(None),) * channels.axis
    cut = kept * channels.unit
    data = {
        weight.name + SLICE: np.ascontiguousarray(weight.data[(*before, slice(cut))]),
        weight.name + REST: np.ascontiguousarray(weight.data[(*before, slice(cut, None))]),
    }
    whole = module.parts.get(weight.name, Parts((weight.name,), orders=(None,) * weight.type.rank))
    return replace(whole, pieces=tuple(data), axis=channels.axis, data=data)


def _cut(graph: Graph, weight: Value, parts: Parts) -> None:
    pieces = [
        graph.add_leaf(Role.PARAM, name, weight.type.with_shape(data.shape), data=data, trainable=name.endswith(SLICE))
        for name, data in parts.data.items()
    ]
    first = next((node for node in graph.nodes if weight in node.inputs), None)
    whole = graph.emit1(Concat(parts.axis), *pieces, name=f"{weight.name}/whole", before=first)
    graph.replace_uses(weight, whole)
    graph.remove_leaf(weight)
