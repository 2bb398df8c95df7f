"""Converters of indexing, norms and resizing against onnxruntime, through the reference interpreter."""

import numpy as np
import pytest
from test_onnx_ops import X2, X3, X4, Case, check, f32, i64

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.ops_einsum import EINSUM
from edgec.frontend.onnx.ops_indexing import INDEXING
from edgec.frontend.onnx.ops_norm import NORMS
from edgec.frontend.onnx.ops_resize import RESIZES
from edgec.graph.errors import UserError
from edgec.tools.testing.models import one_node_onnx

INDICES = np.array([[2, 0, -1], [1, 1, 0]])
GAMMA, BETA = f32(4, low=0.5), f32(4)

# A region that is known at run time; of the last axis a part lies outside.
REGION = {"x": X4["x"], "roi": np.array([0, 0, 0.2, 0.6, 1, 1, 0.7, 1.3], np.float32)}
TF_CROP = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
CUT = {"_s": np.zeros(0, np.float32), "n": i64(2, 4, 5, 9)}

INDEXED = [
    Case("Gather", {"x": f32(9, 2), "i": i64(1, -9, 3)}, nodes=1),
    Case("Gather", {"x": f32(60, 2)}, {"i": i64(*range(0, 60, 7), *range(1, 60, 3))}, nodes=1),
    Case("GatherElements", {"x": f32(3, 3), "i": INDICES}, nodes=1),
    Case("GatherElements", {"x": f32(2, 4), "i": INDICES}, attributes={"axis": -1}),
    Case("GatherND", {"x": f32(3, 4, 2), "i": np.array([[1, -1], [0, 2]])}, nodes=1),
    Case("GatherND", {"x": f32(2, 4, 2), "i": np.array([[1], [0]])}, attributes={"batch_dims": 1}),
    *(
        Case("ScatterElements", {"x": f32(3, 3), "i": INDICES, "u": f32(2, 3)}, attributes={"reduction": how}, opset=18)
        for how in ("add", "mul", "min", "max")
    ),
    Case("ScatterElements", {"x": f32(2, 9), "i": np.array([[1, 3], [0, -1]]), "u": f32(2, 2)}, {}, {"axis": 1}),
    Case("Scatter", {"x": f32(3, 3), "i": INDICES[:1], "u": f32(1, 3)}, opset=9),
    *(
        Case(
            "ScatterND", {"x": f32(5, 3), "i": np.array([[4], [-5]]), "u": f32(2, 3)}, {}, {"reduction": how}, opset=18
        )
        for how in ("none", "add", "mul", "min", "max")
    ),
    *(
        Case(op, X4, {}, {"axis": 1, "keepdims": keep, "select_last_index": last})
        for op, keep, last in (("ArgMax", 0, 0), ("ArgMax", 1, 1), ("ArgMin", 1, 0), ("ArgMin", 0, 1))
    ),
    Case("TopK", X2, {"k": i64(2)}, outputs=2),
    Case("TopK", X4, {"k": i64(3)}, {"axis": 1, "largest": 0}, outputs=2),
    *(
        Case("CumSum", X2, {"axis": np.array(1)}, {"exclusive": exclusive, "reverse": reverse})
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ),
    Case("ReverseSequence", {"x": f32(5, 3, 2)}, {"n": i64(1, 5, 3)}),
    Case("ReverseSequence", {"x": f32(3, 5)}, {"n": i64(1, 5, 3)}, {"batch_axis": 0, "time_axis": 1}),
    Case("Compress", X2, {"c": np.array([True, False, True])}, {"axis": 0}, nodes=1),
    Case("Compress", X2, {"c": np.arange(15) % 4 == 1}),
    Case("EyeLike", X2, attributes={"k": 1}, nodes=0),
    Case("Slice", X2, {"s": i64(4), "e": i64(-9), "a": i64(1), "t": i64(-2)}),
    *(
        Case("Pad", X4, {"p": i64(0, 0, 2, 1, 0, 0, 1, 3)}, {"mode": mode}, opset=19)
        for mode in ("reflect", "edge", "wrap")
    ),
    Case("Pad", X2, {"p": i64(2, -1, 0, 2)}, {"mode": "edge"}),
    Case("ReduceMin", X4, attributes={"axes": [1, 3]}),
    Case("ReduceProd", X4, attributes={"axes": [1], "keepdims": 0}),
]
NORMALISED = [
    Case("LayerNormalization", {"x": f32(2, 3, 4)}, {"g": GAMMA, "b": BETA}, nodes=1),
    Case("LayerNormalization", {"x": f32(2, 3, 4)}, {"g": GAMMA}, {"epsilon": 0.1}),
    Case("LayerNormalization", {"x": f32(2, 3, 4)}, {"g": f32(3, 4), "b": f32(3, 4)}, {"axis": 1}),
    Case("LayerNormalization", {"x": f32(2, 3, 4)}, {"g": f32(1, 4), "b": f32(3, 1)}, {"axis": 1}),
    Case("InstanceNormalization", X3, {"g": GAMMA, "b": BETA}, {"epsilon": 0.1}),
    Case("InstanceNormalization", X4, {"g": GAMMA, "b": BETA}),
    Case("GroupNormalization", X4, {"g": GAMMA, "b": BETA}, {"num_groups": 2}, opset=21),
    Case("GroupNormalization", X4, {"g": f32(2), "b": f32(2)}, {"num_groups": 2}, opset=18),
]
SCALES, SIZES = np.array([1, 1, 1.7, 0.6], np.float32), i64(2, 4, 11, 4)
WHOLE = np.array([1, 1, 2, 0.5], np.float32)  # onnxruntime aligns the corners of what is left after rounding
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
RESIZED = [
    *(
        Case(
            "Resize",
            X4,
            {"_r": np.zeros(0), "s": WHOLE if how == "align_corners" else SCALES},
            {"mode": mode, "coordinate_transformation_mode": how},
            opset=19,
        )
        for mode in ("nearest", "linear", "cubic")
        for how in COORDINATES
        if (mode, how) != ("cubic", "half_pixel_symmetric")
    ),
    *(
        Case("Resize", X4, {"_r": np.zeros(0, np.float32), "_s": np.zeros(0, np.float32), "n": SIZES}, {"mode": mode})
        for mode in ("nearest", "linear", "cubic")
    ),
    *(
        Case("Resize", REGION, CUT, TF_CROP | {"mode": "nearest", "nearest_mode": rounding}, opset=19)
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    Case("Resize", REGION, CUT, TF_CROP | {"mode": "linear"}, opset=19),
    Case("Resize", REGION, {"_s": np.zeros(0), "n": i64(2, 4, 1, 1)}, TF_CROP | {"mode": "linear"}, opset=19),
    Case("Upsample", X4, {"s": np.array([1, 1, 2, 3], np.float32)}, opset=9),
    Case("Upsample", X4, {"s": np.array([1, 1, 2, 2], np.float32)}, {"mode": "linear"}, opset=9),
]
W3 = f32(4, 2, 2, 3, 3)
CONVOLVED = [
    Case("Conv", {"x": f32(2, 2, 5, 6, 7)}, {"w": W3, "b": f32(4)}, {"pads": [1, 0, 1, 0, 2, 1], "strides": [2, 1, 2]}),
    Case("Conv", {"x": f32(1, 4, 5, 6, 7)}, {"w": W3}, {"group": 2, "dilations": [2, 1, 1]}),
    Case("ConvTranspose", {"x": f32(2, 4, 3, 4, 5)}, {"w": W3, "b": f32(2)}),
    Case(
        "ConvTranspose",
        {"x": f32(1, 4, 3, 4, 2)},
        {"w": W3},
        {
            "group": 2,
            "strides": [2, 3, 1],
            "pads": [1, 0, 1, 0, 2, 1],
            "dilations": [2, 1, 1],
            "output_padding": [1, 2, 0],
        },
    ),
    Case("ConvTranspose", X4, {"w": f32(4, 3, 3, 3)}, {"strides": [2, 3], "auto_pad": "SAME_UPPER"}),
    Case("ConvTranspose", X4, {"w": f32(4, 3, 3, 3)}, {"strides": [2, 2], "output_shape": [14, 12]}),
    Case("ConvTranspose", X3, {"w": f32(4, 3, 4)}, {"strides": [2], "auto_pad": "SAME_LOWER"}),
    *(
        Case("Einsum", feeds, attributes={"equation": equation})
        for equation, feeds in (
            ("ij,jk->ik", {"a": f32(3, 4), "b": f32(4, 5)}),
            ("bhid,bhjd->bhij", {"a": f32(2, 3, 4, 5), "b": f32(2, 3, 6, 5)}),
            ("...ij,...jk", {"a": f32(2, 3, 4), "b": f32(2, 4, 5)}),
            ("ij,kl->jl", {"a": f32(3, 4), "b": f32(2, 5)}),
            ("ijk->ki", {"a": f32(3, 4, 5)}),
            ("ii->i", {"a": f32(4, 4)}),
            ("i,ij,j->", {"a": f32(3), "b": f32(3, 4), "c": f32(4)}),
            ("abc,cd,abe->de", {"a": f32(2, 3, 4), "b": f32(4, 5), "c": f32(2, 3, 6)}),
        )
    ),
]
CASES = [*INDEXED, *NORMALISED, *RESIZED, *CONVOLVED]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_operator(case: Case):
    check(case)


def test_every_converter_has_a_case():
    """All but those that onnxruntime does not know; the node tests of onnx have them."""
    unknown = {"CumProd", "TensorScatter", "RMSNormalization"}
    assert {*INDEXING, *NORMS, *RESIZES, *EINSUM} - unknown <= {case.op for case in CASES}


REFUSED = [
    (Case("Einsum", {"a": f32(3, 4)}, attributes={"equation": "ij,jk"}), "does not fit 1 operands"),
    (Case("Einsum", {"a": f32(3, 4)}, attributes={"equation": "ij->ik"}), "an axis that no operand has"),
    (Case("TopK", {"x": f32(5), "k": i64(2)}, outputs=2), "k is computed from the model's inputs"),
    (Case("Compress", X2, {"c": np.zeros(3, bool)}, {"axis": 0}), "the condition chooses nothing"),
    (Case("ReverseSequence", {"x": f32(5, 3)}, {"n": i64(1, 9, 3)}), "lengths [1, 9, 3] do not fit"),
    (Case("GroupNormalization", X4, {"g": GAMMA, "b": BETA}, {"num_groups": 3}, opset=21), "4 channels in 3 groups"),
    (Case("Resize", REGION, CUT, TF_CROP | {"mode": "cubic"}), "mode `cubic` in a region"),
    (Case("Resize", X4, {"_r": np.zeros(0), "s": SCALES}, {"mode": "area"}, opset=19), "mode `area` is unknown"),
    (Case("Resize", X4, opset=19), "neither scales nor sizes"),
    (Case("Resize", X2, {"_r": np.zeros(0), "s": np.float32([1, 1e9])}, opset=19), "an axis of the result would have"),
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
