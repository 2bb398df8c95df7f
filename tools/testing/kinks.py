"""Kinks: where a function takes one of several pieces, and rounding decides which.

A gradient jumps where an element crosses a kink. Two precisions may disagree there and both be right, so gradients are
compared given the pieces: the reference adopts those of the other side, element by element, and each of them must be
shown to lie within rounding of its kink.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from edgec.graph.ir import Graph
from edgec.graph.ops.base import Op
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.ops.relu import Relu

PIECEWISE = (Relu, Clip, HardSwish, HardSigmoid, MaxPool2dPositions)


def piecewise_readers(graph: Graph) -> dict[str, set[Op]]:
    """By name of a value the piecewise functions that read it."""
    readers: dict[str, set[Op]] = {}
    for node in graph.nodes:
        if isinstance(node.op, PIECEWISE) and node.inputs[0].type.dtype.is_float:
            readers.setdefault(node.inputs[0].name, set()).add(node.op)
    return readers


def pieces(op: Op, x: np.ndarray) -> np.ndarray:
    """Which piece each element takes; of a max pool, which tap each window takes."""
    match op:
        case Relu():
            return x > 0
        case Clip():
            return _between(x, op.low, op.high)
        case HardSwish():
            return _between(x, -3, 3)
        case HardSigmoid():
            return _between(op.alpha * x.astype(np.float64) + op.beta, 0, 1)
        case MaxPool2dPositions():
            return op.reference(x)[1]
    raise NotImplementedError(op.name)


def adopt_pieces(op: Op, exact: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Change `exact` into an array with the pieces of `other`, by as few of its elements as needed: where they are."""
    wanted = pieces(op, other)
    adopted = np.zeros(exact.shape, bool)
    # More than once for pools alone: an element stands in several windows.
    while (differs := pieces(op, exact) != wanted).any():
        adopted |= _elements(op, exact, differs, wanted)
        exact[adopted] = other[adopted]
    return adopted


def adopt_all(readers: Collection[Op], exact: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`adopt_pieces` for everything that reads a value."""
    adopted = np.zeros(exact.shape, bool)
    while more := [mask for op in readers if (mask := adopt_pieces(op, exact, other)).any()]:
        adopted |= np.any(more, axis=0)
    return adopted


def _between(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return (x > low).astype(np.int8) + (x >= high)


def _elements(op: Op, exact: np.ndarray, differs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The elements whose order decides on the pieces that differ: of a window its two taps."""
    if not isinstance(op, MaxPool2dPositions):
        return differs
    scatter = MaxPool2dGrad(op.kernel_size, op.strides, op.pads, op.dilations, input_size=exact.shape[2:])
    ours, theirs = (scatter.reference(differs.astype(np.float32), taps)[0] for taps in (pieces(op, exact), wanted))
    return (ours + theirs) > 0
