"""Pieces are adopted where they differ and nowhere else; a wrong kernel is not taken for a crossing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgec.compiler.train import Train
from edgec.frontend.torch import read_torch
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.ops.relu import Relu
from edgec.tools.testing.gradient_steps import StepPrograms, check_gradients, check_honest
from edgec.tools.testing.kinks import adopt_pieces, pieces

LABELS = np.array([1, 0])


@pytest.mark.parametrize(
    ("op", "kinks"),
    [
        (Relu(), [0]),
        (Clip(0, 6), [0, 6]),
        (HardSwish(), [-3, 3]),
        (HardSigmoid(0.25, 0.5), [-2, 2]),
    ],
)
def test_elements_beside_a_kink_are_adopted(op, kinks):
    offsets = np.array([-1e-7, 1e-7])
    exact = np.array([[kink + offset for kink in kinks for offset in offsets] + [1.0, 40.0, -40.0]])
    other = exact.copy()
    other[0, : 2 * len(kinks)] -= 2 * np.tile(offsets, len(kinks))
    other[0, -3:] += 1e-7
    wanted = exact.copy()
    wanted[0, : 2 * len(kinks)] = other[0, : 2 * len(kinks)]
    adopted = adopt_pieces(op, exact, other)
    np.testing.assert_array_equal(exact, wanted)
    np.testing.assert_array_equal(adopted[0], [True] * (2 * len(kinks)) + [False] * 3)


def test_windows_adopt_the_two_taps_that_compete():
    """Windows overlap: what one adopts may change its neighbour's, which then follows."""
    rng = np.random.default_rng(0)
    op = MaxPool2dPositions((3, 3), (1, 1))
    other = rng.integers(0, 3, (1, 2, 8, 8)).astype(np.float32)  # ties all over
    exact = other + rng.uniform(-1e-6, 1e-6, other.shape)
    assert (pieces(op, exact) != pieces(op, other)).any()
    before = exact.copy()
    adopted = adopt_pieces(op, exact, other)
    np.testing.assert_array_equal(pieces(op, exact), pieces(op, other))
    np.testing.assert_array_equal(exact, np.where(adopted, other, before))
    assert not adopted.all()


@pytest.fixture(scope="module")
def inputs() -> tuple[np.ndarray]:
    return (np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32),)


@pytest.fixture
def programs(inputs) -> StepPrograms:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 8, 3), nn.ReLU6(), nn.Flatten(),
        nn.Linear(8 * 36, 4),
    )  # fmt: skip
    module = read_torch(net.eval(), tuple(map(torch.from_numpy, inputs)))
    return StepPrograms(module, Train(batch=2))


def test_a_step_in_single_precision_passes(programs, inputs):
    step = programs.single_step(inputs, LABELS)
    given = programs.given(step, inputs, LABELS)
    check_honest(given, given.errors)
    assert check_gradients(step.gradients, given.step.gradients, dict.fromkeys(step.gradients, 0.0)) == []


def test_a_crossing_is_given(programs, inputs):
    """A pre-activation within rounding of the kink, moved across: its gradient follows."""
    step = programs.single_step(inputs, LABELS)
    given = programs.given(step, inputs, LABELS)
    name = next(name for name, ops in programs.readers.items() if Clip(0, 6) in ops)
    fed = step.fed[name].copy()
    nearest = np.unravel_index(np.abs(fed).argmin(), fed.shape)
    fed[nearest] = -fed[nearest]
    crossed = programs.given(replace(step, fed=step.fed | {name: fed}), inputs, LABELS)
    assert crossed.crossings == given.crossings + 1
    assert crossed.crossed[name].max() == pytest.approx(2 * abs(fed[nearest]), rel=1e-2)
    assert any(not np.array_equal(crossed.step.gradients[key], given.step.gradients[key]) for key in step.gradients)


def test_a_product_that_leaves_out_a_term_is_not_honest(programs, inputs):
    """Its gradients would pass: those of the damaged weight's pieces, were they given."""
    yardstick = programs.given(programs.single_step(inputs, LABELS), inputs, LABELS).errors
    weight = next(leaf for leaf in programs.single.updates if leaf.type.shape == (8, 16, 3, 3))
    damaged = weight.data.copy()
    damaged[3, 5, 1, 1] *= 1 + 1e-4
    step = programs.single_step(inputs, LABELS, **{weight.name: damaged})
    with pytest.raises(AssertionError, match="off by"):
        check_honest(programs.given(step, inputs, LABELS), yardstick)


def test_a_piece_far_from_its_kink_is_no_crossing(programs, inputs):
    """Errors that are as small as they should be in the mean do not hide one that is not."""
    step = programs.single_step(inputs, LABELS)
    yardstick = programs.given(step, inputs, LABELS).errors
    name = next(name for name, ops in programs.readers.items() if Relu() in ops)
    fed = step.fed[name].copy()
    fed[fed == fed[fed > 40 * yardstick[name]].min()] = -1e-9
    given = programs.given(replace(step, fed=step.fed | {name: fed}), inputs, LABELS)
    with pytest.raises(AssertionError, match="across a kink"):
        check_honest(replace(given, errors=yardstick), yardstick)


def test_a_wrong_gradient_is_no_crossing(programs, inputs):
    """A backward kernel that is wrong alone: nothing crosses, so nothing is given."""
    for node in programs.single.nodes:
        if isinstance(node.op, ClipGrad):
            node.op = ClipGrad(0.5, 6)
    step = programs.single_step(inputs, LABELS)
    given = programs.given(step, inputs, LABELS)
    check_honest(given, given.errors)
    with pytest.raises(AssertionError):
        check_gradients(step.gradients, given.step.gradients, dict.fromkeys(step.gradients, 1e-6))
