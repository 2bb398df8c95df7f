"""The section of originals: values to the bit, in few bytes where the artifact has something close; damage."""

import json
import zlib

import ml_dtypes
import numpy as np
import pytest

from edgec.runtime.dtypes import narrowed, widened
from edgec.runtime.format import Original
from edgec.runtime.original import DAMAGE, decode_originals, encode_originals

RNG = np.random.default_rng(0)


def back(originals, tensors):
    section = encode_originals(originals, tensors)
    return section, {stored.name: stored.value(tensors.__getitem__) for stored in decode_originals(section)}


def assert_same_bits(left, right):
    assert isinstance(left, np.ndarray)
    assert left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("dtype", "f2 f4 f8 i1 u1 i2 i4 i8 ? c8 c16 bfloat16".split())
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4, 5)])
def test_what_is_carried_whole(dtype, shape):
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    data = (RNG.standard_normal(shape) * 50).astype(dtype)
    _, values = back([Original("x", data)], {})
    assert_same_bits(values["x"], data)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_was_scaled_comes_back_in_a_few_bits_an_element(dtype):
    data = RNG.standard_normal((64, 32, 3, 3)).astype(dtype)
    scale = RNG.uniform(-2, 2, 64).astype(np.float32)
    folded = (data * scale.reshape(-1, 1, 1, 1)).astype(dtype)
    section, values = back([Original("w", data, "folded", scale, 0)], {"folded": folded})
    assert_same_bits(values["w"], data)
    assert len(section) < (0.1 if dtype is np.float32 else 0.25) * data.nbytes


def test_numbers_that_no_quotient_gives_back():
    """Zeros with signs, NaN, infinities, what a processor may flush, and channels whose scale is 0."""
    odd = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e-45, 3e38]
    data = np.array([odd, [1, 2, 3, 4, 5, 6, 7, 8], odd], np.float32)
    scale = np.array([1.5, 0.0, 1e-38], np.float32)
    with np.errstate(all="ignore"):
        folded = data * scale[:, None]
    _, values = back([Original("w", data, "folded", scale, 0)], {"folded": folded})
    assert_same_bits(values["w"], data)


def test_another_type_and_another_axis():
    wide = RNG.standard_normal((4, 6))
    scale = RNG.uniform(1, 2, 6).astype(np.float32)
    folded = RNG.standard_normal((1, 24)).astype(np.float32)
    tensors = {"narrow": wide.astype(np.float32), "folded": (folded.reshape(4, 6) * scale).reshape(1, 24)}
    originals = [Original("wide", wide, "narrow"), Original("w", folded.reshape(4, 6), "folded", scale, 1)]
    _, values = back(originals, tensors)
    assert_same_bits(values["wide"], wide)
    assert_same_bits(values["w"], folded.reshape(4, 6))


def test_a_counter_and_another_name():
    tensors = {"steps": np.array(3, np.int32), "w": np.ones(2, np.float32)}
    _, values = back([Original("n", np.array(2**40), counter="steps"), Original("tied", None, "w")], tensors)
    assert_same_bits(values["n"], np.array(2**40 + 3))
    assert values["tied"] is tensors["w"]


def test_damage_is_refused():
    """Bytes changed, rows changed behind a right table, and a tensor that claims more memory than it brings."""
    data = RNG.standard_normal((8, 9)).astype(np.float32)
    tensors = {"t": data * 2, "n": np.array(1)}
    originals = [Original("w", data, "t", np.full(8, 2, np.float32)), Original("c", np.array(3), counter="n")]
    section = encode_originals(originals, tensors)

    def read(changed):
        return {stored.name: stored.value(tensors.__getitem__) for stored in decode_originals(changed)}

    refused = 0
    for _ in range(2000):
        changed = bytearray(section)
        changed[RNG.integers(len(changed))] ^= 1 << RNG.integers(8)
        try:
            read(bytes(changed)[: RNG.integers(len(section) // 2, 2 * len(section))])
        except DAMAGE:
            refused += 1
    assert refused > 1900

    size = int.from_bytes(section[:8], "little")
    rows, rest = json.loads(zlib.decompress(section[8 : 8 + size])), section[8 + size :]
    for field, value in [
        ("shape", [1 << 40]), ("shape", [-8, -9]), ("shape", "ab"), ("dtype", "O"), ("dtype", "V4"), ("dtype", "U1"),
        ("axis", 7), ("axis", None), ("tensor", "none"), ("tensor", "n"), ("crc32", 0), ("difference", -1),
        ("difference", 10**9), ("scale", 8), ("scale", "x"),
    ]:  # fmt: skip
        table = zlib.compress(json.dumps([rows[0] | {field: value}, rows[1]]).encode())
        with pytest.raises(DAMAGE):
            read(len(table).to_bytes(8, "little") + table + rest)


@pytest.mark.parametrize("shape", [(), (3, 5)])
def test_a_bf16_as_the_f32_of_the_same_value_and_back(shape):
    data = RNG.standard_normal(shape).astype(np.float32).astype(ml_dtypes.bfloat16)
    for array in (np.asarray(data), np.asarray(data).view(np.uint16)):
        assert_same_bits(widened(array), data.astype(np.float32))
        assert_same_bits(narrowed(widened(array)), np.asarray(data).view(np.uint16))
    with pytest.raises(ValueError):
        narrowed(np.array(1 / 3, np.float32))
