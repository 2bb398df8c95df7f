"""Pass `fold_batch_norm`: batch norms become part of the convolution or product before them, dead or live.

    scale = gamma / sqrt(variance + epsilon);   shift = (bias - mean) * scale + beta
    batch_norm(conv(x, w) + bias) = conv(x, w * scale) + shift

Each of these operations is done now where no program updates anything it reads, and becomes a node otherwise: fully
frozen, the fold costs nothing at run time; with trained parameters it is live, autodiff goes through it, and no
activation before the norm is ever saved. A norm behind anything else is x * scale + shift per channel, and so is one
whose scale is trained behind a weight that is not, or not all of it.

Those that training takes the statistics of the batch for stay, for `train_batch_norm`.

Requires TRAINABLE_MARKED. Ensures FROZEN_NORMS_FOLDED.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.rewrite import param_behind, remove_dead_nodes, replace_node, reshape
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.div import Div
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub


def fold_batch_norm(module: Module, options: Options) -> bool:
    if options.train is not None and options.train.batch_norm == "train":
        return False  # `train_batch_norm` does it, when it has taken those of `train`
    return fold_all(module)


def fold_all(module: Module) -> bool:
    """Fold the batch norms of all programs."""
    updated = module.updated_names() | {
        leaf.name for graph in module.programs.values() for leaf in graph.by_role(Role.PARAM) if leaf.trainable
    }
    changed = False
    for graph in module.programs.values():
        for node in [node for node in graph.nodes if isinstance(node.op, BatchNorm)]:
            _Fold(graph, node, frozenset(updated)).run()
            changed = True
        remove_dead_nodes(graph)
    return changed


@dataclass(frozen=True)
class _Layer:
    """What stands before a norm: a convolution or product, and perhaps a bias with one value per channel."""

    node: Node
    weight_shape: tuple[int, ...]  # of a vector over output channels, to broadcast against the weight
    bias: Value | None


class _Fold:
    """Rewrites one batch norm. Channel vectors have shape [C] here."""

    def __init__(self, graph: Graph, node: Node, updated: frozenset[str]):
        self.graph, self.node, self.updated = graph, node, updated
        self.channels = node.inputs[0].type.shape[1]
        # [C,1,1] for NCHW: aligned with axis 1 of x.
        self.per_channel = (self.channels,) + (1,) * (node.inputs[0].type.rank - 2)

    def run(self) -> None:
        x, gamma, beta, mean, variance = self.node.inputs
        scale = self.emit(Mul(), gamma, self.inverse_deviation(variance), name=f"{gamma.name}.scale")
        layer = self.layer_before(x)
        # The gradient of a live scale is a sum over that of the weight, which nobody may want otherwise.
        if layer is None or not (self.frozen(scale) or self.trained(layer.node.inputs[1])):
            layer = None
            scaled = self.emit(Mul(), x, self.shaped(scale, self.per_channel))
        else:
            scaled = self.scaled_layer(layer, scale)
        offset = self.offset(layer.bias if layer is not None else None, mean)
        shift = self.emit(Add(), self.emit(Mul(), offset, scale), beta, name=f"{beta.name}.shift")
        y = self.graph.emit1(
            Add(), scaled, self.shaped(shift, self.per_channel), source=self.node.source, before=self.node
        )
        replace_node(self.graph, self.node, y, rename=True)

    def offset(self, bias: Value | None, mean: Value) -> Value:
        """bias - mean; nothing is subtracted at run time where there is no bias and the mean is known."""
        if bias is not None:
            return self.emit(Sub(), self.shaped(bias, (self.channels,)), mean)
        minus = self.graph.constant(np.full((), -1, mean.type.dtype.numpy))
        return self.emit(Mul(), mean, minus, name=f"{mean.name}.negated")

    def inverse_deviation(self, variance: Value) -> Value:
        """1 / sqrt(variance + epsilon), in double precision where it is known."""
        epsilon = self.node.op.epsilon
        if self.frozen(variance):
            inverse = (1 / np.sqrt(variance.data.astype(np.float64) + epsilon)).astype(variance.data.dtype)
            return self.graph.constant(inverse, f"{variance.name}.inverse_deviation")
        kind = variance.type.dtype.numpy
        shifted = self.emit(Add(), variance, self.graph.constant(np.array(epsilon, kind)))
        one = self.graph.constant(np.array(1, kind))
        return self.emit(Div(), one, self.emit(Sqrt(), shifted), name=f"{variance.name}.inverse_deviation")

    def layer_before(self, x: Value) -> _Layer | None:
        """The layer whose result only this norm reads."""
        bias = None
        if len(x.uses) == 1 and x.producer is not None and isinstance(x.producer.op, Add):
            for slot, value in enumerate(x.producer.inputs):
                if self.is_channel_vector(value):
                    bias, x = value, x.producer.inputs[1 - slot]
                    break
        if len(x.uses) != 1 or x.producer is None or self.graph.is_result(x):
            return None
        op = x.producer.op
        if not isinstance(op, Conv2d | MatMul) or not _is_weight(x.producer.inputs[1]):
            return None
        if isinstance(op, Conv2d):
            return _Layer(x.producer, (self.channels, 1, 1, 1), bias)
        if x.type.rank == x.producer.inputs[1].type.rank == 2:
            return _Layer(x.producer, (self.channels, 1) if op.transpose_b else (self.channels,), bias)
        return None

    def is_channel_vector(self, value: Value) -> bool:
        """A leaf with one number for each channel: [C,1,1] or [1,C,1,1] before an NCHW norm.

        An activation may have that shape too, in a batch of one.
        """
        shape = value.type.shape
        while len(shape) > len(self.per_channel) and shape[0] == 1:
            shape = shape[1:]
        return shape == self.per_channel and (value.role is Role.CONSTANT or param_behind(value) is not None)

    def scaled_layer(self, layer: _Layer, scale: Value) -> Value:
        x, weight = layer.node.inputs
        scaled = self.emit(Mul(), weight, self.shaped(scale, layer.weight_shape), name=f"{weight.name}.scaled")
        return self.graph.emit1(layer.node.op, x, scaled, source=layer.node.source, before=self.node)

    def shaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        if self.frozen(value):
            return self.emit(Reshape(shape), value)
        return reshape(self.graph, value, shape, before=self.node)

    def frozen(self, value: Value) -> bool:
        """Known now, and the same for ever."""
        if value.role is Role.CONSTANT:
            return True
        return value.role is Role.PARAM and value.data is not None and value.name not in self.updated

    def trained(self, weight: Value) -> bool:
        """Whether all of a weight is: then its gradient is there anyway."""
        return weight.role is Role.PARAM and weight.name in self.updated

    def emit(self, op: Op, *operands: Value, name: str = "") -> Value:
        """The result of `op`: a constant where all operands are frozen, else a node."""
        if all(map(self.frozen, operands)):
            (array,) = op.reference(*(value.data for value in operands))
            return self.graph.constant(array, name or operands[0].name)
        return self.graph.emit1(op, *operands, name=name, source=self.node.source, before=self.node)


def _is_weight(value: Value) -> bool:
    """A leaf, or the concatenation of several that a weight is made of."""
    if value.producer is not None and isinstance(value.producer.op, Concat):
        return all(map(_is_weight, value.producer.inputs))
    return value.role in (Role.PARAM, Role.CONSTANT)
