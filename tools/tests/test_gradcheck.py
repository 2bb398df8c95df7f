"""The gradient check sees what it is there to see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from edgec.graph.ops import Mul, Relu, Reshape, Sub
from edgec.tools.testing.gradcheck import check_vjp, numerical_gradient, vjp_gradients
from edgec.tools.testing.strategies import normal, off_kinks

X, Y = normal((2, 3), 1), normal((2, 3), 2)


def test_sound_gradients_pass():
    check_vjp(Mul(), X, Y)
    check_vjp(Relu(), off_kinks(X, 0.0))


def test_numerical_gradient_of_a_known_function():
    np.testing.assert_allclose(numerical_gradient(Mul(), [X, Y], [np.ones((2, 3))], 0), Y, rtol=1e-8)


@dataclass(frozen=True)
class WrongSign(Sub):
    def vjp(self, build, inputs, outputs, gradients):
        return (gradients[0] if build.wanted(inputs[0]) else None, gradients[0] if build.wanted(inputs[1]) else None)


@dataclass(frozen=True)
class Swapped(Mul):
    def vjp(self, build, inputs, outputs, gradients):
        return tuple(reversed(super().vjp(build, inputs, outputs, gradients)))


@dataclass(frozen=True)
class Forgetful(Mul):
    def vjp(self, build, inputs, outputs, gradients):
        return (super().vjp(build, inputs, outputs, gradients)[0], None)


@dataclass(frozen=True)
class Diligent(Mul):
    def vjp(self, build, inputs, outputs, gradients):
        (dy,) = gradients
        a, b = inputs
        return build.emit(Mul(), dy, b), build.emit(Mul(), dy, a)


@dataclass(frozen=True)
class WrongShape(Mul):
    def vjp(self, build, inputs, outputs, gradients):
        return (build.emit(Reshape((3, 2)), gradients[0]), None)


@dataclass(frozen=True)
class TooFew(Mul):
    def vjp(self, build, inputs, outputs, gradients):
        return (gradients[0],)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (WrongSign(), "input 1"),
        (Swapped(), "input 0"),
        (Forgetful(), "no gradient for its float input 1"),
        (Diligent(), "computes the gradient of input 1, which nobody wants"),
        (WrongShape(), r"is %reshape: f64\[3,2\], of %x0: f64\[2,3\]"),
        (TooFew(), "gives 1 gradients for 2 inputs"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_broken_gradients_are_seen(op, message):
    with pytest.raises(AssertionError, match=message):
        check_vjp(op, X, Y)


def test_gradients_keep_the_precision_of_the_inputs():
    (dx, _) = vjp_gradients(Sub(), [X.astype(np.float32), Y.astype(np.float32)], [X])
    assert dx.dtype == np.float32


def test_off_kinks_moves_only_what_is_near():
    moved = off_kinks(np.array([-1.0, -1e-4, 0.0, 1.0]), 0.0)
    np.testing.assert_array_equal(moved, [-1.0, 1e-3, 1e-3, 1.0])
