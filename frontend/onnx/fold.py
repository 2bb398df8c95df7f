"""Evaluation at compile time: the shape arithmetic that exporters leave in a model, in numpy.

Only nodes whose inputs are all known come here. An entry says how many elements it makes before it makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgec.frontend.onnx.arguments import (
    broadcast,
    normal_axes,
    normal_axis,
    reshape_target,
    slice_ranges,
    split_sizes,
    squeezed,
    unsqueezed,
)
from edgec.frontend.onnx.model import Node, Opaque, Sparse, Unsupported
from edgec.frontend.onnx.tensors import numpy_dtype

Arrays = Sequence[np.ndarray | None]  # None: an optional input that is absent
Result = np.ndarray | tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Fold:
    """`evaluate` makes the results; `elements` bounds the size of what it makes, cheaply."""

    evaluate: Callable[[Node, Arrays], Result]
    elements: Callable[[Node, Arrays], int]

    def run(self, node: Node, arrays: Arrays, budget: int) -> tuple[tuple[np.ndarray, ...], int]:
        """The results and the elements they cost; Unsupported where the inputs do not fit or cost above `budget`."""
        if any(array is None for array in arrays[:3]):
            raise Unsupported("an input is missing")
        try:
            cost = self.elements(node, arrays)
            if cost > budget:
                raise Unsupported("the constants of the model are too large")
            with np.errstate(all="ignore"):
                results = self.evaluate(node, arrays)
        except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
            # The model fixes these inputs, so numpy may judge them.
            raise Unsupported(f"its constant inputs do not fit: {error}") from None
        results = results if isinstance(results, tuple) else (results,)
        return tuple(np.asarray(array) for array in results), cost


def _ints(array: np.ndarray | None) -> tuple[int, ...] | None:
    return None if array is None else tuple(int(item) for item in array.reshape(-1))


def _optional(arrays: Arrays, index: int) -> np.ndarray | None:
    return arrays[index] if index < len(arrays) else None


def _axes(node: Node, arrays: Arrays, index: int = 1) -> tuple[int, ...] | None:
    """Axes as an input, or as an attribute as older opsets have it."""
    given = _ints(_optional(arrays, index))
    return node.get_ints("axes") if given is None and "axes" in node.attributes else given


# -- how many elements ------------------------------------------------------------------------------------------------


def _inputs(node: Node, arrays: Arrays) -> int:
    return sum(array.size for array in arrays if array is not None)


def _constant_elements(node: Node, arrays: Arrays) -> int:
    sparse = node.attributes.get("sparse_value")
    return math.prod(sparse.shape) if isinstance(sparse, Sparse) else 0


def _stretched(node: Node, arrays: Arrays) -> int:
    return math.prod(broadcast(*(array.shape for array in arrays if array is not None)))


def _shape_input(node: Node, arrays: Arrays) -> int:
    return math.prod(_ints(arrays[0]))


def _expand_elements(node: Node, arrays: Arrays) -> int:
    return math.prod(broadcast(arrays[0].shape, _ints(arrays[1])))


def _tile_elements(node: Node, arrays: Arrays) -> int:
    return arrays[0].size * math.prod(max(repeat, 0) for repeat in _ints(arrays[1]))


def _range_elements(node: Node, arrays: Arrays) -> int:
    start, limit, delta = (array.reshape(-1)[0].item() for array in arrays)
    if not delta or not all(map(math.isfinite, (start, limit, delta))):
        raise Unsupported(f"range({start}, {limit}, {delta}) has no end")
    return max(math.ceil((limit - start) / delta), 0)


def _gather_elements(node: Node, arrays: Arrays) -> int:
    data, indices = arrays[:2]
    return math.prod(_without(data.shape, normal_axis(node.get_int("axis", 0), data.ndim))) * indices.size


def _reduced_elements(node: Node, arrays: Arrays) -> int:
    """With an extent of 0 among the reduced ones the result is larger than the operand."""
    axes = [axis % arrays[0].ndim for axis in _axes(node, arrays) or range(arrays[0].ndim)]
    return arrays[0].size + math.prod(extent for axis, extent in enumerate(arrays[0].shape) if axis not in axes)


def _nonzero_elements(node: Node, arrays: Arrays) -> int:
    return arrays[0].size * arrays[0].ndim


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


# -- evaluation -------------------------------------------------------------------------------------------------------


def _constant(node: Node, arrays: Arrays) -> Result:
    for name, dtype in (
        ("value", None),
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        if name in node.attributes:
            value = node.attributes[name]
            if isinstance(value, Opaque):
                raise Unsupported(f"the constant is {value.what}")
            return np.asarray(value, dtype)
    sparse = node.attributes.get("sparse_value")
    if isinstance(sparse, Sparse):
        return sparse.dense()
    raise Unsupported("the constant is not a dense tensor of numbers")


def _constant_of_shape(node: Node, arrays: Arrays) -> Result:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise Unsupported("the fill value is not one number")
    return np.full(_ints(arrays[0]), value.reshape(()), value.dtype)


def _cast(node: Node, arrays: Arrays) -> Result:
    dtype = numpy_dtype(node.get_int("to"))
    if isinstance(dtype, Opaque):
        raise Unsupported(f"makes {dtype.what}")
    return arrays[0].astype(dtype)


def _cast_like(node: Node, arrays: Arrays) -> Result:
    return arrays[0].astype(arrays[1].dtype)


def _divide(node: Node, arrays: Arrays) -> Result:
    a, b = arrays
    if a.dtype.kind not in "iu":
        return a / b
    if not np.all(b):
        raise Unsupported("division by zero")
    quotient = a // b  # rounds down; ONNX rounds to zero
    return quotient + ((quotient < 0) & (quotient * b != a))


def _mod(node: Node, arrays: Arrays) -> Result:
    a, b = arrays
    if a.dtype.kind in "iu" and not np.all(b):
        raise Unsupported("division by zero")
    return np.fmod(a, b) if node.get_int("fmod", 0) else np.mod(a, b)


def _power(node: Node, arrays: Arrays) -> Result:
    return np.power(*arrays).astype(arrays[0].dtype)


def _many(function: np.ufunc, node: Node, arrays: Arrays) -> Result:
    result = arrays[0]
    for array in arrays[1:]:
        result = function(result, array)
    return result


def _apply(function: Callable[..., np.ndarray], node: Node, arrays: Arrays) -> Result:
    return function(*arrays)


def _unary(function: np.ufunc, node: Node, arrays: Arrays) -> Result:
    """In the dtype of the operand, where numpy would widen."""
    return function(arrays[0]).astype(arrays[0].dtype)


def _reduce(function: Callable[..., np.ndarray], node: Node, arrays: Arrays) -> Result:
    axes = _axes(node, arrays)
    if not axes and node.get_int("noop_with_empty_axes", 0):
        return arrays[0]
    axes = normal_axes(axes, arrays[0].ndim) if axes else None
    return function(arrays[0], axis=axes, keepdims=bool(node.get_int("keepdims", 1))).astype(arrays[0].dtype)


def _reshape(node: Node, arrays: Arrays) -> Result:
    shape = reshape_target(arrays[0].shape, _ints(arrays[1]), allow_zero=bool(node.get_int("allowzero", 0)))
    return arrays[0].reshape(shape)


def _flatten(node: Node, arrays: Arrays) -> Result:
    axis = node.get_int("axis", 1)
    return arrays[0].reshape(math.prod(arrays[0].shape[:axis]), -1)


def _squeeze(node: Node, arrays: Arrays) -> Result:
    return arrays[0].reshape(squeezed(arrays[0].shape, _axes(node, arrays)))


def _unsqueeze(node: Node, arrays: Arrays) -> Result:
    return arrays[0].reshape(unsqueezed(arrays[0].shape, _axes(node, arrays) or ()))


def _transpose(node: Node, arrays: Arrays) -> Result:
    return arrays[0].transpose(node.get_ints("perm", tuple(reversed(range(arrays[0].ndim)))))


def _concat(node: Node, arrays: Arrays) -> Result:
    return np.concatenate(arrays, axis=node.get_int("axis"))


def _slice(node: Node, arrays: Arrays) -> Result:
    if "starts" in node.attributes:
        starts, ends = node.get_ints("starts"), node.get_ints("ends")
        axes, steps = node.get_ints("axes", tuple(range(len(starts)))), None
    else:
        starts, ends, axes, steps = (_ints(_optional(arrays, index)) for index in range(1, 5))
    result = arrays[0]
    taken = slice_ranges(result.shape, starts, ends, axes, steps)
    return result[tuple(slice(r.start, r.stop if r.stop >= 0 else None, r.step) for r in taken)]


def _split(node: Node, arrays: Arrays) -> Result:
    axis = normal_axis(node.get_int("axis", 0), arrays[0].ndim)
    given = node.get_ints("split") if "split" in node.attributes else _ints(_optional(arrays, 1))
    sizes = split_sizes(arrays[0].shape[axis], len(node.outputs), given)
    return tuple(np.split(arrays[0], np.cumsum(sizes)[:-1], axis=axis))


def _gather(node: Node, arrays: Arrays) -> Result:
    return np.take(arrays[0], arrays[1], axis=node.get_int("axis", 0))


def _range(node: Node, arrays: Arrays) -> Result:
    start, limit, delta = (array.reshape(-1)[0] for array in arrays)
    return np.arange(start, limit, delta, dtype=arrays[0].dtype)


def _expand(node: Node, arrays: Arrays) -> Result:
    return np.broadcast_to(arrays[0], broadcast(arrays[0].shape, _ints(arrays[1])))


def _tile(node: Node, arrays: Arrays) -> Result:
    return np.tile(arrays[0], _ints(arrays[1]))


def _nonzero(node: Node, arrays: Arrays) -> Result:
    return np.array(np.nonzero(arrays[0]), np.int64)


def _unique(node: Node, arrays: Arrays) -> Result:
    x, axis = arrays[0], node.get_int("axis") if "axis" in node.attributes else None
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    if not node.get_int("sorted", 1):
        order = np.argsort(first)
        values = np.take(values, order, axis=axis or 0)
        inverse, first, counts = np.argsort(order)[inverse], first[order], counts[order]
    return values, *(np.asarray(array, np.int64).reshape(-1) for array in (first, inverse, counts))


def _compress(node: Node, arrays: Arrays) -> Result:
    axis = node.get_int("axis") if "axis" in node.attributes else None
    return np.compress(arrays[1], arrays[0], axis=axis)


def _identity(node: Node, arrays: Arrays) -> Result:
    return arrays[0]


def _table(
    functions: dict[str, Callable[[Node, Arrays], Result]], elements: Callable[[Node, Arrays], int]
) -> dict[str, Fold]:
    return {name: Fold(function, elements) for name, function in functions.items()}


FOLDS: dict[str, Fold] = {
    **_table(
        {
            "Identity": _identity,
            "Cast": _cast,
            "CastLike": _cast_like,
            "Reshape": _reshape,
            "Flatten": _flatten,
            "Squeeze": _squeeze,
            "Unsqueeze": _unsqueeze,
            "Transpose": _transpose,
            "Concat": _concat,
            "Slice": _slice,
            "Split": _split,
            "Neg": partial(_unary, np.negative),
            "Abs": partial(_unary, np.abs),
            "Floor": partial(_unary, np.floor),
            "Ceil": partial(_unary, np.ceil),
            "Round": partial(_unary, np.rint),
            "Sqrt": partial(_unary, np.sqrt),
            "Exp": partial(_unary, np.exp),
            "Log": partial(_unary, np.log),
            "Sin": partial(_unary, np.sin),
            "Cos": partial(_unary, np.cos),
            "Reciprocal": partial(_unary, np.reciprocal),
            "Not": partial(_apply, np.logical_not),
        },
        _inputs,
    ),
    **_table(
        {
            "Add": partial(_apply, np.add),
            "Sub": partial(_apply, np.subtract),
            "Mul": partial(_apply, np.multiply),
            "Div": _divide,
            "Mod": _mod,
            "Pow": _power,
            "Min": partial(_many, np.minimum),
            "Max": partial(_many, np.maximum),
            "Sum": partial(_many, np.add),
            "Equal": partial(_apply, np.equal),
            "Greater": partial(_apply, np.greater),
            "GreaterOrEqual": partial(_apply, np.greater_equal),
            "Less": partial(_apply, np.less),
            "LessOrEqual": partial(_apply, np.less_equal),
            "And": partial(_apply, np.logical_and),
            "Or": partial(_apply, np.logical_or),
            "Xor": partial(_apply, np.logical_xor),
            "Where": partial(_apply, np.where),
        },
        _stretched,
    ),
    **_table(
        {
            "ReduceSum": partial(_reduce, np.sum),
            "ReduceProd": partial(_reduce, np.prod),
            "ReduceMax": partial(_reduce, np.max),
            "ReduceMin": partial(_reduce, np.min),
        },
        _reduced_elements,
    ),
    "Constant": Fold(_constant, _constant_elements),
    "Unique": Fold(_unique, _inputs),
    "Compress": Fold(_compress, _inputs),
    "NonZero": Fold(_nonzero, _nonzero_elements),
    "ConstantOfShape": Fold(_constant_of_shape, _shape_input),
    "Range": Fold(_range, _range_elements),
    "Gather": Fold(_gather, _gather_elements),
    "Expand": Fold(_expand, _expand_elements),
    "Tile": Fold(_tile, _tile_elements),
}
