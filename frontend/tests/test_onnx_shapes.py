"""Binding of dynamic dimensions: what is accepted, and the exact text of what is not."""

import pytest

from edgec.frontend.onnx.model import Input
from edgec.frontend.onnx.shapes import bind_shapes
from edgec.graph.errors import UserError
from edgec.graph.types import DType


def inputs(**dims: tuple | None) -> list[Input]:
    return [Input(name, DType.F32, shape) for name, shape in dims.items()]


IMAGE = inputs(x=("N", 3, 224, 224))
TEXT = inputs(ids=("batch", "seq"), mask=("batch", "seq"), scale=(1,))


@pytest.mark.parametrize(
    ("given", "shapes", "batch", "bound"),
    [
        (inputs(x=(2, 3)), {}, None, {"x": (2, 3)}),
        (IMAGE, {"x": (4, 3, 224, 224)}, None, {"x": (4, 3, 224, 224)}),
        (IMAGE, {}, 2, {"x": (2, 3, 224, 224)}),
        (IMAGE, {"x": (4, 3, 224, 224)}, 4, {"x": (4, 3, 224, 224)}),
        (TEXT, {"ids": (2, 7)}, None, {"ids": (2, 7), "mask": (2, 7), "scale": (1,)}),
        (TEXT, {"batch": (2,), "seq": (7,)}, None, {"ids": (2, 7), "mask": (2, 7), "scale": (1,)}),
        (TEXT, {"seq": (7,)}, 2, {"ids": (2, 7), "mask": (2, 7), "scale": (1,)}),
        (inputs(a=("N", 2), b=("M", "N")), {}, 3, {"a": (3, 2), "b": (3, 3)}),
        (inputs(a=(None, 2), b=(None, "N"), c=("N", 2)), {}, 3, {"a": (3, 2), "b": (3, 3), "c": (3, 2)}),
        (inputs(a=(None, None), b=("N",)), {"a": (5, 6)}, 2, {"a": (5, 6), "b": (2,)}),
        (inputs(a=(1, 8)), {}, 1, {"a": (1, 8)}),
        (inputs(a=None), {"a": (1, 8)}, None, {"a": (1, 8)}),
        (inputs(a=(), b=("N",)), {}, 2, {"a": (), "b": (2,)}),
    ],
)
def test_bound(given: list[Input], shapes: dict, batch: int | None, bound: dict):
    assert bind_shapes(given, shapes, batch, "m.onnx") == bound


@pytest.mark.parametrize(
    ("given", "shapes", "batch", "text"),
    [
        (
            IMAGE,
            {},
            None,
            "error[E0104]: no sizes were given for the dynamic shapes of:\n"
            "  `x` [N,3,224,224]\n"
            "  --> m.onnx\n"
            "hint: --shape x=1,3,224,224",
        ),
        (
            [*TEXT, *inputs(free=None, image=(None, 3, None, "W"))],
            {},
            None,
            "error[E0104]: no sizes were given for the dynamic shapes of:\n"
            "  `ids` [batch,seq]\n"
            "  `mask` [batch,seq]\n"
            "  `free` of unknown rank\n"
            "  `image` [?,3,?,W]\n"
            "  --> m.onnx\n"
            "hint: --shape ids=1,SEQ --shape mask=1,SEQ --shape free=SHAPE --shape image=1,3,D2,W "
            "with numbers for SEQ, SHAPE, D2, W",
        ),
        (
            TEXT,
            {},
            2,
            "error[E0104]: no sizes were given for the dynamic shapes of:\n"
            "  `ids` [batch,seq]\n"
            "  `mask` [batch,seq]\n"
            "  --> m.onnx\n"
            "hint: --shape ids=2,SEQ --shape mask=2,SEQ with numbers for SEQ",
        ),
        (
            IMAGE,
            {"y": (1,)},
            None,
            "error[E0105]: the model has no input `y`\n  --> m.onnx\nhint: its inputs: `x`; its dimensions: `N`",
        ),
        (
            IMAGE,
            {"x": (1, 3, 299, 224)},
            None,
            "error[E0105]: the shape [1,3,299,224] contradicts the model's `x` [N,3,224,224]\n  --> m.onnx",
        ),
        (
            IMAGE,
            {"x": (3, 224, 224)},
            None,
            "error[E0105]: the shape [3,224,224] contradicts the model's `x` [N,3,224,224]\n  --> m.onnx",
        ),
        (
            IMAGE,
            {"x": (-1, 3, 224, 224)},
            None,
            "error[E0105]: the shape [-1,3,224,224] for `x` is not all integers from 0\n  --> m.onnx",
        ),
        (
            TEXT,
            {"ids": (2, 7), "mask": (2, 8)},
            None,
            "error[E0105]: `seq` would be 7 by input `ids` [batch,seq] and 8 by input `mask` [batch,seq]: "
            "one symbol has one value\n  --> m.onnx",
        ),
        (
            TEXT,
            {"seq": (7,), "mask": (2, 8)},
            None,
            "error[E0105]: `seq` would be 7 by --shape and 8 by input `mask` [batch,seq]: one symbol has one value\n"
            "  --> m.onnx",
        ),
        (
            TEXT,
            {"seq": (7, 8)},
            None,
            "error[E0105]: the model has no input `seq`\n  --> m.onnx\n"
            "hint: its inputs: `ids`, `mask`, `scale`; its dimensions: `batch`, `seq`",
        ),
        (IMAGE, {}, 0, "error[E0105]: the batch 0 is not a positive integer\n  --> m.onnx"),
        (
            inputs(x=(1, 8)),
            {},
            2,
            "error[E0105]: no input has a leading dimension that --batch 2 could set\n  --> m.onnx\n"
            "hint: its inputs: `x` [1,8]",
        ),
    ],
)
def test_refused(given: list[Input], shapes: dict, batch: int | None, text: str):
    with pytest.raises(UserError) as caught:
        bind_shapes(given, shapes, batch, "m.onnx")
    assert str(caught.value) == text
