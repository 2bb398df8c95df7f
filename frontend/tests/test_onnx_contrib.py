"""Operators of onnxruntime's own domain, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.ops_contrib import CONTRIB, DOMAIN
from edgec.graph.errors import UserError
from edgec.graph.interp import run


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype(np.float32)


# Operator, inputs, attributes, results. The first input is fed, the others are initializers.
CASES = [
    ("Gelu", [draw(3, 5)], {}, ["y"]),
    ("BiasGelu", [draw(3, 5), draw(5)], {}, ["y"]),
    ("FastGelu", [draw(3, 5)], {}, ["y"]),
    ("FastGelu", [draw(3, 5), draw(5)], {}, ["y"]),
    ("QuickGelu", [draw(3, 5)], {"alpha": 1.5}, ["y"]),
    ("FusedMatMul", [draw(2, 3, 5), draw(2, 4, 5)], {"transB": 1, "alpha": 0.25}, ["y"]),
    ("FusedMatMul", [draw(2, 5, 3), draw(2, 5, 4)], {"transA": 1}, ["y"]),
    ("SkipLayerNormalization", [draw(2, 3, 8), draw(2, 3, 8), draw(8), draw(8), draw(8)], {}, ["y"]),
    ("SkipLayerNormalization", [draw(2, 3, 8), draw(2, 3, 8), draw(8)], {"epsilon": 1e-3}, ["y", "", "", "sum"]),
    ("SkipSimplifiedLayerNormalization", [draw(2, 3, 8), draw(2, 3, 8), draw(8)], {}, ["y", "", "", "sum"]),
]


def model_of(op: str, arrays: list[np.ndarray], attributes: dict, results: list[str]):
    names = [f"i{index}" for index in range(len(arrays))]
    node = helper.make_node(op, names, results, "the_node", domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "contrib",
        [helper.make_tensor_value_info("i0", TensorProto.FLOAT, arrays[0].shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results if name],
        [numpy_helper.from_array(array, name) for name, array in zip(names[1:], arrays[1:], strict=True)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{len(case[1])}")
def test_operator(case: tuple):
    _, arrays, _, results = case
    model = model_of(*case)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"i0": arrays[0]})
    outputs = run(read_onnx(model).programs["infer"], {"i0": arrays[0]}).outputs
    for name, array in zip(filter(None, results), expected, strict=True):
        np.testing.assert_allclose(outputs[name], array, rtol=1e-5, atol=1e-5)


def test_every_operator_has_a_case():
    assert {case[0] for case in CASES} == set(CONTRIB)


def test_statistics_are_refused():
    with pytest.raises(UserError, match="asks for the statistics"):
        read_onnx(model_of("SkipLayerNormalization", [draw(1, 2, 4)] * 2 + [draw(4)], {}, ["y", "mean"]))
