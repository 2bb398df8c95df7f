"""Vector math against float64 over the range of f32, with and without FMA, and at the ends of the range."""

import ctypes
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_functions import FunctionSpec

from edgec.backends import elf
from edgec.backends.base import Target
from edgec.backends.targets import find_target
from edgec.backends.tvm.build import FUNCTION
from edgec.backends.tvm.codegen import compile_kernel

LANES = 16  # every target's lanes divide it
EVERY = 4099  # one f32 in so many: a million of them
TARGETS = {
    "avx512": find_target("x86"),
    "avx2": find_target("x86-64-v3"),
    "scalar_without_fma": replace(find_target("x86-64-v3"), attributes=(), lanes=1),
}
REFERENCE = {"exp": np.exp, "log": np.log, "rsqrt": lambda x: 1 / np.sqrt(x)}


# function: float64 counterpart, interval, ulp
INTERVALS = {
    "sqrt": (np.sqrt, 0.0, 3.4e38, 1.0),
    "erf": (np.vectorize(math.erf), -6.0, 6.0, 1.5),
    "log1p": (np.log1p, -0.999, 1e10, 3.0),
    "tan": (np.tan, -100.0, 100.0, 4.0),
    "atan": (np.arctan, -1e9, 1e9, 3.0),
    "asin": (np.arcsin, -1.0, 1.0, 3.0),
    "acos": (np.arccos, -1.0, 1.0, 3.0),
    "sinh": (np.sinh, -89.0, 89.0, 4.0),
    "cosh": (np.cosh, -89.0, 89.0, 4.0),
    "tanh": (np.tanh, -20.0, 20.0, 2.0),
    "asinh": (np.arcsinh, -1e30, 1e30, 4.0),
    "acosh": (np.arccosh, 1.0, 1e30, 4.0),
    "atanh": (np.arctanh, -0.9999, 0.9999, 4.0),
    "floor": (np.floor, -1e9, 1e9, 0.0),
    "ceil": (np.ceil, -1e9, 1e9, 0.0),
    "nearest": (np.rint, -1e9, 1e9, 0.0),
    "truncate": (np.trunc, -1e9, 1e9, 0.0),
}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -0.3], np.float32)


def run(name: str, target: Target, x: np.ndarray, folder: Path, emitter: str = "toy_functions") -> np.ndarray:
    size = -(-x.size // LANES) * LANES
    padded = np.ones(size, np.float32)
    padded[: x.size] = x
    y = np.zeros_like(padded)
    code = compile_kernel(FunctionSpec(name, size), target, "kernel", emitter)
    (folder / "f.o").write_bytes(elf.rename_symbol(code, FUNCTION, "kernel"))
    library = folder / f"{name}_{target.name}_{target.lanes}_{x.size}.so"
    subprocess.run(["gcc", "-shared", "-o", library, folder / "f.o"], check=True)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (padded, y)]
    ctypes.CDLL(str(library)).kernel(*pointers, ctypes.c_int32(0), ctypes.c_int32(size // target.lanes))
    return y[: x.size]


def every_f32() -> np.ndarray:
    x = np.arange(0, 2**32, EVERY, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[~np.isnan(x)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", REFERENCE)
def test_error_is_at_most_two_ulp(name: str, target: str, tmp_path: Path):
    x = every_f32()
    if name == "log":
        x = x[x > 0]
    if name == "rsqrt":
        x = x[(x > 2.0**-126) & np.isfinite(x)]
    y = run(name, TARGETS[target], x, tmp_path)
    with np.errstate(over="ignore", divide="ignore"):
        exact = REFERENCE[name](x.astype(np.float64))
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    ulp = np.spacing(np.maximum(np.abs(rounded[finite]), np.float32(2.0**-126))).astype(np.float64)
    assert np.max(np.abs(y[finite] - exact[finite]) / ulp) <= 2.0
    np.testing.assert_array_equal(y[~finite], rounded[~finite])


@pytest.mark.parametrize("target", TARGETS)
def test_roots_by_instructions(target: str, tmp_path: Path):
    x = np.concatenate([every_f32(), SPECIAL])
    with np.errstate(invalid="ignore"):
        expected = np.sqrt(x)
    actual = run("sqrt", TARGETS[target], x, tmp_path, "toy_machine_functions")
    np.testing.assert_array_equal(actual.view(np.uint32)[x >= 0], expected.view(np.uint32)[x >= 0])
    assert np.isnan(actual[~(x >= 0)]).all()
    x = x[(x > 2.0**-126) & np.isfinite(x)]
    exact = 1 / np.sqrt(x.astype(np.float64))
    error = run("rsqrt", TARGETS[target], x, tmp_path, "toy_machine_functions") - exact
    assert np.max(np.abs(error) / np.spacing(exact.astype(np.float32))) <= 1.5


@pytest.mark.parametrize("target", TARGETS)
def test_ends_of_the_range(target: str, tmp_path: Path):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 88.72283, 88.7229, -103.97, -104.0], np.float32)
    tiny, largest = np.float32(1e-45), np.float32(3.4027985e38)
    expected = np.array([np.nan, np.inf, 0, 1, 1, largest, np.inf, tiny, 0], np.float32)
    np.testing.assert_allclose(run("exp", TARGETS[target], x, tmp_path), expected, rtol=1e-5)
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1.0, tiny], np.float32)
    expected = np.array([np.nan, np.inf, np.nan, -np.inf, -np.inf, np.nan, 0, -103.27893], np.float32)
    np.testing.assert_allclose(run("log", TARGETS[target], x, tmp_path), expected, rtol=1e-6)


@pytest.mark.parametrize("target", ("avx512", "scalar_without_fma"))
@pytest.mark.parametrize("name", INTERVALS)
def test_error_in_an_interval(name: str, target: str, tmp_path: Path):
    function, low, high, limit = INTERVALS[name]
    x = every_f32()[::7]
    near = np.random.default_rng(0).uniform(max(low, -1000), min(high, 1000), 20_000).astype(np.float32)
    x = np.concatenate([x[(x >= low) & (x <= high)], near])
    exact = function(x.astype(np.float64))
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    fits = np.isfinite(rounded)
    ulp = np.spacing(np.maximum(np.abs(rounded[fits]), np.float32(2.0**-126))).astype(np.float64)
    error = np.abs(run(name, TARGETS[target], x, tmp_path)[fits] - exact[fits]) / ulp
    assert np.max(error) <= limit, x[fits][np.argmax(error)]


@pytest.mark.parametrize("name", INTERVALS)
def test_special_values(name: str, tmp_path: Path):
    with np.errstate(all="ignore"):
        expected = INTERVALS[name][0](SPECIAL.astype(np.float64)).astype(np.float32)
    actual = run(name, TARGETS["avx512"], SPECIAL, tmp_path)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_circular_functions_in_absolute_error(name: str, tmp_path: Path):
    """Near their zeros the error stays that of the reduced argument."""
    x = np.random.default_rng(0).uniform(-8000, 8000, 50_000).astype(np.float32)
    actual = run(name, TARGETS["scalar_without_fma"], x, tmp_path)
    np.testing.assert_allclose(actual, getattr(np, name)(x.astype(np.float64)), rtol=2e-7, atol=1e-7)
    assert np.isnan(run(name, TARGETS["avx512"], np.array([np.inf, -np.inf, np.nan], np.float32), tmp_path)).all()


@pytest.mark.parametrize("target", TARGETS)
def test_exp_of_differences(target: str, tmp_path: Path):
    x = np.linspace(-87.32, 0.0, 100_003).astype(np.float32)
    expected = np.exp(x.astype(np.float64))
    actual = run("exp_of_difference", TARGETS[target], x, tmp_path)
    assert np.abs((actual - expected) / np.spacing(expected.astype(np.float32))).max() <= 1.1
    ends = np.array([-87.34, -1e30, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(run("exp_of_difference", TARGETS[target], ends, tmp_path), [0, 0, 0, np.nan])
