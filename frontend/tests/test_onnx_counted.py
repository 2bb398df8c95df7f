"""Operators whose results have an extent that depends on data, and what follows them, against onnxruntime."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.graph.errors import UserError
from edgec.graph.interp import run, within_counts
from edgec.graph.verify import verify_graph

N = helper.make_node
BOXES, CLASSES = 23, 3
FIXED = {
    "most": np.array([6]),
    "iou": np.array([0.3], np.float32),
    "least": np.array([0.4], np.float32),
    "half": np.array(0.5, np.float32),
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "four": np.array([4]),
    "minus_one": np.array([-1]),
    "pairs": np.array([-1, 2]),
    "columns": np.array([2, 0]),
    "rows": np.array([[0.5, -1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 1.0, -1.0]], np.float32),
}
# `scores` f32[BOXES], `x` f32[BOXES,3], and of both what has a score above a half, counted along axis 0: `s` and `y`.
FILTER = [
    N("Greater", ["scores", "half"], ["good"]),
    N("NonZero", ["good"], ["places"]),
    N("Transpose", ["places"], ["at"]),
    N("GatherND", ["scores", "at"], ["s"]),
    N("GatherND", ["x", "at"], ["y"]),
]
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def chain(
    nodes: Sequence[onnx.NodeProto], feeds: Mapping[str, np.ndarray], outputs: Mapping[str, int], opset: int = 17
) -> onnx.ModelProto:
    """A model of `nodes` on `feeds`, all of `FIXED` being initializers."""
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    fixed = [numpy_helper.from_array(array, name) for name, array in FIXED.items() if name not in feeds]
    graph = helper.make_graph(list(nodes), "chain", infos, results, fixed)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def extents(model: onnx.ModelProto, draws: Sequence[Mapping[str, np.ndarray]]) -> list[tuple[int, ...]]:
    """Every output cut to its count is onnxruntime's, for each of `draws`; the shapes of the first output."""
    graph = read_onnx(model).programs["infer"]
    verify_graph(graph)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    shapes = []
    for feeds in draws:
        made = within_counts(graph, run(graph, dict(feeds)).outputs)
        for info, expected in zip(model.graph.output, session.run(None, dict(feeds)), strict=True):
            actual = made[info.name]
            assert actual.shape == expected.shape, info.name
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5, err_msg=info.name)
            shapes += [expected.shape] if info is model.graph.output[0] else []
    return shapes


def detections(seed: int, scale: float, images: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(0, 4, (images, BOXES, 4)).astype(np.float32)
    return {"boxes": boxes, "scores": (scale * rng.random((images, CLASSES, BOXES))).astype(np.float32)}


THRESHOLDS = ("most", "iou", "least")


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("opset", [10, 11, 17])
@pytest.mark.parametrize("given", [(), THRESHOLDS], ids=["fixed", "run-time"])
def test_suppression(center: int, opset: int, given: tuple[str, ...]):
    node = N("NonMaxSuppression", ["boxes", "scores", *THRESHOLDS], ["kept"], center_point_box=center)
    limits = {name: FIXED[name] for name in given}
    draws = [detections(seed, scale) | limits for seed, scale in enumerate((1.0, 0.6, 0.45, 0.3))]
    if given:
        draws += [draws[0] | {"most": np.array([most]), "iou": np.array([0.8], np.float32)} for most in (0, 1, 99)]
    shapes = extents(chain([node], draws[0], {"kept": INT}, opset), draws)
    assert len(set(shapes)) > 3 and shapes[3] == (0, 3)


def test_suppression_without_thresholds_and_without_room():
    draws = [detections(seed, 1.0) for seed in range(2)]
    assert extents(chain([N("NonMaxSuppression", ["boxes", "scores"], ["kept"])], draws[0], {"kept": INT}), draws) == [
        (0, 3),
        (0, 3),
    ]
    extents(chain([N("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"])], draws[0], {"kept": INT}), draws)


def test_what_is_behind_the_last_box_is_minus_one():
    feeds = detections(2, 0.45)
    model = chain([N("NonMaxSuppression", ["boxes", "scores", *THRESHOLDS], ["kept"])], feeds, {"kept": INT})
    made = run(read_onnx(model).programs["infer"], feeds).outputs
    count = int(made["kept.count"])
    assert 0 < count < len(made["kept"]) == 2 * CLASSES * FIXED["most"][0]
    assert (made["kept"][count:] == -1).all() and (made["kept"][:count] >= 0).all()


def test_suppression_of_known_boxes_is_folded():
    boxes, scores = detections(0, 1.0).values()
    fixed = [numpy_helper.from_array(boxes, "boxes"), numpy_helper.from_array(scores, "scores")]
    nodes = [
        N("Constant", [], ["b"], value=fixed[0]),
        N("Constant", [], ["s"], value=fixed[1]),
        N("NonMaxSuppression", ["b", "s", *THRESHOLDS], ["kept"]),
        N("Shape", ["kept"], ["shape"]),
        N("Expand", ["x", "shape"], ["y"]),
    ]
    feeds = {"x": np.ones((1, 1), np.float32)}
    assert extents(chain(nodes, feeds, {"y": FLOAT}), [feeds])[0][0] > 0


def test_the_end_of_a_detector():
    """Columns of what is kept, its boxes and scores, one table of them, and the best of it."""
    nodes = [
        N("NonMaxSuppression", ["boxes", "scores", *THRESHOLDS], ["kept"]),
        N("Split", ["kept"], ["image", "label", "box"], axis=1),
        N("Concat", ["image", "box"], ["image_box"], axis=1),
        N("GatherND", ["boxes", "image_box"], ["corners"]),
        N("GatherND", ["scores", "kept"], ["score"]),
        N("Unsqueeze", ["score", "one"], ["score_column"]),
        N("Cast", ["label"], ["label_column"], to=FLOAT),
        N("Concat", ["corners", "score_column", "label_column"], ["table"], axis=1),
        N("Shape", ["score"], ["n"]),
        N("Min", ["n", "four"], ["k"]),
        N("TopK", ["score", "k"], ["best", "order"]),
        N("Gather", ["table", "order"], ["best_rows"], axis=0),
    ]
    draws = [detections(seed, scale) for seed, scale in enumerate((1.0, 0.45, 0.42, 0.3))]
    outputs = {"table": FLOAT, "kept": INT, "best": FLOAT, "best_rows": FLOAT}
    model = chain(nodes, draws[0], outputs)
    assert len(set(extents(model, draws))) == 4
    graph = read_onnx(model).programs["infer"]
    counts = graph.counts
    assert graph.outputs["best_rows"].type.shape == (*FIXED["four"], 6), "no more room than the smallest bound"
    assert counts["table"] == counts["kept"] and counts["best"] == counts["best_rows"] != counts["kept"]


AFTERWARDS = {
    "elementwise": ([N("Mul", ["y", "half"], ["z"])], FLOAT),
    "with_a_twin": ([N("Unsqueeze", ["s", "one"], ["u"]), N("Add", ["y", "u"], ["z"])], FLOAT),
    "columns": ([N("Gather", ["y", "columns"], ["z"], axis=1)], FLOAT),
    "a_column": ([N("Gather", ["y", "two"], ["u"], axis=1), N("Squeeze", ["u", "one"], ["z"])], FLOAT),
    "other_axis": ([N("Transpose", ["y"], ["z"])], FLOAT),
    "first_rows": ([N("Slice", ["y", "zero", "four", "zero"], ["z"])], FLOAT),
    "other_slice": ([N("Slice", ["y", "one", "two", "one"], ["z"])], FLOAT),
    "flat": ([N("Reshape", ["y", "minus_one"], ["z"])], FLOAT),
    "flat_and_back": ([N("Concat", ["y", "y"], ["u"], axis=1), N("Reshape", ["u", "pairs"], ["z"])], FLOAT),
    "flattened": ([N("Unsqueeze", ["y", "zero"], ["u"]), N("Flatten", ["u"], ["z"], axis=2)], FLOAT),
    "one_behind_another": ([N("Concat", ["y", "x", "y"], ["z"], axis=0)], FLOAT),
    "shape": ([N("Shape", ["y"], ["z"])], INT),
    "other_extent": ([N("Shape", ["y"], ["z"], start=1)], INT),
    "sum": ([N("ReduceSum", ["y"], ["z"], keepdims=0)], FLOAT),
    "sum_of_rows": ([N("ReduceSum", ["y", "one"], ["z"], keepdims=0)], FLOAT),
    "largest_column": ([N("ReduceMax", ["y"], ["z"], axes=[1])], FLOAT),
    "best_column": ([N("ArgMax", ["y"], ["z"], axis=1, keepdims=0)], INT),
    "softmax": ([N("Softmax", ["y"], ["z"], axis=1)], FLOAT),
    "product": ([N("MatMul", ["y", "rows"], ["z"])], FLOAT),
    "layer": ([N("Gemm", ["y", "rows"], ["z"], transB=1)], FLOAT),
    "filtered_again": ([N("Greater", ["s", "three_quarters"], ["b"]), N("Compress", ["y", "b"], ["z"], axis=0)], FLOAT),
    "places": ([N("Greater", ["s", "three_quarters"], ["b"]), N("NonZero", ["b"], ["z"])], INT),
    "ranked": ([N("Shape", ["s"], ["k"]), N("TopK", ["s", "k"], ["z", "i"], largest=0)], FLOAT),
    "least_of_both": (
        [
            N("Shape", ["s"], ["n"]),
            N("Concat", ["n", "four"], ["both"], axis=0),
            N("ReduceMin", ["both"], ["k"], keepdims=1),
            N("TopK", ["s", "k"], ["z", "i"]),
        ],
        FLOAT,
    ),
    "in_order": (
        [N("Shape", ["s"], ["k"]), N("TopK", ["s", "k"], ["v", "i"]), N("Gather", ["y", "i"], ["z"])],
        FLOAT,
    ),
    "picked": ([N("Gather", ["x", "place"], ["z"], axis=0)], FLOAT),
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_afterwards(name: str):
    nodes, kind = AFTERWARDS[name]
    extra = [
        N("Constant", [], ["three_quarters"], value_float=0.75),
        N("Squeeze", ["places", "zero"], ["place"]),
    ]
    rng = np.random.default_rng(0)
    draws = [
        {"scores": (scale * rng.random(BOXES)).astype(np.float32), "x": rng.normal(size=(BOXES, 3)).astype(np.float32)}
        for scale in (1.0, 0.8, 0.6)
    ]
    extents(chain([*FILTER, *extra, *nodes], draws[0], {"z": kind}), draws)


def test_regions_by_a_network():
    """A second stage: as many regions as there were found, each through the same layers."""
    nodes = [
        N("NonMaxSuppression", ["boxes", "scores", *THRESHOLDS], ["kept"]),
        N("Gather", ["kept", "two"], ["box"], axis=1),
        N("Squeeze", ["boxes", "zero"], ["all"]),
        N("Squeeze", ["box", "one"], ["number"]),
        N("Gather", ["all", "number"], ["regions"], axis=0),
        N("Gather", ["kept", "first"], ["image"], axis=1),
        N("RoiAlign", ["map", "regions", "image"], ["r"], output_height=2, output_width=3, sampling_ratio=2),
        N("Conv", ["r", "kernel"], ["c"]),
        N("GlobalAveragePool", ["c"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 2, 6, 6)).astype(np.float32)
    constants = {"kernel": rng.normal(size=(4, 2, 1, 1)).astype(np.float32), "first": np.array(0)}
    made = [N("Constant", [], [name], value=numpy_helper.from_array(a, name)) for name, a in constants.items()]
    draws = [detections(seed, scale, images=1) | {"map": image} for seed, scale in enumerate((1.0, 0.45))]
    extents(chain([*made, *nodes], draws[0], {"y": FLOAT}), draws)


REFUSED = {
    "a mean": [N("ReduceMean", ["y"], ["z"])],
    "a product along it": [N("Transpose", ["y"], ["t"]), N("MatMul", ["t", "x"], ["z"])],
    "its last rows": [N("Slice", ["y", "one", "four", "zero"], ["z"])],
    "another extent beside it": [N("Add", ["y", "x"], ["z"])],
    "an operator without a rule": [N("CumSum", ["y", "zero"], ["z"])],
    "two of different data": [
        N("Less", ["scores", "half"], ["b"]),
        N("Compress", ["x", "b"], ["w"], axis=0),
        N("Add", ["y", "w"], ["z"]),
    ],
    "a shape": [N("Shape", ["y"], ["n"]), N("Expand", ["half", "n"], ["z"])],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused(name: str):
    feeds = {"scores": np.zeros(BOXES, np.float32), "x": np.zeros((BOXES, 3), np.float32)}
    with pytest.raises(UserError, match="at most|depend|known at compile time"):
        read_onnx(chain([*FILTER, *REFUSED[name]], feeds, {"z": FLOAT}))
