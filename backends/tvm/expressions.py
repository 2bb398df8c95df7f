"""Every elementwise op of the graph as a vector expression: one table, used by epilogues and by elementwise kernels.

An entry maps (op, operands) to results, one per output of the op; operands are f32 expressions with equal lanes.
The formulas are those of the ops' numpy references; NaN passes through every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import bind, constant, lanes_of, maximum, minimum, select
from edgec.backends.tvm.functions import exp
from edgec.graph.ops.base import Op

Formula = Callable[..., Expr]


def _like(x: Expr, value: float) -> Expr:
    return constant(value, lanes_of(x))


def _clip(x: Expr, low: float, high: float) -> Expr:
    return minimum(_like(x, high), maximum(_like(x, low), x))


def _sigmoid(x: Expr) -> Expr:
    one = _like(x, 1.0)
    return one / (one + exp(_like(x, 0.0) - x))


def _pass_where(condition: Expr, dy: Expr) -> Expr:
    return select(condition, dy, _like(dy, 0.0))


def _inside(y: Expr, low: float, high: float, dy: Expr) -> Expr:
    """`dy` where low < y < high, else 0."""
    return _pass_where(y > _like(y, low), _pass_where(y < _like(y, high), dy))


def _hard_swish_grad(dy: Expr, x: Expr) -> Expr:
    """d/dx of x * clip(x / 6 + 1/2, 0, 1): 0 below -3, 1 above 3, x / 3 + 1/2 between (and at the ends, 0 and 1)."""
    slope = x * _like(x, 1.0 / 3.0) + _like(x, 0.5)
    slope = select(x <= _like(x, -3.0), _like(x, 0.0), select(x >= _like(x, 3.0), _like(x, 1.0), slope))
    return dy * slope


def _sgd_update(op: Op, param: Expr, grad: Expr, lr: Expr, velocity: Expr | None = None) -> tuple[Expr, ...]:
    """torch.optim.SGD: g = grad + wd * param; v = momentum * v + g; step = g + momentum * v (nesterov), v or g."""
    if op.weight_decay:
        grad = bind(grad + _like(param, op.weight_decay) * param)
    if velocity is None:
        return (param - lr * grad,)
    velocity = bind(_like(param, op.momentum) * velocity + grad)
    step = grad + _like(param, op.momentum) * velocity if op.nesterov else velocity
    return (param - lr * step, velocity)


# Single-output ops by their text name: op and operands to the result.
_FORMULAS: Mapping[str, Formula] = {
    "broadcast_to": lambda op, x: x,  # whoever loads an operand broadcasts it
    "add": lambda op, a, b: a + b,
    "sub": lambda op, a, b: a - b,
    "mul": lambda op, a, b: a * b,
    "div": lambda op, a, b: a / b,
    "relu": lambda op, x: maximum(_like(x, 0.0), x),
    "sigmoid": lambda op, x: _sigmoid(x),
    "exp": lambda op, x: exp(x),
    "clip": lambda op, x: _clip(x, op.low, op.high),
    "hard_sigmoid": lambda op, x: _clip(_like(x, op.alpha) * x + _like(x, op.beta), 0.0, 1.0),
    "hard_swish": lambda op, x: x * _clip(x * _like(x, 1.0 / 6.0) + _like(x, 0.5), 0.0, 1.0),
    "relu_grad": lambda op, dy, y: _pass_where(y > _like(y, 0.0), dy),
    "sigmoid_grad": lambda op, dy, y: dy * y * (_like(y, 1.0) - y),
    "clip_grad": lambda op, dy, y: _inside(y, op.low, op.high, dy),
    "hard_sigmoid_grad": lambda op, dy, y: _inside(y, 0.0, 1.0, _like(dy, op.alpha) * dy),
    "hard_swish_grad": lambda op, dy, x: _hard_swish_grad(dy, x),
}


def evaluate(op: Op, operands: Sequence[Expr]) -> tuple[Expr, ...]:
    """The results of an elementwise op, each bound to a name. Operands must have equal lanes."""
    # An operand may appear several times in a formula.
    named = [bind(x) for x in operands]
    results = _sgd_update(op, *named) if op.name == "sgd_update" else (_FORMULAS[op.name](op, *named),)
    return tuple(bind(result) for result in results)


SUPPORTED = frozenset(_FORMULAS) | {"sgd_update"}
