"""Conformance cases of the onnx wheel, run by `tools.onnx_backend` and judged as the standard's own runner does; then
the same artifacts on fresh data, beside the standard's reference implementation.
"""

from __future__ import annotations

import enum
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.reference import ReferenceEvaluator

from edgec.graph.errors import UserError
from edgec.tools import onnx_backend
from edgec.tools.onnx_backend import CompiledCase
from edgec.tools.testing.fresh_data import fresh_inputs


class Fresh(enum.Enum):
    """What became of fresh data on the artifact of a case."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NO_DATA = "no data"  # everything decides shapes
    NO_REFERENCE = "no reference"  # it does not run, or differs from the case's own expectation


@dataclass(frozen=True)
class Outcome:
    """`passed`: every data set of the case gives the expected shapes and elements."""

    passed: bool
    fresh: Fresh | None = None  # where it passed
    reason: str = ""


def judge(case: TestCase, seed: int = 0) -> Outcome:
    """Run a case, and where it passes its artifact on fresh data. Errors that are not the model's fault propagate."""
    model, data_sets = _read(case)
    if not data_sets:
        return Outcome(False, reason="the case has no data")
    outcome = Outcome(True)
    for inputs, outputs in data_sets:
        try:
            with onnx_backend.compile_case(model, inputs) as compiled:
                if not _agree(outputs, compiled.run(inputs)):
                    return Outcome(False, reason="other results than expected")
                outcome = _on_fresh_data(compiled, inputs, outputs, np.random.default_rng(seed))
        except UserError as error:
            return Outcome(False, reason=str(error))
        if outcome.fresh is Fresh.DIFFERS:
            return outcome
    return outcome


def passes(case: TestCase) -> bool:
    """Whether every data set of a case gives the expected shapes and elements; False too where it is refused."""
    return judge(case).passed


def _on_fresh_data(compiled: CompiledCase, inputs: Sequence, outputs: Sequence, rng: np.random.Generator) -> Outcome:
    given = [array for array in inputs if array is not None]
    if len(compiled.bound) == len(given):
        return Outcome(True, Fresh.NO_DATA)
    reference = _reference(compiled.model)
    known = reference(inputs)
    if isinstance(known, str) or not _agree(outputs, known):
        return Outcome(True, Fresh.NO_REFERENCE, known if isinstance(known, str) else "differs from the case itself")
    fresh = fresh_inputs(compiled.model, inputs, compiled.bound, rng)
    expected = reference(fresh)
    if isinstance(expected, str):
        return Outcome(True, Fresh.NO_REFERENCE, expected)
    actual = compiled.run(fresh)
    if _agree(expected, actual, halves=True):
        return Outcome(True, Fresh.AGREES)
    return Outcome(True, Fresh.DIFFERS, f"{fresh} gives {actual}, and the reference {expected}")


def _reference(model: onnx.ModelProto):  # noqa: ANN202
    """The standard's implementation as a function of inputs in order: its outputs, or why it has none."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    names = [info.name for info in model.graph.input if info.name not in initialized]

    def run(inputs: Sequence[np.ndarray | None]) -> list | str:
        feeds = {name: array for name, array in zip(names, inputs, strict=False) if array is not None}
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return ReferenceEvaluator(model).run(None, feeds)
        except Exception as error:  # whatever it lacks
            return f"{type(error).__name__}: {error}"

    return run


def _read(case: TestCase) -> tuple[onnx.ModelProto, list]:
    if case.model is not None:
        return case.model, case.data_sets
    folder = Path(case.model_dir)
    data_sets = [
        tuple(_tensors(data, prefix) for prefix in ("input", "output"))
        for data in sorted(folder.glob("test_data_set*"))
    ]
    return onnx.load(folder / "model.onnx"), data_sets


def _tensors(folder: Path, prefix: str) -> list[np.ndarray]:
    paths = sorted(folder.glob(f"{prefix}_*.pb"), key=lambda path: int(path.stem.partition("_")[2]))
    return [numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in paths]


def _agree(expected: Sequence, actual: Sequence, halves: bool = False) -> bool:
    return len(actual) >= len(expected) and all(_close(e, a, halves) for e, a in zip(expected, actual, strict=False))


def _close(expected: object, actual: object, halves: bool) -> bool:
    """`halves`: half floats may differ by two roundings, as nobody says in which steps they are computed."""
    if not isinstance(expected, np.ndarray | np.generic) or expected.shape != np.shape(actual):
        return False
    if expected.dtype.kind not in "fcV":
        return np.array_equal(expected, actual)
    unit = float(ml_dtypes.finfo(expected.dtype).eps) if halves and expected.dtype.itemsize == 2 else 0.0
    wide = actual.astype("f8"), expected.astype("f8")
    return np.allclose(*wide, rtol=max(1e-3, 2 * unit), atol=max(1e-5, unit), equal_nan=True)
