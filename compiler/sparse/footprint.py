"""What a scheme needs by arithmetic, before anything is compiled: bytes that training adds, multiply-adds of a step.

The account of the Tiny Training Engine (Lin et al. 2022, arXiv:2206.15472, `core/utils/partial_backward.py` of its
code), by which its schemes are labelled: for every layer with a trained bias a bit for each output, which says where
its gradient passes, and the bias; for every layer with a trained weight the input channels that are kept, and as much
of the weight. The head counts by its input alone. It knows no plan: what is alive at one time, what shares memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgec.compiler.sparse import layers
from edgec.compiler.sparse.channels import channels_of
from edgec.compiler.sparse.scheme import Scheme
from edgec.compiler.sparse.select import select
from edgec.graph.ir import Graph, Node, Value


@dataclass(frozen=True)
class ElementBytes:
    """Of an element of an activation, of a weight, and of a bias. The default is that of int8 training."""

    activation: int = 1
    weight: int = 1
    bias: int = 4


@dataclass(frozen=True)
class Footprint:
    """Bytes: saved activations, masks, and copies of trained parameters."""

    activation_bytes: float
    mask_bytes: float
    parameter_bytes: float

    @property
    def bytes(self) -> float:
        return self.activation_bytes + self.mask_bytes + self.parameter_bytes


@dataclass(frozen=True)
class StepMacs:
    """Multiply-adds of the layers in one step: forward, gradients of activations, gradients of weights."""

    forward: int
    input_gradients: int
    weight_gradients: int

    @property
    def ratio(self) -> float:
        """Of a step to its forward part."""
        return (self.forward + self.input_gradients + self.weight_gradients) / self.forward


INT8 = ElementBytes()


def footprint(graph: Graph, scheme: Scheme, sizes: ElementBytes = INT8) -> Footprint:
    """What `scheme` adds to inference with `graph`. UserError as `select`."""
    trained = select(graph, scheme)
    *found, head = layers.layers(graph, layers.candidates(graph))
    activation = float(head.inputs[0].type.size * sizes.activation)
    mask = parameters = 0.0
    for node in found:
        added = [param for param, is_added in layers.followers(node) if is_added and param in trained]
        if added:
            mask += node.output.type.size / 8
            parameters += sum(param.type.size for param in added) * sizes.bias
        share = _share(graph, node, scheme, trained)
        activation += node.inputs[0].type.size * share * sizes.activation
        parameters += layers.weight_of(node).type.size * share * sizes.weight
    return Footprint(activation, mask, parameters)


def step_macs(graph: Graph, scheme: Scheme) -> StepMacs:
    """Of the layers; an activation has a gradient where something is trained before it. UserError as `select`."""
    trained = select(graph, scheme)
    found = layers.layers(graph, layers.candidates(graph))
    behind = _depend_on(graph, trained)
    forward = backward = weights = 0
    for node in found:
        macs = node.cost.macs
        forward += macs
        backward += macs if node.inputs[0] in behind else 0
        weights += round(macs * _share(graph, node, scheme, trained))
    return StepMacs(forward, backward, weights)


def _share(graph: Graph, node: Node, scheme: Scheme, trained: set[Value]) -> float:
    """How much of a layer's input channels, and so of its weight, is trained."""
    weight = layers.weight_of(node)
    if weight not in trained:
        return 0.0
    channels = channels_of(graph, weight)
    return channels.kept(scheme.ratio_of(weight.name)) / channels.count


def _depend_on(graph: Graph, leaves: Iterable[Value]) -> set[Value]:
    found = set(leaves)
    for node in graph.nodes:
        if any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found
