"""What a search may train in a model: depths of biases, and weights with their channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.compiler.sparse import layers
from edgec.compiler.sparse.channels import Channels, channels_of
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.sparse.select import select
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Value

RATIOS = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Weight:
    """A layer's weight. `channels`: its input channels, None where they cannot be cut and all are trained or none.

    `order` has them by the sum of squares of what multiplies them, the largest first: `channels = "largest"` keeps
    those, `"first"` the first.
    """

    name: str
    elements: int
    channels: Channels | None
    order: tuple[int, ...] = ()

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
    weights = dict.fromkeys(weight for weight in map(layers.weight_of, found) if weight.name not in head)
    return Candidates(head, tuple(depths), tuple(_weight(graph, weight) for weight in weights))


def _weight(graph: Graph, weight: Value) -> Weight:
    try:
        channels = channels_of(graph, weight)
    except UserError:  # the model reshapes it: all channels or none
        channels = None
    if channels is None or weight.data is None:
        return Weight(weight.name, weight.type.size, None)
    order = np.argsort(-by_channel(np.square(weight.data.astype(np.float64)), channels), kind="stable")
    return Weight(weight.name, weight.type.size, channels, tuple(order.tolist()))


def by_channel(array: np.ndarray, channels: Channels) -> np.ndarray:
    """The sum over each input channel of a weight, f64[count]."""
    moved = np.moveaxis(array, channels.axis, 0)
    return moved.reshape(channels.count, -1).sum(axis=1, dtype=np.float64)


def _literal(name: str) -> str:
    """The pattern that only `name` matches."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
