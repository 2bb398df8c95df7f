"""The activations of recurrent cells, which name them in attributes: `activations`, `activation_alpha`, `..._beta`.

Formulas and defaults are those of ONNX, `LSTM`, 22.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgec.frontend.onnx.context import Context
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_elementwise import leaky
from edgec.frontend.onnx.ops_math import softplus, softsign
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.less_equal import LessEqual
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.tanh import Tanh
from edgec.graph.ops.where import Where

Formula = Callable[[Context, Node, Value, float, float], Value]

_BY_CELL = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


@dataclass(frozen=True)
class Activation:
    """One of the formulas with its numbers."""

    formula: Formula
    alpha: float
    beta: float

    def __call__(self, ctx: Context, node: Node, x: Value) -> Value:
        return self.formula(ctx, node, x, self.alpha, self.beta)


def _affine(ctx: Context, node: Node, x: Value, alpha: float, beta: float) -> Value:
    return ctx.emit(node, Add(), _scaled(ctx, node, x, alpha), ctx.number(node, beta, x))


def _scaled(ctx: Context, node: Node, x: Value, factor: float) -> Value:
    return x if factor == 1 else ctx.emit(node, Mul(), x, ctx.number(node, factor, x))


def _scaled_tanh(ctx: Context, node: Node, x: Value, alpha: float, beta: float) -> Value:
    return _scaled(ctx, node, ctx.emit(node, Tanh(), _scaled(ctx, node, x, beta)), alpha)


def _leaky_relu(ctx: Context, node: Node, x: Value, alpha: float, beta: float) -> Value:
    return leaky(ctx, node, x, ctx.number(node, alpha, x))


def _thresholded_relu(ctx: Context, node: Node, x: Value, alpha: float, beta: float) -> Value:
    """x from alpha on, else 0."""
    passes = ctx.emit(node, LessEqual(), ctx.number(node, alpha, x), x)
    return ctx.emit(node, Where(), passes, x, ctx.number(node, 0, x))


def _elu(ctx: Context, node: Node, x: Value, alpha: float, beta: float) -> Value:
    powers = ctx.emit(node, Exp(), ctx.emit(node, Clip(-math.inf, 0.0), x))
    below = ctx.emit(node, Sub(), powers, ctx.number(node, 1, x))
    return ctx.emit(node, Add(), ctx.emit(node, Relu(), x), _scaled(ctx, node, below, alpha))


# By name in lower case: the formula, and the defaults of alpha and beta where it has them.
_FORMULAS: dict[str, tuple[Formula, float | None, float | None]] = {
    "sigmoid": (lambda ctx, node, x, alpha, beta: ctx.emit(node, Sigmoid(), x), None, None),
    "tanh": (lambda ctx, node, x, alpha, beta: ctx.emit(node, Tanh(), x), None, None),
    "relu": (lambda ctx, node, x, alpha, beta: ctx.emit(node, Relu(), x), None, None),
    "hardsigmoid": (lambda ctx, node, x, alpha, beta: ctx.emit(node, HardSigmoid(alpha, beta), x), 0.2, 0.5),
    "softsign": (lambda ctx, node, x, alpha, beta: softsign(ctx, node, x), None, None),
    "softplus": (lambda ctx, node, x, alpha, beta: softplus(ctx, node, x), None, None),
    "affine": (_affine, 1.0, 0.0),
    "scaledtanh": (_scaled_tanh, 1.0, 1.0),
    "leakyrelu": (_leaky_relu, 0.01, None),
    "thresholdedrelu": (_thresholded_relu, 1.0, None),
    "elu": (_elu, 1.0, None),
}


def read_activations(node: Node, directions: int) -> list[list[Activation]]:
    """Those of each direction of an `RNN`, `GRU` or `LSTM`, in the order of its formulas.

    The lists of alphas and betas hold numbers for those activations alone that have them.
    """
    defaults = _BY_CELL[node.op]
    names = node.attributes.get("activations", ()) or defaults * directions
    if not isinstance(names, tuple) or len(names) != len(defaults) * directions:
        raise Unsupported(f"{directions * len(defaults)} activations are needed")
    alphas, betas = (iter(_numbers(node, f"activation_{name}")) for name in ("alpha", "beta"))
    found = []
    for name in names:
        if str(name).lower() not in _FORMULAS:
            raise Unsupported(f"activation `{name}`; {', '.join(_FORMULAS)} are supported")
        formula, alpha, beta = _FORMULAS[str(name).lower()]
        alpha = alpha if alpha is None else next(alphas, alpha)
        beta = beta if beta is None else next(betas, beta)
        found.append(Activation(formula, alpha or 0.0, beta or 0.0))
    return [found[start : start + len(defaults)] for start in range(0, len(found), len(defaults))]


def _numbers(node: Node, name: str) -> tuple[float, ...]:
    values = node.attributes.get(name, ())
    if not isinstance(values, tuple) or not all(isinstance(value, int | float) for value in values):
        raise Unsupported(f"attribute `{name}` is not a list of numbers")
    return values
