"""ONNX models that are wrong in one way each, for the snapshots of errors. Not a test module itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node


def typed(name: str, shape: Sequence[int | str] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    fixed: dict[str, np.ndarray] | None = None,
    shape: Sequence[int | str] = (2, 6),
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> onnx.ModelProto:
    """x f32[shape] -> outputs."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (fixed or {}).items()]
    results = [typed(name, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "bad", [typed("x", shape)], results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _nested(depth: int) -> onnx.NodeProto:
    inner = node("Neg", ["x"], ["r0"])
    for level in range(depth):
        body = helper.make_graph([inner], "b", [], [typed(inner.output[0], None)])
        inner = node("If", ["flag"], [f"r{level + 1}"], f"level{level}", then_branch=body, else_branch=body)
    return inner


def _external(location: str, **entries: object) -> onnx.ModelProto:
    """A model whose weight lies in another file."""
    made = model([node("MatMul", ["x", "w"], ["y"], "dense")], {"w": np.ones((6, 3), np.float32)})
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location} | entries).items():
        weight.external_data.add(key=key, value=str(value))
    return made


def _changed(tensor: dict[str, object]) -> onnx.ModelProto:
    made = model([node("MatMul", ["x", "w"], ["y"], "dense")], {"w": np.ones((6, 3), np.float32)})
    for name, value in tensor.items():
        if name == "dims":
            made.graph.initializer[0].dims[:] = value
        else:
            setattr(made.graph.initializer[0], name, value)
    return made


def _counting() -> onnx.ModelProto:
    ends = [typed("on", (), TensorProto.BOOL), typed("next", None)]
    starts = [typed("i", (), TensorProto.INT64), typed("going", (), TensorProto.BOOL), typed("carried", None)]
    steps = [node("Identity", ["going"], ["on"]), node("Neg", ["carried"], ["next"])]
    body = helper.make_graph(steps, "b", starts, ends)
    nodes = [
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Cast", ["total"], ["trips"], to=TensorProto.INT64),
        node("Loop", ["trips", "", "x"], ["y"], "by_sum", body=body),
    ]
    return model(nodes)


def _endless() -> onnx.ModelProto:
    ends = [typed("on", (), TensorProto.BOOL), typed("next", None)]
    starts = [typed("i", (), TensorProto.INT64), typed("going", (), TensorProto.BOOL), typed("carried", None)]
    steps = [node("Identity", ["going"], ["on"]), node("Neg", ["carried"], ["next"])]
    body = helper.make_graph(steps, "b", starts, ends)
    return model([node("Loop", ["", "yes", "x"], ["y"], "forever", body=body)], {"yes": np.array(True)})


def bad_models() -> dict[str, onnx.ModelProto]:
    """Name to model."""
    relu = node("Relu", ["x"], ["y"])
    twice = model([relu], {"w": np.ones(2, np.float32)})
    twice.graph.initializer.append(twice.graph.initializer[0])
    return {
        "cycle": model(
            [node("Add", ["x", "b"], ["a"], "A"), node("Relu", ["a"], ["b"], "B"), node("Exp", ["b"], ["y"])]
        ),
        "undefined": model([node("Add", ["x", "nowhere"], ["y"], "add")]),
        "mismatch": model([node("MatMul", ["x", "w"], ["y"], "dense")], {"w": np.ones((5, 3), np.float32)}),
        "two-names": model([node("Relu", ["x"], ["y"], "first"), node("Exp", ["x"], ["y"], "second")]),
        "two-weights": twice,
        "wrong-bytes": _changed({"raw_data": b"\0" * 70}),
        "negative": _changed({"dims": [6, -3]}),
        "overflow": _changed({"dims": [2**40, 2**40]}),
        "huge-input": model([relu], shape=(2**40, 2**40)),
        "huge-result": model([node("Expand", ["x", "s"], ["y"], "expand")], {"s": np.array([2**40, 2, 6])}),
        "huge-rank": model([node("Unsqueeze", ["x"], ["y"], "grow", axes=list(range(100_000)))], opset=11),
        "huge-list": model([node("Transpose", ["x"], ["y"], "turn", perm=list(range(100_000)))]),
        "nine-axes": model([relu], shape=(1,) * 9),
        "long-name": model([node("Relu", ["x"], ["y" * 1_000_000])], outputs=("y" * 1_000_000,)),
        "control": model([node("Foo", ["x"], ["y"], "\x1b[31mred\nerror[E0999]: forged")]),
        "control-value": model([node("Relu", ["x"], ["\x1b[2J"]), node("Exp", ["\x1b[2J"], ["y"])]),
        "by-data": _counting(),
        "endless": _endless(),
        "nested": model([_nested(6), node("Foo", ["r6"], ["y"], "behind")], {"flag": np.array(True)}),
        "arity": model([node("Relu", ["x", "x"], ["a"], "two"), node("Conv", ["a"], ["y"], "one")]),
        "future": model([relu], opset=99),
        "no-outputs": model([relu], outputs=()),
        "echo": model([], outputs=("x",)),
        "data-missing": _external("gone.data"),
        "data-short": _external("short.data"),
        "data-root": _external("/etc/passwd"),
        "data-up": _external("../up.data"),
        "data-link": _external("link.data"),
        "data-device": _external("zero.data"),
        "data-fifo": _external("fifo.data"),
        "data-offset": _external("short.data", offset="-8"),
        "data-length": _external("short.data", length="12"),
        "int4": _int4(),
    }


def _int4() -> onnx.ModelProto:
    nodes = [node("DequantizeLinear", ["w", "scale"], ["f"], "unpack"), node("Add", ["x", "f"], ["y"])]
    made = model(nodes, {"scale": np.float32(0.5)}, opset=21)
    made.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, [6], [1] * 6))
    return made


def write_bad_models(folder: Path) -> None:
    """Each as `NAME.onnx`, with what lies beside some of them; and a file that is too large for the format."""
    for name, made in bad_models().items():
        (folder / f"{name}.onnx").write_bytes(made.SerializeToString())
    (folder / "short.data").write_bytes(b"\0" * 8)
    (folder / "link.data").symlink_to("/etc/hostname")
    (folder / "zero.data").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.data")
    os.mkfifo(folder / "pipe.onnx")
    with open(folder / "large.onnx", "wb") as file:
        file.truncate(2**31)  # sparse
