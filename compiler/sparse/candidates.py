"""What a search may train in a model: depths of biases, and weights with their channels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.compiler.sparse import layers
from edgec.compiler.sparse.channels import Channels, channels_of
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.sparse.select import select
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Node, Value
from edgec.graph.ops.conv2d import Conv2d

RATIOS = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Weight:
    """A layer's weight. `channels`: its input channels, None where they cannot be cut and all are trained or none.

    `order` has them by the sum of squares of what multiplies them, the largest first: `channels = "largest"` keeps
    those, `"first"` the first. `role`: the same for weights that do the same in other blocks of the model.
    """

    name: str
    shape: tuple[int, ...]
    channels: Channels | None
    order: tuple[int, ...] = ()
    role: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Shares of the channels that differ from one another, ascending."""
        if self.channels is None:
            return (1.0,)
        found = {self.channels.kept(ratio): ratio for ratio in RATIOS}
        return tuple(sorted(found.values()))

    def kept(self, ratio: float, choice: str) -> Sequence[int] | None:
        """The channels that `ratio` of them are; None for all."""
        if self.channels is None or ratio == 1.0:
            return None
        order = self.order if choice == "largest" else range(self.channels.count)
        return order[: self.channels.kept(ratio)]

    def others(self, kept: Sequence[int]) -> np.ndarray:
        """Which elements are in none of these channels, bool[shape]."""
        assert self.channels is not None
        mask = np.ones(self.shape, bool)
        by_channel = np.moveaxis(mask, self.channels.axis, 0)
        for channel in kept:
            by_channel[channel * self.channels.unit :][: self.channels.unit] = False
        return mask


@dataclass(frozen=True)
class Candidates:
    """`head`: the parameters of the update `head`. `depths[k]`: what is trained besides by the biases of the last k
    layers, growing. `weights` in the order in which they run. Names are those of parameters.
    """

    head: frozenset[str]
    depths: tuple[frozenset[str], ...]
    weights: tuple[Weight, ...]

    @property
    def everything(self) -> Scheme:
        """All of them, whole."""
        return self.scheme(len(self.depths) - 1, {weight.name: 1.0 for weight in self.weights})

    def scheme(self, depth: int, ratios: dict[str, float], channels: str = "first") -> Scheme:
        """The head, biases of the last `depth` layers, and of the named weights so many channels."""
        rules = (
            WeightRule(_literal(weight.name), ratios[weight.name]) for weight in self.weights if weight.name in ratios
        )
        return Scheme("head", biases=depth, channels=channels, weights=tuple(rules))


def find_candidates(graph: Graph) -> Candidates:
    """Of a model as `mark_trainable` sees it. UserError E0303 for one without layers."""
    head = frozenset(param.name for param in select(graph, Scheme("head")))
    known = layers.candidates(graph)
    found = layers.layers(graph, known)[:-1]
    depths: list[frozenset[str]] = [frozenset()]
    for node in reversed(found):
        added = {param.name for param, is_added in layers.followers(node) if is_added and param in known}
        depths.append(depths[-1] | (added - head))
    readers: dict[Value, Node] = {}
    for node in found:
        readers.setdefault(layers.weight_of(node), node)
    weights = [_weight(graph, weight, node) for weight, node in readers.items() if weight.name not in head]
    return Candidates(head, tuple(depths), tuple(weights))


def _weight(graph: Graph, weight: Value, reader: Node) -> Weight:
    role = _role(weight, reader)
    try:
        channels = channels_of(graph, weight)
    except UserError:  # the model reshapes it: all channels or none
        channels = None
    if channels is None or weight.data is None:
        return Weight(weight.name, weight.type.shape, None, role=role)
    order = np.argsort(-by_channel(np.square(weight.data.astype(np.float64)), channels), kind="stable")
    return Weight(weight.name, weight.type.shape, channels, tuple(order.tolist()), role)


def _role(weight: Value, reader: Node) -> str:
    """Its name without numbers, whether it mixes channels and places, and if there are more channels behind it."""
    name = re.sub(r"\d+", "*", weight.name)
    if not isinstance(reader.op, Conv2d):
        return f"{name} {_direction(weight.type.shape[0], weight.type.shape[-1])}"
    _, channels, *_ = reader.inputs[0].type.shape
    out, inner, *kernel = weight.type.shape
    mixes = ("channels " if inner > 1 else "") + ("places " if max(kernel) > 1 else "")
    return f"{name} {mixes}{_direction(channels, out)}"


def _direction(before: int, behind: int) -> str:
    return "same" if before == behind else "widens" if before < behind else "narrows"


def by_channel(array: np.ndarray, channels: Channels) -> np.ndarray:
    """The sum over each input channel of a weight, f64[count]."""
    moved = np.moveaxis(array, channels.axis, 0)
    return moved.reshape(channels.count, -1).sum(axis=1, dtype=np.float64)


def _literal(name: str) -> str:
    """The pattern that only `name` matches."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
