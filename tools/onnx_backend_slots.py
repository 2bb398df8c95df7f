"""Inputs of ONNX operators that decide shapes or structure, as data: operator to input positions.

A program is static, so what stands here must be known when a model is compiled. Everything else is data.
"""

from __future__ import annotations

_AXES = (1,)

STRUCTURAL_SLOTS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),  # size
    "BlackmanWindow": (0,),  # size
    "CenterCropPad": (1,),  # shape
    "Col2Im": (1, 2),  # image_shape, block_shape
    "ConstantOfShape": (0,),  # shape
    "CumProd": _AXES,
    "CumSum": _AXES,
    "DFT": (1, 2),  # dft_length, axis
    "Expand": (1,),  # shape
    "HammingWindow": (0,),  # size
    "HannWindow": (0,),  # size
    "Loop": (0,),  # trip count
    "MaxUnpool": (2,),  # output_shape
    "MelWeightMatrix": (0, 1),  # bands, length of the transform
    "OneHot": (1,),  # depth
    "Pad": (1, 3),  # pads, axes
    "Range": (0, 1, 2),  # start, limit, delta
    "ReduceL1": _AXES,
    "ReduceL2": _AXES,
    "ReduceLogSum": _AXES,
    "ReduceLogSumExp": _AXES,
    "ReduceMax": _AXES,
    "ReduceMean": _AXES,
    "ReduceMin": _AXES,
    "ReduceProd": _AXES,
    "ReduceSum": _AXES,
    "ReduceSumSquare": _AXES,
    "Reshape": (1,),  # shape
    "Resize": (2, 3),  # scales, sizes (up to opset 10: 1, scales, as `Upsample`)
    "STFT": (1, 3),  # frame_step, frame_length
    "Slice": (1, 2, 3, 4),  # starts, ends, axes, steps
    "Split": (1,),  # sizes
    "SplitToSequence": (1,),  # sizes
    "Squeeze": _AXES,
    "Tile": (1,),  # repeats
    "TopK": (1,),  # k
    "Unsqueeze": _AXES,
    "Upsample": (1,),  # scales
}

# What is computed from the type of a tensor alone: its inputs decide nothing by their values.
TYPE_ONLY = frozenset({"Shape", "Size"})
