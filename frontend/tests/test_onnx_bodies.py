"""Graphs inside nodes: branches, loops and the definitions of composite operators, against onnx's own evaluator."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.context import MAX_EXPANDED
from edgec.frontend.onnx.ops_control import MAX_TRIPS
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Role

X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def typed(name: str, shape: tuple[int, ...] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list, fixed: dict[str, np.ndarray] | None = None, outputs: tuple[str, ...] = ("y",)
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in (fixed or {}).items()]
    graph = helper.make_graph(nodes, "g", [typed("x", X.shape)], [typed(name) for name in outputs], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def agree(proto: onnx.ModelProto) -> None:
    expected = ReferenceEvaluator(proto).run(None, {"x": X})
    outputs = run(read_onnx(proto).programs["infer"], {"x": X}).outputs
    for info, array in zip(proto.graph.output, expected, strict=True):
        np.testing.assert_allclose(outputs[info.name], array, rtol=1e-6, atol=1e-6)


def branch(op: str) -> onnx.GraphProto:
    """Reads `x` of the graph around it, and defines a name that the other branch defines too."""
    return helper.make_graph([helper.make_node(op, ["x", "x"], ["z"])], op, [], [typed("z")])


@pytest.mark.parametrize("condition", [True, False])
def test_one_branch_of_if_is_taken(condition: bool):
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("Add"), else_branch=branch("Mul"))
    proto = model([node], {"c": np.array(condition)})
    agree(proto)
    (imported,) = read_onnx(proto).programs["infer"].nodes
    assert imported.op.name == ("add" if condition else "mul")


@pytest.mark.parametrize("value", [True, False, 1, np.array([0])])
def test_a_switch_among_the_inputs_can_be_fixed(value: object):
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("Add"), else_branch=branch("Mul"))
    proto = model([node])
    proto.graph.input.append(typed("c", (1,), TensorProto.BOOL))
    assert [node.op.name for node in read_onnx(proto).programs["infer"].nodes] == ["reshape", "add", "mul", "where"]
    graph = read_onnx(proto, values={"c": value}).programs["infer"]
    assert [leaf.name for leaf in graph.by_role(Role.INPUT)] == ["x"]
    assert graph.nodes[0].op.name == ("add" if np.all(value) else "mul")


def test_values_that_do_not_fit():
    proto = model([helper.make_node("Mul", ["x", "k"], ["y"])])
    proto.graph.input.append(typed("k", (4,), TensorProto.INT64))
    for values, message in (
        ({"z": 1}, "no input `z`"),
        ({"k": 1.5}, "1.5 for `k` is not of its type i64"),
        ({"k": "fast"}, "is not of its type"),
        ({"k": [1, 2]}, "contradicts"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read_onnx(proto, values=values)
        assert caught.value.code == "E0105"


def on_data(then_branch: onnx.GraphProto, else_branch: onnx.GraphProto, limit: float) -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Less", ["top", "limit"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then_branch, else_branch=else_branch),
    ]
    return model(nodes, {"limit": np.float32(limit)})


@pytest.mark.parametrize("limit", [0, 100])
def test_a_condition_from_data_chooses_between_both_branches(limit: float):
    agree(on_data(branch("Add"), branch("Mul"), limit))


def test_branches_of_other_shapes_need_a_known_condition():
    total = helper.make_graph([helper.make_node("ReduceSum", ["x"], ["s"])], "sum", [], [typed("s")])
    with pytest.raises(UserError, match=r"chooses between f32\[3,4\] and f32\[1,1\]"):
        read_onnx(on_data(branch("Add"), total, 0))


def loop(trips: int, limit: int | None = None) -> onnx.ModelProto:
    """carried = 2 * carried + i * x; every row is kept. With `limit` the condition ends it."""
    nodes = [
        helper.make_node("Add", ["carried", "carried"], ["twice"]),
        helper.make_node("Cast", ["i"], ["i_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["i_float", "x"], ["scaled"]),
        helper.make_node("Add", ["twice", "scaled"], ["next"]),
        helper.make_node("Identity", ["next"], ["row"]),
        helper.make_node("Less", ["i", "limit"], ["going_on"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [typed("i", (), TensorProto.INT64), typed("going", (), TensorProto.BOOL), typed("carried", X.shape)],
        [typed("going_on", (), TensorProto.BOOL), typed("next"), typed("row")],
    )
    fixed = {
        "trips": np.array(trips, np.int64),
        "limit": np.array(1 << 40 if limit is None else limit, np.int64),
        "yes": np.array(True),
    }
    return model([helper.make_node("Loop", ["trips", "yes", "x"], ["y", "rows"], body=body)], fixed, ("y", "rows"))


@pytest.mark.parametrize(("trips", "limit"), [(1, None), (4, None), (9, 2)])
def test_a_loop_is_unrolled(trips: int, limit: int | None):
    carried, rows = X, []
    for i in range(trips if limit is None else limit + 1):
        carried = 2 * carried + i * X
        rows.append(carried)
    outputs = run(read_onnx(loop(trips, limit)).programs["infer"], {"x": X}).outputs
    np.testing.assert_array_equal(outputs["y"], carried)
    np.testing.assert_array_equal(outputs["rows"], np.stack(rows))  # onnx's own evaluator joins them instead


def test_a_loop_without_end_is_refused():
    with pytest.raises(UserError, match=f"runs more than {MAX_TRIPS} times|more than {MAX_EXPANDED} nodes"):
        read_onnx(loop(1 << 40))


@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_scan_is_unrolled(axis: int, backward: int):
    width = X.shape[1 - axis]
    nodes = [
        helper.make_node("Add", ["state", "part"], ["total"]),
        helper.make_node("Mul", ["total", "total"], ["row"]),
    ]
    ends = [typed("total", (width,)), typed("row", (width,))]
    body = helper.make_graph(nodes, "body", [typed("state", (width,)), typed("part", (width,))], ends)
    node = helper.make_node(
        "Scan",
        ["start", "x"],
        ["last", "y"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[backward],
    )
    start = np.linspace(-1, 1, width, dtype=np.float32)
    proto = model([node], {"start": start}, ("last", "y"))
    graph = read_onnx(proto).programs["infer"]
    outputs = run(graph, {"x": X}).outputs
    total, rows = start, []
    for part in np.moveaxis(X, axis, 0)[:: -1 if backward else 1]:
        total = total + part
        rows.append(total * total)
    np.testing.assert_allclose(outputs["last"], total, rtol=1e-6)
    np.testing.assert_allclose(outputs["y"], np.stack(rows), rtol=1e-6)
    assert [leaf.name for leaf in graph.by_role(Role.PARAM)] == ["start"]


def test_an_operator_without_converter_is_imported_by_its_definition():
    agree(model([helper.make_node("CenterCropPad", ["x", "shape"], ["y"])], {"shape": np.array([2, 7])}))


def test_all_that_fails_inside_a_body_is_listed_once():
    nodes = [
        helper.make_node("StringNormalizer", ["x"], ["d"], "letters"),
        helper.make_node("Neg", ["d"], ["n"]),
        helper.make_node("TfIdfVectorizer", ["n"], ["u"], "words"),
        helper.make_node("Identity", ["u"], ["row"]),
        helper.make_node("Identity", ["going"], ["on"]),
    ]
    body = helper.make_graph(
        nodes,
        "b",
        [typed("i", (), TensorProto.INT64), typed("going", (), TensorProto.BOOL)],
        [typed("on", (), TensorProto.BOOL), typed("row")],
    )
    node = helper.make_node("Loop", ["trips", ""], ["y"], "rows", body=body)
    with pytest.raises(UserError) as caught:
        read_onnx(model([node], {"trips": np.array(3)}))
    assert str(caught.value) == (
        "error[E0103]: the model has 2 nodes that cannot be imported:\n"
        "  `letters` (StringNormalizer, opset 20) in `rows` (Loop): the operator has no equivalent\n"
        "  `words` (TfIdfVectorizer, opset 20) in `rows` (Loop): the operator has no equivalent\n"
        "  --> the given model"
    )


def test_a_body_that_reads_what_nothing_defines():
    lost = helper.make_graph([helper.make_node("Neg", ["nowhere"], ["z"])], "t", [], [typed("z")])
    node = helper.make_node("If", ["c"], ["y"], "pick", then_branch=branch("Add"), else_branch=lost)
    with pytest.raises(UserError, match="E0102.*node `pick` reads `nowhere`, which nothing before it defines"):
        read_onnx(model([node], {"c": np.array(True)}))


def test_bodies_are_sorted():
    """onnxruntime takes nodes in any order, too."""
    nodes = [helper.make_node("Exp", ["a"], ["z"]), helper.make_node("Neg", ["x"], ["a"])]
    body = helper.make_graph(nodes, "t", [], [typed("z")])
    node = helper.make_node("If", ["c"], ["b"], then_branch=body, else_branch=branch("Mul"))
    proto = model([helper.make_node("Neg", ["b"], ["y"]), node], {"c": np.array(True)})
    (y,) = run(read_onnx(proto).programs["infer"], {"x": X}).outputs.values()
    np.testing.assert_allclose(y, -np.exp(-X), rtol=1e-6)
