"""Pass `append_adapters`: low-rank adapters beside frozen weights, as the update scheme asks for (`sparse/scheme.py`).

    y = layer(x, w)   becomes   y = layer(x, w) + scale * layer(layer(x, w/lora_A), w/lora_B)

for products and 1x1 convolutions, in every program. A is random, B is zero: at first nothing has changed. A gradient of
w never exists, and of the activations only x and the narrow one between A and B are kept. `Module.parts` says how w is
merged again (Hu et al., arXiv:2106.09685).

Requires TRAINABLE_MARKED. Ensures ADAPTED.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.rewrite import param_behind
from edgec.compiler.sparse.channels import channels_of
from edgec.compiler.sparse.layers import candidates, layers, weight_of
from edgec.compiler.sparse.scheme import LORA_A, LORA_B, Lora, suggest, wrong
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.parts import Parts


def append_adapters(module: Module, options: Options) -> bool:
    lora = None if options.train is None else options.train.scheme.lora
    if lora is None:
        return False
    chosen = _chosen(module.programs["infer"], lora)
    for number, weight in enumerate(chosen):
        adapter = _Adapter.of(module.programs["infer"], weight, lora, number)
        module.parts[weight.name] = adapter.parts(module, weight)
        for graph in module.programs.values():
            if weight.name in graph.leaves:
                adapter.append(graph, graph.leaves[weight.name])
    return True


def _chosen(graph: Graph, lora: Lora) -> list[Value]:
    """The weights that get an adapter, in the order in which they are used. UserError E0302, E0303."""
    found = layers(graph, candidates(graph))
    able = list(dict.fromkeys(weight_of(node) for node in found if _can_adapt(node)))
    if not lora.layers:
        chosen = [weight for weight in able if weight is not weight_of(found[-1]) and not weight.trainable]
        if not chosen:
            raise UserError("E0303", "lora: the model has no product or 1x1 convolution before its head to adapt")
        return chosen
    names = [weight.name for weight in able]
    for pattern in lora.layers:
        if not any(Lora(lora.rank, layers=(pattern,)).holds(name) for name in names):
            message = f"no weight of a product or 1x1 convolution is called `{pattern}`"
            raise wrong("lora.layers", message, suggest(pattern, names, "there is"))
    chosen = [weight for weight in able if lora.holds(weight.name)]
    if trained := [weight.name for weight in chosen if weight.trainable]:
        hint = f'"{trained[0]}" = 0 among [weights] freezes it'
        raise wrong("lora.layers", f"`{trained[0]}` gets an adapter, and is trained besides", hint)
    return chosen


def _can_adapt(node: Node) -> bool:
    op = node.op
    if isinstance(op, Conv2d):
        return op.groups == 1 and node.inputs[1].type.shape[2:] == (1, 1)
    return isinstance(op, MatMul) and weight_of(node).type.rank == 2


@dataclass(frozen=True)
class _Adapter:
    """A and B of one weight, in the order of its axes: [out,r] and [r,in], or [in,r] and [r,out]."""

    a: np.ndarray
    b: np.ndarray
    scale: float
    input_first: bool

    @staticmethod
    def of(graph: Graph, weight: Value, lora: Lora, number: int) -> _Adapter:
        axis = channels_of(graph, weight).axis
        inputs, outputs = weight.type.shape[axis], weight.type.shape[1 - axis]
        rank, bound = lora.rank, 1 / math.sqrt(inputs)
        spread = np.random.default_rng((lora.seed, number)).uniform(-bound, bound, (rank, inputs))
        a, b = spread, np.zeros((outputs, rank))
        if axis == 0:
            a, b = a.T, b.T
        ones = (1,) * (weight.type.rank - 2)
        kind = weight.type.dtype.numpy
        return _Adapter(
            np.ascontiguousarray(a.reshape(*a.shape, *ones), kind),
            np.ascontiguousarray(b.reshape(*b.shape, *ones), kind),
            lora.scale,
            axis == 0,
        )

    def parts(self, module: Module, weight: Value) -> Parts:
        names = (weight.name + LORA_A, weight.name + LORA_B)
        left, right = names if self.input_first else names[::-1]
        data = {} if weight.data is None else {weight.name: weight.data}
        whole = module.parts.get(weight.name, Parts((weight.name,), 0, (None,) * weight.type.rank, data=data))
        return replace(whole, adapter=(left, right, self.scale))

    def append(self, graph: Graph, weight: Value) -> None:
        a, b = (
            graph.add_leaf(
                Role.PARAM, weight.name + suffix, weight.type.with_shape(data.shape), data=data, trainable=True
            )
            for suffix, data in ((LORA_A, self.a), (LORA_B, self.b))
        )
        scale = graph.constant(np.array(self.scale, weight.type.dtype.numpy), "lora.scale")
        for node in [node for node in graph.nodes if weight_of(node) is weight and _can_adapt(node)]:
            self._beside(graph, node, a, b, scale)

    def _beside(self, graph: Graph, node: Node, a: Value, b: Value, scale: Value) -> None:
        place = graph.nodes.index(node) + 1
        behind = graph.nodes[place] if place < len(graph.nodes) else None

        def emit(op: Op, *operands: Value) -> Value:
            return graph.emit1(op, *operands, source=node.source, before=behind)

        op, out = node.op, node.output
        if isinstance(op, Conv2d):
            narrow = emit(op, node.inputs[0], a)
            wide = emit(Conv2d(), emit(Mul(), narrow, scale), b)
        elif param_behind(node.inputs[1]) is not None:
            narrow = emit(MatMul(op.transpose_a, not self.input_first), node.inputs[0], a)
            wide = emit(MatMul(False, not self.input_first), emit(Mul(), narrow, scale), b)
        else:
            narrow = emit(MatMul(self.input_first, op.transpose_b), a, node.inputs[1])
            wide = emit(MatMul(self.input_first, False), b, emit(Mul(), narrow, scale))
        total = emit(Add(), out, wide)
        graph.replace_uses(out, total)
        graph.set_input(total.producer, 0, out)
