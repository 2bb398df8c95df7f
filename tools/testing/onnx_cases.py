"""Conformance cases of the onnx wheel, run by `tools.onnx_backend`, as the standard's own runner judges them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase

from edgec.graph.errors import UserError
from edgec.tools import onnx_backend


def passes(case: TestCase) -> bool:
    """Whether every data set of a case gives the expected shapes and elements; False too where it is refused."""
    model, data_sets = _read(case)
    try:
        return bool(data_sets) and all(
            _agree(outputs, onnx_backend.run(model, inputs)) for inputs, outputs in data_sets
        )
    except UserError:
        return False


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


def _agree(expected: list, actual: list[np.ndarray]) -> bool:
    return len(actual) >= len(expected) and all(map(_close, expected, actual))


def _close(expected: object, actual: np.ndarray) -> bool:
    if not isinstance(expected, np.ndarray | np.generic) or expected.shape != actual.shape:
        return False
    if expected.dtype.kind in "fc":
        return np.allclose(actual.astype("f8"), expected.astype("f8"), rtol=1e-3, atol=1e-5, equal_nan=True)
    return np.array_equal(expected, actual)
