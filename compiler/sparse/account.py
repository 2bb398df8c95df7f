"""The fast account of a scheme: bytes and multiply-adds of its step, from the training step that updates everything.

A step that trains less is the full one without what then nobody needs. So for every parameter it is worked out once
which nodes of the backward part its update needs, and which values of the forward part those read; a scheme's account
is the union over its parameters. A weight of which some channels are trained keeps as much of the activation that its
own product reads, unless somebody else reads it, and its product shrinks as much. Not in it: order, sharing of memory,
in-place updates, tiling and recomputation. Those make the plan, which decides in the end whether a scheme fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.compiler.recompute import forward_nodes
from edgec.compiler.sparse.candidates import Candidates
from edgec.graph.ir import Graph, Node, Role, Value
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.relu_grad import ReluGrad
from edgec.graph.ops.reshape import Reshape

_BIT = 1 / 32  # of an element in f32


@dataclass(frozen=True)
class Figures:
    """Of a scheme: bytes of trained parameters with what the optimizer keeps of each; the most that saved activations
    and the gradients at one node of the backward part take together; multiply-adds.
    """

    trained_bytes: float
    backward_bytes: float
    macs: float


@dataclass(frozen=True)
class _Need:
    """Of the update of some parameters: by value that may be saved the place behind the guard until which it is read, 0
    if it is not; by node behind the guard whether it runs.

    Of a single weight, `own` is what its product alone reads, which counts by the share of channels that is trained.
    `masks` is what only says where a gradient passes: a bit for each element, unless the value is there anyway.
    """

    saved: np.ndarray
    own_saved: np.ndarray
    masks: np.ndarray
    nodes: np.ndarray
    own_nodes: np.ndarray
    bytes: float


class Account:
    """`train`: the program `train` of an update of everything, without accumulation. `copies`: how many times as large
    as a trained parameter all that is kept of it is, itself included.
    """

    def __init__(self, train: Graph, candidates: Candidates, copies: float):
        self._graph, self._copies = train, copies
        self._forward = forward_nodes(train)
        self._nodes = {node: i for i, node in enumerate(n for n in train.nodes if n not in self._forward)}
        self._values: dict[Value, int] = {}
        for node in self._nodes:
            for value in node.inputs:
                if (home := self._home(value)) is not None:
                    self._values.setdefault(home, len(self._values))
        self._sizes = np.array([value.type.bytes for value in self._values], np.float64)
        self._macs = np.array([node.cost.macs for node in self._nodes], np.float64)
        self._working = np.array([self._gradient_bytes(node) for node in self._nodes], np.float64)
        self.forward_macs = float(sum(node.cost.macs for node in train.nodes if node in self._forward))
        self._depths = [self._need(candidates.head | depth) for depth in candidates.depths]
        self._weights = {weight.name: self._need([weight.name]) for weight in candidates.weights}

    @property
    def trainable(self) -> set[str]:
        """Weights that a gradient reaches."""
        return {name for name, need in self._weights.items() if need.nodes.any()}

    def figures(self, depth: int, ratios: Mapping[str, float]) -> Figures:
        """Of the head, the biases of the last `depth` layers, and so much of the named weights."""
        base = self._depths[depth]
        until, masks, nodes, size = base.saved, base.masks, base.nodes, base.bytes
        kept = until > 0
        if ratios:
            needs = [self._weights[name] for name in ratios]
            share = np.array(list(ratios.values()))[:, None]
            own = np.array([need.own_saved for need in needs])
            whole = np.maximum(until, np.array([need.saved for need in needs]).max(axis=0))
            until = np.maximum(whole, own.max(axis=0))
            masks = np.maximum(masks, np.array([need.masks for need in needs]).max(axis=0))
            kept = np.maximum(whole > 0, ((own > 0) * share).max(axis=0))
            products = (np.array([need.own_nodes for need in needs]) * share).max(axis=0)
            nodes = np.maximum(nodes, np.maximum(products, np.array([need.nodes for need in needs]).max(axis=0)))
            size += float(sum(need.bytes * ratio for need, ratio in zip(needs, ratios.values(), strict=True)))
        kept = np.maximum(kept, (masks > 0) * _BIT)
        until = np.maximum(until, masks)
        ends = np.bincount(until.astype(np.int64), weights=self._sizes * kept, minlength=len(nodes) + 1)
        alive = ends[::-1].cumsum()[::-1][1:]  # at every node, what is read there or later
        backward = float(((alive + self._working) * (nodes > 0)).max(initial=0.0))
        macs = self.forward_macs + float(self._macs @ nodes)
        return Figures(size * self._copies, backward, macs)

    def _need(self, names: Iterable[str]) -> _Need:
        leaves = [self._graph.leaves[name] for name in sorted(names) if name in self._graph.leaves]
        leaves = [leaf for leaf in leaves if leaf in self._graph.updates]
        needed = self._graph.ancestors([self._graph.updates[leaf] for leaf in leaves]) & self._nodes.keys()
        own = self._product(leaves[0], needed) if len(leaves) == 1 else None
        need = _Need(
            *(np.zeros(len(self._values)) for _ in range(3)),
            *(np.zeros(len(self._nodes)) for _ in range(2)),
            float(sum(leaf.type.bytes for leaf in leaves)),
        )
        for node in needed:
            place = self._nodes[node]
            (need.own_nodes if node is own else need.nodes)[place] = 1.0
            for value in node.inputs:
                if (home := self._home(value)) is not None:
                    sliced = node is own and home is self._home(self._activation(node))
                    is_mask = isinstance(node.op, ClipGrad | ReluGrad)
                    until = need.own_saved if sliced else need.masks if is_mask else need.saved
                    until[self._values[home]] = max(until[self._values[home]], place + 1)
        return need

    def _product(self, leaf: Value, needed: set[Node]) -> Node | None:
        """The product that computes the gradient of a weight: the first on the way up from its update."""
        stack, seen = [self._graph.updates[leaf].producer], set()
        while stack:
            node = stack.pop(0)
            if node not in needed or node in seen:
                continue
            seen.add(node)
            if isinstance(node.op, Conv2dWeightGrad | MatMul):
                return node
            stack += [value.producer for value in node.inputs if value.producer is not None]
        return None

    def _activation(self, product: Node) -> Value:
        """Of the operands of a weight's gradient the one that the forward part made."""
        return next((value for value in product.inputs if self._home(value) is not None), product.inputs[0])

    def _home(self, value: Value) -> Value | None:
        """The memory that a value of the forward part lies in; None for what is no activation."""
        while value.producer is not None and isinstance(value.producer.op, Reshape):
            value = value.producer.inputs[0]
        made = value.producer in self._forward if value.producer is not None else value.role is Role.INPUT
        return value if made else None

    def _gradient_bytes(self, node: Node) -> int:
        values = {value for value in (*node.inputs, *node.outputs) if value.producer in self._nodes}
        sizes = [value.type.bytes for value in values if value not in self._graph.updates.values()]
        return max(sizes, default=0) if node.op.elementwise else sum(sizes)  # in place, or in the kernel before
