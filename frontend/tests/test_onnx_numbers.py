"""Converters of functions, comparisons, bits, choices and casts against onnx's reference evaluator, by dtype."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.ops_logic import LOGIC
from edgec.frontend.onnx.ops_math import MATH
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ops.clip import Clip
from edgec.tools.testing.models import one_node_onnx

OPSET = 20
RNG = np.random.default_rng(0)
X = RNG.uniform(-3, 3, (3, 5)).astype(np.float32)
UNIT, LARGE = X / 3.1, np.abs(X) + 1
N, M = RNG.integers(-9, 9, (2, 3, 5)).astype(np.int32)
P, Q = (M != 0) & (X > 0), N > 0
BITS, SHIFTS = RNG.integers(0, 255, (3, 5)).astype(np.uint8), RNG.integers(0, 7, 5).astype(np.uint8)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0, 2], np.float32)
NONZERO = np.where(M == 0, 4, M)

# op, operands, attributes
CASES = [
    *((op, [X], {}) for op in ("Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Erf", "Tanh", "Sin", "Cos", "Tan")),
    *((op, [X], {}) for op in ("Atan", "Sinh", "Cosh", "Asinh", "Softplus", "Softsign", "Mish")),
    *((op, [UNIT], {}) for op in ("Asin", "Acos", "Atanh")),
    *((op, [LARGE], {}) for op in ("Sqrt", "Log", "Acosh")),
    *((op, [N], {}) for op in ("Neg", "Abs", "Sign", "BitwiseNot")),
    ("BitwiseNot", [BITS], {}),
    ("Gelu", [X], {}),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("ThresholdedRelu", [X], {"alpha": 0.7}),
    ("Shrink", [X], {"bias": 0.2, "lambd": 0.9}),
    *((op, [X, X[:1]], {}) for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Min", "Max")),
    *((op, [N, M], {}) for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Min", "Max")),
    *((op, [P, Q], {}) for op in ("And", "Or", "Xor", "Equal")),
    *((op, [N, M], {}) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    ("Not", [P], {}),
    ("Max", [X, X[:1], -X], {}),
    ("Min", [X], {}),
    ("Mod", [N, NONZERO], {}),
    ("Mod", [N, NONZERO], {"fmod": 1}),
    ("Mod", [X, LARGE], {"fmod": 1}),
    ("Pow", [LARGE, X], {}),
    ("Pow", [LARGE, N], {}),
    ("Pow", [N, np.abs(M)], {}),
    ("Pow", [np.abs(N), np.float32([0.5, 1, 2, 0, 3])], {}),
    ("BitShift", [BITS, SHIFTS], {"direction": "LEFT"}),
    ("BitShift", [BITS, SHIFTS], {"direction": "RIGHT"}),
    ("IsNaN", [SPECIAL], {}),
    ("IsInf", [SPECIAL], {}),
    ("IsInf", [SPECIAL], {"detect_positive": 0}),
    ("IsInf", [SPECIAL], {"detect_negative": 0}),
    ("IsInf", [SPECIAL], {"detect_negative": 0, "detect_positive": 0}),
    ("Where", [P, N, M[:1]], {}),
    *(("Cast", [X], {"to": to}) for to in (TensorProto.INT32, TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT8)),
    ("Cast", [P], {"to": TensorProto.FLOAT}),
    ("CastLike", [X, N], {}),
]


@pytest.mark.parametrize(
    ("op", "operands", "attributes"), CASES, ids=lambda item: item if isinstance(item, str) else ""
)
def test_agrees_with_the_reference_evaluator(op, operands, attributes):
    feeds = {f"x{i}": array for i, array in enumerate(operands)}
    model = one_node_onnx(op, feeds, opset=OPSET, **attributes)
    graph = read_onnx(model).programs["infer"]
    (actual,) = run(graph, {name: feeds[name] for name in feeds if name in graph.leaves}).outputs.values()
    model.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(actual.dtype)
    (expected,) = ReferenceEvaluator(model).run(None, feeds)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_every_converter_has_a_case():
    assert {*LOGIC, *MATH} == {op for op, _, _ in CASES}


@pytest.mark.parametrize(("op", "low", "high"), [("Max", 0.5, np.inf), ("Min", -np.inf, 0.5)])
def test_a_bound_is_a_clip(op, low, high):
    graph = read_onnx(one_node_onnx(op, {"x": X}, {"b": np.float32(0.5)})).programs["infer"]
    assert [node.op for node in graph.nodes] == [Clip(low, high)]


def test_a_clip_with_bounds_of_the_run():
    feeds = {"x": X, "low": np.float32(-1), "high": np.float32(0.5)}
    graph = read_onnx(one_node_onnx("Clip", feeds)).programs["infer"]
    (y,) = run(graph, feeds).outputs.values()
    np.testing.assert_array_equal(y, np.clip(X, -1, 0.5))


def test_a_cast_to_an_unknown_type_is_refused():
    with pytest.raises(UserError, match="makes a tensor of dtype uint32"):
        read_onnx(one_node_onnx("Cast", {"x": X}, to=TensorProto.UINT32))
