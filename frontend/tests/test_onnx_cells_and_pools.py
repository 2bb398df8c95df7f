"""Converters of cells, pools, quantization and selections against onnxruntime, by the reference interpreter."""

from collections.abc import Iterator

import numpy as np
import pytest
from test_onnx_ops import X2, X3, X4, Case, by_onnxruntime, check, f32, i64

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.ops_grid import GRIDS
from edgec.frontend.onnx.ops_pool import POOLS
from edgec.frontend.onnx.ops_quant import QUANTIZED
from edgec.frontend.onnx.ops_recurrent import RECURRENT
from edgec.frontend.onnx.ops_regions import REGIONS
from edgec.frontend.onnx.ops_select import SELECTIONS
from edgec.frontend.onnx.ops_signal import SIGNALS
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.tools.testing.models import one_node_onnx

STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 2, 4
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LENGTHS = np.array([2, 5, 1], np.int32)


def recurrent(op: str, directions: int = 1, *, bias: bool = True, lengths: bool = False, **attributes: object) -> Case:
    rows = GATES[op] * HIDDEN
    fixed = {"w": f32(directions, rows, FEATURES), "r": f32(directions, rows, HIDDEN)}
    fixed["b" if bias else "_b"] = f32(directions, 2 * rows)
    fixed["n" if lengths else "_n"] = LENGTHS
    fixed["h"] = f32(directions, BATCH, HIDDEN)
    if op == "LSTM":
        fixed |= {"c": f32(directions, BATCH, HIDDEN), "p": f32(directions, 3 * HIDDEN)}
    names = {1: "reverse" if attributes.pop("backward", False) else "forward", 2: "bidirectional"}
    given = {"hidden_size": HIDDEN, "direction": names[directions], **attributes}
    return Case(op, {"x": f32(STEPS, BATCH, FEATURES)}, fixed, given, outputs=3 if op == "LSTM" else 2)


def cells() -> Iterator[Case]:
    for op in GATES:
        yield recurrent(op)
        yield recurrent(op, bias=False, lengths=True)
        yield recurrent(op, backward=True, lengths=True, clip=0.5)
        yield recurrent(op, 2)
    yield recurrent("GRU", linear_before_reset=1)
    yield recurrent("LSTM", input_forget=1)
    for name in ("Relu", "LeakyRelu", "Elu", "Softsign", "Softplus"):
        yield recurrent("RNN", activations=[name])
    for name in ("Affine", "ScaledTanh", "ThresholdedRelu"):  # onnxruntime has other defaults than the standard
        yield recurrent("RNN", activations=[name], activation_alpha=[0.8], activation_beta=[0.6])
    yield recurrent("RNN", 2, activations=["HardSigmoid", "Affine"], activation_alpha=[0.3, 0.7], activation_beta=[0.4])
    # Numbers go to those that have them, in order.
    names = ["HardSigmoid", "Tanh", "ScaledTanh"]
    yield recurrent("LSTM", activations=names, activation_alpha=[0.3, 1.7], activation_beta=[0.6, 0.66])
    yield recurrent("GRU", activations=["Sigmoid", "LeakyRelu"], activation_alpha=[0.2], linear_before_reset=1)
    yield recurrent("GRU", 2, bias=False, linear_before_reset=1)


X5 = {"x": f32(2, 3, 5, 6, 7)}
POOLED = [
    Case("MaxPool", X5, attributes={"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [1, 0, 1, 0, 1, 0]}),
    Case("AveragePool", X5, attributes={"kernel_shape": [2, 3, 2], "pads": [1, 0, 1, 0, 1, 0]}),
    Case("AveragePool", X5, attributes={"kernel_shape": [2, 2, 2], "strides": [2, 2, 2], "ceil_mode": 1}, opset=19),
    Case("AveragePool", X4, attributes={"kernel_shape": [2, 2], "dilations": [2, 1], "pads": [1, 0, 0, 1]}, opset=19),
    *(
        Case("LpPool", X4, attributes={"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "p": p}, opset=18)
        for p in (1, 2, 3)
    ),
    *(Case("GlobalLpPool", X4, attributes={"p": p}) for p in (1, 2, 3)),
    *(Case(op, X3) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    Case("LRN", X4, attributes={"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 1.5}),
]
BYTES = np.random.default_rng(0).integers(0, 256, (3, 300), np.uint8)
SIGNED = np.random.default_rng(1).integers(-128, 128, (300, 4), np.int8)
IMAGE, FILTER = BYTES[:, :96].reshape(3, 4, 4, 6), SIGNED[:45].reshape(5, 4, 3, 3)
SCALE, ZERO = np.float32(0.02), np.uint8(128)
PARTS = {"sa": SCALE, "za": ZERO, "w": FILTER, "sb": f32(5, low=0.01, high=0.03), "zb": np.zeros(5, np.int8)}
INTEGERS = [
    Case("QuantizeLinear", X4, {"s": SCALE, "z": ZERO}),
    Case("QuantizeLinear", X4, {"s": f32(4, low=0.01, high=0.05), "z": np.int8([1, -2, 3, 0])}, {"axis": 1}),
    Case("DequantizeLinear", {"x": BYTES}, {"s": SCALE, "z": ZERO}),
    Case("DequantizeLinear", {"x": SIGNED}, {"s": f32(4), "z": np.int8([1, -2, 3, 0])}, {"axis": 1}),
    Case("DequantizeLinear", {"x": SIGNED}, {"s": f32(10, 4)}, {"axis": 0, "block_size": 30}, opset=21),
    Case("MatMulInteger", {"a": BYTES}, {"b": SIGNED, "za": ZERO}),
    Case(
        "ConvInteger", {"x": IMAGE}, {"w": np.uint8(FILTER.astype(np.int16) + 128), "z": ZERO}, {"pads": [1, 1, 1, 1]}
    ),
    Case(
        "QLinearMatMul",
        {"a": BYTES},
        {"sa": SCALE, "za": ZERO, "b": SIGNED, "sb": SCALE, "zb": np.int8(3), "s": np.float32(0.5), "z": ZERO},
    ),
    Case("QLinearConv", {"x": IMAGE}, {**PARTS, "s": np.float32(0.5), "z": ZERO, "b": np.int32([9, 0, 5, -999, 1])}),
]
SELECTED = [
    Case("Trilu", X4, nodes=1),
    Case("Trilu", X4, {"k": np.array(-1)}, {"upper": 0}),
    Case("OneHot", {"i": i64(1, -2, 9)}, {"d": i64(5), "v": np.float32([-1, 2])}),
    Case("OneHot", {"i": np.array([[1, 0]])}, {"d": i64(3), "v": np.float32([0, 1])}, {"axis": 0}),
    Case("Hardmax", X4),
    Case("Hardmax", X4, attributes={"axis": 2}, opset=11),
    *(Case("LpNormalization", X4, attributes={"axis": 1, "p": p}) for p in (1, 2)),
    *(Case("Det", {"x": f32(2, n, n)}, opset=11) for n in range(1, 5)),
    Case("LogSoftmax", X4, attributes={"axis": 1}),
    Case("LogSoftmax", X4, attributes={"axis": 2}, opset=11),
]
GRID = f32(2, 5, 3, 2, low=-1.3, high=1.3)
SAMPLED = [
    *(
        Case("GridSample", X4, {"g": GRID}, {"mode": mode, "padding_mode": padding, "align_corners": corners}, opset=20)
        for mode in ("nearest", "linear", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ),
    Case("DFT", {"x": f32(2, 9, 1)}, attributes={"axis": 1}),
    Case("DFT", {"x": f32(2, 9, 2)}, {"n": np.array(7)}, {"inverse": 1}),
    Case("DFT", {"x": f32(2, 8, 1)}, attributes={"onesided": 1}),
    Case("STFT", {"x": f32(2, 50, 1)}, {"step": np.array(7), "w": f32(16)}),
    Case("STFT", {"x": f32(2, 50)}, {"step": np.array(8), "_": i64(0), "n": np.array(15)}),
    Case("STFT", {"x": f32(1, 40, 2)}, {"step": np.array(5), "w": f32(16), "n": np.array(16)}, {"onesided": 0}),
    Case("Col2Im", {"x": f32(2, 12, 16)}, {"i": i64(5, 6), "b": i64(2, 3)}, opset=18),
    Case(
        "Col2Im",
        {"x": f32(1, 8, 9)},
        {"i": i64(5, 5), "b": i64(2, 2)},
        {"pads": [0, 0, 1, 1], "strides": [2, 2]},
        opset=18,
    ),
]
BOXES = np.float32([[0.5, 1, 4, 5], [-1, 2, 3, 9], [3, 3, 3.5, 3.5], [7, 7, 12, 12]])
ROIS = {"x": X4["x"], "r": BOXES, "b": i64(0, 1, 1, 0)}
SIZES = {"output_height": 3, "output_width": 2, "sampling_ratio": 2, "spatial_scale": 0.5}
PLACES = np.random.default_rng(5).permutation(2 * 24)[:18].reshape(1, 2, 3, 3)
MOVED = {"x": f32(2, 4, 5, 6), "w": f32(6, 2, 3, 2), "o": f32(2, 2 * 6 * 2, 5, 3), "b": f32(6), "m": f32(2, 12, 5, 3)}
PLACED = [
    *(
        Case("MaxPool", {"x": np.round(x["x"] * 2)}, attributes={**sizes, "storage_order": order}, outputs=2)
        for x, sizes in (
            (X3, {"kernel_shape": [3], "pads": [1, 1], "strides": [2]}),
            (X4, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}),
            (X5, {"kernel_shape": [2, 3, 2], "pads": [1, 1, 0, 1, 1, 1]}),
        )
        for order in (0, 1)
    ),
    Case("MaxPool", {"x": IMAGE}, attributes={"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]}),
    Case("MaxUnpool", {"x": f32(1, 2, 3, 3), "i": PLACES}, attributes={"kernel_shape": [2, 2], "strides": [2, 1]}),
    *(
        Case("RoiAlign", ROIS, attributes={**SIZES, "mode": mode, "coordinate_transformation_mode": places}, opset=16)
        for mode in ("avg", "max")
        for places in ("half_pixel", "output_half_pixel")
    ),
    Case("RoiAlign", ROIS, attributes=SIZES, opset=10),
    Case(
        "DeformConv",
        MOVED,
        attributes={"pads": [1, 0, 1, 1], "strides": [1, 2], "group": 2, "offset_group": 2},
        opset=19,
    ),
    Case("BatchNormalization", X4 | {name: f32(4, low=0.5, high=2) for name in "gbmv"}),
    Case("Dropout", X4, outputs=2),
    *(Case(op, {"x": X4["x"] > 0}, {"a": i64(1)}, opset=20) for op in ("ReduceMax", "ReduceMin")),
]
DIAGONALS = [
    Case("Trilu", {"x": f32(4, 5), "k": np.array(k)}, attributes={"upper": upper}) for k in (-2, 3) for upper in (0, 1)
]
CASES = [*cells(), *DIAGONALS, *POOLED, *INTEGERS, *SELECTED, *SAMPLED, *PLACED]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_operator(case: Case):
    check(case)


def test_every_converter_has_a_case():
    """Plain pools over one and two axes have theirs beside the other operators."""
    assert {*POOLS, *QUANTIZED, *RECURRENT, *SELECTIONS, *GRIDS, *SIGNALS, *REGIONS} <= {case.op for case in CASES} | {
        "MelWeightMatrix"
    }


def test_mel_weights_are_known():
    given = {"n": np.array(8), "l": np.array(64), "r": np.array(8192), "a": np.float32(0), "z": np.float32(4096)}
    model = one_node_onnx("MelWeightMatrix", {}, given)
    (weights,) = run(read_onnx(model).programs["infer"], {}).outputs.values()
    np.testing.assert_allclose(weights, by_onnxruntime(model, {})[0], rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0, 4096), (20, 4000), (300, 310)])
def test_mel_weights_of_frequencies_at_run_time(low: float, high: float):
    feeds = {"r": np.array(8192), "a": np.array(low, np.float32), "z": np.array(high, np.float32)}
    model = one_node_onnx("MelWeightMatrix", {"n": np.array(8), "l": np.array(64)} | feeds)
    graph = read_onnx(model, values={"n": 8, "l": 64}).programs["infer"]
    expected = by_onnxruntime(model, {"n": np.array(8), "l": np.array(64)} | feeds)[0]
    np.testing.assert_allclose(run(graph, feeds).outputs["y0"], expected, atol=1e-6)


REFUSED = [
    (recurrent("RNN", activations=["Cube"]), "activation `Cube`"),
    (recurrent("LSTM", activations=["Tanh"]), "3 activations are needed"),
    (Case("LSTM", X4, {"w": f32(1, 4, 2), "r": f32(1, 4, 1)}), "must have rank 3"),
    (Case("Hardmax", {"x": np.float32(1)}), "axis -1 is out of range for rank 0"),
    (Case("OneHot", {"i": i64(1), "d": i64(5), "v": f32(2)}), "the depth is computed from the model's inputs"),
    (Case("QuantizeLinear", X2, {"s": SCALE, "z": np.uint16(1)}, opset=21), "tensors of dtype uint16"),
    (Case("LpPool", X4, attributes={"kernel_shape": [9, 9]}, opset=18), "does not fit into 7"),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=lambda item: item.id if isinstance(item, Case) else "")
def test_refusal(case: Case, reason: str):
    model = one_node_onnx(
        case.op, case.feeds, case.fixed, opset=case.opset, outputs=case.outputs, **dict(case.attributes)
    )
    with pytest.raises(UserError) as caught:
        read_onnx(model)
    assert caught.value.code == "E0103"
    assert reason in caught.value.message
