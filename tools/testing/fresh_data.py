"""Other data for a conformance case: the shapes and dtypes of its own arrays, and values in the domain that they show.

Floats are drawn between the least and the largest of the case's own, integers likewise, so that logarithms stay defined
and indices in range; where an operator asks for more of an input, `_RULES` says what.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx

Draw = Callable[[np.random.Generator, np.ndarray, onnx.NodeProto], np.ndarray]


def fresh_inputs(
    model: onnx.ModelProto, inputs: Sequence[np.ndarray | None], bound: Collection[str], rng: np.random.Generator
) -> list[np.ndarray | None]:
    """New arrays for the inputs of a case, in their order; those in `bound` stay as they are."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    names = [info.name for info in model.graph.input if info.name not in initialized]
    return [
        array if array is None or name in bound else _fresh(model, name, np.asarray(array), rng)
        for name, array in zip(names, inputs, strict=False)
    ]


def _fresh(model: onnx.ModelProto, name: str, array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for node in model.graph.node:
        for slot, given in enumerate(node.input):
            if given == name and (node.op_type, slot) in _RULES:
                return _RULES[node.op_type, slot](rng, array, node)
    return _drawn(rng, array)


def _drawn(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    if not array.size:
        return array
    if array.dtype == np.bool_:
        return np.asarray(rng.random(array.shape) < 0.5)
    if array.dtype.kind in "iu":
        return _integers(rng, array)
    wide = array.astype(np.float64)
    if not np.isfinite(wide).all():  # infinities and NaN are part of the case
        return rng.permutation(array.reshape(-1)).reshape(array.shape)
    low, high = wide.min(), wide.max()
    if low == high:
        spread = 0.25 * (abs(low) or 1.0)
        low, high = low - spread, high + spread
    return np.asarray(rng.uniform(low, high, array.shape)).astype(array.dtype)


def _integers(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    low, high = int(array.min()), int(array.max())
    if low < 0 < high and array.dtype.itemsize > 1:  # such as labels, of which -1 is none: no others may come up
        return rng.choice(array.reshape(-1), array.shape)
    if low == high:
        low, high = min(low, 1), max(high, -1 if low < 0 else high)
    drawn = np.asarray(rng.integers(low, high, array.shape, endpoint=True), array.dtype)
    # A divisor is never 0 by chance.
    return np.where(drawn == 0, array, drawn) if np.all(array) else drawn


def _along_axis(rng: np.random.Generator, array: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """Each line in another order: positions that are distinct along the axis stay so."""
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return rng.permuted(array, axis=axis)


def _rows(rng: np.random.Generator, array: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """The same coordinates in another order."""
    return rng.permutation(array.reshape(-1, array.shape[-1])).reshape(array.shape)


def _elements(rng: np.random.Generator, array: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """The same positions in another order."""
    return rng.permutation(array.reshape(-1)).reshape(array.shape)


def _chosen(rng: np.random.Generator, array: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """Labels that occur: classes, and perhaps one that is ignored."""
    return rng.choice(array.reshape(-1), array.shape)


def _whole(rng: np.random.Generator, array: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """Indices that are floats, without a fraction: implementations drop it at different times."""
    return np.floor(_drawn(rng, array)).astype(array.dtype) if array.dtype.kind == "f" else _drawn(rng, array)


def _zero_stays(rng: np.random.Generator, array: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """A ratio of 0 drops nothing; of any other nobody can expect certain numbers."""
    return _drawn(rng, array) if array.all() else array


def _shuffled_rows(rng: np.random.Generator, array: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """The numbers of each row in another order: further apart than they are, their exponentials are 0."""
    return rng.permuted(array, axis=-1)


# Inputs, by operator and position, whose elements must differ from one another or lie in several ranges.
_RULES: dict[tuple[str, int], Draw] = {
    ("Dropout", 1): _zero_stays,
    ("LogSoftmax", 0): _shuffled_rows,
    ("OneHot", 0): _whole,
    ("Scatter", 1): _along_axis,
    ("ScatterElements", 1): _along_axis,
    ("ScatterND", 1): _rows,
    ("GatherND", 1): _rows,
    ("MaxUnpool", 1): _elements,
    ("NegativeLogLikelihoodLoss", 1): _chosen,
    ("SoftmaxCrossEntropyLoss", 1): _chosen,
}
