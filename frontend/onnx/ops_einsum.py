"""`Einsum`: sums, products and diagonals as transposes, reshapes, matmul and reductions."""

from __future__ import annotations

import math
import re

import numpy as np

from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_indexing import pick
from edgec.graph.ir import Value
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.transpose import Transpose

_EQUATION = re.compile(r"([A-Za-z.]*(?:,[A-Za-z.]*)*)(?:->([A-Za-z.]*))?")
_DOTS = "0123456789"  # names of the axes that an ellipsis stands for, aligned at the last


def _einsum(ctx: Context, node: Node) -> Converted:
    values = [ctx.value(node, index) for index in range(len(node.inputs))]
    terms, result = _parse(node.get_str("equation"), [value.type.rank for value in values])
    sizes: dict[str, int] = {}
    for term, value in zip(terms, values, strict=True):
        for letter, extent in zip(term, value.type.shape, strict=True):
            if sizes.setdefault(letter, extent) != extent and 1 not in (extent, sizes[letter]):
                raise Unsupported(f"`{letter}` is {sizes[letter]} and {extent}")
            sizes[letter] = max(sizes[letter], extent)
    if not set(result) <= set(sizes):
        raise Unsupported("the result names an axis that no operand has")
    term, value = _diagonal(ctx, node, terms[0], values[0])
    for position in range(1, len(values)):
        later = set(result).union(*terms[position + 1 :])
        term, value = _product(ctx, node, (term, value), _diagonal(ctx, node, terms[position], values[position]), later)
    term, value = _summed(ctx, node, term, value, set(result))
    return _ordered(ctx, node, term, value, result)


def _parse(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The axes of each operand and of the result as letters."""
    match = _EQUATION.fullmatch(equation.replace(" ", ""))
    if match is None or len(match[1].split(",")) != len(ranks):
        raise Unsupported(f"the equation `{equation}` does not fit {len(ranks)} operands")
    terms, widest = [], 0
    for term, rank in zip(match[1].split(","), ranks, strict=True):
        dots = rank - len(term.replace("...", ""))
        if term.count(".") not in (0, 3) or not 0 <= dots <= len(_DOTS) or (dots and "..." not in term):
            raise Unsupported(f"`{term}` of the equation does not fit rank {rank}")
        terms.append(term.replace("...", _DOTS[len(_DOTS) - dots :]))
        widest = max(widest, dots)
    dots = _DOTS[len(_DOTS) - widest :]
    if match[2] is not None:
        result = match[2].replace("...", dots)
    else:
        letters = "".join(terms)
        result = dots + "".join(sorted({c for c in letters if letters.count(c) == 1 and c not in _DOTS}))
    if "." in result or len(set(result)) < len(result):
        raise Unsupported(f"the result of the equation `{equation}` names an axis twice")
    return terms, result


def _diagonal(ctx: Context, node: Node, term: str, x: Value) -> tuple[str, Value]:
    """Axes of one name as one: every (extent + 1)-th element of both, made flat."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first, second = [axis for axis, name in enumerate(term) if name == letter][:2]
            extent = x.type.shape[first]
            if x.type.shape[second] != extent:
                raise Unsupported(f"`{letter}` names axes of {extent} and {x.type.shape[second]}")
            rest = [axis for axis in range(x.type.rank) if axis not in (first, second)]
            x = ctx.emit(node, Transpose((first, second, *rest)), x)
            x = ctx.emit(node, Reshape((extent * extent, *x.type.shape[2:])), x)
            x = pick(ctx, node, x, 0, np.arange(extent) * (extent + 1))
            term = letter + "".join(term[axis] for axis in rest)
    return term, x


def _product(
    ctx: Context, node: Node, left: tuple[str, Value], right: tuple[str, Value], later: set[str]
) -> tuple[str, Value]:
    """Two operands as one matrix product: (shared and kept), rows, columns, and what is summed over."""
    (a_term, a), (b_term, b) = (_summed(ctx, node, *pair, later | set(other[0])) for pair, other in
                                ((left, right), (right, left)))  # fmt: skip
    both = [c for c in a_term if c in b_term]
    if any(_extent(a_term, a, c) != _extent(b_term, b, c) for c in both):  # an extent of 1 is stretched
        union = "".join(dict.fromkeys(a_term + b_term))
        a, b = (_spread(ctx, node, term, x, union) for term, x in ((a_term, a), (b_term, b)))
        return _summed(ctx, node, union, ctx.emit(node, Mul(), a, b), later)
    batch, inner = [c for c in both if c in later], [c for c in both if c not in later]
    rows, columns = ([c for c in term if c not in both] for term in (a_term, b_term))
    a = _ordered(ctx, node, a_term, a, "".join([*batch, *rows, *inner]))
    b = _ordered(ctx, node, b_term, b, "".join([*batch, *inner, *columns]))
    kept, m, n = (
        a.type.shape[: len(batch)],
        a.type.shape[len(batch) : len(batch) + len(rows)],
        b.type.shape[-len(columns) :],
    )
    n = n if columns else ()
    depth = math.prod(a.type.shape[len(batch) + len(rows) :])
    a = ctx.emit(node, Reshape((*kept, math.prod(m), depth)), a)
    b = ctx.emit(node, Reshape((*kept, depth, math.prod(n))), b)
    y = ctx.emit(node, Reshape((*kept, *m, *n)), ctx.emit(node, MatMul(), a, b))
    return "".join([*batch, *rows, *columns]), y


def _extent(term: str, x: Value, letter: str) -> int:
    return x.type.shape[term.index(letter)]


def _spread(ctx: Context, node: Node, term: str, x: Value, union: str) -> Value:
    """`x` with its axes in the order of `union` and extents of 1 where it has none."""
    own = "".join(c for c in union if c in term)
    x = _ordered(ctx, node, term, x, own)
    extents = iter(x.type.shape)
    return ctx.emit(node, Reshape(tuple(next(extents) if c in own else 1 for c in union)), x)


def _summed(ctx: Context, node: Node, term: str, x: Value, kept: set[str]) -> tuple[str, Value]:
    """`x` without the axes that nobody reads any more."""
    axes = tuple(axis for axis, letter in enumerate(term) if letter not in kept)
    if not axes:
        return term, x
    return "".join(c for c in term if c in kept), ctx.emit(node, ReduceSum(axes), x)


def _ordered(ctx: Context, node: Node, term: str, x: Value, wanted: str) -> Value:
    perm = tuple(term.index(letter) for letter in wanted)
    return x if perm == tuple(range(x.type.rank)) else ctx.emit(node, Transpose(perm), x)


EINSUM = {"Einsum": _einsum}
