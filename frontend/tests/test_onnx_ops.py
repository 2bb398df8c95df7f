"""Every operator converter against onnxruntime, through the reference interpreter of the graph."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest

from edgec.frontend.onnx import ops_elementwise, ops_movement, ops_nn, ops_reduce, read_onnx
from edgec.frontend.onnx.upgrade import ALIGN
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.verify import Phase, verify_graph
from edgec.tools.testing.models import one_node_onnx

onnxruntime.set_default_logger_severity(4)


def f32(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(sum(shape) + len(shape)).uniform(low, high, shape).astype(np.float32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Case:
    """One node: what it is given at run time, what the model fixes, and its attributes."""

    op: str
    feeds: Mapping[str, np.ndarray]
    fixed: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    nodes: int | None = None  # how many graph nodes it becomes, where that is the point

    @property
    def id(self) -> str:
        given = ",".join([*self.fixed, *self.attributes])
        return f"{self.op}-{self.opset}-{'x'.join(map(str, next(iter(self.feeds.values())).shape))}-{given}"


X4, X3, X2 = {"x": f32(2, 4, 7, 6)}, {"x": f32(2, 4, 9)}, {"x": f32(3, 5)}
SCALAR = np.array(0.5, np.float32)

ELEMENTWISE = [
    *(Case(op, {"a": f32(2, 3, 4), "b": f32(3, 1, low=0.5)}, nodes=1) for op in ("Add", "Sub", "Mul", "Div")),
    *(Case(op, X2, {"s": SCALAR}, nodes=1) for op in ("Add", "Sub", "Mul", "Div")),
    Case("Add", {"a": np.arange(6, dtype=np.int64)}, {"b": i64(3)}),
    *(Case(op, X4, nodes=1) for op in ("Relu", "Sigmoid", "Exp", "HardSwish", "HardSigmoid")),
    Case("HardSigmoid", X2, attributes={"alpha": 1 / 6, "beta": 0.4}),
    Case("Swish", X2, attributes={"alpha": 1.5}, opset=24),
    Case("Sum", {"a": f32(2, 3), "b": f32(3), "c": f32(1, 1)}, nodes=2),
    Case("Sum", X2, nodes=0),
    Case("Mean", {"a": f32(2, 3), "b": f32(3), "c": f32(2, 1)}),
    Case("Neg", X2),
    Case("Reciprocal", {"x": f32(3, 4, low=0.5)}),
    *(Case("Pow", X2, {"e": np.array(exponent, np.float32)}) for exponent in (1, 2, 3)),
    Case("Pow", X2, {"e": i64(2)}),
    Case("Clip", X2, attributes={"min": -0.5, "max": 1.0}, opset=7),
    Case("Clip", X2, attributes={"max": 1.0}, opset=10),
    Case("Clip", X2, {"low": SCALAR, "high": SCALAR * 3}, opset=13, nodes=1),
    Case("Clip", X2, {"_low": SCALAR, "high": SCALAR}, opset=12),
    Case("Clip", X2, {"low": SCALAR * 3, "high": SCALAR}),  # the upper bound wins
    Case("Clip", X2, nodes=0),
    Case("Min", X2, {"c": SCALAR}),
    Case("Max", X2, {"c": SCALAR, "d": SCALAR * 2}),
    Case("LeakyRelu", X2, attributes={"alpha": 0.3}),
    Case("PRelu", {"x": f32(2, 3, 4)}, {"slope": f32(3, 1)}),
    Case("Elu", X2, attributes={"alpha": 0.7}),
    Case("Selu", X2),
    Case("Celu", X2, attributes={"alpha": 0.7}),
    Case("Identity", X2, nodes=0),
    Case("Dropout", X2, attributes={"ratio": 0.4}, opset=7),
    Case("Dropout", X2, {"ratio": np.array(0.0, np.float32)}, nodes=0),
    Case("Cast", X2, attributes={"to": 1}, nodes=0),
    Case("CastLike", X2, {"like": SCALAR}, nodes=0),
]
W, B = f32(8, 4, 3, 3), f32(8)
LAYERS = [
    Case("Conv", X4, {"w": W}, nodes=1),
    Case("Conv", X4, {"w": W, "b": B}, {"pads": [1, 2, 0, 1], "strides": [2, 1]}, nodes=3),
    Case("Conv", X4, {"w": f32(8, 2, 3, 3), "b": B}, {"group": 2, "dilations": [2, 1], "kernel_shape": [3, 3]}),
    Case("Conv", X4, {"w": f32(4, 1, 3, 3)}, {"group": 4, "pads": [1, 1, 1, 1]}),
    *(
        Case("Conv", {"x": f32(1, 4, h, 8)}, {"w": W}, {"auto_pad": pad, "strides": [2, 3]})
        for h in (7, 8)
        for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("Conv", X3, {"w": f32(8, 4, 3), "b": B}, {"pads": [2, 1], "strides": [2], "dilations": [2]}),
    Case("ConvTranspose", X4, {"w": f32(4, 3, 3, 3), "b": f32(3)}, {"strides": [2, 2], "pads": [1, 0, 1, 1]}),
    Case("ConvTranspose", X4, {"w": f32(4, 3, 3, 3)}, {"strides": [2, 3], "output_padding": [1, 2], "group": 2}),
    Case("ConvTranspose", X3, {"w": f32(4, 3, 3)}, {"strides": [2], "dilations": [2]}),
    Case("Gemm", X2, {"w": f32(5, 4), "c": f32(4)}, nodes=2),
    Case("Gemm", X2, {"w": f32(4, 5), "c": f32(3, 1)}, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", {"a": f32(5, 3), "b": f32(5, 4)}, attributes={"transA": 1}, nodes=1),
    Case("MatMul", {"a": f32(2, 1, 3, 4), "b": f32(5, 4, 2)}, nodes=1),
    Case("MatMul", {"a": f32(4), "b": f32(2, 4, 3)}),
    Case("MatMul", {"a": f32(2, 3, 4), "b": f32(4)}),
    Case("MatMul", {"a": f32(4), "b": f32(4)}),
    *(
        Case(
            "BatchNormalization",
            {"x": f32(*shape)},
            {"gamma": f32(4), "beta": f32(4), "mean": f32(4) / 2, "var": f32(4, low=0.5)},
            {"epsilon": 1e-3},
            opset=opset,
            nodes=1,
        )
        for shape, opset in (((2, 4, 3, 3), 7), ((2, 4, 3), 13), ((5, 4), 17))
    ),
]
POOL = {"kernel_shape": [3, 2], "strides": [2, 2]}
REDUCTIONS = [
    *(
        Case(op, {"x": f32(2, 3, 4, low=0.1)}, attributes={"axes": [1], "keepdims": kept}, opset=opset)
        for op in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
        for kept, opset in ((0, 11), (1, 13))
    ),
    Case("ReduceLogSumExp", {"x": np.float32([[1000, 1001], [-1000, -1002]])}, {"a": i64(1)}, opset=18),
    Case("MaxPool", X4, attributes=POOL, nodes=1),
    Case("MaxPool", X4, attributes={**POOL, "pads": [1, 0, 1, 1], "ceil_mode": 1}),
    Case("MaxPool", X4, attributes={**POOL, "dilations": [2, 2]}),
    Case("MaxPool", X4, attributes={**POOL, "auto_pad": "SAME_LOWER"}),
    Case("MaxPool", X3, attributes={"kernel_shape": [3], "pads": [1, 1], "strides": [2]}),
    Case("AveragePool", X4, attributes=POOL, nodes=1),
    Case("AveragePool", X4, attributes={**POOL, "pads": [1, 0, 1, 1]}),
    Case("AveragePool", X4, attributes={**POOL, "pads": [1, 0, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", X4, attributes={**POOL, "pads": [1, 0, 1, 1], "ceil_mode": 1}, opset=19),
    Case("AveragePool", {"x": f32(1, 2, 6, 7)}, {}, {**POOL, "ceil_mode": 1, "count_include_pad": 1}, opset=19),
    Case("AveragePool", X4, attributes={**POOL, "auto_pad": "SAME_UPPER"}),
    Case("AveragePool", X3, attributes={"kernel_shape": [4], "strides": [3]}),
    *(Case(op, x, nodes=1) for op in ("GlobalAveragePool", "GlobalMaxPool") for x in (X4, X3)),
    *(
        Case(op, {"x": f32(2, 3, 4)}, attributes=attributes, opset=11)
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare")
        for attributes in ({"axes": [-1, 0]}, {"axes": [1], "keepdims": 0}, {})
    ),
    *(
        Case(op, {"x": f32(2, 3, 4)}, {"axes": i64(2, 1)}, {"keepdims": 0}, opset=18)
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare")
    ),
    Case("ReduceSum", X2, attributes={"noop_with_empty_axes": 1}, opset=13, nodes=0),
    Case("Softmax", {"x": f32(2, 3, 4)}, nodes=1),
    Case("Softmax", {"x": f32(2, 3, 4)}, attributes={"axis": 1}, nodes=1),
    Case("Softmax", {"x": f32(2, 3, 4)}, opset=11, nodes=3),
    Case("Softmax", {"x": f32(2, 3, 4)}, attributes={"axis": 0}, opset=7),
    Case("Softmax", {"x": f32(2, 3, 1)}, opset=11, nodes=1),
]
MOVEMENTS = [
    Case("Reshape", {"x": f32(2, 3, 4)}, {"s": i64(0, -1, 2)}, nodes=1),
    Case("Reshape", {"x": f32(2, 3, 4)}, {"s": i64(2, 3, 4)}, nodes=0),
    *(Case("Flatten", X4, attributes={"axis": axis}) for axis in (0, 1, -1, 4)),
    Case("Squeeze", {"x": f32(1, 3, 1)}),
    Case("Squeeze", {"x": f32(1, 3, 1)}, {"axes": i64(-1)}),
    Case("Squeeze", {"x": f32(1, 3, 1)}, attributes={"axes": [0]}, opset=11),
    Case("Unsqueeze", X2, {"axes": i64(-1, 0)}),
    Case("Unsqueeze", X2, attributes={"axes": [1, 3]}, opset=9),
    Case("Transpose", {"x": f32(2, 3, 4)}, nodes=1),
    Case("Transpose", {"x": f32(2, 3, 4)}, attributes={"perm": [1, 0, 2]}),
    Case("Transpose", X2, attributes={"perm": [0, 1]}, nodes=0),
    Case("Concat", {"a": f32(2, 3), "b": f32(2, 1), "c": f32(2, 4)}, attributes={"axis": -1}, nodes=1),
    Case("Concat", {"a": f32(2, 3)}, {"b": f32(1, 3)}, attributes={"axis": 0}),
    Case("Slice", X4, {"s": i64(1, -3), "e": i64(9, 2**62), "a": i64(1, -1), "t": i64(2, 1)}, nodes=1),
    Case("Slice", X2, {"s": i64(0, 1), "e": i64(-1, 100)}),
    Case("Slice", X2, attributes={"starts": [1], "ends": [-1], "axes": [1]}, opset=9),
    Case("Slice", X2, {"s": i64(3), "e": i64(1)}),  # empty
    Case("ReduceProd", X3, attributes={"axes": [1]}),
    Case("Split", {"x": f32(2, 7)}, {"s": i64(3, 4)}, {"axis": 1}, outputs=2),
    Case("Split", {"x": f32(2, 6)}, attributes={"axis": -1, "split": [1, 5]}, opset=11, outputs=2),
    Case("Split", {"x": f32(6, 2)}, outputs=3),
    Case("Split", {"x": f32(7, 2)}, attributes={"num_outputs": 3}, opset=18, outputs=3),
    Case("Gather", X4, {"i": np.array(-1)}, {"axis": 2}),
    Case("Gather", X4, {"i": i64(0, 2)}, {"axis": 1}, nodes=1),
    Case("Gather", X4, {"i": np.array([[1, 2], [3, 4]])}, {"axis": 3}),
    Case("Gather", X4, {"i": i64(2, 1, 0)}, {"axis": 1}, nodes=4),
    Case("Pad", X2, {"p": i64(1, 0, 0, 2)}, nodes=1),
    Case("Pad", X2, {"p": i64(1, -1, 0, 2), "v": SCALAR}, nodes=2),
    Case("Pad", X2, {"p": i64(1, 2), "v": SCALAR, "a": i64(-1)}, opset=18),
    Case("Pad", X2, attributes={"pads": [1, 0, 0, 2], "value": 1.5}, opset=10),
    Case("Pad", X2, {"p": i64(0, 0, 0, 0)}, nodes=0),
    Case("Expand", {"x": f32(3, 1)}, {"s": i64(2, 1, 4)}, nodes=1),
    Case("Expand", X2, {"s": i64(1, 1)}, nodes=0),
    Case("Tile", X2, {"r": i64(2, 3)}),
    Case("DepthToSpace", {"x": f32(2, 8, 2, 3)}, attributes={"blocksize": 2}),
    Case("DepthToSpace", {"x": f32(2, 8, 2, 3)}, attributes={"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", {"x": f32(2, 3, 4, 6)}, attributes={"blocksize": 2}),
    Case("Shape", X4, nodes=0),
    Case("Shape", X4, attributes={"start": 1, "end": -1}, nodes=0),
    Case("Size", X4, nodes=0),
]
CASES = [*ELEMENTWISE, *LAYERS, *REDUCTIONS, *MOVEMENTS]


def by_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_operator(case: Case):
    check(case)


def check(case: Case):
    """The converted node, interpreted, agrees with onnxruntime."""
    model = one_node_onnx(
        case.op, case.feeds, case.fixed, opset=case.opset, outputs=case.outputs, **dict(case.attributes)
    )
    graph = read_onnx(model).programs["infer"]
    verify_graph(graph, Phase.IMPORTED)
    actual = run(graph, case.feeds).outputs
    for index, expected in enumerate(by_onnxruntime(typed(model, actual), case.feeds)):
        name = f"y{index}"
        assert actual[name].shape == expected.shape and actual[name].dtype == expected.dtype
        np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=1e-5)
    if case.nodes is not None:
        assert len(graph.nodes) == case.nodes
    assert {node.source for node in graph.nodes} <= {f"the_{case.op.lower()}"}


def typed(model: onnx.ModelProto, outputs: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with its outputs declared in the dtypes that they have: onnxruntime insists."""
    for info in model.graph.output:
        info.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(outputs[info.name].dtype)
    return model


def test_every_converter_has_a_case():
    """Those of other families have theirs in tests of their own."""
    tables = (ops_elementwise.ELEMENTWISE, ops_nn.LAYERS, ops_reduce.REDUCTIONS, ops_movement.MOVEMENTS)
    assert set().union(*tables) - {"LogSoftmax", ALIGN} <= {case.op for case in CASES}


REFUSED = [
    (Case("Conv", {"x": f32(1, 2, 3, 3, 3, 3)}, {"w": f32(2, 2, 1, 1, 1, 1)}), "an input of rank 6"),
    (Case("Conv", X4, {"w": W}, {"auto_pad": "SOME"}), "auto_pad `SOME` is unknown"),
    (Case("Conv", X4, {"w": W}, {"kernel_shape": [2, 2]}), "kernel_shape does not agree"),
    (Case("Conv", X4, {"w": W, "b": f32(4)}), "the bias has shape [4] for 8 channels"),
    (Case("Conv", X4, {"w": W}, {"strides": [0, 1]}), "strides [0, 1] must be 2 positive integers"),
    (Case("MaxPool", X4), "attribute `kernel_shape` is missing"),
    (Case("Reshape", {"x": f32(2, 3), "s": i64(6)}), "the target shape is computed from the model's inputs"),
    (Case("Reshape", X2, {"s": i64(4, -1)}), "shape [4, -1] does not fit [3, 5]"),
    (Case("Pad", X2, {"p": i64(1, 0, 0, 2)}, {"mode": "mirror"}), "padding mode `mirror` is unknown"),
    (Case("Cast", X2, {}, {"to": 8}), "makes a tensor of dtype string"),
    (Case("Split", {"x": f32(5, 2)}, {"s": i64(3, 3)}, outputs=2), "5 cannot be split into [3, 3]"),
    (Case("Cast", X2, {}, {"to": 5}), "makes a tensor of dtype int16"),
    (Case("BitwiseNot", X2), "flips bits of f32"),
    (Case("Unique", X2), "its output shape depends on data"),
    (Case("RandomNormalLike", X2), "random numbers at run time"),
    (Case("Loop", X2), "attribute `body` is missing"),
    (Case("TfIdfVectorizer", X4), "the operator has no equivalent"),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=lambda item: item.id if isinstance(item, Case) else "")
def test_refusal(case: Case, reason: str):
    model = one_node_onnx(
        case.op, case.feeds, case.fixed, opset=case.opset, outputs=case.outputs, **dict(case.attributes)
    )
    with pytest.raises(UserError) as caught:
        read_onnx(model)
    assert caught.value.code == "E0103"
    assert f"`the_{case.op.lower()}` ({case.op}, opset {case.opset}): {reason}" in caught.value.message
