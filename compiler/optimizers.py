"""Optimizer steps as nodes: clipped, scaled gradients go in; new parameters and states are the program's updates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.compiler.parameter_groups import ParameterGroup
from edgec.compiler.rewrite import reserve
from edgec.compiler.sparse.scheme import source_name
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.adam_update import AdamUpdate
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.bias_correction import BiasCorrection
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.div import Div
from edgec.graph.ops.lion_update import LionUpdate
from edgec.graph.ops.minimum import Minimum
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.types import DType, tensor

LEARNING_RATE = "lr"
STEPS = "optimizer/steps"
GRADIENT_NORM = "gradient_norm"
RATE = "/rate"  # behind a parameter's name: the scalar that multiplies its learning rate

_TINY = 1e-6  # torch's clip_grad_norm_ adds it to the norm


class UpdateBuilder:
    """Writes the updates of `graph`. `weights` names the parameters that decay where biases and norms do not."""

    def __init__(self, graph: Graph, train: Train, weights: set[str]):
        self._graph, self._train, self._weights = graph, train, weights
        reserve(graph, LEARNING_RATE, "the learning rate")
        rate = graph.add_leaf(Role.SCALAR, LEARNING_RATE, tensor(DType.F32))
        self._rates = {1.0: rate}
        self._own_rates: dict[Value, Value] = {}
        self._corrections: list[Value] = []

    def update(self, gradients: Mapping[Value, Value], weight: Value | None = None) -> None:
        """One step of every parameter (a leaf) with its gradient, which is `weight` times what it should be."""
        scale = None if weight is None else self._emit(Div(), self._number(1.0, weight), weight)
        if self._train.rates == "runtime":
            self._own_rates = {param: self._own_rate(param) for param in gradients}
        if self._train.clip_norm is not None or self._train.guard == "grads":
            scale = self._watch_norm(gradients, scale)
        for param, gradient in gradients.items():
            self._step(param, self._prepared(gradient, scale))

    # -- gradients --------------------------------------------------------------------------------------------------

    def _watch_norm(self, gradients: Mapping[Value, Value], scale: Value | None) -> Value | None:
        """The norm of all gradients becomes an output, watched where asked; returns the scale that bounds it."""
        squares = [self._square_sum(gradient, self._own_rates.get(param)) for param, gradient in gradients.items()]
        total = squares[0]
        for square in squares[1:]:
            total = self._emit(Add(), total, square)
        norm = self._emit(Sqrt(), total)
        if scale is not None:
            norm = self._emit(Mul(), norm, scale)
        if GRADIENT_NORM in self._graph.outputs:
            raise UserError("E0302", f"the model has an output called `{GRADIENT_NORM}`, the name of one of training")
        self._graph.outputs[GRADIENT_NORM] = norm
        if self._train.guard == "grads":
            self._graph.guard = GRADIENT_NORM
        if self._train.clip_norm is None:
            return scale
        bounded = self._emit(Add(), norm, self._number(_TINY, norm))
        factor = self._emit(Div(), self._number(self._train.clip_norm, norm), bounded)
        factor = self._emit(Minimum(), factor, self._number(1.0, norm))
        return factor if scale is None else self._emit(Mul(), factor, scale)

    def _square_sum(self, gradient: Value, rate: Value | None) -> Value:
        if gradient.type.dtype in (DType.F16, DType.BF16):
            gradient = self._emit(Cast(DType.F32.value), gradient)
        total = self._emit(ReduceSum(tuple(range(gradient.type.rank))), self._emit(Mul(), gradient, gradient))
        if rate is None:
            return total
        weight = self._emit(Mul(), rate, rate)
        if weight.type.dtype is not total.type.dtype:
            weight = self._emit(Cast(total.type.dtype.value), weight)
        return self._emit(Mul(), total, weight)

    def _prepared(self, gradient: Value, scale: Value | None) -> Value:
        if scale is not None:
            if scale.type.dtype is not gradient.type.dtype:
                scale = self._emit(Cast(gradient.type.dtype.value), scale)
            gradient = self._emit(Mul(), gradient, scale)
        if self._train.clip_value is not None:
            gradient = self._emit(Clip(-float(self._train.clip_value), float(self._train.clip_value)), gradient)
        return gradient

    # -- parameters -------------------------------------------------------------------------------------------------

    def _step(self, param: Value, gradient: Value) -> None:
        train = self._train
        group = next((group for group in train.groups if group.holds(param.name)), ParameterGroup("*"))
        rate, decay = self._rate(float(group.rate)), self._decay(param, group)
        if param in self._own_rates:
            rate = self._emit(Mul(), rate, self._own_rates[param])
        beta1, beta2 = (float(beta) for beta in train.averages)
        match train.optimizer:
            case "sgd":
                op: Op = SgdUpdate(float(train.momentum), decay, train.nesterov)
                scalars, states = [rate], ["momentum"] if train.momentum else []
            case "adam" | "adamw":
                op = AdamUpdate(beta1, beta2, float(train.epsilon), decay, decoupled=train.optimizer == "adamw")
                scalars, states = [rate, *self._bias_corrections()], ["exp_avg", "exp_avg_sq"]
            case _:
                op, scalars, states = LionUpdate(beta1, beta2, decay), [rate], ["exp_avg"]
        targets = [param, *(self._state(param, name) for name in states)]
        new = self._graph.emit(op, param, gradient, *scalars, *targets[1:], names=[f"{t.name}.new" for t in targets])
        self._graph.updates.update(zip(targets, new, strict=True))

    def _decay(self, param: Value, group: ParameterGroup) -> float:
        if group.weight_decay is not None:
            return float(group.weight_decay)
        spared = self._train.decay == "weights" and param.name not in self._weights
        return 0.0 if spared else self._train.decay_rate

    def _own_rate(self, param: Value) -> Value:
        name = source_name(param.name) + RATE
        reserve(self._graph, name, "the rate of a parameter")
        return self._graph.add_leaf(Role.SCALAR, name, tensor(DType.F32))

    def _rate(self, factor: float) -> Value:
        """The learning rate times the factor of a group; computed once."""
        if factor not in self._rates:
            rate = self._rates[1.0]
            self._rates[factor] = self._emit(Mul(), rate, self._number(factor, rate))
        return self._rates[factor]

    def _bias_corrections(self) -> list[Value]:
        """Of both averages after this step. The count of steps is a state: resuming and counting are one thing."""
        if not self._corrections:
            steps = self._graph.add_leaf(Role.STATE, STEPS, tensor(DType.F32), data=np.zeros((), np.float32))
            count = self._emit(Add(), steps, self._number(1.0, steps))
            self._graph.updates[steps] = count
            self._corrections = [self._emit(BiasCorrection(float(beta)), count) for beta in self._train.averages]
        return self._corrections

    def _state(self, param: Value, name: str) -> Value:
        zeros = np.zeros(param.type.shape, param.type.dtype.numpy)
        return self._graph.add_leaf(Role.STATE, f"{param.name}/{name}", param.type, data=zeros)

    def _number(self, number: float, like: Value) -> Value:
        return self._graph.constant(np.array(number, like.type.dtype.numpy), "update.constant")

    def _emit(self, op: Op, *operands: Value) -> Value:
        return self._graph.emit1(op, *operands)
