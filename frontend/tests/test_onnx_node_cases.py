"""The node tests of the onnx wheel, for every operator that edgec imports: none may come out wrong.

Each case runs twice: with all its tensors as inputs, and with all but the first float one fixed by the model, as models
have them. What is refused is counted: the number that passes may only grow.
"""

import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.fold import FOLDS
from edgec.frontend.onnx.ops import CONVERTERS
from edgec.graph.errors import UserError
from edgec.graph.interp import run, within_counts
from edgec.graph.ir import Role

# As onnx 1.23.2 has them. Refused are: what a program cannot know at compile time, windows over three axes, training
# modes, mask and index outputs, integer and string arithmetic.
PASSING = {"inputs": 945, "fixed": 1238}

# Half precision is computed step by step, the expectation in one; and expectations that were typed with four digits.
LOOSE = {
    "test_gridsample_bicubic",
    "test_celu_bfloat16",
    "test_swiglu_float16_expanded",
    "test_roialign_aligned_false",
    "test_roialign_aligned_true",
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
}

# What numpy's generator drew.
RANDOM = {f"test_training_dropout{suffix}" for suffix in ("", "_mask", "_default", "_default_mask")}


def cases() -> list:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {*CONVERTERS, *FOLDS}
        return [
            case
            for case in collect_testcases(None)
            if case.name not in RANDOM
            and all(node.op_type in known and not node.domain for node in case.model.graph.node)
            and all(isinstance(array, np.ndarray | np.generic) for data in case.data_sets for array in data[0])
        ]


@pytest.fixture(scope="module")
def node_cases() -> list:
    return cases()


@pytest.mark.parametrize("form", PASSING)
def test_node_cases(node_cases: list, form: str):
    passed = [case.name for case in node_cases for data in case.data_sets if passes(case, data, form)]
    assert len(passed) >= PASSING[form]


def passes(case, data: tuple, form: str) -> bool:
    """False if the model is refused; an AssertionError if its outputs are wrong."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    feeds = {info.name: np.asarray(array) for info, array in zip(model.graph.input, data[0], strict=False)}
    if form == "fixed":
        for index, (name, array) in enumerate(feeds.items()):
            if index > 0 or array.dtype.kind in "iub":
                model.graph.initializer.append(numpy_helper.from_array(array, name))
    fixed = {tensor.name for tensor in model.graph.initializer}
    shapes = {name: array.shape for name, array in feeds.items() if name not in fixed and array.size and array.ndim}
    try:
        graph = read_onnx(model, shapes=shapes).programs["infer"]
    except UserError as error:
        assert error.code in ("E0103", "E0104", "E0105", "E0201"), case.name
        return False
    outputs = run(graph, {leaf.name: feeds[leaf.name] for leaf in graph.by_role(Role.INPUT)}).outputs
    outputs = within_counts(graph, outputs)
    for info, expected in zip(model.graph.output, data[1], strict=True):
        loose = case.name in LOOSE or np.dtype(np.asarray(expected).dtype).itemsize == 2
        actual, tolerance = outputs[info.name], 5e-3 if loose else 1e-5
        assert actual.shape == np.shape(expected) and actual.dtype == expected.dtype, case.name
        np.testing.assert_allclose(actual, expected, rtol=tolerance * 10, atol=tolerance, err_msg=case.name)
    return True
