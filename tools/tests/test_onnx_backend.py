"""`tools.onnx_backend`: conformance cases of the onnx wheel in compiled kernels, and fresh data on one artifact."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test.loader as loader
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgec.graph.errors import UserError
from edgec.tools import onnx_backend
from edgec.tools.testing.onnx_cases import Fresh, judge, passes

FLOOR = Path(__file__).with_name("onnx_conformance.json")
# One of each family; every one of them must pass.
SAMPLE = (
    "test_add_bcast",
    "test_add_int8",
    "test_and_bcast4v2d",
    "test_bitshift_left_uint8",
    "test_bitwise_xor_i32_2d",
    "test_ceil",
    "test_clip_default_int8_max",
    "test_compress_0",
    "test_equal_bcast",
    "test_erf",
    "test_gelu_tanh_1",
    "test_isinf",
    "test_isnan_float16",
    "test_less_equal_bcast",
    "test_max_float16",
    "test_mod_mixed_sign_int32",
    "test_mod_mixed_sign_float32",
    "test_nonmaxsuppression_two_batches",
    "test_nonzero_example",
    "test_pow_types_int32_float32",
    "test_reduce_max_empty_set",
    "test_reduce_sum_empty_set_non_reduced_axis_zero",
    "test_reduce_sum_keepdims_example",
    "test_reshape_negative_dim",
    "test_round",
    "test_slice",
    "test_softplus",
    "test_tanh",
    "test_where_long_example",
)


@pytest.fixture(scope="module")
def node_cases() -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in loader.load_model_tests(kind="node")}


@pytest.mark.parametrize("name", SAMPLE)
def test_sample_of_conformance(node_cases: dict, name: str):
    assert passes(node_cases[name])


@pytest.mark.parametrize("name", SAMPLE[::4])
def test_sample_on_fresh_data(node_cases: dict, name: str):
    assert judge(node_cases[name]).fresh is Fresh.AGREES


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_all_conformance_cases():
    """The count may only grow: raise the floor with it. No artifact differs from the standard's own implementation on
    data that it was not compiled with; where that implementation does not run is counted, and may only shrink.

    An error that is no `UserError` ends the test: no case may be our fault.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = ("node", "simple", "pytorch-operator", "pytorch-converted")
        cases = [case for kind in kinds for case in loader.load_model_tests(kind=kind)]
        outcomes = {case.name: judge(case) for case in cases}
    lines = {
        fresh: [f"{name}: {outcome.reason}" for name, outcome in outcomes.items() if outcome.fresh is fresh]
        for fresh in Fresh
    }
    floor = json.loads(FLOOR.read_text())
    assert not lines[Fresh.DIFFERS], "\n".join(lines[Fresh.DIFFERS])
    assert sum(outcome.passed for outcome in outcomes.values()) >= floor["passed"]
    assert len(lines[Fresh.AGREES]) >= floor["agree_on_fresh_data"]
    assert len(lines[Fresh.NO_REFERENCE]) <= floor["without_reference"], "\n".join(lines[Fresh.NO_REFERENCE])


def one_node(op: str, inputs: list, output: tuple[int, tuple], **attributes: object) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    outputs = [helper.make_tensor_value_info("y", *output)]
    node = helper.make_node(op, [name for name, _, _ in inputs], ["y"], **attributes)
    return helper.make_model(
        helper.make_graph([node], "g", infos, outputs), opset_imports=[helper.make_opsetid("", 21)]
    )


def test_what_decides_shapes_is_bound_and_nothing_else():
    inputs = [("x", TensorProto.FLOAT, [None, None]), ("axes", TensorProto.INT64, [1])]
    model = one_node("ReduceSum", inputs, (TensorProto.FLOAT, None), keepdims=0)
    assert onnx_backend.structural_names(model) == {"axes"}
    clip = [("x", TensorProto.FLOAT, [2]), ("low", TensorProto.FLOAT, []), ("high", TensorProto.FLOAT, [])]
    assert not onnx_backend.structural_names(one_node("Clip", clip, (TensorProto.FLOAT, [2])))
    names = ("bands", "length", "rate", "low", "high")
    mel = [(name, TensorProto.INT64 if name in names[:3] else TensorProto.FLOAT, []) for name in names]
    made = one_node("MelWeightMatrix", mel, (TensorProto.FLOAT, None))
    assert onnx_backend.structural_names(made) == {"bands", "length"}
    region = [("x", TensorProto.FLOAT, [1, 1, 4, 4]), ("roi", TensorProto.FLOAT, [8]), ("s", TensorProto.FLOAT, [4])]
    assert onnx_backend.structural_names(one_node("Resize", region, (TensorProto.FLOAT, None))) == {"s"}
    triangle = [("x", TensorProto.FLOAT, [4, 4]), ("k", TensorProto.INT64, [])]
    assert not onnx_backend.structural_names(one_node("Trilu", triangle, (TensorProto.FLOAT, [4, 4])))


def test_one_model_on_several_data():
    clip = [("x", TensorProto.FLOAT, [5]), ("low", TensorProto.FLOAT, []), ("high", TensorProto.FLOAT, [])]
    model = one_node("Clip", clip, (TensorProto.FLOAT, [5]))
    for low, high in ((-1, 1), (-0.2, 5)):
        feeds = [np.linspace(-2, 2, 5, dtype=np.float32), np.float32(low), np.float32(high)]
        expected = ReferenceEvaluator(model).run(None, dict(zip(("x", "low", "high"), feeds, strict=True)))
        np.testing.assert_array_equal(onnx_backend.run(model, feeds)[0], expected[0])


def test_what_is_bound_stays_so():
    inputs = [("x", TensorProto.FLOAT, [2, 3]), ("axes", TensorProto.INT64, [1])]
    model = one_node("ReduceSum", inputs, (TensorProto.FLOAT, None), keepdims=0)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with onnx_backend.compile_case(model, [x, np.array([1])]) as case:
        np.testing.assert_array_equal(case.run([-x, np.array([1])])[0], -x.sum(1))
        with pytest.raises(UserError, match="compiled for one value of `axes`"):
            case.run([x, np.array([0])])


def test_what_decides_shapes_is_found_inside_of_bodies():
    shape = [helper.make_tensor_value_info("shape", TensorProto.INT64, [1])]
    expand = helper.make_node("Expand", ["x", "shape"], ["wide"])
    body = helper.make_graph([expand], "wide", [], [helper.make_tensor_value_info("wide", TensorProto.FLOAT, None)])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    x, c = (helper.make_tensor_value_info(name, kind, [1]) for name, kind in (("x", 1), ("c", TensorProto.BOOL)))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([choice], "g", [x, c, *shape], [y]))
    assert onnx_backend.structural_names(model) == {"shape"}


def test_values_that_are_no_tensors_are_refused():
    model = one_node("Identity", [("x", TensorProto.FLOAT, [1])], (TensorProto.FLOAT, [1]))
    with pytest.raises(UserError, match="tensors are supported"):
        onnx_backend.run(model, [[np.zeros(1, np.float32)]])
