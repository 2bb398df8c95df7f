"""Dropout: the published generator to the bit, fair and independent decisions, a gradient that decides the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops.dropout import Dropout, numbers, threefry2x32
from edgec.graph.types import DType, tensor
from edgec.tools.testing.gradcheck import vjp_gradients
from edgec.tools.testing.strategies import normal, shapes

# The answers that come with the Random123 library (kat_vectors, threefry2x32 of 20 rounds): counter, key, words.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_generator_gives_the_published_answers(counter, key, words):
    low, high = threefry2x32(key, counter[0], np.array([counter[1]], np.uint32))
    assert (int(low[0]), int(high[0])) == words


def scalars(*values: int) -> list[np.ndarray]:
    return [np.array(value, np.int32) for value in values]


def test_decisions_to_the_bit():
    """A checkpoint of today must go on the same tomorrow."""
    kept = Dropout(0.5, stream=2).reference(np.ones(24, np.float32), *scalars(7, 3))[0] > 0
    assert "".join(map(str, kept.astype(int))) == "000011001101001010010101"


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_asked_and_the_mean_stays(rate: float):
    count = 400_000
    (y,) = Dropout(rate).reference(np.ones(count, np.float32), *scalars(1, 2))
    sigma = (rate * (1 - rate) / count) ** 0.5
    assert abs((y == 0).mean() - rate) < 4 * sigma
    assert abs(y.mean() - 1) < 4 * sigma / (1 - rate)


def test_numbers_are_uniform():
    """Chi-squared over 256 bins of the high and of the low byte: 255 degrees of freedom, 5 standard deviations."""
    drawn = numbers(1 << 18, 5, 6, 7)
    for byte in (drawn & 0xFF, drawn >> 8):
        counts = np.bincount(byte, minlength=256)
        expected = len(drawn) / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 5 * 510**0.5


@pytest.mark.parametrize("other", [(2, 2, 0), (1, 3, 0), (1, 2, 1)], ids=["seed", "step", "stream"])
def test_seeds_steps_and_streams_do_not_agree_more_than_chance(other: tuple[int, int, int]):
    count = 1 << 16
    a, b = (numbers(count, *key) / 65536 - 0.5 for key in ((1, 2, 0), other))
    assert abs((a * b).mean() * 12) < 4 / count**0.5
    shifted = abs((a[1:] * a[:-1]).mean() * 12)
    assert shifted < 4 / count**0.5, "neighbours agree"


@given(shapes(1, 4), st.integers(0, 2), st.floats(0, 1), st.integers(-(2**31), 2**31 - 1))
def test_the_gradient_decides_the_same(shape, shared, rate, seed):
    op = Dropout(rate, min(shared, len(shape)), 5)
    x, dy = np.abs(normal(shape)) + 0.1, normal(shape, 1)
    state = scalars(seed, 9)
    (y,) = op.reference(x, *state)
    dx, *others = vjp_gradients(op, [x, *state], [dy])
    np.testing.assert_allclose(dx, dy * (y / x), rtol=1e-12)
    assert others == [None, None]
    if op.shared and shape:
        rows = (y == 0).reshape(int(np.prod(shape[: len(shape) - op.shared])), -1)
        assert (rows.all(1) | ~rows.any(1)).all(), "what is shared is dropped together"


def test_idle_without_state():
    x = normal((3, 4))
    np.testing.assert_array_equal(Dropout(0.5).reference(x)[0], x)
    dy = normal((3, 4), 1)
    np.testing.assert_array_equal(vjp_gradients(Dropout(0.5), [x], [dy])[0], dy)


def test_operands_that_do_not_fit_are_refused():
    x, count = tensor(DType.F32, 3), tensor(DType.I32)
    with pytest.raises(UserError, match="takes x, or x, seed and step"):
        Dropout(0.5).infer(x, count)
    with pytest.raises(UserError, match=r"i32\[\]"):
        Dropout(0.5).infer(x, count, x)
    with pytest.raises(UserError, match="rate"):
        Dropout(1.5).infer(x)
    with pytest.raises(UserError, match="shared axes"):
        Dropout(0.5, 2).infer(x)
