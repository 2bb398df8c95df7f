"""Every elementwise op of the graph as a vector expression: one table, used by epilogues and by elementwise kernels.

An entry maps (op, operands) to results, one per output of the op; operands have equal lanes and the types that kernels
compute with (`builder.VALUE_DTYPE`). The formulas are those of the ops' numpy references; NaN passes through every one
of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from edgec.backends.tvm import integers, trigonometry
from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import bind, detach, like, maximum, minimum, scalar_type, select
from edgec.backends.tvm.conversions import convert, truth
from edgec.backends.tvm.functions import (
    ceil,
    erf,
    exp,
    floor,
    horner,
    log,
    log1p,
    magnitude,
    nearest,
    power,
    remainder,
    sqrt,
)
from edgec.graph.ops.base import Op
from edgec.graph.ops.compress import LARGEST_F16, Compress
from edgec.graph.types import DType

Formula = Callable[..., Expr]


def _is_float(x: Expr) -> bool:
    return scalar_type(x) == "float32"


def _clip(x: Expr, low: float, high: float) -> Expr:
    if not _is_float(x):
        low, high = integers.within(x, low), integers.within(x, high)
    return minimum(like(x, high), maximum(like(x, low), x))


def _sigmoid(x: Expr) -> Expr:
    one = like(x, 1.0)
    return one / (one + exp(like(x, 0.0) - x))


def _pass_where(condition: Expr, dy: Expr) -> Expr:
    return select(condition, dy, like(dy, 0.0))


def _inside(y: Expr, low: float, high: float, dy: Expr) -> Expr:
    """`dy` where low < y < high, else 0."""
    return _pass_where(y > like(y, low), _pass_where(y < like(y, high), dy))


def _hard_swish_grad(dy: Expr, x: Expr) -> Expr:
    """d/dx of x * clip(x / 6 + 1/2, 0, 1): 0 below -3, 1 above 3, x / 3 + 1/2 between (and at the ends, 0 and 1)."""
    slope = x * like(x, 1.0 / 3.0) + like(x, 0.5)
    slope = select(x <= like(x, -3.0), like(x, 0.0), select(x >= like(x, 3.0), like(x, 1.0), slope))
    return dy * slope


def _negate(x: Expr) -> Expr:
    """Not 0 - x: that loses the sign of 0."""
    return x * like(x, -1.0) if _is_float(x) else like(x, 0) - x


def _sign(x: Expr) -> Expr:
    if not _is_float(x):
        return integers.sign(x)
    return select(x > like(x, 0), like(x, 1), select(x < like(x, 0), like(x, -1), x))


def _extremum(function: Callable[[Expr, Expr], Expr], a: Expr, b: Expr) -> Expr:
    """`minimum` and `maximum` let a NaN in b through; here one in a passes as well."""
    return select(a == a, function(a, b), a) if _is_float(a) else function(a, b)


def _floor_mod(a: Expr, b: Expr) -> Expr:
    rest = remainder(a, b)
    zero = like(a, 0.0)
    wrong = select(b < zero, truth(rest > zero), truth(rest < zero))
    return select(wrong != like(wrong, 0), rest + b, rest)


def _sgd_update(op: Op, param: Expr, grad: Expr, lr: Expr, velocity: Expr | None = None) -> tuple[Expr, ...]:
    """torch.optim.SGD: g = grad + wd * param; v = momentum * v + g; step = g + momentum * v (nesterov), v or g."""
    if op.weight_decay:
        grad = bind(grad + like(param, op.weight_decay) * param)
    if velocity is None:
        return (param - lr * grad,)
    velocity = bind(like(param, op.momentum) * velocity + grad)
    step = grad + like(param, op.momentum) * velocity if op.nesterov else velocity
    return (param - lr * step, velocity)


def _adam_update(op: Op, param: Expr, grad: Expr, lr: Expr, c1: Expr, c2: Expr, m: Expr, v: Expr) -> tuple[Expr, ...]:
    """torch.optim.Adam; `decoupled`, torch.optim.AdamW."""
    if op.decoupled:
        param = bind(param - lr * like(param, op.weight_decay) * param)
    elif op.weight_decay:
        grad = bind(grad + like(param, op.weight_decay) * param)
    m = bind(m + like(m, 1 - op.beta1) * (grad - m))
    v = bind(like(v, op.beta2) * v + like(v, 1 - op.beta2) * grad * grad)
    step = m / (sqrt(v) / sqrt(c2) + like(v, op.epsilon))
    return (param - lr / c1 * step, m, v)


def _lion_update(op: Op, param: Expr, grad: Expr, lr: Expr, m: Expr) -> tuple[Expr, ...]:
    blend = bind(like(m, op.beta1) * m + like(m, 1 - op.beta1) * grad)
    average = like(m, op.beta2) * m + like(m, 1 - op.beta2) * grad
    return (param - lr * (_sign(blend) + like(param, op.weight_decay) * param), average)


def _compress(op: Compress, x: Expr, *scaling: Expr) -> Expr:
    if not scaling:  # rounded where it is stored
        return minimum(like(x, LARGEST_F16), maximum(like(x, -LARGEST_F16), x))
    inverse, zero = scaling
    steps = nearest(x * inverse) - zero
    return convert(minimum(like(x, 255.0), maximum(like(x, 0.0), steps)), op.dtype)


def _decompress(kept: Expr, *scaling: Expr) -> Expr:
    if not scaling:
        return kept
    scale, zero = scaling
    return (convert(kept, DType.F32) + zero) * scale


def _bias_correction(t: Expr, beta: float) -> Expr:
    """1 - beta ** t = -(exp(x) - 1) with x = t * log(beta): near 0 by its series, where the difference loses digits."""
    x = bind(t * like(t, math.log(beta)))
    series = horner(x, *(1 / math.factorial(n) for n in range(9, 0, -1)))
    return select(x > like(x, -0.5), like(x, 0.0) - x * series, like(x, 1.0) - exp(x))


def _bce_logits(x: Expr, t: Expr) -> Expr:
    wrong = select(x > like(x, 0.0), like(t, 1.0) - t, like(t, 0.0) - t)
    return x * wrong + log1p(exp(like(x, 0.0) - magnitude(x)))


# Single-output ops by their text name: op and operands to the result.
_FORMULAS: Mapping[str, Formula] = {
    "broadcast_to": lambda op, x: x,  # whoever loads an operand broadcasts it
    "add": lambda op, a, b: a + b,
    "sub": lambda op, a, b: a - b,
    "mul": lambda op, a, b: a * b,
    "div": lambda op, a, b: a / b if _is_float(a) else integers.divide(a, b),
    "neg": lambda op, x: _negate(x),
    "abs": lambda op, x: magnitude(x) if _is_float(x) else integers.magnitude(x),
    "sign": lambda op, x: _sign(x),
    "minimum": lambda op, a, b: _extremum(minimum, a, b),
    "maximum": lambda op, a, b: _extremum(maximum, a, b),
    "mod": lambda op, a, b: _floor_mod(a, b) if _is_float(a) else integers.floor_mod(a, b),
    "fmod": lambda op, a, b: remainder(a, b) if _is_float(a) else integers.remainder(a, b),
    "pow": lambda op, a, b: power(a, b) if _is_float(a) else integers.power(a, b),
    "equal": lambda op, a, b: truth(tirx.EQ(a, b)),  # `==` is no expression yet
    "less": lambda op, a, b: truth(a < b),
    "less_equal": lambda op, a, b: truth(a <= b),
    "bit_and": lambda op, a, b: a & b,
    "bit_or": lambda op, a, b: a | b,
    "bit_xor": lambda op, a, b: a ^ b,
    "shift_left": lambda op, a, b: integers.shift_left(a, b),
    "shift_right": lambda op, a, b: integers.shift_right(a, b),
    "where": lambda op, condition, a, b: select(condition != like(condition, 0), a, b),
    "cast": lambda op, x: convert(x, op.dtype),
    "sqrt": lambda op, x: sqrt(x),
    "log": lambda op, x: log(x),
    "erf": lambda op, x: erf(x),
    "floor": lambda op, x: floor(x),
    "ceil": lambda op, x: ceil(x),
    "round": lambda op, x: nearest(x),
    "sin": lambda op, x: trigonometry.sin(x),
    "cos": lambda op, x: trigonometry.cos(x),
    "tan": lambda op, x: trigonometry.tan(x),
    "asin": lambda op, x: trigonometry.asin(x),
    "acos": lambda op, x: trigonometry.acos(x),
    "atan": lambda op, x: trigonometry.atan(x),
    "sinh": lambda op, x: trigonometry.sinh(x),
    "cosh": lambda op, x: trigonometry.cosh(x),
    "tanh": lambda op, x: trigonometry.tanh(x),
    "asinh": lambda op, x: trigonometry.asinh(x),
    "acosh": lambda op, x: trigonometry.acosh(x),
    "atanh": lambda op, x: trigonometry.atanh(x),
    "relu": lambda op, x: maximum(like(x, 0.0), x),
    "sigmoid": lambda op, x: _sigmoid(x),
    "exp": lambda op, x: exp(x),
    "clip": lambda op, x: _clip(x, op.low, op.high),
    "hard_sigmoid": lambda op, x: _clip(like(x, op.alpha) * x + like(x, op.beta), 0.0, 1.0),
    "hard_swish": lambda op, x: x * _clip(x * like(x, 1.0 / 6.0) + like(x, 0.5), 0.0, 1.0),
    "accumulate": lambda op, held, new, keep: select(keep == like(keep, 0.0), new, held + new),
    "bce_logits": lambda op, x, t: _bce_logits(x, t),
    "compress": lambda op, x, *scaling: _compress(op, x, *scaling),
    "decompress": lambda op, kept, *scaling: _decompress(kept, *scaling),
    "bias_correction": lambda op, t: _bias_correction(t, op.beta),
    "relu_grad": lambda op, dy, y: _pass_where(y > like(y, 0.0), dy),
    "sigmoid_grad": lambda op, dy, y: dy * y * (like(y, 1.0) - y),
    "clip_grad": lambda op, dy, y: _inside(y, op.low, op.high, dy),
    "hard_sigmoid_grad": lambda op, dy, y: _inside(y, 0.0, 1.0, like(dy, op.alpha) * dy),
    "hard_swish_grad": lambda op, dy, x: _hard_swish_grad(dy, x),
}


# Ops with several results: op and operands to all of them.
_UPDATES: Mapping[str, Callable[..., tuple[Expr, ...]]] = {
    "sgd_update": _sgd_update,
    "adam_update": _adam_update,
    "lion_update": _lion_update,
}


def evaluate(op: Op, operands: Sequence[Expr]) -> tuple[Expr, ...]:
    """The results of an elementwise op, each with a name. Operands must have equal lanes."""
    # An operand may appear several times in a formula.
    named = [bind(x) for x in operands]
    results = _UPDATES[op.name](op, *named) if op.name in _UPDATES else (_FORMULAS[op.name](op, *named),)
    # TVM's analysis of ranges, which sees through names, gives up on products of floats that are a choice of two.
    return tuple(detach(result) for result in results)


SUPPORTED = frozenset(_FORMULAS) | frozenset(_UPDATES)
