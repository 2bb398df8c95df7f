"""Sequences, optional values and shapes that are computed: all of it happens at compile time."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Role

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
FIXED = {
    "zero": np.array(0),
    "one": np.array(1),
    "last": np.array(-1),
    "two": np.array(2),
    "three": np.array(3),
    "sizes": np.array([1, 2]),
    "first": np.array([0]),
    "yes": np.array(True),
    "ones": np.ones((1, 1), np.float32),
    "table": np.float32([[1, 2, 3], [4, 5, 6]]),
}
node = helper.make_node


def typed(name: str, shape: tuple[int, ...] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    read = {name for item in nodes for name in item.input}
    fixed = [numpy_helper.from_array(array, name) for name, array in FIXED.items() if name in read]
    graph = helper.make_graph(list(nodes), "g", [typed("x", X.shape)], [typed("y")], fixed)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def agree(*nodes: onnx.NodeProto) -> list[str]:
    """The ops that are left; results are onnxruntime's."""
    proto = model(*nodes)
    graph = read_onnx(proto).programs["infer"]
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": X})
    (actual,) = run(graph, {"x": X}).outputs.values()
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    return [item.op.name for item in graph.nodes]


@pytest.mark.parametrize(
    ("split", "position", "ops"),
    [
        (node("SplitToSequence", ["x", "sizes"], ["s"], axis=1), "one", ["slice"]),
        (node("SplitToSequence", ["x", "two"], ["s"], axis=1), "last", ["slice"]),
        (node("SplitToSequence", ["x"], ["s"], axis=0), "last", ["slice"]),
        (node("SplitToSequence", ["x"], ["s"], axis=1, keepdims=0), "one", ["slice", "reshape"]),
        (node("SequenceConstruct", ["x", "ones"], ["s"]), "zero", []),
    ],
)
def test_a_sequence_is_taken_apart(split: onnx.NodeProto, position: str, ops: list[str]):
    assert agree(split, node("SequenceAt", ["s", position], ["y"])) == ops


def test_a_list_is_changed():
    agree(
        node("SequenceEmpty", [], ["e"]),
        node("SequenceInsert", ["e", "x"], ["s1"]),
        node("Exp", ["x"], ["exp"]),
        node("SequenceInsert", ["s1", "exp", "zero"], ["s2"]),
        node("SequenceInsert", ["s2", "table", "last"], ["s3"]),
        node("SequenceErase", ["s3", "zero"], ["s4"]),
        node("ConcatFromSequence", ["s4"], ["y"], axis=0),
    )


@pytest.mark.parametrize("stacked", [0, 1])
def test_a_loop_collects_a_list(stacked: int):
    nodes = [
        node("Mul", ["x", "x"], ["square"]),
        node("SequenceInsert", ["before", "square"], ["after"]),
        node("Identity", ["going"], ["on"]),
    ]
    ends = [typed("on", (), TensorProto.BOOL), helper.make_tensor_sequence_value_info("after", 1, None)]
    starts = [typed("i", (), TensorProto.INT64), typed("going", (), TensorProto.BOOL)]
    starts.append(helper.make_tensor_sequence_value_info("before", 1, None))
    agree(
        node("SequenceEmpty", [], ["e"]),
        node("Loop", ["three", "", "e"], ["s"], body=helper.make_graph(nodes, "b", starts, ends)),
        node("ConcatFromSequence", ["s"], ["y"], axis=1, new_axis=stacked),
    )


def test_a_body_for_every_item():
    body = helper.make_graph([node("Neg", ["item"], ["r"])], "b", [typed("item")], [typed("r")])
    ops = agree(
        node("SplitToSequence", ["x"], ["s"], axis=0),
        node("SequenceMap", ["s"], ["t"], body=body),
        node("ConcatFromSequence", ["t"], ["y"], axis=0),
    )
    assert ops == ["slice", "slice", "neg", "neg", "concat"]


def test_lists_of_sizes_are_sizes():
    agree(
        node("Shape", ["x"], ["s"]),
        node("SplitToSequence", ["s"], ["parts"], axis=0),
        node("SequenceAt", ["parts", "one"], ["width"]),
        node("SequenceAt", ["parts", "zero"], ["height"]),
        node("SequenceConstruct", ["width", "height"], ["turned"]),
        node("ConcatFromSequence", ["turned"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"]),
    )


def test_parameters_stay_parameters_in_lists():
    graph = read_onnx(
        model(node("SequenceConstruct", ["x", "table"], ["s"]), node("ConcatFromSequence", ["s"], ["y"], axis=0))
    ).programs["infer"]
    assert [leaf.name for leaf in graph.by_role(Role.PARAM)] == ["table"]


def test_optional_values():
    present = helper.make_graph([node("OptionalGetElement", ["o"], ["r"])], "t", [], [typed("r")])
    absent = helper.make_graph([node("Neg", ["x"], ["r"])], "e", [], [typed("r")])
    rest = node("OptionalHasElement", ["o"], ["h"]), node("If", ["h"], ["y"], then_branch=present, else_branch=absent)
    assert agree(node("Optional", ["x"], ["o"]), *rest) == []
    empty = node("Optional", [], ["o"], type=helper.make_tensor_type_proto(1, [2, 3]))
    assert agree(empty, *rest) == ["neg"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("SequenceConstruct", ["x"], ["s"]), node("Relu", ["s"], ["y"])], "reads a sequence where a tensor is"),
        ([node("SequenceAt", ["x", "zero"], ["y"])], "input 0 is not a sequence"),
        ([node("SequenceConstruct", ["x"], ["s"]), node("SequenceAt", ["s", "one"], ["y"])], "position 1 is outside"),
        ([node("SequenceConstruct", ["x"], ["y"])], "output `y`: reads a sequence where a tensor is needed"),
        ([node("SequenceEmpty", [], ["s"]), node("ConcatFromSequence", ["s"], ["y"], axis=0)], "without tensors"),
        ([node("SplitToSequence", ["x", "zero"], ["s"]), node("SequenceAt", ["s", "zero"], ["y"])], "pieces of 0"),
    ],
)
def test_refused(nodes: list[onnx.NodeProto], reason: str):
    with pytest.raises(UserError, match=reason) as caught:
        read_onnx(model(*nodes))
    assert caught.value.code == "E0103"


# -- shapes that operators without a numpy form of their own compute --------------------------------------------------


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ScatterND", ["s", "place", "four"], ["t"]), node("Expand", ["row", "t"], ["y"])],
        [node("CumSum", ["s", "zero"], ["t"]), node("Expand", ["ones", "t"], ["y"])],
        [node("TopK", ["s", "pair"], ["t", "i"]), node("Expand", ["ones", "t"], ["y"])],
        [node("GatherElements", ["s", "turned"], ["t"]), node("Expand", ["ones", "t"], ["y"])],
        [node("Unique", ["twice"], ["t"]), node("Expand", ["ones", "t"], ["y"])],
        [node("Compress", ["twice", "chosen"], ["t"]), node("Expand", ["ones", "t"], ["y"])],
        [node("ArgMax", ["s"], ["a"]), node("Concat", ["a", "a"], ["t"], axis=0), node("Expand", ["ones", "t"], ["y"])],
        [
            node("ConstantOfShape", ["square"], ["o"]),
            node("EyeLike", ["o"], ["e"]),
            node("NonZero", ["e"], ["n"]),
            node("Shape", ["n"], ["t"]),
            node("Expand", ["ones", "t"], ["y"]),
        ],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_shapes_fold_whatever_computes_them(monkeypatch: pytest.MonkeyPatch, nodes: list[onnx.NodeProto]):
    more = {
        "place": np.array([[0]]),
        "four": np.array([4]),
        "row": np.ones((1, 3), np.float32),
        "pair": np.array([2]),
        "turned": np.array([1, 0]),
        "twice": np.array([2, 3, 2]),
        "chosen": np.array([True, True, False]),
        "square": np.array([3, 3]),
    }
    monkeypatch.setattr(f"{__name__}.FIXED", FIXED | more)
    reads_shape = any("s" in item.input for item in nodes)
    assert set(agree(*([node("Shape", ["x"], ["s"])] if reads_shape else []), *nodes)) <= {"broadcast_to"}


def test_the_padding_of_torch():
    """`F.pad` reverses its list of pads with operators."""
    steps = [
        node("ConcatFromSequence", ["q"], ["p"], axis=0),
        node("Reshape", ["p", "pairs"], ["r"]),
        node("Slice", ["r", "end", "far", "first", "end"], ["t"]),
        node("Transpose", ["t"], ["u"], perm=[1, 0]),
        node("Reshape", ["u", "end"], ["v"]),
        node("Cast", ["v"], ["w"], to=TensorProto.INT64),
        node("Pad", ["x", "w"], ["y"]),
    ]
    pads = numpy_helper.from_array(np.array([1, 2, 0, 0]), "pads")
    proto = model(node("SequenceConstruct", ["pads"], ["q"]), *steps)
    for name, array in {"pairs": [-1, 2], "end": [-1], "far": [-(2**62)]}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.array(array), name))
    proto.graph.initializer.append(pads)
    graph = read_onnx(proto).programs["infer"]
    assert [item.op.name for item in graph.nodes] == ["pad"]
    np.testing.assert_array_equal(run(graph, {"x": X}).outputs["y"], np.pad(X, [(0, 0), (1, 2)]))
