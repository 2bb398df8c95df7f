"""Pass `order_channels`: channels that an update scheme keeps for their large weights become the first ones.

Channels are ranked by the sum of squares of what sliced weights multiply them with: together over all layers that share
them, such as the blocks of a residual stage, since they can have one order only. Everything that has these channels
(weights before and behind, biases, norms) is put into that order at compile time: no program does anything about it.
`Module.parts` says how to undo it. Channels of an input or output of the model, and those that some op mixes by place,
stay in their order: there the first are kept.

Requires TRAINABLE_MARKED. Ensures ORDERED_CHANNELS.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.sparse.channels import channels_of
from edgec.compiler.sparse.classes import Axis, AxisClasses
from edgec.graph.ir import Module, Role
from edgec.graph.parts import Parts


def order_channels(module: Module, options: Options) -> bool:
    if options.train is None or options.train.scheme.channels != "largest":
        return False
    graph, scheme = module.programs["infer"], options.train.scheme
    sliced = [
        (weight, channels.axis)
        for weight in graph.by_role(Role.PARAM)
        if weight.trainable and scheme.ratio_of(weight.name) < 1 and weight.data is not None
        if (channels := channels_of(graph, weight)) is not None and channels.unit == 1
    ]
    classes = AxisClasses(graph)
    changed = False
    for together in classes.together(sliced):
        members = classes.members(together[0])
        order = np.argsort(-sum(map(_energy, together)), kind="stable")
        if not members or any(leaf.data is None for leaf, _ in members) or (np.diff(order) > 0).all():
            continue
        for leaf, axis in members:
            _reorder(module, leaf.name, axis, order)
        changed = True
    return changed


def _energy(axis: Axis) -> np.ndarray:
    """The sum of squares for each index along an axis."""
    weight, place = axis
    others = tuple(other for other in range(weight.type.rank) if other != place)
    return np.square(weight.data.astype(np.float64)).sum(others)


def _reorder(module: Module, name: str, axis: int, order: np.ndarray) -> None:
    leaf = module.programs["infer"].leaves[name]
    data = np.ascontiguousarray(np.take(leaf.data, order, axis))
    for graph in module.programs.values():
        if name in graph.leaves:
            graph.leaves[name].data = data
    if leaf.role is Role.PARAM:
        parts = module.parts.get(name, Parts((name,), 0, (None,) * leaf.type.rank))
        orders = list(parts.orders)
        orders[axis] = tuple(order.tolist())
        module.parts[name] = replace(parts, orders=tuple(orders), data={name: data})
